//! OpenAI's responses.

use serde_json::{Value, json};

use crate::model::ask::{Ask, Form, Tool, Wrong, content, counted, each, flag, number, text, wrong};
use crate::model::chat::{call_id, choice};
use crate::model::piece::{CREATED, ID, Piece};
use crate::model::script::{Called, Script, Usage};
use crate::model::words::Stop;

pub(crate) fn ask(body: &Value) -> Result<Ask, Wrong> {
    let form = if flag(body, "stream")? { Form::Events } else { Form::Whole };
    let mut ask = Ask::new(text(body, "model")?.to_owned(), form);
    match &body["input"] {
        Value::String(text) => ask.prompt.clone_from(text),
        Value::Array(items) => {
            let Some(last) = items.last() else { return wrong("input", "input: at least one item is required") };
            ask.prompt = content(last);
            ask.answered = last["type"] == "function_call_output";
        }
        Value::Null => return wrong("input", "Missing required parameter: 'input'."),
        _ => return wrong("input", "Invalid type for 'input': expected a string or an array."),
    }
    for tool in each(&body["tools"]).filter(|tool| tool["type"] == "function") {
        let Some(name) = tool["name"].as_str() else {
            return wrong("tools", "Missing required parameter: 'tools[0].name'.");
        };
        ask.tools.push(Tool { name: name.into(), schema: tool["parameters"].clone() });
    }
    ask.choice = choice(&body["tool_choice"], &body["tool_choice"]["name"]);
    ask.schema = match body["text"]["format"]["type"].as_str() {
        Some("json_schema") => Some(body["text"]["format"]["schema"].clone()),
        Some("json_object") => Some(Value::Null),
        _ => None,
    };
    ask.limit = number(body, "max_output_tokens")?;
    ask.reasoning = body["reasoning"]["effort"].as_str().is_some_and(|effort| effort != "none");
    ask.input = counted(body, &["instructions", "input", "tools"]);
    Ok(ask)
}

pub(crate) fn count(body: &Value) -> Result<(String, Value, u32), Wrong> {
    let ask = ask(body)?;
    Ok((ask.model, json!({"object": "response.input_tokens", "input_tokens": ask.input}), ask.input))
}

pub(crate) fn whole(ask: &Ask, script: &Script) -> Value {
    response(ask, script, Some(script.stop))
}

/// Unfinished without a reason to stop.
fn response(ask: &Ask, script: &Script, stop: Option<Stop>) -> Value {
    let status = match stop {
        None => "in_progress",
        Some(Stop::Length | Stop::Filter) => "incomplete",
        Some(Stop::End | Stop::Calls) => "completed",
    };
    let incomplete = match stop {
        Some(Stop::Length) => json!({"reason": "max_output_tokens"}),
        Some(Stop::Filter) => json!({"reason": "content_filter"}),
        _ => Value::Null,
    };
    let output = match stop {
        Some(_) => items(script).into_iter().map(|item| item.done()).collect(),
        None => json!([]),
    };
    let usage = if script.told && stop.is_some() { usage(&script.usage) } else { Value::Null };
    let tools: Value = ask.tools.iter().map(|tool| {
        json!({"type": "function", "name": tool.name, "description": null, "parameters": tool.schema, "strict": true})
    }).collect();
    json!({
        "id": format!("resp_{ID}"), "object": "response", "created_at": CREATED, "status": status, "background": false,
        "error": null, "incomplete_details": incomplete, "instructions": null, "max_output_tokens": ask.limit,
        "model": ask.model, "output": output, "parallel_tool_calls": true, "previous_response_id": null,
        "reasoning": {"effort": null, "summary": null}, "service_tier": "default", "store": false, "temperature": 1.0,
        "text": {"format": {"type": "text"}}, "tool_choice": "auto", "tools": tools, "top_p": 1.0,
        "truncation": "disabled", "usage": usage, "user": null, "metadata": {},
    })
}

/// What the output is made of.
enum Item<'s> {
    Reasoning(&'s Script),
    Message(&'s Script),
    Call(usize, &'s Called),
}

fn items(script: &Script) -> Vec<Item<'_>> {
    let mut items = Vec::new();
    if !script.reasoning.is_empty() {
        items.push(Item::Reasoning(script));
    }
    if !script.text.is_empty() || script.calls.is_empty() {
        items.push(Item::Message(script));
    }
    items.extend(script.calls.iter().enumerate().map(|(index, call)| Item::Call(index, call)));
    items
}

impl Item<'_> {
    fn id(&self) -> String {
        match self {
            Self::Reasoning(_) => format!("rs_{ID}"),
            Self::Message(_) => format!("msg_{ID}"),
            Self::Call(index, _) => format!("fc_{ID}{index}"),
        }
    }

    fn begun(&self) -> Value {
        let id = self.id();
        match self {
            Self::Reasoning(_) => json!({"id": id, "type": "reasoning", "summary": []}),
            Self::Message(_) => {
                json!({"id": id, "type": "message", "status": "in_progress", "content": [], "role": "assistant"})
            }
            Self::Call(index, call) => json!({
                "id": id, "type": "function_call", "status": "in_progress", "arguments": "",
                "call_id": call_id(*index), "name": call.name,
            }),
        }
    }

    fn done(&self) -> Value {
        let id = self.id();
        match self {
            Self::Reasoning(script) => json!({"id": id, "type": "reasoning", "summary": [summary(&script.thought())]}),
            Self::Message(script) => json!({
                "id": id, "type": "message", "content": [part(&script.said())], "role": "assistant",
                "status": if script.stop == Stop::Length { "incomplete" } else { "completed" },
            }),
            Self::Call(index, call) => json!({
                "id": id, "type": "function_call", "status": "completed", "arguments": call.written(),
                "call_id": call_id(*index), "name": call.name,
            }),
        }
    }
}

fn part(text: &str) -> Value {
    json!({"type": "output_text", "annotations": [], "logprobs": [], "text": text})
}

fn summary(text: &str) -> Value {
    json!({"type": "summary_text", "text": text})
}

pub(crate) fn events(ask: &Ask, script: &Script) -> Vec<Piece> {
    let mut pieces = Vec::new();
    let mut say = |kind: &str, mut data: Value, tokens: usize| {
        data["type"] = kind.into();
        data["sequence_number"] = pieces.len().into();
        let end = matches!(kind, "response.completed" | "response.incomplete");
        let piece = Piece::event(Some(kind), &data).tokens(tokens).telling(end && script.told);
        pieces.push(if end { piece.ending() } else { piece });
    };
    say("response.created", json!({"response": response(ask, script, None)}), 0);
    say("response.in_progress", json!({"response": response(ask, script, None)}), 0);
    for (index, item) in items(script).iter().enumerate() {
        let id = item.id();
        say("response.output_item.added", json!({"output_index": index, "item": item.begun()}), 0);
        match item {
            Item::Reasoning(script) => {
                let with = |name: &str, value: Value| json!({"item_id": id, "output_index": index, "summary_index": 0, name: value});
                say("response.reasoning_summary_part.added", with("part", summary("")), 0);
                for piece in &script.reasoning {
                    say("response.reasoning_summary_text.delta", with("delta", piece.as_str().into()), 1);
                }
                say("response.reasoning_summary_text.done", with("text", script.thought().into()), 0);
                say("response.reasoning_summary_part.done", with("part", summary(&script.thought())), 0);
            }
            Item::Message(script) => {
                let with = |name: &str, value: Value| json!({"item_id": id, "output_index": index, "content_index": 0, name: value});
                say("response.content_part.added", with("part", part("")), 0);
                for piece in &script.text {
                    let mut data = with("delta", piece.as_str().into());
                    data["logprobs"] = json!([]);
                    say("response.output_text.delta", data, 1);
                }
                let mut data = with("text", script.said().into());
                data["logprobs"] = json!([]);
                say("response.output_text.done", data, 0);
                say("response.content_part.done", with("part", part(&script.said())), 0);
            }
            Item::Call(_, call) => {
                let with = |name: &str, value: Value| json!({"item_id": id, "output_index": index, name: value});
                for piece in &call.arguments {
                    say("response.function_call_arguments.delta", with("delta", piece.as_str().into()), 1);
                }
                let mut data = with("arguments", call.written().into());
                data["name"] = call.name.as_str().into();
                say("response.function_call_arguments.done", data, 0);
            }
        }
        say("response.output_item.done", json!({"output_index": index, "item": item.done()}), 0);
    }
    let end = match script.stop {
        Stop::Length | Stop::Filter => "response.incomplete",
        Stop::End | Stop::Calls => "response.completed",
    };
    say(end, json!({"response": response(ask, script, Some(script.stop))}), 0);
    pieces
}

fn usage(usage: &Usage) -> Value {
    let Usage { input, cached, written, output, reasoning } = usage;
    json!({
        "input_tokens": input,
        "input_tokens_details": {"cached_tokens": cached, "cache_write_tokens": written},
        "output_tokens": output,
        "output_tokens_details": {"reasoning_tokens": reasoning},
        "total_tokens": input + output,
    })
}
