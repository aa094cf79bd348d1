//! Names and fields of expressions, bound to a call when they are asked for and not before.

use std::borrow::Cow;
use std::sync::OnceLock;

use base::{Call, Claims, Consumer, Headers, ModelCall, Reply, TlsInfo, Version};
use cel::ExecutionError;
use cel::common::traits::{Container, Indexer, Iterable, Iterator as Items, Sizer};
use cel::common::types::{CelBool, CelDouble, CelInt, CelList, CelNull, CelString, CelUInt, MAP_TYPE, Type};
use cel::common::value::{CowVal, Val};
use cel::context::VariableResolver;
use serde_json::Value;

use super::Scope;
use crate::decode::decoded_text;

impl VariableResolver for Scope<'_> {
    /// Asked for `request.tls.sni` first, then for `request.tls`, then for `request`.
    fn resolve<'b>(&'b self, variable: &str) -> Option<CowVal<'b, 'b>> {
        let mut parts = variable.split('.');
        let mut item = self.root(parts.next()?)?;
        for part in parts {
            let Item::Fields(fields) = item else { return None };
            item = fields.get(part)?;
        }
        Some(CowVal::Owned(item.boxed()))
    }
}

impl Scope<'_> {
    fn root(&self, name: &str) -> Option<Item<'_>> {
        let place = self.call.place.as_deref();
        Some(match name {
            "api" => text(place.map_or("", |it| &it.api)),
            "route" => text(place.map_or("", |it| &it.route)),
            "consumer" => Item::Fields(Fields::Consumer(self.call.consumer.as_deref())),
            "claims" => Item::Fields(Fields::Json(self.call.claims.as_deref())),
            "request" => Item::Fields(Fields::Request(self.call)),
            "model" => Item::Fields(Fields::Model(self.call.model.as_deref())),
            "response" => Item::Fields(Fields::Response(self.reply?)),
            _ => return None,
        })
    }
}

/// Something with fields that are looked up when they are wanted.
#[derive(Clone, Copy, Debug)]
enum Fields<'a> {
    Consumer(Option<&'a Consumer>),
    Json(Option<&'a Claims>),
    Request(&'a Call),
    Model(Option<&'a ModelCall>),
    Response(&'a Reply),
    Headers(&'a Headers),
    Query(Option<&'a str>),
    Tls(&'a TlsInfo),
}

enum Item<'a> {
    Fields(Fields<'a>),
    Value(Box<dyn Val + 'a>),
}

fn text<'a>(text: impl Into<Cow<'a, str>>) -> Item<'a> {
    Item::Value(match text.into() {
        Cow::Borrowed(text) => Box::new(CelString::from(text)),
        Cow::Owned(text) => Box::new(CelString::from(text)),
    })
}

impl<'a> Fields<'a> {
    fn get(self, name: &str) -> Option<Item<'a>> {
        Some(match (self, name) {
            (Fields::Consumer(consumer), "name") => text(&*consumer?.name),
            (Fields::Consumer(consumer), "team") => text(consumer?.team.as_deref()?),
            (Fields::Json(claims), name) => json(claims?.get(name)?),
            (Fields::Request(call), name) => {
                let head = &call.head;
                match name {
                    "method" => text(head.method.as_str()),
                    "scheme" => text(head.scheme.as_str()),
                    "version" => text(version(head.version)),
                    "host" if head.host().bytes().any(|b| b.is_ascii_uppercase()) => {
                        text(head.host().to_ascii_lowercase())
                    }
                    "host" => text(head.host()),
                    "path" => text(decoded_text(head.path())),
                    "query" => Item::Fields(Fields::Query(head.query())),
                    "headers" => Item::Fields(Fields::Headers(&head.headers)),
                    "address" => text(call.client.addr.to_string()),
                    "tls" => Item::Fields(Fields::Tls(call.client.peer.tls.as_ref()?)),
                    _ => return None,
                }
            }
            (Fields::Model(model), name) => model_field(model?, name)?,
            (Fields::Response(reply), "status") => {
                Item::Value(Box::new(CelInt::from(i64::from(reply.status.as_u16()))))
            }
            (Fields::Response(reply), "headers") => Item::Fields(Fields::Headers(&reply.headers)),
            (Fields::Headers(headers), name) => {
                let all = headers.iter().filter(|(it, _)| it.eq_ignore_ascii_case(name));
                text(joined(all.map(|(_, value)| String::from_utf8_lossy(value)))?)
            }
            (Fields::Query(query), name) => {
                let all = parameters(query).filter(|(it, _)| it == name).map(|(_, value)| value);
                text(joined(all)?)
            }
            (Fields::Tls(tls), "version") => text(&*tls.version),
            (Fields::Tls(tls), "sni") => text(tls.sni.as_deref()?),
            (Fields::Tls(tls), "client") => Item::Value(Box::new(CelBool::from(!tls.client.is_empty()))),
            _ => return None,
        })
    }

    /// What `get` would find, in no order that matters.
    fn names(self) -> Vec<CelString<'a>> {
        let known = |names: &'static [&'static str]| {
            names.iter().filter(|name| self.get(name).is_some()).map(|name| CelString::from(*name)).collect()
        };
        match self {
            Fields::Consumer(_) => known(&["name", "team"]),
            Fields::Json(claims) => claims.into_iter().flatten().map(|(name, _)| CelString::from(&**name)).collect(),
            Fields::Request(_) => {
                known(&["method", "scheme", "version", "host", "path", "query", "headers", "address", "tls"])
            }
            Fields::Model(_) => known(&[
                "name",
                "dialect",
                "stream",
                "prompt",
                "output",
                "tools",
                "images",
                "audio",
                "documents",
                "json_schema",
                "reasoning",
            ]),
            Fields::Response(_) => known(&["status", "headers"]),
            Fields::Tls(_) => known(&["version", "sni", "client"]),
            Fields::Headers(headers) => {
                let mut names: Vec<&str> = headers.iter().map(|(name, _)| name).collect();
                names.sort_unstable();
                names.dedup();
                names.into_iter().map(CelString::from).collect()
            }
            Fields::Query(query) => {
                let mut names: Vec<String> = parameters(query).map(|(name, _)| name.into_owned()).collect();
                names.sort_unstable();
                names.dedup();
                names.into_iter().map(CelString::from).collect()
            }
        }
    }
}

fn model_field<'a>(model: &'a ModelCall, name: &str) -> Option<Item<'a>> {
    let truth = |it: bool| Item::Value(Box::new(CelBool::from(it)));
    let count = |it: u64| Item::Value(Box::new(CelInt::from(i64::try_from(it).unwrap_or(i64::MAX))));
    Some(match name {
        "name" => text(&*model.model),
        "dialect" => text(model.dialect),
        "stream" => truth(model.stream),
        "prompt" => count(model.prompt),
        "output" => count(model.output),
        "tools" => truth(model.tools),
        "images" => truth(model.images),
        "audio" => truth(model.audio),
        "documents" => truth(model.documents),
        "json_schema" => truth(model.json_schema),
        "reasoning" => truth(model.reasoning),
        _ => return None,
    })
}

impl<'a> Item<'a> {
    fn boxed(self) -> Box<dyn Val + 'a> {
        match self {
            Item::Fields(fields) => Box::new(Lazy { fields, names: OnceLock::new() }),
            Item::Value(value) => value,
        }
    }
}

fn version(version: Version) -> &'static str {
    match version {
        Version::HTTP_10 => "1.0",
        Version::HTTP_2 => "2",
        _ => "1.1",
    }
}

fn parameters(query: Option<&str>) -> impl Iterator<Item = (Cow<'_, str>, Cow<'_, str>)> {
    query.into_iter().flat_map(|query| query.split('&')).filter(|pair| !pair.is_empty()).map(|pair| {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        (decoded_text(name), decoded_text(value))
    })
}

fn joined<'a>(mut values: impl Iterator<Item = Cow<'a, str>>) -> Option<Cow<'a, str>> {
    let mut joined = values.next()?;
    for more in values {
        let all = joined.to_mut();
        all.push_str(", ");
        all.push_str(&more);
    }
    Some(joined)
}

fn json(value: &Value) -> Item<'_> {
    Item::Value(match value {
        Value::Object(fields) => return Item::Fields(Fields::Json(Some(fields))),
        Value::String(it) => return text(&**it),
        Value::Null => Box::new(CelNull),
        Value::Bool(it) => Box::new(CelBool::from(*it)),
        Value::Array(items) => {
            let items: Vec<Box<dyn Val + '_>> = items.iter().map(|it| json(it).boxed()).collect();
            Box::new(CelList::from(items))
        }
        Value::Number(number) => match (number.as_i64(), number.as_u64()) {
            (Some(it), _) => Box::new(CelInt::from(it)),
            (None, Some(it)) => Box::new(CelUInt::from(it)),
            (None, None) => Box::new(CelDouble::from(number.as_f64().unwrap_or(f64::NAN))),
        },
    })
}

/// Fields as a map of CEL. Equal to nothing, itself included: maps are asked for what is in them.
#[derive(Debug)]
struct Lazy<'a> {
    fields: Fields<'a>,
    /// Once they have been walked through.
    names: OnceLock<Vec<CelString<'a>>>,
}

impl<'a> Lazy<'a> {
    fn find(&self, key: &dyn Val) -> Option<Item<'a>> {
        self.fields.get(key.downcast_ref::<CelString<'_>>()?.inner())
    }

    fn names(&self) -> &[CelString<'a>] {
        self.names.get_or_init(|| self.fields.names())
    }
}

impl Val for Lazy<'_> {
    fn get_type(&self) -> &Type {
        &MAP_TYPE
    }

    fn cel_type() -> &'static Type {
        &MAP_TYPE
    }

    fn as_container(&self) -> Option<&dyn Container> {
        Some(self)
    }

    fn as_indexer<'b, 'v>(&'b self) -> Option<&'b (dyn Indexer + 'v)>
    where
        Self: 'v,
    {
        Some(self)
    }

    fn as_iterable<'b, 'v>(&'b self) -> Option<&'b (dyn Iterable + 'v)>
    where
        Self: 'v,
    {
        Some(self)
    }

    fn as_sizer(&self) -> Option<&dyn Sizer> {
        Some(self)
    }

    fn clone_as_boxed<'v>(&self) -> Box<dyn Val + 'v>
    where
        Self: 'v,
    {
        Item::Fields(self.fields).boxed()
    }
}

impl Container for Lazy<'_> {
    fn contains(&self, key: &dyn Val) -> Result<bool, ExecutionError> {
        Ok(self.find(key).is_some())
    }
}

impl Indexer for Lazy<'_> {
    fn get<'b, 'v>(&'b self, key: &dyn Val) -> Result<CowVal<'b, 'v>, ExecutionError>
    where
        Self: 'v,
    {
        let name = key.downcast_ref::<CelString<'_>>().map_or("", CelString::inner);
        self.find(key).map(|item| CowVal::Owned(item.boxed())).ok_or_else(|| ExecutionError::no_such_key(name))
    }

    fn steal<'v>(self: Box<Self>, key: &dyn Val) -> Result<Box<dyn Val + 'v>, ExecutionError>
    where
        Self: 'v,
    {
        self.get(key).map(CowVal::into_owned)
    }
}

impl Sizer for Lazy<'_> {
    fn size(&self) -> CelInt {
        CelInt::from(self.names().len() as i64)
    }
}

impl Iterable for Lazy<'_> {
    fn iter<'b, 'v>(&'b self) -> Box<dyn Items<'b, 'v> + 'b>
    where
        Self: 'v,
    {
        Box::new(Names(self.names().iter()))
    }
}

struct Names<'b, 'a>(std::slice::Iter<'b, CelString<'a>>);

impl<'b, 'v, 'a: 'v> Items<'b, 'v> for Names<'b, 'a> {
    fn next(&mut self) -> Option<&'b (dyn Val + 'v)> {
        self.0.next().map(|name| name as &(dyn Val + 'v))
    }
}
