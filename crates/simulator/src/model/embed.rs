//! Embeddings in which texts that share words are near each other: each word pushes a few of the numbers up or down.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use crate::model::ask::{Wrong, content, count, list, number, text, wrong};
use crate::model::piece::fresh_id;
use crate::model::words::Words;

const DIMENSIONS: usize = 256;

pub(crate) fn openai(model: Option<&str>, body: &Value) -> Result<(String, Value, u32), Wrong> {
    let model = model.map_or_else(|| text(body, "model"), Ok)?.to_owned();
    let inputs: Vec<String> = match &body["input"] {
        Value::String(text) => vec![text.clone()],
        // One text as tokens.
        Value::Array(tokens) if tokens.first().is_some_and(Value::is_number) => vec![body["input"].to_string()],
        Value::Array(texts) if !texts.is_empty() => {
            texts.iter().map(|text| text.as_str().map_or_else(|| text.to_string(), str::to_owned)).collect()
        }
        Value::Null => return wrong("input", "Missing required parameter: 'input'."),
        _ => return wrong("input", "'$.input' is invalid."),
    };
    let dimensions = number(body, "dimensions")?.map_or(DIMENSIONS, |number| number as usize);
    let packed = body["encoding_format"] == "base64";
    let data: Value = inputs
        .iter()
        .enumerate()
        .map(|(index, text)| {
            let vector = vector(text, dimensions);
            let embedding: Value = if packed {
                STANDARD.encode(vector.iter().flat_map(|number| number.to_le_bytes()).collect::<Vec<u8>>()).into()
            } else {
                vector.into()
            };
            json!({"object": "embedding", "index": index, "embedding": embedding})
        })
        .collect();
    let tokens = count(&body["input"]).max(1);
    let usage = json!({"prompt_tokens": tokens, "total_tokens": tokens});
    Ok((model.clone(), json!({"object": "list", "data": data, "model": model, "usage": usage}), tokens))
}

pub(crate) fn gemini(model: String, body: &Value) -> Result<(String, Value, u32), Wrong> {
    let (values, tokens) = one(body)?;
    let usage = json!({"promptTokenCount": tokens, "totalTokenCount": tokens});
    Ok((model, json!({"embedding": {"values": values}, "usageMetadata": usage}), tokens))
}

pub(crate) fn gemini_batch(model: String, body: &Value) -> Result<(String, Value, u32), Wrong> {
    let (mut embeddings, mut sum) = (Vec::new(), 0);
    for request in list(body, "requests")? {
        let (values, tokens) = one(request)?;
        embeddings.push(json!({"values": values}));
        sum += tokens;
    }
    let usage = json!({"promptTokenCount": sum, "totalTokenCount": sum});
    Ok((model, json!({"embeddings": embeddings, "usageMetadata": usage}), sum))
}

/// As Bedrock invokes models of embeddings: each has a body of its own, and refuses what is not in it.
pub(crate) fn bedrock(model: String, body: &Value) -> Result<(String, Value, u32), Wrong> {
    let (itself, _) = Words::split(&model);
    let itself =
        ["us.", "eu.", "global."].iter().find_map(|place| itself.strip_prefix(place)).unwrap_or(itself).to_owned();
    let fields: &[&str] = match &*itself {
        "amazon.titan-embed-text-v1" => &["inputText"],
        "amazon.titan-embed-text-v2:0" => &["inputText", "dimensions", "normalize", "embeddingTypes"],
        "cohere.embed-english-v3" | "cohere.embed-multilingual-v3" => {
            &["texts", "input_type", "truncate", "embedding_types"]
        }
        "cohere.embed-v4:0" => {
            &["texts", "input_type", "truncate", "embedding_types", "output_dimension", "max_tokens"]
        }
        _ => return wrong("modelId", "The provided model identifier is invalid."),
    };
    if let Some(more) = body.as_object().and_then(|all| all.keys().find(|key| !fields.contains(&&***key))) {
        let message = format!("Malformed input request: #: extraneous key [{more}] is not permitted");
        return wrong("body", &format!("{message}, please reformat your input and try again."));
    }
    match itself.starts_with("amazon.") {
        true => titan(model, itself.ends_with("-v1"), body),
        false => cohere(model, itself.ends_with("-v3"), body),
    }
}

fn titan(model: String, first: bool, body: &Value) -> Result<(String, Value, u32), Wrong> {
    let text = text(body, "inputText")?;
    if text.is_empty() {
        return wrong("inputText", "Malformed input request: expected minLength: 1, actual: 0");
    }
    let dimensions = match number(body, "dimensions")? {
        None if first => 1536,
        None => 1024,
        Some(number @ (256 | 512 | 1024)) => number as usize,
        Some(_) => return wrong("dimensions", "Malformed input request: #/dimensions: not a valid enum value"),
    };
    let (values, tokens) = (vector(text, dimensions), count(&body["inputText"]));
    let mut answer = json!({"embedding": values, "inputTextTokenCount": tokens});
    if !first {
        answer["embeddingsByType"] = json!({"float": values});
    }
    Ok((model, answer, tokens))
}

/// Tokens are told in the head alone.
fn cohere(model: String, third: bool, body: &Value) -> Result<(String, Value, u32), Wrong> {
    let texts = list(body, "texts")?;
    if texts.len() > 96 {
        return wrong("texts", "Malformed input request: #/texts: expected maximum item count: 96");
    }
    if !["search_document", "search_query", "classification", "clustering"].contains(&text(body, "input_type")?) {
        return wrong("input_type", "Malformed input request: #/input_type: not a valid enum value");
    }
    let usual = if third { 1024 } else { 1536 };
    let dimensions = number(body, "output_dimension")?.map_or(usual, |number| number as usize);
    let values: Vec<_> = texts.iter().map(|text| vector(text.as_str().unwrap_or_default(), dimensions)).collect();
    let (kind, values) = match body["embedding_types"].is_null() {
        true => ("embeddings_floats", json!(values)),
        false => ("embeddings_by_type", json!({"float": values})),
    };
    let answer = json!({"id": fresh_id(), "response_type": kind, "embeddings": values, "texts": texts});
    Ok((model, answer, count(&body["texts"])))
}

fn one(request: &Value) -> Result<(Vec<f32>, u32), Wrong> {
    list(&request["content"], "parts")?;
    let parts = &request["content"]["parts"];
    let dimensions = number(request, "outputDimensionality")?.map_or(DIMENSIONS, |number| number as usize);
    Ok((vector(&content(parts), dimensions), count(parts).max(1)))
}

/// Of length 1.
fn vector(text: &str, dimensions: usize) -> Vec<f32> {
    let mut vector = vec![0f32; dimensions];
    let words = text.split(|c: char| !c.is_alphanumeric()).filter(|word| !word.is_empty());
    for word in words {
        // FNV-1a, over and over.
        let mut hash = 0xcbf2_9ce4_8422_2325u64;
        for byte in word.to_lowercase().bytes() {
            hash = (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3);
        }
        for _ in 0..8 {
            hash = (hash ^ (hash >> 29)).wrapping_mul(0x100_0000_01b3);
            let place = (hash >> 8) as usize % dimensions;
            vector[place] += if hash & 1 == 0 { 1.0 } else { -1.0 };
        }
    }
    let length = vector.iter().map(|number| number * number).sum::<f32>().sqrt();
    if length > 0.0 {
        vector.iter_mut().for_each(|number| *number /= length);
    }
    vector
}
