//! Bodies of calls to models: what is looked at is what others see, and what is translated is JSON.
#![no_main]

use libfuzzer_sys::fuzz_target;
use llm::{Dialect, Splice, peek, splice, translate};
use serde_json::Value;

fuzz_target!(|data: &[u8]| {
    let Some((mode, body)) = data.split_first() else { return };
    let from = Dialect::ALL[usize::from(*mode) % Dialect::ALL.len()];
    let found = peek(from, body);
    if let Ok(found) = &found {
        let theirs: Value = serde_json::from_slice(body).expect("what is taken is JSON");
        assert_eq!(found.model(body).as_deref(), theirs["model"].as_str().filter(|_| found.model.is_some()));
        let spliced = splice(body, found, &Splice { model: Some("m\"\n"), include_usage: true });
        serde_json::from_slice::<Value>(&spliced).expect("a changed body is JSON");
    }
    let options = translate::Options { model: "m", id: "id", include_usage: true, ..translate::Options::default() };
    for to in Dialect::ALL {
        match translate::request(from, to, body, &options) {
            Ok(translated) => drop(serde_json::from_slice::<Value>(&translated.body).expect("a request is JSON")),
            Err(error) => drop(error.to_string()),
        }
        let failure = translate::error(to, from, 500, body);
        serde_json::from_slice::<Value>(&failure.body).expect("an error is JSON");
        if let Ok(answer) = translate::answer(to, from, body, &options)
            && to != from
        {
            serde_json::from_slice::<Value>(&answer.body).expect("an answer is JSON");
        }
        drop(translate::glance(from, body));
    }
});
