//! Tokens that were verified a moment ago: the same one again costs a hash and a comparison, no signature check.
//!
//! A table of fixed size where each token has one slot and a newer one takes an older one's. Readers and writers never
//! wait for each other. It belongs to one compiled policy, so a reload forgets it.

use std::sync::Arc;

use arc_swap::ArcSwapOption;
use aws_lc_rs::digest;
use base::{Claims, Consumer};

/// 1024 tokens of a kilobyte or two each.
const SLOTS: usize = 1024;

pub struct Seen(Box<[ArcSwapOption<Verified>]>);

/// A token that was valid, and what it says.
#[derive(Debug)]
pub struct Verified {
    pub hash: TokenHash,
    /// Which of the issuers, and which of the sets of keys that it has had: with another set it counts no more.
    pub issuer: usize,
    pub generation: u64,
    /// In seconds since 1970, the leeway included.
    pub from: u64,
    pub until: u64,
    pub claims: Arc<Claims>,
    pub consumer: Arc<Consumer>,
}

/// SHA-256: nobody finds another token with the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TokenHash([u8; 32]);

impl Default for Seen {
    fn default() -> Seen {
        Seen((0..SLOTS).map(|_| ArcSwapOption::empty()).collect())
    }
}

impl Seen {
    pub fn get(&self, hash: TokenHash) -> Option<Arc<Verified>> {
        self.slot(hash).load().as_ref().filter(|it| it.hash == hash).cloned()
    }

    pub fn put(&self, verified: Arc<Verified>) {
        self.slot(verified.hash).store(Some(verified));
    }

    fn slot(&self, TokenHash([a, b, ..]): TokenHash) -> &ArcSwapOption<Verified> {
        &self.0[usize::from(u16::from_le_bytes([a, b])) % SLOTS]
    }
}

impl TokenHash {
    pub fn of(token: &[u8]) -> TokenHash {
        let mut hash = [0; 32];
        hash.copy_from_slice(digest::digest(&digest::SHA256, token).as_ref());
        TokenHash(hash)
    }
}

impl std::fmt::Debug for Seen {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Seen")
    }
}
