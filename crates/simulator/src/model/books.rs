//! The provider's own books: every call, and what it would be billed.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use serde_json::{Value, json};

use crate::model::script::Usage;

/// One call, written when it ended.
#[derive(Clone, Debug)]
pub struct Entry {
    /// Counted from 1, in the order in which they ended.
    pub number: u64,
    /// When it arrived, nanoseconds since the UNIX epoch.
    pub at_ns: u64,
    /// Part of the answer's id and of its request id.
    pub id: String,
    /// `openai`, `anthropic`, `gemini` or `bedrock`.
    pub vendor: &'static str,
    /// As in the path: `chat/completions`, `messages`, ...
    pub service: &'static str,
    pub model: String,
    /// What the caller showed: a key, or the access key of a signature.
    pub key: String,
    /// What the call said with `tag=`.
    pub tag: Option<String>,
    pub stream: bool,
    pub status: u16,
    pub ended: Ended,
    /// What is billed: all of the input, and of the output what was made before the end.
    pub usage: Usage,
    /// Whether the caller was sent the usage, all of it.
    pub told: bool,
    /// What was asked, of the last calls.
    pub body: Bytes,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// Sent to its end.
    Completed,
    /// The caller was gone before.
    Cancelled,
    /// Ended by us, because a word asked for it.
    Cut,
    /// An error in place of an answer: nothing is billed.
    Refused,
}

impl Ended {
    pub fn name(self) -> &'static str {
        match self {
            Self::Completed => "completed",
            Self::Cancelled => "cancelled",
            Self::Cut => "cut",
            Self::Refused => "refused",
        }
    }
}

/// Bodies beyond these are forgotten.
const BODIES: usize = 1000;
const BODY: usize = 64 * 1024;

pub(crate) struct Books {
    capacity: usize,
    pages: Mutex<Pages>,
}

#[derive(Default)]
struct Pages {
    entries: VecDeque<Entry>,
    calls: u64,
    sum: Sum,
}

#[derive(Default)]
struct Sum {
    input: u64,
    cached: u64,
    written: u64,
    output: u64,
    reasoning: u64,
}

impl Books {
    pub(crate) fn new(capacity: usize) -> Self {
        Self { capacity, pages: Mutex::default() }
    }

    pub(crate) fn write(&self, mut entry: Entry) {
        let mut pages = self.pages();
        pages.calls += 1;
        entry.number = pages.calls;
        if entry.body.len() > BODY {
            entry.body = Bytes::new();
        }
        let Usage { input, cached, written, output, reasoning } = entry.usage;
        pages.sum.input += u64::from(input);
        pages.sum.cached += u64::from(cached);
        pages.sum.written += u64::from(written);
        pages.sum.output += u64::from(output);
        pages.sum.reasoning += u64::from(reasoning);
        if self.capacity == 0 {
            return;
        }
        if pages.entries.len() == self.capacity {
            pages.entries.pop_front();
        }
        if let Some(old) = pages.entries.len().checked_sub(BODIES).and_then(|old| pages.entries.get_mut(old)) {
            old.body = Bytes::new();
        }
        pages.entries.push_back(entry);
    }

    pub(crate) fn all(&self) -> Vec<Entry> {
        self.pages().entries.iter().cloned().collect()
    }

    /// Those after that number, and the sums of all that ever were.
    pub(crate) fn json(&self, since: u64) -> Value {
        let pages = self.pages();
        let calls: Vec<Value> = pages.entries.iter().filter(|entry| entry.number > since).map(Entry::json).collect();
        let Sum { input, cached, written, output, reasoning } = pages.sum;
        json!({
            "calls": calls,
            "sum": {
                "calls": pages.calls, "input": input, "cached": cached, "written": written, "output": output,
                "reasoning": reasoning,
            },
        })
    }

    fn pages(&self) -> MutexGuard<'_, Pages> {
        self.pages.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Entry {
    fn json(&self) -> Value {
        let Self { number, at_ns, id, vendor, service, model, key, tag, stream, status, ended, usage, told, body: _ } =
            self;
        let Usage { input, cached, written, output, reasoning } = usage;
        json!({
            "number": number, "at_ns": at_ns, "id": id, "vendor": vendor, "service": service, "model": model,
            "key": key, "tag": tag, "stream": stream, "status": status, "ended": ended.name(), "told": told,
            "usage": {
                "input": input, "cached": cached, "written": written, "output": output, "reasoning": reasoning,
            },
        })
    }
}
