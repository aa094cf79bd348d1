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
    smoothed: Cell<f64>,
    cpu: Cell<Duration>,
    /// Connections that may still be handed over before the next measurement.
    quota: Cell<u32>,
    to: Cell<usize>,
}

/// How often a core looks at itself.
pub const EVERY: Duration = Duration::from_millis(100);
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
            smoothed: Cell::new(0.0),
            cpu: Cell::new(Duration::ZERO),
            quota: Cell::new(0),
            to: Cell::new(0),
        }
    }

    /// Takes a measurement: CPU time of this thread so far, and how many connections could move.
    pub fn measure(&self, cpu: Duration, elapsed: Duration, connections: u32) {
        let used = cpu.saturating_sub(self.cpu.replace(cpu)).as_secs_f64() / elapsed.as_secs_f64().max(1e-6);
        let smoothed = 0.6 * self.smoothed.get() + 0.4 * used * 1000.0;
        self.smoothed.set(smoothed);
        self.board.0[self.index].store(smoothed as u32, Ordering::Relaxed);
        let others = self.board.0.iter().enumerate().filter(|(at, _)| *at != self.index);
        let idlest = others.map(|(at, load)| (load.load(Ordering::Relaxed), at)).min();
        let Some((least, to)) = idlest else { return };
        self.to.set(to);
        self.quota.set(quota(smoothed, f64::from(least), connections));
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

/// A part of the connections that would close half of the gap, slowly enough not to swing.
fn quota(mine: f64, least: f64, connections: u32) -> u32 {
    let gap = mine - least;
    if gap < NOTICEABLE || gap < mine * 0.1 {
        return 0;
    }
    let share = gap / (2.0 * mine.max(1.0));
    (f64::from(connections) * share * 0.5).ceil() as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_busy_give_to_the_idle_until_they_are_alike() {
        let board = Board::new(2);
        let (a, b) = (Balance::new(board.clone(), 0), Balance::new(board.clone(), 1));
        let tick = Duration::from_millis(100);
        // A heavy stream takes 60 % of core 0; each of 60 small connections 1 % of the core it is on.
        let (mut on_a, mut on_b) = (30u32, 30u32);
        let (mut cpu_a, mut cpu_b) = (Duration::ZERO, Duration::ZERO);
        for _ in 0..60 {
            cpu_a += tick.mul_f64((0.6 + 0.01 * f64::from(on_a)).min(1.0));
            cpu_b += tick.mul_f64((0.01 * f64::from(on_b)).min(1.0));
            a.measure(cpu_a, tick, on_a);
            b.measure(cpu_b, tick, on_b);
            while on_a > 0 && a.hand_over().is_some() {
                on_a -= 1;
                on_b += 1;
            }
            while on_b > 0 && b.hand_over().is_some() {
                on_b -= 1;
                on_a += 1;
            }
        }
        let loads = board.loads();
        assert!(loads[0].abs_diff(loads[1]) < 130, "{loads:?}, {on_a} and {on_b} connections");
    }
}
