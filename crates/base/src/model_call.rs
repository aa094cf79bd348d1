//! What a call asks of a model, as far as policies and the choice of a provider act on it.

use std::sync::Arc;

/// Known once the call's body has been understood.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ModelCall {
    /// Whose words the caller speaks: `openai-chat`, `anthropic` ...
    pub dialect: &'static str,
    /// As the caller names it.
    pub model: Arc<str>,
    /// The caller wants the answer piece by piece.
    pub stream: bool,
    /// Tokens of the prompt, estimated.
    pub prompt: u64,
    /// The most tokens the answer may have, by what the caller or the model says.
    pub output: u64,
    /// What it may cost by these, in 10^-12 USD, as far as prices are known; of all that may serve it the dearest.
    pub cost: u64,
    pub tools: bool,
    pub images: bool,
    pub audio: bool,
    pub documents: bool,
    /// JSON by a schema is wanted.
    pub json_schema: bool,
    pub reasoning: bool,
}
