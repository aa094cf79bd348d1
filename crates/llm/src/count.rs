//! How many tokens a request would be, in the words of each dialect.
//!
//! Requests for it are those for an answer ([`translate::Options::count`](crate::translate::Options)); what comes back is
//! one number. Where a provider cannot count, the gateway may write its own estimate.

use crate::dialect::Dialect;
use crate::json::{self, Out};
use crate::malformed::Malformed;

/// The number in a provider's answer.
pub fn read(provider: Dialect, body: &[u8]) -> Result<u64, Malformed> {
    let missing = || Malformed::new("an answer without a count", 0, "a number of tokens");
    json::find(body, &[word(provider)]).ok_or_else(missing)?.count().map_err(|error| error.in_body(body))
}

/// The body of an answer.
pub fn write(caller: Dialect, tokens: u64) -> Vec<u8> {
    let mut to = Vec::with_capacity(64);
    Out::object(&mut to, |out| {
        if caller == Dialect::OpenAiResponses {
            out.text("object", "response.input_tokens");
        }
        out.number(word(caller), tokens);
    });
    to
}

fn word(dialect: Dialect) -> &'static str {
    match dialect {
        Dialect::Gemini | Dialect::GeminiEmbeddings => "totalTokens",
        Dialect::Bedrock | Dialect::BedrockTitan | Dialect::BedrockCohere => "inputTokens",
        Dialect::Anthropic | Dialect::OpenAiResponses | Dialect::OpenAiChat | Dialect::OpenAiEmbeddings => {
            "input_tokens"
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::translate;

    #[test]
    fn bedrock_is_sent_the_conversation_and_nothing_else() {
        let body = br#"{"model":"x","max_tokens":9,"temperature":0.5,"system":"Be brief.","messages":[{"role":"user","content":"Hi"}],
            "tools":[{"name":"look","input_schema":{"type":"object"}}]}"#;
        let options = translate::Options { model: "anthropic.x", count: true, ..translate::Options::default() };
        let translated = translate::request(Dialect::Anthropic, Dialect::Bedrock, body, &options).unwrap();
        let expected = concat!(
            r#"{"input":{"converse":{"system":[{"text":"Be brief."}],"#,
            r#""messages":[{"role":"user","content":[{"text":"Hi"}]}],"#,
            r#""toolConfig":{"tools":[{"toolSpec":{"name":"look","inputSchema":{"json":{"type":"object"}}}}]}}}}"#
        );
        assert_eq!(String::from_utf8(translated.body).unwrap(), expected);
    }

    #[test]
    fn a_count_is_read_and_written() {
        assert_eq!(read(Dialect::Anthropic, br#"{"input_tokens": 2095}"#), Ok(2095));
        assert_eq!(read(Dialect::Gemini, br#"{"totalTokens":31,"promptTokensDetails":[]}"#), Ok(31));
        let wrong = read(Dialect::Gemini, br#"{"totalTokens":-1}"#).unwrap_err();
        assert_eq!(wrong.at.path, "totalTokens");
        assert!(read(Dialect::Anthropic, b"<html>").is_err());
        assert_eq!(write(Dialect::Anthropic, 7), br#"{"input_tokens":7}"#);
        for dialect in Dialect::ALL {
            assert_eq!(read(dialect, &write(dialect, 9)), Ok(9), "{dialect}");
        }
    }
}
