//! Where an issuer says that its keys are: OpenID Connect Discovery 1.0, and for those that speak OAuth alone RFC 8414.

use serde::Deserialize;

/// What of an issuer's metadata counts.
#[derive(Deserialize)]
struct Metadata {
    issuer: Option<String>,
    jwks_uri: Option<String>,
}

/// What would be right, if this is no issuer whose metadata can be found.
pub fn check(issuer: &str) -> Result<(), &'static str> {
    let rest = issuer.strip_prefix("https://").or_else(|| issuer.strip_prefix("http://"));
    let host = rest.map(|rest| rest.split('/').next().unwrap_or_default()).unwrap_or_default();
    let plain = issuer.bytes().all(|byte| byte.is_ascii_graphic() && !b"?#".contains(&byte));
    match !host.is_empty() && !host.contains('@') && plain {
        true => Ok(()),
        false => Err("has no keys, and `issuer` is no URL that tells of them; expected `jwks: https://…`, \
                      `jwks: file:…`, `secret`, or an issuer `https://…` without `?` and `#`"),
    }
}

/// Where the metadata of an issuer may be, the usual place first.
pub fn places(issuer: &str) -> [String; 2] {
    let issuer = issuer.trim_end_matches('/');
    let host = issuer.find("://").map_or(0, |at| at + 3);
    let path = issuer[host..].find('/').map_or(issuer.len(), |at| host + at);
    let (origin, path) = issuer.split_at(path);
    [
        format!("{issuer}/.well-known/openid-configuration"),
        format!("{origin}/.well-known/oauth-authorization-server{path}"),
    ]
}

/// Where the keys are by this metadata, if it is the issuer's.
pub fn keys_of(issuer: &str, metadata: &[u8]) -> Result<String, String> {
    let Metadata { issuer: said, jwks_uri } =
        serde_json::from_slice(metadata).map_err(|_| "not an issuer's metadata; expected a JSON object")?;
    match said {
        Some(said) if said == issuer => {}
        Some(said) => {
            let said: String = said.chars().take(LONGEST_SHOWN).collect();
            return Err(format!("it is the metadata of `{said}`; expected the issuer `{issuer}`, letter by letter"));
        }
        None => return Err("the metadata does not name its `issuer`".into()),
    }
    let keys = jwks_uri.ok_or("the metadata has no `jwks_uri`")?;
    // Keys that anybody on the way can change are worth no more than the worst part of that way.
    if keys.starts_with("https://") || keys.starts_with("http://") && issuer.starts_with("http://") {
        return Ok(keys);
    }
    let keys: String = keys.chars().take(LONGEST_SHOWN).collect();
    Err(format!("the metadata has its keys at `{keys}`; expected `https://…`"))
}

const LONGEST_SHOWN: usize = 200;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metadata_is_looked_for_below_the_issuer_and_between_host_and_path() {
        let check = |issuer: &str, first: &str, second: &str| assert_eq!(places(issuer), [first, second], "{issuer}");
        check(
            "https://idp.test",
            "https://idp.test/.well-known/openid-configuration",
            "https://idp.test/.well-known/oauth-authorization-server",
        );
        check(
            "https://idp.test:8443/",
            "https://idp.test:8443/.well-known/openid-configuration",
            "https://idp.test:8443/.well-known/oauth-authorization-server",
        );
        check(
            "https://idp.test/a/b/",
            "https://idp.test/a/b/.well-known/openid-configuration",
            "https://idp.test/.well-known/oauth-authorization-server/a/b",
        );
    }

    #[test]
    fn an_issuer_without_keys_is_a_plain_url() {
        for good in ["https://idp.test", "http://127.0.0.1:1/a", "https://idp.test/realms/one/"] {
            assert_eq!(check(good), Ok(()), "{good}");
        }
        for bad in [
            "idp",
            "",
            "https://",
            "https:///a",
            "ftp://idp.test",
            "https://a@b",
            "https://a/?b",
            "https://a/#b",
            "https://a b",
        ] {
            assert!(check(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn metadata_of_another_or_with_keys_in_the_open_is_refused() {
        let said = |issuer: &str, json: &str| keys_of(issuer, json.as_bytes());
        let (https, http) = ("https://idp.test", "http://idp.test");
        assert_eq!(said(https, r#"{"issuer":"https://idp.test","jwks_uri":"https://k"}"#), Ok("https://k".into()));
        assert_eq!(said(http, r#"{"issuer":"http://idp.test","jwks_uri":"http://k"}"#), Ok("http://k".into()));
        for (json, expected) in [
            (r#"{"issuer":"https://idp.test/","jwks_uri":"https://k"}"#, "metadata of `https://idp.test/`"),
            (r#"{"issuer":"https://idp.test","jwks_uri":"http://k"}"#, "expected `https://…`"),
            (r#"{"issuer":"https://idp.test","jwks_uri":"file:///etc/passwd"}"#, "expected `https://…`"),
            (r#"{"issuer":"https://idp.test"}"#, "no `jwks_uri`"),
            (r#"{"jwks_uri":"https://k"}"#, "does not name"),
            (r#"{"issuer":1}"#, "not an issuer's metadata"),
            ("<html>", "not an issuer's metadata"),
        ] {
            let error = said(https, json).unwrap_err();
            assert!(error.contains(expected), "{json}: {error}");
        }
    }
}
