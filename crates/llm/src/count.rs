//! How many tokens a request would be, in the words of each dialect.
//!
//! Requests for it are those for an answer ([`translate::Options::count`](crate::translate::Options)); what comes back is
//! one number. Where a provider cannot count, the gateway may write its own estimate.

use crate::dialect::Dialect;
use crate::json::{self, Out};

/// The number in a provider's answer.
pub fn read(provider: Dialect, body: &[u8]) -> Option<u64> {
    json::find(body, &[word(provider)])?.count().ok()
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
        Dialect::Gemini => "totalTokens",
        Dialect::Bedrock => "inputTokens",
        Dialect::Anthropic | Dialect::OpenAiResponses | Dialect::OpenAiChat | Dialect::OpenAiEmbeddings => {
            "input_tokens"
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_count_is_read_and_written() {
        assert_eq!(read(Dialect::Anthropic, br#"{"input_tokens": 2095}"#), Some(2095));
        assert_eq!(read(Dialect::Gemini, br#"{"totalTokens":31,"promptTokensDetails":[]}"#), Some(31));
        assert_eq!(read(Dialect::Gemini, br#"{"totalTokens":-1}"#), None);
        assert_eq!(read(Dialect::Anthropic, b"<html>"), None);
        assert_eq!(write(Dialect::Anthropic, 7), br#"{"input_tokens":7}"#);
        for dialect in Dialect::ALL {
            assert_eq!(read(dialect, &write(dialect, 9)), Some(9), "{dialect}");
        }
    }
}
