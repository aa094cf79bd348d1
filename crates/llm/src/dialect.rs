//! Whose words a body speaks, and what is asked with them.

use std::fmt;

use crate::percent;

/// The wire format of a model API: how requests, answers, streams and errors are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Dialect {
    /// `POST …/chat/completions`, spoken by OpenAI and by most others beside their own.
    OpenAiChat,
    /// `POST …/responses`.
    OpenAiResponses,
    /// `POST …/embeddings`.
    OpenAiEmbeddings,
    /// `POST …/messages` and `…/messages/count_tokens`.
    Anthropic,
    /// `POST …/models/{model}:generateContent` and `:streamGenerateContent`.
    Gemini,
    /// `POST …/models/{model}:embedContent` and `:batchEmbedContents`.
    GeminiEmbeddings,
    /// `POST …/model/{model}/converse` and `…/converse-stream`.
    Bedrock,
    /// `POST …/model/{model}/invoke` of Amazon's models of embeddings; asked of Bedrock, and of nobody here.
    BedrockTitan,
    /// The same of Cohere's.
    BedrockCohere,
}

/// What is asked of a provider.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Operation {
    /// An answer to a conversation, whole or as a stream.
    Generate,
    /// Vectors for texts.
    Embed,
    /// A vector for a text, where the dialect asks for that elsewhere.
    EmbedOne,
    /// How many tokens a request would be.
    CountTokens,
    /// Which models there are, or one of them.
    Models,
}

/// What method and path say of a call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    pub dialect: Dialect,
    pub operation: Operation,
    /// Where the dialect has the model in the path, as Gemini, Bedrock and deployments of Azure have it.
    pub model: Option<String>,
    /// Where the path asks for a stream; elsewhere the body does ([`Peek::stream`](crate::Peek::stream)).
    pub stream: bool,
}

impl Dialect {
    pub const ALL: [Dialect; 9] = [
        Dialect::OpenAiChat,
        Dialect::OpenAiResponses,
        Dialect::OpenAiEmbeddings,
        Dialect::Anthropic,
        Dialect::Gemini,
        Dialect::GeminiEmbeddings,
        Dialect::Bedrock,
        Dialect::BedrockTitan,
        Dialect::BedrockCohere,
    ];

    /// Its name in documents, metrics and messages.
    pub const fn name(self) -> &'static str {
        match self {
            Dialect::OpenAiChat => "openai-chat",
            Dialect::OpenAiResponses => "openai-responses",
            Dialect::OpenAiEmbeddings => "openai-embeddings",
            Dialect::Anthropic => "anthropic",
            Dialect::Gemini => "gemini",
            Dialect::GeminiEmbeddings => "gemini-embeddings",
            Dialect::Bedrock => "bedrock",
            Dialect::BedrockTitan => "bedrock-titan",
            Dialect::BedrockCohere => "bedrock-cohere",
        }
    }

    pub fn from_name(name: &str) -> Option<Dialect> {
        Dialect::ALL.into_iter().find(|dialect| dialect.name() == name)
    }

    /// The field of an answer's head that says how many tokens the prompt was, where the body may not.
    pub const fn tokens_field(self) -> Option<&'static str> {
        match self {
            Dialect::BedrockTitan | Dialect::BedrockCohere => Some("x-amzn-bedrock-input-token-count"),
            _ => None,
        }
    }

    /// The media type of its streams.
    pub const fn stream_type(self) -> &'static str {
        match self {
            Dialect::Bedrock => "application/vnd.amazon.eventstream",
            _ => "text/event-stream",
        }
    }
}

impl fmt::Display for Dialect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Which operation of which dialect a request is for. Only the end of the path counts, since what stands before it is
/// where somebody has put the API.
pub fn target(method: &str, path: &str) -> Option<Target> {
    use Dialect::{Anthropic, Bedrock, Gemini, GeminiEmbeddings, OpenAiChat, OpenAiEmbeddings, OpenAiResponses};
    use Operation::{CountTokens, Embed, EmbedOne, Generate, Models};

    let path = path.split('?').next().unwrap_or_default().trim_end_matches('/');
    let mut steps = path.rsplit('/');
    let (last, before) = (steps.next()?, steps.next().unwrap_or_default());
    let is_post = method == "POST";
    let asks = |dialect, operation, model: Option<String>, stream| Some(Target { dialect, operation, model, stream });

    if is_post && before == "models" {
        let (model, verb) = last.rsplit_once(':')?;
        let model = Some(decode(model));
        return match verb {
            "generateContent" => asks(Gemini, Generate, model, false),
            "streamGenerateContent" => asks(Gemini, Generate, model, true),
            "countTokens" => asks(Gemini, CountTokens, model, false),
            "embedContent" => asks(GeminiEmbeddings, EmbedOne, model, false),
            "batchEmbedContents" => asks(GeminiEmbeddings, Embed, model, false),
            _ => None,
        };
    }
    if is_post && matches!(last, "converse" | "converse-stream") {
        let model = path.rsplit_once("/model/")?.1.strip_suffix(last)?.strip_suffix('/')?;
        return asks(Bedrock, Generate, Some(decode(model)), last == "converse-stream");
    }
    // Azure's older addresses: `/openai/deployments/{deployment}/chat/completions`.
    let deployment = |end: &str| {
        let (_, deployment) = path.strip_suffix(end)?.rsplit_once("/deployments/")?;
        (!deployment.contains('/')).then(|| decode(deployment))
    };
    match (method, before, last) {
        ("POST", "chat", "completions") => asks(OpenAiChat, Generate, deployment("/chat/completions"), false),
        ("POST", _, "responses") => asks(OpenAiResponses, Generate, None, false),
        ("POST", "responses", "input_tokens") => asks(OpenAiResponses, CountTokens, None, false),
        ("POST", _, "embeddings") => asks(OpenAiEmbeddings, Embed, deployment("/embeddings"), false),
        ("POST", _, "messages") => asks(Anthropic, Generate, None, false),
        ("POST", "messages", "count_tokens") => asks(Anthropic, CountTokens, None, false),
        ("GET", version, "models") => asks(lists(version), Models, None, false),
        ("GET", "models", model) => asks(lists(steps.next().unwrap_or_default()), Models, Some(decode(model)), false),
        _ => None,
    }
}

/// Whose list of models it is, by the version of the API before it: Gemini's versions are no others'.
fn lists(version: &str) -> Dialect {
    if version.starts_with("v1beta") { Dialect::Gemini } else { Dialect::OpenAiChat }
}

/// A step of a path as it is meant.
fn decode(step: &str) -> String {
    String::from_utf8(percent::decode(step).into_owned()).unwrap_or_else(|_| step.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_says_what_is_asked() {
        let check = |method: &str, path: &str, expected: Option<(Dialect, Operation, Option<&str>, bool)>| {
            let expected = expected.map(|(dialect, operation, model, stream)| Target {
                dialect,
                operation,
                model: model.map(str::to_owned),
                stream,
            });
            assert_eq!(target(method, path), expected, "{method} {path}");
        };
        use Dialect::*;
        use Operation::*;
        check("POST", "/v1/chat/completions", Some((OpenAiChat, Generate, None, false)));
        check("POST", "/brain/v1/chat/completions/?x=1", Some((OpenAiChat, Generate, None, false)));
        check(
            "POST",
            "/openai/deployments/gpt%2D4o/chat/completions?api-version=1",
            Some((OpenAiChat, Generate, Some("gpt-4o"), false)),
        );
        check("POST", "/v1/responses", Some((OpenAiResponses, Generate, None, false)));
        check("POST", "/v1/responses/input_tokens", Some((OpenAiResponses, CountTokens, None, false)));
        check("POST", "/v1/embeddings", Some((OpenAiEmbeddings, Embed, None, false)));
        check("POST", "/v1/messages", Some((Anthropic, Generate, None, false)));
        check("POST", "/v1/messages/count_tokens", Some((Anthropic, CountTokens, None, false)));
        check("GET", "/v1/models", Some((OpenAiChat, Models, None, false)));
        check("GET", "/v1/models/a", Some((OpenAiChat, Models, Some("a"), false)));
        check(
            "POST",
            "/v1beta/models/gemini-2.5-pro:generateContent",
            Some((Gemini, Generate, Some("gemini-2.5-pro"), false)),
        );
        check("POST", "/v1beta/models/g:streamGenerateContent?alt=sse", Some((Gemini, Generate, Some("g"), true)));
        check("POST", "/v1beta/models/g:countTokens", Some((Gemini, CountTokens, Some("g"), false)));
        check("POST", "/v1beta/models/g:embedContent", Some((GeminiEmbeddings, EmbedOne, Some("g"), false)));
        check("POST", "/v1beta/models/g:batchEmbedContents", Some((GeminiEmbeddings, Embed, Some("g"), false)));
        check("GET", "/v1beta/models", Some((Gemini, Models, None, false)));
        check("GET", "/brain/v1beta/models/g", Some((Gemini, Models, Some("g"), false)));
        check(
            "POST",
            "/model/anthropic.claude%3A0/converse",
            Some((Bedrock, Generate, Some("anthropic.claude:0"), false)),
        );
        check(
            "POST",
            "/model/arn:aws:bedrock:eu-1:1:inference-profile/x/converse-stream",
            Some((Bedrock, Generate, Some("arn:aws:bedrock:eu-1:1:inference-profile/x"), true)),
        );
        check("GET", "/v1/chat/completions", None);
        check("POST", "/v1/completions", None);
        check("POST", "/", None);
    }
}
