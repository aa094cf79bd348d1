//! Gemini's content, whole, as events or as one array that grows; and its count of tokens.

use serde_json::{Value, json};

use crate::model::ask::{Ask, Choice, Form, Tool, Wrong, content, counted, each, list, number, wrong};
use crate::model::piece::{ID, Piece};
use crate::model::script::{Script, Usage};
use crate::model::words::Stop;

const COUNTED: [&str; 3] = ["systemInstruction", "contents", "tools"];

pub(crate) fn ask(model: String, form: Form, body: &Value) -> Result<Ask, Wrong> {
    let mut ask = Ask::new(model, form);
    let contents = list(body, "contents")?;
    for content in contents {
        if !matches!(content["role"].as_str(), None | Some("user" | "model" | "function")) {
            return wrong("contents", "Please use a valid role: user, model.");
        }
        list(content, "parts")?;
    }
    if let Some(last) = contents.last() {
        let answers: Vec<_> = each(&last["parts"]).filter_map(|part| part.get("functionResponse")).collect();
        ask.answered = !answers.is_empty();
        ask.prompt = match answers.last() {
            Some(answer) => answer["response"].to_string(),
            None => content(&last["parts"]),
        };
    }
    for declared in each(&body["tools"]).flat_map(|tool| each(&tool["functionDeclarations"])) {
        let Some(name) = declared["name"].as_str() else { return wrong("tools", "Invalid function name.") };
        // Protobuf's JSON takes both spellings of a field, and Google's own SDK makes use of that.
        let schemas = [&declared["parametersJsonSchema"], &declared["parameters_json_schema"], &declared["parameters"]];
        let schema = schemas.into_iter().find(|schema| !schema.is_null()).cloned().unwrap_or_default();
        ask.tools.push(Tool { name: name.into(), schema });
    }
    let calling = &body["toolConfig"]["functionCallingConfig"];
    ask.choice = match (calling["mode"].as_str(), calling["allowedFunctionNames"][0].as_str()) {
        (Some("NONE"), _) => Choice::None,
        (Some("ANY"), Some(name)) if calling["allowedFunctionNames"][1].is_null() => Choice::Named(name.into()),
        (Some("ANY"), _) => Choice::Any,
        _ => Choice::Auto,
    };
    let config = &body["generationConfig"];
    if config["responseMimeType"] == "application/json" {
        let schemas = [&config["responseJsonSchema"], &config["responseSchema"]];
        ask.schema = Some(schemas.into_iter().find(|schema| !schema.is_null()).cloned().unwrap_or_default());
    }
    ask.limit = number(config, "maxOutputTokens")?;
    let thinking = &config["thinkingConfig"];
    ask.reasoning = thinking["thinkingBudget"].as_i64().is_some_and(|budget| budget != 0)
        || thinking["includeThoughts"] == true
        || thinking["thinkingLevel"].is_string();
    ask.logprobs = config["responseLogprobs"] == true;
    ask.input = counted(body, &COUNTED);
    Ok(ask)
}

pub(crate) fn count(model: String, body: &Value) -> Result<(String, Value, u32), Wrong> {
    let inner = &body["generateContentRequest"];
    let body = if inner.is_null() { body } else { inner };
    list(body, "contents")?;
    let count = counted(body, &COUNTED);
    let details = json!([{"modality": "TEXT", "tokenCount": count}]);
    Ok((model, json!({"totalTokens": count, "promptTokensDetails": details}), count))
}

pub(crate) fn whole(ask: &Ask, script: &Script) -> Value {
    let mut parts = Vec::new();
    if !script.reasoning.is_empty() {
        parts.push(json!({"text": script.thought(), "thought": true}));
    }
    if !script.text.is_empty() {
        parts.push(json!({"text": script.said()}));
    }
    parts.extend(calls(script));
    let mut answer = chunk(ask, parts, Some(script.stop));
    if script.told {
        answer["usageMetadata"] = usage(&script.usage);
    }
    if ask.logprobs {
        let chosen: Value =
            script.text.iter().map(|piece| json!({"token": piece, "tokenId": 1, "logProbability": -0.25})).collect();
        answer["candidates"][0]["avgLogprobs"] = json!(-0.25);
        answer["candidates"][0]["logprobsResult"] = json!({"topCandidates": [], "chosenCandidates": chosen});
    }
    answer
}

fn chunk(ask: &Ask, parts: Vec<Value>, stop: Option<Stop>) -> Value {
    let mut candidate = json!({"content": {"parts": parts, "role": "model"}, "index": 0});
    if let Some(stop) = stop {
        candidate["finishReason"] = match stop {
            Stop::End | Stop::Calls => "STOP",
            Stop::Length => "MAX_TOKENS",
            Stop::Filter => "SAFETY",
        }
        .into();
    }
    json!({"candidates": [candidate], "modelVersion": ask.model, "responseId": ID})
}

fn calls(script: &Script) -> impl Iterator<Item = Value> {
    script.calls.iter().enumerate().map(|(index, call)| {
        let mut part = json!({"functionCall": {"name": call.name, "args": call.value(), "id": format!("{ID}{index}")}});
        if !script.reasoning.is_empty() {
            part["thoughtSignature"] = "c2ltdWxhdGVk".into();
        }
        part
    })
}

pub(crate) fn events(ask: &Ask, script: &Script) -> Vec<Piece> {
    let mut chunks = Vec::new();
    for piece in &script.reasoning {
        chunks.push((chunk(ask, vec![json!({"text": piece, "thought": true})], None), 1));
    }
    for piece in &script.text {
        chunks.push((chunk(ask, vec![json!({"text": piece})], None), 1));
    }
    // Calls come whole.
    for (part, call) in calls(script).zip(&script.calls) {
        chunks.push((chunk(ask, vec![part], None), call.arguments.len()));
    }
    chunks.push((chunk(ask, vec![json!({"text": ""})], Some(script.stop)), 0));
    let count = chunks.len();
    let mut so_far = Usage { output: 0, reasoning: 0, ..script.usage };
    let mut pieces = Vec::with_capacity(count + 1);
    for (index, (mut chunk, tokens)) in chunks.into_iter().enumerate() {
        so_far.output += tokens as u32;
        so_far.reasoning = script.usage.reasoning.min(so_far.output);
        if script.told {
            chunk["usageMetadata"] = usage(&so_far);
        }
        let last = index + 1 == count;
        let piece = match ask.form {
            Form::Array => Piece::new(format!("{}{chunk}", if index == 0 { "[" } else { ",\r\n" })),
            _ => Piece::event(None, &chunk),
        };
        let piece = piece.tokens(tokens).telling(last && script.told);
        // Events know no other end than the finish reason.
        pieces.push(if last && ask.form == Form::Events { piece.ending() } else { piece });
    }
    if ask.form == Form::Array {
        pieces.push(Piece::new("]\n").ending());
    }
    pieces
}

fn usage(usage: &Usage) -> Value {
    let Usage { input, cached, written: _, output, reasoning } = usage;
    let mut told = json!({
        "promptTokenCount": input,
        "candidatesTokenCount": output - reasoning,
        "totalTokenCount": input + output,
        "promptTokensDetails": [{"modality": "TEXT", "tokenCount": input}],
    });
    if *cached > 0 {
        told["cachedContentTokenCount"] = (*cached).into();
        told["cacheTokensDetails"] = json!([{"modality": "TEXT", "tokenCount": cached}]);
    }
    if *reasoning > 0 {
        told["thoughtsTokenCount"] = (*reasoning).into();
    }
    told
}

const MODELS: [&str; 2] = ["gemini-2.5-pro", "gemini-2.5-flash"];

pub(crate) fn models() -> Value {
    json!({"models": MODELS.map(model)})
}

pub(crate) fn model(id: &str) -> Value {
    json!({
        "name": format!("models/{id}"), "version": "001", "displayName": id, "inputTokenLimit": 1_048_576,
        "outputTokenLimit": 65_536, "supportedGenerationMethods": ["generateContent", "countTokens"],
    })
}
