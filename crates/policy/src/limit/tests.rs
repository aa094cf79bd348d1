use super::*;
use crate::Nowhere;
use crate::testing::{call, compile, consumer, errors, model, ready};
use crate::{Policies, Specs, Spent};
use base::{Consumer, StatusCode, Time};
use ledger::Money;

fn limits(rules: &str) -> Arc<Limits> {
    compile(&format!(r#"{{"limit":{rules}}}"#)).limit.unwrap()
}

/// A call from `who`: an address, or a consumer's name.
fn from(who: &str) -> Call {
    let mut call = call(&[]);
    match who.parse() {
        Ok(addr) => call.client.addr = addr,
        Err(_) => call.consumer = Some(consumer(who)),
    }
    call
}

fn admits(limits: &Limits, call: &mut Call) -> bool {
    ready(limits.request(call, &Nowhere)).is_ok()
}

#[test]
fn those_who_are_counted_together_share() {
    // The second of each pair finds the limit used up if it is counted with the first.
    let check = |per: &str, first: &str, second: &str, together: bool| {
        let limits = limits(&format!(r#"[{{"per":"{per}","rate":"1/h"}}]"#));
        assert!(admits(&limits, &mut from(first)));
        assert_eq!(!admits(&limits, &mut from(second)), together, "{per}: {first}, {second}");
    };
    check("consumer", "a", "a", true);
    check("consumer", "a", "b", false);
    check("consumer", "a", "127.0.0.1", false);
    check("consumer", "10.0.0.1", "10.0.0.1", true);
    check("consumer", "10.0.0.1", "10.0.0.2", false);
    check("address", "a", "b", true);
    check("address", "10.0.0.1", "::ffff:10.0.0.1", true);
    check("address", "2001:db8::1", "2001:db8::ffff:1", true);
    check("address", "2001:db8::1", "2001:db8:0:1::1", false);
    check("route", "a", "b", true);
    check("all", "a", "10.0.0.1", true);
    // In no team.
    check("team", "a", "b", true);
}

#[test]
fn teams_fields_claims_and_combinations_tell_calls_apart() {
    let member = |name: &str, team: &str| {
        let mut call = from(name);
        call.consumer = Some(Arc::new(Consumer { index: 0, name: name.into(), team: Some(team.into()) }));
        call
    };
    let tenant = |values: &[&str]| call(&values.iter().map(|it| ("X-Tenant", *it)).collect::<Vec<_>>());
    let claims = |json: &str| {
        let mut call = call(&[]);
        call.claims = Some(Arc::new(serde_json::from_str(json).unwrap()));
        call
    };
    let at = |addr: &str, mut call: Call| {
        call.client.addr = addr.parse().unwrap();
        call
    };
    let check = |per: &str, mut first: Call, mut second: Call, together: bool| {
        let limits = limits(&format!(r#"[{{"per":{per},"rate":"1/h"}}]"#));
        assert!(admits(&limits, &mut first));
        assert_eq!(!admits(&limits, &mut second), together, "{per}: {first:?}, {second:?}");
    };
    check(r#""team""#, member("a", "x"), member("b", "x"), true);
    check(r#""team""#, member("a", "x"), member("a", "y"), false);
    check(r#""team""#, member("a", "x"), from("a"), false);
    let header = r#"{"header":"x-tenant"}"#;
    check(header, tenant(&["a"]), at("10.0.0.1", tenant(&["a"])), true);
    check(header, tenant(&["a"]), tenant(&["b"]), false);
    check(header, tenant(&["a", "b"]), tenant(&["ab"]), false);
    check(header, tenant(&[""]), tenant(&[]), false);
    check(header, tenant(&[]), tenant(&[]), true);
    check(header, tenant(&[]), at("10.0.0.1", tenant(&[])), false);
    let claim = r#"{"claim":"org"}"#;
    check(claim, claims(r#"{"org":"a","sub":"x"}"#), claims(r#"{"org":"a","sub":"y"}"#), true);
    check(claim, claims(r#"{"org":"a"}"#), claims(r#"{"org":"b"}"#), false);
    check(claim, claims(r#"{"org":1}"#), claims(r#"{"org":"1"}"#), false);
    check(claim, claims(r#"{"org":["a"]}"#), claims(r#"{"org":["a"]}"#), true);
    check(claim, claims(r#"{"org":null}"#), call(&[]), true);
    check(claim, claims(r#"{"sub":"a"}"#), at("10.0.0.1", claims(r#"{"sub":"a"}"#)), false);
    let both = r#"["team",{"header":"x-tenant"}]"#;
    let with_tenant = |mut call: Call, tenant: &str| {
        call.head.headers.append("x-tenant", tenant);
        call
    };
    check(both, with_tenant(member("a", "x"), "1"), with_tenant(member("b", "x"), "1"), true);
    check(both, with_tenant(member("a", "x"), "1"), with_tenant(member("a", "x"), "2"), false);
    check(both, with_tenant(member("a", "x"), "1"), with_tenant(member("a", "y"), "1"), false);
}

fn finished(bytes_in: u64, bytes_out: u64, at: u64) -> Usage {
    let status = Some(StatusCode::OK);
    Usage { bytes_in, bytes_out, status, finished: Time::from_nanos(at), upstream: None, model: None }
}

fn at(nanos: u64) -> Call {
    let mut call = from("a");
    call.now = Time::from_nanos(nanos);
    call
}

const SECOND: u64 = 1_000_000_000;

#[test]
fn bytes_are_taken_as_announced_and_put_right_in_the_end() {
    let limits = limits(r#"[{"per":"all","bytes-in":"1000B/s","estimate":"100B"}]"#);
    let request = |length: Option<u64>, now: u64| {
        let mut call = at(now);
        call.length = length;
        ready(limits.request(&mut call, &Nowhere))
    };
    let left = |now: u64| limits.refused(&at(now)).unwrap().left[0].units;
    let announced = request(Some(600), SECOND).unwrap();
    assert_eq!(left(SECOND), 400);
    let unknown = request(None, SECOND).unwrap();
    assert_eq!(left(SECOND), 300);
    assert!(request(Some(301), SECOND).is_err());
    // The client left early; the other sent more than was thought.
    limits.settle(announced, finished(50, 7, SECOND));
    assert_eq!(left(SECOND), 850);
    limits.settle(unknown, finished(2100, 7, SECOND));
    assert_eq!(left(SECOND), 0);
    let Err(Stop::Refuse(Refusal::RateLimited { retry_after })) = request(Some(0), SECOND) else { panic!() };
    // 2150 are owed; the call itself counts one.
    assert_eq!(retry_after, Duration::from_millis(1151));
    assert!(request(Some(0), 3 * SECOND).is_ok());
}

/// A call that has been let this far, and is understood now.
fn understands(limits: &Limits, [prompt, output, cost]: [u64; 3], now: u64) -> (Memo, Result<(), Stop>) {
    let mut call = at(now);
    call.to_model = true;
    let mut memo = ready(limits.request(&mut call, &Nowhere)).unwrap();
    call.model = model(prompt, output, cost);
    let understood = ready(limits.understood(&mut memo, &mut call, &Nowhere));
    (memo, understood)
}

fn came_to(prompt: u64, completion: u64, money: &str, at: u64) -> Usage {
    let model = Some(Spent { prompt, completion, money: money.parse::<Money>().unwrap() });
    Usage { model, ..finished(0, 0, at) }
}

fn left(limits: &Limits, now: u64) -> u64 {
    let rule = &limits.rules.rules[0];
    rule.shown(limits.refused(&at(now)).unwrap().left[0].units)
}

#[test]
fn tokens_are_taken_as_they_may_be_and_put_right_in_the_end() {
    let limits = limits(r#"[{"per":"all","tokens":"10k/m"}]"#);
    let (mut first, understood) = understands(&limits, [1000, 5000, 0], SECOND);
    assert!(understood.is_ok());
    let mut reply = Reply::new(StatusCode::OK);
    limits.response(&mut first, &mut reply);
    assert_eq!(reply.headers.get_str("ratelimit-policy"), Some(r#""all-tokens";q=10000;qu="tokens";w=60"#));
    assert_eq!(reply.headers.get_str("ratelimit"), Some(r#""all-tokens";r=4000;t=36"#));
    // There is room for the prompt alone, but not for the answer that it may have.
    let (mut refused, understood) = understands(&limits, [1000, 5000, 0], SECOND);
    let Err(Stop::Refuse(Refusal::RateLimited { retry_after })) = understood else { panic!() };
    assert_eq!(retry_after, Duration::from_secs(12));
    let mut reply = Reply::new(StatusCode::OK);
    limits.response(&mut refused, &mut reply);
    assert_eq!(reply.headers.get_str("ratelimit"), Some(r#""all-tokens";r=4000;t=36"#));
    limits.settle(refused, finished(0, 0, SECOND));
    assert_eq!(left(&limits, SECOND), 4000, "what is refused gives nothing back");
    limits.settle(first, came_to(900, 100, "0 USD", SECOND));
    assert_eq!(left(&limits, SECOND), 9000);
    // Nobody was asked, or the caller left before that.
    let (second, _) = understands(&limits, [1000, 5000, 0], SECOND);
    assert_eq!(left(&limits, SECOND), 3000);
    limits.settle(second, finished(0, 0, SECOND));
    assert_eq!(left(&limits, SECOND), 9000);
    // A call for no model takes nothing.
    let memo = ready(limits.request(&mut at(SECOND), &Nowhere)).unwrap();
    limits.settle(memo, finished(10, 10, SECOND));
    assert_eq!(left(&limits, SECOND), 9000);
}

#[test]
fn tokens_of_prompts_and_of_answers_and_money_are_told_apart() {
    let check = |rule: &str, between: u64, then: u64| {
        let limits = limits(&format!(r#"[{{"per":"all",{rule}}}]"#));
        // 0.02 USD at most.
        let (memo, understood) = understands(&limits, [100, 500, 20_000_000_000], 1);
        assert!(understood.is_ok());
        assert_eq!(left(&limits, 1), between, "{rule}");
        limits.settle(memo, came_to(90, 20, "0.0012345 USD", 1));
        assert_eq!(left(&limits, 1), then, "{rule}");
    };
    check(r#""tokens":"1k/h""#, 400, 890);
    check(r#""tokens-in":"1k/h""#, 900, 910);
    check(r#""tokens-out":"1k/h""#, 500, 980);
    check(r#""tokens-out":"1k/h","estimate":50"#, 950, 980);
    check(r#""tokens-out":"1k/h","estimate":9000"#, 500, 980);
    check(r#""tokens":"1k/h","burst":2000"#, 1400, 1890);
    check(r#""money":"5 USD/m""#, 4_980_000, 4_998_765);
    check(r#""money":"5 USD/m","burst":"10 USD","estimate":"0.01 USD""#, 9_990_000, 9_998_765);
    check(r#""rate":"100/h","weight":"model.tools ? 7 : 1""#, 93, 93);
}

#[test]
fn a_call_that_waits_takes_of_all_its_rules_or_of_none_of_those() {
    let rules = r#"[{"per":"all","rate":"10/h"},{"per":"all","tokens":"1k/h"},{"per":"all","money":"1 USD/h"}]"#;
    let limits = limits(rules);
    let units = || limits.refused(&at(1)).unwrap().left.iter().map(|it| it.units).collect::<Vec<_>>();
    let (memo, understood) = understands(&limits, [100, 100, 2_000_000_000_000], 1);
    assert!(understood.is_ok(), "one that counts more than all waits until nothing is owed");
    assert_eq!(units(), [9, 800, 0]);
    let (refused, understood) = understands(&limits, [100, 100, 1_000_000_000], 1);
    assert!(understood.is_err());
    limits.settle(refused, Usage { finished: Time::from_nanos(1), ..Usage::default() });
    assert_eq!(units(), [8, 800, 0]);
    limits.settle(memo, came_to(10, 10, "0.25 USD", 1));
    assert_eq!(units(), [8, 980, 750_000_000_000]);
}

#[test]
fn what_answers_come_to_is_learnt() {
    let limits = limits(r#"[{"per":"all","bytes":"1000000B/h"}]"#);
    let mut last = 0;
    for _ in 0..100 {
        let before = limits.refused(&at(1)).unwrap().left[0].units;
        let memo = ready(limits.request(&mut at(1), &Nowhere)).unwrap();
        last = before - memo.left[0].units;
        limits.settle(memo, finished(0, 1600, 1));
    }
    assert!((1500..=1600).contains(&last), "{last}");
    assert_eq!(limits.refused(&at(1)).unwrap().left[0].units, 1_000_000 - 160_000);
}

#[test]
fn a_body_larger_than_the_burst_waits_for_all_of_it() {
    let limits = limits(r#"[{"per":"all","bytes-in":"1000B/s","burst":"2000B"}]"#);
    let request = |length: u64, now: u64| {
        let mut call = at(now);
        call.length = Some(length);
        ready(limits.request(&mut call, &Nowhere)).map(drop)
    };
    assert!(request(10_000, SECOND).is_ok());
    assert!(request(1, 9 * SECOND).is_err());
    assert!(request(10_000, 10 * SECOND).is_err());
    assert!(request(10_000, 11 * SECOND).is_ok());
}

#[test]
fn places_come_back_however_a_call_ends() {
    let limits = limits(r#"[{"per":"consumer","concurrency":2},{"per":"all","rate":"3/h"}]"#);
    let request = |who: &str| ready(limits.request(&mut from(who), &Nowhere));
    let first = request("a").unwrap();
    let mut second = request("a").unwrap();
    let mut reply = Reply::new(StatusCode::OK);
    limits.response(&mut second, &mut reply);
    assert_eq!(
        reply.headers.get_str("ratelimit-policy"),
        Some(r#""consumer-concurrency";q=2;qu="concurrent-requests", "all";q=3;w=3600"#)
    );
    assert_eq!(reply.headers.get_str("ratelimit"), Some(r#""consumer-concurrency";r=0, "all";r=1;t=2400"#));
    assert!(request("a").is_err(), "its places are taken");
    limits.settle(limits.refused(&from("a")).unwrap(), finished(0, 0, 1));
    assert!(request("a").is_err(), "what is refused gives nothing back");
    let other = request("b").unwrap();
    assert!(request("c").is_err(), "the other rule is used up");
    limits.settle(first, Usage::default());
    for memo in [second, other] {
        limits.settle(memo, finished(0, 0, 1));
    }
    let left = |who: &str| limits.refused(&from(who)).unwrap().left[0].units;
    assert_eq!(["a", "b", "c"].map(left), [2, 2, 2], "the refused ones hold no place");
}

#[test]
fn expressions_weigh_calls() {
    let check = |weight: &str, headers: &[(&str, &str)], left: u64| {
        let rules = serde_json::json!([{ "per": "all", "rate": "100/h", "weight": weight }]);
        let limits = limits(&rules.to_string());
        let mut call = call(headers);
        let memo = ready(limits.request(&mut call, &Nowhere)).unwrap();
        assert_eq!(memo.left[0].units, left, "{weight} {headers:?}");
    };
    check("request.path == '/' ? 10 : 1", &[], 90);
    check("0.5", &[], 99);
    check("0", &[], 100);
    // More than the burst: all of it.
    check("1000", &[], 0);
    // What cannot be weighed counts as much as all of the burst.
    check("-1", &[], 0);
    check("-0.001", &[], 0);
    check("0.0 / 0.0", &[], 0);
    check("1.0 / 0.0", &[], 0);
    check("int(request.headers['x-cost'])", &[("x-cost", "7")], 93);
    check("int(request.headers['x-cost'])", &[("x-cost", "much")], 0);
    check("int(request.headers['x-cost'])", &[], 0);
    check("'x-cost' in request.headers ? int(request.headers['x-cost']) : 2", &[], 98);
    check("claims.cost", &[], 0);
}

#[test]
fn what_weighs_nothing_passes_though_all_is_used_up() {
    let limits = limits(r#"[{"per":"all","rate":"1/h","weight":"request.method == 'GET' ? 0 : 1"}]"#);
    let mut post = from("a");
    post.head.method = base::Method::POST;
    assert!(admits(&limits, &mut post) && !admits(&limits, &mut post));
    assert!(admits(&limits, &mut from("a")));
}

#[test]
fn a_refused_call_costs_nothing_and_the_longest_wait_is_told() {
    let limits = limits(r#"[{"per":"all","rate":"10/m"},{"per":"consumer","rate":"1/h"}]"#);
    assert!(admits(&limits, &mut from("a")));
    for _ in 0..100 {
        let Err(Stop::Refuse(Refusal::RateLimited { retry_after })) = ready(limits.request(&mut from("a"), &Nowhere))
        else {
            panic!("admitted")
        };
        assert_eq!(retry_after, Duration::from_secs(3600));
    }
    for other in 0..9 {
        assert!(admits(&limits, &mut from(&format!("b{other}"))), "{other}");
    }
    assert!(!admits(&limits, &mut from("c")));
}

#[test]
fn time_brings_it_back() {
    let limits = limits(r#"[{"per":"all","rate":"1/s","burst":2,"weight":2}]"#);
    for (at, admitted) in [(0, true), (1_999_999_999, false), (2_000_000_000, true), (3_000_000_000, false)] {
        let mut call = from("a");
        call.now = Time::from_nanos(at);
        assert_eq!(admits(&limits, &mut call), admitted, "{at}");
    }
}

#[test]
fn fields_tell_what_is_left() {
    let check = |rules: &str, policy: &str, left: &str| {
        let limits = limits(rules);
        let mut memo = ready(limits.request(&mut from("a"), &Nowhere)).unwrap();
        let mut reply = Reply::new(StatusCode::OK);
        limits.response(&mut memo, &mut reply);
        assert_eq!(reply.headers.get_str("ratelimit-policy"), Some(policy));
        assert_eq!(reply.headers.get_str("ratelimit"), Some(left));
    };
    check(r#"[{"per":"consumer","rate":"100/s"}]"#, r#""consumer";q=100;w=1"#, r#""consumer";r=99;t=1"#);
    check(
        r#"[{"per":"consumer","rate":"100/s","burst":200,"weight":50,"name":"fast"},
            {"per":"all","rate":"1/h"},{"per":"all","rate":"5/ms"}]"#,
        r#""fast";q=200;w=2, "all";q=1;w=3600, "all-2";q=5"#,
        r#""fast";r=150;t=1, "all";r=0;t=3600, "all-2";r=4;t=1"#,
    );
}

#[test]
fn threads_are_admitted_exactly_as_many_as_there_is_room_and_nothing_drifts() {
    let limits = limits(r#"[{"per":"all","rate":"20000/h"},{"per":"consumer","rate":"500/h"}]"#);
    let admitted: usize = std::thread::scope(|scope| {
        let attempts = || (0..5_000).filter(|at| admits(&limits, &mut from(["a", "b", "c"][at % 3]))).count();
        let threads: Vec<_> = (0..4).map(|_| scope.spawn(attempts)).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).sum()
    });
    assert_eq!(admitted, 1500);
    let left = limits.refused(&from("a")).unwrap();
    assert_eq!([left.left[0].units, left.left[1].units], [18_500, 0]);
}

#[test]
fn a_reload_keeps_the_counts_of_rules_that_are_still_written_so() {
    let load = |rules: &str, scope: &str, previous: Option<&Policies>| {
        let specs: Specs = serde_json::from_str(&format!(r#"{{"limit":{rules}}}"#)).unwrap();
        let mut env = CompileEnv { previous, ..CompileEnv::new(Arc::default(), scope) };
        let policies = Policies::compile(&specs, &mut env);
        assert!(env.errors.is_empty(), "{:?}", env.errors);
        policies
    };
    let old = load(r#"[{"per":"all","rate":"1/h"}]"#, "policies", None);
    assert!(admits(old.limit.as_ref().unwrap(), &mut from("a")));
    let check = |rules: &str, scope: &str, admitted: bool| {
        let new = load(rules, scope, Some(&old));
        assert_eq!(admits(new.limit.as_ref().unwrap(), &mut from("a")), admitted, "{rules} {scope}");
    };
    check(r#"[{"per":"all","rate":"1/h"}]"#, "policies", false);
    check(r#"[{"per":"consumer","rate":"5/s"},{"per":"all","rate":"1/h"}]"#, "policies", false);
    check(r#"[{"per":"all","rate":"2/h"}]"#, "policies", true);
    check(r#"[{"per":"all","rate":"1/h"}]"#, "apis.a", true);
}

#[test]
fn routes_under_one_limit_share_it_unless_it_is_per_route() {
    let check = |per: &str, shared: bool| {
        let above = compile(&format!(r#"{{"limit":[{{"per":"{per}","rate":"1/h"}}]}}"#));
        let route = |scope: &str| {
            let own = Policies { scope: scope.into(), ..Policies::default() };
            own.over(&above, &Specs::default()).limit.unwrap()
        };
        assert!(admits(&route("routes[0]"), &mut from("a")));
        assert!(!admits(&route("routes[0]"), &mut from("a")));
        assert_eq!(!admits(&route("routes[1]"), &mut from("a")), shared, "{per}");
    };
    check("all", true);
    check("consumer", true);
    check("route", false);
}

#[test]
fn wrong_rules_are_told() {
    let check = |rules: &str, paths: &[&str]| {
        assert_eq!(errors(&format!(r#"{{"limit":{rules}}}"#)), paths, "{rules}");
    };
    check("[]", &["limit"]);
    check(r#"[{"per":"all","rate":"1/s","weight":0}]"#, &["limit[0].weight"]);
    check(r#"[{"per":"all","rate":"1/s","weight":2}]"#, &["limit[0].weight"]);
    check(r#"[{"per":"all","rate":"1/s","burst":0}]"#, &["limit[0].burst"]);
    check(r#"[{"per":"all","rate":"1/d","burst":99999999}]"#, &["limit[0].burst"]);
    check(r#"[{"per":"all","rate":"1/s","keys":0,"name":"a b"}]"#, &["limit[0].keys", "limit[0].name"]);
    check(r#"[{"per":"all","rate":"1/s","name":"x"},{"per":"route","rate":"1/s","name":"x"}]"#, &["limit[1].name"]);
    check(r#"[{"per":"all"}]"#, &["limit[0]"]);
    check(r#"[{"per":"all","rate":"1/s","concurrency":1}]"#, &["limit[0]"]);
    check(r#"[{"per":"all","bytes":"1MiB/s","bytes-in":"1MiB/s"}]"#, &["limit[0]"]);
    check(r#"[{"per":"all","concurrency":0}]"#, &["limit[0].concurrency"]);
    check(r#"[{"per":"all","concurrency":1,"burst":1}]"#, &["limit[0].burst"]);
    check(r#"[{"per":"all","bytes":"1MiB/s","burst":1}]"#, &["limit[0].burst"]);
    check(r#"[{"per":"all","rate":"1/s","burst":"1MiB"}]"#, &["limit[0].burst"]);
    check(r#"[{"per":"all","bytes":"1MiB/s","weight":2}]"#, &["limit[0].weight"]);
    check(r#"[{"per":"all","rate":"1/s","estimate":"1MiB"}]"#, &["limit[0].estimate"]);
    check(r#"[{"per":"all","tokens":"1k/m","burst":"1MiB"}]"#, &["limit[0].burst"]);
    check(r#"[{"per":"all","tokens":"1k/m","money":"1 USD/m"}]"#, &["limit[0]"]);
    check(r#"[{"per":"all","tokens-in":"1k/m","estimate":"1 USD"}]"#, &["limit[0].estimate"]);
    check(r#"[{"per":"all","money":"1 USD/m","burst":5}]"#, &["limit[0].burst"]);
    check(r#"[{"per":"all","money":"1 USD/m","burst":"0 USD"}]"#, &["limit[0].burst"]);
    check(r#"[{"per":"all","money":"1 USD/m","weight":"1"}]"#, &["limit[0].weight"]);
    check(r#"[{"per":"all","rate":"1/s","weight":"request.path"}]"#, &["limit[0].weight"]);
    check(r#"[{"per":"all","rate":"1/s","weight":"respons.status"}]"#, &["limit[0].weight"]);
    check(r#"[{"per":[],"rate":"1/s"}]"#, &["limit[0].per"]);
    check(r#"[{"per":["team","team"],"rate":"1/s"}]"#, &["limit[0].per[1]"]);
    check(r#"[{"per":["team","all"],"rate":"1/s"}]"#, &["limit[0].per[1]"]);
    check(r#"[{"per":{"header":"a b"},"rate":"1/s"}]"#, &["limit[0].per"]);
    check(r#"[{"per":{"claim":""},"rate":"1/s"}]"#, &["limit[0].per"]);
}

#[test]
fn rules_are_written_back_as_they_were() {
    let rules = r#"[{"per":"all","rate":"1/s","burst":5,"weight":"1 + 1","keys":65536},
        {"per":"all","tokens":"1000/m","burst":5,"estimate":7,"keys":65536},
        {"per":"all","money":"0.5 USD/m","burst":"5 USD","keys":65536},
        {"per":["team",{"header":"x"}],"bytes-out":"1MiB/s","burst":"2MiB","estimate":"1KiB","keys":65536}]"#;
    let spec: LimitSpec = serde_json::from_str(rules).unwrap();
    let back = serde_json::to_value(&spec).unwrap();
    assert_eq!(back, serde_json::from_str::<serde_json::Value>(rules).unwrap());
}
