use proptest::prelude::*;
use serde_json::{Value as Json, json};

use super::*;

fn of(dialect: Dialect, body: &str) -> Identity {
    identity(dialect, Operation::Generate, body.as_bytes(), false).unwrap_or_else(|why| panic!("{body}: {why:?}"))
}

fn chat(body: &str) -> Identity {
    of(Dialect::OpenAiChat, body)
}

const PLAIN: &str = r#"{"model":"m","messages":[{"role":"system","content":"Be short."},{"role":"user","content":"Why 2 dams?"}],"temperature":0}"#;

#[test]
fn what_means_the_same_is_the_same() {
    for same in [
        // Order, white space, escapes, spelling of numbers, the model's name, what is so anyway.
        r#"{"temperature":0.0, "messages" : [{"content":"Be short.","role":"system"},{"role":"user","content":"Why 2 dams\u003f"}],"model":"other"}"#,
        r#"{"messages":[{"role":"developer","content":[{"type":"text","text":"Be short."}]},{"role":"user","content":[{"type":"text","text":"Why 2 dams?"}]}],
            "temperature":0e0,"n":1,"stream":true,"stream_options":{"include_usage":true},"tools":[],"tool_choice":"auto","parallel_tool_calls":true,
            "presence_penalty":0,"frequency_penalty":0.0,"stop":[],"logprobs":false,"seed":null,"user":"someone","metadata":{"a":"b"},"store":false,"prompt_cache_key":"x"}"#,
    ] {
        assert_eq!(chat(same).digest, chat(PLAIN).digest, "{same}");
    }
    for (dialect, same) in [
        (Dialect::OpenAiResponses, r#"{"model":"m","instructions":"Be short.","input":"Why 2 dams?","temperature":0}"#),
        (
            Dialect::Gemini,
            r#"{"contents":[{"parts":[{"text":"Why 2 dams?"}]}],"generationConfig":{"temperature":0},"systemInstruction":{"parts":[{"text":"Be short."}]}}"#,
        ),
        (
            Dialect::Bedrock,
            r#"{"system":[{"text":"Be short."}],"messages":[{"role":"user","content":[{"text":"Why 2 dams?"}]}],"inferenceConfig":{"temperature":0}}"#,
        ),
    ] {
        assert_eq!(of(dialect, same).digest, chat(PLAIN).digest, "{same}");
    }
    let limited = PLAIN.replace("\"temperature\"", "\"max_tokens\":9,\"temperature\"");
    let anthropic = r#"{"model":"m","max_tokens":9,"system":[{"type":"text","text":"Be short.","cache_control":{"type":"ephemeral"}}],
        "messages":[{"role":"user","content":"Why 2 dams?"}],"temperature":0,"metadata":{"user_id":"me"}}"#;
    assert_eq!(of(Dialect::Anthropic, anthropic).digest, chat(&limited).digest);
}

#[test]
fn what_changes_an_answer_is_another_question() {
    let full = r#"{"model":"m","messages":[
        {"role":"system","content":"S"},
        {"role":"user","content":[{"type":"text","text":"T"},{"type":"image_url","image_url":{"url":"data:image/png;base64,AAAA","detail":"low"}}]},
        {"role":"assistant","content":"A","tool_calls":[{"id":"c1","type":"function","function":{"name":"f","arguments":"{\"x\":1}"}}]},
        {"role":"tool","tool_call_id":"c1","content":"R"},
        {"role":"user","content":"L"}],
        "tools":[{"type":"function","function":{"name":"f","description":"D","parameters":{"type":"object","properties":{"x":{"type":"number"},"y":{"type":"string"}}},"strict":true}}],
        "tool_choice":"required","parallel_tool_calls":false,"max_tokens":5,"reasoning_effort":"low",
        "response_format":{"type":"json_schema","json_schema":{"name":"n","schema":{"type":"object","properties":{"a":{},"b":{}}},"strict":true}},
        "temperature":0.5,"top_p":0.9,"top_k":3,"presence_penalty":0.1,"frequency_penalty":0.2,"seed":7,"stop":["x"],"logprobs":true,"top_logprobs":2,
        "verbosity":"low","logit_bias":{"1":2}}"#;
    let whole = chat(full);
    let mut seen = vec![whole.digest];
    for (from, to) in [
        ("\"S\"", "\"s\""),
        ("\"T\"", "\"t\""),
        ("AAAA", "AAAB"),
        ("image/png", "image/gif"),
        ("\"low\"}}]", "\"high\"}}]"),
        ("\"A\"", "\"B\""),
        ("\"c1\",\"type\"", "\"c2\",\"type\""),
        ("{\\\"x\\\":1}", "{\\\"x\\\":2}"),
        ("\"R\"", "\"RR\""),
        ("\"L\"", "\"LL\""),
        ("\"D\"", "\"E\""),
        ("\"number\"", "\"integer\""),
        // Models answer in the order of a schema.
        ("{\"a\":{},\"b\":{}}", "{\"b\":{},\"a\":{}}"),
        ("\"strict\":true}}],", "\"strict\":false}}],"),
        ("\"required\"", "\"none\""),
        ("\"parallel_tool_calls\":false", "\"parallel_tool_calls\":true"),
        ("\"max_tokens\":5", "\"max_tokens\":6"),
        ("\"reasoning_effort\":\"low\"", "\"reasoning_effort\":\"high\""),
        ("\"name\":\"n\"", "\"name\":\"nn\""),
        ("\"temperature\":0.5", "\"temperature\":0.51"),
        ("\"top_p\":0.9", "\"top_p\":0.8"),
        ("\"top_k\":3", "\"top_k\":4"),
        ("\"presence_penalty\":0.1", "\"presence_penalty\":0.2"),
        ("\"frequency_penalty\":0.2", "\"frequency_penalty\":0.1"),
        ("\"seed\":7", "\"seed\":8"),
        ("[\"x\"]", "[\"x\",\"y\"]"),
        ("\"logprobs\":true,", ""),
        ("\"top_logprobs\":2", "\"top_logprobs\":3"),
        ("\"verbosity\":\"low\"", "\"verbosity\":\"high\""),
        ("{\"1\":2}", "{\"1\":3}"),
        ("\"logit_bias\"", "\"logit_bios\""),
    ] {
        assert!(full.contains(from), "{from}");
        let other = chat(&full.replace(from, to));
        assert!(!seen.contains(&other.digest), "{from} → {to}");
        seen.push(other.digest);
        let last = matches!(from, "\"L\"");
        let around = |it: &Identity| it.said.as_ref().map(|said| said.around);
        assert_eq!(around(&other) == around(&whole), last, "{from} → {to}");
    }
}

#[test]
fn words_of_ones_own_are_the_same_only_within_their_dialect_and_as_they_come() {
    let own = r#"{"model":"m","messages":[{"role":"user","content":"x"}],"logit_bias":{"1":2,"3":4}}"#;
    let turned = r#"{"logit_bias":{"3":4.0,"1":2},"model":"m","messages":[{"role":"user","content":"x"}]}"#;
    assert_eq!(chat(own).digest, chat(turned).digest);
    let stream = |body: &str, stream| {
        identity(Dialect::OpenAiChat, Operation::Generate, body.as_bytes(), stream).unwrap().digest
    };
    assert_ne!(stream(own, false), stream(own, true));
    assert_eq!(stream(PLAIN, false), stream(PLAIN, true));
    // What the model is told in the middle is not what it is told before.
    let before =
        r#"{"messages":[{"role":"system","content":"s"},{"role":"user","content":"x"},{"role":"user","content":"y"}]}"#;
    let between =
        r#"{"messages":[{"role":"user","content":"x"},{"role":"system","content":"s"},{"role":"user","content":"y"}]}"#;
    assert_ne!(chat(before).digest, chat(between).digest);
}

#[test]
fn what_is_said_is_told_from_what_is_around_it_numbers_and_all() {
    let said = |text: &str| {
        let body = json!({ "messages": [{ "role": "system", "content": "S" }, { "role": "user", "content": text }] });
        chat(&body.to_string()).said.unwrap()
    };
    let plain = said("How high is a dam?");
    assert_eq!(plain.text, "How high is a dam?");
    assert_eq!(plain.around, said("What does a dam weigh, roughly speaking.").around);
    assert_ne!(plain.around, said("How high is a dam of 1936?").around);
    assert_ne!(said("2+2").around, said("2+3").around);
    assert_eq!(said("Add 1,000 and 2.5.").around, said("What are 1,000 plus 2.5?").around);
    let of = |messages: Json| chat(&json!({ "messages": messages }).to_string()).said;
    let image = json!({ "type": "image_url", "image_url": { "url": "https://x/y.png" } });
    assert_eq!(of(json!([{ "role": "user", "content": [image] }])), None);
    assert_eq!(of(json!([{ "role": "user", "content": "x" }, { "role": "assistant", "content": "y" }])), None);
    assert_eq!(of(json!([{ "role": "tool", "tool_call_id": "c", "content": "y" }])), None);
    assert_eq!(of(json!([{ "role": "user", "content": "  " }])), None);
}

#[test]
fn some_answers_stand_for_no_other() {
    let check = |dialect: Dialect, body: &str, expected: Apart| {
        assert_eq!(identity(dialect, Operation::Generate, body.as_bytes(), false), Err(expected), "{body}");
    };
    check(Dialect::OpenAiChat, r#"{"messages":[{"role":"user","content":"x"}],"n":2}"#, Apart::Choices);
    check(Dialect::OpenAiChat, r#"{"messages":[{"role":"user","content":"x"}],"store":true}"#, Apart::State);
    check(Dialect::OpenAiResponses, r#"{"input":"x","previous_response_id":"r"}"#, Apart::State);
    check(Dialect::OpenAiResponses, r#"{"input":"x","tools":[{"type":"web_search"}]}"#, Apart::Tools);
    check(
        Dialect::Anthropic,
        r#"{"max_tokens":1,"messages":[{"role":"user","content":"x"}],"tools":[{"type":"web_search_20250305","name":"web_search"}]}"#,
        Apart::Tools,
    );
    check(Dialect::Gemini, r#"{"contents":[{"parts":[{"text":"x"}]}],"tools":[{"googleSearch":{}}]}"#, Apart::Tools);
    check(Dialect::OpenAiChat, "{}", Apart::NoQuestion);
    let count = identity(Dialect::Anthropic, Operation::CountTokens, b"{}", false);
    assert_eq!(count, Err(Apart::NoQuestion));
}

#[test]
fn embeddings_are_known_by_their_input() {
    let of = |body: &str| identity(Dialect::OpenAiEmbeddings, Operation::Embed, body.as_bytes(), false).unwrap();
    let plain = of(r#"{"model":"e","input":"x"}"#);
    assert_eq!(plain, of(r#"{"encoding_format":"float", "input":"x","model":"f"}"#));
    assert_ne!(plain.digest, of(r#"{"model":"e","input":"y"}"#).digest);
    assert_ne!(plain.digest, of(r#"{"model":"e","input":"x","dimensions":8}"#).digest);
    assert_ne!(plain.digest, of(r#"{"model":"e","input":"x","encoding_format":"base64"}"#).digest);
}

/// JSON with the keys of its objects in another order, and blanks between everything; but for schemas.
fn disturbed(value: &Json, order: &[u8], out: &mut String) {
    match value {
        Json::Object(fields) => {
            let mut fields: Vec<_> = fields.iter().collect();
            for (at, by) in order.iter().enumerate().take(fields.len()) {
                let other = usize::from(*by) % fields.len();
                fields.swap(at, other);
            }
            out.push_str("{ ");
            for (at, (key, value)) in fields.into_iter().enumerate() {
                out.push_str(if at > 0 { " ,\n" } else { "" });
                out.push_str(&format!("{} : ", Json::from(key.as_str())));
                match &**key {
                    "parameters" => out.push_str(&value.to_string()),
                    _ => disturbed(value, order, out),
                }
            }
            out.push('}');
        }
        Json::Array(items) => {
            out.push('[');
            for (at, item) in items.iter().enumerate() {
                out.push_str(if at > 0 { "\t," } else { "" });
                disturbed(item, order, out);
            }
            out.push_str(" ]");
        }
        other => out.push_str(&other.to_string()),
    }
}

fn request() -> impl Strategy<Value = Json> {
    let text = prop_oneof!["[a-z]{1,8}", "\\PC{1,12}"];
    let message = (text.clone(), any::<bool>(), any::<bool>()).prop_map(|(text, user, parts)| {
        let content = if parts { json!([{ "type": "text", "text": text }]) } else { Json::from(text) };
        json!({ "role": if user { "user" } else { "assistant" }, "content": content })
    });
    let messages = prop::collection::vec(message, 1..5);
    (messages, text, 0..100u8, prop::option::of(0..1000u32), any::<bool>()).prop_map(
        |(messages, system, temperature, seed, tools)| {
            let mut all = vec![json!({ "role": "system", "content": system })];
            all.extend(messages);
            let mut body = json!({ "model": "m", "messages": all, "temperature": f64::from(temperature) / 50.0 });
            if let Some(seed) = seed {
                body["seed"] = seed.into();
            }
            if tools {
                let parameters = json!({ "type": "object", "properties": { "b": {}, "a": {} } });
                body["tools"] = json!([{ "type": "function", "function": { "name": "f", "parameters": parameters } }]);
            }
            body
        },
    )
}

proptest! {
    #[test]
    fn order_and_blanks_do_not_matter(body in request(), order in prop::collection::vec(any::<u8>(), 8)) {
        let mut text = String::new();
        disturbed(&body, &order, &mut text);
        prop_assert_eq!(chat(&text), chat(&body.to_string()));
    }

    #[test]
    fn two_requests_are_the_same_only_if_they_say_the_same(one in request(), two in request()) {
        // In a form in which a text and a part with that text are the same.
        let plain = |body: &Json| {
            let mut body = body.clone();
            for message in body["messages"].as_array_mut().unwrap() {
                if let Some(text) = message["content"][0]["text"].as_str() {
                    message["content"] = text.to_owned().into();
                }
            }
            body
        };
        let same = plain(&one) == plain(&two);
        prop_assert_eq!(chat(&one.to_string()).digest == chat(&two.to_string()).digest, same);
    }

    #[test]
    fn numbers_are_read_as_they_are_meant(number in any::<f64>().prop_filter("finite", |it| it.is_finite())) {
        let (one, other) = (format!("{number:e}"), format!("{number:?}"));
        prop_assert_eq!(plain(&one), plain(&other));
    }
}
