//! Amazon Bedrock's Converse. Its events are frames with checksums, so nothing in them is filled in afterwards.

use serde_json::{Value, json};

use crate::model::ask::{Ask, Choice, Form, Tool, Wrong, content, counted, each, list, number, wrong};
use crate::model::frames;
use crate::model::piece::{Piece, fresh_id};
use crate::model::script::{Script, Usage};
use crate::model::words::Stop;

pub(crate) fn ask(model: String, form: Form, body: &Value) -> Result<Ask, Wrong> {
    let mut ask = Ask::new(model, form);
    let messages = list(body, "messages")?;
    for message in messages {
        if !matches!(message["role"].as_str(), Some("user" | "assistant")) {
            return wrong("messages", "Value at 'messages.role' must satisfy enum value set: [user, assistant]");
        }
        list(message, "content")?;
    }
    if let Some(last) = messages.last() {
        let results: Vec<_> = each(&last["content"]).filter_map(|block| block.get("toolResult")).collect();
        ask.answered = !results.is_empty();
        ask.prompt = content(results.last().map_or(&last["content"], |result| &result["content"]));
    }
    for tool in each(&body["toolConfig"]["tools"]).filter_map(|tool| tool.get("toolSpec")) {
        let Some(name) = tool["name"].as_str() else { return wrong("toolConfig", "toolSpec.name is required") };
        ask.tools.push(Tool { name: name.into(), schema: tool["inputSchema"]["json"].clone() });
    }
    let choice = &body["toolConfig"]["toolChoice"];
    ask.choice = match choice["tool"]["name"].as_str() {
        Some(name) => Choice::Named(name.into()),
        None if choice.get("any").is_some() => Choice::Any,
        None => Choice::Auto,
    };
    let format = &body["outputConfig"]["textFormat"];
    if format["type"] == "json_schema" {
        // The schema is a string with JSON in it.
        let schema = format["structure"]["jsonSchema"]["schema"].as_str().unwrap_or_default();
        ask.schema = Some(serde_json::from_str(schema).unwrap_or_default());
    }
    ask.limit = number(&body["inferenceConfig"], "maxTokens")?;
    let thinking = &body["additionalModelRequestFields"];
    ask.reasoning = matches!(thinking["thinking"]["type"].as_str(), Some("enabled" | "adaptive"));
    ask.input = counted(body, &["system", "messages", "toolConfig"]);
    Ok(ask)
}

/// As Bedrock counts: Claude's tokens, of the newer ones, by the name of the model itself and not by that of a profile.
pub(crate) fn count(model: String, body: &Value) -> Result<(String, Value, u32), Wrong> {
    let conversation = &body["input"]["converse"];
    if let Some(more) = conversation.as_object().and_then(|fields| {
        fields
            .keys()
            .find(|key| !["messages", "system", "toolConfig", "additionalModelRequestFields"].contains(&&***key))
    }) {
        return wrong("input", &format!("{more} is no field of ConverseTokensRequest"));
    }
    ask(model.clone(), Form::Whole, conversation)?;
    if !model.starts_with("anthropic.") || model.starts_with("anthropic.claude-3-haiku") {
        return wrong("modelId", "The provided model doesn't support counting tokens.");
    }
    let count = counted(conversation, &["system", "messages", "toolConfig"]);
    Ok((model, json!({"inputTokens": count}), count))
}

const SIGNATURE: &str = "c2ltdWxhdGVk";

fn tool_id() -> String {
    format!("tooluse_{}", fresh_id())
}

pub(crate) fn whole(script: &Script) -> Value {
    let mut blocks = Vec::new();
    if !script.reasoning.is_empty() {
        let text = json!({"text": script.thought(), "signature": SIGNATURE});
        blocks.push(json!({"reasoningContent": {"reasoningText": text}}));
    }
    if !script.text.is_empty() {
        blocks.push(json!({"text": script.said()}));
    }
    for call in &script.calls {
        blocks.push(json!({"toolUse": {"toolUseId": tool_id(), "name": call.name, "input": call.value()}}));
    }
    let mut answer = json!({
        "output": {"message": {"role": "assistant", "content": blocks}},
        "stopReason": reason(script.stop),
        "metrics": {"latencyMs": 1},
    });
    if script.told {
        answer["usage"] = usage(&script.usage);
    }
    answer
}

pub(crate) fn events(script: &Script) -> Vec<Piece> {
    let say = |kind: &str, data: Value| Piece::new(frames::event(kind, &data));
    let mut pieces = vec![say("messageStart", json!({"role": "assistant"}))];
    let mut index = 0;
    // Only tools have a start.
    let mut block = |start: Option<Value>, deltas: &mut dyn Iterator<Item = (Value, usize)>| {
        if let Some(start) = start {
            pieces.push(say("contentBlockStart", json!({"contentBlockIndex": index, "start": start})));
        }
        for (delta, tokens) in deltas {
            let data = json!({"contentBlockIndex": index, "delta": delta});
            pieces.push(say("contentBlockDelta", data).tokens(tokens));
        }
        pieces.push(say("contentBlockStop", json!({"contentBlockIndex": index})));
        index += 1;
    };
    if !script.reasoning.is_empty() {
        let thoughts = script.reasoning.iter().map(|piece| (json!({"reasoningContent": {"text": piece}}), 1));
        let signature = (json!({"reasoningContent": {"signature": SIGNATURE}}), 0);
        block(None, &mut thoughts.chain([signature]));
    }
    if !script.text.is_empty() {
        block(None, &mut script.text.iter().map(|piece| (json!({"text": piece}), 1)));
    }
    for call in &script.calls {
        let start = json!({"toolUse": {"toolUseId": tool_id(), "name": call.name}});
        let deltas = call.arguments.iter().map(|piece| (json!({"toolUse": {"input": piece}}), 1));
        block(Some(start), &mut deltas.into_iter());
    }
    pieces.push(say("messageStop", json!({"stopReason": reason(script.stop)})).ending());
    if script.told {
        let data = json!({"usage": usage(&script.usage), "metrics": {"latencyMs": 1}});
        pieces.push(say("metadata", data).telling(true));
    }
    pieces
}

fn reason(stop: Stop) -> &'static str {
    match stop {
        Stop::End => "end_turn",
        Stop::Length => "max_tokens",
        Stop::Calls => "tool_use",
        Stop::Filter => "content_filtered",
    }
}

fn usage(usage: &Usage) -> Value {
    let Usage { input, cached, written, output, reasoning: _ } = usage;
    json!({
        "inputTokens": input - cached - written,
        "outputTokens": output,
        "totalTokens": input + output,
        "cacheReadInputTokens": cached,
        "cacheWriteInputTokens": written,
    })
}
