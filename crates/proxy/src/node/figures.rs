//! What a node tells of its cache and of names, as numbers.

use cache::Store;
use cache::disk::{TierState, TierUsage};
use telemetry::{Figure, Row};
use transport::dns::{NameStatus, Names};

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
