//! What a gateway must know of a request, found in one pass that builds nothing.
//!
//! The pass is strict over the whole body (see [`crate::json`]): what is looked at here is what any reader behind us will
//! see.

use std::borrow::Cow;
use std::ops::Range;

use crate::dialect::Dialect;
use crate::format;
use crate::json::{Cursor, Kind, Text};
use crate::malformed::Malformed;

/// What was found. Ranges are of the body that was looked at.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Peek {
    /// The value of `model`, without its quotes; read it with [`Peek::model`]. Gemini and Bedrock have it in the path.
    pub model: Option<Range<usize>>,
    /// Whether the body asks for a stream. Gemini and Bedrock ask by the path.
    pub stream: bool,
    /// Whether the caller wants the usage at the end of a stream (`stream_options.include_usage`); the other dialects
    /// always tell it.
    pub usage_asked: bool,
    /// The most tokens an answer may have. `None`: as many as the model can.
    pub max_output: Option<u64>,
    /// Answers asked for (`n`), each with its own tokens.
    pub choices: u64,
    pub wants: Wants,
    /// Bytes of the strings that make up the prompt, descriptions of tools included and media not.
    pub text: usize,
    /// Bytes of media in base64.
    pub data: usize,
    /// Tokens, where the caller sends those instead of text (embeddings).
    pub tokens: usize,
    pub messages: usize,
    /// Vectors are wanted in base64 (embeddings).
    pub packed: bool,
    pub images: usize,
    /// The end user as the caller names him, without the quotes: `user`, `metadata.user_id`, `safety_identifier`.
    pub user: Option<Range<usize>>,
    /// The caller's own notes, as JSON: `metadata`.
    pub metadata: Option<Range<usize>>,
    pub(crate) places: Places,
}

/// What a model must be capable of.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Wants {
    pub tools: bool,
    pub images: bool,
    pub audio: bool,
    /// Files such as PDF.
    pub documents: bool,
    /// JSON by a schema.
    pub json_schema: bool,
    pub reasoning: bool,
    /// The conversation lies with the provider (`previous_response_id`), which binds the call to it.
    pub state: bool,
}

/// Where something could be inserted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Places {
    /// After the brace that opens the body.
    pub(crate) open: usize,
    /// The value of `stream_options`, and of `include_usage` in it.
    pub(crate) stream_options: Option<Range<usize>>,
    pub(crate) include_usage: Option<Range<usize>>,
    /// Names of the model that stand in each of several requests, with `models/` before them.
    pub(crate) models: Vec<Range<usize>>,
}

/// Looks at the body of a request.
pub fn peek(dialect: Dialect, body: &[u8]) -> Result<Peek, Malformed> {
    look(dialect, body).map_err(|malformed| malformed.in_body(body))
}

fn look(dialect: Dialect, body: &[u8]) -> Result<Peek, Malformed> {
    let mut cursor = Cursor::new(body)?;
    let mut peek = Peek { choices: 1, ..Peek::default() };
    peek.places.open = cursor.place() + 1;
    let look = match dialect {
        Dialect::OpenAiChat => format::openai_chat::peek,
        Dialect::OpenAiResponses => format::openai_responses::peek,
        Dialect::OpenAiEmbeddings => format::openai_embeddings::peek,
        Dialect::Anthropic => format::anthropic::peek,
        Dialect::Gemini => format::gemini::peek,
        Dialect::GeminiEmbeddings => format::gemini_embeddings::peek,
        Dialect::Bedrock => format::bedrock::peek,
        Dialect::BedrockTitan => format::bedrock_titan::peek,
        Dialect::BedrockCohere => format::bedrock_cohere::peek,
    };
    look(&mut cursor, &mut peek)?;
    // What was passed over outside of the prompt (a name, an option) is small; telling it apart costs more than it is worth.
    (peek.text, peek.data) = (cursor.passed, cursor.data);
    cursor.end()?;
    Ok(peek)
}

impl Peek {
    /// The model as the body names it. `body` is the one that was looked at.
    pub fn model<'b>(&self, body: &'b [u8]) -> Option<Cow<'b, str>> {
        self.model.clone().map(|range| text(body, range))
    }

    /// The end user as the body names him.
    pub fn user<'b>(&self, body: &'b [u8]) -> Option<Cow<'b, str>> {
        self.user.clone().map(|range| text(body, range))
    }

    /// Looks at a list of messages: objects with a `content`.
    pub(crate) fn messages(&mut self, cursor: &mut Cursor<'_>) -> Result<(), Malformed> {
        cursor.array("an array of messages", |cursor| {
            self.messages += 1;
            cursor.object("a message, which is an object", |cursor, key, _| match &**key {
                "content" => self.content(cursor),
                "role" => cursor.string("a string").map(drop),
                _ => cursor.skip(),
            })
        })
    }

    /// Looks at the content of a message: a text, or parts that say by their `type` what they are.
    pub(crate) fn content(&mut self, cursor: &mut Cursor<'_>) -> Result<(), Malformed> {
        if cursor.kind()? != Kind::Array {
            return cursor.skip();
        }
        cursor.array("an array of parts", |cursor| {
            if cursor.kind()? != Kind::Object {
                return cursor.skip();
            }
            cursor.object("an object", |cursor, key, _| match &**key {
                "type" => {
                    let kind = cursor.string("a string")?;
                    self.part(&kind.decode());
                    Ok(())
                }
                // A tool's result has parts of its own.
                "content" => self.content(cursor),
                _ => cursor.skip_field(key),
            })
        })
    }

    /// Looks at a list of tools.
    pub(crate) fn tools(&mut self, cursor: &mut Cursor<'_>) -> Result<(), Malformed> {
        if cursor.null() {
            return Ok(());
        }
        cursor.array("an array of tools", |cursor| {
            self.wants.tools = true;
            cursor.skip()
        })
    }

    /// Looks at an object, or nothing, whose `type` may be one word.
    pub(crate) fn kind_is(cursor: &mut Cursor<'_>, word: &str) -> Result<bool, Malformed> {
        if cursor.null() {
            return Ok(false);
        }
        let mut is = false;
        cursor.object("an object", |cursor, key, _| match &**key {
            "type" => {
                is = cursor.string("a string")?.decode() == word;
                Ok(())
            }
            _ => cursor.skip(),
        })?;
        Ok(is)
    }

    /// Counts a part of a message by its type. Unknown types are the provider's business.
    pub(crate) fn part(&mut self, kind: &str) {
        match kind {
            "image" | "image_url" | "input_image" => {
                self.images += 1;
                self.wants.images = true;
            }
            "audio" | "input_audio" => self.wants.audio = true,
            "file" | "input_file" | "document" => self.wants.documents = true,
            _ => {}
        }
    }
}

fn text(body: &[u8], at: Range<usize>) -> Cow<'_, str> {
    let raw = body.get(at.clone()).and_then(|raw| std::str::from_utf8(raw).ok()).unwrap_or_default();
    Text { raw, at: at.start, escaped: raw.contains('\\') }.decode()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(dialect: Dialect, body: &str) -> Peek {
        peek(dialect, body.as_bytes()).unwrap_or_else(|error| panic!("{body}: {error}"))
    }

    #[test]
    fn a_chat_completion() {
        let body = r#"{"model":"g\u0070t","messages":[{"role":"system","content":"12345"},
            {"role":"user","content":[{"type":"text","text":"1234"},
             {"type":"image_url","image_url":{"url":"data:image/png;base64,AAAA"}}]}],
            "stream":true,"stream_options":{"include_usage":true},"max_tokens":5,"max_completion_tokens":7,"n":2,
            "tools":[{"type":"function","function":{"name":"f"}}],"response_format":{"type":"json_schema"},
            "user":"me","metadata":{"a":"b"}}"#;
        let peek = found(Dialect::OpenAiChat, body);
        assert_eq!(peek.model(body.as_bytes()).as_deref(), Some("gpt"));
        assert_eq!(peek.user(body.as_bytes()).as_deref(), Some("me"));
        assert_eq!(&body[peek.metadata.clone().unwrap()], r#"{"a":"b"}"#);
        assert!(peek.stream && peek.usage_asked);
        assert_eq!((peek.max_output, peek.choices, peek.messages, peek.images), (Some(7), 2, 2, 1));
        let wants = Wants { tools: true, images: true, json_schema: true, ..Wants::default() };
        assert_eq!(peek.wants, wants);
        // Beside the prompt: the tool's type and name, the note.
        assert_eq!((peek.text, peek.data), (5 + 4 + "functionf".len() + 1, "data:image/png;base64,AAAA".len()));
    }

    #[test]
    fn the_other_dialects() {
        let body = r#"{"model":"claude","max_tokens":9,"system":[{"type":"text","text":"x"}],"thinking":{"type":"enabled"},
            "messages":[{"role":"user","content":[{"type":"tool_result","content":[{"type":"image","source":{"data":"A"}}]}]}],
            "metadata":{"user_id":"me"}}"#;
        let peek = found(Dialect::Anthropic, body);
        assert_eq!((peek.max_output, peek.images, peek.data), (Some(9), 1, 1));
        assert!(peek.wants.reasoning && !peek.wants.tools);
        assert_eq!(peek.user(body.as_bytes()).as_deref(), Some("me"));

        let peek = found(
            Dialect::Gemini,
            r#"{"contents":[{"parts":[{"text":"ab"},{"inline_data":{"mime_type":"image/png","data":"AAAA"}}]}],
                "generation_config":{"maxOutputTokens":3,"response_schema":{}}}"#,
        );
        assert_eq!((peek.max_output, peek.text, peek.data, peek.images), (Some(3), 2, 4, 1));
        assert!(peek.wants.json_schema);

        let peek = found(
            Dialect::Bedrock,
            r#"{"messages":[{"role":"user","content":[{"image":{"format":"png","source":{"bytes":"AA"}}},{"text":"x"}]}],
                "inferenceConfig":{"maxTokens":4},"toolConfig":{"tools":[{}]}}"#,
        );
        assert_eq!((peek.max_output, peek.images, peek.data), (Some(4), 1, 2));
        assert!(peek.wants.tools);

        let peek = found(
            Dialect::OpenAiResponses,
            r#"{"model":"m","input":"hello","text":{"format":{"type":"json_schema"}}}"#,
        );
        assert!(peek.wants.json_schema && peek.text == 5 && peek.messages == 1);
        let peek = found(Dialect::OpenAiEmbeddings, r#"{"model":"m","input":[[1,2],[3]]}"#);
        assert_eq!((peek.tokens, peek.messages, peek.max_output), (3, 2, Some(0)));
        assert_eq!(found(Dialect::OpenAiEmbeddings, r#"{"model":"m","input":["ab","c"]}"#).text, 3);
    }

    #[test]
    fn what_two_readers_could_understand_differently_is_refused() {
        let check = |dialect: Dialect, body: &[u8], expected: &str| {
            let error = peek(dialect, body).expect_err(expected).to_string();
            assert_eq!(error, expected);
        };
        let chat = |body: &str, expected: &str| check(Dialect::OpenAiChat, body.as_bytes(), expected);
        chat("", "byte 0 of the body is the end of the body; expected an object");
        chat("[]", "byte 0 of the body is an array; expected an object");
        chat(
            r#"{"model":"a","mod\u0065l":"b"}"#,
            "`mod\\u0065l` (byte 13) is the key \"model\" a second time; expected each key once in an object",
        );
        chat(
            r#"{"messages":[{"content":[{"text":"a","text":"b"}]}]}"#,
            "`messages[0].content[0].text` (byte 37) is the key \"text\" a second time; expected each key once in an object",
        );
        chat(r#"{"model":7}"#, "`model` (byte 9) is a number; expected the name of a model, which is a string");
        chat(r#"{"stream":"yes"}"#, "`stream` (byte 10) is a string; expected true or false");
        chat(r#"{"max_tokens":-1}"#, "`max_tokens` (byte 14) is -1; expected a whole number that is not negative");
        chat(r#"{"messages":{}}"#, "`messages` (byte 12) is an object; expected an array of messages");
        chat("{} {}", "byte 3 of the body is more data; expected the end of the body after one JSON value");
        chat(r#"{"a":"\ud800"}"#, "`a` (byte 6) is the first half of a surrogate pair; expected both halves of a pair");
        chat(r#"{"a":01}"#, "`a` (byte 5) is a number with a leading zero; expected a number");
        chat(r#"{"a":nul}"#, "`a` (byte 5) is null; expected null");
        chat(
            "{\"a\":\"\n\"}",
            "`a` (byte 6) is the control character 0x0a in a string; expected an escape such as \\n",
        );
        check(Dialect::OpenAiChat, b"{\"a\":\"\xff\"}", "`a` (byte 6) is not UTF-8; expected JSON in UTF-8");
        let deep = format!(r#"{{"a":{}"#, "[".repeat(1_000_000));
        assert!(peek(Dialect::OpenAiChat, deep.as_bytes()).unwrap_err().to_string().contains("one level too deep"));
        check(
            Dialect::Gemini,
            br#"{"generationConfig":{},"generation_config":{}}"#,
            "`generation_config` (byte 23) is the key \"generationConfig\" a second time, spelled otherwise; \
             expected each key once in an object",
        );
    }

    #[test]
    fn keys_that_come_twice_are_found_among_many() {
        let many: Vec<String> = (0..100_000).map(|n| format!("\"k{n}\":1")).collect();
        let body = format!("{{{}}}", many.join(","));
        assert!(peek(Dialect::OpenAiChat, body.as_bytes()).is_ok());
        let twice = format!("{{{},\"k3\":1}}", many.join(","));
        assert!(peek(Dialect::OpenAiChat, twice.as_bytes()).is_err());
    }
}
