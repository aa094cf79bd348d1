//! An answer that comes in pieces: metered where both sides speak the same dialect, translated where they do not.

mod framing;
mod meter;
mod repeat;
mod translator;

use std::borrow::Cow;

use base::TokenUsage;

use crate::dialect::Dialect;
use crate::error;
use crate::json::Value;
pub(crate) use framing::Framing;
use meter::Meter;
use translator::Translator;
pub(crate) use translator::learn;

/// One streamed answer, on its way from a provider to a caller.
///
/// The bytes of the provider go in, those for the caller come out, with as little delay as possible: nothing is held back
/// but events that are not complete where they must be changed.
#[derive(Debug)]
pub struct Stream {
    caller: Dialect,
    way: Way,
    seen: Seen,
    /// Nothing more is written: the stream has ended with an error.
    over: bool,
}

#[derive(Debug)]
enum Way {
    Meter(Meter),
    Translator(Box<Translator>),
}

#[derive(Clone, Copy, Debug)]
pub struct Options<'o> {
    /// The caller of chat completions did not ask for the usage ([`Peek::usage_asked`](crate::Peek::usage_asked)): the
    /// event that tells it is kept from him, whatever the provider's dialect. Code that was not written for it falls over
    /// its empty `choices`.
    pub hide_usage: bool,
    /// What the caller is told the model is, where the provider does not say.
    pub model: &'o str,
    /// An id for the answer, where the provider gives none.
    pub id: &'o str,
    /// Seconds since 1970, where the provider does not say when.
    pub now: u64,
    /// Bytes of one event. A larger one is an error where it must be translated; else it passes without being looked at.
    pub max_event: usize,
}

/// What is told of an answer in each event, or once at the beginning.
#[derive(Clone, Debug)]
pub(crate) struct Head {
    pub(crate) id: String,
    pub(crate) model: String,
    pub(crate) created: u64,
    pub(crate) hide_usage: bool,
}

/// What has been learned of an answer so far.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Seen {
    /// As the provider has last reported it.
    pub usage: Option<TokenUsage>,
    /// That report is the final one. If it is not, `usage` may know only the prompt, and the answer is to be estimated
    /// by [`text`](Seen::text).
    pub settled: bool,
    /// Bytes of text, thoughts and arguments that the model has produced.
    pub text: u64,
    /// Events that brought some: mostly one token each, sometimes several. The first is the first token.
    pub deltas: u64,
    /// Why the model stopped.
    pub stop: Option<Stop>,
    /// A proper end has come: `[DONE]`, `message_stop` or its like.
    pub done: bool,
    /// How it failed, if it did.
    pub fault: Option<Fault>,
}

/// Why a model stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Stop {
    /// It had said what it had to say.
    End,
    /// It said one of the words at which it was to stop.
    Sequence,
    /// The limit of tokens, or the end of the context.
    Length,
    /// It wants tools to be called.
    Tools,
    /// The provider keeps back the rest.
    Filter,
    /// The model does not want to.
    Refusal,
    /// It paused in a long turn and wants to be asked to go on.
    Pause,
}

/// How a stream failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The provider said so.
    Provider { kind: error::Kind, message: String },
    /// It ended without a proper end.
    Cut,
    /// What came cannot be understood, so it cannot be translated.
    Garbled(String),
    /// An event was larger than is taken.
    Overlong,
    /// The gateway ended it: [`Stream::fail`].
    Ended,
}

impl Stream {
    /// Whether streams of this provider can be given to this caller.
    pub fn can(caller: Dialect, provider: Dialect) -> bool {
        caller == provider || Stream::new(caller, provider, &Options::default()).is_some()
    }

    /// `None` if nothing translates the one into the other.
    pub fn new(caller: Dialect, provider: Dialect, options: &Options<'_>) -> Option<Stream> {
        let way = match caller == provider {
            true => Way::Meter(Meter::new(provider, options)),
            false => Way::Translator(Box::new(Translator::new(caller, provider, options)?)),
        };
        Some(Stream { caller, way, seen: Seen::default(), over: false })
    }

    /// True if all bytes of the provider go to the caller as they are: whatever is [watched](Stream::watch), until the end,
    /// is taken.
    pub fn passes(&self) -> bool {
        matches!(&self.way, Way::Meter(meter) if !self.over && meter.passes())
    }

    /// Takes bytes of the provider that go to the caller as they are, which spares copying them. False if they do not:
    /// then nothing was taken, and they are to be [pushed](Stream::push).
    pub fn watch(&mut self, bytes: &[u8]) -> bool {
        match &mut self.way {
            Way::Meter(meter) if !self.over => meter.watch(bytes, &mut self.seen),
            _ => false,
        }
    }

    /// Takes bytes of the provider; appends those for the caller.
    pub fn push(&mut self, bytes: &[u8], to: &mut Vec<u8>) {
        if self.over {
            return;
        }
        match &mut self.way {
            Way::Meter(meter) => meter.push(bytes, &mut self.seen, to),
            Way::Translator(translator) => {
                translator.push(bytes, &mut self.seen, to);
                self.over = translator.is_over();
            }
        }
    }

    /// The provider's bytes are at an end. If they had no proper one, the caller is told by an error event.
    pub fn finish(&mut self, to: &mut Vec<u8>) {
        if self.over {
            return;
        }
        match &mut self.way {
            Way::Meter(meter) => meter.finish(&mut self.seen, to),
            Way::Translator(translator) => translator.finish(&mut self.seen, to),
        }
        // Servers that are only like OpenAI's sometimes leave out `[DONE]`.
        let ended = self.seen.done || self.seen.stop.is_some() || self.seen.fault.is_some();
        if !ended {
            self.end(
                Fault::Cut,
                502,
                error::Kind::Upstream,
                "the provider's stream ended in the middle of the answer",
                to,
            );
        }
        self.over = true;
    }

    /// Ends the stream on the gateway's account: a time limit, a guard, a budget. Nothing comes after it.
    pub fn fail(&mut self, status: u16, kind: error::Kind, message: &str, to: &mut Vec<u8>) {
        if !self.over {
            self.end(Fault::Ended, status, kind, message, to);
        }
    }

    pub fn seen(&self) -> &Seen {
        &self.seen
    }

    fn end(&mut self, fault: Fault, status: u16, kind: error::Kind, message: &str, to: &mut Vec<u8>) {
        self.over = true;
        self.seen.fault.get_or_insert(fault);
        // An event that was cut in the middle would swallow ours.
        let (closing, events) = match &self.way {
            Way::Meter(meter) => (meter.closing(), None),
            Way::Translator(translator) => (Some(&b""[..]), translator.events()),
        };
        if let Some(closing) = closing {
            to.extend_from_slice(closing);
            error::event_after(self.caller, events, status, kind, message, to);
        }
    }
}

// === impl Head ===

impl Head {
    pub(crate) fn new(options: &Options<'_>) -> Head {
        let Options { hide_usage, model, id, now, max_event: _ } = *options;
        Head { id: id.to_owned(), model: model.to_owned(), created: now, hide_usage }
    }

    /// The provider's word counts before ours.
    pub(crate) fn learn(&mut self, id: Option<Cow<'_, str>>, model: Option<Cow<'_, str>>, created: Option<u64>) {
        let said = |text: Option<Cow<'_, str>>| text.filter(|text| !text.is_empty()).map(Cow::into_owned);
        self.id = said(id).unwrap_or(std::mem::take(&mut self.id));
        self.model = said(model).unwrap_or(std::mem::take(&mut self.model));
        self.created = created.unwrap_or(self.created);
    }
}

// === impl Fault ===

impl Fault {
    /// What a provider's error object says: `type`, `code` or `status`, and `message`.
    pub(crate) fn of(error: Option<Value<'_>>) -> Fault {
        let mut fault = (error::Kind::Upstream, String::from("the provider reports an error"));
        if let Some(Ok(mut fields)) = error.map(|error| error.fields("an object")) {
            let word =
                ["type", "code", "status"].iter().find_map(|key| error::Kind::of_word(fields.take(key)?.as_str()?));
            fault.0 = word.unwrap_or(fault.0);
            if let Ok(Some(message)) = fields.string("message") {
                fault.1 = message.into_owned();
            }
        }
        Fault::Provider { kind: fault.0, message: fault.1 }
    }
}

impl Default for Options<'_> {
    fn default() -> Self {
        Options { hide_usage: false, model: "", id: "", now: 0, max_event: 8 << 20 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event_stream;

    const CHAT: &str = concat!(
        "data: {\"id\":\"c\",\"choices\":[{\"index\":0,\"delta\":{\"role\":\"assistant\",\"content\":\"\"},\"finish_reason\":null}],\"usage\":null}\n\n",
        "data: {\"choices\":[{\"index\":0,\"delta\":{\"content\":\"usage\"},\"finish_reason\":null}],\"usage\":null}\n\n",
        ": a comment\n\n",
        "data: {\"choices\":[{\"index\":0,\"delta\":{\"content\":\" \\\"usage\\\":{\"},\"finish_reason\":null}]}\n\n",
        "data: {\"choices\":[{\"index\":0,\"delta\":{},\"finish_reason\":\"length\"}]}\n\n",
        "data: {\"choices\":[],\"usage\":{\"prompt_tokens\":10,\"completion_tokens\":5,\"total_tokens\":15,\"prompt_tokens_details\":{\"cached_tokens\":4},\"completion_tokens_details\":{\"reasoning_tokens\":2}}}\n\n",
        "data: [DONE]\n\n",
    );
    const ANTHROPIC: &str = concat!(
        "event: message_start\ndata: {\"type\":\"message_start\",\"message\":{\"id\":\"m\",\"usage\":{\"input_tokens\":3,\"cache_read_input_tokens\":7,\"cache_creation_input_tokens\":5,\"cache_creation\":{\"ephemeral_5m_input_tokens\":3,\"ephemeral_1h_input_tokens\":2},\"output_tokens\":1}}}\n\n",
        "event: ping\ndata: {\"type\":\"ping\"}\n\n",
        "event: content_block_start\ndata: {\"type\":\"content_block_start\",\"index\":0,\"content_block\":{\"type\":\"text\",\"text\":\"\"}}\n\n",
        "event: content_block_delta\ndata: {\"type\":\"content_block_delta\",\"index\":0,\"delta\":{\"type\":\"text_delta\",\"text\":\"hello\"}}\n\n",
        "event: message_delta\ndata: {\"type\":\"message_delta\",\"delta\":{\"stop_reason\":\"tool_use\"},\"usage\":{\"output_tokens\":9}}\n\n",
        "event: message_stop\ndata: {\"type\":\"message_stop\"}\n\n",
    );

    fn run(dialect: Dialect, stream: &str, size: usize, options: &Options<'_>) -> (String, Seen) {
        let mut meter = Stream::new(dialect, dialect, options).unwrap();
        let mut out = Vec::new();
        for chunk in stream.as_bytes().chunks(size) {
            meter.push(chunk, &mut out);
        }
        meter.finish(&mut out);
        (String::from_utf8(out).unwrap(), meter.seen().clone())
    }

    #[test]
    fn a_stream_of_the_same_dialect_passes_untouched_and_is_understood() {
        for size in 1..CHAT.len() {
            let (out, seen) = run(Dialect::OpenAiChat, CHAT, size, &Options::default());
            assert_eq!(out, CHAT);
            let usage = TokenUsage { input: 6, cached_read: 4, output: 3, reasoning: 2, ..TokenUsage::default() };
            assert_eq!(seen.usage, Some(usage), "{size}");
            assert!(seen.settled && seen.done && seen.fault.is_none());
            assert_eq!((seen.stop, seen.deltas, seen.text), (Some(Stop::Length), 2, 5 + 12));
        }
        for size in 1..ANTHROPIC.len() {
            let (out, seen) = run(Dialect::Anthropic, ANTHROPIC, size, &Options::default());
            assert_eq!(out, ANTHROPIC);
            let usage = TokenUsage {
                input: 3,
                cached_read: 7,
                cached_write_5m: 3,
                cached_write_1h: 2,
                output: 9,
                ..TokenUsage::default()
            };
            assert_eq!(seen.usage, Some(usage), "{size}");
            assert!(seen.settled && seen.done);
            assert_eq!((seen.stop, seen.deltas, seen.text), (Some(Stop::Tools), 1, 5));
        }
    }

    #[test]
    fn usage_the_caller_did_not_ask_for_is_kept_back() {
        let hide = Options { hide_usage: true, ..Options::default() };
        let start = CHAT.find("data: {\"choices\":[],").unwrap();
        let expected = format!("{}data: [DONE]\n\n", &CHAT[..start]);
        for size in 1..CHAT.len() {
            let (out, seen) = run(Dialect::OpenAiChat, CHAT, size, &hide);
            assert_eq!(out, expected, "{size}");
            assert!(seen.settled);
        }
        // A server that tells the usage with the last choice: that event is the caller's.
        let both =
            "data: {\"choices\":[{\"delta\":{},\"finish_reason\":\"stop\"}],\"usage\":{\"prompt_tokens\":1}}\n\n";
        assert_eq!(run(Dialect::OpenAiChat, both, 7, &hide).0, both);
    }

    #[test]
    fn a_stream_that_is_cut_ends_with_an_error() {
        let cut = &CHAT[..CHAT.find("data: {\"choices\":[{\"index\":0,\"delta\":{},").unwrap() - 10];
        for size in 1..cut.len() {
            let (out, seen) = run(Dialect::OpenAiChat, cut, size, &Options::default());
            let error = out.strip_prefix(cut).unwrap();
            assert!(error.starts_with("\n\ndata: {\"error\":{\"message\":\"the provider's stream ended"), "{error}");
            assert_eq!((seen.fault, seen.done, seen.settled), (Some(Fault::Cut), false, false));
        }
        // Without `[DONE]`, but the model had finished.
        let undone = CHAT.strip_suffix("data: [DONE]\n\n").unwrap();
        let (out, seen) = run(Dialect::OpenAiChat, undone, 50, &Options::default());
        assert_eq!(out, undone);
        assert_eq!((seen.fault, seen.done), (None, false));
    }

    #[test]
    fn an_error_of_the_provider_is_seen() {
        let stream = "event: error\ndata: {\"type\":\"error\",\"error\":{\"type\":\"overloaded_error\",\"message\":\"Overloaded\"}}\n\n";
        let (out, seen) = run(Dialect::Anthropic, stream, 9, &Options::default());
        assert_eq!(out, stream);
        let fault = Fault::Provider { kind: error::Kind::Overloaded, message: "Overloaded".into() };
        assert_eq!(seen.fault, Some(fault));
    }

    #[test]
    fn an_event_that_is_too_large_passes_and_the_rest_is_understood() {
        let large = format!("data: {{\"choices\":[],\"x\":\"{}\"}}\n\n{CHAT}", "y".repeat(100_000));
        let options = Options { max_event: 1000, ..Options::default() };
        let (out, seen) = run(Dialect::OpenAiChat, &large, 4096, &options);
        assert!(out == large && seen.settled && seen.done);
    }

    #[test]
    fn an_event_that_repeats_the_last_is_too_large_as_any_other() {
        let event =
            |text: &str| format!("data: {{\"choices\":[{{\"index\":0,\"delta\":{{\"content\":\"{text}\"}}}}]}}\n\n");
        let options = Options { max_event: 100, ..Options::default() };
        let mut stream = Stream::new(Dialect::OpenAiChat, Dialect::OpenAiChat, &options).unwrap();
        assert!(stream.passes());
        for (text, deltas) in [("a", 1), ("bc", 2), (&"d".repeat(100), 2), ("e", 3)] {
            assert!(stream.watch(event(text).as_bytes()));
            assert_eq!(stream.seen().deltas, deltas, "{text}");
        }
        assert_eq!(stream.seen().text, 4);
        let hide = Options { hide_usage: true, ..options };
        assert!(!Stream::new(Dialect::OpenAiChat, Dialect::OpenAiChat, &hide).unwrap().passes());
        assert!(!Stream::new(Dialect::OpenAiChat, Dialect::Anthropic, &options).unwrap().passes());
    }

    fn bedrock(events: &[(bool, &str, &str)]) -> Vec<u8> {
        let mut stream = Vec::new();
        for (is_exception, name, payload) in events {
            event_stream::write(*is_exception, name, &mut stream, |to| to.extend_from_slice(payload.as_bytes()));
        }
        stream
    }

    const CONVERSE: [(bool, &str, &str); 4] = [
        (false, "messageStart", r#"{"role":"assistant"}"#),
        (false, "contentBlockDelta", r#"{"contentBlockIndex":0,"delta":{"text":"usage"},"p":"abcdef"}"#),
        (false, "messageStop", r#"{"stopReason":"max_tokens"}"#),
        (
            false,
            "metadata",
            r#"{"usage":{"inputTokens":3,"outputTokens":2,"totalTokens":12,"cacheReadInputTokens":7}}"#,
        ),
    ];

    #[test]
    fn messages_of_bedrock_pass_untouched_and_are_understood() {
        let push = |bytes: &[u8], size: usize, most: usize| {
            let options = Options { max_event: most, ..Options::default() };
            let mut stream = Stream::new(Dialect::Bedrock, Dialect::Bedrock, &options).unwrap();
            let mut out = Vec::new();
            bytes.chunks(size).for_each(|chunk| stream.push(chunk, &mut out));
            stream.finish(&mut out);
            (out, stream.seen)
        };
        let whole = bedrock(&CONVERSE);
        for size in 1..=whole.len() {
            let (out, seen) = push(&whole, size, 1000);
            assert_eq!(out, whole);
            let usage = TokenUsage { input: 3, cached_read: 7, output: 2, ..TokenUsage::default() };
            assert_eq!((seen.usage, seen.stop, seen.settled), (Some(usage), Some(Stop::Length), true), "{size}");
            assert_eq!((seen.text, seen.deltas, seen.done, seen.fault), (5, 1, true, None));
        }
        // Cut between two messages, and within one, where nothing could be understood any more.
        let cut = bedrock(&CONVERSE[..2]);
        let (out, seen) = push(&cut, 7, 1000);
        assert!(out.starts_with(&cut) && out.len() > cut.len() && seen.fault == Some(Fault::Cut));
        let (out, seen) = push(&cut[..cut.len() - 1], 7, 1000);
        assert!(out == cut[..cut.len() - 1] && seen.fault == Some(Fault::Cut));
        // One that is too large.
        let large = "x".repeat(5000);
        let large = bedrock(&[(false, "contentBlockDelta", &large), CONVERSE[2], CONVERSE[3]]);
        let (out, seen) = push(&large, 100, 1000);
        assert!(out == large && seen.settled && seen.text == 0);
        // No message at all.
        let (out, seen) = push(b"<html>Bad gateway, sorry</html>", 5, 1000);
        assert_eq!(out, b"<html>Bad gateway, sorry</html>");
        assert!(matches!(seen.fault, Some(Fault::Garbled(_))));
        let (_, seen) = push(&bedrock(&[(true, "throttlingException", r#"{"message":"slow"}"#)]), 9, 1000);
        assert_eq!(seen.fault, Some(Fault::Provider { kind: error::Kind::RateLimited, message: "slow".into() }));
    }

    #[test]
    fn events_that_repeat_the_last_are_taken_as_if_they_did_not() {
        let chat = |delta: &str| {
            format!("data: {{\"id\":\"c\",\"choices\":[{{\"index\":0,\"delta\":{delta},\"finish_reason\":null}}]}}\n\n")
        };
        let block = |kind: &str, text: &str| {
            format!(
                "event: content_block_delta\ndata: {{\"type\":\"content_block_delta\",\"index\":0,\"delta\":{{\"type\":\"{kind}_delta\",\"{kind}\":\"{text}\"}}}}\n\n"
            )
        };
        let texts = ["a", "b", "b", "", "c\\nd", "\\u00e9", "möglich", "content", "{", "x", "y"];
        let mut streams = [(Dialect::OpenAiChat, Vec::new()), (Dialect::Anthropic, Vec::new())];
        streams[0].1.extend(texts.map(|text| chat(&format!("{{\"content\":\"{text}\"}}"))));
        streams[0].1.extend(texts.map(|text| chat(&format!("{{\"reasoning_content\":\"{text}\"}}"))));
        streams[0].1.extend(CHAT.split_inclusive("\n\n").map(str::to_owned));
        let begin = ANTHROPIC.split_inclusive("\n\n").map(str::to_owned);
        streams[1].1.extend(begin.clone().take(3));
        streams[1].1.extend(texts.map(|text| block("text", text)));
        streams[1].1.extend(texts.map(|text| block("thinking", text)));
        streams[1].1.extend(begin.skip(3));
        for (provider, events) in &streams {
            for caller in Dialect::ALL {
                for hide_usage in [false, true] {
                    let options = Options { model: "m", id: "id", now: 1, hide_usage, ..Options::default() };
                    let run = |between: &str| {
                        let mut stream = Stream::new(caller, *provider, &options)?;
                        let mut out = Vec::new();
                        events.iter().for_each(|event| stream.push(format!("{event}{between}").as_bytes(), &mut out));
                        stream.finish(&mut out);
                        let out = String::from_utf8_lossy(&out).replace(": c\n\n", "");
                        Some((out, stream.seen().clone()))
                    };
                    // After something else nothing repeats.
                    assert_eq!(run(""), run(": c\n\n"), "{provider:?} to {caller:?}");
                }
            }
        }
    }
}
