//! Embeddings before providers that have words of their own for each maker's models: Titan's and Cohere's at Bedrock.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ledger::{Entry, Record};
use serde_json::{Value, json};
use simulator::{ACCESS_KEY, Options, SECRET_KEY, Simulator};
use testkit::{Answer, Folder, Gateway, Raw};

/// A gateway before a Bedrock that knows the secret of the key, and so checks what is signed.
struct Room {
    provider: Simulator,
    folder: Folder,
    gateway: Gateway,
}

impl Room {
    fn new() -> Room {
        let provider = Simulator::start(Options::provider("models")).unwrap();
        let folder = Folder::new();
        folder.write("key", "sk-provider");
        folder.write("aws", format!("{ACCESS_KEY}:{SECRET_KEY}"));
        let gateway = Gateway::start_in(
            &folder,
            &format!(
                "
providers:
  bedrock: {{ upstream: \"{url}\", keys: file:aws, region: us-east-1 }}
  openai: {{ upstream: {url}/v1, keys: file:key }}
models:
  titan-1: bedrock/amazon.titan-embed-text-v1
  titan-2: bedrock/amazon.titan-embed-text-v2:0
  cohere-3: bedrock/cohere.embed-english-v3
  cohere-4: bedrock/eu.cohere.embed-v4:0
  image: bedrock/amazon.titan-embed-image-v1
  either: {{ candidates: [bedrock/amazon.titan-embed-text-v2:0, openai/text-embedding-3-small] }}
ledger: {{ data: {books} }}
apis: {{ brain: {{ llm: {{}} }} }}",
                url = provider.url(),
                books = folder.path("books").display()
            ),
        );
        Room { provider, folder, gateway }
    }

    fn post(&self, path: &str, body: &Value) -> Answer {
        let body = body.to_string();
        let request = format!(
            "POST {path} HTTP/1.1\r\nhost: weir\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
            body.len()
        );
        Raw::connect(self.gateway.web()).send(request).answer()
    }

    /// What the provider was sent last, and what it will ask for it.
    fn asked(&self) -> (Value, u64) {
        let last = self.provider.books().pop().unwrap();
        (serde_json::from_slice(&last.body).unwrap(), last.usage.input.into())
    }

    fn entries(self) -> Vec<Entry> {
        drop(self.gateway);
        let records = journal::read(&self.folder.path("books"), None).unwrap();
        let entry = |record| if let Record::Entry(entry) = record { Some(entry) } else { None };
        records.filter_map(|it| entry(it.unwrap().1)).collect()
    }
}

fn numbers(vector: &Value) -> Vec<f32> {
    vector.as_array().unwrap().iter().map(|number| number.as_f64().unwrap() as f32).collect()
}

#[test]
fn each_makers_model_is_asked_in_its_own_words_and_booked_by_what_it_reports() {
    let room = Room::new();
    let document = "search_document";
    // Dollars for a million tokens, as the price book has it.
    let models = [
        ("titan-1", json!({ "inputText": "a river" }), 1536, Some("dimensions"), "0.1"),
        ("titan-2", json!({ "inputText": "a river", "dimensions": 512 }), 512, None, "0.02"),
        ("cohere-3", json!({ "texts": ["a river"], "input_type": document }), 1024, Some("dimensions"), "0.1"),
        (
            "cohere-4",
            json!({ "texts": ["a river"], "input_type": document, "output_dimension": 512 }),
            512,
            None,
            "0.12",
        ),
    ];
    let mut booked = Vec::new();
    for (model, sent, length, lost, price) in &models {
        let answer = room.post("/v1/embeddings", &json!({ "model": model, "input": "a river", "dimensions": 512 }));
        assert_eq!(answer.status, 200, "{model}: {}", answer.text());
        let (body, (asked, tokens)) = (answer.json(), room.asked());
        assert_eq!((&asked, answer.header("weir-lost")), (sent, *lost), "{model}");
        let vector = numbers(&body["data"][0]["embedding"]);
        assert_eq!((vector.len(), body["data"].as_array().unwrap().len()), (*length, 1), "{model}");
        assert_eq!(body["usage"], json!({ "prompt_tokens": tokens, "total_tokens": tokens }), "{model}");
        assert!(answer.header("x-amzn-bedrock-input-token-count").is_none(), "{model}");
        booked.push((tokens, price.parse::<f64>().unwrap() * tokens as f64 / 1e6));

        // The same numbers, as SDKs ask for them unless they are told not to.
        let packed = json!({ "model": model, "input": "a river", "dimensions": 512, "encoding_format": "base64" });
        let packed = room.post("/v1/embeddings", &packed).json();
        let bytes = STANDARD.decode(packed["data"][0]["embedding"].as_str().unwrap()).unwrap();
        let unpacked: Vec<_> = bytes.chunks_exact(4).map(|it| f32::from_le_bytes(it.try_into().unwrap())).collect();
        assert_eq!(unpacked, vector, "{model}");
    }
    let entries = room.entries();
    assert_eq!(entries.len(), 2 * models.len());
    for (entry, (tokens, cost)) in entries.iter().step_by(2).zip(booked) {
        assert_eq!((entry.usage.input, entry.usage.output, entry.estimated), (tokens, 0, false), "{entry:?}");
        let counted: f64 = entry.cost.plain().parse().unwrap();
        assert!((counted - cost).abs() < 1e-12, "{counted} for {cost}: {entry:?}");
    }
}

#[test]
fn gemini_asks_for_one_vector_or_for_several() {
    let room = Room::new();
    let one = json!({ "content": { "parts": [{ "text": "a river" }] }, "taskType": "RETRIEVAL_QUERY" });
    for (model, lost) in [("titan-2", Some("taskType")), ("cohere-3", None)] {
        let answer = room.post(&format!("/v1beta/models/{model}:embedContent"), &one);
        assert_eq!((answer.status, answer.header("weir-lost")), (200, lost), "{model}: {}", answer.text());
        let (body, (asked, tokens)) = (answer.json(), room.asked());
        assert_eq!(numbers(&body["embedding"]["values"]).len(), 1024, "{model}");
        assert_eq!(body["usageMetadata"]["promptTokenCount"], tokens, "{model}");
        assert_eq!(asked["input_type"], if lost.is_none() { json!("search_query") } else { json!(null) }, "{model}");
    }
    let two = json!({ "requests": [
        { "model": "models/x", "content": { "parts": [{ "text": "a " }, { "text": "river" }] } },
        { "model": "models/x", "content": { "parts": [{ "text": "a dam" }] } },
    ] });
    let answer = room.post("/v1beta/models/cohere-3:batchEmbedContents", &two);
    assert_eq!(answer.status, 200, "{}", answer.text());
    let lengths: Vec<_> =
        answer.json()["embeddings"].as_array().unwrap().iter().map(|it| numbers(&it["values"]).len()).collect();
    assert_eq!(lengths, [1024, 1024]);
    assert_eq!(room.asked().0["texts"], json!(["a river", "a dam"]));

    let answer = room.post("/v1beta/models/titan-2:batchEmbedContents", &two);
    assert_eq!((answer.status, &answer.json()["error"]["status"]), (400, &json!("INVALID_ARGUMENT")));
    assert_eq!(
        answer.json()["error"]["message"],
        "2 texts are asked for; the provider of this model takes one text in a call"
    );
}

#[test]
fn more_texts_than_a_model_takes_go_to_one_that_takes_them_or_are_refused_unasked() {
    let room = Room::new();
    let texts = |count: usize| vec!["a river"; count];
    let ask =
        |model: &str, count: usize| room.post("/v1/embeddings", &json!({ "model": model, "input": texts(count) }));
    for (model, count, expected) in [
        ("titan-1", 2, "2 texts are asked for; the provider of this model takes one text in a call"),
        ("cohere-3", 97, "97 texts are asked for; the provider of this model takes at most 96 texts in a call"),
    ] {
        let answer = ask(model, count);
        let error = &answer.json()["error"];
        assert_eq!((answer.status, &error["type"]), (400, &json!("invalid_request_error")), "{model}");
        assert_eq!(error["message"], expected, "{model}");
    }
    let image = ask("image", 1);
    assert_eq!(image.status, 400);
    assert!(image.text().contains("is asked for embeddings here; expected one that"), "{}", image.text());
    let none = ask("titan-2", 0);
    assert_eq!(none.status, 400, "{}", none.text());
    assert_eq!(room.provider.books().len(), 0, "nobody was asked any of that");

    assert_eq!(ask("cohere-3", 96).json()["data"].as_array().unwrap().len(), 96);
    assert_eq!(ask("either", 1).header("weir-model"), Some("bedrock/amazon.titan-embed-text-v2:0"));
    let two = ask("either", 2);
    assert_eq!(two.header("weir-model"), Some("openai/text-embedding-3-small"));
    assert_eq!(two.json()["data"].as_array().unwrap().len(), 2);

    // What the provider says of its own is told in the caller's words.
    let wrong = room.post("/v1/embeddings", &json!({ "model": "titan-2", "input": "a river", "dimensions": 7 }));
    assert_eq!(wrong.status, 400);
    assert!(wrong.json()["error"]["message"].as_str().unwrap().contains("#/dimensions"), "{}", wrong.text());
}
