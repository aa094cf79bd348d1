//! Gemini's embeddings: `embedContent` for one text, `batchEmbedContents` for several.

use std::borrow::Cow;

use crate::json::{self, Cursor, Out, Value};
use crate::malformed::Malformed;
use crate::neutral::{Losses, Task, Texts, Vectors};
use crate::peek::Peek;
use crate::translate::{Glance, Options};

pub(crate) fn peek(cursor: &mut Cursor<'_>, peek: &mut Peek) -> Result<(), Malformed> {
    // The answer is vectors, which nobody counts in tokens.
    peek.max_output = Some(0);
    one(cursor, peek, true)
}

/// A request for one text; a request for several has several of them in it.
fn one(cursor: &mut Cursor<'_>, peek: &mut Peek, outermost: bool) -> Result<(), Malformed> {
    cursor.object("an object", |cursor, key, _| match &**key {
        "requests" if outermost => {
            cursor.array("an array of requests, each for one text", |cursor| one(cursor, peek, false))
        }
        "content" => {
            peek.messages += 1;
            cursor.skip()
        }
        "model" => {
            let model = cursor.string("the name of a model, which is a string")?;
            peek.places.models.push(model.range());
            Ok(())
        }
        _ => cursor.skip(),
    })
}

pub(crate) fn read_request<'a>(body: Value<'a>, lost: &mut Losses) -> Result<Texts<'a>, Malformed> {
    let mut fields = body.fields("an object")?;
    let mut texts = Texts::default();
    match fields.array("requests")? {
        Some(requests) => {
            for request in requests {
                let mut fields = request.fields("an object")?;
                let first = texts.texts.is_empty();
                let task = read_one(&mut fields, &mut texts, lost)?;
                match task {
                    _ if first => texts.task = task,
                    // Others have one word for all.
                    Some((task, at)) if texts.task.is_none_or(|(it, _)| it != task) => lost.add(at),
                    _ => {}
                }
                lost.rest(&fields);
            }
        }
        None => texts.task = read_one(&mut fields, &mut texts, lost)?,
    }
    lost.rest(&fields);
    Ok(texts)
}

/// Gives what the vector is for.
fn read_one<'a>(
    fields: &mut json::Fields<'a>,
    texts: &mut Texts<'a>,
    lost: &mut Losses,
) -> Result<Option<(Task, usize)>, Malformed> {
    // It stands in the path.
    fields.take("model");
    let mut content = fields.need("content")?.fields("a content, which is an object")?;
    let mut text = Cow::Borrowed("");
    for part in content.need("parts")?.array("an array of parts")? {
        let part = part.fields("a part, which is an object")?.need_string("text")?;
        text = if text.is_empty() { part } else { Cow::Owned(text.into_owned() + &part) };
    }
    texts.texts.push(text);
    if let Some(value) = fields.take("outputDimensionality") {
        texts.dimensions = Some((value.count()?, value.at));
    }
    let Some(value) = fields.take("taskType") else { return Ok(None) };
    let task = value.as_str().and_then(task);
    if task.is_none() {
        lost.add(value.at);
    }
    Ok(task.map(|task| (task, value.at)))
}

fn task(word: &str) -> Option<Task> {
    TASKS.into_iter().find_map(|(task, it)| (it == word).then_some(task))
}

const TASKS: [(Task, &str); 4] = [
    (Task::Document, "RETRIEVAL_DOCUMENT"),
    (Task::Query, "RETRIEVAL_QUERY"),
    (Task::Classification, "CLASSIFICATION"),
    (Task::Clustering, "CLUSTERING"),
];

/// Nothing is lost: it has a word for everything.
pub(crate) fn write_request(texts: &Texts<'_>, options: &Options<'_>, _: &mut Losses, to: &mut Vec<u8>) {
    let model = format!("models/{}", options.model);
    Out::object(to, |out| {
        out.items("requests", &texts.texts, |text, to| {
            Out::object(to, |out| {
                out.text("model", &model);
                out.fields("content", |content| {
                    content.items("parts", [text], |text, to| Out::object(to, |part| part.text("text", text)));
                });
                if let Some((_, word)) =
                    TASKS.into_iter().find(|(task, _)| texts.task.is_some_and(|(it, _)| it == *task))
                {
                    out.text("taskType", word);
                }
                if let Some((dimensions, _)) = texts.dimensions {
                    out.number("outputDimensionality", dimensions);
                }
            });
        });
    });
}

pub(crate) fn read_answer<'a>(body: Value<'a>, lost: &mut Losses) -> Result<Vectors<'a>, Malformed> {
    let mut fields = body.fields("an object")?;
    let mut vectors = Vectors::default();
    let embeddings = match fields.array("embeddings")? {
        Some(embeddings) => embeddings,
        None => vec![fields.need("embedding")?],
    };
    for embedding in embeddings {
        let mut embedding = embedding.fields("an object")?;
        let values = embedding.need("values")?.array("an array of numbers")?;
        vectors.vectors.push(values.iter().map(Value::number).collect::<Result<_, _>>()?);
    }
    if let Some(mut usage) = fields.fields("usageMetadata")? {
        vectors.tokens = usage.count("promptTokenCount")?;
    }
    lost.rest(&fields);
    Ok(vectors)
}

pub(crate) fn write_answer(vectors: &Vectors<'_>, options: &Options<'_>, to: &mut Vec<u8>) {
    let values = |vector: &[&str], to: &mut Vec<u8>| {
        Out::object(to, |out| {
            out.items("values", vector, |number, to| to.extend_from_slice(number.as_bytes()));
        });
    };
    Out::object(to, |out| {
        match vectors.vectors.first() {
            Some(vector) if options.one => values(vector, out.key("embedding")),
            _ => out.items("embeddings", &vectors.vectors, |vector, to| values(vector, to)),
        }
        if let Some(tokens) = vectors.tokens {
            out.fields("usageMetadata", |usage| {
                usage.number("promptTokenCount", tokens);
                usage.number("totalTokenCount", tokens);
            });
        }
    });
}

/// Not every version of the API tells the usage.
pub(crate) fn glance(body: &[u8]) -> Result<Glance, Malformed> {
    super::glance_at_vectors(body, ["usageMetadata", "promptTokenCount"], &["embedding", "embeddings"])
}
