//! Which of the services a path means. Only its end counts, so that whatever servers put before it (`/openai/v1`,
//! `/api/v1`, `/openai/deployments/NAME`) is served too.

use http::{HeaderMap, Method};
use serde_json::Value;

use crate::model::ask::{Ask, Form, Wrong};
use crate::model::piece::Piece;
use crate::model::script::Script;
use crate::model::vendor::Vendor;
use crate::model::{anthropic, bedrock, chat, embed, gemini, responses};

pub(crate) struct Target {
    pub(crate) vendor: Vendor,
    pub(crate) service: Service,
    /// Of a path that names it.
    pub(crate) model: Option<String>,
    /// Of a path that says it.
    pub(crate) form: Form,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Service {
    Chat,
    Responses,
    Messages,
    Content,
    Converse,
    Embeddings,
    EmbedContent,
    EmbedContents,
    Invoke,
    Count,
    Models,
    Model,
}

impl Service {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Chat => "chat/completions",
            Self::Responses => "responses",
            Self::Messages => "messages",
            Self::Content => "content",
            Self::Converse => "converse",
            Self::Embeddings | Self::EmbedContent | Self::EmbedContents | Self::Invoke => "embeddings",
            Self::Count => "count",
            Self::Models | Self::Model => "models",
        }
    }

    pub(crate) fn billed(self) -> bool {
        !matches!(self, Self::Count | Self::Models | Self::Model)
    }
}

impl Target {
    pub(crate) fn of(method: &Method, path: &str, query: Option<&str>, headers: &HeaderMap) -> Option<Self> {
        let new = |vendor, service| Some(Self { vendor, service, model: None, form: Form::Whole });
        let segments: Vec<&str> = path.split('/').filter(|segment| !segment.is_empty()).collect();
        let anthropic = headers.contains_key("anthropic-version");
        let lists = if anthropic { Vendor::Anthropic } else { Vendor::OpenAi };
        if *method == Method::GET {
            return match segments[..] {
                ["v1beta", "models"] => new(Vendor::Gemini, Service::Models),
                [.., "models"] => new(lists, Service::Models),
                ["v1beta", "models", name] => {
                    Some(Self { model: Some(decoded(name)), ..new(Vendor::Gemini, Service::Model)? })
                }
                [.., "models", name] => Some(Self { model: Some(decoded(name)), ..new(lists, Service::Model)? }),
                _ => None,
            };
        }
        if *method != Method::POST {
            return None;
        }
        match segments[..] {
            [.., "deployments", name, "chat", "completions"] => {
                Some(Self { model: Some(decoded(name)), ..new(Vendor::OpenAi, Service::Chat)? })
            }
            [.., "deployments", name, "embeddings"] => {
                Some(Self { model: Some(decoded(name)), ..new(Vendor::OpenAi, Service::Embeddings)? })
            }
            [.., "chat", "completions"] => new(Vendor::OpenAi, Service::Chat),
            [.., "responses"] => new(Vendor::OpenAi, Service::Responses),
            [.., "responses", "input_tokens"] => new(Vendor::OpenAi, Service::Count),
            [.., "embeddings"] => new(Vendor::OpenAi, Service::Embeddings),
            [.., "messages"] => new(Vendor::Anthropic, Service::Messages),
            [.., "messages", "count_tokens"] => new(Vendor::Anthropic, Service::Count),
            [.., "model", name, what @ ("converse" | "converse-stream")] => {
                let form = if what == "converse" { Form::Whole } else { Form::Events };
                Some(Self { vendor: Vendor::Bedrock, service: Service::Converse, model: Some(decoded(name)), form })
            }
            [.., "model", name, "invoke"] => {
                Some(Self { model: Some(decoded(name)), ..new(Vendor::Bedrock, Service::Invoke)? })
            }
            [.., "model", name, "count-tokens"] => {
                Some(Self { model: Some(decoded(name)), ..new(Vendor::Bedrock, Service::Count)? })
            }
            [.., "models", last] => {
                let (name, what) = last.rsplit_once(':')?;
                let sse = query.is_some_and(|query| query.split('&').any(|pair| pair == "alt=sse"));
                let (service, form) = match what {
                    "generateContent" => (Service::Content, Form::Whole),
                    "streamGenerateContent" if sse => (Service::Content, Form::Events),
                    "streamGenerateContent" => (Service::Content, Form::Array),
                    "embedContent" => (Service::EmbedContent, Form::Whole),
                    "batchEmbedContents" => (Service::EmbedContents, Form::Whole),
                    "countTokens" => (Service::Count, Form::Whole),
                    _ => return None,
                };
                Some(Self { vendor: Vendor::Gemini, service, model: Some(decoded(name)), form })
            }
            _ => None,
        }
    }

    /// The answer of what generates nothing: its model, its body, what the input amounts to.
    pub(crate) fn plain(&self, body: &Value) -> Option<Result<(String, Value, u32), Wrong>> {
        let named = self.model.clone().unwrap_or_default();
        match (self.service, self.vendor) {
            (Service::Embeddings, _) => Some(embed::openai(self.model.as_deref(), body)),
            (Service::EmbedContent, _) => Some(embed::gemini(named, body)),
            (Service::EmbedContents, _) => Some(embed::gemini_batch(named, body)),
            (Service::Invoke, _) => Some(embed::bedrock(named, body)),
            (Service::Count, Vendor::Gemini) => Some(gemini::count(named, body)),
            (Service::Count, Vendor::Bedrock) => Some(bedrock::count(named, body)),
            (Service::Count, Vendor::OpenAi) => Some(responses::count(body)),
            (Service::Count, _) => Some(anthropic::count(body)),
            (Service::Models, Vendor::OpenAi) => Some(Ok((named, chat::models(), 0))),
            (Service::Models, Vendor::Anthropic) => Some(Ok((named, anthropic::models(), 0))),
            (Service::Models, _) => Some(Ok((named, gemini::models(), 0))),
            (Service::Model, Vendor::OpenAi) => Some(Ok((named.clone(), chat::model(&named), 0))),
            (Service::Model, Vendor::Anthropic) => Some(Ok((named.clone(), anthropic::model(&named), 0))),
            (Service::Model, _) => Some(Ok((named.clone(), gemini::model(&named), 0))),
            _ => None,
        }
    }

    pub(crate) fn ask(&self, body: &Value) -> Result<Ask, Wrong> {
        let named = self.model.clone();
        match self.service {
            Service::Responses => responses::ask(body),
            Service::Messages => anthropic::ask(body),
            Service::Content => gemini::ask(named.unwrap_or_default(), self.form, body),
            Service::Converse => bedrock::ask(named.unwrap_or_default(), self.form, body),
            _ => chat::ask(named, body),
        }
    }

    pub(crate) fn whole(&self, ask: &Ask, script: &Script) -> Piece {
        let body = match self.service {
            Service::Responses => responses::whole(ask, script),
            Service::Messages => anthropic::whole(ask, script),
            Service::Content => gemini::whole(ask, script),
            Service::Converse => bedrock::whole(script),
            _ => chat::whole(ask, script),
        };
        Piece::new(body.to_string())
    }

    pub(crate) fn events(&self, ask: &Ask, script: &Script) -> Vec<Piece> {
        match self.service {
            Service::Responses => responses::events(ask, script),
            Service::Messages => anthropic::events(ask, script),
            Service::Content => gemini::events(ask, script),
            Service::Converse => bedrock::events(script),
            _ => chat::events(ask, script),
        }
    }
}

/// Without its percent signs.
fn decoded(segment: &str) -> String {
    let mut bytes = Vec::with_capacity(segment.len());
    let mut rest = segment.as_bytes();
    while let [first, others @ ..] = rest {
        let hex = others.get(..2).and_then(|hex| u8::from_str_radix(std::str::from_utf8(hex).ok()?, 16).ok());
        match (first, hex) {
            (b'%', Some(byte)) => {
                bytes.push(byte);
                rest = &others[2..];
            }
            _ => {
                bytes.push(*first);
                rest = others;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}
