//! Cohere's models of embeddings behind Bedrock's `InvokeModel`.
//!
//! `{"texts", "input_type"}` gives `{"embeddings"}`: vectors, or by the name of their type what has several. How many tokens
//! that was stands in the answer's head ([`crate::Dialect::tokens_field`]). Length can be chosen of the fourth version on.

use crate::json::{self, Cursor, Kind, Out, Value};
use crate::malformed::Malformed;
use crate::neutral::{Losses, Task, Texts, Vectors};
use crate::peek::Peek;
use crate::stream::Stop;
use crate::translate::{Glance, Options};

pub(crate) fn peek(cursor: &mut Cursor<'_>, peek: &mut Peek) -> Result<(), Malformed> {
    peek.max_output = Some(0);
    cursor.object("an object", |cursor, key, _| match &**key {
        "texts" if cursor.kind()? == Kind::Array => cursor.array("an array of texts", |cursor| {
            peek.messages += 1;
            cursor.skip()
        }),
        _ => cursor.skip(),
    })
}

pub(crate) fn write_request(texts: &Texts<'_>, options: &Options<'_>, lost: &mut Losses, to: &mut Vec<u8>) {
    let has_dimensions = !options.model.contains("-v3");
    // It must be told; what is not asked for by a name is most often kept to be searched.
    let task = texts.task.map_or(Task::Document, |(task, _)| task);
    Out::object(to, |out| {
        out.items("texts", &texts.texts, |text, to| json::quote(text, to));
        out.text("input_type", word(task));
        match texts.dimensions {
            Some((dimensions, _)) if has_dimensions => out.number("output_dimension", dimensions),
            Some((_, at)) => lost.add(at),
            None => {}
        }
    });
}

/// What vectors are for, in Cohere's words, which callers of others' dialects use, too.
pub(crate) fn task(word: &str) -> Option<Task> {
    [Task::Document, Task::Query, Task::Classification, Task::Clustering]
        .into_iter()
        .find(|task| self::word(*task) == word)
}

fn word(task: Task) -> &'static str {
    match task {
        Task::Document => "search_document",
        Task::Query => "search_query",
        Task::Classification => "classification",
        Task::Clustering => "clustering",
    }
}

pub(crate) fn read_answer<'a>(body: Value<'a>, lost: &mut Losses) -> Result<Vectors<'a>, Malformed> {
    let mut fields = body.fields("an object")?;
    // The texts are those that were sent.
    for known in ["id", "response_type", "texts"] {
        fields.take(known);
    }
    let embeddings = fields.need("embeddings")?;
    let embeddings = match embeddings.is_object() {
        true => embeddings.fields("an object")?.need("float")?,
        false => embeddings,
    };
    let mut vectors = Vectors::default();
    for vector in embeddings.array("an array of vectors")? {
        let vector = vector.array("an array of numbers")?;
        vectors.vectors.push(vector.iter().map(Value::number).collect::<Result<_, _>>()?);
    }
    lost.rest(&fields);
    Ok(vectors)
}

/// It does not tell its usage, its head does.
pub(crate) fn glance(body: &[u8]) -> Result<Glance, Malformed> {
    let mut answers = false;
    let error = json::unless_error(body, |cursor, key| match key {
        "embeddings" => cursor.something().map(|something| answers = something),
        _ => cursor.skip(),
    })?;
    Ok(Glance { usage: None, stop: Some(Stop::End), answers: answers && !error })
}
