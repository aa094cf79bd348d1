//! What a node borrows of budgets that nodes share, from the stores that lend them, and gives back.
//!
//! All of it is done for all cores on one thread apart ([`crate::control`]). Of each account one question is under way at a
//! time, for all who want of it, so that what the node holds by its own account is never more than it holds by the store's. A
//! question whose answer is lost is asked again, as the same one, until it is answered: it may have been done. A call waits
//! only for what is not lent yet, and most of the time more was asked for before that; while a store is away nobody waits.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use base::Time;
use config::Snapshot;
use ledger::{Away, Books, GIVE_BACK, LEND, Moment, Want};
use policy::{Eval, Outside};
use tokio::sync::{mpsc, oneshot};
use tokio::time::{MissedTickBehavior, interval, sleep};
use transport::dns::Names;

use crate::outside::World;

/// The way to it, for any core.
#[derive(Clone)]
pub struct Desk(mpsc::UnboundedSender<Errand>);

pub enum Errand {
    /// Budgets and stores are these from now on.
    Adopt {
        snapshot: Arc<Snapshot>,
        names: Arc<Names>,
    },
    Borrow {
        want: Want,
        answer: Option<oneshot::Sender<Lent>>,
    },
    /// All that is free goes back. Dropped when that is done.
    GiveBack(std::sync::mpsc::Sender<()>),
}

type Lent = Result<u64, Away>;

struct Lender {
    world: World,
    books: RefCell<Arc<Books>>,
    /// Another one whenever the process starts.
    node: String,
    number: Cell<u64>,
    accounts: RefCell<HashMap<String, Account>>,
}

/// What is under way of one account, or was lately.
#[derive(Default)]
struct Account {
    /// A question is.
    asking: bool,
    /// The store has not answered it.
    away: bool,
    /// What is wanted since it was asked, and by whom.
    wanted: Option<Want>,
    waiting: Vec<oneshot::Sender<Lent>>,
    /// The store had less than that, until when it is not asked again.
    empty: Option<(u64, Time)>,
}

/// How often one looks for what nobody needs.
const EVERY: Duration = Duration::from_secs(1);
/// Between a question that was not answered and the same again.
const AGAIN: Duration = Duration::from_millis(50);
/// After this a store that had too little may have been given back some.
const EMPTY: Duration = Duration::from_millis(100);

// === impl Desk ===

impl Desk {
    pub fn new() -> (Desk, mpsc::UnboundedReceiver<Errand>) {
        let (errands, inbox) = mpsc::unbounded_channel();
        (Desk(errands), inbox)
    }

    pub fn adopt(&self, snapshot: Arc<Snapshot>, names: Arc<Names>) {
        let _ = self.0.send(Errand::Adopt { snapshot, names });
    }

    /// Borrows what will be needed soon.
    pub fn refill(&self, want: Want) {
        let _ = self.0.send(Errand::Borrow { want, answer: None });
    }

    /// Gives back all that is free, and waits for that, on a thread that may.
    pub fn give_back(&self, patience: Duration) {
        let (done, wait) = std::sync::mpsc::channel();
        let _ = self.0.send(Errand::GiveBack(done));
        // It ends by being dropped.
        let _ = wait.recv_timeout(patience);
    }
}

impl ledger::Lender for Desk {
    async fn lend(&self, want: &Want) -> Lent {
        let (answer, lent) = oneshot::channel();
        let _ = self.0.send(Errand::Borrow { want: want.clone(), answer: Some(answer) });
        lent.await.unwrap_or(Err(Away))
    }
}

/// Does errands for as long as there are desks.
pub async fn run(mut errands: mpsc::UnboundedReceiver<Errand>) {
    let mut lender: Option<Rc<Lender>> = None;
    let mut tick = interval(EVERY);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        let lends = lender.as_ref().is_some_and(|it| it.books.borrow().is_shared());
        tokio::select! {
            errand = errands.recv() => match (errand, &lender) {
                (None, _) => return,
                (Some(Errand::Adopt { snapshot, names }), _) => {
                    lender.get_or_insert_with(|| Lender::new(names, snapshot.books.clone())).adopt(&snapshot);
                }
                (Some(Errand::Borrow { want, answer }), Some(lender)) => lender.borrow(want, answer),
                (Some(Errand::GiveBack(done)), Some(lender)) => {
                    let all = lender.books.borrow().give_back(now());
                    lender.give_back(all, Some(done));
                }
                (Some(_), None) => {}
            },
            _ = tick.tick(), if lends => {
                if let Some(lender) = &lender {
                    let idle = lender.books.borrow().idle(now());
                    lender.give_back(idle, None);
                    lender.forget();
                }
            }
        }
    }
}

/// Who has left needs no answer.
fn tell_all(waiting: &mut Vec<oneshot::Sender<Lent>>, lent: Lent) {
    for answer in waiting.drain(..) {
        let _ = answer.send(lent);
    }
}

fn now() -> Moment {
    Moment::from(SystemTime::now())
}

// === impl Lender ===

impl Lender {
    fn new(names: Arc<Names>, books: Arc<Books>) -> Rc<Lender> {
        let world = World::new(names, Time::now().nanos());
        let node = format!("{:016x}", world.node());
        let (number, accounts) = (Cell::new(0), RefCell::default());
        Rc::new(Lender { world, books: RefCell::new(books), node, number, accounts })
    }

    fn adopt(self: &Rc<Self>, snapshot: &Snapshot) {
        self.world.set_stores(&snapshot.stores);
        let old = self.books.replace(snapshot.books.clone());
        self.give_back(old.left_behind(&snapshot.books, now()), None);
    }

    fn borrow(self: &Rc<Self>, want: Want, answer: Option<oneshot::Sender<Lent>>) {
        let key = want.key();
        let mut accounts = self.accounts.borrow_mut();
        let account = accounts.entry(key.clone()).or_default();
        if account.away {
            return self.tell(&want, answer, Err(Away));
        }
        if account.empty.is_some_and(|(least, until)| want.least >= least && Time::now() < until) {
            return self.tell(&want, answer, Ok(0));
        }
        account.wanted = Some(match account.wanted.take() {
            Some(other) => other.and(&want),
            None => want,
        });
        account.waiting.extend(answer);
        if !account.asking {
            account.asking = true;
            tokio::task::spawn_local(self.clone().ask_all(key));
        }
    }

    /// Asks for as long as anybody wants something of an account.
    async fn ask_all(self: Rc<Self>, key: String) {
        while let Some((want, mut waiting)) = self.next(&key) {
            // As it is held now: what others had given back or were lent meanwhile counts.
            let Some(want) = self.books.borrow().renewed(&want) else {
                // The period is over. Whoever waits looks again, and finds the next one.
                tell_all(&mut waiting, Ok(0));
                continue;
            };
            let numbers = want.arguments(now());
            let told = self.ask(&key, &want, LEND, &numbers, waiting).await;
            let Some((told, mut waiting)) = told else { continue };
            let lent = told.first().map_or(0, |lent| u64::try_from(*lent).unwrap_or(0));
            match lent {
                0 => {
                    self.books.borrow().lent_nothing(&want);
                    self.with(&key, |account| account.empty = Some((want.least, Time::now() + EMPTY)));
                }
                lent => self.books.borrow().lend(&want, lent),
            }
            tell_all(&mut waiting, Ok(lent));
        }
    }

    /// What is wanted next of an account, and who waits for it; if nothing is, nobody asks any more.
    fn next(&self, key: &str) -> Option<(Want, Vec<oneshot::Sender<Lent>>)> {
        self.with(key, |account| match account.wanted.take() {
            Some(want) => Some((want, std::mem::take(&mut account.waiting))),
            None => {
                account.asking = false;
                None
            }
        })
        .flatten()
    }

    /// What the store answers, if it does before that is of no use; and those who still wait for it. Who would have to wait
    /// for longer than one try is told that it is away.
    async fn ask(
        &self,
        key: &str,
        want: &Want,
        script: &'static str,
        numbers: &[u64],
        mut waiting: Vec<oneshot::Sender<Lent>>,
    ) -> Option<(Vec<i64>, Vec<oneshot::Sender<Lent>>)> {
        let request = self.number.get() + 1;
        self.number.set(request);
        let texts = [self.node.clone(), request.to_string()].into_iter().chain(numbers.iter().map(u64::to_string));
        let args: Vec<Vec<u8>> = texts.map(String::into_bytes).collect();
        loop {
            let (then, told) = oneshot::channel();
            let eval = Eval { store: want.store.clone(), script, keys: vec![key.into()], args: args.clone() };
            self.world.eval(
                eval,
                Box::new(move |told| {
                    let _ = then.send(told);
                }),
            );
            if let Ok(Ok(told)) = told.await {
                if self.with(key, |account| std::mem::take(&mut account.away)) == Some(true) {
                    tracing::info!(budget = %want.budget, store = %want.store, "the store that lends a budget is back");
                }
                return Some((told, waiting));
            }
            let more = self.with(key, |account| {
                if !std::mem::replace(&mut account.away, true) {
                    tracing::warn!(
                        budget = %want.budget, store = %want.store,
                        "the store that lends a budget is away: what was lent is spent, and no more"
                    );
                }
                account.wanted = None;
                std::mem::take(&mut account.waiting)
            });
            waiting.extend(more.unwrap_or_default());
            self.books.borrow().lent_nothing(want);
            tell_all(&mut waiting, Err(Away));
            let over = want.renews.is_some_and(|end| end < now());
            if over || self.books.borrow().renewed(want).is_none() {
                self.with(key, |account| account.away = false);
                return None;
            }
            sleep(AGAIN).await;
        }
    }

    /// Gives back what is no longer free here. `done` is dropped when all of it is over.
    fn give_back(self: &Rc<Self>, all: Vec<Want>, done: Option<std::sync::mpsc::Sender<()>>) {
        for want in all {
            let key = want.key();
            let asking = {
                let mut accounts = self.accounts.borrow_mut();
                std::mem::replace(&mut accounts.entry(key.clone()).or_default().asking, true)
            };
            if asking {
                // One question at a time: it stays here.
                self.books.borrow().lend(&want, want.wish);
                continue;
            }
            let (lender, done) = (self.clone(), done.clone());
            tokio::task::spawn_local(async move {
                lender.ask(&key, &want, GIVE_BACK, &[want.wish], Vec::new()).await;
                drop(done);
                lender.ask_all(key).await;
            });
        }
    }

    /// Accounts of which nothing is under way are not kept.
    fn forget(&self) {
        let now = Time::now();
        let of_use = |account: &Account| account.asking || account.empty.is_some_and(|(_, until)| until > now);
        self.accounts.borrow_mut().retain(|_, account| of_use(account));
    }

    fn tell(&self, want: &Want, answer: Option<oneshot::Sender<Lent>>, lent: Lent) {
        self.books.borrow().lent_nothing(want);
        if let Some(answer) = answer {
            let _ = answer.send(lent);
        }
    }

    fn with<T>(&self, key: &str, change: impl FnOnce(&mut Account) -> T) -> Option<T> {
        self.accounts.borrow_mut().get_mut(key).map(change)
    }
}
