//! How busy each core is, for all to see; and how many connections a busy one should let go.

use std::cell::Cell;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

/// Shares of a core's time, in thousandths, one for each worker. Written by its owner, read by all.
#[derive(Debug)]
pub struct Board(Vec<AtomicU32>);

/// One worker's view: its own load, and what it may give away until it is measured again.
#[derive(Debug)]
pub struct Balance {
    board: Arc<Board>,
    index: usize,
    load: Cell<f64>,
    cpu: Cell<Duration>,
    /// Looks since the last decision: what has moved must show in what is measured before more does.
    looks: Cell<u32>,
    /// How boldly connections are given away; grows while that does not help enough.
    push: Cell<f64>,
    /// Connections that may still be handed over before the next measurement.
    quota: Cell<u32>,
    to: Cell<usize>,
}

/// How often a core looks at itself.
pub const EVERY: Duration = Duration::from_millis(50);
/// Looks from one decision to the next.
const LOOKS: u32 = 2;
/// The share of what would be right that is given away at first, and at most.
const CAREFUL: f64 = 0.5;
const BOLD: f64 = 4.0;
/// Nobody moves for less than this difference, in thousandths of a core.
const NOTICEABLE: f64 = 80.0;

impl Board {
    pub fn new(workers: usize) -> Arc<Board> {
        Arc::new(Board((0..workers).map(|_| AtomicU32::new(0)).collect()))
    }

    /// Load of each worker, in thousandths of a core.
    pub fn loads(&self) -> Vec<u32> {
        self.0.iter().map(|load| load.load(Ordering::Relaxed)).collect()
    }
}

impl Balance {
    pub fn new(board: Arc<Board>, index: usize) -> Balance {
        Balance {
            board,
            index,
            load: Cell::new(0.0),
            cpu: Cell::new(Duration::ZERO),
            looks: Cell::new(0),
            push: Cell::new(CAREFUL),
            quota: Cell::new(0),
            to: Cell::new(0),
        }
    }

    /// Takes a measurement: CPU time of this thread so far, and how many connections could move.
    pub fn measure(&self, cpu: Duration, elapsed: Duration, connections: u32) {
        let used = cpu.saturating_sub(self.cpu.replace(cpu)).as_secs_f64() / elapsed.as_secs_f64().max(1e-6);
        // A mean of two looks: with more, the measure would lag behind what was moved.
        let load = 0.5 * self.load.get() + 0.5 * used * 1000.0;
        self.load.set(load);
        self.board.0[self.index].store(load as u32, Ordering::Relaxed);
        self.looks.set(self.looks.get() + 1);
        if self.looks.get() < LOOKS {
            return;
        }
        self.looks.set(0);
        let others = self.board.0.iter().enumerate().filter(|(at, _)| *at != self.index);
        let idlest = others.map(|(at, load)| (load.load(Ordering::Relaxed), at)).min();
        let Some((least, to)) = idlest else { return };
        self.to.set(to);
        let quota = quota(load, f64::from(least), connections, self.push.get());
        self.push.set(if quota > 0 { (self.push.get() * 1.5).min(BOLD) } else { CAREFUL });
        self.quota.set(quota);
    }

    /// The worker that should go on with a connection, if it is not this one.
    pub fn hand_over(&self) -> Option<usize> {
        let left = self.quota.get().checked_sub(1)?;
        self.quota.set(left);
        Some(self.to.get())
    }

    pub fn wants_to_give(&self) -> bool {
        self.quota.get() > 0
    }
}

/// A part of the connections that would close half of the gap if they were all alike. Where one of them is the
/// load, the others weigh less than that, and a larger part must go.
fn quota(mine: f64, least: f64, connections: u32, push: f64) -> u32 {
    let gap = mine - least;
    if gap < NOTICEABLE || gap < mine * 0.1 {
        return 0;
    }
    let share = gap / (2.0 * mine.max(1.0));
    (f64::from(connections) * share * push).ceil() as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Two cores, with a stream on the first that takes `heavy` of it, and small connections that take 1 % each of
    /// wherever they are. Gives the loads, and how many connections are where, after that many looks.
    fn balanced(heavy: f64, (mut on_a, mut on_b): (u32, u32), looks: u32) -> (Vec<u32>, (u32, u32), u32) {
        let board = Board::new(2);
        let (a, b) = (Balance::new(board.clone(), 0), Balance::new(board.clone(), 1));
        let (mut cpu_a, mut cpu_b) = (Duration::ZERO, Duration::ZERO);
        let mut moved = 0;
        for _ in 0..looks {
            cpu_a += EVERY.mul_f64((heavy + 0.01 * f64::from(on_a)).min(1.0));
            cpu_b += EVERY.mul_f64((0.01 * f64::from(on_b)).min(1.0));
            a.measure(cpu_a, EVERY, on_a);
            b.measure(cpu_b, EVERY, on_b);
            while on_a > 0 && a.hand_over().is_some() {
                (on_a, on_b, moved) = (on_a - 1, on_b + 1, moved + 1);
            }
            while on_b > 0 && b.hand_over().is_some() {
                (on_a, on_b, moved) = (on_a + 1, on_b - 1, moved + 1);
            }
        }
        (board.loads(), (on_a, on_b), moved)
    }

    #[test]
    fn the_busy_give_to_the_idle_until_they_are_alike() {
        for (heavy, at_first) in [(0.6, (30, 30)), (0.4, (32, 32)), (0.2, (50, 0)), (0.0, (64, 0)), (0.0, (10, 40))] {
            let (loads, at_last, moved) = balanced(heavy, at_first, 12);
            assert!(loads[0].abs_diff(loads[1]) < 130, "{heavy} {at_first:?}: {loads:?} {at_last:?}");
            // Once they are alike, nobody moves any more.
            assert_eq!(
                balanced(heavy, at_first, 30).2,
                balanced(heavy, at_first, 60).2,
                "{heavy} {at_first:?} {moved}"
            );
        }
    }

    #[test]
    fn those_that_are_alike_stay() {
        assert_eq!(balanced(0.0, (30, 34), 60).2, 0);
    }
}
