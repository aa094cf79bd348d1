//! What all cores know of providers: which keys are left alone, how fast candidates answer, how much room is left there.
//! Kept over a reload for what is still written so. Atomics, each by itself: a choice that is a moment old is no fault.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use base::Time;
use config::{Candidate, Models};
use ledger::{Entry, Outcome};
use telemetry::{Figure, Row};

/// As the snapshot's providers and candidates, by their indexes.
#[derive(Default)]
pub struct States {
    pub providers: Vec<Arc<ProviderState>>,
    pub candidates: Vec<Arc<CandidateState>>,
}

pub struct ProviderState {
    keys: Vec<Arc<KeyState>>,
    turn: AtomicUsize,
}

/// A key of a provider.
#[derive(Default)]
pub struct KeyState {
    /// Not before this moment, in nanoseconds.
    rests_until: AtomicU64,
    /// Of what the provider lets this key ask for in its window, thousandths that are left; by requests and by tokens
    /// whichever is less.
    left: AtomicU32,
    /// When that was told, and when the provider says that it is all there again.
    left_until: AtomicU64,
}

/// A model at a provider.
#[derive(Default)]
pub struct CandidateState {
    /// Moving averages: microseconds to the first token, and for each token after it. Zero: nothing is known.
    first: AtomicU32,
    each: AtomicU32,
    /// Moving average: tokens in 64 KiB of the text of its answers. Zero: nothing is known.
    density: AtomicU32,
    rests_until: AtomicU64,
    failures: AtomicU32,
    pub counts: Counts,
}

/// What a candidate has served, since the node started.
#[derive(Default)]
pub struct Counts {
    calls: AtomicU64,
    failures: AtomicU64,
    prompt: AtomicU64,
    completion: AtomicU64,
    /// Millionths of a US dollar, each attempt rounded down; the journal has them exact.
    cost: AtomicU64,
    /// Calls that were given an answer of its without it being asked, and what it would have charged for them.
    given: AtomicU64,
    saved: AtomicU64,
}

/// Bytes of an answer that make up a token where nothing is known of its model; about right for English.
pub const BYTES_PER_TOKEN: u64 = 4;
const DENSITY_TEXT: u64 = 1 << 16;
/// How much newer measurements count.
const SHARE: f64 = 0.2;
/// How long a key rests that has met 429 where the provider does not say, and at most.
const REST: Duration = Duration::from_secs(15);
const LONGEST_REST: Duration = Duration::from_secs(600);
/// How long one rests that the provider does not know.
const REFUSED_REST: Duration = Duration::from_secs(300);
/// How long a candidate rests after a failure; twice as long with each further one.
const FAILURE_REST: Duration = Duration::from_secs(2);
const LONGEST_FAILURE_REST: Duration = Duration::from_secs(60);

// === impl States ===

impl States {
    /// For a snapshot's models. What the one before has of the same keys and models goes on.
    pub fn new(models: &Models, old: Option<(&Models, &States)>) -> States {
        let mut known_keys = HashMap::new();
        let mut known_candidates = HashMap::new();
        if let Some((models, states)) = old {
            for (provider, state) in models.providers.iter().zip(&states.providers) {
                for (key, state) in provider.keys.iter().zip(&state.keys) {
                    known_keys.insert((provider.name.clone(), key.id.clone()), state.clone());
                }
            }
            for (candidate, state) in models.candidates.iter().zip(&states.candidates) {
                known_candidates.insert(identity(candidate), state.clone());
            }
        }
        let providers = models.providers.iter().map(|provider| {
            let key = |key: &config::ProviderKey| {
                known_keys.get(&(provider.name.clone(), key.id.clone())).cloned().unwrap_or_default()
            };
            Arc::new(ProviderState { keys: provider.keys.iter().map(key).collect(), turn: AtomicUsize::new(0) })
        });
        let candidates = models.candidates.iter().map(|it| known_candidates.entry(identity(it)).or_default().clone());
        States { providers: providers.collect(), candidates: candidates.collect() }
    }
}

// === impl Counts ===

impl Counts {
    pub fn add(&self, entry: &Entry) {
        let failed = entry.outcome != Outcome::Answered && entry.outcome != Outcome::Cancelled;
        let micros = u64::try_from(entry.cost.units() / 1_000_000).unwrap_or(0);
        for (counter, more) in [
            (&self.calls, 1),
            (&self.failures, u64::from(failed)),
            (&self.prompt, entry.usage.prompt()),
            (&self.completion, entry.usage.completion()),
            (&self.cost, micros),
        ] {
            counter.fetch_add(more, Ordering::Relaxed);
        }
    }

    pub fn given(&self, entry: &Entry) {
        self.given.fetch_add(1, Ordering::Relaxed);
        let micros = u64::try_from(entry.saved.units() / 1_000_000).unwrap_or(0);
        self.saved.fetch_add(micros, Ordering::Relaxed);
    }
}

/// What all candidates have served, as numbers. As many series as the document has candidates.
pub fn figures(models: &Models, states: &States) -> Vec<Figure> {
    let of = |name, help, value: fn(&Counts) -> &AtomicU64| {
        let rows = models.candidates.iter().zip(&states.candidates).map(|(candidate, state)| Row {
            labels: vec![("provider", candidate.provider.name.clone()), ("model", candidate.model.clone())],
            value: value(&state.counts).load(Ordering::Relaxed),
        });
        // A candidate of two models is counted once, in one state.
        let mut seen = HashSet::new();
        Figure { name, help, counter: true, rows: rows.filter(|row| seen.insert(row.labels.clone())).collect() }
    };
    if models.candidates.is_empty() {
        return Vec::new();
    }
    vec![
        of("weir_model_attempts", "Attempts at a model of a provider", |it| &it.calls),
        of("weir_model_failures", "Those of them that failed", |it| &it.failures),
        of("weir_model_prompt_tokens", "Tokens of prompts, as far as they are known", |it| &it.prompt),
        of("weir_model_completion_tokens", "Tokens of answers", |it| &it.completion),
        of("weir_model_cost_microdollars", "What it cost, in millionths of a US dollar", |it| &it.cost),
        of("weir_model_answers_given_again", "Calls that got an answer that was known", |it| &it.given),
        of("weir_model_saved_microdollars", "What those would have cost", |it| &it.saved),
    ]
}

fn identity(candidate: &Candidate) -> (Arc<str>, Arc<str>) {
    (candidate.provider.name.clone(), candidate.model.clone())
}

// === impl ProviderState ===

impl ProviderState {
    /// The key whose turn it is among those that do not rest; if all do, the one that rests least, and how long.
    pub fn key(&self, now: Time) -> Result<usize, (usize, Duration)> {
        let turn = self.turn.fetch_add(1, Ordering::Relaxed);
        let mut soonest = None::<(usize, Duration)>;
        for offset in 0..self.keys.len() {
            let at = (turn + offset) % self.keys.len();
            match self.keys[at].rest(now) {
                None => return Ok(at),
                Some(rest) if soonest.is_none_or(|(_, least)| rest < least) => soonest = Some((at, rest)),
                Some(_) => {}
            }
        }
        soonest.map_or(Ok(0), Err)
    }

    /// Whether there is a key that does not rest, or none is needed.
    pub fn can_be_asked(&self, now: Time) -> bool {
        self.keys.is_empty() || self.keys.iter().any(|key| key.rest(now).is_none())
    }

    /// The provider has had enough of this key for a while.
    pub fn exhausted(&self, key: usize, wait: Option<Duration>, now: Time) {
        self.rest(key, wait.unwrap_or(REST).min(LONGEST_REST), now);
    }

    /// The provider does not know this key.
    pub fn refused(&self, key: usize, now: Time) {
        self.rest(key, REFUSED_REST, now);
    }

    fn rest(&self, key: usize, rest: Duration, now: Time) {
        if let Some(key) = self.keys.get(key) {
            key.rests_until.fetch_max((now + rest).nanos(), Ordering::Relaxed);
        }
    }

    /// What the provider said is left for this key.
    pub fn told(&self, key: usize, left: f64, until: Duration, now: Time) {
        if let Some(key) = self.keys.get(key) {
            key.left.store((left.clamp(0.0, 1.0) * 1000.0) as u32, Ordering::Relaxed);
            key.left_until.store((now + until).nanos(), Ordering::Relaxed);
        }
    }

    /// The room that is left with the key that has most; all of it where nothing is known. From 0 to 1.
    pub fn room(&self, now: Time) -> f64 {
        let room = |key: &Arc<KeyState>| match key.rest(now) {
            Some(_) => 0.0,
            None if key.left_until.load(Ordering::Relaxed) > now.nanos() => {
                f64::from(key.left.load(Ordering::Relaxed)) / 1000.0
            }
            None => 1.0,
        };
        self.keys
            .iter()
            .map(room)
            .fold(None, |most: Option<f64>, it| Some(most.map_or(it, |m| m.max(it))))
            .unwrap_or(1.0)
    }
}

impl KeyState {
    fn rest(&self, now: Time) -> Option<Duration> {
        let until = self.rests_until.load(Ordering::Relaxed);
        (until > now.nanos()).then(|| Duration::from_nanos(until - now.nanos()))
    }
}

// === impl CandidateState ===

impl CandidateState {
    /// An answer came: this long to the first token, and so many tokens in the time after it.
    pub fn answered(&self, first: Duration, tokens: u64, rest: Duration) {
        self.failures.store(0, Ordering::Relaxed);
        self.rests_until.store(0, Ordering::Relaxed);
        average(&self.first, first.as_micros() as f64);
        if tokens > 1 {
            average(&self.each, rest.as_micros() as f64 / (tokens - 1) as f64);
        }
    }

    /// An answer of so many bytes of text was so many tokens, as its provider counts.
    pub fn weighs(&self, text: u64, tokens: u64) {
        // Of a few words chance makes more than of their language.
        if text >= 64 && tokens > 0 {
            average(&self.density, tokens as f64 * DENSITY_TEXT as f64 / text as f64);
        }
    }

    /// How many tokens a text of its answers is, about, as its answers before have it.
    pub fn tokens(&self, text: u64) -> u64 {
        match u64::from(self.density.load(Ordering::Relaxed)) {
            0 => text.div_ceil(BYTES_PER_TOKEN),
            density => text.saturating_mul(density).div_ceil(DENSITY_TEXT),
        }
    }

    pub fn failed(&self, now: Time) {
        let failures = self.failures.fetch_add(1, Ordering::Relaxed).min(8);
        let rest = FAILURE_REST.saturating_mul(1 << failures).min(LONGEST_FAILURE_REST);
        self.rests_until.store((now + rest).nanos(), Ordering::Relaxed);
    }

    /// It has failed lately, so that others are tried before it.
    pub fn rests(&self, now: Time) -> bool {
        self.rests_until.load(Ordering::Relaxed) > now.nanos()
    }

    /// How long an answer of so many tokens would take; nothing where nothing is known, so that it gets to be known.
    pub fn expected(&self, tokens: u64) -> Duration {
        let each = u64::from(self.each.load(Ordering::Relaxed));
        let first = u64::from(self.first.load(Ordering::Relaxed));
        Duration::from_micros(first.saturating_add(each.saturating_mul(tokens)))
    }
}

fn average(of: &AtomicU32, sample: f64) {
    let before = of.load(Ordering::Relaxed);
    let now = if before == 0 { sample } else { f64::from(before) * (1.0 - SHARE) + sample * SHARE };
    of.store(now.clamp(1.0, f64::from(u32::MAX)) as u32, Ordering::Relaxed);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn provider(keys: usize) -> ProviderState {
        ProviderState { keys: (0..keys).map(|_| Arc::default()).collect(), turn: AtomicUsize::new(0) }
    }

    fn at(seconds: u64) -> Time {
        Time::default() + Duration::from_secs(1_000 + seconds)
    }

    #[test]
    fn keys_take_turns_and_rest_when_they_are_exhausted() {
        let provider = provider(2);
        assert_eq!([0, 1, 2].map(|_| provider.key(at(0)).unwrap()), [0, 1, 0]);
        provider.exhausted(1, Some(Duration::from_secs(5)), at(0));
        assert_eq!([0, 1, 2].map(|_| provider.key(at(1)).unwrap()), [0, 0, 0]);
        provider.refused(0, at(1));
        assert!(!provider.can_be_asked(at(1)));
        assert_eq!(provider.key(at(2)), Err((1, Duration::from_secs(3))));
        assert_eq!(provider.key(at(6)), Ok(1));
        // What a provider says is believed within reason.
        provider.exhausted(1, Some(Duration::from_secs(1 << 40)), at(6));
        assert_eq!(provider.key(at(605)), Ok(0));
        assert!((0..2).any(|_| provider.key(at(607)) == Ok(1)));
    }

    #[test]
    fn how_many_tokens_a_text_is_gets_known() {
        let state = CandidateState::default();
        assert_eq!(state.tokens(401), 101);
        state.weighs(10, 10);
        assert_eq!(state.tokens(400), 100, "ten bytes say nothing");
        (0..50).for_each(|_| state.weighs(3_000, 1_500));
        assert_eq!(state.tokens(400), 200);
        assert_eq!(state.tokens(0), 0);
        state.weighs(u64::MAX, 1);
        state.weighs(64, u64::MAX);
        assert!(state.tokens(u64::MAX) > 0);
    }

    #[test]
    fn a_provider_that_needs_no_key_has_none_that_rests() {
        assert_eq!(provider(0).key(at(0)), Ok(0));
        assert_eq!(provider(0).room(at(0)), 1.0);
    }

    #[test]
    fn room_is_what_the_best_key_has_while_the_word_holds() {
        let provider = provider(2);
        provider.told(0, 0.1, Duration::from_secs(10), at(0));
        provider.told(1, 0.4, Duration::from_secs(2), at(0));
        assert_eq!(provider.room(at(1)), 0.4);
        assert_eq!(provider.room(at(3)), 1.0);
        provider.exhausted(1, None, at(3));
        assert_eq!(provider.room(at(3)), 0.1);
    }

    #[test]
    fn candidates_rest_longer_with_each_failure_and_are_known_by_their_speed() {
        let candidate = CandidateState::default();
        assert_eq!(candidate.expected(100), Duration::ZERO);
        candidate.answered(Duration::from_millis(200), 11, Duration::from_millis(100));
        assert_eq!(candidate.expected(10), Duration::from_millis(300));
        candidate.failed(at(0));
        assert!(candidate.rests(at(1)) && !candidate.rests(at(2)));
        candidate.failed(at(2));
        assert!(candidate.rests(at(5)) && !candidate.rests(at(6)));
        candidate.answered(Duration::from_millis(200), 1, Duration::ZERO);
        candidate.failed(at(9));
        assert!(!candidate.rests(at(11)));
    }
}
