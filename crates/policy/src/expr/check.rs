//! What can be known of an expression before there is a call: that its names exist and that its kinds fit.

use cel::Program;
use cel::common::ast::{Expr as Node, IdedExpr, LiteralValue, operators as op};

use super::{Gives, functions};

/// As far as it is known.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Kind {
    Any,
    Bool,
    Int,
    Uint,
    Double,
    Text,
    Bytes,
    Null,
    List,
    Map,
    /// A map from text to text.
    Texts,
    Fields(&'static [(&'static str, Kind)]),
}

const CALL: &[(&str, Kind)] = &[
    ("api", Kind::Text),
    ("route", Kind::Text),
    ("consumer", Kind::Fields(&[("name", Kind::Text), ("team", Kind::Text)])),
    ("claims", Kind::Map),
    ("request", Kind::Fields(REQUEST)),
    ("model", Kind::Fields(MODEL)),
];
const MODEL: &[(&str, Kind)] = &[
    ("name", Kind::Text),
    ("dialect", Kind::Text),
    ("stream", Kind::Bool),
    ("prompt", Kind::Int),
    ("output", Kind::Int),
    ("tools", Kind::Bool),
    ("images", Kind::Bool),
    ("audio", Kind::Bool),
    ("documents", Kind::Bool),
    ("json_schema", Kind::Bool),
    ("reasoning", Kind::Bool),
];
const REQUEST: &[(&str, Kind)] = &[
    ("method", Kind::Text),
    ("scheme", Kind::Text),
    ("version", Kind::Text),
    ("host", Kind::Text),
    ("path", Kind::Text),
    ("query", Kind::Texts),
    ("headers", Kind::Texts),
    ("address", Kind::Text),
    ("tls", Kind::Fields(&[("version", Kind::Text), ("sni", Kind::Text), ("client", Kind::Bool)])),
];
const RESPONSE: Kind = Kind::Fields(&[("status", Kind::Int), ("headers", Kind::Texts)]);

/// A function: its name, what stands before the dot, what may stand in the brackets and what must, what it gives.
type Function = (&'static str, Option<Kind>, &'static [Kind], usize, Kind);

const FUNCTIONS: &[Function] = &[
    ("contains", Some(Kind::Text), &[Kind::Text], 1, Kind::Bool),
    ("startsWith", Some(Kind::Text), &[Kind::Text], 1, Kind::Bool),
    ("endsWith", Some(Kind::Text), &[Kind::Text], 1, Kind::Bool),
    ("matches", Some(Kind::Text), &[Kind::Text], 1, Kind::Bool),
    ("within", Some(Kind::Text), &[Kind::Text], 1, Kind::Bool),
    ("size", Some(Kind::Any), &[], 0, Kind::Int),
    ("size", None, &[Kind::Any], 1, Kind::Int),
    ("lowerAscii", Some(Kind::Text), &[], 0, Kind::Text),
    ("upperAscii", Some(Kind::Text), &[], 0, Kind::Text),
    ("trim", Some(Kind::Text), &[], 0, Kind::Text),
    ("split", Some(Kind::Text), &[Kind::Text, Kind::Int], 1, Kind::List),
    ("join", Some(Kind::List), &[Kind::Text], 0, Kind::Text),
    ("replace", Some(Kind::Text), &[Kind::Text, Kind::Text, Kind::Int], 2, Kind::Text),
    ("substring", Some(Kind::Text), &[Kind::Int, Kind::Int], 1, Kind::Text),
    ("indexOf", Some(Kind::Text), &[Kind::Text, Kind::Int], 1, Kind::Int),
    ("lastIndexOf", Some(Kind::Text), &[Kind::Text, Kind::Int], 1, Kind::Int),
    ("charAt", Some(Kind::Text), &[Kind::Int], 1, Kind::Text),
    ("string", None, &[Kind::Any], 1, Kind::Text),
    ("int", None, &[Kind::Any], 1, Kind::Int),
    ("uint", None, &[Kind::Any], 1, Kind::Uint),
    ("double", None, &[Kind::Any], 1, Kind::Double),
    ("bool", None, &[Kind::Any], 1, Kind::Bool),
    ("bytes", None, &[Kind::Any], 1, Kind::Bytes),
    ("type", None, &[Kind::Any], 1, Kind::Any),
];

/// Names of kinds, which `type(x) == int` needs.
const TYPES: [&str; 9] = ["bool", "int", "uint", "double", "string", "bytes", "list", "map", "null_type"];

pub fn check(program: &Program, gives: Gives, reply: bool) -> Result<(), String> {
    let mut checker = Checker { depth: 0, reply, locals: Vec::new() };
    let found = checker.kind(program.expression());
    let found = found.map_err(|Wrong { id, message }| match program.source_info().offset_for(id) {
        Some((start, _)) => format!("at column {}: {message}", start + 1),
        None => message,
    })?;
    let (fits, wanted) = match gives {
        Gives::Truth => (fits(found, Kind::Bool), "true or false"),
        Gives::Number => (found.is_number() || found == Kind::Any, "a number"),
        Gives::Text => (fits(found, Kind::Text), "a string"),
        Gives::Value => (
            found.is_number() || found == Kind::Null || fits(found, Kind::Bool) || fits(found, Kind::Text),
            "a string, a number, true, false or null",
        ),
    };
    if fits { Ok(()) } else { Err(format!("gives {}, expected {wanted}", found.words())) }
}

/// How deep an expression may be: evaluating goes down as far, on the stack of the core.
pub const DEEPEST: usize = 64;

struct Checker {
    depth: usize,
    /// Whether there is an answer already.
    reply: bool,
    /// The variables of the macros around, the innermost last.
    locals: Vec<(String, Kind)>,
}

struct Wrong {
    id: u64,
    message: String,
}

impl Checker {
    fn kind(&mut self, node: &IdedExpr) -> Result<Kind, Wrong> {
        if self.depth == DEEPEST {
            return Err(Wrong { id: node.id, message: format!("deeper than {DEEPEST} levels") });
        }
        self.depth += 1;
        let kind = self.kind_of(node);
        self.depth -= 1;
        kind
    }

    fn kind_of(&mut self, node: &IdedExpr) -> Result<Kind, Wrong> {
        let wrong = |message: String| Err(Wrong { id: node.id, message });
        match &node.expr {
            Node::Literal(literal) => Ok(match literal {
                LiteralValue::Boolean(_) => Kind::Bool,
                LiteralValue::Bytes(_) => Kind::Bytes,
                LiteralValue::Double(_) => Kind::Double,
                LiteralValue::Int(_) => Kind::Int,
                LiteralValue::UInt(_) => Kind::Uint,
                LiteralValue::Null => Kind::Null,
                LiteralValue::String(_) => Kind::Text,
            }),
            Node::Ident(name) => self.variable(name).map_or_else(wrong, Ok),
            Node::Select(select) => {
                let of = self.kind(&select.operand)?;
                let field = field(of, &select.field).map_or_else(wrong, Ok)?;
                Ok(if select.test { Kind::Bool } else { field })
            }
            Node::List(list) => {
                for element in &list.elements {
                    self.kind(element)?;
                }
                Ok(Kind::List)
            }
            Node::Map(map) => {
                for entry in &map.entries {
                    if let cel::common::ast::EntryExpr::MapEntry(entry) = &entry.expr {
                        self.kind(&entry.key)?;
                        self.kind(&entry.value)?;
                    }
                }
                Ok(Kind::Map)
            }
            Node::Comprehension(it) => {
                let range = self.kind(&it.iter_range)?;
                if !matches!(range, Kind::Any | Kind::List | Kind::Map | Kind::Texts) {
                    return wrong(format!("{} has no items to go through", range.words()));
                }
                let accumulated = self.kind(&it.accu_init)?;
                let item = if range == Kind::Texts { Kind::Text } else { Kind::Any };
                let outside = self.locals.len();
                self.locals.push((it.iter_var.clone(), item));
                self.locals.extend(it.iter_var2.iter().map(|name| (name.clone(), Kind::Any)));
                self.locals.push((it.accu_var.clone(), accumulated));
                self.kind(&it.loop_cond)?;
                self.kind(&it.loop_step)?;
                let result = self.kind(&it.result)?;
                self.locals.truncate(outside);
                Ok(result)
            }
            Node::Call(call) => {
                let target = call.target.as_ref().map(|it| self.kind(it)).transpose()?;
                let args = call.args.iter().map(|it| self.kind(it)).collect::<Result<Vec<_>, _>>()?;
                if let Some(kind) = operator(&call.func_name, &args) {
                    return kind.map_or_else(wrong, Ok);
                }
                let kind = function(&call.func_name, target, &args).map_or_else(wrong, Ok)?;
                // What cannot be right with any call.
                if let Some(Node::Literal(LiteralValue::String(text))) = call.args.first().map(|it| &it.expr) {
                    let checked = match &*call.func_name {
                        "matches" => functions::regex(text).err().map(|it| format!("not a regular expression: {it}")),
                        "within" => functions::network(text).err(),
                        _ => None,
                    };
                    if let Some(message) = checked {
                        return wrong(message);
                    }
                }
                Ok(kind)
            }
            Node::Struct(_) | Node::Unspecified => wrong("messages are not known here".into()),
        }
    }

    fn variable(&self, name: &str) -> Result<Kind, String> {
        if let Some((_, kind)) = self.locals.iter().rev().find(|(it, _)| it == name) {
            return Ok(*kind);
        }
        if let Some((_, kind)) = CALL.iter().find(|(it, _)| *it == name) {
            return Ok(*kind);
        }
        match name {
            "response" if self.reply => Ok(RESPONSE),
            "response" => Err("there is no answer yet".into()),
            _ if TYPES.contains(&name) => Ok(Kind::Any),
            _ => Err(format!("there is no `{name}`; known here: {}", names(CALL))),
        }
    }
}

fn field(of: Kind, name: &str) -> Result<Kind, String> {
    match of {
        Kind::Fields(fields) => match fields.iter().find(|(it, _)| *it == name) {
            Some((_, kind)) => Ok(*kind),
            None => Err(format!("there is no field `{name}`; known here: {}", names(fields))),
        },
        Kind::Any | Kind::Map => Ok(Kind::Any),
        Kind::Texts => Ok(Kind::Text),
        other => Err(format!("{} has no fields", other.words())),
    }
}

/// `None` if it is no operator.
fn operator(name: &str, args: &[Kind]) -> Option<Result<Kind, String>> {
    let differ = |a: Kind, b: Kind| Err(format!("{} and {} do not go together", a.words(), b.words()));
    let truths = |args: &[Kind]| match args.iter().find(|it| !fits(**it, Kind::Bool)) {
        Some(other) => Err(format!("expected true or false, found {}", other.words())),
        None => Ok(Kind::Bool),
    };
    Some(match (name, args) {
        (op::LOGICAL_AND | op::LOGICAL_OR | op::LOGICAL_NOT | op::NOT_STRICTLY_FALSE, args) => truths(args),
        (op::CONDITIONAL, [condition, a, b]) => truths(&[*condition]).map(|_| if a == b { *a } else { Kind::Any }),
        (op::EQUALS | op::NOT_EQUALS, [a, b]) => match (a, b) {
            (Kind::Texts | Kind::Fields(_), _) | (_, Kind::Texts | Kind::Fields(_)) => {
                Err("only its fields can be compared".into())
            }
            _ if compare(*a, *b) || *a == Kind::Null || *b == Kind::Null => Ok(Kind::Bool),
            _ => differ(*a, *b),
        },
        (op::LESS | op::LESS_EQUALS | op::GREATER | op::GREATER_EQUALS, [a, b]) => match compare(*a, *b) {
            true => Ok(Kind::Bool),
            false => differ(*a, *b),
        },
        (op::IN, [_, list]) => match list {
            Kind::Any | Kind::List | Kind::Map | Kind::Texts => Ok(Kind::Bool),
            Kind::Text => {
                Err("a string has no items; expected `contains`, or a list such as that of `split(' ')`".into())
            }
            other => Err(format!("{} has no items", other.words())),
        },
        (op::INDEX, [of, _]) => match of {
            Kind::Any | Kind::List | Kind::Map => Ok(Kind::Any),
            Kind::Texts => Ok(Kind::Text),
            Kind::Fields(_) => Err("its fields follow a dot".into()),
            other => Err(format!("{} has no items", other.words())),
        },
        (op::ADD | op::SUBSTRACT | op::MULTIPLY | op::DIVIDE | op::MODULO, [a, b]) => match (a, b) {
            (Kind::Any, other) | (other, Kind::Any) => Ok(*other),
            (a, b) if a == b && a.is_number() => Ok(*a),
            (Kind::Text, Kind::Text) | (Kind::Bytes, Kind::Bytes) | (Kind::List, Kind::List) if name == op::ADD => {
                Ok(*a)
            }
            (a, b) => differ(*a, *b),
        },
        (op::NEGATE, [a]) => match a {
            Kind::Any | Kind::Int | Kind::Double => Ok(*a),
            other => Err(format!("expected a number, found {}", other.words())),
        },
        (op::OPT_INDEX | op::OPT_SELECT, _) => Err("optional values are not known here; expected `has(…)`".into()),
        _ => return None,
    })
}

fn function(name: &str, target: Option<Kind>, args: &[Kind]) -> Result<Kind, String> {
    let named: Vec<&Function> = FUNCTIONS.iter().filter(|(it, ..)| *it == name).collect();
    if named.is_empty() {
        return Err(format!("there is no function `{name}`"));
    }
    let Some((_, before, wanted, least, gives)) = named.iter().find(|(_, it, ..)| it.is_some() == target.is_some())
    else {
        return Err(match target {
            Some(_) => format!("`{name}` follows no dot; expected `{name}(…)`"),
            None => format!("`{name}` follows what it is about; expected `….{name}(…)`"),
        });
    };
    if let (Some(target), Some(before)) = (target, before)
        && !fits(target, *before)
    {
        return Err(format!("`{name}` is about {}, found {}", before.words(), target.words()));
    }
    if args.len() < *least || args.len() > wanted.len() {
        return Err(format!("`{name}` does not take {} arguments", args.len()));
    }
    match args.iter().zip(*wanted).find(|(found, wanted)| !fits(**found, **wanted)) {
        Some((found, wanted)) => Err(format!("`{name}` takes {}, found {}", wanted.words(), found.words())),
        None => Ok(*gives),
    }
}

fn fits(found: Kind, wanted: Kind) -> bool {
    found == wanted || found == Kind::Any || wanted == Kind::Any
}

fn compare(a: Kind, b: Kind) -> bool {
    fits(a, b) || a.is_number() && b.is_number()
}

fn names(fields: &[(&str, Kind)]) -> String {
    fields.iter().map(|(name, _)| format!("`{name}`")).collect::<Vec<_>>().join(", ")
}

impl Kind {
    fn is_number(self) -> bool {
        matches!(self, Kind::Int | Kind::Uint | Kind::Double)
    }

    fn words(self) -> &'static str {
        match self {
            Kind::Any => "anything",
            Kind::Bool => "true or false",
            Kind::Int | Kind::Uint | Kind::Double => "a number",
            Kind::Text => "a string",
            Kind::Bytes => "bytes",
            Kind::Null => "null",
            Kind::List => "a list",
            Kind::Map | Kind::Texts | Kind::Fields(_) => "a map",
        }
    }
}
