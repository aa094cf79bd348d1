use std::cell::Cell;

use proptest::prelude::*;

use super::*;
use crate::outside::Local;
use crate::testing::ready;
use crate::{Asked, Errand, OutsideError, Told};

type Then = Box<dyn FnOnce(Result<Vec<i64>, StoreAway>)>;

/// What becomes of a question.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Fate {
    #[default]
    Answered,
    /// When it is delivered.
    Later,
    /// It never came there.
    Lost,
    /// It came there, and the answer did not come back.
    Unanswered,
}

/// A store that does what the script says, in virtual time. In microseconds, as that does.
#[derive(Default)]
struct Store {
    now: Cell<u64>,
    epoch: Cell<i64>,
    owed: Cell<Option<(f64, f64)>>,
    noted: RefCell<HashMap<Vec<u8>, String>>,
    fate: Cell<Fate>,
    later: RefCell<Vec<(Vec<i64>, Then)>>,
    questions: Cell<u64>,
    /// Lent, and never heard of: in nanoseconds.
    lost: Cell<i64>,
    random: Cell<u64>,
}

impl Store {
    fn new() -> Rc<Store> {
        Rc::new(Store { now: Cell::new(SECOND), epoch: Cell::new(1), ..Store::default() })
    }

    fn forget(&self) {
        self.epoch.set(self.epoch.get() + 1);
        self.owed.set(None);
        self.noted.borrow_mut().clear();
    }

    fn pass(&self, nanos: u64) {
        self.now.set(self.now.get() + nanos);
    }

    fn deliver(&self) {
        for (answer, then) in self.later.take() {
            then(Ok(answer));
        }
    }

    fn run(&self, keys: &[Vec<u8>], args: &[Vec<u8>]) -> Vec<i64> {
        let text = |at: usize| std::str::from_utf8(&args[at]).unwrap();
        let number = |at: usize| text(at).parse::<f64>().unwrap();
        let now = self.now.get() as f64 / 1000.0;
        let [want, least, most, sum] = [0, 1, 2, 3].map(number);
        let (known, known_given) = (number(5), number(6));
        let (owed, mut given) = self.owed.get().unwrap_or((now, 0.0));
        let mut owed = owed.max(now);
        if text(8) == "1" || text(7) != self.epoch.get().to_string() {
            let charged = (owed + given).max(now + known + known_given);
            given = given.max(known_given);
            owed = charged - given;
        }
        if text(4) != "0" && self.noted.borrow_mut().insert(keys[3].clone(), text(4).to_owned()) != Some(text(4).into())
        {
            owed += sum;
            given -= sum.min(0.0);
        }
        owed = owed.max(now);
        let room = most - (owed - now);
        let grant = match room >= least {
            true if want > room && least < most => room,
            true => want,
            false => 0.0,
        };
        self.owed.set(Some((owed + grant, given)));
        let nanos = |micros: f64| (micros * 1000.0).floor() as i64;
        vec![nanos(grant), nanos(owed + grant - now), nanos(least - room), 2, nanos(given), self.epoch.get()]
    }
}

impl Outside for Store {
    fn eval(&self, eval: Eval, then: Then) {
        self.questions.set(self.questions.get() + 1);
        match self.fate.get() {
            Fate::Lost => then(Err(StoreAway)),
            fate => {
                let answer = self.run(&eval.keys, &eval.args);
                match fate {
                    Fate::Later => self.later.borrow_mut().push((answer, then)),
                    Fate::Unanswered => {
                        self.lost.set(self.lost.get() + answer[0]);
                        then(Err(StoreAway));
                    }
                    _ => then(Ok(answer)),
                }
            }
        }
    }

    fn node(&self) -> u64 {
        1
    }

    fn random(&self) -> u64 {
        self.random.set(self.random.get() + 1);
        self.random.get()
    }

    fn ask(&self, _: Asked) -> Local<'_, Result<Told, OutsideError>> {
        unreachable!("limits ask stores alone")
    }

    fn ask_aside(&self, _: Errand) {
        unreachable!("limits ask stores alone")
    }

    fn aside(&self, _: Local<'static, ()>) {
        unreachable!("limits ask stores alone")
    }
}

/// A node's side of the one rule, with the one key. A unit is a microsecond of debt.
struct Node {
    shared: Arc<Shared>,
    cells: Arc<Cells>,
    gcra: Gcra,
    store: Rc<Store>,
}

impl Node {
    fn new(store: &Rc<Store>, burst: u64) -> Node {
        let shared = Arc::new(Shared::new("s".into(), WhenAway::Closed, 2, "rule"));
        let gcra = Gcra::exact(1000, 1, burst).unwrap();
        Node { shared, cells: Arc::new(Cells::new(8)), gcra, store: store.clone() }
    }

    fn key(&self) -> KeyHash {
        self.cells.hash(|write| write(b"key"))
    }

    fn call(&self, units: u64) -> Lent {
        let (key, cost, now) = (self.key(), self.gcra.cost(units), self.store.now.get());
        let write: WriteKey<'_> = &|to| to(b"key");
        let lent = ready(self.shared.lend((self.gcra, &self.cells), (key, cost), write, now, &*self.store));
        if lent == Lent::Credit {
            assert!(self.shared.spend(key, cost));
        }
        lent
    }

    /// A call that was charged `units` came to so many.
    fn settle(&self, units: u64, came_to: u64) {
        let signed = |units: u64| i64::try_from(self.gcra.cost(units)).unwrap();
        self.shared.correct((self.gcra, &self.cells), self.key(), signed(came_to) - signed(units));
    }

    fn lease<T>(&self, look: impl FnOnce(&Lease) -> T) -> T {
        self.shared.with(self.key(), |lease| look(&lease.borrow())).unwrap()
    }
}

fn report(store: &Store) {
    report_corrections(Time::from_nanos(store.now.get()), store);
}

fn is_refused(lent: Lent) -> bool {
    matches!(lent, Lent::Refused(_))
}

const MILLI: u64 = SECOND / 1000;
/// A minute's worth at once.
const MINUTE: u64 = 60_000_000;

#[test]
fn what_a_node_took_too_much_another_can_use() {
    let store = Store::new();
    let (a, b) = (Node::new(&store, MINUTE), Node::new(&store, MINUTE));
    assert_eq!(a.call(50_000_000), Lent::Credit);
    assert_eq!(b.call(20_000_000), Lent::Refused(Wait(10 * SECOND)));
    assert!(!has_corrections());
    a.settle(50_000_000, 1_000_000);
    assert!(has_corrections());
    report(&store);
    assert!(!has_corrections());
    store.pass(NEWS);
    assert_eq!(b.call(50_000_000), Lent::Credit);
    // Each question that has nothing to tell is not asked.
    let asked = store.questions.get();
    report(&store);
    assert_eq!(store.questions.get(), asked);
}

#[test]
fn what_a_node_took_too_little_another_feels() {
    let store = Store::new();
    let (a, b) = (Node::new(&store, MINUTE), Node::new(&store, MINUTE));
    assert_eq!(a.call(1000), Lent::Credit);
    a.settle(1000, 70_000_000);
    report(&store);
    let Lent::Refused(Wait(wait)) = b.call(1_000_000) else { panic!("there is nothing left") };
    // All, but for what the first had drawn ahead.
    assert!((10 * SECOND..=11 * SECOND).contains(&wait), "{wait}");
}

#[test]
fn a_correction_rides_with_the_next_question() {
    let store = Store::new();
    let a = Node::new(&store, MINUTE);
    assert_eq!(a.call(MINUTE), Lent::Credit);
    a.settle(MINUTE, 0);
    let asked = store.questions.get();
    assert_eq!(a.call(MINUTE), Lent::Credit);
    report(&store);
    assert_eq!(store.questions.get(), asked + 1);
}

#[test]
fn a_store_that_forgot_is_told_what_was_owed_and_what_was_given_back_since() {
    for first in [0, 1] {
        let store = Store::new();
        let nodes = [Node::new(&store, MINUTE), Node::new(&store, MINUTE)];
        let [a, b] = &nodes;
        assert_eq!(a.call(50_000_000), Lent::Credit);
        assert!(is_refused(b.call(20_000_000)));
        store.forget();
        store.fate.set(Fate::Lost);
        a.settle(50_000_000, 1_000_000);
        report(&store);
        assert!(a.lease(|lease| lease.telling.is_some()));
        store.fate.set(Fate::Answered);
        store.pass(NEWS);
        // B, which knows only of the time before, tells that earlier or later than A does.
        if first == 1 {
            assert!(is_refused(b.call(20_000_000)));
        }
        report(&store);
        store.pass(NEWS);
        assert_eq!(b.call(50_000_000), Lent::Credit, "{first}");
        assert!(is_refused(b.call(20_000_000)));
    }
}

#[test]
fn a_store_that_forgot_is_told_of_what_came_to_more() {
    let store = Store::new();
    let (a, b) = (Node::new(&store, MINUTE), Node::new(&store, MINUTE));
    assert_eq!(a.call(10_000_000), Lent::Credit);
    store.fate.set(Fate::Lost);
    a.settle(10_000_000, 59_000_000);
    report(&store);
    store.forget();
    store.fate.set(Fate::Answered);
    store.pass(NEWS);
    report(&store);
    assert!(is_refused(b.call(20_000_000)));
}

#[test]
fn who_has_nothing_to_tell_is_not_asked_and_a_sum_is_given_up_after_a_while() {
    let store = Store::new();
    let a = Node::new(&store, MINUTE);
    assert_eq!(a.call(1000), Lent::Credit);
    a.settle(1000, 500);
    store.fate.set(Fate::Lost);
    for _ in 0..700 {
        store.pass(SECOND);
        report(&store);
    }
    assert!(a.lease(|lease| !lease.has_to_tell()));
    let asked = store.questions.get();
    store.pass(SECOND);
    report(&store);
    assert_eq!(store.questions.get(), asked);
}

#[derive(Clone, Debug)]
enum Step {
    Call(usize, u64),
    /// One of the calls under way comes to so much.
    Settle(prop::sample::Index, u64),
    Report,
    Deliver,
    Pass(u64),
    Fate(Fate),
}

fn step() -> impl Strategy<Value = Step> {
    let fate = prop_oneof![
        3 => Just(Fate::Answered),
        1 => Just(Fate::Later),
        1 => Just(Fate::Lost),
        1 => Just(Fate::Unanswered)
    ];
    prop_oneof![
        4 => (0..3usize, 1..100_000u64).prop_map(|(node, units)| Step::Call(node, units)),
        4 => (any::<prop::sample::Index>(), 0..200_000u64).prop_map(|(call, units)| Step::Settle(call, units)),
        3 => Just(Step::Report),
        1 => Just(Step::Deliver),
        2 => (1..600u64).prop_map(Step::Pass),
        1 => fate.prop_map(Step::Fate),
    ]
}

proptest! {
    #[test]
    fn the_store_knows_in_the_end_what_calls_came_to_whatever_became_of_questions(
        steps in proptest::collection::vec(step(), 1..150),
    ) {
        let store = Store::new();
        // Room for all, and a debt that outlasts it all: nothing is paid meanwhile, so every unit is seen at the end.
        let nodes = [0; 3].map(|_| Node::new(&store, 1_000 * MINUTE));
        let (began, base) = (store.now.get() as i64, 100 * MINUTE);
        prop_assert_eq!(nodes[0].call(base), Lent::Credit);
        let mut came_to = base;
        let mut under_way: Vec<(usize, u64)> = Vec::new();
        for step in steps {
            match step {
                Step::Call(node, units) => {
                    // A call would wait for it.
                    store.deliver();
                    if store.fate.get() == Fate::Later {
                        store.fate.set(Fate::Answered);
                    }
                    if nodes[node].call(units) == Lent::Credit {
                        under_way.push((node, units));
                    }
                }
                Step::Settle(call, units) if !under_way.is_empty() => {
                    let (node, charged) = under_way.swap_remove(call.index(under_way.len()));
                    nodes[node].settle(charged, units);
                    came_to += units;
                }
                Step::Settle(..) => {}
                Step::Report => report(&store),
                Step::Deliver => store.deliver(),
                Step::Pass(millis) => store.pass(millis * MILLI),
                Step::Fate(fate) => store.fate.set(fate),
            }
        }
        store.fate.set(Fate::Answered);
        store.deliver();
        for _ in 0..4 {
            store.pass(PAUSE_AWAY);
            report(&store);
        }
        let open: u64 = under_way.iter().map(|(_, charged)| charged).sum();
        let held: i64 = nodes.iter().filter_map(|node| node.shared.with(node.key(), |it| it.borrow().credit)).sum();
        let expected = began + 1000 * (came_to + open) as i64 + held + store.lost.get();
        let (end, _) = store.owed.get().unwrap();
        // What is lent is rounded down to a nanosecond, and nothing else is lost.
        let rounded = (end * 1000.0).round() as i64 - expected;
        prop_assert!((0..=store.questions.get() as i64).contains(&rounded), "{rounded}");
    }
}
