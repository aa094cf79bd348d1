//! Answers that are given again: whatever was kept is given in each dialect, whole and as a stream, or not at all; and what was
//! given says what was kept.
#![no_main]

use libfuzzer_sys::fuzz_target;
use llm::again::{Kept, give, worth_keeping};
use llm::stream::Options;
use llm::{Dialect, Stream};
use serde_json::Value;

fuzz_target!(|data: &[u8]| {
    let Some((mode, body)) = data.split_first() else { return };
    let count = Dialect::ALL.len();
    let (dialect, stream) = (Dialect::ALL[usize::from(*mode) % count], usize::from(*mode) / count % 2 == 1);
    let kept = Kept { dialect, stream, body };
    let Some(worth) = worth_keeping(&kept) else {
        // It would not have been kept, and does no harm.
        for caller in Dialect::ALL {
            for wanted in [false, true] {
                give(&kept, caller, wanted, &options());
            }
        }
        return;
    };
    for caller in Dialect::ALL {
        for wanted in [false, true] {
            let Some(given) = give(&kept, caller, wanted, &options()) else {
                assert!((caller, wanted) != (dialect, stream), "what was kept can be given as it is");
                continue;
            };
            assert_eq!(Some(&given), give(&kept, caller, wanted, &options()).as_ref(), "each time the same");
            if (caller, wanted) == (dialect, stream) {
                assert_eq!(given.body, body, "what needs no change has none");
            }
            match wanted {
                false => drop(serde_json::from_slice::<Value>(&given.body).expect("an answer is JSON")),
                true => {
                    let mut through = Stream::new(caller, caller, &options()).expect("each dialect can be metered");
                    let mut out = Vec::new();
                    through.push(&given.body, &mut out);
                    through.finish(&mut out);
                    assert_eq!(through.seen().fault, None, "a stream has its end");
                }
            }
            // Not all dialects have a word for each way to end, so it may not be worth keeping in another.
            let again = Kept { dialect: caller, stream: wanted, body: &given.body };
            if let Some(found) = worth_keeping(&again) {
                assert_eq!(found.calls, worth.calls, "it calls tools if it did");
            }
            let once_more = give(&again, caller, wanted, &options()).expect("and given");
            assert_eq!(once_more.body, given.body);
        }
    }
});

fn options() -> Options<'static> {
    Options { model: "m", id: "id", now: 1, max_event: 1 << 20, hide_usage: false }
}
