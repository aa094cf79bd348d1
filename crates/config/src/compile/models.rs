//! Models: providers, the candidates behind each name, what they cost and what may be spent.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use aws_lc_rs::digest;
use base::{Secret, Span};
use ledger::{Books, Near, Price, PriceBook, Rows};
use llm::catalogue::{self, KeyPlace};
use policy::{Expr, Gives};

use super::upstreams::{Upstreams, refine_retry, refine_timeouts};
use super::{Context, key};
use crate::diagnostic::nearest;
use crate::document::{self, Named, OrNone, OrText};
use crate::snapshot::{
    Candidate, Choose, Forward, HostRewrite, Ledger, Llm, Model, Models, Provider, ProviderKey, Rewrite, Sync,
    Timeouts, Upstream, Weighted,
};

/// What is reserved for an answer where nobody knows how long it may be.
const MAX_OUTPUT: u64 = 16_384;
/// Models think before they say anything, and between two words.
const FIRST_BYTE: Duration = Duration::from_secs(600);
const IDLE: Duration = Duration::from_secs(300);
/// How long the first token may take where there is another candidate.
const FIRST_TOKEN: Duration = Duration::from_secs(30);
const WHOLE: usize = 32 << 20;

/// A provider, with what its candidates are compiled from.
struct Known {
    provider: Arc<Provider>,
    upstream: Arc<Upstream>,
    timeouts: document::Timeouts,
    retry: document::Retry,
}

impl Context<'_> {
    pub(super) fn models(
        &mut self,
        Named(providers): Named<document::Provider>,
        Named(written): Named<OrText<document::Model>>,
        books: &Books,
        upstreams: &mut Upstreams,
    ) -> Models {
        let mut models = Models::default();
        let mut known: HashMap<String, Option<Known>> = HashMap::new();
        for (name, provider) in providers {
            let provider = self.provider(&name, provider, models.providers.len(), upstreams);
            models.providers.extend(provider.iter().map(|it| it.provider.clone()));
            known.insert(name, provider);
        }
        for (name, OrText(model)) in written {
            let at = key("models", &name);
            let document::Model { choose, candidates, strict } = model;
            if name.is_empty() || name.trim_end_matches('*').contains('*') || name.ends_with("**") {
                self.error(&at, "a `*` may stand only at the end of a model's name, once");
            }
            if candidates.is_empty() && !self.broken(&at) && !self.misnamed(&at) {
                self.error(&at, "no candidate; expected `candidates: [provider/model]`");
            }
            let several = candidates.len() > 1;
            let count = candidates.len();
            let mut all = Vec::new();
            for (index, OrText(candidate)) in candidates.into_iter().enumerate() {
                // Written alone, the text is the value.
                let inner = format!("{at}.candidates[{index}]");
                let (_, found) = self.tree.find(&crate::source::steps(&inner));
                let place = if found == inner { &inner } else { &at };
                let has_next = several && index + 1 < count;
                let compiled = self.candidate(place, &name, candidate, has_next, &known, &books.prices, &models);
                if let Some(candidate) = compiled {
                    if candidate.price.is_none() && !candidate.model.ends_with('*') && books.has_budgets() {
                        let message = format!(
                            "nobody knows what `{}/{}` costs, so budgets of money do not see it; give its `price`",
                            candidate.provider.name, candidate.model
                        );
                        self.warn(place, message);
                    }
                    let candidate = Arc::new(candidate);
                    models.candidates.push(candidate.clone());
                    all.push(candidate);
                }
            }
            if choose == Some(document::Choose::Weighted) && !all.is_empty() && all.iter().all(|it| it.weight == 0) {
                self.error(&at, "all weights are zero, so none would be chosen");
            }
            let choose = match choose.unwrap_or_default() {
                document::Choose::Fallback => Choose::Fallback,
                document::Choose::Weighted => Choose::Weighted,
                document::Choose::Cheapest => Choose::Cheapest,
                document::Choose::Fastest => Choose::Fastest,
                document::Choose::LeastLoaded => Choose::LeastLoaded,
            };
            models.all.push(Arc::new(Model { name: name.into(), choose, candidates: all, strict }));
        }
        models
    }

    fn provider(
        &mut self,
        name: &str,
        written: document::Provider,
        index: usize,
        upstreams: &mut Upstreams,
    ) -> Option<Known> {
        let at = key("providers", name);
        let document::Provider { kind, upstream, keys, region, project, timeouts, retry } = written;
        if name.contains('/') {
            self.error(&at, "a provider's name has no `/`, since `provider/model` names a model");
        }
        self.check_timeouts(&format!("{at}.timeouts"), &timeouts);
        self.check_retry(&format!("{at}.retry"), &retry);
        let (kind_at, kind) = match &kind {
            Some(kind) => (format!("{at}.kind"), kind.as_str()),
            None => (at.clone(), name),
        };
        let Some(row) = catalogue::find(kind) else {
            let help = nearest(kind, catalogue::all().iter().map(|it| it.name))
                .unwrap_or_else(|| "`kind: openai-compatible` takes any that speaks like OpenAI".into());
            self.error_with(&kind_at, format!("no kind of provider is called `{kind}`"), Some(help));
            return None;
        };
        for (field, value) in [("region", &region), ("project", &project)] {
            if row.wants(field) && value.is_none() && upstream.is_none() {
                self.error(&at, format!("`{field}` is missing, which is part of the URL of `{kind}`"));
                return None;
            }
        }
        let place = match (&upstream, row.url) {
            (Some(upstream), _) => upstream.clone(),
            (None, Some(url)) => url
                .replace("{region}", region.as_deref().unwrap_or_default())
                .replace("{project}", project.as_deref().unwrap_or_default()),
            (None, None) => {
                self.error(&at, format!("`upstream` is missing; a provider of kind `{kind}` is at a URL of your own"));
                return None;
            }
        };
        let remote = upstream.is_none() && place.starts_with("https://");
        if keys.0.is_empty() && remote && !self.broken(&format!("{at}.keys")) {
            self.error(&at, "`keys` is missing; expected one such as `keys: env:PROVIDER_KEY`");
        }
        let one = keys.0.len() == 1;
        let mut read = Vec::new();
        for (index, reference) in keys.0.iter().enumerate() {
            let inner = format!("{at}.keys[{index}]");
            let place = if one && !self.is_list(&format!("{at}.keys")) { format!("{at}.keys") } else { inner };
            if let Some(bytes) = self.read(&place, reference) {
                read.extend(self.provider_key(&place, row.key, bytes.trim_ascii()));
            }
        }
        let upstream_at = if upstream.is_some() { format!("{at}.upstream") } else { at.clone() };
        let upstream = self.use_upstream(&upstream_at, &place, upstreams)?;
        let provider = Provider { index, name: name.into(), row, keys: read, region };
        Some(Known { provider: Arc::new(provider), upstream, timeouts, retry })
    }

    fn provider_key(&mut self, at: &str, place: KeyPlace, text: &[u8]) -> Option<ProviderKey> {
        let printable = !text.is_empty() && text.iter().all(|byte| byte.is_ascii_graphic());
        if !printable {
            self.error(at, "not a key: it is empty, or has spaces or control characters in it");
            return None;
        }
        if matches!(place, KeyPlace::Signature(_)) && text.split(|byte| *byte == b':').count() < 2 {
            self.error(at, "expected `ACCESS_KEY_ID:SECRET_ACCESS_KEY`, and a session token after another `:`");
            return None;
        }
        let hash = digest::digest(&digest::SHA256, text);
        let id: String = hash.as_ref()[..4].iter().map(|byte| format!("{byte:02x}")).collect();
        Some(ProviderKey { id: id.into(), secret: Secret::new(text) })
    }

    #[allow(clippy::too_many_arguments)]
    fn candidate(
        &mut self,
        at: &str,
        name: &str,
        written: document::Candidate,
        has_next: bool,
        known: &HashMap<String, Option<Known>>,
        prices: &PriceBook,
        models: &Models,
    ) -> Option<Candidate> {
        let document::Candidate { model, weight, when, price, context, max_output, first_token } = written;
        let when = when.and_then(|text| match Expr::compile(&text, Gives::Truth) {
            Ok(when) => Some(when),
            Err(message) => {
                self.error(&format!("{at}.when"), message);
                None
            }
        });
        let model_at = if self.is_written(at, "model") { format!("{at}.model") } else { at.to_owned() };
        let Some((provider, model)) = model.split_once('/').filter(|(_, model)| !model.is_empty()) else {
            if !self.broken(at) {
                self.error(&model_at, format!("found `{model}`, expected `provider/model`"));
            }
            return None;
        };
        let Some(known_as) = known.get(provider) else {
            if !self.is_lost("providers", provider) {
                let help = nearest(provider, known.keys().map(String::as_str))
                    .unwrap_or_else(|| format!("define it: `providers: {{ {provider}: {{ keys: env:... }} }}`"));
                self.error_with(&model_at, format!("there is no provider `{provider}`"), Some(help));
            }
            return None;
        };
        if model.ends_with('*') && !name.ends_with('*') {
            self.error(&model_at, format!("`*` stands for nothing, since `{name}` has none at its end"));
            return None;
        }
        let Known { provider, upstream, timeouts, retry } = known_as.as_ref()?;
        let found = prices.find(provider.row.name, model).filter(|found| found.how != Near::Newest);
        let stated = price.map(|base| {
            let book = found.as_ref().map(|it| &it.price);
            Arc::new(Price {
                row: format!("{}/{model}", provider.name).into(),
                source: "document".into(),
                date: "".into(),
                max_input: book.and_then(|it| it.max_input),
                max_output: book.and_then(|it| it.max_output),
                base,
                sections: Vec::new(),
            })
        });
        let price = stated.or(found.map(|it| it.price));
        let default = Timeouts { first_byte: Some(FIRST_BYTE), idle: Some(IDLE), ..upstream.timeouts.clone() };
        // What the upstream says of itself, where the document has one.
        let general = if upstream.endpoints.is_empty() { upstream.timeouts.clone() } else { default };
        let forward = Forward {
            split: vec![Weighted { upstream: upstream.clone(), weight: 1 }],
            mirror: None,
            rewrite: Rewrite { path: None, host: Some(HostRewrite::Endpoint) },
            timeouts: refine_timeouts(timeouts, &general),
            retry: refine_retry(retry, &upstream.retry),
            forwarded: false,
        };
        let first_token = match first_token {
            Some(OrNone(span)) => span.map(|Span(span)| span),
            None => has_next.then_some(FIRST_TOKEN),
        };
        Some(Candidate {
            index: models.candidates.len(),
            provider: provider.clone(),
            model: model.into(),
            weight: weight.unwrap_or(1),
            when,
            context: context.or_else(|| price.as_ref().and_then(|it| it.max_input)),
            max_output: max_output.or_else(|| price.as_ref().and_then(|it| it.max_output)).unwrap_or(MAX_OUTPUT),
            price,
            first_token,
            forward: Box::new(forward),
        })
    }

    /// What an api of models takes.
    pub(super) fn llm(&mut self, at: &str, written: &document::Llm, models: &Models) -> Llm {
        let document::Llm { models: named, prefix: _, request, answer } = written;
        if models.all.is_empty() && !self.broken("models") {
            self.error(at, "there are no models to serve; expected some under `models`");
        }
        let mut chosen: Vec<Arc<Model>> = Vec::new();
        for (index, name) in named.values.iter().enumerate() {
            let place = if named.list { format!("{at}.models[{index}]") } else { format!("{at}.models") };
            match models.all.iter().find(|model| *model.name == **name) {
                Some(model) => chosen.push(model.clone()),
                None if self.is_lost("models", name) => {}
                None => {
                    let help = nearest(name, models.all.iter().map(|model| &*model.name));
                    self.error_with(&place, format!("there is no model `{name}`"), help);
                }
            }
        }
        if named.values.is_empty() {
            chosen = models.all.clone();
        }
        let (mut patterns, plain): (Vec<_>, Vec<_>) = chosen.into_iter().partition(|it| it.name.ends_with('*'));
        patterns.sort_by_key(|it| std::cmp::Reverse(it.name.len()));
        let bytes =
            |size: &Option<base::Size>| size.map_or(WHOLE, |size| usize::try_from(size.0).unwrap_or(usize::MAX));
        Llm {
            models: plain.into_iter().map(|model| (model.name.clone(), model)).collect(),
            patterns,
            request: bytes(request),
            answer: bytes(answer),
        }
    }

    /// The price book and the budgets, and where the journal lies.
    pub(super) fn books(&mut self, written: document::Ledger, budgets: &ledger::BudgetsSpec) -> (Arc<Books>, Ledger) {
        let document::Ledger { data, prices, sync } = written;
        let rows = prices.and_then(|path| {
            let at = "ledger.prices";
            let text = self.read(at, &base::SecretRef::File(path.clone()))?;
            match std::str::from_utf8(&text).map_err(|_| "not text".to_owned()).and_then(|text| {
                Rows::read(text).map_err(|errors| {
                    let lines = errors.iter().map(|it| format!("line {}: {}", it.line, it.message));
                    lines.collect::<Vec<_>>().join("; ")
                })
            }) {
                Ok(rows) => Some(rows),
                Err(message) => {
                    self.error(at, format!("{path} is no file of prices: {message}"));
                    None
                }
            }
        });
        let book = PriceBook::new(Vec::new(), rows);
        let previous = self.previous.map(|snapshot| &*snapshot.books);
        let books = Books::new(budgets, book, previous).unwrap_or_else(|errors| {
            for error in errors {
                self.error(&format!("{}.{}", key("budgets", &error.budget), error.field), error.message);
            }
            // Nothing runs on it: there are errors.
            Books::default()
        });
        for (budget, store) in books.stores() {
            if !self.stores.iter().any(|it| it.name == *store) && !self.is_lost("stores", store) {
                let help = nearest(store, self.stores.iter().map(|it| &*it.name));
                let at = format!("{}.shared", key("budgets", budget));
                self.error_with(&at, format!("there is no store `{store}` in `stores`"), help);
            }
        }
        let sync = match sync.unwrap_or_default() {
            document::Sync::Group => Sync::Group,
            document::Sync::Each => Sync::Each,
        };
        if sync == Sync::Each && data.is_none() {
            self.error("ledger.sync", "without a folder nothing is written; expected `ledger.data`");
        }
        (Arc::new(books), Ledger { data: data.map(PathBuf::from), sync })
    }

    fn is_list(&self, path: &str) -> bool {
        let inner = format!("{path}[0]");
        self.tree.find(&crate::source::steps(&inner)).1 == inner
    }
}
