//! A document in any of its formats: it is taken or refused, and what is wrong has its place within it.
#![no_main]

use config::{Files, Format, Source};
use libfuzzer_sys::fuzz_target;

struct Nothing;

impl Files for Nothing {
    fn read(&self, _: &base::SecretRef) -> Result<Vec<u8>, String> {
        Ok(b"something that is secret, and as long as a secret should be".to_vec())
    }
}

fuzz_target!(|data: &[u8]| {
    let Some((format, text)) = data.split_first() else { return };
    let Ok(text) = std::str::from_utf8(text) else { return };
    let format = if format % 2 == 0 { Format::Yaml } else { Format::Toml };
    let source = Source::with_format("fuzz", text.to_owned(), format);
    match config::compile(&source, &Nothing, None) {
        Ok((snapshot, warnings)) => {
            let again = config::compile(&source, &Nothing, Some(&snapshot));
            assert!(again.is_ok(), "taken, and then refused");
            drop(warnings);
        }
        Err(wrong) => {
            assert!(!wrong.is_empty(), "refused without a reason");
            for diagnostic in &wrong {
                diagnostic.render(false);
            }
            config::to_json(&wrong);
        }
    }
});
