//! Budgets through the gateway: whoever has one, in whichever unit and period; those that only warn; several above one call.

use std::time::SystemTime;

use ledger::Moment;
use serde_json::json;
use simulator::{Options, Simulator};
use testkit::{Answer, Folder, Gateway, Raw, eventually};

use crate::weir::{Running, weir};

/// Who calls: by which key, in which task, which api. Ann and Eve are of one team, Bob of another; Ann has two keys.
#[derive(Clone, Copy, Debug)]
struct Caller {
    key: &'static str,
    task: char,
    api: &'static str,
}

const ANN: Caller = Caller { key: "ann-1", task: 'a', api: "" };
const ANN_BY_ANOTHER_KEY: Caller = Caller { key: "ann-2", ..ANN };
const EVE: Caller = Caller { key: "eve-1", ..ANN };
const BOB: Caller = Caller { key: "bob-1", ..ANN };
const ELSEWHERE: Caller = Caller { api: "/other", ..ANN };
const LATER: Caller = Caller { task: 'b', ..ANN };

fn document(provider: &Simulator, budgets: &str) -> String {
    format!(
        "
providers: {{ openai: {{ upstream: {}/v1, keys: file:key }} }}
models: {{ m: openai/gpt-4o }}
policies: {{ authenticate: {{ api-key: {{}} }} }}
consumers:
  ann: {{ team: red, keys: [{{ id: ann-1, hash: \"sha256:7eb855f4471da4da57ca474b991e311047cdc9a91fe7f866a0934348ca154e48\" }}, {{ id: ann-2, hash: \"sha256:90498605bb179cd22ca8869dde71198d0258b4b34aa6865ab8dbfd6d0b261b83\" }}] }}
  eve: {{ team: red, keys: [{{ id: eve-1, hash: \"sha256:c5456ecd55ce10a718c7d503b623e8337e908a5d777af68931ccd9b89962d2b2\" }}] }}
  bob: {{ team: blue, keys: [{{ id: bob-1, hash: \"sha256:a5fc3eac9107fe9b449965916d54b334233b8077a37f782d9b59e6e98e04def8\" }}] }}
apis:
  brain: {{ llm: {{}} }}
  other: {{ llm: {{ prefix: /other }} }}
budgets:
{budgets}",
        provider.url()
    )
}

fn folder() -> Folder {
    let folder = Folder::new();
    folder.write("key", "sk-provider");
    folder
}

fn gateway(provider: &Simulator, budgets: &str) -> Gateway {
    Gateway::start_in(&folder(), &document(provider, budgets))
}

/// A call that takes 1,000 tokens of an answer, and 20 of a prompt: 0.01005 USD.
fn call(address: std::net::SocketAddr, caller: Caller, path: &str) -> Answer {
    let Caller { key, task, api } = caller;
    let text = "Say something. [sim tokens=1000 input=20]";
    let body =
        json!({ "model": "m", "max_tokens": 1000, "messages": [{ "role": "user", "content": text }] }).to_string();
    let trace = task.to_string().repeat(32);
    let request = format!(
        "POST {api}{path} HTTP/1.1\r\nhost: weir\r\ncontent-type: application/json\r\nauthorization: Bearer {key}\r\n\
         traceparent: 00-{trace}-00f067aa0ba902b7-01\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    );
    Raw::connect(address).send(request).answer()
}

const CHAT: &str = "/v1/chat/completions";
const MESSAGES: &str = "/v1/messages";

/// All accounts, as they stand.
fn standing(gateway: &Gateway) -> Vec<String> {
    let accounts = gateway.node().snapshot().books.accounts(Moment::from(SystemTime::now()));
    let mut all: Vec<_> =
        accounts.iter().map(|it| format!("{} {} {} left {}", it.budget, it.whose, it.spent, it.left)).collect();
    all.sort();
    all
}

#[test]
fn whoever_has_spent_a_budget_is_refused_and_others_are_not() {
    let provider = Simulator::start(Options::provider("models")).unwrap();
    let task = "a".repeat(32);
    let scopes = [
        ("key", "ann-1", &[ANN, LATER, ELSEWHERE][..], &[ANN_BY_ANOTHER_KEY, EVE, BOB][..]),
        ("consumer", "ann", &[ANN, ANN_BY_ANOTHER_KEY, LATER, ELSEWHERE], &[EVE, BOB]),
        ("team", "red", &[ANN, EVE, LATER, ELSEWHERE], &[BOB]),
        ("api", "brain", &[ANN, BOB, LATER], &[ELSEWHERE]),
        ("task", &task, &[ANN, BOB, ELSEWHERE], &[LATER]),
        ("organisation", "*", &[ANN, EVE, BOB, LATER, ELSEWHERE], &[]),
    ];
    // Enough for one call and not for two.
    let units = [
        ("1 calls", 429, "0 calls of 1 calls left, the call may take 1 calls"),
        ("2k tokens", 429, "980 tokens of 2k tokens left, the call may take "),
        ("0.02 USD", 402, "0.00995 USD of 0.02 USD left, the call may take "),
    ];
    for (scope, whose, spent, free) in scopes {
        for (amount, status, left) in units {
            let budgets = format!(
                "  narrow: {{ per: task, amount: 100 USD }}
  it: {{ per: {scope}, amount: {amount}, every: month }}
  wide: {{ per: organisation, amount: 1G tokens }}"
            );
            let (gateway, before) = (gateway(&provider, &budgets), provider.books().len());
            let what = format!("{amount} per {scope}");
            assert_eq!(call(gateway.web(), ANN, CHAT).status, 200, "{what}");
            // All others above it stay as they are.
            let stands = standing(&gateway);
            assert_eq!(stands.len(), 3, "{stands:?}");
            for caller in spent {
                for path in [CHAT, MESSAGES] {
                    let refused = call(gateway.web(), *caller, path);
                    let said = format!("{what}, {caller:?}: {} {}", refused.status, refused.text());
                    assert_eq!(refused.status, status, "{said}");
                    let error = &refused.json()["error"];
                    let kind = if path == CHAT { "insufficient_quota" } else { "billing_error" };
                    assert_eq!(error["type"], kind, "{said}");
                    let message = error["message"].as_str().unwrap();
                    assert!(message.starts_with(&format!("budget `it` of {scope} `{whose}`: {left}")), "{said}");
                    assert!(message.contains("; it renews at 20") && message.ends_with("-01T00:00:00Z"), "{said}");
                    let wait: u64 = refused.header("retry-after").unwrap().parse().unwrap();
                    assert!((1..=31 * 86_400).contains(&wait), "{said}");
                }
            }
            let after: Vec<_> = standing(&gateway).into_iter().filter(|it| stands.contains(it)).collect();
            assert_eq!(after, stands, "{what}");
            let untouched = standing(&gateway).into_iter().filter(|it| !stands.contains(it));
            for account in untouched {
                assert!(
                    account.starts_with("narrow b") && account.contains(" 0 USD left 100 USD"),
                    "{what}: {account}"
                );
            }
            for caller in free {
                let answer = call(gateway.web(), *caller, CHAT);
                assert_eq!(answer.status, 200, "{what}, {caller:?}: {}", answer.text());
            }
            assert_eq!(provider.books().len(), before + 1 + free.len(), "{what}: who is refused is not asked for");
        }
    }
}

#[test]
fn a_refusal_says_when_the_period_is_over() {
    let provider = Simulator::start(Options::provider("models")).unwrap();
    for (every, seconds, ends) in [
        ("minute", 60, ":00Z"),
        ("hour", 3600, ":00:00Z"),
        ("day", 86_400, "T00:00:00Z"),
        ("month", 31 * 86_400, "-01T00:00:00Z"),
        ("total", 0, ""),
    ] {
        let gateway = gateway(&provider, &format!("  it: {{ per: organisation, amount: 1 calls, every: {every} }}"));
        // Another period may begin between the two.
        let refused = loop {
            let answer = call(gateway.web(), ANN, CHAT);
            if answer.status != 200 {
                break answer;
            }
        };
        assert_eq!(refused.status, 429, "{every}: {}", refused.text());
        let message = refused.json()["error"]["message"].as_str().unwrap().to_owned();
        let renews = message.split("; it renews at ").nth(1);
        assert_eq!(renews.is_some(), seconds > 0, "{message}");
        assert!(renews.is_none_or(|at| at.ends_with(ends)), "{message}");
        let wait = refused.header("retry-after").map(|wait| wait.parse::<u64>().unwrap());
        assert!(wait.map_or(seconds == 0, |wait| (1..=seconds).contains(&wait)), "{every}: {refused:?}");
    }
}

#[test]
fn a_call_larger_than_the_whole_budget_is_not_told_to_wait() {
    let provider = Simulator::start(Options::provider("models")).unwrap();
    let gateway = gateway(&provider, "  it: { per: consumer, amount: 500 tokens, every: day }");
    let refused = call(gateway.web(), ANN, CHAT);
    assert_eq!((refused.status, refused.header("retry-after")), (429, None), "{}", refused.text());
    assert!(refused.text().contains("which is more than all of 500 tokens"), "{}", refused.text());
    assert_eq!(standing(&gateway), ["it ann 0 tokens left 500 tokens"]);
}

#[test]
fn a_soft_budget_warns_the_caller_and_the_log_and_refuses_nobody() {
    let provider = Simulator::start(Options::provider("models")).unwrap();
    for (amount, of, spent) in [
        ("1 calls", "1 calls", "1 calls"),
        ("1k tokens", "1k tokens", "1020 tokens"),
        ("0.01 USD", "0.01 USD", "0.01005 USD"),
    ] {
        let folder = folder();
        let budgets = format!(
            "  soft: {{ per: team, amount: {amount}, every: total, enforce: soft }}
  hard: {{ per: organisation, amount: 3 calls }}"
        );
        let document = document(&provider, &budgets);
        folder
            .write("weir.yaml", format!("version: 1\nlisteners: {{ web: {{ address: '127.0.0.1:0' }} }}\n{document}"));
        let node = Running::start(folder.base(), &["run", "weir.yaml"]);
        let line = node.line("address=");
        let address = line.split_whitespace().find_map(|word| word.strip_prefix("address=")).unwrap().parse().unwrap();
        let first = call(address, ANN, CHAT);
        assert_eq!((first.status, first.header("weir-budget")), (200, None), "{amount}: {}", first.text());
        // Once, when the share is reached.
        let logged = node.line("a budget has reached a share at which it warns");
        for word in ["budget=soft", "of=red", spent, "share=80%"] {
            assert!(logged.contains(word), "{amount}: {logged}");
        }
        let warned = call(address, EVE, MESSAGES);
        assert_eq!(warned.status, 200, "{amount}: {}", warned.text());
        assert_eq!(warned.header("weir-budget"), Some(&*format!("soft;spent=\"{spent}\";of=\"{of}\"")), "{amount}");
        // Another team has spent nothing of its own.
        let other = call(address, BOB, CHAT);
        assert_eq!((other.status, other.header("weir-budget")), (200, None), "{amount}: {}", other.text());
        let refused = call(address, ANN, CHAT);
        assert_eq!(refused.status, 429);
        assert!(refused.text().contains("budget `hard`"), "{}", refused.text());
    }
}

#[test]
fn how_budgets_stand_is_told_to_people_and_to_programs() {
    let provider = Simulator::start(Options::provider("models")).unwrap();
    let folder = folder();
    let budgets = "  all: { per: organisation, amount: 1 USD, every: day }
  each: { per: consumer, amount: 0.03 USD }
  steps: { per: task, amount: 5 calls }
  soft: { per: team, only: [red, blue], amount: 1k tokens, enforce: soft, warn: [50%, 100%] }";
    let document = format!(
        "version: 1
listeners: {{ web: {{ address: '127.0.0.1:0' }} }}
admin: {{ address: 'unix:{}/admin.sock' }}
telemetry: {{ metrics: '127.0.0.1:0' }}{}",
        folder.base().display(),
        document(&provider, budgets)
    );
    folder.write("weir.yaml", document);
    let node = Running::start(folder.base(), &["run", "weir.yaml"]);
    let address = |line: &str| {
        let line = node.line(line);
        let word = line.split_whitespace().find_map(|word| word.strip_prefix("address=")).unwrap().to_owned();
        word.trim_start_matches("http://").trim_end_matches("/metrics").parse().unwrap()
    };
    let (web, metrics) = (address("listening"), address("metrics"));
    node.line("admin API");
    let at = format!("unix:{}/admin.sock", folder.base().display());
    let ask = |more: &[&str]| {
        let said = weir(folder.base(), &[&["budgets", "--node", &*at], more].concat());
        assert_eq!(said.code, Some(0), "{}", said.err);
        said.out
    };
    let json = |more: &[&str]| -> serde_json::Value {
        let mut all: serde_json::Value = serde_json::from_str(&ask(&[&["--json"], more].concat())).unwrap();
        all["budgets"].take()
    };

    // Two calls pass, and of a third the worst case does not fit.
    for _ in 0..2 {
        assert_eq!(call(web, ANN, CHAT).status, 200);
    }
    assert_eq!(call(web, ANN, CHAT).status, 402);
    let mut under_way = Raw::connect(web);
    {
        let text = "Wait. [sim tokens=10 input=20 first=60s]";
        let body = json!({ "model": "m", "max_tokens": 1000, "stream": true, "messages": [{ "role": "user", "content": text }] });
        let body = body.to_string();
        let request = format!(
            "POST {CHAT} HTTP/1.1\r\nhost: weir\r\ncontent-type: application/json\r\nauthorization: Bearer bob-1\r\n\
             content-length: {}\r\n\r\n{body}",
            body.len()
        );
        under_way.send(request);
    }
    eventually("the call holds its worst case", || {
        json(&["--of", "bob"])[1]["holders"].as_array().is_some_and(|it| !it.is_empty())
    });

    let all = json(&[]);
    let names: Vec<_> = all.as_array().unwrap().iter().map(|it| it["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["all", "each", "soft", "steps"]);
    let each = &all[1];
    for (field, value) in [
        ("per", json!("consumer")),
        ("unit", json!("USD")),
        ("limit", json!("0.03")),
        ("every", json!("total")),
        ("enforce", json!("hard")),
        ("shared", json!(null)),
        ("refused", json!(1)),
        ("accounts", json!(2)),
    ] {
        assert_eq!(each[field], value, "{field}: {each}");
    }
    let ann = &each["holders"][0];
    let expected = json!({ "of": "ann", "spent": "0.0201", "reserved": "0", "left": "0.0099", "lent": null, "renews": null, "warns": null });
    assert_eq!(*ann, expected);
    // What Bob's call may cost is held of all that is above it, and of nothing else.
    let held = each["holders"][1]["reserved"].as_str().unwrap();
    assert!(held.starts_with("0.01"), "{each}");
    assert_eq!((&all[0]["holders"][0]["spent"], &all[0]["holders"][0]["reserved"]), (&json!("0.0201"), &json!(held)));
    assert!(all[0]["holders"][0]["renews"].as_str().unwrap().ends_with("T00:00:00Z"));
    let soft = &all[2];
    assert_eq!((&soft["warned"], &soft["enforce"], &soft["accounts"]), (&json!(2), &json!("soft"), &json!(2)));
    let red = soft["holders"].as_array().unwrap().iter().find(|it| it["of"] == "red").unwrap();
    assert_eq!((&red["spent"], &red["left"], &red["warns"]), (&json!("2040"), &json!("0"), &json!("100%")));
    let steps = json(&["--of", &"a".repeat(32)]);
    assert_eq!(steps[3]["holders"][0]["spent"], "2", "{steps}");
    assert_eq!(steps[0]["holders"], json!([]));

    let table = ask(&["--of", "ann"]);
    let row = table.lines().find(|line| line.starts_with("each")).unwrap();
    let cells: Vec<_> = row.split_whitespace().collect();
    assert_eq!(cells, ["each", "consumer", "ann", "hard", "never", "USD", "0.03", "0.0201", "0", "0.0099", "1"]);

    let text = Raw::connect(metrics).get("/metrics", "").text();
    for line in [
        "weir_budget_limit{budget=\"each\",per=\"consumer\",unit=\"microdollars\"} 30000",
        "weir_budget_spent{budget=\"each\",per=\"consumer\",unit=\"microdollars\",of=\"ann\"} 20100",
        "weir_budget_reserved{budget=\"each\",per=\"consumer\",unit=\"microdollars\",of=\"ann\"} 0",
        "weir_budget_spent{budget=\"steps\",per=\"task\",unit=\"calls\",of=\"other\"} 2",
        "weir_budget_spent{budget=\"soft\",per=\"team\",unit=\"tokens\",of=\"red\"} 2040",
        "weir_budget_accounts{budget=\"soft\",per=\"team\"} 2",
        "weir_budget_refusals_total{budget=\"each\",per=\"consumer\",why=\"spent\"} 1",
        "weir_budget_refusals_total{budget=\"all\",per=\"organisation\",why=\"spent\"} 0",
        "weir_budget_warnings_total{budget=\"soft\",per=\"team\"} 2",
    ] {
        assert!(text.lines().any(|it| it == line), "{line}\n{text}");
    }
    assert!(!text.contains(&"a".repeat(32)), "a task has no series of its own");
    drop(under_way);
}

/// A node with an admin API, and what `weir budgets` says of it.
struct Asked {
    folder: Folder,
    _node: Running,
    at: String,
}

impl Asked {
    fn of(provider: &Simulator, budgets: &str) -> Asked {
        let folder = folder();
        let at = format!("unix:{}/admin.sock", folder.base().display());
        let rest = document(provider, budgets);
        folder.write(
            "weir.yaml",
            format!(
                "version: 1\nlisteners: {{ web: {{ address: '127.0.0.1:0' }} }}\nadmin: {{ address: '{at}' }}{rest}"
            ),
        );
        let node = Running::start(folder.base(), &["run", "weir.yaml"]);
        node.line("admin API");
        Asked { folder, _node: node, at }
    }

    /// How it ends, what it says, and of what it complains.
    #[track_caller]
    fn says(&self, more: &[&str], code: i32, out: &str, err: &str) {
        let said = weir(self.folder.base(), &[&["budgets", "--node", &*self.at], more].concat());
        assert_eq!((said.code, &*said.out, &*said.err), (Some(code), out, err), "{more:?}");
    }
}

#[test]
fn where_nothing_is_spent_the_command_says_so_and_a_name_that_nobody_has_is_an_error() {
    let provider = Simulator::start(Options::provider("models")).unwrap();
    let nobody = "error: nobody is called `nobody`: no consumer, team, key or api of the document, and none that has spent \
                  of a budget; the document's consumers are `ann`, `eve`, `bob`\n\
                  help: `weir budgets` shows in its column `of` who has spent\n";

    let node = Asked::of(&provider, "  {}");
    for more in [&[][..], &["--of", "ann"]] {
        node.says(more, 0, "the document of this node has no budgets\n", "");
    }
    node.says(&["--json"], 0, "{\n  \"budgets\": []\n}\n", "");
    node.says(&["--of", "nobody"], 2, "", nobody);

    let node =
        Asked::of(&provider, "  each: { per: consumer, amount: 0.03 USD }\n  steps: { per: task, amount: 5 calls }");
    let all = "there are `each` of 0.03 USD per consumer, `steps` of 5 calls per task\n";
    node.says(&[], 0, &format!("nobody has spent of any budget that runs; {all}"), "");
    let task = "a".repeat(32);
    // A consumer, a team, a key, an api, a task.
    for name in ["ann", "red", "ann-2", "other", &task] {
        let sentence = format!("nothing is spent by `{name}` of any budget that runs; {all}");
        node.says(&["--of", name], 0, &sentence, "");
    }
    node.says(&["--of", "nobody"], 2, "", nobody);
    node.says(&["--of", "nobody", "--json"], 2, "", nobody);
}
