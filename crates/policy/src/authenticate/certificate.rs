//! Certificates that clients have shown, and that the listener has verified. Who they are is read once a connection.

use std::fmt::Write;
use std::net::IpAddr;
use std::sync::Arc;

use aws_lc_rs::digest;
use base::{Call, Consumer};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use x509_parser::prelude::{FromDer, GeneralName, X509Certificate};
use x509_parser::x509::X509Name;

use super::{Credentials, Rejected};

/// Callers whose certificate is one of those of the `consumers`. On a connection with a certificate that is no
/// consumer's every call is refused; on one without, calls may prove themselves otherwise.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct CertificateSpec {}

/// Whose certificate the connection has.
pub(super) fn find<'a>(call: &Call, credentials: &'a Credentials) -> Result<Option<&'a Arc<Consumer>>, Rejected> {
    let Some(tls) = &call.client.peer.tls else { return Ok(None) };
    let Some(own) = tls.client.first() else { return Ok(None) };
    let mut found: Option<&Arc<Consumer>> = None;
    for name in tls.names.get_or_init(|| names(own)) {
        match (credentials.certificates.get(name), found) {
            (Some(other), Some(first)) if other.name != first.name => return Err(Rejected::Ambiguous),
            (Some(consumer), None) => found = Some(consumer),
            _ => {}
        }
    }
    found.map(Some).ok_or(Rejected::UnknownCertificate)
}

/// What a document says of a certificate as [`Credentials::certificates`] has it, or what would be right.
pub fn certificate_name(kind: &str, text: &str) -> Result<String, String> {
    match kind {
        "san" => match text.split_once(':') {
            Some(("dns", name)) if !name.is_empty() => Ok(format!("dns:{}", name.to_ascii_lowercase())),
            Some(("uri" | "email", rest)) if !rest.is_empty() => Ok(text.to_owned()),
            Some(("ip", address)) => match address.parse::<IpAddr>() {
                Ok(address) => Ok(format!("ip:{address}")),
                Err(_) => Err(format!("`{address}` is no address")),
            },
            _ => Err("expected the kind of the name and the name, such as `dns:agent.internal`, `uri:…`, `email:…` \
                      or `ip:…`"
                .into()),
        },
        "spiffe" => match text.strip_prefix("spiffe://") {
            Some(id) if id.split('/').all(|part| !part.is_empty()) && id.contains('/') => Ok(format!("spiffe:{text}")),
            _ => Err("not a SPIFFE ID; expected one such as `spiffe://example.org/agents/research`".into()),
        },
        "subject" if text.contains('=') => Ok(format!("subject:{text}")),
        "subject" => Err("expected a name as `openssl x509 -noout -subject -nameopt RFC2253` prints it".into()),
        _ => match text.strip_prefix("sha256:").map(|hex| hex.replace(':', "").to_ascii_lowercase()) {
            Some(hex) if hex.len() == 64 && hex.bytes().all(|b| b.is_ascii_hexdigit()) => Ok(format!("sha256:{hex}")),
            _ => Err("expected `sha256:` and 64 hex digits, as `openssl x509 -noout -fingerprint -sha256` prints them"
                .into()),
        },
    }
}

/// All by which a certificate can be known.
fn names(der: &[u8]) -> Vec<String> {
    let mut names = Vec::new();
    let mut fingerprint = "sha256:".to_owned();
    for byte in digest::digest(&digest::SHA256, der).as_ref() {
        // Writing to a string cannot fail.
        let _ = write!(fingerprint, "{byte:02x}");
    }
    names.push(fingerprint);
    let Ok((_, certificate)) = X509Certificate::from_der(der) else { return names };
    if let Some(subject) = subject(certificate.subject()) {
        names.push(format!("subject:{subject}"));
    }
    let alternative = certificate.subject_alternative_name().ok().flatten();
    let alternative = alternative.map(|it| &*it.value.general_names).unwrap_or_default();
    let mut uris = Vec::new();
    for name in alternative {
        match name {
            GeneralName::DNSName(name) => names.push(format!("dns:{}", name.to_ascii_lowercase())),
            GeneralName::RFC822Name(name) => names.push(format!("email:{name}")),
            GeneralName::URI(uri) => uris.push(*uri),
            GeneralName::IPAddress(bytes) => {
                let address = <[u8; 4]>::try_from(*bytes).map(IpAddr::from);
                let address = address.or_else(|_| <[u8; 16]>::try_from(*bytes).map(IpAddr::from));
                names.extend(address.map(|it| format!("ip:{it}")));
            }
            _ => {}
        }
    }
    // An SVID has one URI and no more (X509-SVID, 2).
    if let [only] = &uris[..]
        && only.starts_with("spiffe://")
    {
        names.push(format!("spiffe:{only}"));
    }
    names.extend(uris.iter().map(|uri| format!("uri:{uri}")));
    names
}

/// As RFC 4514 writes it, the last part first; `None` if a part is no text. What is escaped cannot pass for another
/// part.
fn subject(name: &X509Name<'_>) -> Option<String> {
    let mut parts = Vec::new();
    for set in name.iter() {
        let mut words = Vec::new();
        for attribute in set.iter() {
            let kind = match attribute.attr_type().to_id_string().as_str() {
                "2.5.4.3" => "CN".to_owned(),
                "2.5.4.6" => "C".to_owned(),
                "2.5.4.7" => "L".to_owned(),
                "2.5.4.8" => "ST".to_owned(),
                "2.5.4.9" => "street".to_owned(),
                "2.5.4.10" => "O".to_owned(),
                "2.5.4.11" => "OU".to_owned(),
                "0.9.2342.19200300.100.1.1" => "UID".to_owned(),
                "0.9.2342.19200300.100.1.25" => "DC".to_owned(),
                "1.2.840.113549.1.9.1" => "emailAddress".to_owned(),
                "2.5.4.5" => "serialNumber".to_owned(),
                other => other.to_owned(),
            };
            words.push(format!("{kind}={}", escaped(attribute.as_str().ok()?)));
        }
        parts.push(words.join("+"));
    }
    parts.reverse();
    (!parts.is_empty()).then(|| parts.join(","))
}

fn escaped(text: &str) -> String {
    let last = text.chars().count().saturating_sub(1);
    let mut out = String::with_capacity(text.len());
    for (at, character) in text.chars().enumerate() {
        let special = matches!(character, ',' | '+' | '"' | '\\' | '<' | '>' | ';')
            || at == 0 && matches!(character, ' ' | '#')
            || at == last && character == ' ';
        if special {
            out.push('\\');
        }
        out.push(character);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_of_a_certificate_is_checked() {
        for (kind, text, expected) in [
            ("san", "dns:Agent.Internal", Ok("dns:agent.internal")),
            ("san", "ip:2001:DB8::1", Ok("ip:2001:db8::1")),
            ("san", "email:a@b", Ok("email:a@b")),
            ("san", "uri:urn:x", Ok("uri:urn:x")),
            ("san", "agent.internal", Err("such as `dns:agent.internal`")),
            ("san", "ip:a", Err("no address")),
            ("spiffe", "spiffe://td/a/b", Ok("spiffe:spiffe://td/a/b")),
            ("spiffe", "spiffe://td", Err("SPIFFE ID")),
            ("spiffe", "spiffe://td//a", Err("SPIFFE ID")),
            ("spiffe", "https://td/a", Err("SPIFFE ID")),
            ("subject", "CN=a,O=b", Ok("subject:CN=a,O=b")),
            ("subject", "a", Err("RFC2253")),
            ("fingerprint", "sha256:ab", Err("64 hex digits")),
        ] {
            match (certificate_name(kind, text), expected) {
                (Ok(name), Ok(expected)) => assert_eq!(name, expected),
                (Err(error), Err(part)) => assert!(error.contains(part), "{text}: {error}"),
                (seen, _) => panic!("{kind} {text}: {seen:?}"),
            }
        }
        let printed = format!("sha256:{}", ["AB"; 32].join(":"));
        assert_eq!(certificate_name("fingerprint", &printed), Ok(format!("sha256:{}", "ab".repeat(32))));
    }

    #[test]
    fn what_looks_like_another_part_of_a_name_is_escaped() {
        for (text, expected) in
            [("x, CN=admin", r"x\, CN=admin"), ("#a ", r"\#a\ "), (" ", r"\ "), ("a+b", r"a\+b"), ("", "")]
        {
            assert_eq!(escaped(text), expected);
        }
    }
}
