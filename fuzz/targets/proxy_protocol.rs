//! A header of the PROXY protocol: what is read of it does not depend on the pieces, and nothing behind it is.
#![no_main]

use libfuzzer_sys::fuzz_target;
use transport::proxy_protocol::{Parsed, parse};

fuzz_target!(|data: &[u8]| {
    match parse(data) {
        Ok(Parsed::Done { len, header }) => {
            assert!(len <= data.len());
            assert_eq!(parse(&data[..len]), Ok(Parsed::Done { len, header }), "what follows has been looked at");
            for end in 0..len {
                match parse(&data[..end]) {
                    Ok(Parsed::Incomplete { missing }) => {
                        assert!((1..=len - end).contains(&missing), "{missing} at {end} of {len}")
                    }
                    other => panic!("{other:?} at {end} of {len}"),
                }
            }
        }
        Ok(Parsed::Incomplete { missing }) => assert!(missing > 0),
        Err(_) => {}
    }
});
