//! Models as a node runs on them: who may serve what callers ask for.

use std::borrow::Cow;
use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use base::Secret;
use ledger::Price;
use llm::catalogue;
use policy::Expr;

use super::Forward;

/// All that the document says of models.
#[derive(Default)]
pub struct Models {
    pub providers: Vec<Arc<Provider>>,
    pub candidates: Vec<Arc<Candidate>>,
    /// By the names that callers use, in the order of the document.
    pub all: Vec<Arc<Model>>,
}

/// Who serves models.
pub struct Provider {
    /// Its place in [`Models::providers`].
    pub index: usize,
    pub name: Arc<str>,
    /// What it is, in the catalogue.
    pub row: &'static catalogue::Provider,
    pub keys: Vec<ProviderKey>,
    pub region: Option<String>,
}

pub struct ProviderKey {
    /// By what it can be told from others in logs and in the books; not secret.
    pub id: Arc<str>,
    pub secret: Secret,
}

/// What callers ask for.
pub struct Model {
    /// With a `*` at its end it stands for all that begin so.
    pub name: Arc<str>,
    pub choose: Choose,
    pub candidates: Vec<Arc<Candidate>>,
    /// Refuse what cannot be carried.
    pub strict: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Choose {
    Fallback,
    Weighted,
    Cheapest,
    Fastest,
    LeastLoaded,
}

/// One that may serve a model.
pub struct Candidate {
    /// Its place in [`Models::candidates`].
    pub index: usize,
    pub provider: Arc<Provider>,
    /// As the provider calls it; with a `*` at its end, what that of the model's name stands for is put there.
    pub model: Arc<str>,
    pub weight: u32,
    pub when: Option<Expr>,
    /// Nothing is known of the cost without one.
    pub price: Option<Arc<Price>>,
    /// Tokens that prompt and answer may have together.
    pub context: Option<u64>,
    /// Tokens of the longest answer.
    pub max_output: u64,
    /// How long its first token may take.
    pub first_token: Option<Duration>,
    pub forward: Box<Forward>,
}

/// Where what calls cost is written down.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ledger {
    /// The folder of the journal.
    pub data: Option<PathBuf>,
    pub sync: Sync,
}

/// When an answer of a model may end, as to what it cost.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Sync {
    /// Once its entry is handed over.
    #[default]
    Group,
    /// Once its entry is on the disk.
    Each,
}

/// What an api of models takes.
pub struct Llm {
    pub models: HashMap<Arc<str>, Arc<Model>>,
    /// Those that stand for many, the longest first.
    pub patterns: Vec<Arc<Model>>,
    /// Bytes of the largest request and of the largest whole answer.
    pub request: usize,
    pub answer: usize,
}

impl Llm {
    /// The model of that name, and what its `*` stands for.
    pub fn model<'n>(&self, name: &'n str) -> Option<(&Arc<Model>, &'n str)> {
        if let Some(model) = self.models.get(name) {
            return Some((model, ""));
        }
        self.patterns.iter().find_map(|model| {
            let rest = name.strip_prefix(model.name.trim_end_matches('*'))?;
            Some((model, rest))
        })
    }
}

impl Candidate {
    /// As the provider calls it for a call whose model's `*` stands for `rest`.
    pub fn model_for(&self, rest: &str) -> Cow<'_, str> {
        match self.model.strip_suffix('*') {
            Some(begin) => format!("{begin}{rest}").into(),
            None => (&*self.model).into(),
        }
    }
}
