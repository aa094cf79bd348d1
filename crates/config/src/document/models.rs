//! Models: who serves them, what callers call them, and what they may cost.

use base::{SecretRef, Size};
use ledger::Rates;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, de};

use super::{FromText, OneOrMany, OrNone, OrText, Retry, Timeouts};

section! {
    /// Who serves models.
    Provider {
        /// What it is: `openai`, `anthropic`, `gemini`, `bedrock`, `azure`, `vertex`, `mistral`, `groq`, `ollama` and the
        /// others of the catalogue (`weir prices --providers`); `openai-compatible` and `anthropic-compatible` for any
        /// other. The provider's own name unless given.
        kind: Option<String>,
        /// Where it is: a base URL such as `http://127.0.0.1:8000/v1`, or an upstream's name. The catalogue's unless given.
        upstream: Option<String>,
        /// Its keys, one or a list: used in turn, and one that meets 429 is left alone for as long as the provider says.
        keys: OneOrManySecrets,
        /// Bedrock, Vertex: where its models run.
        region: Option<String>,
        /// Azure, Vertex: the resource or project that is part of its URL.
        project: Option<String>,
        /// Over those of the upstream.
        timeouts: Timeouts,
        /// Over that of the upstream.
        retry: Retry,
    }
}

section! {
    /// What callers ask for, and who may serve it.
    Model {
        /// Which candidate is tried first: `fallback` (default, in the order written), `weighted`, `cheapest`, `fastest`
        /// (measured time to the first token and tokens per second) or `least-loaded` (by what the providers' own
        /// rate-limit fields leave). The others follow in case it fails.
        choose: Option<Choose>,
        /// Who may serve it.
        candidates: Vec<OrText<Candidate>>,
        /// Refuse what cannot be carried into the words of the provider, instead of leaving it out and naming it in
        /// `weir-lost`. Default: false.
        strict: bool,
    }
}

section! {
    /// One that may serve a model.
    Candidate {
        /// `provider/model`, as the provider calls it: `anthropic/claude-sonnet-4-5`.
        model: String,
        /// Its share where `choose` is `weighted`. Default: 1.
        weight: Option<u32>,
        /// Only calls for which this CEL expression is true: `llm.tokens < 100000 && !llm.tools`.
        when: Option<String>,
        /// What it costs, in prices of a million tokens: `{ input: 3 USD, output: 15 USD }`. What the price book says
        /// unless given.
        price: Option<Rates>,
        /// Tokens that prompt and answer may have together. The price book's unless given.
        context: Option<u64>,
        /// Tokens of the longest answer: what is reserved where a call sets no bound. The price book's unless given;
        /// 16384 where that does not know.
        max_output: Option<u64>,
        /// How long its first token may take before the next candidate is tried; or `none`. Default: `30s` where there
        /// is a next one, else `none`.
        first_token: Option<OrNone>,
    }
}

/// Which candidate comes first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Choose {
    /// As written.
    #[default]
    Fallback,
    /// By chance, by weight.
    Weighted,
    /// The one whose worst case costs least.
    Cheapest,
    /// The one that answered fastest lately.
    Fastest,
    /// The one with most room left, by its own account.
    LeastLoaded,
}

section! {
    /// What an api of models takes: calls in the words of OpenAI (chat completions, responses, embeddings, models),
    /// Anthropic (messages) and Gemini (generateContent).
    Llm {
        /// The models it serves, by their names under `models`; all unless given.
        models: OneOrMany,
        /// Where its paths begin: `/ai` for `/ai/v1/chat/completions`. Default: `/`.
        prefix: Option<String>,
        /// The largest request that is read. Default: `32MiB`.
        request: Option<Size>,
        /// The largest answer that is read as a whole, and the largest event. Default: `32MiB`.
        answer: Option<Size>,
    }
}

section! {
    /// Where what calls cost is written down, and by which prices.
    Ledger {
        /// The folder of the journal, such as `/var/lib/weir`. Without one nothing is written down, and budgets begin
        /// anew with each start.
        data: Option<String>,
        /// A file of prices over those that came with Weir, as `weir prices update` writes it.
        prices: Option<String>,
        /// Which answers wait for the disk. Default: `group`.
        sync: Option<Sync>,
    }
}

/// When an answer of a model may end, as to what it cost.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Sync {
    /// Once the entry is in memory that outlives the process; entries of a tenth of a second are synced together later.
    #[default]
    Group,
    /// Once the entry is synced to the disk, with those of others that end meanwhile: what a caller has seen the end of is
    /// in the books, whatever becomes of the machine.
    Each,
}

/// One secret or a list of them.
#[derive(Clone, Debug, Default)]
pub struct OneOrManySecrets(pub Vec<SecretRef>);

impl FromText for Model {
    const EXPECTED: &'static str = "`provider/model`, or a map with `candidates`";
    fn from_text(text: &str) -> Result<Model, String> {
        Ok(Model { candidates: vec![OrText(Candidate::from_text(text)?)], ..Model::default() })
    }
}

impl FromText for Candidate {
    const EXPECTED: &'static str = "`provider/model`, or a map with `model`";
    fn from_text(text: &str) -> Result<Candidate, String> {
        Ok(Candidate { model: text.into(), ..Candidate::default() })
    }
}

impl<'de> Deserialize<'de> for OneOrManySecrets {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<OneOrManySecrets, D::Error> {
        let OneOrMany { values, .. } = OneOrMany::deserialize(deserializer)?;
        let secrets = values.iter().map(|text| text.parse().map_err(de::Error::custom));
        secrets.collect::<Result<_, _>>().map(OneOrManySecrets)
    }
}

impl JsonSchema for OneOrManySecrets {
    fn inline_schema() -> bool {
        true
    }
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "OneOrManySecrets".into()
    }
    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let one = generator.subschema_for::<SecretRef>();
        json_schema!({ "anyOf": [one, { "type": "array", "items": one }] })
    }
}
