//! Prices as the LiteLLM project publishes them, one JSON object for each model: the public price facts that our book is
//! seeded from, and what many people keep theirs in.

use std::sync::Arc;

use serde_json::{Map, Value};

use crate::{Money, Price, Rates, Section, ServiceTier, TokenPrice};

/// What could be carried over, and how many rows could not and why.
#[derive(Debug, Default)]
pub struct Import {
    pub prices: Vec<Price>,
    /// Not priced by tokens or by calls: seconds, pixels, characters.
    pub other_units: usize,
    /// From providers that Weir does not know by that name.
    pub other_providers: usize,
    /// Written finer than a millionth of a dollar per million tokens; taken as the next dearer one.
    pub rounded: Vec<String>,
}

/// LiteLLM's name of a provider, and ours. A name that is not here is left out, with all its rows.
const PROVIDERS: &[(&str, &str)] = &[
    ("ai21", "ai21"),
    ("anthropic", "anthropic"),
    ("azure", "azure"),
    ("azure_ai", "azure-ai"),
    ("azure_text", "azure"),
    ("bedrock", "bedrock"),
    ("bedrock_converse", "bedrock"),
    ("cerebras", "cerebras"),
    ("cloudflare", "cloudflare"),
    ("codestral", "mistral"),
    ("cohere", "cohere"),
    ("cohere_chat", "cohere"),
    ("dashscope", "dashscope"),
    ("deepinfra", "deepinfra"),
    ("deepseek", "deepseek"),
    ("fireworks_ai", "fireworks_ai"),
    ("fireworks_ai-embedding-models", "fireworks_ai"),
    ("gemini", "gemini"),
    ("groq", "groq"),
    ("hyperbolic", "hyperbolic"),
    ("jina_ai", "jina"),
    ("lambda_ai", "lambda"),
    ("minimax", "minimax"),
    ("mistral", "mistral"),
    ("moonshot", "moonshot"),
    ("nebius", "nebius"),
    ("novita", "novita"),
    ("nscale", "nscale"),
    ("nvidia_nim", "nvidia_nim"),
    ("openai", "openai"),
    ("openrouter", "openrouter"),
    ("ovhcloud", "ovhcloud"),
    ("perplexity", "perplexity"),
    ("sambanova", "sambanova"),
    ("scaleway", "scaleway"),
    ("text-completion-openai", "openai"),
    ("together_ai", "together_ai"),
    ("vertex_ai", "vertex"),
    ("voyage", "voyage"),
    ("xai", "xai"),
    ("zai", "zai"),
];

/// All rows that have a price by tokens or by calls, as of `date`; `source` stands where a row names none.
pub fn import(models: &Map<String, Value>, source: &str, date: &str) -> Import {
    let mut import = Import::default();
    let (source, date): (Arc<str>, Arc<str>) = (source.into(), date.into());
    for (name, facts) in models {
        let Some(facts) = facts.as_object().filter(|_| name != "sample_spec") else { continue };
        let theirs = facts.get("litellm_provider").and_then(Value::as_str).unwrap_or_default();
        let theirs = theirs.split_once("vertex_ai-").map_or(theirs, |_| "vertex_ai");
        let Some((_, ours)) = PROVIDERS.iter().find(|(name, _)| *name == theirs) else {
            import.other_providers += 1;
            continue;
        };
        let model = name.strip_prefix(theirs).and_then(|rest| rest.strip_prefix('/')).unwrap_or(name);
        let model = if *ours == "bedrock" { model.strip_prefix("bedrock/").unwrap_or(model) } else { model };
        let Some(price) = price(ours, model, facts, &source, &date, &mut import.rounded) else {
            import.other_units += 1;
            continue;
        };
        import.prices.push(price);
    }
    import
}

fn price(
    provider: &str,
    model: &str,
    facts: &Map<String, Value>,
    source: &Arc<str>,
    date: &Arc<str>,
    rounded: &mut Vec<String>,
) -> Option<Price> {
    let mut base = Rates::default();
    let mut sections: Vec<Section> = Vec::new();
    let mut priced = false;
    for (key, value) in facts {
        let Some((field, tier, above)) = place(key) else { continue };
        let Some(number) = value.as_f64().filter(|number| *number >= 0.0) else { continue };
        let rates = if tier == ServiceTier::Standard && above == 0 {
            &mut base
        } else {
            let at = sections.iter().position(|it| it.tier == tier && it.above == above).unwrap_or_else(|| {
                sections.push(Section { tier, above, rates: Rates::default() });
                sections.len() - 1
            });
            &mut sections[at].rates
        };
        let (units, exact) = units(number)?;
        if !exact {
            rounded.push(format!("{provider}/{model} {key}"));
        }
        let token = Some(TokenPrice::per_token(units));
        let money = Some(Money::from_units(units.into()));
        priced = true;
        match field {
            Field::Input => rates.input = token,
            Field::Read => rates.cached_read = token,
            Field::Write => rates.cached_write_5m = token,
            Field::WriteHour => rates.cached_write_1h = token,
            Field::InputAudio => rates.input_audio = token,
            Field::InputImage => rates.input_image = token,
            Field::Output => rates.output = token,
            Field::Reasoning => rates.reasoning = token,
            Field::OutputAudio => rates.output_audio = token,
            Field::OutputImage => rates.output_image = token,
            Field::Call => rates.call = money,
        }
    }
    if !priced {
        return None;
    }
    // A cache write that is said to be free is one that nobody charges apart: those tokens cost as the prompt.
    let searches = facts.get("search_context_cost_per_query").and_then(Value::as_object);
    let searches = searches.into_iter().flat_map(|sizes| sizes.values()).filter_map(Value::as_f64);
    let dearest = searches.filter_map(|number| Some(units(number)?.0)).max().filter(|units| *units > 0);
    base.search = dearest.map(|units| Money::from_units(units.into()));
    for rates in std::iter::once(&mut base).chain(sections.iter_mut().map(|it| &mut it.rates)) {
        if rates.cached_write_5m == Some(TokenPrice::FREE) {
            rates.cached_write_5m = None;
        }
    }
    sections.sort_by_key(|section| (section.tier as u8, section.above));
    let limit = |key: &str| facts.get(key).and_then(Value::as_u64).filter(|tokens| *tokens > 0);
    Some(Price {
        row: format!("{provider}/{model}").into(),
        source: facts.get("source").and_then(Value::as_str).map_or_else(|| source.clone(), Into::into),
        date: date.clone(),
        max_input: limit("max_input_tokens"),
        max_output: limit("max_output_tokens"),
        base,
        sections,
    })
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Field {
    Input,
    Read,
    Write,
    WriteHour,
    InputAudio,
    InputImage,
    Output,
    Reasoning,
    OutputAudio,
    OutputImage,
    Call,
}

/// What a key such as `cache_read_input_token_cost_above_272k_tokens_flex` is the price of.
fn place(key: &str) -> Option<(Field, ServiceTier, u64)> {
    const TIERS: [(&str, ServiceTier); 3] =
        [("_batches", ServiceTier::Batch), ("_flex", ServiceTier::Flex), ("_priority", ServiceTier::Priority)];
    const FIELDS: [(&str, Field); 11] = [
        ("input_cost_per_token", Field::Input),
        ("cache_read_input_token_cost", Field::Read),
        ("cache_creation_input_token_cost", Field::Write),
        ("cache_creation_input_token_cost_above_1hr", Field::WriteHour),
        ("input_cost_per_audio_token", Field::InputAudio),
        ("input_cost_per_image_token", Field::InputImage),
        ("output_cost_per_token", Field::Output),
        ("output_cost_per_reasoning_token", Field::Reasoning),
        ("output_cost_per_audio_token", Field::OutputAudio),
        ("output_cost_per_image_token", Field::OutputImage),
        ("input_cost_per_request", Field::Call),
    ];
    let (key, tier) = TIERS
        .iter()
        .find_map(|(end, tier)| Some((key.strip_suffix(end)?, *tier)))
        .unwrap_or((key, ServiceTier::Standard));
    let (key, above) = match key.strip_suffix("k_tokens").and_then(|rest| rest.rsplit_once("_above_")) {
        Some((key, thousands)) => (key, thousands.parse::<u64>().ok()? * 1000),
        None => (key, 0),
    };
    let (_, field) = FIELDS.iter().find(|(name, _)| *name == key)?;
    Some((*field, tier, above))
}

/// Units of 10^-12 dollars, and whether that is exact. Fifteen digits of a float are those that stood in the file; what
/// comes after them is the float's own.
fn units(dollars: f64) -> Option<(u64, bool)> {
    let text = format!("{dollars:.14e}");
    let (mantissa, exponent) = text.split_once('e')?;
    let digits: String = mantissa.chars().filter(char::is_ascii_digit).collect();
    let (digits, exponent): (u128, i32) = (digits.parse().ok()?, exponent.parse().ok()?);
    // The digits are whole numbers of 10^(exponent - 14) dollars.
    let shift = exponent - 14 + 12;
    if shift >= 0 {
        let units = digits.checked_mul(10u128.checked_pow(shift.unsigned_abs())?)?;
        return Some((u64::try_from(units).ok()?, true));
    }
    let Some(scale) = 10u128.checked_pow(shift.unsigned_abs()) else { return Some((1, false)) };
    Some((u64::try_from(digits.div_ceil(scale)).ok()?, digits.is_multiple_of(scale)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_say_what_they_price() {
        let check = |key: &str, expected| assert_eq!(place(key), expected, "{key}");
        check("input_cost_per_token", Some((Field::Input, ServiceTier::Standard, 0)));
        check("input_cost_per_token_batches", Some((Field::Input, ServiceTier::Batch, 0)));
        check("cache_read_input_token_cost_above_272k_tokens_flex", Some((Field::Read, ServiceTier::Flex, 272_000)));
        check("cache_creation_input_token_cost_above_1hr", Some((Field::WriteHour, ServiceTier::Standard, 0)));
        check(
            "cache_creation_input_token_cost_above_1hr_above_200k_tokens",
            Some((Field::WriteHour, ServiceTier::Standard, 200_000)),
        );
        check("input_cost_per_token_ultrafast", None);
        check("output_cost_per_second", None);
        check("max_input_tokens", None);
    }

    #[test]
    fn floats_are_read_as_they_were_written() {
        for (text, expected) in [
            ("1.25e-07", Some((125_000, true))),
            ("0.0", Some((0, true))),
            ("2.749985e-06", Some((2_749_985, true))),
            ("3.0001999999999996E-7", Some((300_020, true))),
            ("1.23456789e-10", Some((124, false))),
            ("1e-300", Some((1, false))),
            ("0.0000029999900000000002", Some((2_999_990, true))),
            ("0.005", Some((5_000_000_000, true))),
            ("3", Some((3_000_000_000_000, true))),
        ] {
            let number: f64 = serde_json::from_str(text).unwrap();
            assert_eq!(units(number), expected, "{text}");
        }
    }
}
