//! Flows of made-up calls, whose three Vs are known.

use super::*;

/// Seeded, so that a failure is the same failure again.
struct Chance(u64);

impl Chance {
    fn next(&mut self) -> f64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((mixed ^ (mixed >> 31)) >> 11) as f64 / (1u64 << 53) as f64
    }

    /// The time to the next arrival of a Poisson process.
    fn gap(&mut self, rate: f64) -> f64 {
        -(1.0 - self.next()).ln() / rate
    }
}

/// Gives a flow calls at these seconds, each of a millisecond, for so long.
fn flow(seconds: u64, mut arrivals: Vec<f64>) -> Flow {
    arrivals.sort_by(f64::total_cmp);
    let time = |seconds: f64| Time::from_nanos((seconds * 1e9) as u64 + 1);
    let mut flow = Flow::new(time(0.0));
    let mut totals = Totals::default();
    let mut left = arrivals.iter().copied().peekable();
    let mut open: Vec<(Window, u32)> = Vec::new();
    for second in 1..=seconds {
        let now = time(second as f64);
        while let Some(at) = left.next_if(|at| *at < second as f64) {
            totals.calls += 1;
            totals.bytes_in += 100;
            totals.latency.add(Duration::from_millis(1));
            totals.latency_squares += 1.0;
            totals.sizes.add(100);
            let window = Window::of_call(time(at), time(at + 0.001));
            match open.last_mut() {
                Some((it, count)) if *it == window => *count += 1,
                _ => open.push((window, 1)),
            }
        }
        let over = open.iter().take_while(|(window, _)| *window < Window::latest_over(now)).count();
        flow.update(now, totals.clone(), open.drain(..over).collect::<Vec<_>>());
    }
    flow
}

fn poisson(rate: f64, seconds: f64, seed: u64) -> Vec<f64> {
    let mut chance = Chance(seed);
    let mut at = 0.0;
    std::iter::from_fn(|| {
        at += chance.gap(rate);
        (at < seconds).then_some(at)
    })
    .collect()
}

#[test]
fn chance_disperses_by_one_whatever_its_rate() {
    for (seed, rate) in [(1, 5.0), (2, 50.0), (3, 500.0)] {
        let view = flow(120, poisson(rate, 120.0, seed)).view();
        let dispersion = view.dispersion.unwrap();
        // 512 windows: a standard error of a sixteenth; four of them are allowed.
        assert!((dispersion - 1.0).abs() < 0.25, "rate {rate}: {dispersion}");
    }
    let view = flow(120, poisson(500.0, 120.0, 4)).view();
    assert!(view.burst.unwrap() < 1.3, "{:?}", view.burst);
}

#[test]
fn a_clock_does_not_disperse() {
    let view = flow(120, (0..12_000).map(|tick| f64::from(tick) / 100.0).collect()).view();
    assert!(view.dispersion.unwrap() < 0.05, "{:?}", view.dispersion);
    assert!(view.burst.unwrap() < 1.05, "{:?}", view.burst);
}

#[test]
fn bursts_disperse_by_about_their_size() {
    // Fifty calls within 5 ms, every five seconds.
    let bursts = (0..24).flat_map(|burst| (0..50).map(move |call| f64::from(burst) * 5.0 + f64::from(call) * 1e-4));
    let view = flow(120, bursts.collect()).view();
    assert!((40.0..=55.0).contains(&view.dispersion.unwrap()), "{:?}", view.dispersion);
    assert!((4.0..=6.0).contains(&view.burst.unwrap()), "{:?}", view.burst);
}

#[test]
fn rates_are_right_from_the_first_second_on() {
    for seconds in [2, 30, 300] {
        let view = flow(seconds, (0..seconds as u32 * 100).map(|tick| f64::from(tick) / 100.0).collect()).view();
        for (rate, bytes) in view.calls.into_iter().zip(view.bytes) {
            assert!((rate - 100.0).abs() < 1.0, "{seconds}: {rate}");
            assert!((bytes - 10_000.0).abs() < 100.0, "{seconds}: {bytes}");
        }
        assert!(view.calls_velocity.abs() < 0.05, "{seconds}: {}", view.calls_velocity);
    }
}

#[test]
fn velocity_is_the_slope_of_a_ramp() {
    // n calls by t with n = t²: a rate of 2t, which grows by 2 a second.
    for seconds in [30u64, 400] {
        let calls = (0..seconds * seconds).map(|call| (call as f64).sqrt());
        let view = flow(seconds, calls.collect()).view();
        assert!((view.calls_velocity - 2.0).abs() < 0.15, "{seconds}: {}", view.calls_velocity);
    }
    // A series that was silent and begins is one that grows.
    let late = (0..1_000).map(|tick| 290.0 + f64::from(tick) / 100.0);
    let view = flow(300, late.collect()).view();
    assert!(view.calls_velocity > 0.5, "{}", view.calls_velocity);
    // And one that stops shrinks.
    let view = flow(300, (0..29_000).map(|tick| f64::from(tick) / 100.0).collect()).view();
    assert!(view.calls_velocity < -0.5, "{}", view.calls_velocity);
}

#[test]
fn entropy_counts_the_operations_there_seem_to_be() {
    let check = |counts: &[u64], expected: f64| {
        let mut flow = Flow::new(Time::from_nanos(1));
        let operations = counts.iter().enumerate().map(|(at, count)| (at as u32, *count)).collect();
        flow.update(Time::from_nanos(2_000_000_000), Totals { operations, ..Totals::default() }, []);
        let entropy = flow.view().entropy;
        assert!((entropy.unwrap() - expected).abs() < 1e-6, "{counts:?}: {entropy:?}");
    };
    check(&[7], 0.0);
    check(&[10, 10], 1.0);
    check(&[5, 5, 5, 5], 2.0);
    check(&[90, 10], 0.468_996);
    assert_eq!(Flow::new(Time::from_nanos(1)).view().entropy, None);
}

#[test]
fn of_few_calls_little_is_said() {
    let view = flow(60, vec![1.0, 2.0, 3.0]).view();
    assert_eq!((view.dispersion, view.burst), (None, None));
    assert_eq!(view.totals.calls, 3);
}

#[test]
fn what_is_over_fades() {
    let view = flow(30, poisson(50.0, 30.0, 5)).view();
    assert!(view.latency.is_some());
    let view = flow(900, poisson(50.0, 30.0, 5)).view();
    assert_eq!((view.latency, view.sizes, view.dispersion), (None, None, None));
    assert!(view.calls[0] < 1e-6);
}

#[test]
fn a_long_call_is_counted_where_it_is_still_looked_for() {
    let at = |seconds: u64| Time::from_nanos(seconds * 1_000_000_000);
    assert_eq!(Window::of_call(at(10), at(11)), Window::at(at(10)));
    assert_eq!(Window::of_call(at(10), at(60)), Window(Window::at(at(60)).0 - LATEST));
    assert!(Window::of_call(at(10), at(60)) >= Window::latest_over(at(60)));
}
