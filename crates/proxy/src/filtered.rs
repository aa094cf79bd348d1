//! A body that passes through the filters of policies: here and at once while it is small, by way of the worker's helper
//! once it has turned out large and they cost much.

use std::cell::RefCell;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use base::Time;
use bytes::Bytes;
use policy::{Effort, Filter, Filters, Stop};
use transport::{Body, BodyError, Frame, Source};

use crate::helper::{Away, Breath, Helper};
use crate::meter::{Meter, on_core};

/// Where a filter that stops its body leaves the reason, for the path to find.
pub type Stopped = Rc<RefCell<Option<Stop>>>;

/// How much a filter is given at once, so that the clock can be asked in between.
const PIECE: usize = 4 << 10;

/// How long a core filters before all others on it have their turn: what some filters do to a byte costs hundreds of
/// times what others do, so it is not counted in bytes.
const TURN: Duration = Duration::from_micros(100);

/// How much the helper is given at once, so that other bodies have their turn there.
const LOAD: usize = 64 << 10;

/// A body is large behind so many bytes. Most are not, and never leave their core.
const LARGE: usize = 64 << 10;

/// What is less is filtered here even so: the way to the helper takes longer, and somebody may wait for it.
const WORTH_THE_WAY: usize = 4 << 10;

struct Filtered {
    body: Body,
    /// None while they are with the helper.
    filters: Filters,
    keeps_length: bool,
    effort: Effort,
    stopped: Stopped,
    /// What is left of a piece that was too large for one turn.
    rest: Bytes,
    /// How much of the body has been filtered.
    passed: usize,
    /// When this turn began.
    since: Option<Time>,
    helper: Rc<Helper>,
    away: Option<Away<Back>>,
    /// Of a call whose cost is measured.
    meter: Option<Meter>,
    /// What follows the last piece, when that has been asked for.
    end: Option<Option<Frame>>,
}

/// What comes back from the helper.
struct Back {
    filters: Filters,
    filtered: Result<Bytes, Stop>,
    cpu: Duration,
}

/// The body behind the filters; the body itself if there are none.
pub fn filtered(
    body: Body,
    filters: Filters,
    helper: &Rc<Helper>,
    meter: Option<&Meter>,
    stopped: &mut Option<Stopped>,
) -> Body {
    if filters.is_empty() {
        return body;
    }
    Body::source(Filtered {
        body,
        keeps_length: filters.keeps_length(),
        effort: filters.effort(),
        filters,
        stopped: stopped.get_or_insert_default().clone(),
        rest: Bytes::new(),
        passed: 0,
        since: None,
        helper: helper.clone(),
        away: None,
        meter: meter.cloned(),
        end: None,
    })
}

impl Filtered {
    /// The next piece: one for the helper, or a small one while it is this body's turn.
    fn poll_piece(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame, BodyError>>> {
        if self.rest.is_empty() {
            match self.body.poll_frame(cx) {
                Poll::Ready(Some(Ok(Frame::Data(data)))) => self.rest = data,
                Poll::Pending => {
                    self.since = None;
                    return Poll::Pending;
                }
                other => return other,
            }
        }
        let most = match self.goes_away(Effort::WithEachPiece, self.rest.len()) {
            true => LOAD,
            false => {
                ready!(self.poll_turn(cx));
                PIECE
            }
        };
        let piece = self.rest.split_to(self.rest.len().min(most));
        Poll::Ready(Some(Ok(Frame::Data(piece))))
    }

    /// Pending when others should come first.
    fn poll_turn(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let now = Time::now();
        if now.since(*self.since.get_or_insert(now)) < TURN {
            return Poll::Ready(());
        }
        self.since = None;
        // Its first poll sets the task back behind the next look at the sockets.
        std::pin::pin!(tokio::task::yield_now()).poll(cx)
    }

    /// Whether what costs so much is for the helper.
    fn goes_away(&self, effort: Effort, bytes: usize) -> bool {
        self.effort >= effort && self.passed >= LARGE && bytes >= WORTH_THE_WAY
    }

    /// Nothing more is read until it is done, so pieces stay in order and there is only one of each body.
    fn send_away(&mut self, what: impl FnOnce(&mut Filters) -> Result<Bytes, Stop> + Send + 'static) {
        self.since = None;
        let mut filters = std::mem::take(&mut self.filters);
        self.away = Some(self.helper.take(move || {
            let before = on_core();
            let filtered = what(&mut filters);
            Back { filters, filtered, cpu: on_core().saturating_sub(before) }
        }));
    }

    fn stop(&mut self, stop: Stop) -> Poll<Option<Result<Frame, BodyError>>> {
        *self.stopped.borrow_mut() = Some(stop);
        // Nothing more is read of it.
        self.body = Body::Empty;
        Poll::Ready(Some(Err(BodyError::Stopped)))
    }
}

impl Source for Filtered {
    fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame, BodyError>>> {
        loop {
            let filtered = if let Some(away) = &mut self.away {
                let Back { filters, filtered, cpu } = ready!(away.poll(cx));
                (self.filters, self.away) = (filters, None);
                if let Some(meter) = &self.meter {
                    meter.add(cpu);
                }
                filtered
            } else if let Some(end) = &mut self.end {
                return Poll::Ready(end.take().map(Ok));
            } else {
                match ready!(self.poll_piece(cx)).transpose()? {
                    Some(Frame::Data(data)) => {
                        let goes_away = self.goes_away(Effort::WithEachPiece, data.len());
                        self.passed = self.passed.saturating_add(data.len());
                        if goes_away {
                            self.send_away(|filters| {
                                let mut breath = Breath::default();
                                filters.large_piece(data, &mut || breath.take())
                            });
                            continue;
                        }
                        self.filters.piece(data)
                    }
                    last => {
                        self.end = Some(last);
                        // All of what they have held may be left to do.
                        if self.goes_away(Effort::AtEnd, self.passed) {
                            self.send_away(Filters::end);
                            continue;
                        }
                        self.filters.end()
                    }
                }
            };
            match filtered {
                Ok(data) if data.is_empty() => {}
                Ok(data) => return Poll::Ready(Some(Ok(Frame::Data(data)))),
                Err(stop) => return self.stop(stop),
            }
        }
    }

    fn length(&self) -> Option<u64> {
        match self.keeps_length && self.end.is_none() && self.away.is_none() {
            true => self.body.length().map(|length| length + self.rest.len() as u64),
            false => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;
    use std::future::poll_fn;
    use std::sync::{Arc, Condvar, Mutex};
    use std::task::Waker;
    use std::thread;

    use policy::Refusal;

    use super::*;

    /// Repeats each byte; stops at an `x`; refuses what is longer than it says.
    struct Twice(u64);

    impl Filter for Twice {
        fn begin(&mut self, length: Option<u64>) -> Result<(), Stop> {
            if length.is_some_and(|length| length > self.0) { Err(Refusal::Forbidden.into()) } else { Ok(()) }
        }

        fn piece(&mut self, data: Bytes) -> Result<Bytes, Stop> {
            if data.contains(&b'x') {
                return Err(Refusal::Forbidden.into());
            }
            Ok(data.iter().flat_map(|byte| [*byte, *byte]).collect())
        }

        fn end(&mut self) -> Result<Bytes, Stop> {
            Ok(Bytes::from_static(b"."))
        }
    }

    fn twice(body: Body, stopped: &mut Option<Stopped>) -> Body {
        filtered(body, Filters::new(vec![Box::new(Twice(9))]), &Rc::new(Helper::new(0)), None, stopped)
    }

    #[test]
    fn a_large_piece_takes_several_turns_and_all_of_it_passes() {
        const LENGTH: usize = 20 * PIECE + 1;
        let mut stopped = None;
        let mut body = twice(Body::from(vec![b'a'; LENGTH]), &mut stopped);
        assert_eq!(body.length(), None);
        let (mut bytes, mut turns) = (Vec::new(), 1);
        loop {
            match body.poll_frame(&mut Context::from_waker(Waker::noop())) {
                Poll::Ready(Some(Ok(Frame::Data(data)))) => {
                    assert!(data.len() <= 2 * PIECE);
                    bytes.extend_from_slice(&data);
                    // As if the filter were slow.
                    thread::sleep(TURN);
                }
                Poll::Ready(None) => break,
                Poll::Pending => turns += 1,
                Poll::Ready(_) => panic!("it fails"),
            }
        }
        assert_eq!((bytes.len(), bytes.last()), (2 * LENGTH + 1, Some(&b'.')));
        assert!(turns >= 20, "{turns}");
    }

    #[test]
    fn what_a_filter_stops_fails_and_the_reason_is_left() {
        let mut stopped = None;
        let mut body = twice(Body::from(b"abxc".to_vec()), &mut stopped);
        let frame = body.poll_frame(&mut Context::from_waker(Waker::noop()));
        assert!(matches!(frame, Poll::Ready(Some(Err(BodyError::Stopped)))));
        assert!(matches!(*stopped.unwrap().borrow(), Some(Stop::Refuse(Refusal::Forbidden))));
    }

    type Log = Arc<Mutex<Vec<(char, bool)>>>;

    /// Repeats each byte, and notes which body's piece it was and whether the helper had it. What begins with a `g` waits
    /// at the gate, and what has a `p` is more than it can take.
    struct Costly {
        name: char,
        effort: Effort,
        log: Log,
        gate: Arc<Gate>,
    }

    #[derive(Default)]
    struct Gate(Mutex<bool>, Condvar);

    impl Gate {
        fn pass(&self) {
            drop(self.1.wait_while(self.0.lock().unwrap(), |open| !*open).unwrap());
        }

        fn open(&self) {
            *self.0.lock().unwrap() = true;
            self.1.notify_all();
        }
    }

    impl Costly {
        fn done(&self) {
            self.log.lock().unwrap().push((self.name, is_away()));
        }
    }

    fn is_away() -> bool {
        thread::current().name().is_some_and(|name| name.starts_with("helper-"))
    }

    impl Filter for Costly {
        fn piece(&mut self, data: Bytes) -> Result<Bytes, Stop> {
            assert!(!is_away(), "on the helper a piece is large");
            self.large_piece(data, &mut || ())
        }

        fn large_piece(&mut self, data: Bytes, breathe: &mut dyn FnMut()) -> Result<Bytes, Stop> {
            if data[0] == b'g' {
                self.gate.pass();
            }
            self.done();
            breathe();
            assert!(!data.contains(&b'p'), "a panic that is expected");
            Ok(data.iter().flat_map(|byte| [*byte, *byte]).collect())
        }

        fn end(&mut self) -> Result<Bytes, Stop> {
            self.done();
            Ok(Bytes::from_static(b"."))
        }

        fn effort(&self) -> Effort {
            self.effort
        }
    }

    struct Pieces(VecDeque<Bytes>);

    impl Source for Pieces {
        fn poll_frame(&mut self, _: &mut Context<'_>) -> Poll<Option<Result<Frame, BodyError>>> {
            Poll::Ready(self.0.pop_front().map(|piece| Ok(Frame::Data(piece))))
        }
    }

    struct Bench {
        helper: Rc<Helper>,
        log: Log,
        gate: Arc<Gate>,
        meter: Option<Meter>,
    }

    impl Bench {
        fn new() -> Bench {
            Bench {
                helper: Rc::new(Helper::new(7)),
                log: Log::default(),
                gate: Arc::default(),
                meter: Some(Meter::default()),
            }
        }

        fn body(&self, name: char, effort: Effort, pieces: impl IntoIterator<Item = Vec<u8>>) -> Body {
            let costly = Costly { name, effort, log: self.log.clone(), gate: self.gate.clone() };
            let pieces = Pieces(pieces.into_iter().map(Bytes::from).collect());
            filtered(
                Body::source(pieces),
                Filters::new(vec![Box::new(costly)]),
                &self.helper,
                self.meter.as_ref(),
                &mut None,
            )
        }

        /// One whose first large piece waits at the gate, or for those that do, and whose beginning has been read.
        async fn away(&self, name: char) -> Body {
            let mut body = self.body(name, Effort::WithEachPiece, large([vec![b'g'; LOAD], vec![b'h'; LOAD]]));
            let mut read = 0;
            while read < 2 * LARGE {
                let Some(Ok(Frame::Data(data))) = body.frame().await else { panic!("it fails") };
                read += data.len();
            }
            assert!(poll_fn(|cx| Poll::Ready(body.poll_frame(cx).is_pending())).await);
            body
        }

        fn log(&self) -> Vec<(char, bool)> {
            std::mem::take(&mut *self.log.lock().unwrap())
        }
    }

    async fn whole(mut body: Body) -> Vec<u8> {
        let mut bytes = Vec::new();
        while let Some(frame) = body.frame().await {
            let Ok(Frame::Data(data)) = frame else { panic!("it fails") };
            bytes.extend_from_slice(&data);
        }
        bytes
    }

    fn run<T>(future: impl Future<Output = T>) -> T {
        tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(future)
    }

    /// Large behind its first piece.
    fn large(more: impl IntoIterator<Item = Vec<u8>>) -> Vec<Vec<u8>> {
        std::iter::once(vec![b'a'; LARGE]).chain(more).collect()
    }

    fn twice_all(pieces: &[Vec<u8>]) -> Vec<u8> {
        let bytes = pieces.iter().flatten().flat_map(|byte| [*byte, *byte]);
        bytes.chain([b'.']).collect()
    }

    #[test]
    fn what_costs_much_behind_the_first_of_a_large_body_is_done_by_the_helper() {
        let small = vec![b'b'; WORTH_THE_WAY - 1];
        let pieces =
            large([small.clone(), vec![b'c'; LOAD], small, vec![b'd'; 2 * LOAD + 1], vec![b'e'; WORTH_THE_WAY]]);
        let first = LARGE / PIECE;
        for (effort, after) in [(Effort::WithEachPiece, "-+-++-++"), (Effort::AtEnd, "+"), (Effort::Little, "-")] {
            let bench = Bench::new();
            let body = bench.body('x', effort, pieces.clone());
            assert!(run(whole(body)) == twice_all(&pieces), "{effort:?}");
            let log = bench.log();
            assert!(log[..first].iter().all(|(_, away)| !away), "{effort:?}");
            let log: String = log[first..].iter().map(|(_, away)| if *away { '+' } else { '-' }).collect();
            assert!(log.ends_with(after), "{effort:?} {log}");
            assert_eq!(effort == Effort::WithEachPiece, log == after, "{log}");
            // What the helper did is the call's too.
            let cost = bench.meter.as_ref().unwrap().stands_for();
            assert_eq!(cost.is_zero(), effort == Effort::Little, "{effort:?}");
        }
        // Small bodies never go there, and for them no thread is begun.
        let bench = Bench::new();
        assert_eq!(run(whole(bench.body('x', Effort::WithEachPiece, [vec![b'a'; LARGE - 1]]))).len(), 2 * LARGE - 1);
        assert!(bench.log().iter().all(|(_, away)| !away));
    }

    #[test]
    fn many_large_bodies_take_turns_at_the_helper() {
        const MANY: usize = 20;
        let bench = Bench::new();
        let names = || ('a'..).take(MANY);
        run(async {
            let mut bodies = Vec::new();
            for name in names() {
                bodies.push(bench.away(name).await);
            }
            bench.log();
            bench.gate.open();
            let set = tokio::task::LocalSet::new();
            let tasks: Vec<_> = bodies.into_iter().map(|body| set.spawn_local(whole(body))).collect();
            set.await;
            for task in tasks {
                assert!(task.await.unwrap() == [vec![b'g'; 2 * LOAD], vec![b'h'; 2 * LOAD], vec![b'.']].concat());
            }
        });
        let log = bench.log();
        let first: Vec<_> = log[..MANY].iter().map(|(name, _)| *name).collect();
        assert_eq!(first, names().collect::<Vec<_>>());
        assert_eq!((log.len(), log.iter().all(|(_, away)| *away)), (3 * MANY, true));
    }

    #[test]
    fn what_nobody_waits_for_any_more_is_not_begun() {
        let bench = Bench::new();
        run(async {
            let (first, second, third) = (bench.away('a').await, bench.away('b').await, bench.away('c').await);
            bench.log();
            drop(second);
            drop(first);
            bench.gate.open();
            whole(third).await;
        });
        let mut log = bench.log();
        // Dropped while it was at work, or before.
        log.retain(|it| *it != ('a', true));
        assert_eq!(log, [('c', true); 3]);
    }

    #[test]
    fn a_panic_at_the_helper_ends_its_own_call_only() {
        let bench = Bench::new();
        bench.gate.open();
        run(async {
            let set = tokio::task::LocalSet::new();
            let bodies = [b'p', b'h', b'p', b'h'].map(|byte| large([vec![byte; LOAD]]));
            let tasks = bodies.map(|pieces| set.spawn_local(whole(bench.body('x', Effort::WithEachPiece, pieces))));
            set.await;
            let mut panicked = Vec::new();
            for task in tasks {
                panicked.push(task.await.is_err_and(|error| error.is_panic()));
            }
            assert_eq!(panicked, [true, false, true, false]);
        });
    }
}
