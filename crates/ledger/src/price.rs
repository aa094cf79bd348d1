//! What one model costs at one provider, and what a call of it costs.
//!
//! A price has a base and sections that narrow it: above so many tokens of the prompt, and at a class of service. What a
//! section leaves open costs as in the section it narrows; what nobody states has a rule, see [`Price::rates`].

use std::sync::Arc;

use base::TokenUsage;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use smallvec::SmallVec;

use crate::{Money, TokenPrice};

/// What one model costs at one provider, by whom and of what day that is said.
#[derive(Clone, Debug, PartialEq)]
pub struct Price {
    /// Its row in the price book: `openai/gpt-4o`.
    pub row: Arc<str>,
    pub source: Arc<str>,
    /// The day it was read there: `2026-11-24`.
    pub date: Arc<str>,
    /// How many tokens of a prompt the model takes.
    pub max_input: Option<u64>,
    /// How many tokens an answer may have: what is reserved where the caller names no bound.
    pub max_output: Option<u64>,
    pub base: Rates,
    pub sections: Vec<Section>,
}

/// What costs otherwise in some calls.
#[derive(Clone, Debug, PartialEq)]
pub struct Section {
    pub tier: ServiceTier,
    /// For calls whose prompt has more tokens than this; the whole call is then at these rates.
    pub above: u64,
    pub rates: Rates,
}

/// Prices of a million tokens, by what they are, and of what is not counted in tokens. The names are those of
/// [`TokenUsage`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct Rates {
    /// A million tokens of the prompt.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub input: Option<TokenPrice>,
    /// Of the prompt, read from the provider's cache; as `input` if it is not given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cached_read: Option<TokenPrice>,
    /// Of the prompt, written to the provider's cache for five minutes; as `input` if it is not given.
    #[serde(rename = "cached-write-5m", skip_serializing_if = "Option::is_none")]
    pub cached_write_5m: Option<TokenPrice>,
    /// Of the prompt, written to the provider's cache for an hour; as for five minutes if it is not given.
    #[serde(rename = "cached-write-1h", skip_serializing_if = "Option::is_none")]
    pub cached_write_1h: Option<TokenPrice>,
    /// Of the prompt, sound; as `input` if it is not given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub input_audio: Option<TokenPrice>,
    /// Of the prompt, pictures; as `input` if it is not given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub input_image: Option<TokenPrice>,
    /// A million tokens of the answer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub output: Option<TokenPrice>,
    /// Of the answer, thought; as `output` if it is not given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reasoning: Option<TokenPrice>,
    /// Of the answer, sound; as `output` if it is not given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub output_audio: Option<TokenPrice>,
    /// Of the answer, pictures; as `output` if it is not given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub output_image: Option<TokenPrice>,
    /// One call, whatever it used; nothing if it is not given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub call: Option<Money>,
    /// One search of the web; nothing if it is not given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub search: Option<Money>,
}

/// How urgently the provider was to answer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum ServiceTier {
    #[default]
    Standard,
    Batch,
    Flex,
    Priority,
}

/// The most that a call may use, as far as one can say before it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Demand {
    /// Tokens of the prompt, counted or at most.
    pub input: u64,
    /// Tokens of the answer: what the caller allows, or the model's ceiling.
    pub output: u64,
    pub tier: ServiceTier,
    pub cache: CacheUse,
    /// The prompt has sound, or the answer may.
    pub audio: bool,
    /// The prompt has pictures, or the answer may.
    pub images: bool,
    /// Searches of the web that the provider may make.
    pub searches: u32,
}

/// Which writes to the provider's cache a call may be charged for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum CacheUse {
    /// It asks for none and the provider makes none by itself.
    None,
    /// Those the provider makes by itself, or that are kept for five minutes.
    #[default]
    Short,
    /// Such as are kept for an hour, too.
    Long,
}

// === impl Price ===

impl Price {
    /// What a call cost that used this. Exact: see [`Money`].
    pub fn cost(&self, usage: &TokenUsage, tier: ServiceTier) -> Money {
        let rates = self.rates(tier, usage.prompt());
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
        } = *usage;
        let tokens = [
            (rates.input, input),
            (rates.cached_read, cached_read),
            (rates.cached_write_5m, cached_write_5m),
            (rates.cached_write_1h, cached_write_1h),
            (rates.input_audio, input_audio),
            (rates.input_image, input_image),
            (rates.output, output),
            (rates.reasoning, reasoning),
            (rates.output_audio, output_audio),
            (rates.output_image, output_image),
        ];
        // A usage that 128 bits of picodollars do not hold is a provider's lie; it costs all there is.
        let tokens = tokens.iter().map(|(price, tokens)| price.times(*tokens).unwrap_or(MOST));
        let searches = rates.search.checked_mul(searches.into()).unwrap_or(MOST);
        tokens.sum::<Money>().saturating_add(rates.call).saturating_add(searches)
    }

    /// The most that a call may cost: nothing that stays within `demand` costs more.
    pub fn worst_case(&self, demand: &Demand) -> Money {
        let Demand { input, output, tier, cache, audio, images, searches } = *demand;
        let mut worst = Money::ZERO;
        // A prompt that turns out shorter may come under a lower section, which need not be cheaper.
        for above in self.thresholds(tier).into_iter().filter(|above| *above < input.max(1)) {
            let rates = self.rates(tier, above.saturating_add(1));
            let read = [Some(rates.input), Some(rates.cached_read)];
            let written = [
                (cache != CacheUse::None).then_some(rates.cached_write_5m),
                (cache == CacheUse::Long).then_some(rates.cached_write_1h),
            ];
            let seen = [audio.then_some(rates.input_audio), images.then_some(rates.input_image)];
            let said = [
                Some(rates.output),
                Some(rates.reasoning),
                audio.then_some(rates.output_audio),
                images.then_some(rates.output_image),
            ];
            let dearest = |prices: &[Option<TokenPrice>]| prices.iter().flatten().max().copied().unwrap_or_default();
            let in_price = dearest(&read).max(dearest(&written)).max(dearest(&seen));
            let cost = [
                in_price.times(input).unwrap_or(MOST),
                dearest(&said).times(output).unwrap_or(MOST),
                rates.call,
                rates.search.checked_mul(searches.into()).unwrap_or(MOST),
            ];
            worst = worst.max(cost.into_iter().sum());
        }
        worst
    }

    /// What holds for a call with so many tokens of prompt: the base, narrowed by the sections for long prompts, then by
    /// the one of its class of service, then by that one's for long prompts. What none of them states costs as what it
    /// is a kind of: all that is read or written as `input`, all that is thought or said as `output`.
    pub fn rates(&self, tier: ServiceTier, prompt: u64) -> Stated {
        let mut rates = self.base;
        for asked in [ServiceTier::Standard, tier] {
            let fits = |section: &&Section| section.tier == asked && (section.above == 0 || prompt > section.above);
            let mut sections: SmallVec<[&Section; 4]> = self.sections.iter().filter(fits).collect();
            sections.sort_by_key(|section| section.above);
            for section in sections {
                rates = rates.narrowed_by(&section.rates);
            }
        }
        rates.stated()
    }

    fn thresholds(&self, tier: ServiceTier) -> SmallVec<[u64; 4]> {
        let sections = self.sections.iter();
        let matters = sections.filter(|section| section.tier == tier || section.tier == ServiceTier::Standard);
        std::iter::once(0).chain(matters.map(|section| section.above)).collect()
    }

    /// How an entry names the row it was priced by: `openai/gpt-4o@2026-11-24`.
    pub fn name(&self) -> Arc<str> {
        [&*self.row, "@", &*self.date].concat().into()
    }
}

const MOST: Money = Money::from_units(i64::MAX as i128);

// === impl Rates ===

/// Rates with nothing left open.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Stated {
    pub input: TokenPrice,
    pub cached_read: TokenPrice,
    pub cached_write_5m: TokenPrice,
    pub cached_write_1h: TokenPrice,
    pub input_audio: TokenPrice,
    pub input_image: TokenPrice,
    pub output: TokenPrice,
    pub reasoning: TokenPrice,
    pub output_audio: TokenPrice,
    pub output_image: TokenPrice,
    pub call: Money,
    pub search: Money,
}

impl Rates {
    fn narrowed_by(&self, other: &Rates) -> Rates {
        let Rates {
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
            call,
            search,
        } = *other;
        Rates {
            input: input.or(self.input),
            cached_read: cached_read.or(self.cached_read),
            cached_write_5m: cached_write_5m.or(self.cached_write_5m),
            cached_write_1h: cached_write_1h.or(self.cached_write_1h),
            input_audio: input_audio.or(self.input_audio),
            input_image: input_image.or(self.input_image),
            output: output.or(self.output),
            reasoning: reasoning.or(self.reasoning),
            output_audio: output_audio.or(self.output_audio),
            output_image: output_image.or(self.output_image),
            call: call.or(self.call),
            search: search.or(self.search),
        }
    }

    fn stated(&self) -> Stated {
        let input = self.input.unwrap_or_default();
        let output = self.output.unwrap_or_default();
        let cached_write_5m = self.cached_write_5m.unwrap_or(input);
        Stated {
            input,
            cached_read: self.cached_read.unwrap_or(input),
            cached_write_5m,
            cached_write_1h: self.cached_write_1h.unwrap_or(cached_write_5m),
            input_audio: self.input_audio.unwrap_or(input),
            input_image: self.input_image.unwrap_or(input),
            output,
            reasoning: self.reasoning.unwrap_or(output),
            output_audio: self.output_audio.unwrap_or(output),
            output_image: self.output_image.unwrap_or(output),
            call: self.call.unwrap_or_default(),
            search: self.search.unwrap_or_default(),
        }
    }
}

// === impl Demand ===

impl Demand {
    pub fn new(input: u64, output: u64) -> Demand {
        Demand { input, output, ..Demand::default() }
    }

    pub fn tokens(&self) -> u64 {
        self.input.saturating_add(self.output)
    }
}

// === impl ServiceTier ===

impl ServiceTier {
    pub const ALL: [ServiceTier; 4] =
        [ServiceTier::Standard, ServiceTier::Batch, ServiceTier::Flex, ServiceTier::Priority];

    pub fn as_str(self) -> &'static str {
        match self {
            ServiceTier::Standard => "standard",
            ServiceTier::Batch => "batch",
            ServiceTier::Flex => "flex",
            ServiceTier::Priority => "priority",
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn usd(text: &str) -> Option<TokenPrice> {
        Some(text.parse().unwrap())
    }

    fn price() -> Price {
        Price {
            row: "p/m".into(),
            source: "a test".into(),
            date: "2026-11-24".into(),
            max_input: None,
            max_output: None,
            base: Rates {
                input: usd("3 USD"),
                cached_read: usd("0.3 USD"),
                cached_write_5m: usd("3.75 USD"),
                cached_write_1h: usd("6 USD"),
                output: usd("15 USD"),
                search: Some("0.01 USD".parse().unwrap()),
                ..Rates::default()
            },
            sections: vec![
                Section {
                    tier: ServiceTier::Batch,
                    above: 0,
                    rates: Rates { input: usd("1.5 USD"), output: usd("7.5 USD"), ..Rates::default() },
                },
                Section {
                    tier: ServiceTier::Standard,
                    above: 200_000,
                    rates: Rates { input: usd("6 USD"), output: usd("22.5 USD"), ..Rates::default() },
                },
            ],
        }
    }

    #[test]
    fn every_kind_of_token_has_its_price() {
        let check = |usage: TokenUsage, tier, expected: &str| {
            assert_eq!(price().cost(&usage, tier).to_string(), expected, "{usage:?}");
        };
        let usage = TokenUsage { input: 1000, output: 100, ..TokenUsage::default() };
        check(TokenUsage::default(), ServiceTier::Standard, "0 USD");
        check(usage, ServiceTier::Standard, "0.0045 USD");
        check(usage, ServiceTier::Batch, "0.00225 USD");
        // Nothing is said of it, so it is as usual.
        check(usage, ServiceTier::Priority, "0.0045 USD");
        check(TokenUsage { cached_read: 1000, ..TokenUsage::default() }, ServiceTier::Standard, "0.0003 USD");
        check(TokenUsage { cached_write_5m: 1, ..TokenUsage::default() }, ServiceTier::Standard, "0.00000375 USD");
        check(TokenUsage { cached_write_1h: 1, ..TokenUsage::default() }, ServiceTier::Standard, "0.000006 USD");
        // As what they are kinds of.
        check(TokenUsage { reasoning: 100, input_audio: 1000, ..usage }, ServiceTier::Standard, "0.009 USD");
        check(TokenUsage { searches: 2, ..usage }, ServiceTier::Standard, "0.0245 USD");
        // The whole call, from the first token above on; those read from a cache count for the length.
        check(TokenUsage { input: 200_000, ..TokenUsage::default() }, ServiceTier::Standard, "0.6 USD");
        check(TokenUsage { input: 200_001, ..TokenUsage::default() }, ServiceTier::Standard, "1.200006 USD");
        let long = TokenUsage { input: 1, cached_read: 200_000, ..TokenUsage::default() };
        check(long, ServiceTier::Standard, "0.060006 USD");
    }

    #[test]
    fn a_lie_costs_all_there_is_rather_than_nothing() {
        let usage = TokenUsage { input: u64::MAX, output: u64::MAX, ..TokenUsage::default() };
        assert!(price().cost(&usage, ServiceTier::Standard) > Money::dollars(1_000_000));
    }

    proptest! {
        #[test]
        fn nothing_within_the_demand_costs_more_than_the_worst_case(
            input in 0u64..300_000, read in 0u64..300_000, written in 0u64..50_000, hour in 0u64..50_000,
            output in 0u64..100_000, reasoning in 0u64..100_000, audio in 0u64..1000, searches in 0u32..5,
            spare in 0u64..1000, tier in 0usize..4,
        ) {
            let usage = TokenUsage {
                input, cached_read: read, cached_write_5m: written, cached_write_1h: hour, output, reasoning,
                input_audio: audio, output_audio: audio, searches, ..TokenUsage::default()
            };
            let demand = Demand {
                input: usage.prompt() + spare,
                output: usage.completion() + spare,
                tier: ServiceTier::ALL[tier],
                cache: if hour > 0 { CacheUse::Long } else { CacheUse::Short },
                audio: audio > 0,
                images: false,
                searches,
            };
            let price = price();
            prop_assert!(price.cost(&usage, demand.tier) <= price.worst_case(&demand));
        }
    }
}
