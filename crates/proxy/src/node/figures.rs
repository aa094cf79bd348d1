//! What a node tells of its cache, of names and of budgets, as numbers.

use std::sync::Arc;
use std::time::SystemTime;

use cache::Store;
use cache::disk::{TierState, TierUsage};
use config::Snapshot;
use ledger::{Allowance, Holder, Moment, Scope, View};
use telemetry::{Figure, Row};
use transport::dns::{NameStatus, Names};

use super::shares::CacheShares;

/// What the cache holds, as numbers.
pub(super) fn kept(store: &Store) -> Vec<Figure> {
    let cache::Usage { bytes, entries, evicted, revalidated } = store.usage();
    let [unchanged, replaced, failed] = revalidated;
    let results = [("unchanged", unchanged), ("replaced", replaced), ("failed", failed)];
    let row = |(result, value): (&str, u64)| Row { labels: vec![("result", result.into())], value };
    vec![
        Figure::gauge("weir_cache_bytes", "Memory that stored answers take", bytes as u64),
        Figure::gauge("weir_cache_entries", "Stored answers", entries as u64),
        Figure::counter("weir_cache_evictions", "Stored answers dropped for want of memory", evicted),
        Figure {
            name: "weir_cache_revalidations",
            help: "Questions about stale answers that no call waited for",
            counter: true,
            rows: results.map(row).into(),
        },
    ]
    .into_iter()
    .chain(kept_on_disk(store.tier.usage()))
    .chain(CacheShares::of(store).figures())
    .collect()
}

/// Nothing where the document wants no disk.
fn kept_on_disk(usage: TierUsage) -> Vec<Figure> {
    let TierUsage { state, bytes, entries, counts: [hits, written, dropped, evicted, errors, corrupt] } = usage;
    if state == TierState::Off {
        return Vec::new();
    }
    let results = [("failed", errors), ("corrupt", corrupt)];
    let row = |(result, value): (&str, u64)| Row { labels: vec![("kind", result.into())], value };
    vec![
        Figure::gauge("weir_cache_disk_up", "Whether the disk is in use", u64::from(state == TierState::On)),
        Figure::gauge("weir_cache_disk_bytes", "Bytes of files with stored answers", bytes),
        Figure::gauge("weir_cache_disk_entries", "Stored answers on the disk", entries as u64),
        Figure::counter("weir_cache_disk_hits", "Stored answers read from the disk", hits),
        Figure::counter("weir_cache_disk_writes", "Stored answers written to the disk", written),
        Figure::counter("weir_cache_disk_dropped", "Stored answers not written to the disk", dropped),
        Figure::counter("weir_cache_disk_evictions", "Files with stored answers that gave way", evicted),
        Figure {
            name: "weir_cache_disk_errors",
            help: "Times that the disk failed, or gave back something else than was written",
            counter: true,
            rows: results.map(row).into(),
        },
    ]
}

/// How names are, as numbers.
pub(super) fn named(names: &Names) -> Vec<Figure> {
    let all = names.status();
    let figure = |name, help, counter, value: fn(&NameStatus) -> Option<u64>| {
        let row = |it: &NameStatus| Some(Row { labels: vec![("name", it.name.clone())], value: value(it)? });
        Figure { name, help, counter, rows: all.iter().filter_map(row).collect() }
    };
    vec![
        figure("weir_name_answers", "Addresses of a host, places of a service", false, |it| Some(it.found as u64)),
        figure("weir_name_failures", "Questions that name servers did not answer", true, |it| Some(it.failures)),
        figure("weir_name_stale_seconds", "For how long a name is used beyond its time to live", false, |it| {
            it.stale.map(|stale| stale.as_secs())
        }),
    ]
}

/// How budgets stand, as numbers. So many accounts have series of their own as there may be series; the rest are `other`
/// together, and so are all tasks, of which each lives only for a while.
pub(super) fn budgets(snapshot: &Snapshot) -> Vec<Figure> {
    let books = &snapshot.books;
    if !books.has_budgets() {
        return Vec::new();
    }
    let share = (snapshot.telemetry.max_series / books.budgets()).saturating_sub(1);
    let most = |scope| if scope == Scope::Task { 0 } else { share };
    let views = books.view(Moment::from(SystemTime::now()), most, None);

    let of_all = |name, help, counter, rows: &dyn Fn(&View) -> Vec<Row>| Figure {
        name,
        help,
        counter,
        rows: views.iter().flat_map(rows).collect(),
    };
    let limits = |view: &View| {
        let (unit, value) = number(view.allowance);
        vec![Row { labels: labels(view, &[("unit", unit)]), value }]
    };
    let used = |holder: fn(&Holder) -> Allowance, others: fn(&View) -> Allowance| {
        move |view: &View| {
            // Who is called so is counted with the others.
            let (named, like_others): (Vec<_>, Vec<_>) = view.holders.iter().partition(|it| it.whose != OTHER);
            let row = |whose: &str, value: u64| {
                let (unit, _) = number(view.allowance);
                let mut labels = labels(view, &[("unit", unit)]);
                labels.push(("of", whose.into()));
                Row { labels, value }
            };
            let mut rows: Vec<_> = named.iter().map(|it| row(&it.whose, number(holder(it)).1)).collect();
            if view.accounts > named.len() {
                let like_others = like_others.iter().map(|it| number(holder(it)).1);
                rows.push(row(OTHER, like_others.fold(number(others(view)).1, u64::saturating_add)));
            }
            rows
        }
    };
    let accounts = |view: &View| vec![Row { labels: labels(view, &[]), value: view.accounts as u64 }];
    let refusals = |view: &View| {
        let rows = view.refused.iter();
        rows.map(|(why, count)| Row { labels: labels(view, &[("why", why.as_str())]), value: *count }).collect()
    };
    let warnings = |view: &View| vec![Row { labels: labels(view, &[]), value: view.warned }];
    vec![
        of_all("weir_budget_limit", "What each that has a budget may spend in a period", false, &limits),
        of_all(
            "weir_budget_spent",
            "What is spent of it in this period",
            false,
            &used(|holder| holder.spent, |view| view.others.spent),
        ),
        of_all(
            "weir_budget_reserved",
            "What calls under way may cost at worst",
            false,
            &used(|holder| holder.reserved, |view| view.others.reserved),
        ),
        of_all("weir_budget_accounts", "How many have spent of it in this period", false, &accounts),
        of_all("weir_budget_refusals", "Calls refused since it does not allow them", true, &refusals),
        of_all("weir_budget_warnings", "Times that a share was spent at which it warns", true, &warnings),
    ]
}

fn labels(view: &View, more: &[(&'static str, &str)]) -> Vec<(&'static str, Arc<str>)> {
    let all = [("budget", view.budget.clone()), ("per", view.scope.as_str().into())];
    all.into_iter().chain(more.iter().map(|(name, value)| (*name, Arc::from(*value)))).collect()
}

/// In which unit, and how many of it; of money whole millionths of a dollar.
fn number(amount: Allowance) -> (&'static str, u64) {
    match amount {
        Allowance::Money(money) => ("microdollars", u64::try_from(money.units() / 1_000_000).unwrap_or(0)),
        Allowance::Tokens(count) => ("tokens", count),
        Allowance::Calls(count) => ("calls", count),
    }
}

/// As all that finds no series of its own is called.
const OTHER: &str = "other";
