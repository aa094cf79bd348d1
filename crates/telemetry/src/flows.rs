//! The three Vs of all series: workers' tallies added up once a second.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use awareness::flow::{Flow, Recent, Spread, Totals, View, Window};
use base::Time;

use crate::Shared;
use crate::metrics::{Family, OTHER, Operation, READABLE, Registry, Subject};

/// What is made of the counts as time goes by; behind a lock that no worker knows.
#[derive(Debug)]
pub(crate) struct Flows(Mutex<Made>);

#[derive(Debug)]
struct Made {
    began: Time,
    at: Time,
    /// The first window of arrivals that was not read yet.
    next: Window,
    flows: BTreeMap<Subject, Flow>,
    /// By upstream and segment.
    segments: BTreeMap<(String, String), Recent>,
}

/// The three Vs of one api, route or consumer.
#[derive(Clone, Debug)]
pub struct Series {
    pub subject: Subject,
    pub view: View,
    /// Its commonest operations with their shares; `None` for those that are not told apart.
    pub operations: Vec<(Option<Operation>, f64)>,
}

/// How long a segment of the attempts at an upstream took of late.
#[derive(Clone, Debug)]
pub struct Segment {
    pub upstream: String,
    pub name: String,
    /// In milliseconds.
    pub spread: Spread,
    /// Of the time that attempts took in all, from 0 to 1.
    pub share: f64,
}

// === impl Flows ===

impl Flows {
    pub(crate) fn new() -> Flows {
        let now = Time::now();
        Flows(Mutex::new(Made {
            began: now,
            at: now,
            next: Window::at(now),
            flows: BTreeMap::new(),
            segments: BTreeMap::new(),
        }))
    }

    /// Adds up what was counted until now.
    pub(crate) fn update(&self, registry: &Registry, now: Time) {
        let mut made = self.locked();
        let until = Window::latest_over(now).max(made.next);
        // Older ones than these may be half overwritten; after a pause as long as that they are lost.
        let from = made.next.max(Window(until.0.saturating_sub(READABLE)));
        let windows = (until.0 - from.0) as usize;
        let mut counted: BTreeMap<Subject, (Totals, Vec<u32>)> = BTreeMap::new();
        for (subject, tally) in registry.tallies() {
            let totals = tally.totals();
            let mut arrived = vec![0; windows];
            tally.arrivals(from, &mut arrived);
            if let Subject::Route(api, _) = &subject {
                add(&mut counted, Subject::Api(api.clone()), &totals, &arrived);
            }
            add(&mut counted, subject, &totals, &arrived);
        }
        let Made { began, at, next, flows, segments } = &mut *made;
        for (subject, (totals, arrived)) in counted {
            let flow = flows.entry(subject).or_insert_with(|| Flow::new(*began));
            let arrived = arrived.into_iter().enumerate().filter(|(_, count)| *count > 0);
            flow.update(now, totals, arrived.map(|(at, count)| (Window(from.0 + at as u64), count)));
        }
        let dt = now - *at;
        for (labels, histogram) in registry.histograms(Family::AttemptSegments) {
            let [(_, upstream), (_, segment)] = &labels[..] else { continue };
            segments.entry((upstream.clone(), segment.clone())).or_default().update(dt, histogram);
        }
        (*at, *next) = (now, until);
    }

    fn locked(&self) -> MutexGuard<'_, Made> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn add(counted: &mut BTreeMap<Subject, (Totals, Vec<u32>)>, subject: Subject, totals: &Totals, arrived: &[u32]) {
    let (sum, windows) = counted.entry(subject).or_insert_with(|| (Totals::default(), vec![0; arrived.len()]));
    sum.merge(totals);
    windows.iter_mut().zip(arrived).for_each(|(sum, more)| *sum += more);
}

// === impl Shared ===

impl Shared {
    /// Every api, route and consumer that was called, in a steady order.
    pub(crate) fn series(&self) -> Vec<Series> {
        let names = self.registry.operations();
        let name = |number: u32| names.get((number.checked_sub(OTHER + 1)?) as usize).cloned();
        let views: Vec<_> =
            self.flows.locked().flows.iter().map(|(subject, flow)| (subject.clone(), flow.view())).collect();
        let series = views.into_iter().map(|(subject, view)| {
            let operations = view.operations.iter().map(|(number, share)| (name(*number), *share)).collect();
            Series { subject, view, operations }
        });
        series.collect()
    }

    /// Of all upstreams, in the order of their names, each's slowest first.
    pub(crate) fn segments(&self) -> Vec<Segment> {
        let made = self.flows.locked();
        let mut all: BTreeMap<&str, f64> = BTreeMap::new();
        for ((upstream, _), recent) in &made.segments {
            *all.entry(upstream).or_default() += recent.weight();
        }
        let mut segments: Vec<_> = made
            .segments
            .iter()
            .filter_map(|((upstream, name), recent)| {
                let (spread, all) = (recent.spread()?, all.get(&**upstream)?);
                let share = if *all > 0.0 { recent.weight() / all } else { 0.0 };
                Some(Segment { upstream: upstream.clone(), name: name.clone(), spread, share })
            })
            .collect();
        segments.sort_by(|a, b| a.upstream.cmp(&b.upstream).then(b.share.total_cmp(&a.share)));
        segments
    }
}

/// Adds up for as long as the telemetry thread runs.
pub(crate) async fn keep(shared: Arc<Shared>) {
    let mut tick = tokio::time::interval(EVERY);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tick.tick().await;
        shared.flows.update(&shared.registry, Time::now());
    }
}

const EVERY: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::Local;
    use crate::testing::exchange;

    #[test]
    fn two_workers_calls_are_one_flow_of_route_api_and_consumer() {
        let registry = Arc::new(Registry::new(2, 100));
        let flows = Flows::new();
        let now = Time::now();
        let mut locals: Vec<_> = (0..2).map(|worker| Local::new(registry.clone(), worker)).collect();
        for call in 0..40u64 {
            let mut exchange = exchange("/");
            exchange.started = now + Duration::from_millis(call * 50);
            exchange.finished = exchange.started + Duration::from_millis(5);
            exchange.consumer = (call % 4 == 0).then(|| "research".into());
            exchange.route = Some(if call % 2 == 0 { "carts" } else { "items" }.into());
            locals[call as usize % 2].count(&exchange);
        }
        flows.update(&registry, now + Duration::from_secs(1));
        flows.update(&registry, now + Duration::from_secs(8));
        let made = flows.locked();
        let calls = |subject: &Subject| made.flows[subject].view().totals.calls;
        let (api, consumer) = (Subject::Api("shop".into()), Subject::Consumer("research".into()));
        assert_eq!(calls(&api), 40);
        assert_eq!(calls(&consumer), 10);
        assert_eq!(calls(&Subject::Route("shop".into(), "carts".into())), 20);
        let view = made.flows[&api].view();
        assert!((view.entropy.unwrap() - 1.0).abs() < 1e-6);
        // Two seconds of even arrivals, then silence: as bursty as that, and every one of them was seen.
        assert!(view.burst.unwrap() > 2.0 && view.burst.unwrap() < 5.0, "{:?}", view.burst);
        assert_eq!(made.segments.len(), 3);
    }
}
