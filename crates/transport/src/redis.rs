//! Redis and Valkey, as far as Weir asks them: scripts, each of which runs whole.
//!
//! One connection for each core and store, on which questions follow each other without waiting. A question has a bound
//! of time; one that is not answered in it condemns the connection, and until there is another one that answers, all
//! are told at once that the store is away. Nobody else waits for that: a task of its own tries again and again.

mod resp;

use std::cell::Cell;
use std::collections::VecDeque;
use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use base::Secret;
use bytes::BytesMut;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::{Notify, mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};

pub use resp::Value;

use crate::message::Io;
use crate::pool::{Pool, Target};

/// How a store is reached.
#[derive(Clone)]
pub struct Settings {
    /// What people call it.
    pub name: Arc<str>,
    pub target: Target,
    pub user: Option<String>,
    pub password: Option<Secret>,
    pub database: u32,
    /// For each question.
    pub timeout: Duration,
}

/// A script, and by what the store knows it.
pub struct Script {
    pub text: &'static str,
    hash: String,
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    /// There is no connection, or it broke, or the answer did not come in time.
    #[error("the store is away")]
    Away,
    #[error("the store says: {0}")]
    Refused(String),
    #[error("the store's answer cannot be understood")]
    Malformed,
}

/// A store as one core sees it. Its connection ends with it.
pub struct Store {
    shared: Rc<Shared>,
    questions: mpsc::UnboundedSender<Question>,
    driver: JoinHandle<()>,
}

struct Shared {
    settings: Settings,
    away: Cell<bool>,
    /// The connection is to be given up.
    condemned: Notify,
    /// That something is wrong.
    told: Cell<bool>,
}

struct Question {
    bytes: Vec<u8>,
    answer: oneshot::Sender<Value>,
}

/// Between one try to connect and the next.
const PAUSE: Duration = Duration::from_millis(50);

// === impl Script ===

impl Script {
    pub fn new(text: &'static str) -> Script {
        let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA1_FOR_LEGACY_USE_ONLY, text.as_bytes());
        let hash = digest.as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
        Script { text, hash }
    }
}

// === impl Store ===

impl Store {
    /// Inside a local runtime.
    pub fn new(settings: Settings) -> Store {
        let (questions, asked) = mpsc::unbounded_channel();
        let shared =
            Rc::new(Shared { settings, away: Cell::new(false), condemned: Notify::new(), told: Cell::new(false) });
        let driver = tokio::task::spawn_local(drive(shared.clone(), asked));
        Store { shared, questions, driver }
    }

    pub async fn eval(&self, script: &Script, keys: &[Vec<u8>], args: &[Vec<u8>]) -> Result<Value, StoreError> {
        let count = keys.len().to_string();
        let ask = |verb: &str, script: &str| {
            let head = [verb.as_bytes(), script.as_bytes(), count.as_bytes()];
            let rest = keys.iter().chain(args).map(Vec::as_slice);
            resp::command(head.into_iter().chain(rest))
        };
        let answer = match self.ask(ask("EVALSHA", &script.hash)).await? {
            Value::Error(error) if error.starts_with("NOSCRIPT") => self.ask(ask("EVAL", script.text)).await?,
            value => value,
        };
        match answer {
            Value::Error(error) => {
                self.shared.tell(&format!("the store does not do what it is asked for: {error}"));
                Err(StoreError::Refused(error))
            }
            value => {
                self.shared.is_back();
                Ok(value)
            }
        }
    }

    async fn ask(&self, bytes: Vec<u8>) -> Result<Value, StoreError> {
        if self.shared.away.get() {
            return Err(StoreError::Away);
        }
        let (answer, answered) = oneshot::channel();
        self.questions.send(Question { bytes, answer }).map_err(|_| StoreError::Away)?;
        match timeout(self.shared.settings.timeout, answered).await {
            Ok(answer) => answer.map_err(|_| StoreError::Away),
            Err(_) => {
                self.shared.is_away("does not answer in time");
                self.shared.condemned.notify_one();
                Err(StoreError::Away)
            }
        }
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

impl Shared {
    fn is_away(&self, why: &str) {
        self.away.set(true);
        self.tell(&format!("the store is away: {why}"));
    }

    /// Once, until all is well again.
    fn tell(&self, what: &str) {
        if !self.told.replace(true) {
            tracing::warn!(store = %self.settings.name, "{what}");
        }
    }

    fn is_back(&self) {
        if self.told.replace(false) {
            tracing::info!(store = %self.settings.name, "the store is back");
        }
    }
}

/// Connects, and connects again, for as long as there is somebody to ask.
async fn drive(shared: Rc<Shared>, mut asked: mpsc::UnboundedReceiver<Question>) {
    loop {
        match timeout(shared.settings.timeout.max(Duration::from_millis(200)), connect(&shared.settings)).await {
            Ok(Ok(connection)) => {
                shared.away.set(false);
                tokio::select! {
                    () = shared.condemned.notified() => {}
                    ended = talk(connection, &mut asked) => match ended {
                        Ok(()) => return,
                        Err(error) => shared.is_away(&whole(&error)),
                    },
                }
            }
            Ok(Err(error)) => shared.is_away(&whole(&error)),
            Err(_) => shared.is_away("does not answer in time"),
        }
        // Who asked meanwhile hears that it is away.
        while asked.try_recv().is_ok() {}
        if asked.is_closed() {
            return;
        }
        sleep(PAUSE).await;
    }
}

/// With what is behind it: of TLS the reason.
fn whole(error: &io::Error) -> String {
    let causes = std::iter::successors(std::error::Error::source(error), |error| error.source());
    causes.fold(error.to_string(), |text, cause| format!("{text}: {cause}"))
}

async fn connect(settings: &Settings) -> io::Result<Box<dyn Io>> {
    let mut connection = Pool::new(settings.target.clone()).apart().await.map_err(io::Error::other)?;
    let mut greeting = Vec::new();
    let mut answers = 1;
    if let Some(password) = &settings.password {
        let user = settings.user.as_ref().map(String::as_bytes);
        let words = [Some(&b"AUTH"[..]), user, Some(password.expose())];
        greeting.extend(resp::command(words.into_iter().flatten()));
        answers += 1;
    }
    if settings.database != 0 {
        greeting.extend(resp::command([&b"SELECT"[..], settings.database.to_string().as_bytes()].into_iter()));
        answers += 1;
    }
    greeting.extend(resp::command([&b"PING"[..]].into_iter()));
    connection.write_all(&greeting).await?;
    let mut read = BytesMut::new();
    while answers > 0 {
        match resp::parse(&mut read) {
            Ok(Some(Value::Error(error))) => return Err(io::Error::other(error)),
            Ok(Some(_)) => answers -= 1,
            Ok(None) => {
                if connection.read_buf(&mut read).await? == 0 {
                    return Err(io::ErrorKind::UnexpectedEof.into());
                }
            }
            Err(error) => return Err(error),
        }
    }
    Ok(connection)
}

/// Until nobody can ask any more, or the connection breaks.
async fn talk(connection: Box<dyn Io>, asked: &mut mpsc::UnboundedReceiver<Question>) -> io::Result<()> {
    let (mut from, mut to) = tokio::io::split(connection);
    let (mut read, mut written) = (BytesMut::new(), Vec::new());
    let mut waiting: VecDeque<oneshot::Sender<Value>> = VecDeque::new();
    loop {
        tokio::select! {
            question = asked.recv() => {
                let Some(question) = question else { return Ok(()) };
                let mut next = Some(question);
                while let Some(Question { bytes, answer }) = next {
                    written.extend(bytes);
                    waiting.push_back(answer);
                    next = asked.try_recv().ok();
                }
                to.write_all(&written).await?;
                to.flush().await?;
                written.clear();
            }
            bytes = from.read_buf(&mut read) => {
                if bytes? == 0 {
                    return Err(io::ErrorKind::UnexpectedEof.into());
                }
                while let Some(value) = resp::parse(&mut read)? {
                    let Some(answer) = waiting.pop_front() else {
                        return Err(io::Error::other("an answer to no question"));
                    };
                    // Who gave up does not want it any more.
                    let _ = answer.send(value);
                }
            }
        }
    }
}
