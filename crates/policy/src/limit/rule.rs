//! One rule: what it counts, and what of it a call takes, gives back and comes to in the end.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use base::{ByteRate, Call, Rate, Size};
use ledger::{Money, MoneyRate};

use smallvec::SmallVec;

use super::LARGEST;
use super::cells::{Cells, KeyHash};
use super::flying::{self, Flying, Took};
use super::gcra::{Gcra, Left, SECOND, Taken, Wait};
use super::key;
use super::shared::{Lent, Shared};
use super::spec::{AmountSpec, DEFAULT_KEYS, Per, RuleSpec, WeightSpec, WhenAway};
use crate::{CompileEnv, Expr, Gives, Outside, Refusal, Scope, Stop, Usage};

#[derive(Debug)]
pub(super) struct Rule {
    pub(super) spec: RuleSpec,
    pub(super) name: String,
    counts: Counts,
    /// In what it counts.
    quota: u64,
}

#[derive(Debug)]
enum Counts {
    OverTime { gcra: Gcra, cells: Arc<Cells>, measure: Measure, shared: Option<Arc<Shared>> },
    AtATime { most: u64, flying: Arc<Flying> },
}

/// What a call is held to come to beforehand, and comes to in the end.
#[derive(Debug)]
enum Measure {
    /// Of a price that is the same for all.
    Calls {
        cost: u64,
    },
    Weighed {
        weight: Expr,
        of_model: bool,
    },
    Bytes {
        requests: bool,
        answers: bool,
        estimate: Option<u64>,
        means: Arc<Means>,
    },
    Tokens {
        prompts: bool,
        answers: bool,
        estimate: Option<u64>,
    },
    Money {
        estimate: Option<u64>,
    },
}

/// What bodies have come to lately.
#[derive(Debug, Default)]
struct Means {
    request: AtomicU64,
    answer: AtomicU64,
}

/// What a call wants of a rule.
#[derive(Clone, Copy, Debug)]
pub(super) struct Wanted {
    key: KeyHash,
    /// Nanoseconds of debt; nothing is taken for none.
    cost: u64,
}

/// What a call has taken of a rule.
#[derive(Clone, Copy, Debug)]
pub(super) struct Charge {
    key: KeyHash,
    taken: What,
}

#[derive(Clone, Copy, Debug)]
enum What {
    Nothing,
    Debt(Taken),
    /// Of this node's part, which is one of so many.
    Part(Taken, u64),
    /// Credit of the store's.
    Credit(u64),
    Place,
}

/// Where a call's charge goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Charged {
    /// To what this node counts.
    Here,
    /// To what the store has lent.
    Lent,
    /// To this node's part, since the store is away.
    Part,
    Nowhere,
}

// === impl Rule ===

impl Rule {
    /// The rule, with the counts of one of `kept` that is written just so.
    pub(super) fn compile(
        spec: &RuleSpec,
        name: String,
        at: usize,
        kept: &mut Vec<&Rule>,
        env: &mut CompileEnv<'_>,
    ) -> Option<Rule> {
        let (parts, quota) = check(spec, at, env)?;
        let same = kept.iter().position(|rule| rule.spec == *spec).map(|same| &kept.swap_remove(same).counts);
        let keys = if spec.per.0 == [Per::All] { 1 } else { spec.keys };
        let counts = match parts {
            Parts::OverTime(gcra, measure) => {
                let cells = match same {
                    Some(Counts::OverTime { cells, .. }) => cells.clone(),
                    _ => Arc::new(Cells::new(keys)),
                };
                let shared = spec.shared.as_ref().map(|it| match same {
                    Some(Counts::OverTime { shared: Some(shared), .. }) => shared.clone(),
                    _ => {
                        let nodes =
                            env.stores.iter().find(|(store, _)| **store == *it.store).map_or(1, |store| store.1);
                        let written = serde_json::to_string(spec).unwrap_or_default();
                        let identity = format!("{}\0{name}\0{written}", env.scope);
                        Arc::new(Shared::new(it.store.as_str().into(), it.when_away, nodes, &identity))
                    }
                });
                let measure = match (measure, same) {
                    (
                        Measure::Bytes { requests, answers, estimate, .. },
                        Some(Counts::OverTime { measure: Measure::Bytes { means, .. }, .. }),
                    ) => Measure::Bytes { requests, answers, estimate, means: means.clone() },
                    (measure, _) => measure,
                };
                Counts::OverTime { gcra, cells, measure, shared }
            }
            Parts::AtATime(most) => {
                let flying = match same {
                    Some(Counts::AtATime { flying, .. }) => flying.clone(),
                    _ => Arc::new(Flying::new(keys)),
                };
                Counts::AtATime { most, flying }
            }
        };
        Some(Rule { spec: spec.clone(), name, counts, quota })
    }

    /// Nothing, if it is not this rule's turn: some wait until it is known what a call asks of a model.
    pub(super) fn wanted(&self, route: &[u8; 8], call: &Call) -> Wanted {
        let write = |to: &mut dyn FnMut(&[u8])| key::write(&self.spec.per.0, route, call, to);
        match &self.counts {
            Counts::OverTime { gcra, cells, measure, .. } => {
                let turn = measure.waits(call) == call.model.is_some();
                Wanted { key: cells.hash(write), cost: if turn { measure.estimate(*gcra, call) } else { 0 } }
            }
            Counts::AtATime { flying, .. } => Wanted { key: flying.hash(write), cost: u64::from(call.model.is_none()) },
        }
    }

    /// Whether there are calls for which it waits until they are understood.
    pub(super) fn may_wait(&self) -> bool {
        use Measure::{Money, Tokens, Weighed};
        matches!(
            &self.counts,
            Counts::OverTime { measure: Tokens { .. } | Money { .. } | Weighed { of_model: true, .. }, .. }
        )
    }

    pub(super) fn waits(&self, call: &Call) -> bool {
        matches!(&self.counts, Counts::OverTime { measure, .. } if measure.waits(call))
    }

    /// Where the call's charge is to go. Asks the store for credit, if the rule has one.
    pub(super) async fn lend(
        &self,
        wanted: &Wanted,
        route: &[u8; 8],
        call: &Call,
        outside: &dyn Outside,
    ) -> Result<Charged, Stop> {
        let Counts::OverTime { gcra, cells, shared: Some(shared), .. } = &self.counts else { return Ok(Charged::Here) };
        if wanted.cost == 0 {
            return Ok(Charged::Nowhere);
        }
        let write = |to: &mut dyn FnMut(&[u8])| key::write(&self.spec.per.0, route, call, to);
        let now = call.now.nanos();
        match shared.lend((*gcra, cells), (wanted.key, wanted.cost), &write, now, outside).await {
            Lent::Credit => Ok(Charged::Lent),
            Lent::Refused(wait) => Err(super::refuse(wait)),
            Lent::Away => match shared.when_away {
                WhenAway::Local => Ok(Charged::Part),
                WhenAway::Open => Ok(Charged::Nowhere),
                WhenAway::Closed => Err(Refusal::LimiterUnavailable.into()),
            },
        }
    }

    pub(super) fn is_shared(&self) -> bool {
        matches!(self.counts, Counts::OverTime { shared: Some(_), .. })
    }

    /// What the call costs this node, if its charge goes there.
    fn cost_here(&self, cost: u64, charged: Charged) -> Option<u64> {
        match (&self.counts, charged) {
            (Counts::OverTime { shared: Some(shared), .. }, Charged::Part) => Some(cost.saturating_mul(shared.nodes())),
            (_, Charged::Here) => Some(cost),
            _ => None,
        }
    }

    /// How long it is until the call would be admitted; `None` if it is.
    pub(super) fn wait(&self, wanted: &Wanted, charged: Charged, now: u64) -> Option<Wait> {
        let cost = self.cost_here(wanted.cost, charged).filter(|cost| *cost > 0)?;
        match &self.counts {
            Counts::OverTime { gcra, cells, .. } => gcra.take(cells.read(wanted.key), now, cost).err(),
            Counts::AtATime { most, flying } => (flying.read(wanted.key) >= *most).then_some(Wait(SECOND)),
        }
    }

    pub(super) fn take(&self, wanted: &Wanted, charged: Charged, now: u64) -> Result<(Charge, Left), Wait> {
        let Wanted { key, cost } = *wanted;
        match (&self.counts, charged) {
            _ if cost == 0 || charged == Charged::Nowhere => {
                Ok((Charge { key, taken: What::Nothing }, self.left(wanted, now)))
            }
            (Counts::OverTime { shared: Some(shared), .. }, Charged::Lent) => match shared.spend(key, cost) {
                true => Ok((Charge { key, taken: What::Credit(cost) }, self.left(wanted, now))),
                // Another call has taken it meanwhile.
                false => Err(Wait(SECOND / 1000)),
            },
            (Counts::OverTime { gcra, cells, .. }, _) => {
                let here = self.cost_here(cost, charged).unwrap_or(cost);
                let taken = cells.update(key, |arrival| gcra.take(arrival, now, here).map(|it| (it.after, it)))?;
                let what = if here == cost { What::Debt(taken) } else { What::Part(taken, here / cost) };
                Ok((Charge { key, taken: what }, gcra.left(taken.after, now)))
            }
            (Counts::AtATime { most, flying }, _) => {
                let (taken, flies) = match flying.take(key, *most) {
                    Took::Counted(flies) => (What::Place, flies),
                    Took::Uncounted => (What::Nothing, 0),
                    // Nobody knows when a call ends; soon is a good guess.
                    Took::Full => return Err(Wait(SECOND)),
                };
                Ok((Charge { key, taken }, Left { units: most.saturating_sub(flies), full_in: 0 }))
            }
        }
    }

    pub(super) fn left(&self, wanted: &Wanted, now: u64) -> Left {
        match &self.counts {
            Counts::OverTime { gcra, cells, .. } => gcra.left(cells.read(wanted.key), now),
            Counts::AtATime { most, flying } => {
                Left { units: most.saturating_sub(flying.read(wanted.key)), full_in: 0 }
            }
        }
    }

    /// As if the call had never come.
    pub(super) fn give_back(&self, charge: Charge, now: u64) {
        match (&self.counts, charge.taken) {
            (_, What::Nothing) => {}
            (Counts::OverTime { gcra, cells, .. }, What::Debt(taken)) => {
                correct(*gcra, cells, charge.key, taken, 0, now)
            }
            (Counts::OverTime { gcra, cells, .. }, What::Part(taken, _)) => {
                correct(*gcra, cells, charge.key, taken, 0, now);
            }
            (Counts::OverTime { shared, .. }, What::Credit(cost)) => {
                if let Some(shared) = shared {
                    shared.give_back(charge.key, cost);
                }
            }
            (Counts::AtATime { flying, .. }, _) => flying.give_back(charge.key),
            (Counts::OverTime { .. }, What::Place) => {}
        }
    }

    /// The call is over: what it came to takes the place of what was estimated.
    pub(super) fn settle(&self, charge: Charge, usage: &Usage) {
        match (&self.counts, charge.taken) {
            (Counts::AtATime { flying, .. }, What::Place) => flying.give_back(charge.key),
            (Counts::OverTime { gcra, cells, measure, shared }, taken) => {
                let Some(cost) = measure.fact(usage).map(|units| gcra.cost(units)) else { return };
                let now = usage.finished.nanos();
                match (taken, shared) {
                    (What::Debt(taken), _) => correct(*gcra, cells, charge.key, taken, cost, now),
                    (What::Part(taken, nodes), _) => {
                        correct(*gcra, cells, charge.key, taken, cost.saturating_mul(nodes), now);
                    }
                    (What::Credit(charged), Some(shared)) => {
                        let signed = |cost: u64| i64::try_from(cost).unwrap_or(i64::MAX);
                        shared.correct((*gcra, cells), charge.key, signed(cost) - signed(charged));
                    }
                    _ => {}
                }
            }
            (Counts::AtATime { .. }, _) => {}
        }
    }

    /// Whether it wants to hear of the end of calls.
    pub(super) fn settles(&self) -> bool {
        match &self.counts {
            Counts::OverTime { measure: Measure::Calls { .. } | Measure::Weighed { .. }, .. } => false,
            Counts::OverTime { .. } | Counts::AtATime { .. } => true,
        }
    }

    pub(super) fn is_over_time(&self) -> bool {
        matches!(self.counts, Counts::OverTime { .. })
    }

    /// Its name, quota, unit and window: the burst, and the time in which all of it comes back.
    pub(super) fn policy_item(&self) -> String {
        let (unit, window) = match &self.counts {
            Counts::OverTime { gcra, measure, .. } => (measure.unit(), gcra.window()),
            Counts::AtATime { .. } => (";qu=\"concurrent-requests\"", None),
        };
        let window = window.map(|seconds| format!(";w={seconds}")).unwrap_or_default();
        format!("\"{}\";q={}{unit}{window}", self.name, self.shown(self.quota))
    }

    /// What it counts, in the units that callers are told.
    pub(super) fn shown(&self, units: u64) -> u64 {
        let units = match &self.counts {
            Counts::OverTime { measure: Measure::Money { .. }, .. } => units / MICRODOLLAR,
            _ => units,
        };
        units.min(LARGEST)
    }
}

fn correct(gcra: Gcra, cells: &Cells, key: KeyHash, taken: Taken, cost: u64, now: u64) {
    if cost == taken.after - taken.before {
        return;
    }
    let change = |arrival| Ok::<_, std::convert::Infallible>((gcra.correct(arrival, taken, cost, now), ()));
    let Ok(()) = cells.update(key, change);
}

// === impl Measure ===

impl Measure {
    /// Whether this call is counted only when it is known what it asks of a model.
    fn waits(&self, call: &Call) -> bool {
        match self {
            Measure::Calls { .. } | Measure::Bytes { .. } => false,
            Measure::Weighed { of_model, .. } => *of_model && call.to_model,
            Measure::Tokens { .. } | Measure::Money { .. } => true,
        }
    }

    /// What a call is held to owe before it is known.
    fn estimate(&self, gcra: Gcra, call: &Call) -> u64 {
        match self {
            Measure::Calls { cost } => *cost,
            Measure::Weighed { weight, .. } => match weight.number(&Scope::of(call)) {
                Ok(units) if units >= 0.0 && units.is_finite() => gcra.cost_of_part(units),
                // To get it wrong must not be a way to pay less.
                other => {
                    tracing::debug!(weight = weight.text(), result = ?other, "a call cannot be weighed");
                    gcra.tolerance()
                }
            },
            Measure::Bytes { requests, answers, estimate, means } => {
                let guess = |mean: &AtomicU64| estimate.unwrap_or_else(|| mean.load(Relaxed));
                let request = || call.length.unwrap_or_else(|| guess(&means.request));
                let units = if *requests { request() } else { 0 }.saturating_add(if *answers {
                    guess(&means.answer)
                } else {
                    0
                });
                // Not nothing, even of nothing: who owes too much already must not come in.
                gcra.cost(units.max(1))
            }
            Measure::Tokens { prompts, answers, estimate } => {
                let (prompt, output) = call.model.as_deref().map_or((0, 0), |it| (it.prompt, it.output));
                let answer = estimate.map_or(output, |estimate| estimate.min(output));
                let units = if *prompts { prompt } else { 0 }.saturating_add(if *answers { answer } else { 0 });
                gcra.cost(units.max(1))
            }
            Measure::Money { estimate } => {
                let cost = call.model.as_deref().map_or(0, |it| it.cost);
                gcra.cost(estimate.map_or(cost, |estimate| estimate.min(cost)).max(1))
            }
        }
    }

    /// What it came to, if that was not known.
    fn fact(&self, usage: &Usage) -> Option<u64> {
        match self {
            Measure::Calls { .. } | Measure::Weighed { .. } => None,
            Measure::Bytes { requests, answers, means, .. } => {
                let mut units = 0u64;
                for (counted, bytes, mean) in
                    [(*requests, usage.bytes_in, &means.request), (*answers, usage.bytes_out, &means.answer)]
                {
                    if counted {
                        units = units.saturating_add(bytes);
                        // A mean that another core changes meanwhile loses one of the two.
                        let before = mean.load(Relaxed);
                        mean.store(before - before / 16 + bytes / 16, Relaxed);
                    }
                }
                Some(units)
            }
            Measure::Tokens { prompts, answers, .. } => {
                let spent = usage.model.unwrap_or_default();
                let prompt = if *prompts { spent.prompt } else { 0 };
                Some(prompt.saturating_add(if *answers { spent.completion } else { 0 }))
            }
            Measure::Money { .. } => {
                let spent = usage.model.unwrap_or_default().money.units();
                Some(u64::try_from(spent.max(0)).unwrap_or(u64::MAX))
            }
        }
    }

    fn unit(&self) -> &'static str {
        match self {
            // The default.
            Measure::Calls { .. } | Measure::Weighed { .. } => "",
            Measure::Bytes { .. } => ";qu=\"content-bytes\"",
            // The draft has no units for these.
            Measure::Tokens { .. } => ";qu=\"tokens\"",
            Measure::Money { .. } => ";qu=\"microdollars\"",
        }
    }
}

// === The check ===

/// A rule without its counts.
enum Parts {
    OverTime(Gcra, Measure),
    AtATime(u64),
}

fn check(spec: &RuleSpec, at: usize, env: &mut CompileEnv<'_>) -> Option<(Parts, u64)> {
    let before = env.errors.len();
    let path = |field: &str| format!("limit[{at}].{field}");
    let RuleSpec { per, concurrency, weight, shared, name, keys, .. } = spec;
    if per.0.is_empty() {
        env.error(path("per"), "says nothing; expected one such as `consumer`, or `all`");
    }
    for (nth, part) in per.0.iter().enumerate() {
        let place = if per.0.len() == 1 { path("per") } else { path(&format!("per[{nth}]")) };
        if per.0[..nth].contains(part) {
            env.error(place.clone(), "is named twice");
        }
        match part {
            Per::Header(name) => crate::headers::check_name(name, place, env),
            Per::Claim(name) if name.is_empty() => env.error(place, "a claim has a name, such as `org`"),
            Per::All if per.0.len() > 1 => env.error(place, "adds nothing to the others; leave it out"),
            _ => {}
        }
    }
    if !(1..=MAX_KEYS).contains(keys) {
        env.error(path("keys"), format!("expected a number from 1 to {MAX_KEYS}"));
    }
    let named = |name: &str| !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b));
    if name.as_ref().is_some_and(|name| !named(name)) {
        env.error(path("name"), "expected letters, digits, `-`, `_` and `.`, such as `per-day`");
    }
    if let Some(shared) = shared {
        if concurrency.is_some() {
            env.error(path("shared"), "calls at a time are counted by each node alone; leave it out");
        }
        if !env.stores.iter().any(|(name, _)| **name == *shared.store) {
            env.error(path("shared.store"), format!("there is no store `{}` in `stores`", shared.store));
        }
    }
    let what = match spec.counted()[..] {
        [what] => what,
        ref several => {
            let what = if several.is_empty() { "says not how much" } else { "says how much in several ways" };
            let message = format!(
                "{what}; expected one of `rate`, `bytes`, `bytes-in`, `bytes-out`, `tokens`, `tokens-in`, \
                 `tokens-out`, `money` and `concurrency`"
            );
            env.error(format!("limit[{at}]"), message);
            return None;
        }
    };
    if weight.is_some() && !matches!(what, Counted::Calls(_)) {
        env.error(path("weight"), "is for `rate`; leave it out");
    }
    let burst = what.amount(&spec.burst, &path("burst"), env);
    if burst == Some(0) {
        env.error(path("burst"), "nothing would pass; expected 1 or more");
    }
    let estimate = match what {
        Counted::Calls(_) | Counted::AtATime(_) if spec.estimate.is_some() => {
            env.error(path("estimate"), "is for bytes, tokens and money; leave it out");
            None
        }
        _ => what.amount(&spec.estimate, &path("estimate"), env),
    };
    let (rate, gcra, burst) = match what {
        Counted::AtATime(most) => {
            if !(1..=flying::MOST).contains(&most) {
                env.error(path("concurrency"), format!("expected a number from 1 to {}", flying::MOST));
            }
            return (env.errors.len() == before).then_some((Parts::AtATime(most), most));
        }
        Counted::Calls(rate) => {
            let burst = burst.unwrap_or(rate.amount);
            (rate.to_string(), Gcra::new(rate, burst), burst)
        }
        Counted::Bytes(rate @ ByteRate { bytes, per }, ..) => {
            let burst = burst.unwrap_or(bytes);
            (rate.to_string(), Gcra::exact(nanos(per), bytes, burst), burst)
        }
        Counted::Tokens(rate @ Rate { amount, per }, ..) => {
            let burst = burst.unwrap_or(amount);
            (rate.to_string(), Gcra::exact(nanos(per), amount, burst), burst)
        }
        Counted::Money(rate @ MoneyRate { money, per }) => {
            let burst = burst.unwrap_or_else(|| units(money));
            (rate.to_string(), Gcra::exact(nanos(per), units(money), burst), burst)
        }
    };
    let Some(gcra) = gcra else {
        let message = format!("would take more than a century to come back at {rate}; expected less");
        env.error(path("burst"), message);
        return None;
    };
    let measure = match what {
        Counted::Calls(_) => weigh(weight.as_ref(), gcra, burst, &path("weight"), env)?,
        Counted::Bytes(_, requests, answers) => Measure::Bytes { requests, answers, estimate, means: Arc::default() },
        Counted::Tokens(_, prompts, answers) => Measure::Tokens { prompts, answers, estimate },
        Counted::Money(_) => Measure::Money { estimate },
        Counted::AtATime(_) => return None,
    };
    (env.errors.len() == before).then_some((Parts::OverTime(gcra, measure), burst))
}

fn weigh(weight: Option<&WeightSpec>, gcra: Gcra, burst: u64, at: &str, env: &mut CompileEnv<'_>) -> Option<Measure> {
    let wrong = match weight {
        None => return Some(Measure::Calls { cost: gcra.cost(1) }),
        Some(WeightSpec::Fixed(0)) => "a call that counts nothing is not limited; expected 1 or more".to_owned(),
        Some(WeightSpec::Fixed(weight)) if *weight > burst => {
            format!("one call counts {weight} of a burst of {burst}; expected no more")
        }
        Some(WeightSpec::Fixed(weight)) => return Some(Measure::Calls { cost: gcra.cost(*weight) }),
        Some(WeightSpec::Expression(text)) => match Expr::compile(text, Gives::Number) {
            Ok(weight) => return Some(Measure::Weighed { of_model: weight.names_model(), weight }),
            Err(message) => message,
        },
    };
    env.error(at, wrong);
    None
}

/// What a rule counts, as it is written.
#[derive(Clone, Copy)]
enum Counted {
    Calls(Rate),
    /// Of requests, of answers.
    Bytes(ByteRate, bool, bool),
    /// Of prompts, of answers.
    Tokens(Rate, bool, bool),
    Money(MoneyRate),
    AtATime(u64),
}

impl Counted {
    /// An amount of what is counted, if it is given.
    fn amount(self, given: &Option<AmountSpec>, at: &str, env: &mut CompileEnv<'_>) -> Option<u64> {
        let wrong = match (self, (*given)?) {
            (Counted::Calls(_) | Counted::Tokens(..), AmountSpec::Number(number)) => return Some(number),
            (Counted::Bytes(..), AmountSpec::Bytes(Size(bytes))) => return Some(bytes),
            (Counted::Money(_), AmountSpec::Money(money)) => return Some(units(money)),
            (Counted::AtATime(_), _) => "is for what is counted over time; leave it out",
            (Counted::Calls(_), _) => "calls come as a number, such as 200",
            (Counted::Tokens(..), _) => "tokens come as a number, such as 20000",
            (Counted::Bytes(..), _) => "bytes come as a size, such as `20MiB`",
            (Counted::Money(_), _) => "money comes with its currency, such as `10 USD`",
        };
        env.error(at, wrong);
        None
    }
}

fn nanos(per: Duration) -> u64 {
    u64::try_from(per.as_nanos()).unwrap_or(u64::MAX)
}

/// What is not negative, as it is counted.
fn units(money: Money) -> u64 {
    u64::try_from(money.units().max(0)).unwrap_or(u64::MAX)
}

/// In units of money.
const MICRODOLLAR: u64 = 1_000_000;
const MAX_KEYS: u64 = 1 << 24;

// === impl RuleSpec ===

impl RuleSpec {
    /// One that is written without more.
    pub fn new(per: impl Into<super::PerSpec>) -> RuleSpec {
        RuleSpec { per: per.into(), keys: DEFAULT_KEYS, ..RuleSpec::default() }
    }

    /// All that it says how much of; it should be one.
    fn counted(&self) -> SmallVec<[Counted; 1]> {
        let RuleSpec { rate, bytes, bytes_in, bytes_out, tokens, tokens_in, tokens_out, money, concurrency, .. } = self;
        let of_bytes = [(bytes, true, true), (bytes_in, true, false), (bytes_out, false, true)];
        let of_tokens = [(tokens, true, true), (tokens_in, true, false), (tokens_out, false, true)];
        let bytes = of_bytes.into_iter().filter_map(|(rate, a, b)| rate.map(|rate| Counted::Bytes(rate, a, b)));
        let tokens = of_tokens.into_iter().filter_map(|(rate, a, b)| rate.map(|rate| Counted::Tokens(rate, a, b)));
        let others = [rate.map(Counted::Calls), money.map(Counted::Money), concurrency.map(Counted::AtATime)];
        bytes.chain(tokens).chain(others.into_iter().flatten()).collect()
    }

    pub(super) fn name(&self, earlier: &[Rule]) -> String {
        if let Some(name) = &self.name {
            return name.clone();
        }
        let kind = match self.counted().first() {
            Some(Counted::Calls(_)) => "",
            Some(Counted::Tokens(..)) => "-tokens",
            Some(Counted::Money(_)) => "-money",
            Some(Counted::AtATime(_)) => "-concurrency",
            Some(Counted::Bytes(..)) | None => "-bytes",
        };
        let parts: Vec<&str> = self.per.0.iter().map(Per::word).collect();
        let name = format!("{}{kind}", parts.join("-"));
        let same = |rule: &&Rule| {
            let number = rule.name.strip_prefix(&*name).map(|rest| rest.trim_start_matches('-'));
            rule.spec.name.is_none() && number.is_some_and(|it| it.bytes().all(|b| b.is_ascii_digit()))
        };
        match earlier.iter().filter(same).count() {
            0 => name,
            before => format!("{name}-{}", before + 1),
        }
    }
}

impl Per {
    fn word(&self) -> &str {
        match self {
            Per::Consumer => "consumer",
            Per::Team => "team",
            Per::Address => "address",
            Per::Route => "route",
            Per::All => "all",
            Per::Header(name) if name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-') => name,
            Per::Header(_) => "header",
            Per::Claim(name) if name.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b)) => name,
            Per::Claim(_) => "claim",
        }
    }
}
