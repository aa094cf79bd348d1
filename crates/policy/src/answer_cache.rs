//! Answers of models that are given again. The policy is its settings: which requests are the same is decided in the crate
//! `llm`, where answers lie in `cache`, and it is done by the path of models once a call is understood.

use std::sync::{Arc, Weak};
use std::time::Duration;

use base::{Call, Size, Span};
use cache::{Entry, Near};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{CompileEnv, Expr, Gives, Outside, Policy, Scope, Spec, Stop};

/// Answers of models that are given again without asking a provider: to requests that ask the same, and to those that say
/// nearly the same, if `semantic` is set.
///
/// Two requests are the same if all is that an answer depends on, in whichever dialect they are written and whether they
/// want a stream: model, prompt, tools, format, settings. An answer is kept if it is complete: not one that a limit cut
/// short, that was kept back, declined, or broke off. What a request asks by `Cache-Control` counts: `no-cache`, `no-store`,
/// `max-age`, `only-if-cached`. They lie in the memory of `node.cache`.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct AnswerCacheSpec {
    /// How long an answer is given again. Default: `1h`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ttl: Option<Span>,
    /// Who may be given what another got. Default: `consumer`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shared: Option<SharedBy>,
    /// The largest answer that is kept. Default: `1MiB`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub entry: Option<Size>,
    /// Only calls for which this CEL expression is true: `!model.tools`. Default: all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub when: Option<String>,
    /// What else tells answers apart, as a CEL expression that gives a text, such as the version of the documents that
    /// prompts are made from: `request.headers['x-documents']`. A call for which it gives none is not answered from here.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub by: Option<String>,
    /// Only calls with `temperature: 0`, whose answers hardly differ. Default: false.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub coldest: Option<bool>,
    /// Answers are also given to those who say nearly the same. Default: they are not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub semantic: Option<SemanticSpec>,
}

/// When the answer to another question is given: if the two are near to each other in the space of a model of embeddings, and the
/// same in all but the last thing the user says. That is the system prompt, the tools, the earlier turns, the settings, whose
/// it is; and the numbers in what is said. Answers that call tools are given to nobody so.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct SemanticSpec {
    /// The model that gives the vectors, by its name under `models`. What it costs is booked as `lookup`.
    pub model: String,
    /// How near they must be: the cosine of the angle between their vectors, at most 1. Models differ in what is near;
    /// too low a bound gives wrong answers. Default: 0.95.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub threshold: Option<f64>,
    /// How many questions are remembered; each takes a byte for every dimension. Default: 10000.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub entries: Option<u32>,
    /// How long a vector is waited for; then a provider is asked as if there were none. Default: `1s`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout: Option<Span>,
}

/// Who may be given what another got.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum SharedBy {
    /// Nobody: what a consumer got is given to it alone, and what it asked for one of its end users (`user`,
    /// `metadata.user_id`) for that one alone.
    #[default]
    Consumer,
    /// The consumers of a team, whatever the end user; one without a team shares with nobody.
    Team,
    /// Everybody.
    All,
}

/// The policy.
#[derive(Debug)]
pub struct AnswerCache {
    pub ttl: Duration,
    pub shared: SharedBy,
    /// Bytes of the largest answer.
    pub entry: usize,
    when: Option<Expr>,
    by: Option<Expr>,
    /// Only calls at temperature 0.
    pub coldest: bool,
    pub semantic: Option<Semantic>,
}

/// How answers to other questions are found.
#[derive(Debug)]
pub struct Semantic {
    /// Of embeddings, by its name in the document.
    pub model: Arc<str>,
    pub threshold: f32,
    pub timeout: Duration,
    /// The questions that are remembered, each with its answer as long as that is kept.
    pub near: Arc<Near<Weak<Entry>>>,
}

const TTL: Duration = Duration::from_secs(3600);
const ENTRY: u64 = 1 << 20;
const THRESHOLD: f64 = 0.95;
const ENTRIES: u32 = 10_000;
const VECTOR: Duration = Duration::from_secs(1);

impl AnswerCache {
    /// Whether it has to do with a call, which is understood by now; and what else tells its answers apart.
    pub fn applies(&self, call: &Call) -> Option<String> {
        let scope = Scope::of(call);
        // What cannot be decided is not true.
        if !self.when.as_ref().is_none_or(|when| when.truth(&scope).unwrap_or(false)) {
            return None;
        }
        self.by.as_ref().map_or(Some(String::new()), |by| by.string(&scope).ok())
    }

    /// Whose answers a call is given, where they are not everybody's. `user` is the end user as the caller names him.
    pub fn owner(&self, call: &Call, user: Option<&str>) -> Option<String> {
        let consumer = call.consumer.as_ref();
        let team = consumer.and_then(|consumer| consumer.team.as_ref());
        match (self.shared, consumer, team) {
            (SharedBy::All, ..) => None,
            (SharedBy::Team, _, Some(team)) => Some(format!("team:{team}")),
            // Names cannot have a zero byte in them.
            (_, Some(consumer), _) => Some(format!("consumer:{}\0{}", consumer.name, user.unwrap_or_default())),
            (_, None, _) => Some(format!("nobody\0{}", user.unwrap_or_default())),
        }
    }
}

impl Semantic {
    fn compile(spec: &SemanticSpec, env: &mut CompileEnv<'_>) -> Semantic {
        let SemanticSpec { model, threshold, entries, timeout } = spec;
        let threshold = threshold.unwrap_or(THRESHOLD);
        if !(threshold > 0.0 && threshold <= 1.0) {
            let message = format!("found {threshold}; expected more than 0 and at most 1, such as 0.95");
            env.error("answer-cache.semantic.threshold", message);
        }
        let entries = entries.unwrap_or(ENTRIES) as usize;
        if entries == 0 {
            env.error(
                "answer-cache.semantic.entries",
                "no question would be remembered; expected a number such as 10000",
            );
        }
        let previous = env.previous.and_then(|it| it.answer_cache.as_ref()?.semantic.as_ref());
        let kept = previous.filter(|it| *it.model == **model && it.near.room() == entries).map(|it| it.near.clone());
        Semantic {
            model: model.as_str().into(),
            threshold: threshold as f32,
            timeout: timeout.map_or(VECTOR, |timeout| timeout.0),
            near: kept.unwrap_or_else(|| Arc::new(Near::new(entries))),
        }
    }
}

impl Policy for AnswerCache {
    const NAME: &'static str = "answer-cache";
    type Spec = AnswerCacheSpec;
    type Memo = ();

    fn compile(spec: &AnswerCacheSpec, env: &mut CompileEnv<'_>) -> Option<AnswerCache> {
        let AnswerCacheSpec { ttl, shared, entry, when, by, coldest, semantic } = spec;
        let before = env.errors.len();
        let ttl = ttl.map_or(TTL, |ttl| ttl.0);
        let entry = entry.map_or(ENTRY, |size| size.0);
        if ttl.is_zero() {
            env.error("answer-cache.ttl", "no answer would be given again; expected a time such as `1h`");
        }
        if entry == 0 {
            env.error("answer-cache.entry", "no answer would be kept; expected a size such as `1MiB`");
        }
        let mut expression = |path: &str, text: &Option<String>, gives| {
            let compiled = Expr::compile(text.as_deref()?, gives);
            compiled.map_err(|message| env.error(path, message)).ok()
        };
        let when = expression("answer-cache.when", when, Gives::Truth);
        let by = expression("answer-cache.by", by, Gives::Text);
        let semantic = semantic.as_ref().map(|it| Semantic::compile(it, env));
        (env.errors.len() == before).then(|| AnswerCache {
            ttl,
            shared: shared.unwrap_or_default(),
            entry: usize::try_from(entry).unwrap_or(usize::MAX),
            when,
            by,
            coldest: coldest.unwrap_or(false),
            semantic,
        })
    }

    /// The path of models uses it, once a call is understood.
    async fn request(&self, _: &mut Call, _: &dyn Outside) -> Result<(), Stop> {
        Ok(())
    }
}

impl Spec for AnswerCacheSpec {
    const EXPECTED: &'static str = "`none`, or how long answers are given again, such as `ttl: 1h`, or `{}`";
}

#[cfg(test)]
mod tests {
    use base::Consumer;

    use super::*;
    use crate::Policies;
    use crate::testing::{call, compile, errors};

    fn cache(json: &str) -> Arc<AnswerCache> {
        compile(&format!(r#"{{"answer-cache":{json}}}"#)).answer_cache.unwrap()
    }

    #[test]
    fn nothing_but_the_name_is_needed() {
        let plain = cache("{}");
        assert_eq!((plain.ttl, plain.entry, plain.shared), (TTL, 1 << 20, SharedBy::Consumer));
        assert_eq!(plain.applies(&call(&[])), Some(String::new()));
    }

    #[test]
    fn what_makes_no_sense_is_told() {
        let told = errors(r#"{"answer-cache":{"ttl":"0s","entry":"0B","when":"1 + 1","by":"]"}}"#);
        assert_eq!(told, ["answer-cache.ttl", "answer-cache.entry", "answer-cache.when", "answer-cache.by"]);
        let told = errors(r#"{"answer-cache":{"semantic":{"model":"e","threshold":1.5,"entries":0}}}"#);
        assert_eq!(told, ["answer-cache.semantic.threshold", "answer-cache.semantic.entries"]);
    }

    #[test]
    fn a_call_may_be_left_alone_or_told_from_others() {
        let some = cache(r#"{"when":"request.headers['x-a'] == '1'","by":"request.headers['x-version']"}"#);
        assert_eq!(some.applies(&call(&[("x-a", "1"), ("x-version", "7")])), Some("7".into()));
        assert_eq!(some.applies(&call(&[("x-a", "2"), ("x-version", "7")])), None);
        assert_eq!(some.applies(&call(&[("x-a", "1")])), None, "a version is missing");
    }

    #[test]
    fn what_is_remembered_outlives_a_reload_that_does_not_change_it() {
        let load = |json: &str, previous: Option<&Policies>| {
            let mut env = CompileEnv { previous, ..CompileEnv::new(Arc::default(), "policies") };
            Policies::compile(&serde_json::from_str(json).unwrap(), &mut env)
        };
        let near =
            |policies: &Policies| policies.answer_cache.as_ref().unwrap().semantic.as_ref().unwrap().near.clone();
        let first = load(r#"{"answer-cache":{"semantic":{"model":"e"}}}"#, None);
        let same = load(r#"{"answer-cache":{"ttl":"2h","semantic":{"model":"e","threshold":0.9}}}"#, Some(&first));
        assert!(Arc::ptr_eq(&near(&first), &near(&same)));
        let other = load(r#"{"answer-cache":{"semantic":{"model":"f"}}}"#, Some(&first));
        assert!(!Arc::ptr_eq(&near(&first), &near(&other)));
    }

    #[test]
    fn no_two_owners_are_the_same() {
        let of = |json: &str, who: Option<Consumer>, user: Option<&str>| {
            let mut call = call(&[]);
            call.consumer = who.map(Arc::new);
            cache(json).owner(&call, user)
        };
        let named =
            |name: &str, team: Option<&str>| Some(Consumer { index: 0, name: name.into(), team: team.map(Into::into) });
        let own = "{}";
        let all = [
            of(own, named("a", None), None),
            of(own, named("b", None), None),
            of(own, named("a", None), Some("u")),
            of(own, None, None),
            of(own, None, Some("u")),
            of(r#"{"shared":"team"}"#, named("a", Some("a")), None),
            of(r#"{"shared":"all"}"#, named("a", Some("a")), None),
        ];
        for (at, one) in all.iter().enumerate() {
            for (other_at, other) in all.iter().enumerate() {
                assert_eq!(one == other, at == other_at, "{one:?} {other:?}");
            }
        }
        let team = r#"{"shared":"team"}"#;
        assert_eq!(of(team, named("a", Some("t")), Some("u")), of(team, named("b", Some("t")), None));
        assert_eq!(of(team, named("a", None), None), of(own, named("a", None), None));
        assert_eq!(of(r#"{"shared":"all"}"#, None, None), None);
    }
}
