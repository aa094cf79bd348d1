//! What expressions may call: the standard functions, those on strings, and two of our own.

use std::cell::RefCell;
use std::collections::HashMap;
use std::net::IpAddr;

use cel::common::types::{CelBool, CelString, STRING_TYPE};
use cel::common::value::CowVal;
use cel::{Env, ExecutionError, extensions};
use ipnet::IpNet;
use regex::{Regex, RegexBuilder};

pub fn env() -> Env {
    let mut env = Env::stdlib();
    // Errors are names that are declared twice, which a test would see: all functions of the table are called there.
    let _ = extensions::strings(&mut env);
    let _ = env.add_member_overload("matches", "string_matches", STRING_TYPE, vec![STRING_TYPE], matches);
    let _ = env.add_member_overload("within", "string_within", STRING_TYPE, vec![STRING_TYPE], within);
    env
}

/// A pattern within bounds: what it compiles to is at most 256 KB, so a bad one is refused and not a burden.
pub fn regex(pattern: &str) -> Result<Regex, String> {
    RegexBuilder::new(pattern).size_limit(256 * 1024).dfa_size_limit(256 * 1024).build().map_err(|error| {
        let reason = error.to_string();
        reason.lines().last().unwrap_or_default().trim_start_matches("error: ").to_owned()
    })
}

/// An address, or a network in CIDR notation.
pub fn network(text: &str) -> Result<IpNet, String> {
    let net = text.parse().or_else(|_| text.parse::<IpAddr>().map(IpNet::from));
    net.map_err(|_| format!("`{text}` is neither an address nor a network such as `10.0.0.0/8`"))
}

/// The standard's `matches`, which here remembers what it has compiled.
fn matches<'b, 'v>(args: Vec<CowVal<'b, 'v>>) -> Result<CowVal<'b, 'v>, ExecutionError> {
    const MOST: usize = 64;
    thread_local! {
        static KNOWN: RefCell<HashMap<String, Regex>> = RefCell::default();
    }
    let (text, pattern) = two(&args)?;
    let found = KNOWN.with_borrow_mut(|known| {
        if let Some(regex) = known.get(pattern) {
            return Ok(regex.is_match(text));
        }
        let regex = regex(pattern).map_err(|error| ExecutionError::function_error("matches", error))?;
        let found = regex.is_match(text);
        if known.len() >= MOST {
            known.clear();
        }
        known.insert(pattern.to_owned(), regex);
        Ok(found)
    })?;
    Ok(CowVal::owned(CelBool::from(found)))
}

fn within<'b, 'v>(args: Vec<CowVal<'b, 'v>>) -> Result<CowVal<'b, 'v>, ExecutionError> {
    let (address, net) = two(&args)?;
    let wrong = |error| ExecutionError::function_error("within", error);
    let net = network(net).map_err(wrong)?;
    let address: IpAddr = address.parse().map_err(|_| wrong(format!("`{address}` is no address")))?;
    Ok(CowVal::owned(CelBool::from(net.contains(&address.to_canonical()))))
}

fn two<'a>(args: &'a [CowVal<'_, '_>]) -> Result<(&'a str, &'a str), ExecutionError> {
    let text = |at: usize| args.get(at).and_then(|it| it.downcast_ref::<CelString<'_>>()).map(CelString::inner);
    text(0).zip(text(1)).ok_or_else(ExecutionError::missing_argument_or_target)
}
