//! An explanation as people read it.

use std::fmt::Write;

use super::{Candidate, Explanation, Other, Outcome, Taken, Target};
use crate::live::Live;
use crate::terminal::{Ink, Paint};

pub fn text(explanation: &Explanation, paint: Paint) -> String {
    let Explanation { document, listener, call, route, refused, others, live } = explanation;
    let mut out = String::new();
    let _ = writeln!(out, "{}", paint.paint(Ink::Heading, call));
    row(&mut out, "document", document);
    row(&mut out, "listener", listener);
    match (route, refused) {
        (_, Some(why)) => row(&mut out, "refused", &paint.paint(Ink::Bad, why)),
        (Some(route), None) => taken(&mut out, route, paint),
        (None, None) => row(&mut out, "route", &paint.paint(Ink::Bad, "none matches: the caller gets 404")),
    }
    if let Some(live) = live {
        shown_live(&mut out, live, paint);
    }
    if !others.is_empty() {
        let _ = writeln!(out, "\n{}", paint.paint(Ink::Heading, "other routes"));
        let width = others.iter().map(|it| it.name.chars().count()).max().unwrap_or_default();
        for Other { name, at: _, matches, why } in others {
            let _ = writeln!(out, "  {name:width$}  {matches}");
            let _ = writeln!(out, "  {:width$}  {}", "", paint.paint(Ink::Dim, why));
        }
    }
    out
}

fn taken(out: &mut String, route: &Taken, paint: Paint) {
    let Taken {
        api,
        name,
        at,
        matches,
        params,
        policies,
        consumer,
        request_changes,
        response_changes,
        stopped,
        action,
    } = route;
    row(out, "api", api);
    row(out, "route", &format!("{}  {}", paint.paint(Ink::Good, name), paint.paint(Ink::Dim, at)));
    row(out, "match", matches);
    for (name, value) in params {
        row(out, "", &format!("{{{name}}} = {value}"));
    }
    let mut label = "policies";
    for (index, step) in policies.iter().enumerate() {
        let verdict =
            if step.passes { paint.paint(Ink::Good, "passes") } else { paint.paint(Ink::Bad, "stops the call") };
        row(out, std::mem::take(&mut label), &format!("{}. {:<14}{verdict}", index + 1, step.policy));
    }
    if policies.is_empty() {
        row(out, label, "none");
    }
    if let Some(consumer) = consumer {
        row(out, "consumer", consumer);
    }
    rows(out, "request", request_changes);
    rows(out, "response", response_changes);
    if let Some(stopped) = stopped {
        row(out, "answer", &paint.paint(Ink::Bad, stopped));
        row(out, "", "what follows is for calls that the policies let pass");
    }
    match action {
        Outcome::Forward { upstreams, mirror, timeouts, retry } => {
            for candidate in upstreams {
                upstream(out, candidate);
            }
            if let Some(mirror) = mirror {
                row(out, "mirror", mirror);
            }
            row(out, "timeouts", timeouts);
            row(out, "retries", retry);
        }
        Outcome::Models { dialect, models } => {
            row(out, "dialect", dialect.unwrap_or("none: the path is that of no call to a model"));
            for (at, model) in models.iter().enumerate() {
                row(out, if at == 0 { "models" } else { "" }, model);
            }
        }
        Outcome::Redirect { status, location } => row(out, "redirect", &format!("{status} to {location}")),
        Outcome::Respond { status, headers, bytes } => {
            row(out, "respond", &format!("{status} with {bytes} bytes"));
            rows(out, "", headers);
        }
    }
}

fn upstream(out: &mut String, candidate: &Candidate) {
    let Candidate { upstream, percent, balance, endpoints } = candidate;
    // As many digits as it takes: 95 %, 0.1 %.
    let percent = (percent * 100.0).round() / 100.0;
    row(out, "upstream", &format!("{upstream}  {percent} % of calls, {balance}"));
    for Target { url, weight, zone, request, host } in endpoints {
        let zone = zone.as_ref().map(|zone| format!(", zone {zone}")).unwrap_or_default();
        row(out, "", &format!("{url}  weight {weight}{zone}"));
        row(out, "", &format!("  gets {request}, host {host}"));
    }
}

fn shown_live(out: &mut String, live: &Live, paint: Paint) {
    let _ = writeln!(out, "\n{}", paint.paint(Ink::Heading, "live"));
    row(out, "status", &live.status);
    rows(out, "headers", &live.headers);
    let cut = if live.complete { "" } else { ", cut here" };
    row(out, "body", &format!("{} bytes{cut}", live.bytes));
    if let Some(endpoint) = &live.endpoint {
        row(out, "endpoint", &format!("{endpoint}, attempt {}", live.attempts));
    }
    for line in awareness::waterfall(&live.timeline(), WIDTH, paint.0).lines() {
        let _ = writeln!(out, "  {line}");
    }
}

fn row(out: &mut String, label: &str, value: &str) {
    let _ = writeln!(out, "  {label:<10}{value}");
}

fn rows(out: &mut String, label: &str, values: &[String]) {
    let mut label = label;
    for value in values {
        row(out, std::mem::take(&mut label), value);
    }
}

/// Of the waterfall's bars.
const WIDTH: usize = 40;
