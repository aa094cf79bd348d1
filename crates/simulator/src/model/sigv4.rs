//! Whether a request to Bedrock is signed as AWS wants it: Signature Version 4. Of one access key the secret is known, and
//! with it the signature is checked; that others have one at all is enough.

use aws_lc_rs::{digest, hmac};
use http::request::Parts;

use crate::model::said;
use crate::model::target::Target;
use crate::model::vendor::{Refusal, Vendor};

/// AWS's own example.
pub const ACCESS_KEY: &str = "AKIDEXAMPLE";
pub const SECRET_KEY: &str = "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY";

pub(crate) fn check(target: &Target, head: &Parts, body: &[u8]) -> Result<(), Refusal> {
    if target.vendor != Vendor::Bedrock {
        return Ok(());
    }
    let Some(parameters) = said(&head.headers, "authorization").strip_prefix("AWS4-HMAC-SHA256 ") else {
        return Ok(());
    };
    let of = |name: &str| {
        parameters.split(',').find_map(|part| part.trim().strip_prefix(name)?.strip_prefix('=')).unwrap_or_default()
    };
    let (credential, signed, signature) = (of("Credential"), of("SignedHeaders"), of("Signature"));
    let scope: Vec<&str> = credential.split('/').collect();
    let &[access, date, region, service, "aws4_request"] = &scope[..] else {
        return Err(Refusal::bad_signature("Credential must have five parts, the last of them aws4_request.".into()));
    };
    let time = said(&head.headers, "x-amz-date");
    for name in ["host", "x-amz-date"] {
        if !signed.split(';').any(|signed| signed == name) {
            return Err(Refusal::bad_signature(format!("'{name}' must be a signed header.")));
        }
    }
    if !time.starts_with(date) || service != "bedrock" {
        return Err(Refusal::bad_signature("Credential should be scoped to the date and to service 'bedrock'.".into()));
    }
    if access != ACCESS_KEY {
        return Ok(());
    }
    let request = canonical(head, signed, body);
    if sign(&request, time, [date, region, service]) == signature {
        return Ok(());
    }
    let message = "The request signature we calculated does not match the signature you provided.";
    Err(Refusal::bad_signature(format!("{message} The Canonical String for this request should have been '{request}'")))
}

fn sign(request: &str, time: &str, [date, region, service]: [&str; 3]) -> String {
    let scope = format!("{date}/{region}/{service}/aws4_request");
    let digest = digest::digest(&digest::SHA256, request.as_bytes());
    let text = format!("AWS4-HMAC-SHA256\n{time}\n{scope}\n{}", hex(digest.as_ref()));
    let mut key = format!("AWS4{SECRET_KEY}").into_bytes();
    for part in [date, region, service, "aws4_request", &text] {
        key = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, &key), part.as_bytes()).as_ref().to_vec();
    }
    hex(&key)
}

fn canonical(head: &Parts, signed: &str, body: &[u8]) -> String {
    let path: Vec<String> = head.uri.path().split('/').map(encoded).collect();
    let mut query: Vec<&str> =
        head.uri.query().unwrap_or_default().split('&').filter(|pair| !pair.is_empty()).collect();
    query.sort_unstable();
    let mut text = format!("{}\n{}\n{}\n", head.method, path.join("/"), query.join("&"));
    for name in signed.split(';') {
        let values: Vec<String> = match (name, head.uri.authority()) {
            ("host", Some(authority)) => vec![authority.to_string()],
            _ => head
                .headers
                .get_all(name)
                .iter()
                .map(|value| trimmed(&String::from_utf8_lossy(value.as_bytes())))
                .collect(),
        };
        text.push_str(&format!("{name}:{}\n", values.join(",")));
    }
    let payload = hex(digest::digest(&digest::SHA256, body).as_ref());
    text.push_str(&format!("\n{signed}\n{payload}"));
    text
}

fn trimmed(value: &str) -> String {
    value.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// Encoded once more than it is on the way: so all services have it but S3.
fn encoded(segment: &str) -> String {
    let mut text = String::new();
    for byte in segment.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => text.push(byte.into()),
            _ => text.push_str(&format!("%{byte:02X}")),
        }
    }
    text
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    /// `get-vanilla` of AWS's own suite.
    #[test]
    fn a_vector_of_the_specification() {
        let request = http::Request::get("/").header("host", "example.amazonaws.com");
        let request = request.header("x-amz-date", "20150830T123600Z").body(()).unwrap();
        let canonical = super::canonical(&request.into_parts().0, "host;x-amz-date", b"");
        let signature = super::sign(&canonical, "20150830T123600Z", ["20150830", "us-east-1", "service"]);
        assert_eq!(signature, "5fa00fa31553b73ebf1942676e86291e8372ff2a2260956d9b8aae1d763fbf31");
    }
}
