//! The rules of `limit` as a person writes them.

use std::borrow::Cow;
use std::fmt;

use base::{ByteRate, Rate, Size};
use ledger::{Money, MoneyRate};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::value::{MapAccessDeserializer, StrDeserializer};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use crate::Spec;

/// The rules; a call must be within all of them.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(transparent)]
pub struct LimitSpec(pub Vec<RuleSpec>);

/// So much over time, or at a time, for each of something. A rule has one of `rate`, `bytes`, `bytes-in`, `bytes-out`,
/// `tokens`, `tokens-in`, `tokens-out`, `money` and `concurrency`.
///
/// What a call comes to in bytes, tokens or money is known when it is over. It is let through on what can be known
/// before: the length that the request announces, the tokens of its prompt and the most that its answer may have, and
/// for what is not announced the `estimate`; at its end the count is put right. So a caller may come to owe more than
/// `burst`, and waits the longer for its next call.
///
/// Tokens and money count for calls to models, and nothing for others; all attempts that a call took are in its count.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct RuleSpec {
    /// Whose calls are counted together: `consumer`, `team`, `address`, `route`, `all`, `{ header: x-tenant }`,
    /// `{ claim: org }`, or a list of these for each combination.
    pub per: PerSpec,
    /// How many calls are let through over time, such as `100/s`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rate: Option<Rate>,
    /// How many bytes of bodies, of requests and answers together: `10MiB/s`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bytes: Option<ByteRate>,
    /// How many bytes of requests' bodies.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bytes_in: Option<ByteRate>,
    /// How many bytes of answers' bodies.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bytes_out: Option<ByteRate>,
    /// How many tokens, of prompts and answers together: `100k/m`. A call is let through on its prompt, counted about, and
    /// the most that its answer may have, as the caller bounds it or else the model; the count at its end is the provider's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tokens: Option<Rate>,
    /// How many tokens of prompts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tokens_in: Option<Rate>,
    /// How many tokens of answers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tokens_out: Option<Rate>,
    /// How much calls to models may cost: `5 USD/m`. A call is let through on what as many tokens cost. What nobody knows
    /// the price of costs nothing here.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub money: Option<MoneyRate>,
    /// How many calls may be in flight at a time, each until the last byte of its answer. Counted by each node alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub concurrency: Option<u64>,
    /// How much may come at once after a rest: a number of calls or tokens, a size such as `20MiB`, or money such as
    /// `10 USD`; the amount of the rate if it is not given. A call that counts more waits until nothing is owed, and then owes all of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub burst: Option<AmountSpec>,
    /// How much one call counts under `rate`, 1 if it is not given: a number, or an expression in CEL that gives one, such
    /// as `"request.path.startsWith('/search') ? 10 : 1"`. What gives 0 is not limited by the rule. What cannot be
    /// evaluated, is negative or no number counts as much as the whole `burst`. One that names `model` is evaluated when
    /// a call to a model is understood.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub weight: Option<WeightSpec>,
    /// What is taken for what is not known beforehand. Of a body whose length is not announced: a size; if it is not
    /// given, the mean of what calls under the rule have come to lately. Of an answer in tokens, a number, and of what a
    /// call to a model costs, money such as `0.01 USD`: if it is not given, the most that the call allows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub estimate: Option<AmountSpec>,
    /// Count together with the other nodes, in a store of the document's `stores`; each node counts alone if it is not
    /// given. Not for `concurrency`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shared: Option<SharedSpec>,
    /// What the rule is called in `RateLimit` and `RateLimit-Policy`: letters, digits, `-`, `_` and `.`;
    /// what it is per and what it counts if it is not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// How many keys are remembered at a time, at 16 bytes each (8 for `concurrency`). Beyond, those that owe least are
    /// forgotten; of `concurrency` those are not counted that come when there is no room.
    #[serde(default = "default_keys")]
    pub keys: u64,
}

/// Counting together with other nodes. Nodes that have the rule at the same place, with the same name and numbers, share
/// it. A node draws a small share ahead for each key, at most 2 % of `burst` over all nodes, so that most calls of busy
/// callers need not wait for the store. What calls come to beyond an estimate, or below it, reaches the other nodes
/// within a tenth of a second.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct SharedSpec {
    /// One of the document's `stores`.
    pub store: String,
    /// What becomes of calls while the store is away; `local` if it is not given.
    #[serde(default)]
    pub when_away: WhenAway,
}

/// What becomes of calls while the store is away.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum WhenAway {
    /// Each node lets through its part: the rate and the burst, divided by as many nodes as there were lately.
    #[default]
    Local,
    /// They pass.
    Open,
    /// They are refused, with 503.
    Closed,
}

/// By what calls are told apart; by several things for each combination of them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PerSpec(pub Vec<Per>);

/// Whose calls are counted together. Those of callers that lack it (are not known, are in no team, send no such
/// field, have no such claim) are counted by their address.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Per {
    /// Each consumer's.
    Consumer,
    /// Those of all consumers of a team.
    Team,
    /// Each caller's address; for IPv6 each network of 64 bits, since whoever has one address there has them all.
    Address,
    /// Each route's, whoever calls.
    Route,
    /// All calls that come under the limit, whoever calls.
    All,
    /// Those with the same value in this field of the request. Callers write it: one who makes up values has as many
    /// shares, unless another rule bounds him.
    Header(String),
    /// Those with the same value in this claim of the caller's verified token.
    Claim(String),
}

/// How much of what a rule counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AmountSpec {
    /// Of calls or tokens.
    Number(u64),
    Bytes(Size),
    Money(Money),
}

/// How much a call counts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum WeightSpec {
    Fixed(u64),
    Expression(String),
}

impl Spec for LimitSpec {
    const EXPECTED: &'static str = "`none`, or a list of rules, such as `[{ per: consumer, rate: 100/s }]`";
    const LIST: bool = true;
}

fn default_keys() -> u64 {
    DEFAULT_KEYS
}

pub(super) const DEFAULT_KEYS: u64 = 65536;

// === impl PerSpec ===

impl From<Per> for PerSpec {
    fn from(per: Per) -> PerSpec {
        PerSpec(vec![per])
    }
}

impl<'de> Deserialize<'de> for PerSpec {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<PerSpec, D::Error> {
        struct Visitor;

        impl<'de> de::Visitor<'de> for Visitor {
            type Value = PerSpec;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("`consumer`, `team`, `address`, `route`, `all`, a `header`, a `claim`, or a list of these")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<PerSpec, E> {
                Per::deserialize(StrDeserializer::new(text)).map(PerSpec::from)
            }

            fn visit_map<A: de::MapAccess<'de>>(self, map: A) -> Result<PerSpec, A::Error> {
                Per::deserialize(MapAccessDeserializer::new(map)).map(PerSpec::from)
            }

            fn visit_seq<A: de::SeqAccess<'de>>(self, mut seq: A) -> Result<PerSpec, A::Error> {
                let mut all = Vec::new();
                while let Some(per) = seq.next_element()? {
                    all.push(per);
                }
                Ok(PerSpec(all))
            }
        }

        deserializer.deserialize_any(Visitor)
    }
}

impl Serialize for PerSpec {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match &*self.0 {
            [per] => per.serialize(serializer),
            all => all.serialize(serializer),
        }
    }
}

impl JsonSchema for PerSpec {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "PerSpec".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let per = generator.subschema_for::<Per>();
        json_schema!({ "anyOf": [per, { "type": "array", "items": per, "minItems": 1 }] })
    }
}

// === impl AmountSpec ===

impl<'de> Deserialize<'de> for AmountSpec {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<AmountSpec, D::Error> {
        struct Visitor;

        impl de::Visitor<'_> for Visitor {
            type Value = AmountSpec;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(
                    "a number of calls or tokens such as 200, a size such as `20MiB`, or money such as `10 USD`",
                )
            }

            fn visit_u64<E: de::Error>(self, number: u64) -> Result<AmountSpec, E> {
                Ok(AmountSpec::Number(number))
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<AmountSpec, E> {
                match text.trim_end().ends_with("USD") {
                    true => text.parse().map(AmountSpec::Money).map_err(E::custom),
                    false => text.parse().map(AmountSpec::Bytes).map_err(E::custom),
                }
            }
        }

        deserializer.deserialize_any(Visitor)
    }
}

impl Serialize for AmountSpec {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            AmountSpec::Number(number) => serializer.serialize_u64(*number),
            AmountSpec::Bytes(size) => size.serialize(serializer),
            AmountSpec::Money(money) => money.serialize(serializer),
        }
    }
}

impl JsonSchema for AmountSpec {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "AmountSpec".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let (size, money) = (generator.subschema_for::<Size>(), generator.subschema_for::<Money>());
        json_schema!({ "anyOf": [{ "type": "integer", "minimum": 1 }, size, money] })
    }
}

// === impl WeightSpec ===

impl<'de> Deserialize<'de> for WeightSpec {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<WeightSpec, D::Error> {
        struct Visitor;

        impl de::Visitor<'_> for Visitor {
            type Value = WeightSpec;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a number, or an expression that gives one")
            }

            fn visit_u64<E: de::Error>(self, number: u64) -> Result<WeightSpec, E> {
                Ok(WeightSpec::Fixed(number))
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<WeightSpec, E> {
                Ok(WeightSpec::Expression(text.to_owned()))
            }
        }

        deserializer.deserialize_any(Visitor)
    }
}

impl Serialize for WeightSpec {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            WeightSpec::Fixed(number) => serializer.serialize_u64(*number),
            WeightSpec::Expression(text) => serializer.serialize_str(text),
        }
    }
}

impl JsonSchema for WeightSpec {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "WeightSpec".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "anyOf": [{ "type": "integer", "minimum": 1 }, { "type": "string" }] })
    }
}
