//! Embeddings in which texts that share words are near each other: each word pushes a few of the numbers up or down.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use crate::model::ask::{Wrong, content, count, list, number, text, wrong};

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
