//! How much is let through, over time or at a time.
//!
//! A call is admitted if every rule admits it, and is charged to all of them or to none. What it comes to may be known
//! only when it is over: it is charged an estimate, and its end corrects that. Callers learn what is left by the fields
//! of draft-ietf-httpapi-ratelimit-headers-11.

mod cells;
mod flying;
mod gcra;
mod key;
mod rule;
mod shared;
mod spec;

use std::sync::Arc;
use std::time::Duration;

use base::{Call, Reply};
use smallvec::SmallVec;

use crate::{CompileEnv, Outside, Policy, Refusal, Stop, Usage};
use gcra::{Left, Wait};
pub(crate) use key::network;
use rule::{Charge, Charged, Rule, Wanted};
pub use shared::{has_corrections, report_corrections};
pub use spec::{AmountSpec, LimitSpec, Per, PerSpec, RuleSpec, SharedSpec, WeightSpec, WhenAway};

/// The policy.
#[derive(Debug)]
pub struct Limits {
    /// Shared by all the routes for which the limit is written.
    rules: Arc<Rules>,
    /// Which of them this is.
    route: [u8; 8],
}

/// What is left to the caller under each rule, and what is to be put right at the call's end.
pub struct Memo {
    left: SmallVec<[Left; 4]>,
    /// Where any rule wants to hear of the end; as the rules.
    charges: Option<Box<[Charge]>>,
}

#[derive(Debug)]
struct Rules {
    scope: String,
    rules: SmallVec<[Rule; 2]>,
    /// The value of `RateLimit-Policy`.
    policy: String,
    /// Whether any of them wants to hear of a call's end.
    settle: bool,
    /// Whether any is counted together with other nodes.
    shared: bool,
    /// Whether any waits for some calls to be understood.
    waits: bool,
}

// === impl Limits ===

impl Limits {
    fn wanted(&self, call: &Call) -> SmallVec<[Wanted; 4]> {
        self.rules.rules.iter().map(|rule| rule.wanted(&self.route, call)).collect()
    }

    /// Where the charge of each rule goes.
    async fn lend(
        &self,
        call: &Call,
        wanted: &[Wanted],
        outside: &dyn Outside,
    ) -> Result<SmallVec<[Charged; 4]>, Stop> {
        let mut charged = SmallVec::new();
        for (rule, wanted) in self.rules.rules.iter().zip(wanted) {
            charged.push(rule.lend(wanted, &self.route, call, outside).await?);
        }
        Ok(charged)
    }

    /// Takes of all rules what the call wants, or of none.
    #[expect(clippy::type_complexity, reason = "it has one caller's use")]
    fn take(
        &self,
        wanted: &[Wanted],
        charged: &[Charged],
        now: u64,
    ) -> Result<(SmallVec<[Charge; 4]>, SmallVec<[Left; 4]>), Stop> {
        let rules = &self.rules.rules;
        // Asking all before taking of any: a call that is refused anyway does not stand in others' way.
        if rules.len() > 1 {
            let waits = rules.iter().zip(wanted.iter().zip(charged));
            let waits = waits.filter_map(|(rule, (wanted, charged))| rule.wait(wanted, *charged, now));
            if let Some(wait) = waits.max_by_key(|Wait(nanos)| *nanos) {
                return Err(refuse(wait));
            }
        }
        let mut charges: SmallVec<[Charge; 4]> = SmallVec::new();
        let mut left = SmallVec::new();
        for (rule, (wanted, charged)) in rules.iter().zip(wanted.iter().zip(charged)) {
            match rule.take(wanted, *charged, now) {
                Ok((charge, rest)) => {
                    charges.push(charge);
                    left.push(rest);
                }
                Err(wait) => {
                    // Another call was faster since we asked.
                    for (rule, charge) in rules.iter().zip(charges) {
                        rule.give_back(charge, now);
                    }
                    return Err(refuse(wait));
                }
            }
        }
        Ok((charges, left))
    }
}

fn refuse(Wait(nanos): Wait) -> Stop {
    Refusal::RateLimited { retry_after: Duration::from_nanos(nanos) }.into()
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
            let name = spec.name(&rules);
            let Some(rule) = Rule::compile(spec, name, at, &mut kept, env) else { continue };
            if rules.iter().any(|earlier| earlier.name == rule.name) {
                env.error(format!("limit[{at}].name"), format!("`{}` is the name of an earlier rule", rule.name));
                continue;
            }
            rules.push(rule);
        }
        if env.errors.len() > before {
            return None;
        }
        let policy = rules.iter().map(Rule::policy_item).collect::<Vec<_>>().join(", ");
        let settle = rules.iter().any(Rule::settles);
        let shared = rules.iter().any(Rule::is_shared);
        let waits = rules.iter().any(Rule::may_wait);
        let rules = Arc::new(Rules { scope: env.scope.clone(), rules, policy, settle, shared, waits });
        Some(Limits { rules, route: route_of(&env.scope) })
    }

    /// The limit for a route under the place where it is written: its state is that of all of them.
    fn inherited(limits: &Arc<Limits>, scope: &str) -> Arc<Limits> {
        if limits.rules.rules.iter().all(|rule| !rule.spec.per.0.contains(&Per::Route)) {
            return limits.clone();
        }
        Arc::new(Limits { rules: limits.rules.clone(), route: route_of(scope) })
    }

    async fn request(&self, call: &mut Call, outside: &dyn Outside) -> Result<Memo, Stop> {
        let wanted = self.wanted(call);
        let charged = match self.rules.shared {
            false => SmallVec::from_elem(Charged::Here, wanted.len()),
            // In a box, so that calls which ask nobody have no room for it. Nothing is taken here.
            true => Box::pin(self.lend(call, &wanted, outside)).await?,
        };
        let (charges, left) = self.take(&wanted, &charged, call.now.nanos())?;
        let charges = self.rules.settle.then(|| charges.as_slice().into());
        Ok(Memo { left, charges })
    }

    /// The turn of the rules that have waited for this.
    async fn understood(&self, memo: &mut Memo, call: &mut Call, outside: &dyn Outside) -> Result<(), Stop> {
        if !self.rules.waits {
            return Ok(());
        }
        let wanted = self.wanted(call);
        let now = call.now.nanos();
        let taken = match self.lend(call, &wanted, outside).await {
            Ok(charged) => self.take(&wanted, &charged, now),
            Err(stop) => Err(stop),
        };
        let waited = self.rules.rules.iter().enumerate().filter(|(_, rule)| rule.waits(call));
        match taken {
            Ok((charges, left)) => {
                for (at, _) in waited {
                    memo.left[at] = left[at];
                    if let Some(noted) = &mut memo.charges {
                        noted[at] = charges[at];
                    }
                }
                Ok(())
            }
            Err(stop) => {
                for (at, rule) in waited {
                    memo.left[at] = rule.left(&wanted[at], now);
                }
                Err(stop)
            }
        }
    }

    fn refused(&self, call: &Call) -> Option<Memo> {
        let wanted = self.wanted(call);
        let left = self.rules.rules.iter().zip(&wanted).map(|(rule, wanted)| rule.left(wanted, call.now.nanos()));
        Some(Memo { left: left.collect(), charges: None })
    }

    /// Adds to what the upstream may say of its own limits: both fields are lists.
    fn response(&self, memo: &mut Memo, reply: &mut Reply) {
        // Without the machinery of formatting, since every call has one.
        let mut field = SmallVec::<[u8; 64]>::new();
        let mut number = itoa::Buffer::new();
        for (rule, Left { units, full_in }) in self.rules.rules.iter().zip(&memo.left) {
            field.extend_from_slice(if field.is_empty() { b"\"" } else { b", \"" });
            field.extend_from_slice(rule.name.as_bytes());
            field.extend_from_slice(b"\";r=");
            field.extend_from_slice(number.format(rule.shown(*units)).as_bytes());
            if rule.is_over_time() {
                field.extend_from_slice(b";t=");
                field.extend_from_slice(number.format(*full_in).as_bytes());
            }
        }
        reply.headers.append("ratelimit-policy", &self.rules.policy);
        reply.headers.append("ratelimit", field);
    }

    fn settle(&self, memo: Memo, usage: Usage) {
        for (rule, charge) in self.rules.rules.iter().zip(memo.charges.iter().flatten()) {
            rule.settle(*charge, &usage);
        }
    }
}

/// The largest integer of structured fields (RFC 9651, 3.3.1).
const LARGEST: u64 = 999_999_999_999_999;

/// The same for the same route over reloads, and on all nodes.
fn route_of(scope: &str) -> [u8; 8] {
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, scope.as_bytes());
    let mut route = [0; 8];
    route.copy_from_slice(&digest.as_ref()[..8]);
    route
}

#[cfg(test)]
mod tests;
