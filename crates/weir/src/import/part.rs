//! A map of a configuration, taken apart field by field: what nobody takes is left, and can be told.

use serde_json::{Map, Value};

pub struct Part {
    /// Where it is.
    pub at: String,
    fields: Map<String, Value>,
}

/// What a text is: itself, or the name of a variable of the environment.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Text {
    Plain(String),
    Variable(String),
}

impl Part {
    /// Empty if it is no map.
    pub fn new(at: String, value: Option<Value>) -> Part {
        let fields = match value {
            Some(Value::Object(fields)) => fields,
            _ => Map::new(),
        };
        Part { at, fields }
    }

    pub fn path(&self, field: &str) -> String {
        if self.at.is_empty() { field.to_owned() } else { format!("{}.{field}", self.at) }
    }

    pub fn take(&mut self, field: &str) -> Option<Value> {
        self.fields.remove(field).filter(|value| !value.is_null())
    }

    pub fn part(&mut self, field: &str) -> Part {
        Part::new(self.path(field), self.take(field))
    }

    pub fn text(&mut self, field: &str) -> Option<Text> {
        let text = plain(&self.take(field)?)?;
        Some(match text.strip_prefix("os.environ/") {
            Some(variable) => Text::Variable(variable.to_owned()),
            None => Text::Plain(text),
        })
    }

    /// Also `20_000`.
    pub fn number(&mut self, field: &str) -> Option<f64> {
        number(&self.take(field)?)
    }

    /// What nobody has taken: where it is, and its name.
    pub fn left(self) -> Vec<(String, String)> {
        let Part { at, fields } = self;
        let path = |field: &str| if at.is_empty() { field.to_owned() } else { format!("{at}.{field}") };
        fields.into_iter().filter(|(_, it)| !it.is_null()).map(|(field, _)| (path(&field), field)).collect()
    }
}

pub fn plain(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.trim().to_owned()),
        Value::Number(number) => Some(number.to_string()),
        Value::Bool(it) => Some(it.to_string()),
        _ => None,
    }
}

pub fn number(value: &Value) -> Option<f64> {
    plain(value)?.replace('_', "").parse().ok().filter(|it: &f64| it.is_finite())
}
