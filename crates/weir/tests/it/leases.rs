//! Budgets that nodes share, lent by a real Redis that is killed meanwhile: the books alone, and four gateways before one
//! provider. `WEIR_BUDGET_DOLLARS` says how much the gateways may spend together (`make accounting`).

use std::cell::Cell;
use std::io::{self, BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpStream};
use std::pin::pin;
use std::process::{Child, Command, Stdio};
use std::rc::Rc;
use std::sync::Mutex;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::SeqCst;
use std::task::{Context, Poll, Waker};
use std::thread;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::Request;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use ledger::{
    Away, Books, BudgetsSpec, Caller, GIVE_BACK, Hold, LEND, Lender, Moment, Money, PriceBook, Record, Used, Want, Why,
};
use serde_json::{Value, json};
use simulator::{Options, Simulator};
use testkit::{Folder, eventually};
use tokio::task::LocalSet;

use crate::weir::Running;

struct Redis {
    folder: Folder,
    address: SocketAddr,
    process: Child,
}

impl Redis {
    /// One that forgets nothing it has answered.
    fn start() -> Redis {
        let address = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let folder = Folder::new();
        let process = Redis::run(address, &folder);
        Redis { folder, address, process }
    }

    fn run(address: SocketAddr, folder: &Folder) -> Child {
        let process = Command::new("redis-server")
            .args(["--port", &address.port().to_string(), "--bind", "127.0.0.1", "--appendonly", "yes"])
            .args(["--appendfsync", "always", "--save", ""])
            .current_dir(folder.base())
            .stdout(Stdio::null())
            .spawn()
            .expect("scripts/test-setup.sh installs redis-server");
        let deadline = Instant::now() + Duration::from_secs(20);
        while Connection::new(address).and_then(|mut it| it.ask(&["PING"])).is_err() {
            assert!(Instant::now() < deadline, "Redis does not answer");
            thread::sleep(Duration::from_millis(10));
        }
        process
    }

    /// `kill -9`.
    fn kill(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }

    fn again(&mut self) {
        self.process = Redis::run(self.address, &self.folder);
    }

    fn ask(&self, words: &[&str]) -> Vec<u64> {
        Connection::new(self.address).unwrap().ask(words).unwrap()
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        self.kill();
    }
}

/// As much of Redis's protocol as is needed here.
struct Connection(BufReader<TcpStream>);

impl Connection {
    fn new(address: SocketAddr) -> io::Result<Connection> {
        let stream = TcpStream::connect(address)?;
        stream.set_nodelay(true)?;
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
    store: SocketAddr,
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
            let connection = state.0.take().map_or_else(|| Connection::new(self.store), Ok);
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

/// A node that borrows for its books.
struct Borrower<'a>(&'a Books, &'a Node);

impl Lender for Borrower<'_> {
    async fn lend(&self, want: &Want) -> Result<u64, Away> {
        let Borrower(books, node) = self;
        let lent = node.eval(LEND, &want.key(), |request| {
            let arguments = want.arguments(NOW);
            let numbers = std::iter::once(request).chain(arguments).map(|it| it.to_string());
            std::iter::once(node.name.clone()).chain(numbers).collect()
        })?;
        books.lend(want, lent);
        Ok(lent)
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
    let mut redis = Redis::start();
    let specs: BudgetsSpec = serde_json::from_str(
        r#"{ "all": { "per": "organisation", "amount": "50 USD", "every": "month", "shared": "s" } }"#,
    )
    .unwrap();
    let limit = Money::dollars(50);
    let nodes: Vec<(Books, Node)> = (0..NODES)
        .map(|number| {
            let books = Books::new(&specs, PriceBook::default(), None).unwrap();
            let state = Mutex::new((None, 0));
            (books, Node { name: format!("node-{number}"), store: redis.address, state, again: 0.into() })
        })
        .collect();
    let refused = AtomicU64::new(0);
    let spent_units = AtomicU64::new(0);
    let over = AtomicU64::new(0);
    // Calls of each node that hold something.
    let holding: Vec<AtomicU64> = (0..NODES).map(|_| 0.into()).collect();
    thread::scope(|scope| {
        for (at, (books, node)) in nodes.iter().enumerate() {
            for caller in 0..CALLERS {
                let (refused, spent_units, over, holding) = (&refused, &spent_units, &over, &holding[at]);
                let work = move || {
                    for call in 0.. {
                        // From 1 to 20 thousandths of a dollar, and odd units, so that nothing adds up by chance.
                        let random = (at as u64 * 7919 + caller * 104_729 + call * 1_299_709) % 20_000;
                        let worst = Money::from_units(20_000_000_007);
                        let cost = Money::from_units(i128::from(random * 1_000_000 + caller));
                        match ready(books.reserve_shared(
                            &Borrower(books, node),
                            &Caller::default(),
                            &Used::call(worst, 0),
                            NOW,
                        )) {
                            Ok(hold) => {
                                holding.fetch_add(1, SeqCst);
                                thread::sleep(Duration::from_micros(random % 500));
                                hold.settle(&Used::call(cost, 0));
                                spent_units.fetch_add(cost.units() as u64, SeqCst);
                                holding.fetch_sub(1, SeqCst);
                            }
                            Err(exhausted) => {
                                assert_eq!(exhausted.why, Why::Spent, "{exhausted}");
                                refused.fetch_add(1, SeqCst);
                                // What others hold may come back.
                                if holding.load(SeqCst) == 0 {
                                    break;
                                }
                                thread::sleep(Duration::from_millis(5));
                            }
                        }
                    }
                    over.fetch_add(1, SeqCst);
                };
                thread::Builder::new().stack_size(512 << 10).spawn_scoped(scope, work).unwrap();
            }
        }
        for part in [1, 2] {
            // While they are at it: after a fifth and after two fifths of what there is.
            while (spent_units.load(SeqCst) as i128) < limit.units() * part / 5 {
                assert_eq!(over.load(SeqCst), 0, "somebody was refused before the store was killed");
                thread::sleep(Duration::from_millis(1));
            }
            redis.kill();
            let again = || nodes.iter().map(|(_, node)| node.again.load(SeqCst)).sum::<u64>();
            let before = again();
            // Somebody has missed it.
            while again() == before {
                thread::sleep(Duration::from_millis(1));
            }
            redis.again();
        }
    });
    let spent = Money::from_units(spent_units.into_inner().into());
    assert!(spent <= limit, "overspent: {spent}");
    let by_nodes: Vec<_> = nodes.iter().flat_map(|(books, _)| books.accounts(NOW)).map(|it| it.spent).collect();
    assert_eq!(by_nodes.len(), NODES as usize);
    // All that was asked for would have been more, and most of what there is was spent.
    assert!(refused.into_inner() > 0 && spent > Money::dollars(45), "{spent}");
    // What nobody needed goes back, and then the store's books are ours to the unit.
    for (books, node) in &nodes {
        for want in books.give_back(NOW) {
            node.eval(GIVE_BACK, &want.key(), |request| {
                vec![node.name.clone(), request.to_string(), want.wish.to_string()]
            })
            .unwrap();
        }
    }
    assert_eq!(lent(&redis), spent);
    eprintln!("spent {spent} of {limit}");
}

/// What the store has lent of a month's budget `all`.
fn lent(redis: &Redis) -> Money {
    let mut connection = Connection::new(redis.address).unwrap();
    let start = connection.ask(&["HGET", &format!("weir:budget:all:*:{MONTH}"), "lent"]);
    Money::from_units(start.unwrap()[0].into())
}

const NOW: Moment = Moment::from_secs(1_795_521_600);
/// When its month began.
const MONTH: u64 = 1_793_491_200;

#[test]
fn a_store_that_forgot_lends_no_more_in_that_period() {
    let redis = Redis::start();
    let specs: BudgetsSpec =
        serde_json::from_str(r#"{ "all": { "per": "organisation", "amount": "6400 calls", "shared": "s" } }"#).unwrap();
    let books = Books::new(&specs, PriceBook::default(), None).unwrap();
    let node = Node { name: "a".into(), store: redis.address, state: Mutex::new((None, 0)), again: 0.into() };
    let call =
        || ready(books.reserve_shared(&Borrower(&books, &node), &Caller::default(), &Used::call(Money::ZERO, 0), NOW));
    (0..100).for_each(|_| drop(call().map(Hold::release)));
    let holds: Vec<Hold> = (0..100).map(|_| call().unwrap()).collect();
    redis.ask(&["FLUSHALL"]);
    assert_eq!(call().unwrap_err().why, Why::Spent);
    // What it was lent it may still spend.
    holds.into_iter().for_each(Hold::release);
    call().unwrap().release();
}

// === Four gateways ===

const NODES: usize = 4;
const CALLERS: usize = 500;

/// Lent in shares so small that nodes run dry while the store is away.
fn document(web: SocketAddr, provider: &Simulator, store: SocketAddr, dollars: i64, books: &str) -> String {
    format!(
        "
version: 1
node: {{ workers: 2 }}
listeners: {{ web: {{ address: '{web}' }} }}
stores: {{ s: {{ url: 'redis://{store}', timeout: 500ms }} }}
providers: {{ sim: {{ kind: openai-compatible, upstream: '{}/v1', keys: file:key }} }}
models: {{ m: {{ candidates: [{{ model: sim/m, price: {{ input: 1 USD, output: 1000 USD }} }}] }} }}
budgets: {{ all: {{ per: organisation, amount: {dollars} USD, every: month, shared: s }} }}
ledger: {{ data: {books} }}
apis: {{ brain: {{ llm: {{}} }} }}
",
        provider.url(),
    )
}

/// What a call costs by these prices.
fn cost(input: u64, output: u64) -> Money {
    Money::from_units(i128::from(input) * 1_000_000 + i128::from(output) * 1_000_000_000)
}

/// What callers have seen, all together.
#[derive(Default)]
struct Seen {
    spent: Cell<i128>,
    served: Cell<u64>,
    spent_up: Cell<u64>,
    away: Cell<u64>,
    last: Cell<Option<Instant>>,
}

#[test]
fn four_gateways_with_500_callers_never_overspend_while_the_store_is_killed_twice() {
    let dollars = std::env::var("WEIR_BUDGET_DOLLARS").map_or(20, |text| text.parse().unwrap());
    let limit = Money::dollars(dollars);
    let mut redis = Redis::start();
    let provider = Simulator::start(Options { books: 1_000_000, ..Options::provider("models") }).unwrap();
    let folder = Folder::new();
    folder.write("key", "sk-provider");
    let addresses: Vec<SocketAddr> = (0..NODES)
        .map(|_| std::net::TcpListener::bind("127.0.0.1:0").unwrap())
        .collect::<Vec<_>>()
        .iter()
        .map(|listener| listener.local_addr().unwrap())
        .collect();
    let gateways: Vec<Running> = addresses
        .iter()
        .enumerate()
        .map(|(at, web)| {
            let name = format!("weir-{at}.yaml");
            folder.write(&name, document(*web, &provider, redis.address, dollars, &format!("books-{at}")));
            Running::start(folder.base(), &["run", &name])
        })
        .collect();
    for web in &addresses {
        eventually("it listens", || TcpStream::connect(web).is_ok());
    }

    let seen = Rc::new(Seen::default());
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    LocalSet::new().block_on(&runtime, async {
        let callers: Vec<_> = (0..CALLERS)
            .map(|number| tokio::task::spawn_local(spend(addresses[number % NODES], number, seen.clone())))
            .collect();
        for part in [1, 2] {
            while seen.spent.get() < limit.units() * part / 5 {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            redis.kill();
            let before = seen.away.get();
            // Somebody has missed it.
            while seen.away.get() == before {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            redis.again();
        }
        for caller in callers {
            caller.await.unwrap();
        }
    });
    for gateway in &gateways {
        gateway.signal("TERM");
    }
    for gateway in gateways {
        assert_eq!(gateway.end(), Some(0));
    }

    let Seen { spent, served, spent_up, away, .. } = &*seen;
    let billed: Money = provider.books().iter().map(|it| cost(it.usage.input.into(), it.usage.output.into())).sum();
    let entries: Vec<ledger::Entry> = (0..NODES)
        .flat_map(|at| {
            let records = journal::read(&folder.path(&format!("books-{at}")), None).unwrap();
            let entry = |record| if let Record::Entry(entry) = record { Some(entry) } else { None };
            records.filter_map(move |it| entry(it.unwrap().1)).collect::<Vec<_>>()
        })
        .collect();
    let booked: Money = entries.iter().map(|entry| entry.cost).sum();
    eprintln!(
        "{} calls served, {} refused as spent, {} as the store was away; booked {booked}, billed {billed} of {limit}",
        served.get(),
        spent_up.get(),
        away.get(),
    );
    assert_eq!((booked, Money::from_units(spent.get())), (billed, billed));
    assert!(billed <= limit, "overspent: {billed}");
    assert!(
        billed.units() * 10 >= limit.units() * 9,
        "{billed} of {limit} is not enough: callers were refused for less"
    );
    // What was lent and not spent went back when the nodes ended, so the store's books are theirs to the unit.
    let start = format!("weir:budget:all:*:{}", month());
    assert_eq!(Money::from_units(redis.ask(&["HGET", &start, "lent"])[0].into()), booked);
}

/// When this month began.
fn month() -> u64 {
    let now = Moment::from(std::time::SystemTime::now()).secs();
    let day = base::Date::of_seconds(now).day;
    now - now % 86_400 - u64::from(day - 1) * 86_400
}

/// Goes on until nobody at all has been served for a while.
async fn spend(web: SocketAddr, number: usize, seen: Rc<Seen>) {
    let mut sender = None;
    for call in 0.. {
        let tokens = (number * 7 + call * 13) % 20 + 1;
        let body = json!({
            "model": "m", "max_tokens": 20,
            "messages": [{ "role": "user", "content": format!("[sim tokens={tokens} input={}]", number % 10) }]
        });
        let answer = match ask(&mut sender, web, &body).await {
            Ok(answer) => answer,
            Err(error) => panic!("a gateway broke off: {error}"),
        };
        match answer {
            (200, answer) => {
                let usage = |name: &str| answer["usage"][name].as_u64().unwrap();
                let cost = cost(usage("prompt_tokens"), usage("completion_tokens"));
                seen.spent.set(seen.spent.get() + cost.units());
                seen.served.set(seen.served.get() + 1);
                seen.last.set(Some(Instant::now()));
                continue;
            }
            (402, _) => seen.spent_up.set(seen.spent_up.get() + 1),
            (503, _) => {
                seen.away.set(seen.away.get() + 1);
                seen.last.set(Some(Instant::now()));
            }
            other => panic!("{other:?}"),
        }
        // What is reserved may come back, and what other nodes do not need is given back within a few seconds.
        if seen.last.get().is_some_and(|last| last.elapsed() > Duration::from_secs(5)) {
            return;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

async fn ask(
    sender: &mut Option<http1::SendRequest<Full<Bytes>>>,
    web: SocketAddr,
    body: &Value,
) -> Result<(u16, Value), hyper::Error> {
    let mut ready = match sender.take() {
        Some(sender) => sender,
        None => {
            let stream = tokio::net::TcpStream::connect(web).await.unwrap();
            let (sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
            tokio::task::spawn_local(connection);
            sender
        }
    };
    ready.ready().await?;
    let request =
        Request::post("/v1/chat/completions").header("host", "weir").header("content-type", "application/json");
    let answer = ready.send_request(request.body(Full::new(body.to_string().into())).unwrap()).await?;
    let status = answer.status().as_u16();
    let bytes = answer.into_body().collect().await?.to_bytes();
    *sender = Some(ready);
    Ok((status, serde_json::from_slice(&bytes).unwrap_or_default()))
}
