//! A body as a tree that borrows from it: keys in their order, numbers as they were written, every value with its place.

use std::borrow::Cow;

use super::cursor::{Cursor, Kind, count};
use crate::malformed::Malformed;

#[derive(Clone, Debug)]
pub(crate) struct Value<'a> {
    /// As it stands in the body: what is not understood is carried like this.
    pub(crate) raw: &'a str,
    pub(crate) at: usize,
    pub(crate) tree: Tree<'a>,
}

#[derive(Clone, Debug)]
pub(crate) enum Tree<'a> {
    Null,
    Bool(bool),
    Number,
    String(Cow<'a, str>),
    Array(Vec<Value<'a>>),
    Object(Vec<Field<'a>>),
}

#[derive(Clone, Debug)]
pub(crate) struct Field<'a> {
    key: Cow<'a, str>,
    at: usize,
    /// `None` once it has been taken.
    value: Option<Value<'a>>,
}

/// The fields of an object, to be taken one by one. What nobody took at the end was not understood.
#[derive(Debug)]
pub(crate) struct Fields<'a> {
    at: usize,
    fields: Vec<Field<'a>>,
}

impl<'a> Value<'a> {
    pub(crate) fn parse(body: &'a [u8]) -> Result<Value<'a>, Malformed> {
        let mut cursor = Cursor::new(body)?;
        let value = Value::read(&mut cursor)?;
        cursor.end()?;
        Ok(value)
    }

    pub(crate) fn read(cursor: &mut Cursor<'a>) -> Result<Value<'a>, Malformed> {
        let kind = cursor.kind()?;
        let at = cursor.at();
        let tree = match kind {
            Kind::Null if cursor.null() => Tree::Null,
            Kind::Null => return Err(cursor.wrong("null")),
            Kind::Bool => Tree::Bool(cursor.bool("true or false")?),
            Kind::Number => {
                cursor.number("a number")?;
                Tree::Number
            }
            Kind::String => Tree::String(cursor.string("a string")?.decode()),
            Kind::Array => {
                let mut items = Vec::new();
                cursor.array("an array", |cursor| {
                    items.push(Value::read(cursor)?);
                    Ok(())
                })?;
                Tree::Array(items)
            }
            Kind::Object => {
                let mut fields = Vec::new();
                cursor.object("an object", |cursor, key, at| {
                    let value = Some(Value::read(cursor)?);
                    fields.push(Field { key: key.clone(), at, value });
                    Ok(())
                })?;
                Tree::Object(fields)
            }
        };
        Ok(Value { raw: cursor.slice(at..cursor.at()), at, tree })
    }

    pub(crate) fn is_null(&self) -> bool {
        matches!(self.tree, Tree::Null)
    }

    pub(crate) fn as_str(&self) -> Option<&str> {
        match &self.tree {
            Tree::String(text) => Some(text),
            _ => None,
        }
    }

    pub(crate) fn is_empty_array(&self) -> bool {
        matches!(&self.tree, Tree::Array(items) if items.is_empty())
    }

    pub(crate) fn is_string(&self) -> bool {
        matches!(self.tree, Tree::String(_))
    }

    pub(crate) fn is_object(&self) -> bool {
        matches!(self.tree, Tree::Object(_))
    }

    pub(crate) fn is_array(&self) -> bool {
        matches!(self.tree, Tree::Array(_))
    }

    pub(crate) fn string(self, expected: &'static str) -> Result<Cow<'a, str>, Malformed> {
        match self.tree {
            Tree::String(text) => Ok(text),
            _ => Err(self.wrong(expected)),
        }
    }

    pub(crate) fn array(self, expected: &'static str) -> Result<Vec<Value<'a>>, Malformed> {
        match self.tree {
            Tree::Array(items) => Ok(items),
            _ => Err(self.wrong(expected)),
        }
    }

    pub(crate) fn fields(self, expected: &'static str) -> Result<Fields<'a>, Malformed> {
        match self.tree {
            Tree::Object(fields) => Ok(Fields { at: self.at, fields }),
            _ => Err(self.wrong(expected)),
        }
    }

    /// A number as it is written.
    pub(crate) fn number(&self) -> Result<&'a str, Malformed> {
        match self.tree {
            Tree::Number => Ok(self.raw),
            _ => Err(self.wrong("a number")),
        }
    }

    pub(crate) fn bool(&self) -> Result<bool, Malformed> {
        match self.tree {
            Tree::Bool(value) => Ok(value),
            _ => Err(self.wrong("true or false")),
        }
    }

    /// A whole number that is not negative.
    pub(crate) fn count(&self) -> Result<u64, Malformed> {
        match (&self.tree, count(self.raw)) {
            (Tree::Number, Some(count)) => Ok(count),
            _ => Err(self.wrong("a whole number that is not negative")),
        }
    }

    /// That this is not what was expected.
    pub(crate) fn wrong(&self, expected: &'static str) -> Malformed {
        let what = match &self.tree {
            Tree::Null => Cow::Borrowed("null"),
            Tree::Bool(_) => Cow::Borrowed("a truth value"),
            Tree::Number => Cow::Owned(format!("the number {}", self.raw)),
            Tree::String(text) if text.len() <= 40 => Cow::Owned(format!("{text:?}")),
            Tree::String(_) => Cow::Borrowed("a string"),
            Tree::Array(_) => Cow::Borrowed("an array"),
            Tree::Object(_) => Cow::Borrowed("an object"),
        };
        Malformed::new(what, self.at, expected)
    }
}

// === impl Fields ===

impl<'a> Fields<'a> {
    /// The place of the object itself.
    pub(crate) fn at(&self) -> usize {
        self.at
    }

    /// A field, unless it is not there or `null`.
    pub(crate) fn take(&mut self, key: &str) -> Option<Value<'a>> {
        let field = self.fields.iter_mut().find(|field| field.key == key)?;
        field.value.take().filter(|value| !value.is_null())
    }

    pub(crate) fn need(&mut self, key: &'static str) -> Result<Value<'a>, Malformed> {
        let at = self.at;
        self.take(key).ok_or_else(|| Malformed::new(format!("without `{key}`"), at, format!("a field `{key}`")))
    }

    pub(crate) fn string(&mut self, key: &str) -> Result<Option<Cow<'a, str>>, Malformed> {
        self.take(key).map(|value| value.string("a string")).transpose()
    }

    pub(crate) fn need_string(&mut self, key: &'static str) -> Result<Cow<'a, str>, Malformed> {
        self.need(key)?.string("a string")
    }

    pub(crate) fn bool(&mut self, key: &str) -> Result<Option<bool>, Malformed> {
        self.take(key).map(|value| value.bool()).transpose()
    }

    /// A whole number that is not negative.
    pub(crate) fn count(&mut self, key: &str) -> Result<Option<u64>, Malformed> {
        self.take(key).map(|value| value.count()).transpose()
    }

    /// An object that is carried as it is.
    pub(crate) fn object(&mut self, key: &str) -> Result<Option<&'a str>, Malformed> {
        match self.take(key) {
            Some(value) if !value.is_object() => Err(value.wrong("an object")),
            other => Ok(other.map(|value| value.raw)),
        }
    }

    pub(crate) fn array(&mut self, key: &str) -> Result<Option<Vec<Value<'a>>>, Malformed> {
        self.take(key).map(|value| value.array("an array")).transpose()
    }

    pub(crate) fn fields(&mut self, key: &str) -> Result<Option<Fields<'a>>, Malformed> {
        self.take(key).map(|value| value.fields("an object")).transpose()
    }

    /// The same by other names.
    pub(crate) fn spelled(mut self, spell: impl Fn(&Cow<'a, str>) -> Cow<'a, str>) -> Fields<'a> {
        for field in &mut self.fields {
            field.key = spell(&field.key);
        }
        self
    }

    /// All that nobody took, by key.
    pub(crate) fn into_entries(self) -> Vec<(Cow<'a, str>, Value<'a>)> {
        self.fields.into_iter().filter_map(|field| Some((field.key, field.value?))).collect()
    }

    /// Where the fields stand that nobody took; those that are `null` say nothing.
    pub(crate) fn rest(&self) -> impl Iterator<Item = usize> {
        self.fields
            .iter()
            .filter(|field| field.value.as_ref().is_some_and(|value| !value.is_null()))
            .map(|field| field.at)
    }
}
