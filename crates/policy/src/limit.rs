//! How many calls per time.
//!
//! A call is admitted if every rule admits it, and is charged to all of them or to none. Callers
//! learn what is left by the fields of draft-ietf-httpapi-ratelimit-headers.

mod cells;
mod gcra;

use std::fmt::Write;
use std::hash::BuildHasher;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use base::{Call, Rate, Reply};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use smallvec::SmallVec;

use crate::{CompileEnv, Outside, Policy, Refusal, Spec, Stop};
use cells::{Cells, KeyHash};
use gcra::{Gcra, Left, Taken, Wait};

/// The rules; a call must be within all of them.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(transparent)]
pub struct LimitSpec(pub Vec<RuleSpec>);

/// So many calls per time for each of something.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct RuleSpec {
    /// Whose calls are counted together.
    pub per: Per,
    /// How much is let through over time, such as `100/s`.
    pub rate: Rate,
    /// How much may come at once after a rest; the amount of the rate if it is not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub burst: Option<u64>,
    /// How much one call counts.
    #[serde(default = "default_weight")]
    pub weight: u64,
    /// What the rule is called in `RateLimit` and `RateLimit-Policy`: letters, digits, `-`, `_` and `.`;
    /// what it is per if it is not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// How many keys are remembered at a time, at 16 bytes each. Beyond, those that owe least are forgotten.
    #[serde(default = "default_keys")]
    pub keys: u64,
}

/// Whose calls are counted together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Per {
    /// Each consumer's; those of callers that are not known are counted by their address.
    Consumer,
    /// Each caller's address; for IPv6 each network of 64 bits, since whoever has one address there has them all.
    Address,
    /// Each route's, whoever calls.
    Route,
    /// All calls that come under the limit, whoever calls.
    All,
}

/// The policy.
#[derive(Debug)]
pub struct Limits {
    /// Shared by all the routes for which the limit is written.
    rules: Arc<Rules>,
    /// Which of them this is.
    route: u64,
}

/// What is left to the caller under each rule.
pub type Memo = SmallVec<[Left; 4]>;

#[derive(Debug)]
struct Rules {
    scope: String,
    rules: SmallVec<[Rule; 2]>,
    /// The value of `RateLimit-Policy`.
    policy: String,
}

#[derive(Debug)]
struct Rule {
    spec: RuleSpec,
    name: String,
    gcra: Gcra,
    cells: Arc<Cells>,
}

#[derive(Hash)]
enum Key<'a> {
    Consumer(&'a str),
    Address(u64),
    Route(u64),
    All,
}

// === impl Limits ===

impl Limits {
    fn key(&self, rule: &Rule, call: &Call) -> KeyHash {
        rule.cells.hash(match (rule.spec.per, &call.consumer) {
            (Per::Consumer, Some(consumer)) => Key::Consumer(&consumer.name),
            (Per::Consumer, None) | (Per::Address, _) => Key::Address(network(call.client.addr)),
            (Per::Route, _) => Key::Route(self.route),
            (Per::All, _) => Key::All,
        })
    }

    fn refuse(Wait(nanos): Wait) -> Stop {
        Refusal::RateLimited { retry_after: Duration::from_nanos(nanos) }.into()
    }
}

impl Policy for Limits {
    const NAME: &'static str = "limit";
    type Spec = LimitSpec;
    type Memo = Memo;

    fn compile(LimitSpec(specs): &LimitSpec, env: &mut CompileEnv<'_>) -> Option<Limits> {
        let before = env.errors.len();
        if specs.is_empty() {
            env.error("limit", "has no rules; expected at least one, or `none`");
        }
        let previous = env.previous.and_then(|it| it.limit.as_ref()).map(|it| it.rules.clone());
        // What a narrower place has inherited is not its own state.
        let previous = previous.filter(|rules| rules.scope == env.scope);
        let mut kept: Vec<&Rule> = previous.iter().flat_map(|it| &it.rules).collect();
        let mut rules: SmallVec<[Rule; 2]> = SmallVec::new();
        for (at, spec) in specs.iter().enumerate() {
            let Some(gcra) = spec.check(at, env) else { continue };
            let name = spec.name(&rules);
            if rules.iter().any(|rule| rule.name == name) {
                env.error(format!("limit[{at}].name"), format!("`{name}` is the name of an earlier rule"));
                continue;
            }
            let cells = match kept.iter().position(|rule| rule.spec == *spec) {
                Some(same) => kept.swap_remove(same).cells.clone(),
                None => Arc::new(Cells::new(if spec.per == Per::All { 1 } else { spec.keys })),
            };
            rules.push(Rule { spec: spec.clone(), name, gcra, cells });
        }
        if env.errors.len() > before {
            return None;
        }
        let policy = policy_field(&rules);
        let rules = Arc::new(Rules { scope: env.scope.clone(), rules, policy });
        Some(Limits { rules, route: route_of(&env.scope) })
    }

    /// The limit for a route under the place where it is written: its state is that of all of them.
    fn inherited(limits: &Arc<Limits>, scope: &str) -> Arc<Limits> {
        if limits.rules.rules.iter().all(|rule| rule.spec.per != Per::Route) {
            return limits.clone();
        }
        Arc::new(Limits { rules: limits.rules.clone(), route: route_of(scope) })
    }

    async fn request(&self, call: &mut Call, _: &dyn Outside) -> Result<Memo, Stop> {
        let now = call.now.nanos();
        let rules = &self.rules.rules;
        // Asking all before taking of any: a call that is refused anyway does not stand in others' way.
        if rules.len() > 1 {
            let waits = rules.iter().filter_map(|rule| {
                let arrival = rule.cells.read(self.key(rule, call));
                rule.gcra.take(arrival, now).err()
            });
            if let Some(wait) = waits.max_by_key(|Wait(nanos)| *nanos) {
                return Err(Limits::refuse(wait));
            }
        }
        let mut taken: SmallVec<[(KeyHash, Taken); 4]> = SmallVec::new();
        let mut memo = Memo::new();
        for rule in rules {
            let key = self.key(rule, call);
            let take = |arrival| rule.gcra.take(arrival, now).map(|taken| (taken.after, taken));
            match rule.cells.update(key, take) {
                Ok(it) => {
                    taken.push((key, it));
                    memo.push(rule.gcra.left(it.after, now));
                }
                Err(wait) => {
                    // Another call was faster since we asked.
                    for (rule, (key, taken)) in rules.iter().zip(taken) {
                        rule.give_back(key, taken);
                    }
                    return Err(Limits::refuse(wait));
                }
            }
        }
        Ok(memo)
    }

    fn refused(&self, call: &Call) -> Option<Memo> {
        let left = |rule: &Rule| rule.gcra.left(rule.cells.read(self.key(rule, call)), call.now.nanos());
        Some(self.rules.rules.iter().map(left).collect())
    }

    /// Adds to what the upstream may say of its own limits: both fields are lists.
    fn response(&self, memo: &mut Memo, reply: &mut Reply) {
        let mut field = String::with_capacity(48);
        for (rule, Left { units, full_in }) in self.rules.rules.iter().zip(memo) {
            let comma = if field.is_empty() { "" } else { ", " };
            // Writing to a string cannot fail.
            let _ = write!(field, "{comma}\"{}\";r={units};t={full_in}", rule.name);
        }
        reply.headers.append("ratelimit-policy", &self.rules.policy);
        reply.headers.append("ratelimit", field);
    }
}

/// The address as it counts: an IPv4 address, or the first 64 bits of an IPv6 one.
fn network(addr: IpAddr) -> u64 {
    match addr.to_canonical() {
        IpAddr::V4(addr) => u64::from(addr.to_bits()),
        IpAddr::V6(addr) => (addr.to_bits() >> 64) as u64,
    }
}

/// The same for the same route over reloads.
fn route_of(scope: &str) -> u64 {
    foldhash::quality::FixedState::default().hash_one(scope)
}

/// Names, quotas and windows: the burst, and the time in which all of it comes back.
fn policy_field(rules: &[Rule]) -> String {
    let item = |rule: &Rule| {
        let window = rule.gcra.window().map(|seconds| format!(";w={seconds}")).unwrap_or_default();
        format!("\"{}\";q={}{window}", rule.name, rule.spec.burst())
    };
    rules.iter().map(item).collect::<Vec<_>>().join(", ")
}

// === impl Rule ===

impl Rule {
    fn give_back(&self, key: KeyHash, taken: Taken) {
        let Ok(()) = self
            .cells
            .update(key, |arrival| Ok::<_, std::convert::Infallible>((self.gcra.give_back(arrival, taken), ())));
    }
}

// === impl RuleSpec ===

impl RuleSpec {
    fn burst(&self) -> u64 {
        self.burst.unwrap_or(self.rate.amount)
    }

    fn name(&self, earlier: &[Rule]) -> String {
        if let Some(name) = &self.name {
            return name.clone();
        }
        let per = match self.per {
            Per::Consumer => "consumer",
            Per::Address => "address",
            Per::Route => "route",
            Per::All => "all",
        };
        let same = earlier.iter().filter(|rule| rule.spec.name.is_none() && rule.spec.per == self.per).count();
        if same == 0 { per.to_owned() } else { format!("{per}-{}", same + 1) }
    }

    fn check(&self, at: usize, env: &mut CompileEnv<'_>) -> Option<Gcra> {
        let before = env.errors.len();
        let path = |field: &str| format!("limit[{at}].{field}");
        if self.weight == 0 {
            env.error(path("weight"), "a call that counts nothing is not limited; expected 1 or more");
        }
        if self.burst == Some(0) {
            env.error(path("burst"), "nothing would pass; expected 1 or more");
        }
        if self.weight > self.burst().max(1) {
            let burst = self.burst();
            env.error(
                path("weight"),
                format!("one call counts {} of a burst of {burst}; expected no more", self.weight),
            );
        }
        if !(1..=MAX_KEYS).contains(&self.keys) {
            env.error(path("keys"), format!("expected a number from 1 to {MAX_KEYS}"));
        }
        let named =
            |name: &str| !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b));
        if self.name.as_ref().is_some_and(|name| !named(name)) {
            env.error(path("name"), "expected letters, digits, `-`, `_` and `.`, such as `per-day`");
        }
        let gcra = Gcra::new(self.rate, self.burst(), self.weight);
        if gcra.is_none() {
            env.error(
                path("burst"),
                format!("would take more than a century to come back at {}; expected less", self.rate),
            );
        }
        gcra.filter(|_| env.errors.len() == before)
    }
}

impl Spec for LimitSpec {
    const EXPECTED: &'static str = "`none`, or a list of rules, such as `[{ per: consumer, rate: 100/s }]`";
    const LIST: bool = true;
}

fn default_weight() -> u64 {
    1
}

fn default_keys() -> u64 {
    65536
}

const MAX_KEYS: u64 = 1 << 24;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Nowhere;
    use crate::testing::{call, compile, consumer, errors, ready};
    use crate::{Policies, Specs};
    use base::{StatusCode, Time};

    fn limits(rules: &str) -> Arc<Limits> {
        compile(&format!(r#"{{"limit":{rules}}}"#)).limit.unwrap()
    }

    /// A call from `who`: an address, or a consumer's name.
    fn from(who: &str) -> Call {
        let mut call = call(&[]);
        match who.parse() {
            Ok(addr) => call.client.addr = addr,
            Err(_) => call.consumer = Some(consumer(who)),
        }
        call
    }

    fn admits(limits: &Limits, call: &mut Call) -> bool {
        ready(limits.request(call, &Nowhere)).is_ok()
    }

    #[test]
    fn those_who_are_counted_together_share() {
        // The second of each pair finds the limit used up if it is counted with the first.
        let check = |per: &str, first: &str, second: &str, together: bool| {
            let limits = limits(&format!(r#"[{{"per":"{per}","rate":"1/h"}}]"#));
            assert!(admits(&limits, &mut from(first)));
            assert_eq!(!admits(&limits, &mut from(second)), together, "{per}: {first}, {second}");
        };
        check("consumer", "a", "a", true);
        check("consumer", "a", "b", false);
        check("consumer", "a", "127.0.0.1", false);
        check("consumer", "10.0.0.1", "10.0.0.1", true);
        check("consumer", "10.0.0.1", "10.0.0.2", false);
        check("address", "a", "b", true);
        check("address", "10.0.0.1", "::ffff:10.0.0.1", true);
        check("address", "2001:db8::1", "2001:db8::ffff:1", true);
        check("address", "2001:db8::1", "2001:db8:0:1::1", false);
        check("route", "a", "b", true);
        check("all", "a", "10.0.0.1", true);
    }

    #[test]
    fn a_refused_call_costs_nothing_and_the_longest_wait_is_told() {
        let limits = limits(r#"[{"per":"all","rate":"10/m"},{"per":"consumer","rate":"1/h"}]"#);
        assert!(admits(&limits, &mut from("a")));
        for _ in 0..100 {
            let Err(Stop::Refuse(Refusal::RateLimited { retry_after })) =
                ready(limits.request(&mut from("a"), &Nowhere))
            else {
                panic!("admitted")
            };
            assert_eq!(retry_after, Duration::from_secs(3600));
        }
        for other in 0..9 {
            assert!(admits(&limits, &mut from(&format!("b{other}"))), "{other}");
        }
        assert!(!admits(&limits, &mut from("c")));
    }

    #[test]
    fn time_brings_it_back() {
        let limits = limits(r#"[{"per":"all","rate":"1/s","burst":2,"weight":2}]"#);
        for (at, admitted) in [(0, true), (1_999_999_999, false), (2_000_000_000, true), (3_000_000_000, false)] {
            let mut call = from("a");
            call.now = Time::from_nanos(at);
            assert_eq!(admits(&limits, &mut call), admitted, "{at}");
        }
    }

    #[test]
    fn fields_tell_what_is_left() {
        let check = |rules: &str, policy: &str, left: &str| {
            let limits = limits(rules);
            let mut memo = ready(limits.request(&mut from("a"), &Nowhere)).unwrap();
            let mut reply = Reply::new(StatusCode::OK);
            limits.response(&mut memo, &mut reply);
            assert_eq!(reply.headers.get_str("ratelimit-policy"), Some(policy));
            assert_eq!(reply.headers.get_str("ratelimit"), Some(left));
        };
        check(r#"[{"per":"consumer","rate":"100/s"}]"#, r#""consumer";q=100;w=1"#, r#""consumer";r=99;t=1"#);
        check(
            r#"[{"per":"consumer","rate":"100/s","burst":200,"weight":50,"name":"fast"},
                {"per":"all","rate":"1/h"},{"per":"all","rate":"5/ms"}]"#,
            r#""fast";q=200;w=2, "all";q=1;w=3600, "all-2";q=5"#,
            r#""fast";r=150;t=1, "all";r=0;t=3600, "all-2";r=4;t=1"#,
        );
    }

    #[test]
    fn threads_are_admitted_exactly_as_many_as_there_is_room_and_nothing_drifts() {
        let limits = limits(r#"[{"per":"all","rate":"20000/h"},{"per":"consumer","rate":"500/h"}]"#);
        let admitted: usize = std::thread::scope(|scope| {
            let attempts = || (0..5_000).filter(|at| admits(&limits, &mut from(["a", "b", "c"][at % 3]))).count();
            let threads: Vec<_> = (0..4).map(|_| scope.spawn(attempts)).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).sum()
        });
        assert_eq!(admitted, 1500);
        let left = limits.refused(&from("a")).unwrap();
        assert_eq!([left[0].units, left[1].units], [18_500, 0]);
    }

    #[test]
    fn a_reload_keeps_the_counts_of_rules_that_are_still_written_so() {
        let load = |rules: &str, scope: &str, previous: Option<&Policies>| {
            let specs: Specs = serde_json::from_str(&format!(r#"{{"limit":{rules}}}"#)).unwrap();
            let mut env = CompileEnv { previous, ..CompileEnv::new(Arc::default(), scope) };
            let policies = Policies::compile(&specs, &mut env);
            assert!(env.errors.is_empty(), "{:?}", env.errors);
            policies
        };
        let old = load(r#"[{"per":"all","rate":"1/h"}]"#, "policies", None);
        assert!(admits(old.limit.as_ref().unwrap(), &mut from("a")));
        let check = |rules: &str, scope: &str, admitted: bool| {
            let new = load(rules, scope, Some(&old));
            assert_eq!(admits(new.limit.as_ref().unwrap(), &mut from("a")), admitted, "{rules} {scope}");
        };
        check(r#"[{"per":"all","rate":"1/h"}]"#, "policies", false);
        check(r#"[{"per":"consumer","rate":"5/s"},{"per":"all","rate":"1/h"}]"#, "policies", false);
        check(r#"[{"per":"all","rate":"2/h"}]"#, "policies", true);
        check(r#"[{"per":"all","rate":"1/h"}]"#, "apis.a", true);
    }

    #[test]
    fn routes_under_one_limit_share_it_unless_it_is_per_route() {
        let check = |per: &str, shared: bool| {
            let above = compile(&format!(r#"{{"limit":[{{"per":"{per}","rate":"1/h"}}]}}"#));
            let route = |scope: &str| {
                let own = Policies { scope: scope.into(), ..Policies::default() };
                own.over(&above, &Specs::default()).limit.unwrap()
            };
            assert!(admits(&route("routes[0]"), &mut from("a")));
            assert!(!admits(&route("routes[0]"), &mut from("a")));
            assert_eq!(!admits(&route("routes[1]"), &mut from("a")), shared, "{per}");
        };
        check("all", true);
        check("consumer", true);
        check("route", false);
    }

    #[test]
    fn wrong_rules_are_told() {
        let check = |rules: &str, paths: &[&str]| {
            assert_eq!(errors(&format!(r#"{{"limit":{rules}}}"#)), paths, "{rules}");
        };
        check("[]", &["limit"]);
        check(r#"[{"per":"all","rate":"1/s","weight":0}]"#, &["limit[0].weight"]);
        check(r#"[{"per":"all","rate":"1/s","weight":2}]"#, &["limit[0].weight"]);
        check(r#"[{"per":"all","rate":"1/s","burst":0}]"#, &["limit[0].burst"]);
        check(r#"[{"per":"all","rate":"1/d","burst":99999999}]"#, &["limit[0].burst"]);
        check(r#"[{"per":"all","rate":"1/s","keys":0,"name":"a b"}]"#, &["limit[0].keys", "limit[0].name"]);
        check(r#"[{"per":"all","rate":"1/s","name":"x"},{"per":"route","rate":"1/s","name":"x"}]"#, &["limit[1].name"]);
    }
}
