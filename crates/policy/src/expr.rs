//! Expressions of the document, in CEL (cel.dev), and what they may ask about.
//!
//! # What there is
//!
//! | name | what | kind |
//! |---|---|---|
//! | `api`, `route` | the names of the api and of the route that took the call | string |
//! | `consumer.name`, `consumer.team` | who calls; a field that is not known is absent | string |
//! | `claims` | what the caller's verified token says; empty without one | map |
//! | `request.method`, `.scheme`, `.version` | `GET`, `https`, `1.1` | string |
//! | `request.host` | in lower case, without a port | string |
//! | `request.path` | percent-decoded, without the query | string |
//! | `request.query` | the parameters, percent-decoded; several of one name are joined by `, ` | map of strings |
//! | `request.headers` | the fields, their names in lower case; several of one name are joined by `, ` | map of strings |
//! | `request.address` | the caller's address | string |
//! | `request.tls.version`, `.sni`, `.client` | absent without TLS; `client`: whether a certificate was shown | string, string, bool |
//! | `model.name`, `model.dialect` | what the caller asks for, and in whose words (`openai-chat`, `anthropic` ...) | string |
//! | `model.stream`, `.tools`, `.images`, `.audio`, `.documents`, `.json_schema`, `.reasoning` | what it takes | bool |
//! | `model.prompt`, `model.output` | tokens of the prompt, estimated; the most that the answer may have | int |
//! | `response.status`, `response.headers` | only where there is an answer already | int, map of strings |
//!
//! `model` is there once a call to an api of models has been understood. A rule that names it waits for that, where one
//! may; for other calls it is absent.
//!
//! What is absent is asked for with `has(consumer.team)` or `'x-a' in request.headers`; to use it is an error, and what
//! an error means is the business of who asks. Of functions there are those of the CEL standard without times, those
//! of its strings extension (`split`, `lowerAscii` …), and `request.address.within('10.0.0.0/8')`.
//!
//! All of this is checked when the document is read, as far as kinds are known: claims may hold anything.

mod check;
mod functions;
mod values;

use std::fmt;
use std::sync::Arc;

use base::{Call, Reply};
use cel::common::types::{CelBool, CelDouble, CelInt, CelNull, CelString, CelUInt};
use cel::common::value::CowVal;
use cel::{Context, Env, Program, Value};

/// Compiled, and checked to give what it was compiled for.
pub struct Expr {
    text: String,
    program: Program,
}

/// What an expression must give.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Gives {
    Truth,
    Number,
    Text,
    /// A string, a number, true, false or null.
    Value,
}

/// What an expression may ask about: always the call, and the answer once there is one.
#[derive(Clone, Copy)]
pub struct Scope<'a> {
    call: &'a Call,
    reply: Option<&'a Reply>,
}

/// Why there is no result; in the words of the evaluator, for the log.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct ExprError(String);

/// Longer than anything that a person should have to read.
const LONGEST: usize = 4096;

thread_local! {
    /// One for each core, so that no two count its references.
    static ENV: Arc<Env> = Arc::new(functions::env());
}

// === impl Expr ===

impl Expr {
    /// For calls whose answer is not there yet. What is wrong is said with its column.
    pub fn compile(text: &str, gives: Gives) -> Result<Expr, String> {
        Expr::compile_for(text, gives, false)
    }

    /// For calls with their answers.
    pub fn compile_for_reply(text: &str, gives: Gives) -> Result<Expr, String> {
        Expr::compile_for(text, gives, true)
    }

    fn compile_for(text: &str, gives: Gives, reply: bool) -> Result<Expr, String> {
        if text.len() > LONGEST {
            return Err(format!("longer than {LONGEST} bytes"));
        }
        let program = ENV.with(|env| env.compile(text)).map_err(|wrong| {
            let first = wrong.errors.first();
            first.map_or_else(
                || "not an expression".to_owned(),
                |it| format!("not an expression, at column {}: {}", it.pos.1.max(1), it.msg),
            )
        })?;
        check::check(&program, gives, reply)?;
        Ok(Expr { text: text.to_owned(), program })
    }

    pub fn text(&self) -> &str {
        &self.text
    }

    /// It asks what a call wants of a model, which is known later than the rest of it.
    pub fn names_model(&self) -> bool {
        self.program.references().has_variable("model")
    }

    pub fn truth(&self, scope: &Scope<'_>) -> Result<bool, ExprError> {
        self.evaluate(scope, |value| value.downcast_ref::<CelBool>().map(|it| *it.inner()))
    }

    pub fn number(&self, scope: &Scope<'_>) -> Result<f64, ExprError> {
        self.evaluate(scope, |value| {
            let int = value.downcast_ref::<CelInt>().map(|it| *it.inner() as f64);
            let uint = || value.downcast_ref::<CelUInt>().map(|it| *it.inner() as f64);
            let double = || value.downcast_ref::<CelDouble>().map(|it| *it.inner());
            int.or_else(uint).or_else(double)
        })
    }

    pub fn string(&self, scope: &Scope<'_>) -> Result<String, ExprError> {
        self.evaluate(scope, |value| value.downcast_ref::<CelString<'_>>().map(|it| it.inner().to_owned()))
    }

    pub fn value(&self, scope: &Scope<'_>) -> Result<serde_json::Value, ExprError> {
        use serde_json::Value as Json;
        self.evaluate(scope, |value| {
            let text = value.downcast_ref::<CelString<'_>>().map(|it| Json::from(it.inner().to_owned()));
            let truth = || value.downcast_ref::<CelBool>().map(|it| Json::from(*it.inner()));
            let int = || value.downcast_ref::<CelInt>().map(|it| Json::from(*it.inner()));
            let uint = || value.downcast_ref::<CelUInt>().map(|it| Json::from(*it.inner()));
            // Neither infinity nor what is no number is a number of JSON.
            let double = || value.downcast_ref::<CelDouble>().and_then(|it| serde_json::Number::from_f64(*it.inner()));
            let null = || value.downcast_ref::<CelNull>().map(|_| Json::Null);
            text.or_else(truth).or_else(int).or_else(uint).or_else(|| double().map(Json::Number)).or_else(null)
        })
    }

    fn evaluate<T>(&self, scope: &Scope<'_>, take: impl FnOnce(&CowVal<'_, '_>) -> Option<T>) -> Result<T, ExprError> {
        let mut context = Context::with_env(ENV.with(Arc::clone));
        context.set_variable_resolver(scope);
        let value = Value::resolve_val(self.program.expression(), &context).map_err(|it| ExprError(it.to_string()))?;
        take(&value).ok_or_else(|| ExprError(format!("gave a value of the kind {}", value.get_type().name())))
    }
}

impl fmt::Debug for Expr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`{}`", self.text)
    }
}

impl PartialEq for Expr {
    fn eq(&self, other: &Expr) -> bool {
        self.text == other.text
    }
}

// === impl Scope ===

impl<'a> Scope<'a> {
    pub fn of(call: &'a Call) -> Scope<'a> {
        Scope { call, reply: None }
    }

    pub fn with_reply(call: &'a Call, reply: &'a Reply) -> Scope<'a> {
        Scope { call, reply: Some(reply) }
    }
}

#[cfg(test)]
mod tests;
