//! LiteLLM's config.yaml as a document. Every setting is carried or named: what is taken out of the file is what is carried,
//! and what is left in it at the end is told.

use std::collections::BTreeMap;
use std::fmt::Write;

use aws_lc_rs::digest;
use config::{Diagnostic, Source};
use serde_json::Value;

use super::advice;
use super::kinds::{self, Kind};
use super::part::{Part, Text, number, plain};

pub struct Imported {
    /// Unless no model could be carried.
    pub document: Option<String>,
    /// By line.
    pub notes: Vec<Note>,
}

/// A setting that was not carried, or not as it was.
pub struct Note {
    pub line: usize,
    pub path: String,
    pub text: String,
}

/// `environment` has what variables are now.
pub fn import(source: &Source, environment: &dyn Fn(&str) -> Option<String>) -> Result<Imported, Vec<Diagnostic>> {
    let tree = source.tree()?;
    let mut file = Part::new(String::new(), Some(tree));
    let Some(Value::Array(deployments)) = file.take("model_list") else {
        return Err(vec![source.locate("", "no `model_list`; expected LiteLLM's config.yaml")]);
    };
    let mut import = Import { environment, ..Import::of(source) };
    for (index, deployment) in deployments.into_iter().enumerate() {
        import.deployment(Part::new(format!("model_list[{index}]"), Some(deployment)));
    }
    let [mut general, mut settings, mut router] =
        ["general_settings", "litellm_settings", "router_settings"].map(|section| file.part(section));
    let strategy = import.choose(&mut router);
    import.fall_back(&mut settings, &mut router);
    import.alias(&mut router);
    let timeout = router.number("timeout").or_else(|| settings.number("request_timeout"));
    let key = general.text("master_key");
    let budget = import.budget(&mut settings);
    if settings.take("drop_params") == Some(Value::Bool(false)) {
        import.strict = true;
    }
    for part in [general, settings, router, file] {
        import.left(part);
    }
    let some = !import.models.is_empty();
    let document = some.then(|| import.document(&strategy, timeout, key, budget.as_deref()));
    let mut notes = import.notes;
    notes.sort_by(|a, b| (a.line, &a.path).cmp(&(b.line, &b.path)));
    Ok(Imported { document, notes })
}

struct Import<'a> {
    source: &'a Source,
    environment: &'a dyn Fn(&str) -> Option<String>,
    notes: Vec<Note>,
    providers: Vec<Provider>,
    /// In the order of the file.
    models: Vec<Model>,
    /// Variables for keys that stand in the file, by the key.
    variables: BTreeMap<String, String>,
    strict: bool,
}

#[derive(Clone, PartialEq)]
struct Provider {
    name: String,
    kind: String,
    upstream: Option<String>,
    key: Option<String>,
    region: Option<String>,
    project: Option<String>,
    timeout: Option<String>,
}

#[derive(Clone)]
struct Model {
    name: String,
    candidates: Vec<Candidate>,
    /// Those that come after the others have failed.
    then: Vec<Candidate>,
}

#[derive(Clone)]
struct Candidate {
    model: String,
    weight: Option<f64>,
    order: Option<f64>,
    /// Name and price of a million tokens.
    price: Vec<(&'static str, String)>,
    context: Option<f64>,
    max_output: Option<f64>,
    first_token: Option<String>,
}

// === impl Import ===

impl<'a> Import<'a> {
    fn of(source: &'a Source) -> Import<'a> {
        Import {
            source,
            environment: &|_| None,
            notes: Vec::new(),
            providers: Vec::new(),
            models: Vec::new(),
            variables: BTreeMap::new(),
            strict: false,
        }
    }

    fn note(&mut self, path: &str, text: impl Into<String>) {
        let line = self.source.locate(path, "").line;
        self.notes.push(Note { line, path: path.to_owned(), text: text.into() });
    }

    /// What nobody took.
    fn left(&mut self, part: Part) {
        for (path, field) in part.left() {
            self.note(&path, format!("not carried: {}", advice::of(&field)));
        }
    }

    // === Models ===

    fn deployment(&mut self, mut part: Part) {
        let at = part.at.clone();
        let mut params = part.part("litellm_params");
        let mut info = part.part("model_info");
        let name = part.take("model_name").as_ref().and_then(plain);
        let model = params.take("model").as_ref().and_then(plain);
        let (Some(name), Some(model)) = (name, model) else {
            return self.note(&at, "not carried: it has no `model_name` or no `litellm_params.model`");
        };
        let said = params.take("custom_llm_provider").as_ref().and_then(plain);
        let (kind, model) = match kinds::whose(&model, said.as_deref()) {
            Ok(found) => found,
            Err(why) => return self.note(&at, format!("`{name}` is not carried: {why}")),
        };
        let Some(model) = self.spelled(&at, kind, model) else { return };
        if name.trim_end_matches('*').contains('*') || name.ends_with("**") {
            return self.note(&at, format!("`{name}` is not carried: a `*` may stand only at the end of a name, once"));
        }
        let Some(provider) = self.provider(kind, &mut params) else { return };
        let price = [
            ("input", "input_cost_per_token"),
            ("output", "output_cost_per_token"),
            ("cached-read", "cache_read_input_token_cost"),
            ("cached-write", "cache_creation_input_token_cost"),
        ];
        let price = price.into_iter().filter_map(|(ours, theirs)| {
            let cost = params.take(theirs).or_else(|| info.take(theirs))?;
            Some((ours, per_million(&cost)?))
        });
        let price: Vec<_> = price.collect();
        let rate =
            ["rpm", "tpm"].map(|field| params.number(field).or_else(|| part.number(field)).map(|it| (field, it)));
        let weight = params.number("weight").or_else(|| rate.into_iter().flatten().next().map(|(_, it)| it));
        for (field, _) in rate.into_iter().flatten() {
            let path = params.path(field);
            self.note(
                &path,
                "carried as the deployment's weight, and not as a bound: a candidate has none. When the \
                              provider answers 429, the key rests and the next candidate is asked",
            );
        }
        let candidate = Candidate {
            model: format!("{provider}/{model}"),
            weight,
            order: params.number("order"),
            price,
            context: info.number("max_input_tokens").or_else(|| info.number("max_tokens")),
            max_output: info.number("max_output_tokens"),
            first_token: params.number("stream_timeout").map(span),
        };
        match self.models.iter_mut().find(|it| it.name == name) {
            Some(model) => model.candidates.push(candidate),
            None => self.models.push(Model { name, candidates: vec![candidate], then: Vec::new() }),
        }
        for part in [part, params, info] {
            self.left(part);
        }
    }

    /// The model as its provider calls it.
    fn spelled<'m>(&mut self, at: &str, kind: &Kind, model: &'m str) -> Option<&'m str> {
        match kind.ours {
            "bedrock" => {
                let model = ["converse/", "invoke/"].iter().find_map(|it| model.strip_prefix(it)).unwrap_or(model);
                // A region in front of it.
                let region = model.split_once('/').filter(|(it, _)| it.matches('-').count() >= 2 && !it.contains('.'));
                if model.starts_with("arn:") {
                    return Some(model);
                }
                Some(region.map_or(model, |(_, rest)| rest))
            }
            "vertex" if !(model.starts_with("gemini") || model == "*") => {
                self.note(at, format!("not carried: of Vertex only Gemini's models are asked, and this is `{model}`"));
                None
            }
            _ => Some(model),
        }
    }

    /// The name of the provider that a deployment is at.
    fn provider(&mut self, kind: &Kind, params: &mut Part) -> Option<String> {
        let at = params.at.clone();
        let base_at = params.path("api_base");
        let base = params.text("api_base").or_else(|| params.text("base_url"));
        let base = base.map(|base| self.value(&base_at, base, "https://NAME.invalid/v1", "api_base"));
        let base = base.map(|base| base.trim_end_matches('/').to_owned());
        let mut ours = kind.ours.to_owned();
        let (mut project, mut region) = (None, None);
        let upstream = match (kind.ours, base) {
            ("azure", Some(base)) => {
                let host = base.split("://").nth(1).and_then(|rest| rest.split('/').next()).unwrap_or_default();
                match host.strip_suffix(".openai.azure.com") {
                    Some(name) => {
                        project = Some(name.to_owned());
                        None
                    }
                    None => Some(format!("{}/openai/v1", base.split("/openai").next().unwrap_or(&base))),
                }
            }
            ("azure", None) => {
                self.note(&at, "not carried: Azure is at a URL of one's own, and there is no `api_base`");
                return None;
            }
            ("openai", Some(base)) if base == "https://api.openai.com/v1" => None,
            ("openai", Some(base)) => {
                ours = "openai-compatible".to_owned();
                Some(base)
            }
            ("openai-compatible", None) => {
                self.note(&at, "not carried: there is no `api_base`, and nobody knows where it is");
                return None;
            }
            ("ollama", Some(base)) if !base.ends_with("/v1") => Some(format!("{base}/v1")),
            ("anthropic", Some(base)) => Some(base.trim_end_matches("/v1").to_owned()),
            (_, base) => base,
        };
        if let Some(url) = upstream.as_ref().filter(|url| !url.starts_with("http://") && !url.starts_with("https://")) {
            self.note(&base_at, format!("not carried: `{url}` is no URL; expected such as `http://127.0.0.1:8000/v1`"));
            return None;
        }
        if kind.ours == "bedrock" {
            let named = params.text("aws_region_name").or_else(|| params.text("region_name"));
            let region_at = params.path("aws_region_name");
            region = Some(match named {
                Some(name) => self.value(&region_at, name, "us-east-1", "aws_region_name"),
                None => {
                    self.note(&at, "no region is said; `us-east-1` is written");
                    "us-east-1".to_owned()
                }
            });
        }
        if kind.ours == "vertex" {
            let [location_at, project_at] = ["vertex_location", "vertex_project"].map(|field| params.path(field));
            let location = params.text("vertex_location").unwrap_or(Text::Plain("us-central1".to_owned()));
            region = Some(self.value(&location_at, location, "us-central1", "vertex_location"));
            let named = params.text("vertex_project").unwrap_or(Text::Variable("VERTEXAI_PROJECT".to_owned()));
            project = Some(self.value(&project_at, named, "my-project", "vertex_project"));
        }
        let key = self.key(kind, &ours, params);
        let timeout = params.number("timeout").or_else(|| params.number("request_timeout")).map(span);
        let provider = Provider { name: String::new(), kind: ours, upstream, key, region, project, timeout };
        let same = self.providers.iter().find(|it| Provider { name: String::new(), ..(*it).clone() } == provider);
        if let Some(same) = same {
            return Some(same.name.clone());
        }
        let taken = self.providers.iter().filter(|it| it.kind == provider.kind).count();
        let name = if taken == 0 { provider.kind.clone() } else { format!("{}-{}", provider.kind, taken + 1) };
        self.providers.push(Provider { name: name.clone(), ..provider });
        Some(name)
    }

    /// A value that must stand in the document: what the variable has now, or something to be replaced.
    fn value(&mut self, at: &str, text: Text, instead: &str, field: &str) -> String {
        let variable = match text {
            Text::Plain(text) => return text,
            Text::Variable(variable) => variable,
        };
        if let Some(value) = (self.environment)(&variable).filter(|it| !it.is_empty()) {
            self.note(
                at,
                format!("written as `{value}`, which is what `{variable}` has now: only secrets are read later"),
            );
            return value;
        }
        let instead = instead.replace("NAME", &variable.to_ascii_lowercase().replace('_', "-"));
        self.note(
            at,
            format!(
                "write the value of `{variable}` where the document has `{instead}`: only secrets are read \
                               later, and `{variable}` is not set now, so {field} is not known"
            ),
        );
        instead
    }

    /// A reference to the provider's key.
    fn key(&mut self, kind: &Kind, ours: &str, params: &mut Part) -> Option<String> {
        if kind.ours == "bedrock" {
            let fields = ["aws_access_key_id", "aws_secret_access_key", "aws_session_token"];
            let said = fields.map(|field| params.take(field).is_some());
            let at = if said[0] { params.path(fields[0]) } else { params.at.clone() };
            self.note(
                &at,
                "put `ACCESS_KEY_ID:SECRET_ACCESS_KEY` into the variable `BEDROCK_CREDENTIALS`: a provider of \
                            Bedrock has both in one, and a session token after another `:`",
            );
            return Some("env:BEDROCK_CREDENTIALS".to_owned());
        }
        let at = params.path("api_key");
        match params.text("api_key") {
            Some(Text::Variable(variable)) => Some(format!("env:{variable}")),
            Some(Text::Plain(key))
                if key.is_empty() || ["none", "null", "empty"].contains(&&*key.to_ascii_lowercase()) =>
            {
                None
            }
            Some(Text::Plain(key)) => {
                let usual = kind.key.map_or_else(|| format!("{}_API_KEY", ours.to_ascii_uppercase()), str::to_owned);
                let usual = usual.replace('-', "_");
                let count = self.variables.values().filter(|it| it.starts_with(&usual)).count();
                let new = if count == 0 { usual } else { format!("{usual}_{}", count + 1) };
                let variable = self.variables.entry(key).or_insert(new).clone();
                self.note(&at, format!("put the key into the variable `{variable}`: a document has no secrets in it"));
                Some(format!("env:{variable}"))
            }
            None if kind.ours == "vertex" => {
                self.note(
                    &params.at.clone(),
                    "put an access token into the variable `VERTEX_ACCESS_TOKEN`, and renew it: \
                                               credentials of Google are not exchanged for one",
                );
                kind.key.map(|variable| format!("env:{variable}"))
            }
            // Whoever is at a URL of one's own may want none.
            None if ours == "openai-compatible" => None,
            None => kind.key.map(|variable| format!("env:{variable}")),
        }
    }

    // === The router ===

    fn choose(&mut self, router: &mut Part) -> String {
        let at = router.path("routing_strategy");
        let strategy = router.take("routing_strategy").as_ref().and_then(plain);
        let (choose, differs) = match strategy.as_deref() {
            None | Some("simple-shuffle") => ("weighted", ""),
            Some("least-busy") => {
                ("least-loaded", "by what providers' rate-limit fields leave, rather than by calls under way")
            }
            Some("usage-based-routing" | "usage-based-routing-v2") => {
                ("least-loaded", "by what providers' rate-limit fields leave, rather than by rpm and tpm in the file")
            }
            Some("latency-based-routing") => ("fastest", ""),
            Some("cost-based-routing") => ("cheapest", ""),
            Some(other) => {
                self.note(&at, format!("not carried: `{other}`; `choose: weighted` is written"));
                ("weighted", "")
            }
        };
        if !differs.is_empty() {
            self.note(&at, format!("carried as `choose: {choose}`: {differs}"));
        }
        choose.to_owned()
    }

    fn fall_back(&mut self, settings: &mut Part, router: &mut Part) {
        let mut steps: Vec<(String, String, Value)> = Vec::new();
        for part in [settings, router] {
            for field in ["fallbacks", "context_window_fallbacks"] {
                let at = part.path(field);
                let Some(Value::Array(all)) = part.take(field) else { continue };
                for entry in all {
                    let Value::Object(entry) = entry else { continue };
                    steps.extend(entry.into_iter().map(|(from, to)| (at.clone(), from, to)));
                }
            }
            let at = part.path("default_fallbacks");
            if let Some(to) = part.take("default_fallbacks") {
                let all: Vec<String> = self.models.iter().map(|it| it.name.clone()).collect();
                steps.extend(all.into_iter().map(|from| (at.clone(), from, to.clone())));
            }
        }
        for (at, from, to) in steps {
            let Value::Array(to) = to else { continue };
            for to in to.iter().filter_map(plain) {
                let own = |models: &[Model], name: &str| models.iter().position(|it| it.name == name);
                let (Some(from), Some(to)) = (own(&self.models, &from), own(&self.models, &to)) else {
                    self.note(
                        &at,
                        format!("not carried: from `{from}` to `{to}`, since there is no such model in the list"),
                    );
                    continue;
                };
                let then = self.models[to].candidates.clone();
                let model = &mut self.models[from];
                for candidate in then {
                    let known = model.candidates.iter().chain(&model.then).any(|it| it.model == candidate.model);
                    if !known {
                        model.then.push(candidate);
                    }
                }
            }
        }
    }

    fn alias(&mut self, router: &mut Part) {
        let at = router.path("model_group_alias");
        let Some(Value::Object(aliases)) = router.take("model_group_alias") else { return };
        for (name, of) in aliases {
            let of = of.get("model").and_then(plain).or_else(|| plain(&of)).unwrap_or_default();
            match self.models.iter().find(|it| it.name == of).cloned() {
                Some(model) if self.models.iter().all(|it| it.name != name) => {
                    self.models.push(Model { name, ..model })
                }
                Some(_) => self.note(&at, format!("not carried: there is a model `{name}` already")),
                None => self.note(&at, format!("not carried: `{name}`, since there is no model `{of}`")),
            }
        }
    }

    /// The line of a budget.
    fn budget(&mut self, settings: &mut Part) -> Option<String> {
        let amount = settings.take("max_budget")?;
        let amount = plain(&amount).filter(|_| number(&amount).is_some_and(|it| it > 0.0))?;
        let at = settings.path("budget_duration");
        let every = match settings.take("budget_duration").as_ref().and_then(plain).as_deref() {
            None => "total",
            Some("1m" | "60s") => "minute",
            Some("1h" | "60m") => "hour",
            Some("1d" | "24h") => "day",
            Some("30d" | "31d" | "1mo") => "month",
            Some(other) => {
                self.note(
                    &at,
                    format!("carried as `every: month`: there is no `{other}`; minute, hour, day, month, total"),
                );
                "month"
            }
        };
        Some(format!("  everybody: {{ per: organisation, amount: {amount} USD, every: {every} }}\n"))
    }

    // === The document ===

    fn document(&mut self, strategy: &str, timeout: Option<f64>, key: Option<Text>, budget: Option<&str>) -> String {
        let mut out = String::from("# Made by `weir import litellm`.\nversion: 1\n\n");
        // Where LiteLLM listens.
        out += "listeners:\n  web: { address: \"[::]:4000\" }\n\nproviders:\n";
        for provider in &self.providers {
            let Provider { name, kind, upstream, key, region, project, timeout: own } = provider;
            let call = own.clone().or_else(|| timeout.map(span));
            let fields = [
                ("kind", (kind != name).then(|| quoted(kind))),
                ("upstream", upstream.as_deref().map(quoted)),
                ("keys", key.clone()),
                ("region", region.as_deref().map(quoted)),
                ("project", project.as_deref().map(quoted)),
                ("timeouts", call.map(|call| format!("{{ call: {call} }}"))),
            ];
            let _ = writeln!(out, "  {}: {}", quoted(name), flow(&fields));
        }
        out += "\nmodels:\n";
        let models = std::mem::take(&mut self.models);
        for model in &models {
            out += &self.model(model, strategy);
        }
        if let Some(budget) = budget {
            out += "\nbudgets:\n";
            out += budget;
        }
        if let Some(key) = key {
            let hash = self.master(key);
            out += "\npolicies:\n  authenticate: { api-key: {} }\n\nconsumers:\n";
            let _ = writeln!(out, "  everybody: {{ keys: [{{ id: master, hash: \"sha256:{hash}\" }}] }}");
        }
        out += "\napis:\n  models: { llm: {} }\n";
        out
    }

    fn model(&mut self, model: &Model, strategy: &str) -> String {
        let Model { name, candidates, then } = model;
        let mut candidates = candidates.clone();
        let ordered = candidates.iter().any(|it| it.order.is_some());
        let alone = candidates.len() == 1;
        let mut choose = if alone || ordered { "" } else { strategy };
        if ordered {
            let order = |it: &Candidate| it.order.unwrap_or(f64::MAX);
            candidates.sort_by(|a, b| order(a).total_cmp(&order(b)));
        }
        if !then.is_empty() && !matches!(choose, "" | "weighted") {
            let path = "router_settings.routing_strategy";
            self.note(
                path,
                format!(
                    "`{name}` is `choose: weighted`, since it falls back to others: with `{choose}` these \
                                     would be chosen like the rest"
                ),
            );
            choose = "weighted";
        }
        let weighted = choose == "weighted";
        let scale = if candidates.iter().filter_map(|it| it.weight).any(|it| it.fract() != 0.0) { 100.0 } else { 1.0 };
        let said = candidates.iter().any(|it| it.weight.is_some());
        let weight = |it: &Candidate| (it.weight.unwrap_or(1.0) * scale).clamp(0.0, 1e9).round();
        let mut text = format!("  {}:\n", quoted(name));
        if !choose.is_empty() {
            let _ = writeln!(text, "    choose: {choose}");
        }
        if self.strict {
            text += "    strict: true\n";
        }
        text += "    candidates:\n";
        let weights = candidates.iter().map(|it| (weighted && said).then(|| weight(it)));
        let mut all: Vec<(&Candidate, Option<f64>)> = candidates.iter().zip(weights).collect();
        // Behind all others, whatever the dice say.
        all.extend(then.iter().map(|it| (it, weighted.then_some(0.0))));
        for (candidate, weight) in all {
            let Candidate { model, weight: _, order: _, price, context, max_output, first_token } = candidate;
            let prices: Vec<_> = price.iter().map(|(name, price)| (*name, Some(price.clone()))).collect();
            let fields = [
                ("model", Some(quoted(model))),
                ("weight", weight.map(|it| it.to_string())),
                ("price", (!prices.is_empty()).then(|| flow(&prices))),
                ("context", context.map(|it| it.round().to_string())),
                ("max-output", max_output.map(|it| it.round().to_string())),
                ("first-token", first_token.clone()),
            ];
            let _ = writeln!(text, "      - {}", flow(&fields));
        }
        text
    }

    /// The hash of the key that all callers have.
    fn master(&mut self, key: Text) -> String {
        let at = "general_settings.master_key";
        let hash = |key: &str| {
            let hash = digest::digest(&digest::SHA256, key.as_bytes());
            hash.as_ref().iter().map(|byte| format!("{byte:02x}")).collect::<String>()
        };
        match key {
            Text::Plain(key) => {
                self.note(
                    at,
                    "carried as the key of one consumer, by its hash; give each caller a consumer and a key of its own",
                );
                hash(&key)
            }
            Text::Variable(variable) => {
                match (self.environment)(&variable).filter(|it| !it.is_empty()) {
                    Some(key) => {
                        self.note(
                            at,
                            format!("carried as the key of one consumer, by the hash of what `{variable}` has now"),
                        );
                        hash(&key)
                    }
                    None => {
                        self.note(at, format!("`{variable}` is not set now: write the hash of its value (`printf %s \"${variable}\" | \
                                           sha256sum`) in place of the zeros, with which nobody is let in"));
                        "0".repeat(64)
                    }
                }
            }
        }
    }
}

// === Words of YAML ===

fn flow(fields: &[(&str, Option<String>)]) -> String {
    let fields = fields.iter().filter_map(|(name, value)| Some(format!("{name}: {}", value.as_ref()?)));
    let fields: Vec<String> = fields.collect();
    if fields.is_empty() { "{}".to_owned() } else { format!("{{ {} }}", fields.join(", ")) }
}

/// A text as YAML has it: as it is where nobody can take it for something else.
fn quoted(text: &str) -> String {
    let plain = text.starts_with(|it: char| it.is_ascii_alphabetic())
        && text.chars().all(|it| it.is_ascii_alphanumeric() || "._-/".contains(it))
        && !["true", "false", "null", "yes", "no", "on", "off", "y", "n"].contains(&&*text.to_ascii_lowercase());
    if plain { text.to_owned() } else { Value::from(text).to_string() }
}

fn span(seconds: f64) -> String {
    let millis = (seconds * 1000.0).clamp(1.0, 1e12).round() as u64;
    if millis.is_multiple_of(1000) { format!("{}s", millis / 1000) } else { format!("{millis}ms") }
}

/// Dollars for a token as dollars for a million, exactly: digits are moved, nothing is multiplied.
fn per_million(cost: &Value) -> Option<String> {
    let number = number(cost).filter(|it| *it >= 0.0)?;
    let text = format!("{number}");
    let (whole, rest) = text.split_once('.').unwrap_or((&text, ""));
    let rest = format!("{rest:0<6}");
    let whole = format!("{whole}{}", &rest[..6]);
    let whole = whole.trim_start_matches('0');
    let rest = rest[6..].trim_end_matches('0');
    let whole = if whole.is_empty() { "0" } else { whole };
    Some(if rest.is_empty() { format!("{whole} USD") } else { format!("{whole}.{rest} USD") })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn prices_are_moved_exactly() {
        let check = |cost: Value, expected: &str| assert_eq!(per_million(&cost).as_deref(), Some(expected), "{cost}");
        check(json!(0.000_000_15), "0.15 USD");
        check(json!(3e-6), "3 USD");
        check(json!("0.0000125"), "12.5 USD");
        check(json!(1.234_567_891e-6), "1.234567891 USD");
        check(json!(2), "2000000 USD");
        check(json!(0), "0 USD");
        assert_eq!(per_million(&json!("free")), None);
    }

    #[test]
    fn texts_are_quoted_where_they_must_be() {
        for (text, expected) in
            [("gpt-4o", "gpt-4o"), ("openai/*", "\"openai/*\""), ("1.5", "\"1.5\""), ("no", "\"no\"")]
        {
            assert_eq!(quoted(text), expected);
        }
        assert_eq!((span(0.5), span(30.0), span(0.0)), ("500ms".to_owned(), "30s".to_owned(), "1ms".to_owned()));
    }
}
