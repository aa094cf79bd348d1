//! How much a connection takes at a time of what is to pass through it: less where many hold what their peers do not take.
//!
//! Whoever writes holds a piece until its peer has room for it. One piece for each slow reader is little while there are
//! few of them, and much when there are thousands.

use std::cell::Cell;

/// A socket takes about as many bytes at once.
pub const PIECE: usize = 64 * 1024;
/// Still worth a system call.
const SMALL: usize = 8 * 1024;
/// Connections of a core that wait for their peers, before pieces become small.
const MANY: u32 = 8;

thread_local! {
    static STUCK: Cell<u32> = const { Cell::new(0) };
}

/// Bytes that may be taken from one side before the other has taken them.
pub fn piece() -> usize {
    if STUCK.get() > MANY { SMALL } else { PIECE }
}

/// Says of a writer whether it holds bytes that its peer does not take. Nothing is held any more when it is dropped.
#[derive(Default)]
pub struct Stuck(bool);

impl Stuck {
    pub fn set(&mut self, stuck: bool) {
        if self.0 == stuck {
            return;
        }
        self.0 = stuck;
        // At the end of the thread nobody counts any more.
        let _ = STUCK.try_with(|count| count.set(if stuck { count.get() + 1 } else { count.get().saturating_sub(1) }));
    }
}

impl Drop for Stuck {
    fn drop(&mut self) {
        self.set(false);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_are_small_while_many_are_stuck() {
        let mut all: Vec<Stuck> = (0..=MANY).map(|_| Stuck::default()).collect();
        assert_eq!(piece(), PIECE);
        all.iter_mut().for_each(|it| it.set(true));
        all.iter_mut().for_each(|it| it.set(true));
        assert_eq!(piece(), SMALL);
        all[0].set(false);
        assert_eq!(piece(), PIECE);
        all[0].set(true);
        all.pop();
        assert_eq!(piece(), PIECE);
        drop(all);
        assert_eq!(STUCK.get(), 0);
    }
}
