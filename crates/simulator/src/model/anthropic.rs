//! Anthropic's messages and the count of their tokens.

use serde_json::{Value, json};

use crate::model::ask::{Ask, Choice, Form, Tool, Wrong, content, counted, each, flag, list, number, text, wrong};
use crate::model::piece::{ID, Piece};
use crate::model::script::{Script, Usage};
use crate::model::words::Stop;

/// What of a request costs input.
const COUNTED: [&str; 3] = ["system", "messages", "tools"];

pub(crate) fn ask(body: &Value) -> Result<Ask, Wrong> {
    let form = if flag(body, "stream")? { Form::Events } else { Form::Whole };
    let mut ask = Ask::new(text(body, "model")?.to_owned(), form);
    ask.limit = number(body, "max_tokens")?;
    if ask.limit.is_none() {
        return wrong("max_tokens", "max_tokens: Field required");
    }
    let messages = list(body, "messages")?;
    for message in messages {
        if !matches!(message["role"].as_str(), Some("user" | "assistant")) {
            return wrong("messages", "messages: Unexpected role. Allowed roles are \"user\" or \"assistant\".");
        }
        if message["content"].is_null() {
            return wrong("messages", "messages.0.content: Field required");
        }
    }
    if let Some(last) = messages.last() {
        ask.prompt = content(&last["content"]);
        ask.answered = each(&last["content"]).any(|block| block["type"] == "tool_result");
    }
    for tool in each(&body["tools"]) {
        let Some(name) = tool["name"].as_str() else { return wrong("tools", "tools.0.name: Field required") };
        ask.tools.push(Tool { name: name.into(), schema: tool["input_schema"].clone() });
    }
    let choice = &body["tool_choice"];
    ask.choice = match (choice["type"].as_str(), choice["name"].as_str()) {
        (Some("none"), _) => Choice::None,
        (Some("any"), _) => Choice::Any,
        (Some("tool"), Some(name)) => Choice::Named(name.into()),
        _ => Choice::Auto,
    };
    // The second is how it was called in its beta.
    let formats = [&body["output_config"]["format"], &body["output_format"]];
    ask.schema = formats.iter().find(|format| format["type"] == "json_schema").map(|format| format["schema"].clone());
    ask.reasoning = matches!(body["thinking"]["type"].as_str(), Some("enabled" | "adaptive"));
    ask.input = counted(body, &COUNTED);
    Ok(ask)
}

pub(crate) fn count(body: &Value) -> Result<(String, Value, u32), Wrong> {
    let model = text(body, "model")?.to_owned();
    list(body, "messages")?;
    let count = counted(body, &COUNTED);
    Ok((model, json!({"input_tokens": count}), count))
}

pub(crate) fn whole(ask: &Ask, script: &Script) -> Value {
    let mut blocks = Vec::new();
    if !script.reasoning.is_empty() {
        blocks.push(json!({"type": "thinking", "thinking": script.thought(), "signature": SIGNATURE}));
    }
    if !script.text.is_empty() {
        blocks.push(json!({"type": "text", "text": script.said()}));
    }
    for (index, call) in script.calls.iter().enumerate() {
        blocks.push(json!({"type": "tool_use", "id": tool_id(index), "name": call.name, "input": call.value()}));
    }
    let mut message = message(ask, blocks.into(), reason(script.stop).into());
    if script.told {
        message["usage"] = usage(&script.usage);
    }
    message
}

const SIGNATURE: &str = "c2ltdWxhdGVk";

pub(crate) fn tool_id(index: usize) -> String {
    format!("toolu_{ID}{index}")
}

fn message(ask: &Ask, content: Value, reason: Value) -> Value {
    json!({
        "id": format!("msg_{ID}"), "type": "message", "role": "assistant", "model": ask.model, "content": content,
        "stop_reason": reason, "stop_sequence": null,
    })
}

pub(crate) fn events(ask: &Ask, script: &Script) -> Vec<Piece> {
    let say = |kind: &str, mut data: Value| {
        data["type"] = kind.into();
        Piece::event(Some(kind), &data)
    };
    let mut begun = message(ask, json!([]), Value::Null);
    if script.told {
        // One token is always said to be there already.
        begun["usage"] = usage(&Usage { output: 1, reasoning: 0, ..script.usage });
    }
    let mut pieces = vec![say("message_start", json!({"message": begun}))];
    let mut index = 0;
    let mut block = |start: Value, deltas: &mut dyn Iterator<Item = (Value, usize)>| {
        pieces.push(say("content_block_start", json!({"index": index, "content_block": start})));
        if index == 0 {
            pieces.push(say("ping", json!({})));
        }
        for (delta, tokens) in deltas {
            pieces.push(say("content_block_delta", json!({"index": index, "delta": delta})).tokens(tokens));
        }
        pieces.push(say("content_block_stop", json!({"index": index})));
        index += 1;
    };
    if !script.reasoning.is_empty() {
        let thoughts = script.reasoning.iter().map(|piece| (json!({"type": "thinking_delta", "thinking": piece}), 1));
        let signature = (json!({"type": "signature_delta", "signature": SIGNATURE}), 0);
        let start = json!({"type": "thinking", "thinking": "", "signature": ""});
        block(start, &mut thoughts.chain([signature]));
    }
    if !script.text.is_empty() {
        let deltas = script.text.iter().map(|piece| (json!({"type": "text_delta", "text": piece}), 1));
        block(json!({"type": "text", "text": ""}), &mut deltas.into_iter());
    }
    for (number, call) in script.calls.iter().enumerate() {
        let empty = (json!({"type": "input_json_delta", "partial_json": ""}), 0);
        let deltas = call.arguments.iter().map(|piece| (json!({"type": "input_json_delta", "partial_json": piece}), 1));
        let start = json!({"type": "tool_use", "id": tool_id(number), "name": call.name, "input": {}});
        block(start, &mut [empty].into_iter().chain(deltas));
    }
    let mut end = json!({"delta": {"stop_reason": reason(script.stop), "stop_sequence": null}});
    if script.told {
        end["usage"] = usage(&script.usage);
        for once in ["service_tier", "cache_creation"] {
            end["usage"].as_object_mut().map(|usage| usage.remove(once));
        }
    }
    pieces.push(say("message_delta", end).telling(script.told));
    pieces.push(say("message_stop", json!({})).ending());
    pieces
}

fn reason(stop: Stop) -> &'static str {
    match stop {
        Stop::End => "end_turn",
        Stop::Length => "max_tokens",
        Stop::Calls => "tool_use",
        Stop::Filter => "refusal",
    }
}

fn usage(usage: &Usage) -> Value {
    let Usage { input, cached, written, output, reasoning } = usage;
    let mut told = json!({
        "input_tokens": input - cached - written,
        "cache_creation_input_tokens": written,
        "cache_read_input_tokens": cached,
        "cache_creation": {"ephemeral_5m_input_tokens": written, "ephemeral_1h_input_tokens": 0},
        "output_tokens": output,
        "service_tier": "standard",
    });
    if *reasoning > 0 {
        told["output_tokens_details"] = json!({"thinking_tokens": reasoning});
    }
    told
}

const MODELS: [&str; 2] = ["claude-opus-4-5", "claude-sonnet-4-5"];

pub(crate) fn models() -> Value {
    json!({"data": MODELS.map(model), "has_more": false, "first_id": MODELS[0], "last_id": MODELS[1]})
}

pub(crate) fn model(id: &str) -> Value {
    json!({"type": "model", "id": id, "display_name": id, "created_at": "2025-01-01T00:00:00Z", "lifecycle": "active"})
}
