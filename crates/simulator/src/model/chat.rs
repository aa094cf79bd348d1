//! OpenAI's chat completions, and those of the many who speak as OpenAI does. Reasoning is told as DeepSeek and others do, in
//! `reasoning_content`; OpenAI itself only counts it.

use serde_json::{Value, json};

use crate::model::ask::{Ask, Choice, Form, Tool, Wrong, content, counted, each, flag, list, number, text, wrong};
use crate::model::piece::{CREATED, ID, Piece};
use crate::model::script::{Script, Usage};
use crate::model::words::Stop;

pub(crate) fn ask(model: Option<String>, body: &Value) -> Result<Ask, Wrong> {
    // Azure's model stands in the path.
    let model = model.map_or_else(|| text(body, "model").map(str::to_owned), Ok)?;
    let form = if flag(body, "stream")? { Form::Events } else { Form::Whole };
    let mut ask = Ask::new(model, form);
    let messages = list(body, "messages")?;
    for message in messages {
        let Some("system" | "developer" | "user" | "assistant" | "tool" | "function") = message["role"].as_str() else {
            return wrong("messages", "Invalid value for a message's 'role'.");
        };
        if message["content"].is_null() && message["tool_calls"].is_null() {
            return wrong("messages", "Invalid value for 'content': expected a string, got null.");
        }
    }
    if let Some(last) = messages.last() {
        ask.prompt = content(&last["content"]);
        ask.answered = last["role"] == "tool";
    }
    for tool in each(&body["tools"]) {
        let function = &tool["function"];
        let Some(name) = function["name"].as_str() else {
            return wrong("tools", "Missing required parameter: 'tools[0].function.name'.");
        };
        ask.tools.push(Tool { name: name.into(), schema: function["parameters"].clone() });
    }
    ask.choice = choice(&body["tool_choice"], &body["tool_choice"]["function"]["name"]);
    ask.schema = match body["response_format"]["type"].as_str() {
        Some("json_schema") => Some(body["response_format"]["json_schema"]["schema"].clone()),
        Some("json_object") => Some(Value::Null),
        _ => None,
    };
    ask.limit = match number(body, "max_completion_tokens")? {
        Some(limit) => Some(limit),
        None => number(body, "max_tokens")?,
    };
    ask.reasoning = body["reasoning_effort"].as_str().is_some_and(|effort| effort != "none");
    ask.logprobs = flag(body, "logprobs")?;
    ask.usage = flag(&body["stream_options"], "include_usage")?;
    ask.input = counted(body, &["messages", "tools"]);
    Ok(ask)
}

/// Of OpenAI's dialects.
pub(crate) fn choice(choice: &Value, name: &Value) -> Choice {
    match (choice.as_str(), name.as_str()) {
        (Some("none"), _) => Choice::None,
        (Some("required"), _) => Choice::Any,
        (_, Some(name)) => Choice::Named(name.into()),
        _ => Choice::Auto,
    }
}

pub(crate) fn whole(ask: &Ask, script: &Script) -> Value {
    let said = script.said();
    let mut message = json!({
        "role": "assistant",
        "content": if said.is_empty() { Value::Null } else { said.into() },
        "refusal": null,
        "annotations": [],
    });
    if !script.reasoning.is_empty() {
        message["reasoning_content"] = script.thought().into();
    }
    if !script.calls.is_empty() {
        let calls = script.calls.iter().enumerate().map(|(index, call)| {
            json!({
                "id": call_id(index), "type": "function",
                "function": {"name": call.name, "arguments": call.written()},
            })
        });
        message["tool_calls"] = calls.collect();
    }
    let logprobs = if ask.logprobs { json!({"content": logprobs(&script.text), "refusal": null}) } else { Value::Null };
    let mut answer = json!({
        "id": format!("chatcmpl-{ID}"),
        "object": "chat.completion",
        "created": CREATED,
        "model": ask.model,
        "choices": [{"index": 0, "message": message, "logprobs": logprobs, "finish_reason": finish(script.stop)}],
        "service_tier": "default",
        "system_fingerprint": "fp_simulator",
    });
    if script.told {
        answer["usage"] = usage(&script.usage);
    }
    answer
}

pub(crate) fn events(ask: &Ask, script: &Script) -> Vec<Piece> {
    let chunk = |choices: Value| {
        let mut chunk = json!({
            "id": format!("chatcmpl-{ID}"),
            "object": "chat.completion.chunk",
            "created": CREATED,
            "model": ask.model,
            "choices": choices,
            "service_tier": "default",
            "system_fingerprint": "fp_simulator",
        });
        if ask.usage && script.told {
            chunk["usage"] = Value::Null;
        }
        chunk
    };
    let delta = |delta: Value| chunk(json!([{"index": 0, "delta": delta, "logprobs": null, "finish_reason": null}]));
    let event = |data: &Value| Piece::event(None, data);
    let content = if script.calls.is_empty() { json!("") } else { Value::Null };
    let mut pieces = vec![event(&delta(json!({"role": "assistant", "content": content, "refusal": null})))];
    for piece in &script.reasoning {
        pieces.push(event(&delta(json!({"reasoning_content": piece}))).tokens(1));
    }
    for piece in &script.text {
        let mut data = delta(json!({"content": piece}));
        if ask.logprobs {
            data["choices"][0]["logprobs"] = json!({"content": logprobs(std::slice::from_ref(piece)), "refusal": null});
        }
        pieces.push(event(&data).tokens(1));
    }
    for (index, call) in script.calls.iter().enumerate() {
        let function = json!({"name": call.name, "arguments": ""});
        let first = json!([{"index": index, "id": call_id(index), "type": "function", "function": function}]);
        pieces.push(event(&delta(json!({"tool_calls": first}))));
        for piece in &call.arguments {
            let more = json!([{"index": index, "function": {"arguments": piece}}]);
            pieces.push(event(&delta(json!({"tool_calls": more}))).tokens(1));
        }
    }
    let end = json!([{"index": 0, "delta": {}, "logprobs": null, "finish_reason": finish(script.stop)}]);
    pieces.push(event(&chunk(end)));
    if ask.usage && script.told {
        let mut data = chunk(json!([]));
        data["usage"] = usage(&script.usage);
        pieces.push(event(&data).telling(true));
    }
    pieces.push(Piece::new("data: [DONE]\n\n").ending());
    pieces
}

pub(crate) fn call_id(index: usize) -> String {
    format!("call_{ID}{index}")
}

fn finish(stop: Stop) -> &'static str {
    match stop {
        Stop::End => "stop",
        Stop::Length => "length",
        Stop::Calls => "tool_calls",
        Stop::Filter => "content_filter",
    }
}

fn usage(usage: &Usage) -> Value {
    let Usage { input, cached, written, output, reasoning } = usage;
    let mut prompt = json!({"cached_tokens": cached, "audio_tokens": 0});
    if *written > 0 {
        prompt["cache_write_tokens"] = (*written).into();
    }
    json!({
        "prompt_tokens": input,
        "completion_tokens": output,
        "total_tokens": input + output,
        "prompt_tokens_details": prompt,
        "completion_tokens_details": {
            "reasoning_tokens": reasoning, "audio_tokens": 0, "accepted_prediction_tokens": 0,
            "rejected_prediction_tokens": 0,
        },
    })
}

fn logprobs(pieces: &[String]) -> Value {
    pieces
        .iter()
        .map(|piece| json!({"token": piece, "logprob": -0.25, "bytes": piece.as_bytes(), "top_logprobs": []}))
        .collect()
}

const MODELS: [&str; 3] = ["gpt-5", "gpt-4o", "text-embedding-3-small"];

pub(crate) fn models() -> Value {
    json!({"object": "list", "data": MODELS.map(model)})
}

pub(crate) fn model(id: &str) -> Value {
    json!({"id": id, "object": "model", "created": 1_735_689_600, "owned_by": "simulator"})
}
