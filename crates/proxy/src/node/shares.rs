//! What the cache takes, and for whom: by api and by consumer, of a bounded number of either.

use std::collections::BTreeMap;

use cache::Store;
use cache::disk::TierState;
use telemetry::{Figure, Row};

/// What stored answers take.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CacheShares {
    pub memory: u64,
    /// Of all files. Nothing where there is no disk.
    pub disk: Option<u64>,
    /// What takes most comes first, and last what is not told apart, as `other`.
    pub apis: Vec<CacheShare>,
    /// Those for whom alone answers are kept, in the same order.
    pub consumers: Vec<CacheShare>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CacheShare {
    pub name: String,
    pub memory: u64,
    /// Of what is still found there.
    pub disk: u64,
}

/// Apis and consumers that are told apart, each. A metric has a row for each of both, which is no more than others have.
const MOST: usize = 250;

// === impl CacheShares ===

impl CacheShares {
    /// For threads that may wait.
    pub(super) fn of(store: &Store) -> CacheShares {
        let (mut apis, mut consumers) = (BTreeMap::new(), BTreeMap::new());
        for cache::Share { api, consumer, memory, disk } in store.shares() {
            add(&mut apis, api, memory, disk);
            if let Some(consumer) = consumer {
                add(&mut consumers, consumer, memory, disk);
            }
        }
        let tier = store.tier.usage();
        CacheShares {
            memory: store.usage().bytes as u64,
            disk: (tier.state != TierState::Off).then_some(tier.bytes),
            apis: most(apis),
            consumers: most(consumers),
        }
    }

    pub(super) fn figures(&self) -> Vec<Figure> {
        let CacheShares { memory: _, disk, apis, consumers } = self;
        let kinds = [("api", apis), ("consumer", consumers)];
        let all = kinds.iter().flat_map(|(kind, shares)| shares.iter().map(move |share| (*kind, share)));
        let rows = |bytes: fn(&CacheShare) -> u64| {
            let row = |(kind, share): (&'static str, &CacheShare)| Row {
                labels: vec![("kind", kind.into()), (kind, share.name.as_str().into())],
                value: bytes(share),
            };
            all.clone().map(row).collect()
        };
        let figure = |name, help, bytes| Figure { name, help, counter: false, rows: rows(bytes) };
        let memory = figure("weir_cache_share_bytes", "Memory that stored answers take, and whose", |it| it.memory);
        let on_disk =
            || figure("weir_cache_disk_share_bytes", "Bytes of stored answers on the disk, and whose", |it| it.disk);
        [memory].into_iter().chain(disk.map(|_| on_disk())).collect()
    }
}

fn add(shares: &mut BTreeMap<String, [u64; 2]>, name: String, memory: u64, disk: u64) {
    let sum = shares.entry(name).or_default();
    *sum = [sum[0] + memory, sum[1] + disk];
}

fn most(shares: BTreeMap<String, [u64; 2]>) -> Vec<CacheShare> {
    let mut shares: Vec<_> =
        shares.into_iter().map(|(name, [memory, disk])| CacheShare { name, memory, disk }).collect();
    // Whoever takes as much comes in the order of names.
    shares.sort_by_key(|share| std::cmp::Reverse(share.memory + share.disk));
    if shares.len() > MOST {
        let rest = shares.split_off(MOST - 1);
        let sum = |bytes: fn(&CacheShare) -> u64| rest.iter().map(bytes).sum();
        shares.push(CacheShare { name: "other".into(), memory: sum(|it| it.memory), disk: sum(|it| it.disk) });
    }
    shares
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_takes_least_is_told_together() {
        let named = |count: u64| (0..count).map(|at| (format!("{at:04}"), [at, 2 * at])).collect();
        let share = |name: &str, memory, disk| CacheShare { name: name.into(), memory, disk };
        assert_eq!(most(named(3)), [share("0002", 2, 4), share("0001", 1, 2), share("0000", 0, 0)]);
        assert_eq!(most(named(250)).last(), Some(&share("0000", 0, 0)));
        let many = most(named(1000));
        assert_eq!((many.len(), &many[0]), (250, &share("0999", 999, 1998)));
        assert_eq!(many[249], share("other", (0..751).sum(), (0..751).map(|at| 2 * at).sum()));
    }
}
