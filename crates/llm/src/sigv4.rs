//! AWS Signature Version 4: a request is signed by the fields that are added to it.
//!
//! Made for services whose paths are normalised and encoded a second time, that is all but S3.

use aws_lc_rs::{digest, hmac};
use base::{Date, Secret};

use crate::percent;

/// Who signs.
#[derive(Clone, Debug)]
pub struct Credentials {
    /// The id of the access key.
    pub id: String,
    pub secret: Secret,
    /// Of credentials that end by themselves.
    pub session_token: Option<Secret>,
}

/// A request as it will be sent.
#[derive(Clone, Copy, Debug)]
pub struct Request<'r> {
    pub method: &'r str,
    pub host: &'r str,
    /// As it goes on the wire.
    pub path_and_query: &'r str,
    /// Those that are signed beside `host` and what is added here: nobody on the way may change them.
    pub headers: &'r [(&'r str, &'r str)],
    pub body: &'r [u8],
}

/// The fields to be set in the request. `now` is in seconds since 1970; the service takes five minutes before and after.
pub fn sign(
    credentials: &Credentials,
    region: &str,
    service: &str,
    now: u64,
    request: &Request<'_>,
) -> Vec<(&'static str, String)> {
    let Date { year, month, day, hour, minute, second, .. } = Date::of_seconds(now);
    let date = format!("{year:04}{month:02}{day:02}");
    let time = format!("{date}T{hour:02}{minute:02}{second:02}Z");
    let mut set = vec![("x-amz-date", time.clone())];
    if let Some(token) = &credentials.session_token {
        set.push(("x-amz-security-token", String::from_utf8_lossy(token.expose()).into_owned()));
    }
    let headers = canonical_headers(request, &set);
    let signed: Vec<&str> = headers.iter().map(|(name, _)| name.as_str()).collect();
    let signed = signed.join(";");
    let scope = format!("{date}/{region}/{service}/aws4_request");
    let canonical = hash(canonical(request, &headers, &signed).as_bytes());
    let to_sign = format!("AWS4-HMAC-SHA256\n{time}\n{scope}\n{canonical}");

    let key = [b"AWS4", credentials.secret.expose()].concat();
    let key = [&date, region, service, "aws4_request"].iter().fold(key, |key, step| mac(&key, step.as_bytes()));
    let signature = hex(&mac(&key, to_sign.as_bytes()));
    let id = &credentials.id;
    let authorization =
        format!("AWS4-HMAC-SHA256 Credential={id}/{scope}, SignedHeaders={signed}, Signature={signature}");
    set.push(("authorization", authorization));
    set
}

/// The request as both sides write it down to sign it.
fn canonical(request: &Request<'_>, headers: &[(String, String)], signed: &str) -> String {
    let (path, query) = request.path_and_query.split_once('?').unwrap_or((request.path_and_query, ""));
    let mut out = format!("{}\n{}\n{}\n", request.method, canonical_path(path), canonical_query(query));
    for (name, value) in headers {
        out.extend([name, ":", value, "\n"]);
    }
    out.extend(["\n", signed, "\n", &hash(request.body)]);
    out
}

/// Names in lower case and in order, values that come several times put together, no blanks but single ones.
fn canonical_headers(request: &Request<'_>, set: &[(&str, String)]) -> Vec<(String, String)> {
    let given = request.headers.iter().copied().chain([("host", request.host)]);
    let all = given.chain(set.iter().map(|(name, value)| (*name, value.as_str())));
    let mut headers: Vec<(String, String)> = Vec::new();
    for (name, value) in all {
        let name = name.to_ascii_lowercase();
        let value = value.split_ascii_whitespace().collect::<Vec<_>>().join(" ");
        match headers.iter_mut().find(|(known, _)| *known == name) {
            Some((_, before)) => before.extend([",", &value]),
            None => headers.push((name, value)),
        }
    }
    headers.sort_unstable();
    headers
}

/// Without dots and empty steps. A percent sign of the wire is encoded like any other.
fn canonical_path(path: &str) -> String {
    let mut steps: Vec<&str> = Vec::new();
    for step in path.split('/') {
        match step {
            "" | "." => {}
            ".." => drop(steps.pop()),
            step => steps.push(step),
        }
    }
    let mut out = String::with_capacity(path.len() + path.len() / 4);
    for step in &steps {
        out.push('/');
        percent::encode(step, &mut out);
    }
    if steps.is_empty() || path.ends_with(['/']) {
        out.push('/');
    }
    out
}

/// In the order of names and values, encoded in one way.
fn canonical_query(query: &str) -> String {
    let mut pairs: Vec<(String, String)> = Vec::new();
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        let once = |text: &str| {
            let mut out = String::with_capacity(text.len());
            percent::encode(percent::decode(text), &mut out);
            out
        };
        pairs.push((once(name), once(value)));
    }
    pairs.sort_unstable();
    let pairs: Vec<String> = pairs.into_iter().map(|(name, value)| format!("{name}={value}")).collect();
    pairs.join("&")
}

fn mac(key: &[u8], bytes: &[u8]) -> Vec<u8> {
    hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key), bytes).as_ref().to_vec()
}

fn hash(bytes: &[u8]) -> String {
    hex(digest::digest(&digest::SHA256, bytes).as_ref())
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 2015-08-30T12:36:00Z, the moment of all the suite's requests.
    const THEN: u64 = 1_440_938_160;

    #[test]
    fn the_published_test_suite() {
        let mut cases = 0;
        for case in include_str!("sigv4/suite.txt").split("\n=== ").skip(1) {
            let (title, rest) = case.split_once('\n').unwrap();
            let (request, canonical) = rest.split_once("\n---\n").unwrap();
            let [name, token, signature] = title.split(' ').collect::<Vec<_>>().try_into().unwrap();
            check(name, Some(token).filter(|token| *token != "-"), signature, request, canonical.trim_end());
            cases += 1;
        }
        assert_eq!(cases, 32);
    }

    fn check(name: &str, token: Option<&str>, signature: &str, text: &str, expected: &str) {
        let (head, body) = text.split_once("\n\n").unwrap_or((text, ""));
        // One case has a value of several lines.
        let head = head.replace("\n ", " ");
        let (first, fields) = head.split_once('\n').unwrap();
        let (method, target) = first.strip_suffix(" HTTP/1.1").unwrap().split_once(' ').unwrap();
        let digest = hash(body.as_bytes());
        let mut headers: Vec<(&str, &str)> = fields.lines().map(|line| line.split_once(':').unwrap()).collect();
        if expected.contains("x-amz-content-sha256") {
            headers.push(("X-Amz-Content-Sha256", &digest));
        }
        let at = headers.iter().position(|(name, _)| *name == "Host").unwrap();
        let (_, host) = headers.remove(at);
        let request = Request { method, host, path_and_query: target, headers: &headers, body: body.as_bytes() };

        let credentials = Credentials {
            id: "AKIDEXAMPLE".into(),
            secret: Secret::new(*b"wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY"),
            session_token: token.map(|token| Secret::new(token.as_bytes())),
        };
        let set = sign(&credentials, "us-east-1", "service", THEN, &request);
        let added: Vec<_> = set.iter().filter(|(name, _)| *name != "authorization").cloned().collect();
        let headers = canonical_headers(&request, &added);
        let signed: Vec<&str> = headers.iter().map(|(name, _)| name.as_str()).collect();
        let signed = signed.join(";");
        assert_eq!(canonical(&request, &headers, &signed), expected, "{name}");
        if signature != "-" {
            let authorization = format!(
                "AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/20150830/us-east-1/service/aws4_request, \
                 SignedHeaders={signed}, Signature={signature}"
            );
            assert_eq!(set.last(), Some(&("authorization", authorization)), "{name}");
        }
    }

    #[test]
    fn the_name_of_a_model_is_encoded_twice() {
        let check = |path: &str, expected: &str| assert_eq!(canonical_path(path), expected);
        check("/model/anthropic.claude-v2%3A1/converse-stream", "/model/anthropic.claude-v2%253A1/converse-stream");
        check(
            "/model/arn%3Aaws%3Abedrock%3Aeu-1%3A1%3Ainference-profile%2Fx/converse",
            "/model/arn%253Aaws%253Abedrock%253Aeu-1%253A1%253Ainference-profile%252Fx/converse",
        );
        // Also where nobody has encoded it once: the service sees what is on the wire.
        check("/model/a:1/converse", "/model/a%3A1/converse");
    }
    #[test]
    fn as_the_sdk_signs_it() {
        let credentials = Credentials {
            id: "AKIDEXAMPLE".into(),
            secret: Secret::new(*b"wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY"),
            session_token: Some(Secret::new(*b"a/token=")),
        };
        let request = Request {
            method: "POST",
            host: "bedrock-runtime.us-east-1.amazonaws.com",
            path_and_query: "/model/arn%3Aaws%3Abedrock%3Aus-east-1%3A1%3Ainference-profile%2Fa.b-v1%3A0/converse",
            headers: &[("content-type", "application/json")],
            body: br#"{"messages":[]}"#,
        };
        // Computed by botocore 1.43.11.
        let signature = "936df190043aa0725f16ea49773a4dd65ffff0637980e27d2bc276f070218580";
        let set = sign(&credentials, "us-east-1", "bedrock", THEN, &request);
        assert_eq!(set[1], ("x-amz-security-token", "a/token=".to_owned()));
        assert!(set[2].1.ends_with(&format!("x-amz-security-token, Signature={signature}")), "{}", set[2].1);
    }
}
