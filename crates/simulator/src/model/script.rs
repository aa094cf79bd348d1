//! What the model says, before it is written in a dialect: pieces, each of them one token.

use serde_json::{Value, json};

use crate::model::ask::{Ask, Choice, Tool};
use crate::model::piece::{CAME, STAMP};
use crate::model::schema::instance;
use crate::model::words::{Stop, Words};

const TOKENS: u32 = 16;
const REASONING: u32 = 8;

pub(crate) struct Script {
    pub(crate) reasoning: Vec<String>,
    pub(crate) text: Vec<String>,
    pub(crate) calls: Vec<Called>,
    pub(crate) stop: Stop,
    pub(crate) usage: Usage,
    /// Whether the answer tells its usage.
    pub(crate) told: bool,
}

pub(crate) struct Called {
    pub(crate) name: String,
    pub(crate) arguments: Vec<String>,
}

/// What a call costs. Tokens read from the cache and written to it are among the input, reasoning is among the output;
/// dialects differ in that.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    pub input: u32,
    pub cached: u32,
    pub written: u32,
    pub output: u32,
    pub reasoning: u32,
}

impl Script {
    pub(crate) fn of(ask: &Ask, words: &Words) -> Self {
        let reasoning = words.reasoning.unwrap_or(if ask.reasoning { REASONING } else { 0 });
        let mut reasoning = prose(REASONED, reasoning as usize, false);
        let mut calls = calls(ask, words);
        let mut text = match &ask.schema {
            _ if !calls.is_empty() => prose(SAID, words.tokens.unwrap_or(0) as usize, words.stamp),
            Some(Value::Null) => cut_up(&json!({ "answer": "word" }).to_string()),
            Some(schema) => cut_up(&instance(schema).to_string()),
            None if words.echo => cut_up(&ask.prompt),
            None => prose(SAID, words.tokens.unwrap_or(TOKENS) as usize, words.stamp),
        };
        if let Some(bytes) = words.big {
            text.insert(0, "x".repeat(bytes));
        }
        let mut stop = if calls.is_empty() { Stop::End } else { Stop::Calls };
        if let Some(limit) = ask.limit {
            let mut left = limit as usize;
            let mut cut = false;
            let pieces = [&mut reasoning, &mut text].into_iter();
            for pieces in pieces.chain(calls.iter_mut().map(|call| &mut call.arguments)) {
                cut |= pieces.len() > left;
                pieces.truncate(left);
                left -= pieces.len();
            }
            if cut {
                stop = Stop::Length;
            }
        }
        let called: usize = calls.iter().map(|call| call.arguments.len()).sum();
        let input = words.input.unwrap_or(ask.input);
        let cached = words.cached.unwrap_or(0).min(input);
        let usage = Usage {
            input,
            cached,
            written: words.written.unwrap_or(0).min(input - cached),
            output: (reasoning.len() + text.len() + called) as u32,
            reasoning: reasoning.len() as u32,
        };
        Self { reasoning, text, calls, stop: words.stop.unwrap_or(stop), usage, told: !words.no_usage }
    }

    pub(crate) fn said(&self) -> String {
        self.text.concat()
    }

    pub(crate) fn thought(&self) -> String {
        self.reasoning.concat()
    }
}

impl Called {
    pub(crate) fn written(&self) -> String {
        self.arguments.concat()
    }

    /// Of arguments that the limit cut short there is no value.
    pub(crate) fn value(&self) -> Value {
        serde_json::from_str(&self.written()).unwrap_or_else(|_| json!({}))
    }
}

const SAID: &[&str] =
    &["The", " water", " is", " held", " back", ",", " measured", " and", " let", " go", " again", ".", " Then"];
const REASONED: &[&str] = &["They", " ask", " for", " an", " answer", ",", " so", " think", " first", "."];

fn prose(of: &[&str], tokens: usize, stamped: bool) -> Vec<String> {
    if stamped {
        let first = std::iter::once(format!(" {CAME} {STAMP}"));
        return first.chain(std::iter::repeat(format!(" {STAMP}"))).take(tokens).collect();
    }
    let (first, others) = (of.iter(), of[1..].iter().cycle());
    first.chain(others).take(tokens).map(|&word| word.to_owned()).collect()
}

/// Four characters are a token.
fn cut_up(text: &str) -> Vec<String> {
    let characters: Vec<char> = text.chars().collect();
    characters.chunks(4).map(|piece| piece.iter().collect()).collect()
}

/// A model calls a tool when it must, and when the message names it.
fn calls(ask: &Ask, words: &Words) -> Vec<Called> {
    let named = |tool: &&Tool| ask.prompt.contains(&tool.name);
    let tools: Vec<&Tool> = match &ask.choice {
        Choice::None => Vec::new(),
        Choice::Named(name) => ask.tools.iter().filter(|tool| tool.name == *name).collect(),
        Choice::Any | Choice::Auto if ask.tools.iter().any(|tool| named(&tool)) && !ask.answered => {
            ask.tools.iter().filter(named).collect()
        }
        Choice::Any => ask.tools.iter().take(1).collect(),
        Choice::Auto if words.calls.is_some() => ask.tools.iter().collect(),
        Choice::Auto => Vec::new(),
    };
    let count = words.calls.map_or(tools.len(), |calls| calls as usize);
    let cycle = tools.iter().cycle().take(if tools.is_empty() { 0 } else { count });
    cycle
        .map(|tool| Called { name: tool.name.clone(), arguments: cut_up(&instance(&tool.schema).to_string()) })
        .collect()
}
