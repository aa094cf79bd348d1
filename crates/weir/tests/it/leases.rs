//! Budgets that nodes share, lent by a real Redis that is killed meanwhile.

use std::io::{self, BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::SeqCst;
use std::task::{Context, Poll, Waker};
use std::thread;
use std::time::{Duration, Instant};

use ledger::{
    Away, Books, BudgetsSpec, Caller, GIVE_BACK, Hold, LEND, Lender, Moment, Money, PriceBook, Used, Want, Why,
};

struct Redis {
    folder: PathBuf,
    process: Child,
}

impl Redis {
    /// One that forgets nothing it has answered.
    fn start(folder: &Path) -> Redis {
        let process = Command::new("redis-server")
            .args(["--port", "0", "--unixsocket", "redis.sock", "--appendonly", "yes", "--appendfsync", "always"])
            .args(["--save", ""])
            .current_dir(folder)
            .stdout(Stdio::null())
            .spawn()
            .expect("scripts/test-setup.sh installs redis-server");
        let redis = Redis { folder: folder.to_owned(), process };
        let deadline = Instant::now() + Duration::from_secs(20);
        while Connection::new(&redis.socket()).and_then(|mut it| it.ask(&["PING"])).is_err() {
            assert!(Instant::now() < deadline, "Redis does not answer");
            thread::sleep(Duration::from_millis(10));
        }
        redis
    }

    fn socket(&self) -> PathBuf {
        self.folder.join("redis.sock")
    }

    fn kill(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        self.kill();
    }
}

/// As much of Redis's protocol as is needed here.
struct Connection(BufReader<UnixStream>);

impl Connection {
    fn new(socket: &Path) -> io::Result<Connection> {
        let stream = UnixStream::connect(socket)?;
        stream.set_read_timeout(Some(Duration::from_secs(5)))?;
        Ok(Connection(BufReader::new(stream)))
    }

    /// The numbers it answers; no text.
    fn ask(&mut self, words: &[&str]) -> io::Result<Vec<u64>> {
        let mut request = format!("*{}\r\n", words.len());
        for word in words {
            request += &format!("${}\r\n{word}\r\n", word.len());
        }
        self.0.get_mut().write_all(request.as_bytes())?;
        let first = self.line()?;
        let number = |line: &str| line[1..].parse::<u64>().map_err(|_| io::Error::other(line.to_owned()));
        match first.as_bytes().first() {
            Some(b':') => Ok(vec![number(&first)?]),
            Some(b'*') => (0..number(&first)?).map(|_| number(&self.line()?)).collect(),
            Some(b'$') => Ok(vec![self.line()?.parse().map_err(io::Error::other)?]),
            Some(b'+') => Ok(Vec::new()),
            _ => Err(io::Error::other(first)),
        }
    }

    fn line(&mut self) -> io::Result<String> {
        let mut line = String::new();
        match self.0.read_line(&mut line)? {
            0 => Err(io::ErrorKind::UnexpectedEof.into()),
            _ => Ok(line.trim_end().to_owned()),
        }
    }
}

/// One node's way to the store. Asks again, as the same request, while the store is away.
struct Node {
    name: String,
    socket: PathBuf,
    state: Mutex<(Option<Connection>, u64)>,
    again: AtomicU64,
}

impl Node {
    fn eval(&self, script: &str, key: &str, args: impl Fn(u64) -> Vec<String>) -> Result<u64, Away> {
        let mut state = self.state.lock().unwrap();
        state.1 += 1;
        let args = args(state.1);
        let words: Vec<&str> = ["EVAL", script, "1", key].into_iter().chain(args.iter().map(String::as_str)).collect();
        let deadline = Instant::now() + Duration::from_secs(20);
        while Instant::now() < deadline {
            let connection = state.0.take().map_or_else(|| Connection::new(&self.socket), Ok);
            if let Ok(mut connection) = connection
                && let Ok(answer) = connection.ask(&words)
            {
                state.0 = Some(connection);
                return Ok(answer[0]);
            }
            self.again.fetch_add(1, SeqCst);
            thread::sleep(Duration::from_millis(5));
        }
        Err(Away)
    }
}

impl Lender for Node {
    async fn lend(&self, want: &Want) -> Result<u64, Away> {
        let Want { limit, held, least, wish, .. } = want;
        self.eval(LEND, &want.key(), |request| {
            let numbers = [request, *limit, *held, *least, *wish, 86_400].map(|it| it.to_string());
            std::iter::once(self.name.clone()).chain(numbers).collect()
        })
    }
}

/// Of a future that does not wait.
fn ready<T>(future: impl Future<Output = T>) -> T {
    match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(output) => output,
        Poll::Pending => panic!("it waits"),
    }
}

#[test]
fn four_nodes_with_500_callers_each_never_overspend_while_the_store_is_killed_twice() {
    const NODES: u64 = 4;
    const CALLERS: u64 = 500;
    const CALLS: u64 = 8;
    let folder = tempfile::tempdir().unwrap();
    let mut redis = Redis::start(folder.path());
    let specs: BudgetsSpec =
        serde_json::from_str(r#"{ "all": { "per": "organisation", "amount": "50 USD", "every": "month" } }"#).unwrap();
    let now = Moment::from_secs(1_795_521_600);
    let limit = Money::dollars(50);
    let nodes: Vec<(Books, Node)> = (0..NODES)
        .map(|number| {
            let books = Books::new(&specs, PriceBook::default(), None).unwrap().shared(None);
            let state = Mutex::new((None, 0));
            (books, Node { name: format!("node-{number}"), socket: redis.socket(), state, again: 0.into() })
        })
        .collect();
    let refused = AtomicU64::new(0);
    let spent_units = AtomicU64::new(0);
    let calls_done = AtomicU64::new(0);
    thread::scope(|scope| {
        for (at, (books, node)) in nodes.iter().enumerate() {
            for caller in 0..CALLERS {
                let (refused, spent_units, calls_done) = (&refused, &spent_units, &calls_done);
                let work = move || {
                    for call in 0..CALLS {
                        // From 1 to 20 thousandths of a dollar, and odd units, so that nothing adds up by chance.
                        let random = (at as u64 * 7919 + caller * 104_729 + call * 1_299_709) % 20_000;
                        let worst = Money::from_units(20_000_000_007);
                        let cost = Money::from_units(i128::from(random * 1_000_000 + caller));
                        match ready(books.reserve_shared(node, &Caller::default(), &Used::call(worst, 0), now)) {
                            Ok(hold) => {
                                thread::sleep(Duration::from_micros(random % 500));
                                hold.settle(&Used::call(cost, 0));
                                spent_units.fetch_add(cost.units() as u64, SeqCst);
                            }
                            Err(exhausted) => {
                                assert_eq!(exhausted.why, Why::Spent, "{exhausted}");
                                refused.fetch_add(1, SeqCst);
                            }
                        }
                        calls_done.fetch_add(1, SeqCst);
                    }
                };
                thread::Builder::new().stack_size(512 << 10).spawn_scoped(scope, work).unwrap();
            }
        }
        for part in [1, 2] {
            // While they are at it: after a fifth and after two fifths of what there is.
            while (spent_units.load(SeqCst) as i128) < limit.units() * part / 5 {
                assert!(calls_done.load(SeqCst) < NODES * CALLERS * CALLS, "all was over before the store was killed");
                thread::sleep(Duration::from_millis(1));
            }
            redis.kill();
            let again = || nodes.iter().map(|(_, node)| node.again.load(SeqCst)).sum::<u64>();
            let before = again();
            // Somebody has missed it.
            while again() == before && calls_done.load(SeqCst) < NODES * CALLERS * CALLS {
                thread::sleep(Duration::from_millis(1));
            }
            redis = Redis::start(folder.path());
        }
    });
    let spent = Money::from_units(spent_units.into_inner().into());
    assert!(spent <= limit, "overspent: {spent}");
    let by_nodes: Vec<_> = nodes.iter().flat_map(|(books, _)| books.accounts(now)).map(|it| it.spent).collect();
    assert_eq!(by_nodes.len(), NODES as usize);
    // All that was asked for would have been more, and most of what there is was spent: how much of it nodes still hold
    // when their callers have asked for the last time depends on how long the store was away.
    assert!(refused.into_inner() > 0 && spent > Money::dollars(25), "{spent}");
    // What nobody needed goes back, and then the store's books are ours to the unit.
    for (books, node) in &nodes {
        for want in books.give_back(now) {
            let given = node.eval(GIVE_BACK, &want.key(), |_| vec![node.name.clone(), want.wish.to_string()]).unwrap();
            assert_eq!(given, want.wish);
        }
    }
    let mut connection = Connection::new(&redis.socket()).unwrap();
    let key = format!("weir:budget:all:*:{}", 1_793_491_200);
    // `$` and the length come first; what is asked for is the line after them.
    let lent = connection.ask(&["HGET", &key, "lent"]).unwrap();
    assert_eq!(Money::from_units(lent[0].into()), spent);
    eprintln!("spent {spent} of {limit}");
}

#[test]
fn a_store_that_forgot_lends_no_more_in_that_period() {
    let folder = tempfile::tempdir().unwrap();
    let redis = Redis::start(folder.path());
    let specs: BudgetsSpec =
        serde_json::from_str(r#"{ "all": { "per": "organisation", "amount": "6400 calls" } }"#).unwrap();
    let books = Books::new(&specs, PriceBook::default(), None).unwrap().shared(None);
    let node = Node { name: "a".into(), socket: redis.socket(), state: Mutex::new((None, 0)), again: 0.into() };
    let now = Moment::from_secs(1_795_521_600);
    let call = || ready(books.reserve_shared(&node, &Caller::default(), &Used::call(Money::ZERO, 0), now));
    (0..100).for_each(|_| drop(call().map(Hold::release)));
    let holds: Vec<Hold> = (0..100).map(|_| call().unwrap()).collect();
    Connection::new(&redis.socket()).unwrap().ask(&["FLUSHALL"]).unwrap();
    assert_eq!(call().unwrap_err().why, Why::Spent);
    // What it was lent it may still spend.
    holds.into_iter().for_each(Hold::release);
    call().unwrap().release();
}
