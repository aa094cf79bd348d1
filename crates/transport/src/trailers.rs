//! Which fields may stand behind a body.

use base::Headers;

/// What is left of a trailer section when all is taken out that would change what the message is, where it goes, for
/// whom, or how its connection is used (RFC 9110, 6.5.1): some readers take trailers for fields of the head, behind the
/// back of all that has looked at the head.
pub(crate) fn as_trailers(mut fields: Headers) -> Headers {
    fields.retain_bytes(|name, _| !is_of_head(name));
    fields
}

fn is_of_head(name: &[u8]) -> bool {
    const NAMES: [&[u8]; 29] = [
        b"age",
        b"authorization",
        b"cache-control",
        b"connection",
        b"content-encoding",
        b"content-length",
        b"content-range",
        b"content-type",
        b"cookie",
        b"date",
        b"expect",
        b"expires",
        b"forwarded",
        b"host",
        b"keep-alive",
        b"location",
        b"max-forwards",
        b"pragma",
        b"proxy-authenticate",
        b"proxy-authorization",
        b"proxy-connection",
        b"set-cookie",
        b"te",
        b"trailer",
        b"transfer-encoding",
        b"upgrade",
        b"vary",
        b"warning",
        b"www-authenticate",
    ];
    NAMES.binary_search(&name).is_ok() || name.starts_with(b"x-forwarded-")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_describes_the_body_afterwards_stays() {
        let names = ["grpc-status", "grpc-message", "x-sum", "digest", "server-timing", "etag"];
        let fields = names.iter().map(|name| (*name, "1"));
        let of_head =
            ["te", "age", "content-length", "transfer-encoding", "host", "x-forwarded-for", "www-authenticate"];
        let all: Headers = fields.clone().chain(of_head.iter().map(|name| (*name, "1"))).collect();
        assert_eq!(as_trailers(all), fields.collect());
    }
}
