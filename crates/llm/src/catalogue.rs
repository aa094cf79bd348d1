//! Providers as data: where one is, which dialects it speaks at which paths, how it is shown a key.
//!
//! A provider that speaks like OpenAI is one row here.

use crate::dialect::{Dialect, Operation, Target};
use crate::percent;
use crate::translate::Quirks;

/// Who serves models, as far as it differs from others.
#[derive(Clone, Copy, Debug)]
pub struct Provider {
    /// Its name in documents and in the price book.
    pub name: &'static str,
    /// Before the paths; with `{region}` and `{project}` to be filled in. `None` if everybody has one's own.
    pub url: Option<&'static str>,
    /// In the order in which they are taken where several would do.
    pub speaks: &'static [Speaks],
    pub key: KeyPlace,
    /// Fields that every request has, unless the caller has said otherwise.
    pub headers: &'static [(&'static str, &'static str)],
    /// It takes `stream_options.include_usage`.
    pub tells_usage: bool,
    /// What it says where it does not count for this model, or not for this key, as statuses and words of a message: whoever
    /// may ask a model need not have the right to count.
    pub uncounted: &'static [(u16, &'static str)],
    pub quirks: Quirks,
}

/// A dialect, and where each operation of it is.
#[derive(Clone, Copy, Debug)]
pub struct Speaks {
    pub dialect: Dialect,
    /// How names of the models begin that are asked in it, behind the place that a profile has before them (`eu.`); all if none
    /// is given.
    pub models: &'static [&'static str],
    /// The most texts of which vectors are asked in one call.
    pub texts: usize,
    /// Below the URL, with `{model}` where it belongs; first whole, then as a stream.
    paths: &'static [(Operation, &'static str, &'static str)],
}

/// Where a provider wants its key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyPlace {
    /// `Authorization: Bearer`.
    Bearer,
    /// A field of its own.
    Field(&'static str),
    /// Signed by it: AWS Signature Version 4, for this service.
    Signature(&'static str),
}

/// The row of that name.
pub fn find(name: &str) -> Option<&'static Provider> {
    ALL.iter().find(|provider| provider.name == name)
}

pub fn all() -> &'static [Provider] {
    ALL
}

// === impl Provider ===

impl Provider {
    /// The dialect in which it is asked of a model what a caller asks in another: the caller's own if it speaks that, else the
    /// first into which something translates.
    pub fn speaks_to(&self, caller: Dialect, operation: Operation, model: &str) -> Option<&'static Speaks> {
        let mut able = self.speaks.iter().filter(|it| it.path(operation, false).is_some() && it.is_for(model));
        let own = able.clone().find(|it| it.dialect == caller);
        own.or_else(|| able.find(|it| translates(caller, it.dialect, operation)))
    }

    /// Whether an answer that is no success says that it does not count tokens here. That says nothing about the key.
    pub fn says_uncounted(&self, status: u16, body: &[u8]) -> bool {
        let says = |words: &str| memchr::memmem::find(body, words.as_bytes()).is_some();
        self.uncounted.iter().any(|(it, words)| *it == status && says(words))
    }

    /// What must be filled into its URL.
    pub fn wants(&self, place: &str) -> bool {
        self.url.is_some_and(|url| url.contains(&format!("{{{place}}}")))
    }
}

/// Whether what is asked in one dialect can be asked in another.
fn translates(caller: Dialect, provider: Dialect, operation: Operation) -> bool {
    let embeds = |dialect| matches!(dialect, OpenAiEmbeddings | GeminiEmbeddings | BedrockTitan | BedrockCohere);
    match operation {
        Generate | CountTokens => !embeds(caller) && !embeds(provider),
        Embed | EmbedOne => embeds(caller) && embeds(provider),
        Models => false,
    }
}

// === impl Speaks ===

impl Speaks {
    /// The path and query of a request; `None` if that is not asked of this model.
    pub fn target(&self, asked: &Target, model: &str, stream: bool) -> Option<String> {
        let path = self.path(asked.operation, stream)?;
        let model = match (self.dialect, asked.operation) {
            (Bedrock, CountTokens) => counted_by_bedrock(model)?,
            _ => model,
        };
        let mut step = String::with_capacity(model.len());
        percent::encode(model, &mut step);
        Some(path.replacen("{model}", &step, 1))
    }

    fn is_for(&self, model: &str) -> bool {
        let itself = model.split_once('.').map_or(model, |(_, itself)| itself);
        self.models.is_empty() || self.models.iter().any(|it| model.starts_with(it) || itself.starts_with(it))
    }

    fn path(&self, operation: Operation, stream: bool) -> Option<&'static str> {
        let (_, whole, streamed) = self.paths.iter().find(|(it, ..)| *it == operation)?;
        Some(if stream { streamed } else { whole })
    }
}

/// The name by which Bedrock counts the tokens of a model: that of the model itself, where what is called is a profile that
/// has a place before it (`us.anthropic.claude-…`). It counts Claude's alone.
fn counted_by_bedrock(model: &str) -> Option<&str> {
    let itself = match model.split_once('.') {
        Some((place, itself)) if place != "anthropic" => itself,
        _ => model,
    };
    itself.starts_with("anthropic.").then_some(itself)
}

use Dialect::{
    Anthropic, Bedrock, BedrockCohere, BedrockTitan, Gemini, GeminiEmbeddings, OpenAiChat, OpenAiEmbeddings,
    OpenAiResponses,
};
use Operation::{CountTokens, Embed, EmbedOne, Generate, Models};

const fn speaks(dialect: Dialect, paths: &'static [(Operation, &'static str, &'static str)]) -> Speaks {
    Speaks { dialect, models: &[], texts: usize::MAX, paths }
}

const CHAT: Speaks = speaks(OpenAiChat, &[(Generate, "/chat/completions", "/chat/completions")]);
const RESPONSES: Speaks = speaks(OpenAiResponses, &[(Generate, "/responses", "/responses")]);
/// OpenAI itself also counts.
const RESPONSES_COUNTED: Speaks = speaks(
    OpenAiResponses,
    &[(Generate, "/responses", "/responses"), (CountTokens, "/responses/input_tokens", "/responses/input_tokens")],
);
const EMBEDDINGS: Speaks =
    speaks(OpenAiEmbeddings, &[(Embed, "/embeddings", "/embeddings"), (EmbedOne, "/embeddings", "/embeddings")]);
const EMBED_CONTENTS: Speaks = speaks(
    GeminiEmbeddings,
    &[
        (Embed, "/models/{model}:batchEmbedContents", "/models/{model}:batchEmbedContents"),
        (EmbedOne, "/models/{model}:embedContent", "/models/{model}:embedContent"),
    ],
);
const MESSAGES: Speaks = speaks(
    Anthropic,
    &[
        (Generate, "/v1/messages", "/v1/messages"),
        (CountTokens, "/v1/messages/count_tokens", "/v1/messages/count_tokens"),
    ],
);
const GENERATE: Speaks = speaks(
    Gemini,
    &[
        (Generate, "/models/{model}:generateContent", "/models/{model}:streamGenerateContent?alt=sse"),
        (CountTokens, "/models/{model}:countTokens", "/models/{model}:countTokens"),
    ],
);
const CONVERSE: Speaks = speaks(
    Bedrock,
    &[
        (Generate, "/model/{model}/converse", "/model/{model}/converse-stream"),
        (CountTokens, "/model/{model}/count-tokens", "/model/{model}/count-tokens"),
    ],
);

const INVOKE: &[(Operation, &str, &str)] = &[
    (Embed, "/model/{model}/invoke", "/model/{model}/invoke"),
    (EmbedOne, "/model/{model}/invoke", "/model/{model}/invoke"),
];
const TITAN: Speaks = Speaks {
    dialect: BedrockTitan,
    models: &["amazon.titan-embed-text-", "amazon.titan-embed-g1-text-"],
    texts: 1,
    paths: INVOKE,
};
const COHERE: Speaks = Speaks { dialect: BedrockCohere, models: &["cohere.embed-"], texts: 96, paths: INVOKE };

/// Like OpenAI, but for its own.
const LIKE: &[Speaks] = &[CHAT, EMBEDDINGS];
const CHAT_ONLY: &[Speaks] = &[CHAT];

const NO_QUIRKS: Quirks = Quirks { max_tokens: false, reasoning_content: false };

const fn like(name: &'static str, url: &'static str) -> Provider {
    Provider {
        name,
        url: Some(url),
        speaks: LIKE,
        key: KeyPlace::Bearer,
        headers: &[],
        tells_usage: true,
        uncounted: &[],
        quirks: NO_QUIRKS,
    }
}

const fn chat(name: &'static str, url: &'static str) -> Provider {
    Provider { speaks: CHAT_ONLY, ..like(name, url) }
}

/// It knows the older name only of how long an answer may be.
const fn older(provider: Provider) -> Provider {
    Provider { quirks: Quirks { max_tokens: true, ..provider.quirks }, ..provider }
}

/// It wants its thoughts back with the calls of tools they led to.
const fn thinking(provider: Provider) -> Provider {
    Provider { quirks: Quirks { reasoning_content: true, ..provider.quirks }, ..provider }
}

static ALL: &[Provider] = &[
    Provider { speaks: &[CHAT, RESPONSES_COUNTED, EMBEDDINGS], ..like("openai", "https://api.openai.com/v1") },
    Provider {
        name: "anthropic",
        url: Some("https://api.anthropic.com"),
        speaks: &[MESSAGES],
        key: KeyPlace::Field("x-api-key"),
        headers: &[("anthropic-version", "2023-06-01")],
        tells_usage: false,
        uncounted: &[],
        quirks: NO_QUIRKS,
    },
    Provider {
        name: "gemini",
        url: Some("https://generativelanguage.googleapis.com/v1beta"),
        speaks: &[GENERATE, EMBED_CONTENTS],
        key: KeyPlace::Field("x-goog-api-key"),
        headers: &[],
        tells_usage: false,
        uncounted: &[],
        quirks: NO_QUIRKS,
    },
    Provider {
        name: "vertex",
        url: Some(
            "https://{region}-aiplatform.googleapis.com/v1/projects/{project}/locations/{region}/publishers/google",
        ),
        speaks: &[GENERATE],
        key: KeyPlace::Bearer,
        headers: &[],
        tells_usage: false,
        uncounted: &[],
        quirks: NO_QUIRKS,
    },
    Provider {
        name: "bedrock",
        url: Some("https://bedrock-runtime.{region}.amazonaws.com"),
        speaks: &[CONVERSE, TITAN, COHERE],
        key: KeyPlace::Signature("bedrock"),
        headers: &[],
        tells_usage: false,
        uncounted: &[(400, "support counting tokens"), (403, ""), (404, "")],
        quirks: NO_QUIRKS,
    },
    Provider {
        key: KeyPlace::Field("api-key"),
        speaks: &[CHAT, RESPONSES, EMBEDDINGS],
        ..like("azure", "https://{project}.openai.azure.com/openai/v1")
    },
    older(like("mistral", "https://api.mistral.ai/v1")),
    chat("groq", "https://api.groq.com/openai/v1"),
    thinking(older(chat("deepseek", "https://api.deepseek.com/v1"))),
    older(like("together_ai", "https://api.together.xyz/v1")),
    older(like("openrouter", "https://openrouter.ai/api/v1")),
    chat("xai", "https://api.x.ai/v1"),
    like("fireworks_ai", "https://api.fireworks.ai/inference/v1"),
    older(chat("perplexity", "https://api.perplexity.ai")),
    chat("cerebras", "https://api.cerebras.ai/v1"),
    older(like("deepinfra", "https://api.deepinfra.com/v1/openai")),
    like("nebius", "https://api.studio.nebius.com/v1"),
    thinking(older(chat("moonshot", "https://api.moonshot.ai/v1"))),
    older(like("cohere", "https://api.cohere.ai/compatibility/v1")),
    older(like("nvidia_nim", "https://integrate.api.nvidia.com/v1")),
    older(chat("sambanova", "https://api.sambanova.ai/v1")),
    like("vllm", "http://127.0.0.1:8000/v1"),
    older(like("ollama", "http://127.0.0.1:11434/v1")),
    older(like("lm_studio", "http://127.0.0.1:1234/v1")),
    older(Provider { url: None, ..like("openai-compatible", "") }),
    Provider {
        name: "anthropic-compatible",
        url: None,
        speaks: &[MESSAGES],
        key: KeyPlace::Field("x-api-key"),
        headers: &[("anthropic-version", "2023-06-01")],
        tells_usage: false,
        uncounted: &[],
        quirks: NO_QUIRKS,
    },
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_provider_is_asked_in_the_callers_own_words_where_it_can_be() {
        let of = |provider: &str, model: &str, caller, operation, expected: Option<Dialect>| {
            let speaks = find(provider).unwrap().speaks_to(caller, operation, model);
            assert_eq!(speaks.map(|it| it.dialect), expected, "{provider} {model} {caller} {operation:?}");
        };
        let check = |provider: &str, caller, operation, expected| of(provider, "m", caller, operation, expected);
        check("openai", OpenAiResponses, Generate, Some(OpenAiResponses));
        check("openai", Anthropic, Generate, Some(OpenAiChat));
        check("groq", OpenAiResponses, Generate, Some(OpenAiChat));
        check("anthropic", Anthropic, CountTokens, Some(Anthropic));
        check("openai", OpenAiResponses, CountTokens, Some(OpenAiResponses));
        check("openai", Anthropic, CountTokens, Some(OpenAiResponses));
        check("groq", Anthropic, CountTokens, None);
        check("gemini", OpenAiEmbeddings, Embed, Some(GeminiEmbeddings));
        check("gemini", GeminiEmbeddings, EmbedOne, Some(GeminiEmbeddings));
        check("openai", GeminiEmbeddings, EmbedOne, Some(OpenAiEmbeddings));
        check("anthropic", OpenAiEmbeddings, Embed, None);
        check("groq", OpenAiEmbeddings, Embed, None);
        check("bedrock", Gemini, Generate, Some(Bedrock));
        check("bedrock", Gemini, CountTokens, Some(Bedrock));
        check("bedrock", OpenAiEmbeddings, Embed, None);
        for (model, expected) in [
            ("amazon.titan-embed-text-v1", Some(BedrockTitan)),
            ("amazon.titan-embed-text-v2:0", Some(BedrockTitan)),
            ("amazon.titan-embed-g1-text-02", Some(BedrockTitan)),
            ("amazon.titan-embed-image-v1", None),
            ("amazon.nova-pro-v1:0", None),
            ("cohere.embed-english-v3", Some(BedrockCohere)),
            ("eu.cohere.embed-v4:0", Some(BedrockCohere)),
            ("cohere.command-r-v1:0", None),
        ] {
            of("bedrock", model, OpenAiEmbeddings, Embed, expected);
            of("bedrock", model, GeminiEmbeddings, EmbedOne, expected);
            of("bedrock", model, OpenAiChat, Generate, Some(Bedrock));
        }
    }

    #[test]
    fn paths_have_the_model_where_the_dialect_has_it() {
        let check = |provider: &str, caller, stream, expected: &str| {
            let asked = Target { dialect: caller, operation: Generate, model: None, stream };
            let speaks = find(provider).unwrap().speaks_to(caller, Generate, "a.b/c:0").unwrap();
            assert_eq!(speaks.target(&asked, "a.b/c:0", stream).as_deref(), Some(expected));
        };
        check("openai", OpenAiChat, true, "/chat/completions");
        check("gemini", OpenAiChat, true, "/models/a.b%2Fc%3A0:streamGenerateContent?alt=sse");
        check("bedrock", Anthropic, false, "/model/a.b%2Fc%3A0/converse");
    }

    #[test]
    fn bedrock_counts_the_tokens_of_claude_by_the_name_of_the_model_itself() {
        let check = |model: &str, expected: Option<&str>| {
            let asked = Target { dialect: Anthropic, operation: CountTokens, model: None, stream: false };
            let speaks = find("bedrock").unwrap().speaks_to(Anthropic, CountTokens, model).unwrap();
            let path = speaks.target(&asked, model, false);
            let expected = expected.map(|model| format!("/model/{model}/count-tokens"));
            assert_eq!(path, expected, "{model}");
        };
        check("anthropic.claude-sonnet-4-20250514-v1:0", Some("anthropic.claude-sonnet-4-20250514-v1%3A0"));
        check("us.anthropic.claude-haiku-4-5", Some("anthropic.claude-haiku-4-5"));
        check("global.anthropic.claude-haiku-4-5", Some("anthropic.claude-haiku-4-5"));
        for model in [
            "amazon.nova-pro-v1:0",
            "us.amazon.nova-pro-v1:0",
            "m",
            "arn:aws:bedrock:us-east-1:1:application-inference-profile/x",
        ] {
            check(model, None);
        }
    }

    #[test]
    fn who_does_not_count_says_so_in_its_own_words() {
        let check = |provider: &str, status, body: &str, expected| {
            assert_eq!(
                find(provider).unwrap().says_uncounted(status, body.as_bytes()),
                expected,
                "{provider} {status} {body}"
            );
        };
        check("bedrock", 400, r#"{"message":"The provided model doesn't support counting tokens."}"#, true);
        check("bedrock", 400, r#"{"message":"messages: at least one is required"}"#, false);
        check("bedrock", 403, "", true);
        check("bedrock", 404, "{}", true);
        check("bedrock", 429, "{}", false);
        check("anthropic", 403, "", false);
        check("anthropic", 404, "", false);
    }

    #[test]
    fn names_are_there_once() {
        let mut names: Vec<_> = all().iter().map(|it| it.name).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), all().len());
        assert!(find("bedrock").unwrap().wants("region") && !find("openai").unwrap().wants("region"));
    }
}
