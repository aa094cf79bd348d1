//! What a limit costs a call: one key, many keys, several rules.

use std::hint::black_box;
use std::net::{IpAddr, Ipv4Addr};
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Waker};
use std::time::SystemTime;

use base::{Call, Client, Headers, Method, Peer, Rate, RequestHead, Scheme, Time, Version};
use criterion::{Criterion, criterion_group, criterion_main};
use policy::{CompileEnv, LimitSpec, Limits, Per, Policies, Policy, RuleSpec, Setting, Specs};

fn limits(rules: &[Per]) -> Option<Arc<Limits>> {
    let rate = Rate { amount: 1_000_000, per: std::time::Duration::from_secs(1) };
    let rule = |per: &Per| RuleSpec { rate: Some(rate), ..RuleSpec::new(per.clone()) };
    let limit = Some(Setting::On(LimitSpec(rules.iter().map(rule).collect())));
    let mut env = CompileEnv::new(Arc::default(), "policies");
    Policies::compile(&Specs { limit, ..Specs::default() }, &mut env).limit
}

fn call() -> Call {
    Call::new(
        RequestHead {
            method: Method::GET,
            scheme: Scheme::Http,
            authority: String::new(),
            target: "/".into(),
            version: Version::HTTP_11,
            headers: Headers::new(),
        },
        Client { addr: IpAddr::V4(Ipv4Addr::LOCALHOST), peer: Arc::new(Peer { remote: None, local: None, tls: None }) },
        Time::from_nanos(1),
        SystemTime::UNIX_EPOCH,
    )
}

fn bench(criterion: &mut Criterion) {
    for (name, rules, addresses) in [
        ("one rule, one key", &[Per::Address][..], 1),
        ("one rule, 50 000 keys", &[Per::Address], 50_000),
        ("one rule, a million keys", &[Per::Address], 1_000_000),
        ("three rules, one key", &[Per::Address, Per::Route, Per::All], 1),
    ] {
        let Some(limits) = limits(rules) else { continue };
        let mut call = call();
        let mut round = 0u32;
        criterion.bench_function(name, |bencher| {
            bencher.iter(|| {
                round = round.wrapping_add(1);
                call.client.addr = IpAddr::V4(Ipv4Addr::from_bits(round % addresses));
                call.now = Time::from_nanos(u64::from(round) * 1000);
                let request = pin!(limits.request(&mut call, &policy::Nowhere));
                black_box(request.poll(&mut Context::from_waker(Waker::noop()))).is_ready()
            });
        });
    }
}

criterion_group!(benches, bench);
criterion_main!(benches);
