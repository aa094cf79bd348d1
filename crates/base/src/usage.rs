//! What a call to a model used, in tokens: the word that wire formats, limits and the ledger share.

use std::iter::Sum;
use std::ops::{Add, AddAssign};

use serde::{Deserialize, Serialize};

/// Tokens, and the few other things a provider charges for, of one answer.
///
/// **Every token is counted in exactly one field.** Providers differ: some report totals that include the cached and the
/// reasoning tokens, others report them beside. Whoever reads a provider's report takes the parts out of the totals, so
/// that a price is the sum over the fields and nothing is charged twice. Totals are methods.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(default)]
pub struct TokenUsage {
    /// Of the prompt: those in no other field, that is text (and what the provider does not tell from text) that was
    /// neither read from a cache nor written to one.
    pub input: u64,
    /// Of the prompt: read from the provider's cache, whatever they stand for.
    pub cached_read: u64,
    /// Of the prompt: written to the provider's cache, kept for five minutes or as long as the provider likes.
    pub cached_write_5m: u64,
    /// Of the prompt: written to the provider's cache, kept for an hour.
    pub cached_write_1h: u64,
    /// Of the prompt: sound, where the provider tells it from text; not cached.
    pub input_audio: u64,
    /// Of the prompt: pictures and moving pictures, where the provider tells them from text; not cached.
    pub input_image: u64,
    /// Of the answer: those in no other field, that is text and calls of tools.
    pub output: u64,
    /// Of the answer: thought before it, shown or not.
    pub reasoning: u64,
    /// Of the answer: sound.
    pub output_audio: u64,
    /// Of the answer: pictures.
    pub output_image: u64,
    /// Searches of the web that the provider made; not tokens.
    pub searches: u32,
}

impl TokenUsage {
    /// All of the prompt.
    pub fn prompt(&self) -> u64 {
        let cached = self.cached_read.saturating_add(self.cached_write());
        self.input.saturating_add(cached).saturating_add(self.input_audio).saturating_add(self.input_image)
    }

    /// All of the answer.
    pub fn completion(&self) -> u64 {
        let shown = self.output.saturating_add(self.output_audio).saturating_add(self.output_image);
        shown.saturating_add(self.reasoning)
    }

    pub fn total(&self) -> u64 {
        self.prompt().saturating_add(self.completion())
    }

    /// What was written to a cache, however long it is kept.
    pub fn cached_write(&self) -> u64 {
        self.cached_write_5m.saturating_add(self.cached_write_1h)
    }

    pub fn is_zero(&self) -> bool {
        *self == TokenUsage::default()
    }
}

impl Add for TokenUsage {
    type Output = TokenUsage;

    /// Saturates: a sum that is too large is a provider's lie, and no reason to fall over.
    fn add(self, other: TokenUsage) -> TokenUsage {
        let TokenUsage {
            input,
            cached_read,
            cached_write_5m,
            cached_write_1h,
            input_audio,
            input_image,
            output,
            reasoning,
            output_audio,
            output_image,
            searches,
        } = other;
        TokenUsage {
            input: self.input.saturating_add(input),
            cached_read: self.cached_read.saturating_add(cached_read),
            cached_write_5m: self.cached_write_5m.saturating_add(cached_write_5m),
            cached_write_1h: self.cached_write_1h.saturating_add(cached_write_1h),
            input_audio: self.input_audio.saturating_add(input_audio),
            input_image: self.input_image.saturating_add(input_image),
            output: self.output.saturating_add(output),
            reasoning: self.reasoning.saturating_add(reasoning),
            output_audio: self.output_audio.saturating_add(output_audio),
            output_image: self.output_image.saturating_add(output_image),
            searches: self.searches.saturating_add(searches),
        }
    }
}

impl AddAssign for TokenUsage {
    fn add_assign(&mut self, other: TokenUsage) {
        *self = *self + other;
    }
}

impl Sum for TokenUsage {
    fn sum<I: Iterator<Item = TokenUsage>>(all: I) -> TokenUsage {
        all.fold(TokenUsage::default(), Add::add)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn totals_count_every_field_once() {
        let usage = TokenUsage {
            input: 1,
            cached_read: 2,
            cached_write_5m: 4,
            cached_write_1h: 8,
            input_audio: 16,
            input_image: 32,
            output: 64,
            reasoning: 128,
            output_audio: 256,
            output_image: 512,
            searches: 3,
        };
        assert_eq!((usage.prompt(), usage.completion(), usage.total()), (63, 960, 1023));
        assert_eq!([usage, usage].into_iter().sum::<TokenUsage>().total(), 2046);
        assert_eq!((usage + usage).searches, 6);
    }

    #[test]
    fn a_sum_that_is_too_large_saturates() {
        let most = TokenUsage { input: u64::MAX, output: u64::MAX, ..TokenUsage::default() };
        assert_eq!((most + most).total(), u64::MAX);
    }
}
