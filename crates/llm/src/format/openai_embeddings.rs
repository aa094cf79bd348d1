//! OpenAI's embeddings.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use crate::format::bedrock_cohere;
use crate::json::{self, Cursor, Kind, Out, Value};
use crate::malformed::Malformed;
use crate::neutral::{Losses, Texts, Vectors};
use crate::peek::Peek;
use crate::translate::{Glance, Options};

pub(crate) fn peek(cursor: &mut Cursor<'_>, peek: &mut Peek) -> Result<(), Malformed> {
    // The answer is vectors, which nobody counts in tokens.
    peek.max_output = Some(0);
    cursor.object("an object", |cursor, key, _| {
        match &**key {
            "model" => peek.model = Some(cursor.string("the name of a model, which is a string")?.range()),
            "input" => input(cursor, peek)?,
            "encoding_format" => peek.packed = cursor.maybe_string()?.is_some_and(|it| it.decode() == "base64"),
            "user" => peek.user = cursor.maybe_string()?.map(|text| text.range()),
            _ => cursor.skip()?,
        }
        Ok(())
    })
}

/// A text, texts, the tokens of one, or the tokens of several.
fn input(cursor: &mut Cursor<'_>, peek: &mut Peek) -> Result<(), Malformed> {
    const EXPECTED: &str = "a text, its tokens, or an array of either";
    if cursor.kind()? != Kind::Array {
        peek.messages = 1;
        return cursor.skip_text(EXPECTED);
    }
    let mut loose = 0;
    cursor.array(EXPECTED, |cursor| match cursor.kind()? {
        Kind::Number => {
            loose += 1;
            cursor.number(EXPECTED).map(drop)
        }
        Kind::Array => {
            peek.messages += 1;
            cursor.array(EXPECTED, |cursor| {
                peek.tokens += 1;
                cursor.number("a token, which is a number").map(drop)
            })
        }
        _ => {
            peek.messages += 1;
            cursor.skip_text(EXPECTED)
        }
    })?;
    peek.tokens += loose;
    peek.messages += usize::from(loose > 0);
    Ok(())
}

/// The first vector of an answer whose numbers are written out.
pub(crate) fn vector(body: &[u8]) -> Option<Vec<f32>> {
    let first = json::find(body, &["data"])?.array("an array").ok()?.into_iter().next()?;
    let numbers = first.fields("an object").ok()?.array("embedding").ok()??;
    numbers.into_iter().map(|number| number.number().ok()?.parse().ok()).collect()
}

pub(crate) fn read_request<'a>(body: Value<'a>, lost: &mut Losses) -> Result<Texts<'a>, Malformed> {
    const EXPECTED: &str = "a text or an array of texts: tokens mean something to one model only";
    let mut fields = body.fields("an object")?;
    fields.take("model");
    fields.take("encoding_format");
    let input = fields.need("input")?;
    let texts = match input.is_array() {
        true => input.array(EXPECTED)?.into_iter().map(|text| text.string(EXPECTED)).collect::<Result<_, _>>()?,
        false => vec![input.string(EXPECTED)?],
    };
    let dimensions = fields.take("dimensions").map(|value| Ok((value.count()?, value.at))).transpose()?;
    // OpenAI has no word for it; who has Cohere in mind adds Cohere's.
    let mut task = None;
    if let Some(value) = fields.take("input_type") {
        match value.as_str().and_then(bedrock_cohere::task) {
            Some(known) => task = Some((known, value.at)),
            None => lost.add(value.at),
        }
    }
    let texts = Texts { texts, dimensions, task };
    lost.rest(&fields);
    Ok(texts)
}

pub(crate) fn write_request(texts: &Texts<'_>, options: &Options<'_>, lost: &mut Losses, to: &mut Vec<u8>) {
    if let Some((_, at)) = texts.task {
        lost.add(at);
    }
    Out::object(to, |out| {
        out.text("model", options.model);
        out.items("input", &texts.texts, |text, to| json::quote(text, to));
        if let Some((dimensions, _)) = texts.dimensions {
            out.number("dimensions", dimensions);
        }
        out.text("encoding_format", "float");
    });
}

pub(crate) fn read_answer<'a>(body: Value<'a>, lost: &mut Losses) -> Result<Vectors<'a>, Malformed> {
    let mut fields = body.fields("an object")?;
    for known in ["object", "model"] {
        fields.take(known);
    }
    let mut vectors = Vectors::default();
    for item in fields.need("data")?.array("an array of embeddings")? {
        let mut item = item.fields("an embedding, which is an object")?;
        let numbers = item.need("embedding")?.array("an array of numbers, which is what was asked for")?;
        vectors.vectors.push(numbers.iter().map(Value::number).collect::<Result<_, _>>()?);
    }
    if let Some(mut usage) = fields.fields("usage")? {
        vectors.tokens = usage.count("prompt_tokens")?;
    }
    lost.rest(&fields);
    Ok(vectors)
}

pub(crate) fn write_answer(vectors: &Vectors<'_>, options: &Options<'_>, to: &mut Vec<u8>) {
    Out::object(to, |out| {
        out.text("object", "list");
        out.items("data", vectors.vectors.iter().enumerate(), |(index, vector), to| {
            Out::object(to, |item| {
                item.text("object", "embedding");
                item.number("index", index);
                match options.packed {
                    true => item.text("embedding", &packed(vector)),
                    false => {
                        item.items("embedding", vector, |number, to| to.extend_from_slice(number.as_bytes()));
                    }
                }
            });
        });
        out.text("model", options.model);
        // SDKs read it without asking whether it is there.
        let tokens = vectors.tokens.unwrap_or(0);
        out.fields("usage", |usage| {
            usage.number("prompt_tokens", tokens);
            usage.number("total_tokens", tokens);
        });
    });
}

/// Numbers of four bytes, the least significant first, in base64.
fn packed(vector: &[&str]) -> String {
    // A number of JSON always is one.
    let bytes: Vec<u8> =
        vector.iter().flat_map(|number| number.parse::<f32>().unwrap_or_default().to_le_bytes()).collect();
    STANDARD.encode(bytes)
}

pub(crate) fn glance(body: &[u8]) -> Result<Glance, Malformed> {
    super::glance_at_vectors(body, ["usage", "prompt_tokens"], &["data"])
}
