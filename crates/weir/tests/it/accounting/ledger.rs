//! The same calls through an api of models, with failover between providers of four dialects: what the journal says of each
//! is held against the provider's books.

use std::collections::{BTreeMap, HashMap};

use journal::{Journal, Settings};
use ledger::{Class, Money, Outcome, Record};
use simulator::{Ended, Options, Simulator};
use testkit::{Folder, eventually};

use super::{Asked, Seen, WORKERS, What, drive, free, numbers};

const KILLED: &str = "its gateway was killed: booked as reserved";
const PRICE: &str = "price: { input: 3 USD, cached-read: 0.3 USD, output: 15 USD }";

#[test]
fn every_token_and_cent_is_in_the_ledger() {
    let (calls, seed) = numbers();
    let provider = Simulator::start(Options::provider("models")).unwrap();
    let folder = Folder::new();
    folder.write("key", "sk-provider");
    folder.write("aws", "AKID:secret");
    let (address, url) = (free(), provider.url());
    let candidates = ["openai", "anthropic", "gemini", "bedrock"].map(|kind| format!("{{ model: {kind}/m, {PRICE} }}"));
    folder.write(
        "weir.yaml",
        format!(
            "
version: 1
node: {{ workers: 2 }}
listeners: {{ web: {{ address: '{address}' }} }}
providers:
  openai: {{ upstream: '{url}/v1', keys: file:key }}
  anthropic: {{ upstream: '{url}', keys: file:key }}
  gemini: {{ upstream: '{url}/v1beta', keys: file:key }}
  bedrock: {{ upstream: '{url}', keys: file:aws, region: us-east-1 }}
models:
  m: {{ choose: weighted, candidates: [{}] }}
budgets: {{ everybody: {{ per: organisation, amount: 100000 USD }} }}
ledger: {{ data: {} }}
apis: {{ models: {{ llm: {{}} }} }}
",
            candidates.join(", "),
            folder.path("books").display()
        ),
    );
    let (saw, kills) = drive(&folder, address, calls, seed);
    eventually("the provider has closed its books", || {
        let before = provider.books().len();
        std::thread::sleep(std::time::Duration::from_millis(200));
        before > 0 && provider.books().len() == before
    });
    // As the next start would: what the last gateway still had open when it ended, since callers had left, is booked.
    let (journal, _) = Journal::open(&folder.path("books"), Settings::default(), None, |_| {}, |_| {}).unwrap();
    assert!(journal.close());
    let records = journal::read(&folder.path("books"), None).unwrap();
    let entries = records.filter_map(|record| match record.unwrap().1 {
        Record::Entry(entry) => Some(entry),
        Record::Opened(_) => None,
    });
    let report = reconcile(&saw, &provider.books(), entries.collect(), kills);
    eprintln!("seed {seed}, {calls} calls, {kills} kills\n{report}");
}

/// Fails with all calls of which the two books disagree; else says how they agree.
#[track_caller]
fn reconcile(saw: &[(Asked, Seen)], provider: &[simulator::Entry], ledger: Vec<ledger::Entry>, kills: u64) -> String {
    let mut billed: HashMap<u64, Vec<&simulator::Entry>> = HashMap::new();
    for entry in provider {
        billed.entry(entry.tag.as_deref().unwrap().parse().unwrap()).or_default().push(entry);
    }
    let mut booked: HashMap<u64, Vec<ledger::Entry>> = HashMap::new();
    for entry in ledger {
        let task = entry.task.map_or(0, |task| u128::from_be_bytes(task) as u64);
        booked.entry(task.wrapping_sub(1)).or_default().push(entry);
    }
    let (mut unexplained, mut killed) = (Vec::new(), 0);
    let mut classes: BTreeMap<&str, (u64, Money)> = BTreeMap::new();
    for (asked, seen) in saw {
        let billed = billed.remove(&asked.number).unwrap_or_default();
        let booked = booked.remove(&asked.number).unwrap_or_default();
        match explain(seen, &billed, &booked) {
            Ok(class) => {
                // A call whose caller has left is under way until the gateway knows it.
                killed += u64::from(class == KILLED && !matches!(asked.what, What::Left(_)));
                let sum = classes.entry(class).or_default();
                sum.0 += 1;
                sum.1 = sum.1.saturating_add(booked.iter().map(|entry| entry.cost).sum());
            }
            Err(why) => unexplained.push(format!("{why}:\n  {asked:?}\n  {seen:?}\n  {billed:?}\n  {booked:?}")),
        }
    }
    let first = unexplained.iter().take(5).cloned().collect::<Vec<_>>().join("\n");
    assert!(unexplained.is_empty(), "{} of {}:\n{first}", unexplained.len(), saw.len());
    assert!(booked.is_empty(), "calls that nobody made: {booked:?}");
    assert!(killed <= kills * WORKERS, "{killed} broke off in {kills} kills of {WORKERS} callers");
    let mut report = String::from("| calls | how the books agree | booked, USD |\n|--:|---|--:|\n");
    for (class, (calls, cost)) in classes {
        report.push_str(&format!("| {calls} | {class} | {} |\n", cost.plain()));
    }
    report
}

/// How the ledger comes to what the provider bills, or what is wrong with it.
fn explain(seen: &Seen, billed: &[&simulator::Entry], booked: &[ledger::Entry]) -> Result<&'static str, String> {
    for entry in booked {
        let charged = !entry.usage.is_zero();
        match entry.class {
            Class::Failed if charged || entry.cost != Money::ZERO => return Err("charged, and booked as if not".into()),
            Class::FailedBilled if !charged => return Err("booked as charged, and nothing was".into()),
            _ => {}
        }
    }
    if booked.iter().any(|entry| entry.outcome == Outcome::Crashed) {
        let cost: Money = booked.iter().map(|entry| entry.cost).sum();
        let owed = billed.iter().map(|entry| price(&entry.usage)).sum();
        return match booked.len() {
            _ if seen.whole => Err("answered, and booked as broken off".into()),
            1 if cost >= owed => Ok(KILLED),
            1 => Err(format!("{cost} booked, and {owed} billed")),
            _ => Err("booked twice".into()),
        };
    }
    for entry in booked.iter().filter(|entry| !entry.estimated) {
        let usage = &entry.usage;
        let cost = cost(usage.prompt(), usage.cached_read, usage.completion());
        if entry.cost != cost {
            return Err(format!("{} booked, {cost} expected", entry.cost));
        }
    }
    let mut exact: Vec<_> = booked.iter().filter(|entry| !entry.estimated && !entry.usage.is_zero()).collect();
    let guessed: Vec<_> = booked.iter().filter(|entry| entry.estimated).collect();
    // An answer that breaks off or cannot be understood is given up, whatever the provider says after that.
    let given_up = guessed.iter().any(|entry| entry.outcome != Outcome::Answered);
    let mut guessed = guessed.len();
    let mut untold = 0;
    for entry in billed.iter().filter(|entry| entry.ended != Ended::Refused) {
        let told = (u64::from(entry.usage.input), u64::from(entry.usage.cached), u64::from(entry.usage.output));
        let same = exact
            .iter()
            .position(|booked| (booked.usage.prompt(), booked.usage.cached_read, booked.usage.completion()) == told);
        match same {
            Some(at) => {
                exact.remove(at);
            }
            // What was not told is booked all the same.
            None if guessed > 0 && (given_up || !(entry.told && seen.whole)) => {
                guessed -= 1;
                untold += 1;
            }
            None => return Err(format!("{told:?} are billed and not booked")),
        }
    }
    match (exact.is_empty(), untold) {
        (false, _) => Err("booked, and not billed".into()),
        (true, 0) if billed.iter().all(|entry| entry.ended == Ended::Refused) => {
            match booked.iter().all(|entry| entry.cost == Money::ZERO) {
                true => Ok("nothing was billed"),
                // A page where an answer should be does not tell whether the model was asked.
                false if given_up => Ok("nothing was billed; the prompt is booked, since what came does not say so"),
                false => Err("answered, booked, and not billed".into()),
            }
        }
        (true, 0) => Ok("to the token"),
        (true, _) => Ok("estimated, since the provider did not tell"),
    }
}

fn price(usage: &simulator::Usage) -> Money {
    cost(usage.input.into(), usage.cached.into(), usage.output.into())
}

/// As the document prices it.
fn cost(input: u64, cached: u64, output: u64) -> Money {
    let [input, cached, output] = [input, cached, output].map(i128::from);
    Money::from_units((input - cached) * 3_000_000 + cached * 300_000 + output * 15_000_000)
}
