use std::collections::BTreeMap;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering::SeqCst;
use std::thread;

use proptest::prelude::*;

use super::*;
use crate::Money;
use crate::budget::view::{Holder, View};

const NOON: Moment = Moment::from_secs(1_795_521_600);

fn books(specs: &str) -> Books {
    renewed(specs, None)
}

fn renewed(specs: &str, previous: Option<&Books>) -> Books {
    let specs: BTreeMap<String, BudgetSpec> = serde_json::from_str(specs).unwrap();
    Books::new(&BudgetsSpec(specs), PriceBook::default(), previous).unwrap()
}

fn caller(name: &str) -> Caller<'_> {
    Caller { consumer: Some(name), team: Some("blue"), api: Some("chat"), key: None, task: None }
}

fn usd(text: &str) -> Used {
    Used::call(text.parse().unwrap(), 0)
}

fn tokens(tokens: u64) -> Used {
    Used::call(Money::ZERO, tokens)
}

fn spent(books: &Books, now: Moment) -> String {
    let accounts = books.accounts(now);
    let mut all: Vec<String> =
        accounts.iter().map(|it| format!("{} {} {} left {}", it.budget, it.whose, it.spent, it.left)).collect();
    all.sort();
    all.join(", ")
}

#[test]
fn a_call_is_held_on_all_budgets_or_on_none() {
    let books = books(
        r#"{ "a": { "per": "consumer", "amount": "1 USD" }, "b": { "per": "team", "amount": "1.5 USD" },
             "c": { "per": "api", "amount": "2 calls" } }"#,
    );
    let first = books.reserve(&caller("x"), &usd("0.75 USD"), NOON).unwrap();
    let refused = books.reserve(&caller("y"), &usd("0.8 USD"), NOON).unwrap_err();
    assert_eq!((&*refused.budget, &*refused.whose, refused.why, refused.renews), ("b", "blue", Why::Spent, None));
    assert_eq!((refused.left.to_string(), refused.asked.to_string()), ("0.75 USD".into(), "0.8 USD".into()));
    // What it held of its own budget is free again.
    assert!(spent(&books, NOON).contains("a y 0 USD left 1 USD"), "{}", spent(&books, NOON));
    let second = books.reserve(&caller("y"), &usd("0.7 USD"), NOON).unwrap();
    first.settle(&usd("0.5 USD"));
    second.release();
    assert_eq!(
        spent(&books, NOON),
        "a x 0.5 USD left 0.5 USD, a y 0 USD left 1 USD, b blue 0.5 USD left 1 USD, c chat 1 calls left 1 calls"
    );
    assert_eq!(books.lost(), 0);
}

#[test]
fn what_is_above_a_call_depends_on_what_is_known_of_the_caller() {
    let books = books(
        r#"{ "o": { "per": "organisation", "amount": "10 calls" }, "t": { "per": "task", "amount": "1 calls" },
             "k": { "per": "key", "only": ["k1"], "amount": "1 calls" } }"#,
    );
    let nobody = Caller::default();
    books.reserve(&nobody, &tokens(0), NOON).unwrap().settle(&tokens(0));
    books.reserve(&nobody, &tokens(0), NOON).unwrap().settle(&tokens(0));
    let task = Caller { task: Some([0xab; 16]), ..nobody };
    books.reserve(&task, &tokens(0), NOON).unwrap().settle(&tokens(0));
    let refused = books.reserve(&task, &tokens(0), NOON).unwrap_err();
    assert_eq!((refused.scope, &*refused.whose), (Scope::Task, &*"ab".repeat(16)));
    for (key, passes) in [("k1", true), ("k1", false), ("k2", true), ("k2", true)] {
        let key = Caller { key: Some(key), ..nobody };
        assert_eq!(books.reserve(&key, &tokens(0), NOON).map(Hold::release_after_use).is_ok(), passes, "{key:?}");
    }
}

impl Hold {
    fn release_after_use(self) {
        self.settle(&tokens(0));
    }
}

#[test]
fn a_hold_settles_against_the_period_it_was_reserved_in() {
    let books = books(r#"{ "m": { "per": "consumer", "amount": "1 USD", "every": "minute" } }"#);
    let later = Moment::from_secs(NOON.secs() + 60);
    let hold = books.reserve(&caller("x"), &usd("0.9 USD"), NOON).unwrap();
    let refused = books.reserve(&caller("x"), &usd("0.9 USD"), NOON).unwrap_err();
    assert_eq!(refused.renews, Some(later));
    // The next minute is whole, whatever is still open of the one before.
    let next = books.reserve(&caller("x"), &usd("1 USD"), later).unwrap();
    hold.settle(&usd("0.9 USD"));
    assert_eq!(spent(&books, later), "m x 0 USD left 0 USD");
    next.settle(&usd("0.25 USD"));
    assert_eq!(spent(&books, later), "m x 0.25 USD left 0.75 USD");
    // One that began before, and comes late, is counted now rather than not at all.
    books.reserve(&caller("x"), &usd("0.5 USD"), NOON).unwrap().settle(&usd("0.5 USD"));
    assert_eq!(spent(&books, later), "m x 0.75 USD left 0.25 USD");
}

#[test]
fn a_budget_renews_with_its_period_in_each_unit() {
    let check = |every: &str, renews: Option<u64>| {
        for (amount, call) in [("1 USD", usd("1 USD")), ("1000 tokens", tokens(1000)), ("1 calls", tokens(0))] {
            let books = books(&format!(r#"{{ "it": {{ "per": "consumer", "amount": "{amount}", {every} }} }}"#));
            let reserve = |at: Moment| books.reserve(&caller("x"), &call, at).map(|hold| drop(hold.settle(&call)));
            reserve(NOON).unwrap();
            let refused = reserve(NOON).unwrap_err();
            assert_eq!((refused.why, refused.renews), (Why::Spent, renews.map(Moment::from_secs)), "{every}");
            let Some(renews) = renews else {
                assert!(reserve(Moment::from_secs(NOON.secs() * 2)).is_err(), "{every}");
                continue;
            };
            let last = Moment(Moment::from_secs(renews).0 - 1);
            assert_eq!(reserve(last).unwrap_err().left.to_string(), refused.left.to_string(), "{every}");
            reserve(Moment::from_secs(renews)).unwrap();
            // What comes late is counted in the period that is.
            assert!(reserve(last).is_err(), "{every}");
        }
    };
    let noon = NOON.secs();
    check(r#""every": "minute""#, Some(noon + 60));
    check(r#""every": "hour""#, Some(noon + 3600));
    check(r#""every": "day""#, Some(noon + 12 * 3600));
    check(r#""every": "day", "offset": "+02:00""#, Some(noon + 10 * 3600));
    check(r#""every": "total""#, None);
    // Noon is on the 24th of a month of 30 days.
    check(r#""every": "month""#, Some(noon + 12 * 3600 + 6 * 86_400));
}

#[test]
fn a_hold_that_is_lost_counts_as_spent() {
    let books = books(r#"{ "a": { "per": "organisation", "amount": "1 USD" } }"#);
    drop(books.reserve(&caller("x"), &usd("0.6 USD"), NOON).unwrap());
    assert_eq!((spent(&books, NOON).as_str(), books.lost()), ("a * 0.6 USD left 0.4 USD", 1));
}

#[test]
fn what_is_spent_is_spent_even_if_it_is_more_than_was_held() {
    let books = books(r#"{ "a": { "per": "organisation", "amount": "1 USD" } }"#);
    books.reserve(&caller("x"), &usd("0.1 USD"), NOON).unwrap().settle(&usd("1.5 USD"));
    assert_eq!(spent(&books, NOON), "a * 1.5 USD left 0 USD");
    assert!(books.reserve(&caller("x"), &usd("0.1 USD"), NOON).is_err());
    let too_large = books.reserve(&caller("x"), &usd("2 USD"), NOON).unwrap_err();
    assert_eq!(too_large.why, Why::TooLarge);
}

#[test]
fn each_share_is_told_to_one_call() {
    let books = books(
        r#"{ "a": { "per": "organisation", "amount": "100 calls", "enforce": "soft", "warn": ["50%", "80%", "100%"] } }"#,
    );
    let mut told = Vec::new();
    for _ in 0..150 {
        let hold = books.reserve(&caller("x"), &tokens(0), NOON).unwrap();
        told.extend(
            hold.settle(&tokens(0)).into_iter().map(|it| (it.share.to_string(), it.standing.spent.to_string())),
        );
    }
    let expected = [("50%", "50 calls"), ("80%", "80 calls"), ("100%", "100 calls")];
    assert_eq!(told, expected.map(|(share, spent)| (share.to_owned(), spent.to_owned())));
    let hold = books.reserve(&caller("x"), &tokens(0), NOON).unwrap();
    assert_eq!(hold.standings().next().unwrap().warns.unwrap().to_string(), "100%");
    hold.release();
}

#[test]
fn a_reload_keeps_what_is_counted_and_changes_what_is_allowed() {
    let old =
        books(r#"{ "a": { "per": "organisation", "amount": "1 USD" }, "b": { "per": "team", "amount": "1 USD" } }"#);
    let open = old.reserve(&caller("x"), &usd("0.5 USD"), NOON).unwrap();
    let new = renewed(
        r#"{ "a": { "per": "organisation", "amount": "2 USD" }, "b": { "per": "team", "amount": "1 USD", "every": "day" } }"#,
        Some(&old),
    );
    assert_eq!(spent(&new, NOON), "a * 0 USD left 1.5 USD");
    open.settle(&usd("0.4 USD"));
    assert_eq!(spent(&new, NOON), "a * 0.4 USD left 1.6 USD");
}

#[test]
fn what_cannot_be_booked_is_not_spent() {
    let books = books(
        r#"{ "a": { "per": "organisation", "amount": "1 USD" },
             "b": { "per": "team", "only": ["green"], "amount": "1 USD", "fail": "open" } }"#,
    );
    let green = Caller { team: Some("green"), ..Caller::default() };
    books.health().set_unbooked(true);
    assert_eq!(books.reserve(&green, &usd("0.1 USD"), NOON).unwrap_err().why, Why::Unbooked);
    books.health().set_unbooked(false);
    books.reserve(&green, &usd("0.1 USD"), NOON).unwrap().release();
}

#[test]
fn a_node_spends_what_it_was_lent_and_gives_back_the_rest() {
    let specs = r#"{ "a": { "per": "team", "amount": "6400 tokens", "every": "hour", "shared": "s" },
                     "s": { "per": "team", "amount": "5 tokens", "enforce": "soft" } }"#;
    let node = books(specs);
    let refused = node.reserve(&caller("x"), &tokens(30), NOON).unwrap_err();
    let want = refused.want.unwrap();
    assert_eq!((refused.why, want.limit, want.held, want.least, want.wish), (Why::Unlent, 6400, 0, 30, 100));
    assert_eq!(want.key(), format!("weir:budget:a:blue:{}", NOON.secs()));
    node.lend(&want, 100);
    let hold = node.reserve(&caller("x"), &tokens(80), NOON).unwrap();
    let more = node.reserve(&caller("x"), &tokens(50), NOON).unwrap_err().want.unwrap();
    assert_eq!((more.held, more.least), (100, 30));
    hold.settle(&tokens(10));
    assert_eq!(spent(&node, NOON), "a blue 10 tokens left 90 tokens, s blue 10 tokens left 0 tokens");
    // A reload keeps what is lent, unless the budget allows something else now.
    let same = renewed(specs, Some(&node));
    assert!(spent(&same, NOON).contains("left 90 tokens"));
    let other = renewed(&specs.replace("6400", "7000"), Some(&node));
    assert!(!spent(&other, NOON).contains("a blue"));
    let back = node.give_back(NOON);
    assert_eq!((back.len(), back[0].wish, back[0].held), (1, 90, 10));
    assert_eq!(node.give_back(NOON).len(), 0);
    assert_eq!(node.reserve(&caller("x"), &tokens(1), NOON).unwrap_err().why, Why::Unlent);
    // What comes too late is for a period that is over.
    let next = Moment::from_secs(NOON.secs() + 3600);
    assert_eq!(node.reserve(&caller("x"), &tokens(1), next).unwrap_err().why, Why::Unlent);
    node.lend(&want, 100);
    assert_eq!(node.reserve(&caller("x"), &tokens(1), next).unwrap_err().why, Why::Unlent);
}

#[test]
fn it_asks_for_more_before_it_is_needed_and_gives_back_what_nobody_uses() {
    let node = books(r#"{ "a": { "per": "organisation", "amount": "6400 tokens", "shared": "s" } }"#);
    let want = node.reserve(&caller("x"), &tokens(60), NOON).unwrap_err().want.unwrap();
    node.lend(&want, 100);
    let hold = node.reserve(&caller("x"), &tokens(60), NOON).unwrap();
    let wants: Vec<Want> = hold.wants().collect();
    assert_eq!((wants.len(), wants[0].held, wants[0].wish), (1, 100, 100));
    assert_eq!(hold.wants().count(), 0, "one asks");
    node.lent_nothing(&wants[0]);
    assert_eq!(hold.wants().count(), 1);
    node.lend(&want, 300);
    assert_eq!(hold.wants().count(), 0, "there is enough");
    // Somebody works here: two shares may lie about.
    let back = |node: &Books| node.idle(NOON).iter().map(|it| it.wish).sum::<u64>();
    assert_eq!([back(&node), back(&node)], [240, 0]);
    hold.settle(&tokens(10));
    assert_eq!([back(&node), back(&node), back(&node)], [0, 150, 0]);
    assert_eq!(spent(&node, NOON), "a * 10 tokens left 0 tokens");
    // Without a store it fails as it is told to.
    let away = |fail: &str| {
        let spec = format!(r#"{{ "a": {{ "per": "organisation", "amount": "64 calls", "shared": "s", {fail} }} }}"#);
        books(&spec).reserve_while(&caller("x"), &tokens(1), NOON, Some(Away)).map(Hold::release_after_use)
    };
    assert_eq!(away(r#""fail": "closed""#).unwrap_err().why, Why::Unlent);
    assert!(away(r#""fail": "open""#).is_ok());
}

#[test]
fn what_a_shared_budget_spent_before_a_crash_is_not_free_again() {
    let node = books(r#"{ "a": { "per": "api", "amount": "6400 tokens", "shared": "s" } }"#);
    let usage = base::TokenUsage { input: 300, ..base::TokenUsage::default() };
    node.restore(&Entry { api: "chat".into(), usage, time: NOON, ..Entry::default() });
    let want = node.reserve(&caller("x"), &tokens(1), NOON).unwrap_err().want.unwrap();
    // The store is told of it: it had been lent to the process that spent it.
    assert_eq!((want.held, want.before), (0, 300));
    node.lend(&want, 100);
    assert_eq!(spent(&node, NOON), "a chat 300 tokens left 100 tokens");
}

/// `BUDGET WHOSE spent+reserved of ALLOWANCE` for each account, then what the others have, and what was refused.
fn seen(books: &Books, most: usize, whose: Option<&str>) -> Vec<String> {
    let mut all = Vec::new();
    for view in books.view(NOON, |_| most, whose) {
        let View { budget, allowance, accounts, holders, others, refused, warned, .. } = view;
        for Holder { whose, spent, reserved, left, lent, .. } in holders {
            let lent = lent.map(|lent| format!(" lent {lent}")).unwrap_or_default();
            all.push(format!("{budget} {whose}: {spent}+{reserved} of {allowance}, {left} left{lent}"));
        }
        all.push(format!("{budget} {accounts}: others {}+{}", others.spent, others.reserved));
        let refused = refused.iter().filter(|(_, count)| *count > 0);
        all.extend(refused.map(|(why, count)| format!("{budget} {}: {count}", why.as_str())));
        if warned > 0 {
            all.push(format!("{budget} warned: {warned}"));
        }
    }
    all
}

#[test]
fn who_asks_sees_what_is_spent_and_reserved_and_refused() {
    let specs = r#"{ "all": { "per": "organisation", "amount": "10 USD", "every": "day" },
                     "each": { "per": "consumer", "amount": "1 USD" },
                     "vip": { "per": "consumer", "only": ["x", "v"], "amount": "100 calls", "enforce": "soft", "warn": ["1%", "2%"] } }"#;
    let books = books(specs);
    // Those that are named in the document are there before anybody calls.
    let begin = [
        "each 0: others 0 USD+0 USD",
        "vip v: 0 calls+0 calls of 100 calls, 100 calls left",
        "vip x: 0 calls+0 calls of 100 calls, 100 calls left",
        "vip 2: others 0 calls+0 calls",
        "all *: 0 USD+0 USD of 10 USD, 10 USD left",
        "all 1: others 0 USD+0 USD",
    ];
    assert_eq!(seen(&books, 9, None), begin);
    books.reserve(&caller("x"), &usd("0.5 USD"), NOON).unwrap().settle(&usd("0.25 USD"));
    let under_way = books.reserve(&caller("x"), &usd("0.5 USD"), NOON).unwrap();
    books.reserve(&caller("y"), &usd("0.125 USD"), NOON).unwrap().settle(&usd("0.125 USD"));
    for amount in ["0.5 USD", "0.3 USD", "2 USD"] {
        books.reserve(&caller("x"), &usd(amount), NOON).unwrap_err();
    }
    let then = [
        "each x: 0.25 USD+0.5 USD of 1 USD, 0.25 USD left",
        "each 2: others 0.125 USD+0 USD",
        "each spent: 2",
        "each too-large: 1",
        "vip x: 1 calls+1 calls of 100 calls, 98 calls left",
        "vip 2: others 0 calls+0 calls",
        "vip warned: 1",
        "all *: 0.375 USD+0.5 USD of 10 USD, 9.125 USD left",
        "all 1: others 0 USD+0 USD",
    ];
    assert_eq!(seen(&books, 1, None), then);
    // Two budgets that are of a consumer know that name, and the third does not.
    let of_y = seen(&books, 1, Some("y"));
    assert_eq!(of_y[0], "each y: 0.125 USD+0 USD of 1 USD, 0.875 USD left");
    assert_eq!(of_y.iter().filter(|line| line.contains(" 0: others ")).count(), 2, "{of_y:?}");
    // What was refused is not forgotten because the budget is another one now; what it counted is.
    let next = renewed(&specs.replace("\"1 USD\"", "\"1M tokens\""), Some(&books));
    under_way.settle(&usd("0.5 USD"));
    assert_eq!(
        seen(&next, 1, Some("x"))[..3],
        ["each 0: others 0 tokens+0 tokens", "each spent: 2", "each too-large: 1"]
    );
    let view = &next.view(NOON, |_| 1, None)[2];
    assert_eq!(view.holders[0].renews.unwrap().to_string(), "2026-11-25T00:00:00Z");
}

#[test]
fn of_a_shared_budget_is_seen_what_a_node_was_lent() {
    let books = books(r#"{ "o": { "per": "organisation", "amount": "640 calls", "shared": "main" } }"#);
    assert_eq!(seen(&books, 1, None)[0], "o *: 0 calls+0 calls of 640 calls, 0 calls left lent 0 calls");
    let want = books.reserve(&caller("x"), &tokens(0), NOON).unwrap_err().want.unwrap();
    books.lend(&want, 10);
    let _ = books.reserve(&caller("x"), &tokens(0), NOON).unwrap().settle(&tokens(0));
    let under_way = books.reserve(&caller("x"), &tokens(0), NOON).unwrap();
    // Who may borrow was not refused.
    let now = ["o *: 1 calls+1 calls of 640 calls, 8 calls left lent 10 calls", "o 1: others 0 calls+0 calls"];
    assert_eq!(seen(&books, 1, None), now);
    under_way.release();
}

#[test]
fn a_million_tasks_need_no_more_memory_than_is_allowed() {
    let closed = books(r#"{ "t": { "per": "task", "amount": "2 calls", "keys": 1000 } }"#);
    let open = books(r#"{ "t": { "per": "task", "amount": "2 calls", "keys": 1000, "fail": "open" } }"#);
    let task = |number: u64| {
        let mut id = [1; 16];
        id[..8].copy_from_slice(&number.to_be_bytes());
        Caller { task: Some(id), ..Caller::default() }
    };
    // 900 new tasks an hour: those of the hour before have been idle long enough.
    for number in 0..1_000_000u64 {
        let now = Moment::from_secs(NOON.secs() + number / 900 * 3600);
        closed.reserve(&task(number), &tokens(0), now).unwrap().settle(&tokens(0));
    }
    assert!(closed.rules.rules[0].accounts.count() <= 1000);
    // All at once is another matter: nobody is idle.
    let now = Moment::from_secs(NOON.secs() * 2);
    let crowd = (0..3000u64).map(|number| closed.reserve(&task(number), &tokens(0), now));
    let (taken, refused): (Vec<_>, Vec<_>) = crowd.partition(Result::is_ok);
    assert!(taken.len() <= 1000 && refused.iter().all(|it| it.as_ref().is_err_and(|it| it.why == Why::Crowded)));
    assert!(
        (0..3000u64).all(|number| open.reserve(&task(number), &tokens(0), now).map(Hold::release_after_use).is_ok())
    );
    taken.into_iter().flatten().for_each(Hold::release);
}

/// A small random walk that is the same every time.
struct Walk(u64);

impl Walk {
    fn next(&mut self, below: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % below
    }
}

#[test]
fn no_interleaving_overspends_and_nothing_is_lost() {
    const LIMIT: u64 = 100_000;
    let books = books(
        r#"{ "a": { "per": "consumer", "amount": "30000 tokens", "every": "hour" },
             "b": { "per": "team", "amount": "100000 tokens", "every": "hour" },
             "t": { "per": "task", "amount": "500 tokens", "every": "minute", "keys": 64, "fail": "open" } }"#,
    );
    let passed = AtomicUsize::new(0);
    // What each thread spent, by the budget and the hour it was counted in.
    let totals: Vec<BTreeMap<(&str, u64), u64>> = thread::scope(|scope| {
        let work = |seed: u64| {
            let (books, passed) = (&books, &passed);
            move || {
                let mut walk = Walk(seed);
                let mut open: Vec<([u64; 2], u64, Hold)> = Vec::new();
                let mut spent: BTreeMap<(&str, u64), u64> = BTreeMap::new();
                let mut count = |[own, team]: [u64; 2], used: u64| {
                    *spent.entry(("a", own)).or_default() += used;
                    *spent.entry(("b", team)).or_default() += used;
                };
                for step in 0..8_000u64 {
                    let now = Moment::from_secs(NOON.secs() + step / 2000 * 3600 + step % 2000 / 50);
                    let name = format!("c{}", walk.next(5));
                    let task = Some([walk.next(200) as u8; 16]);
                    let caller = Caller { task, ..caller(&name) };
                    let worst = walk.next(40);
                    if let Ok(hold) = books.reserve(&caller, &tokens(worst), now) {
                        passed.fetch_add(1, SeqCst);
                        // Threads are not in step: a slow one's hold may have been counted in the next hour, and that of
                        // a moment ago in the next hour by one budget and in this hour by the other.
                        let counted = [Scope::Consumer, Scope::Team].map(|scope| {
                            let renews = hold.standings().find(|it| it.scope == scope).and_then(|it| it.renews);
                            (renews.unwrap().secs() - NOON.secs()) / 3600 - 1
                        });
                        open.push((counted, worst, hold));
                    }
                    let team = books.accounts_of("b", now);
                    assert!(team.iter().all(|window| window.spent() <= window.used() && window.used() <= LIMIT));
                    while open.len() > walk.next(8) as usize {
                        let at = walk.next(open.len() as u64) as usize;
                        let (counted, worst, hold) = open.swap_remove(at);
                        match walk.next(10) {
                            0 => hold.release(),
                            1 => {
                                drop(hold);
                                count(counted, worst);
                            }
                            _ => {
                                let used = walk.next(worst + 1);
                                hold.settle(&tokens(used));
                                count(counted, used);
                            }
                        }
                    }
                }
                for (counted, worst, hold) in open {
                    hold.settle(&tokens(worst));
                    count(counted, worst);
                }
                spent
            }
        };
        let threads: Vec<_> = (1..=8).map(|seed| scope.spawn(work(seed))).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    let sum = |budget: &str, hour: u64| -> u64 { totals.iter().filter_map(|it| it.get(&(budget, hour))).sum() };
    assert!((0..4).all(|hour| sum("b", hour) <= LIMIT), "overspent");
    assert!((0..4).any(|hour| sum("b", hour) > LIMIT / 2), "too little was spent to prove anything");
    let now = Moment::from_secs(NOON.secs() + 3 * 3600);
    for budget in ["a", "b"] {
        let windows = books.accounts_of(budget, now);
        let [spent, used] = [Window::spent, Window::used].map(|of| windows.iter().map(|it| of(it)).sum::<u64>());
        assert_eq!((spent, used), (sum(budget, 3), sum(budget, 3)), "lost or doubled: {budget}");
    }
    assert!(passed.into_inner() > 1000, "too few calls passed to prove anything");
}

impl Books {
    fn accounts_of(&self, budget: &str, now: Moment) -> Vec<Arc<Window>> {
        self.rules.rules.iter().find(|rule| &*rule.name == budget).unwrap().accounts.windows(now)
    }
}

proptest! {
    /// Whatever is done in whatever order: a plain count of the same agrees.
    #[test]
    fn books_agree_with_a_plain_count(steps in proptest::collection::vec((0u8..4, 0u64..120, 0u64..120, 0u64..400), 1..80)) {
        let books = books(r#"{ "a": { "per": "organisation", "amount": "200 tokens", "every": "minute" } }"#);
        let (mut clock, mut open) = (NOON.secs(), Vec::new());
        let mut counts: BTreeMap<u64, (u64, u64)> = BTreeMap::new();
        for (what, amount, actual, pass) in steps {
            match what {
                0 | 1 => {
                    let (reserved, spent) = counts.entry(clock / 60).or_default();
                    let fits = *reserved + *spent + amount <= 200;
                    let hold = books.reserve(&Caller::default(), &tokens(amount), Moment::from_secs(clock));
                    prop_assert_eq!(hold.is_ok(), fits);
                    if let Ok(hold) = hold {
                        *reserved += amount;
                        open.push((clock / 60, amount, hold));
                    }
                }
                2 if !open.is_empty() => {
                    let (minute, amount, hold) = open.remove(actual as usize % open.len());
                    let (reserved, spent) = counts.entry(minute).or_default();
                    *reserved -= amount;
                    *spent += actual;
                    hold.settle(&tokens(actual));
                }
                _ => clock += pass / 10,
            }
            let (reserved, spent) = counts.get(&(clock / 60)).copied().unwrap_or_default();
            let (window_used, window_spent) = books
                .accounts_of("a", Moment::from_secs(clock))
                .first()
                .map_or((0, 0), |window| (window.used(), window.spent()));
            prop_assert_eq!((window_used, window_spent), (reserved + spent, spent));
        }
        open.into_iter().for_each(|(.., hold)| hold.release());
    }
}
