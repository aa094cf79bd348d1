//! What a request and an event cost here: `cargo bench -p llm`.

use std::hint::black_box;

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use llm::{Dialect, Splice, Stream, peek, splice, stream, translate};

fn requests(c: &mut Criterion) {
    let mut group = c.benchmark_group("request");
    for kilobytes in [1, 4, 64] {
        let body = chat(kilobytes * 1024);
        group.throughput(Throughput::Bytes(body.len() as u64));
        group.bench_function(format!("peek/{kilobytes}k"), |b| {
            b.iter(|| peek(Dialect::OpenAiChat, black_box(&body)));
        });
        let found = peek(Dialect::OpenAiChat, &body).expect("a request");
        let change = Splice { model: Some("gpt-4o-2024-08-06"), include_usage: true };
        group.bench_function(format!("splice/{kilobytes}k"), |b| b.iter(|| splice(black_box(&body), &found, &change)));
        let options = translate::Options { model: "claude-sonnet-4-6", ..translate::Options::default() };
        group.bench_function(format!("translate/{kilobytes}k"), |b| {
            b.iter(|| translate::request(Dialect::OpenAiChat, Dialect::Anthropic, black_box(&body), &options));
        });
        // The yardstick: what a tree of it costs.
        group.bench_function(format!("serde_json/{kilobytes}k"), |b| {
            b.iter(|| serde_json::from_slice::<serde_json::Value>(black_box(&body)));
        });
    }
}

fn events(c: &mut Criterion) {
    let mut group = c.benchmark_group("event");
    let cases = [
        ("same/openai", Dialect::OpenAiChat, Dialect::OpenAiChat, CHAT),
        ("same/anthropic", Dialect::Anthropic, Dialect::Anthropic, ANTHROPIC),
        ("translated/openai to anthropic", Dialect::Anthropic, Dialect::OpenAiChat, CHAT),
        ("translated/anthropic to openai", Dialect::OpenAiChat, Dialect::Anthropic, ANTHROPIC),
    ];
    for (name, caller, provider, event) in cases {
        group.bench_function(name, |b| {
            let mut out = Vec::with_capacity(4096);
            b.iter_batched_ref(
                || {
                    let mut stream = Stream::new(caller, provider, &stream::Options::default()).expect("a pair");
                    stream.push(event.as_bytes(), &mut Vec::new());
                    stream
                },
                |stream| {
                    for _ in 0..100 {
                        out.clear();
                        stream.push(black_box(event.as_bytes()), &mut out);
                    }
                },
                BatchSize::SmallInput,
            );
        });
    }
}

const CHAT: &str = "data: {\"id\":\"chatcmpl-B9MHDbslfkBeAs8l4bebGdFOJ6PeG\",\"object\":\"chat.completion.chunk\",\
    \"created\":1741570283,\"model\":\"gpt-4o-2024-08-06\",\"service_tier\":\"default\",\
    \"system_fingerprint\":\"fp_50cad350e4\",\"choices\":[{\"index\":0,\"delta\":{\"content\":\" token\"},\
    \"logprobs\":null,\"finish_reason\":null}],\"usage\":null,\"obfuscation\":\"aB3dE\"}\n\n";
const ANTHROPIC: &str = "event: content_block_delta\ndata: {\"type\":\"content_block_delta\",\"index\":0,\
    \"delta\":{\"type\":\"text_delta\",\"text\":\" token\"}}\n\n";

fn chat(size: usize) -> Vec<u8> {
    let text = "The quick brown fox jumps over the lazy dog. He said \\\"well\\\", and went on.\\n";
    let half = (size - 200) / 2 / text.len();
    format!(
        "{{\"model\":\"gpt-4o\",\"messages\":[{{\"role\":\"system\",\"content\":\"{}\"}},\
         {{\"role\":\"user\",\"content\":\"{}\"}}],\"stream\":true,\"temperature\":0.7,\"max_tokens\":1000,\"user\":\"u\"}}",
        text.repeat(half),
        text.repeat(half),
    )
    .into_bytes()
}

criterion_group!(benches, requests, events);
criterion_main!(benches);
