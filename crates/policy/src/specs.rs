//! A policy as a person writes it: its settings, or `none`.

use std::borrow::Cow;
use std::fmt;
use std::marker::PhantomData;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::value::{MapAccessDeserializer, SeqAccessDeserializer};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// A policy named at some place: `none`, or its settings.
#[derive(Clone, Debug, PartialEq)]
pub enum Setting<T> {
    Off,
    On(T),
}

/// The settings of a policy.
pub trait Spec {
    /// What an error says was expected, such as "`none`, or a list of rules".
    const EXPECTED: &'static str;
    /// Whether they are a list and not a map.
    const LIST: bool = false;
}

// === impl Setting ===

const NONE: &str = "none";

impl<'de, T: Spec + Deserialize<'de>> Deserialize<'de> for Setting<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Setting<T>, D::Error> {
        struct Visitor<T>(PhantomData<T>);

        impl<'de, T: Spec + Deserialize<'de>> de::Visitor<'de> for Visitor<T> {
            type Value = Setting<T>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(T::EXPECTED)
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Setting<T>, E> {
                if text != NONE {
                    return Err(E::invalid_value(de::Unexpected::Str(text), &self));
                }
                Ok(Setting::Off)
            }

            fn visit_map<A: de::MapAccess<'de>>(self, map: A) -> Result<Setting<T>, A::Error> {
                if T::LIST {
                    return Err(de::Error::invalid_type(de::Unexpected::Map, &self));
                }
                T::deserialize(MapAccessDeserializer::new(map)).map(Setting::On)
            }

            fn visit_seq<A: de::SeqAccess<'de>>(self, seq: A) -> Result<Setting<T>, A::Error> {
                // A derived struct would take its fields from a list, in order.
                if !T::LIST {
                    return Err(de::Error::invalid_type(de::Unexpected::Seq, &self));
                }
                T::deserialize(SeqAccessDeserializer::new(seq)).map(Setting::On)
            }
        }

        deserializer.deserialize_any(Visitor(PhantomData))
    }
}

impl<T: Serialize> Serialize for Setting<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Setting::Off => serializer.serialize_str(NONE),
            Setting::On(spec) => spec.serialize(serializer),
        }
    }
}

impl<T: JsonSchema> JsonSchema for Setting<T> {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        format!("{}OrNone", T::schema_name()).into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "anyOf": [
                { "const": NONE, "description": "Switches the policy off that would be inherited." },
                generator.subschema_for::<T>(),
            ]
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Specs;

    #[test]
    fn settings_are_none_or_the_policy() {
        let specs: Specs =
            serde_json::from_str(r#"{"authenticate":"none","limit":[{"per":"all","rate":"1/s"}]}"#).unwrap();
        assert_eq!(specs.authenticate, Some(Setting::Off));
        assert!(matches!(specs.limit, Some(Setting::On(_))));
        assert_eq!(specs.headers, None);
        let printed = serde_json::to_string(&specs).unwrap();
        assert_eq!(serde_json::from_str::<Specs>(&printed).unwrap(), specs, "{printed}");
    }

    #[test]
    fn errors_say_what_would_be_right() {
        let check = |json: &str, part: &str| {
            let error = serde_json::from_str::<Specs>(json).unwrap_err().to_string();
            assert!(error.contains(part), "{json}: {error}");
        };
        check(r#"{"authenticate":"off"}"#, "expected `none`, or");
        check(r#"{"authenticate":true}"#, "`api-key: {}`");
        check(r#"{"authenticate":[]}"#, "`api-key: {}`");
        check(r#"{"limit":{"per":"all"}}"#, "a list of rules");
        check(r#"{"limit":[{"per":"all","rate":100}]}"#, "`100/s`");
        check(r#"{"limit":[{"per":"everyone","rate":"1/s"}]}"#, "`consumer`");
        check(r#"{"corps":{}}"#, "unknown field `corps`");
        check(r#"{"headers":{"request":{"sett":{}}}}"#, "unknown field `sett`");
    }

    #[test]
    fn narrower_specs_win_whole() {
        let general: Specs =
            serde_json::from_str(r#"{"authenticate":{"api-key":{}},"headers":{"request":{}}}"#).unwrap();
        let narrow: Specs = serde_json::from_str(r#"{"authenticate":"none"}"#).unwrap();
        let both = narrow.over(&general);
        assert_eq!(both.authenticate, Some(Setting::Off));
        assert_eq!(both.headers, general.headers);
    }

    #[test]
    fn the_schema_admits_none() {
        let schema = serde_json::to_value(schemars::schema_for!(Specs)).unwrap();
        let text = schema["properties"]["limit"].to_string();
        assert!(text.contains(r#""const":"none""#) && text.contains("LimitSpec"), "{text}");
    }
}
