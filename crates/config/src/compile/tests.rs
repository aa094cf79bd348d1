use super::*;
use crate::files::Disk;

fn errors(text: &str) -> Vec<String> {
    match compile(&Source::new("test.yaml", text.into()), &Disk { base: "/nowhere".into() }, None) {
        Ok((_, warnings)) => warnings,
        Err(errors) => errors,
    }
    .into_iter()
    .map(|found| format!("{}:{} {}: {}", found.line, found.column, found.path, found.message))
    .collect()
}

fn check(text: &str, expected: &[&str]) {
    let found = errors(text);
    let alike = found.len() == expected.len() && found.iter().zip(expected).all(|(found, part)| found.contains(part));
    assert!(alike, "{text}\n{found:#?}\n{expected:#?}");
}

#[test]
fn examples_compile() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../../examples");
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let source = Source::new(path.to_str().unwrap(), std::fs::read_to_string(&path).unwrap());
        match compile(&source, &Disk::beside(&path), None) {
            Ok((snapshot, warnings)) => assert!(warnings.is_empty() && !snapshot.routes.is_empty(), "{warnings:?}"),
            Err(errors) => panic!("{}", errors.iter().map(|e| e.render(false)).collect::<Vec<_>>().join("\n")),
        }
    }
}

#[test]
fn all_errors_at_once_and_no_consequences() {
    check(
        "version: 1
upstreams:
  orders: { endpoints: [http://a], retries: 3, retry: { backoff: 5 } }
  broken: 7
apis:
  a:
    upstrem: orders
    routes:
      - match: { path: /x, method: get }
        upstream: order
      - { match: { path: /y }, upstream: broken }
      - { match: { path: /z }, upstream: orders, policies: { authenticat: none } }
      - { match: { path: /z }, upstream: orders }
",
        &[
            "3:36 upstreams.orders.retries: unknown field `retries`",
            "3:66 upstreams.orders.retry.backoff: found integer `5`, expected a duration",
            "4:11 upstreams.broken: found integer `7`",
            "7:5 apis.a.upstrem: unknown field `upstrem`",
            "9:36 apis.a.routes[0].match.method: `get` is not a method",
            "10:19 apis.a.routes[0].upstream: there is no upstream `order`",
            "12:62 apis.a.routes[2].policies.authenticat: unknown field",
            "13:9 apis.a.routes[3]: takes the same calls as `apis.a.routes[2]`",
        ],
    );
}

#[test]
fn yaml_is_read_strictly() {
    check("version: 1\nversion: 1\n", &["2:1 : `version` stands twice"]);
    check("a: 0755\n", &["1:4 : `0755` is octal"]);
    check("a: &x { b: 1 }\nc: { <<: *x }\n", &["merge keys"]);
    check("version: 1\napis: { no: { upstream: http://a, host: no } }\n", &[]);
    let mut bomb = String::from("a0: &a0 [1,1,1,1,1,1,1,1,1,1]\n");
    for n in 1..9 {
        let aliases = vec![format!("*a{}", n - 1); 10].join(",");
        bomb += &format!("a{n}: &a{n} [{aliases}]\n");
    }
    check(&bomb, &["too large"]);
}

#[test]
fn meaning_is_checked() {
    check("version: 2\napis: {}\n", &["version 2 is not known", "no api"]);
    check("version: 1\nlisteners: { web: { address: ':80' } }\napis: { a: { upstream: http://a } }\n", &["`[::]:80`"]);
    check(
        "version: 1\nupstreams: { x: { endpoints: [http://a] } }\napis: { a: { upstream: http://a } }\n",
        &["no route uses"],
    );
    check("version: 1\napis: { a: { upstream: { http://a: 0 } } }\n", &["all weights are zero"]);
}

#[test]
fn a_snapshot_crosses_threads() {
    fn check<T: Send + Sync>() {}
    check::<Snapshot>();
}

#[test]
fn diagnostics_show_the_place() {
    let source = Source::new("weir.yaml", "version: 1\napis:\n  a:\n    upstrem: http://a\n".into());
    let Err(errors) = compile(&source, &Disk { base: ".".into() }, None) else { panic!("compiled") };
    assert_eq!(errors.len(), 1, "{errors:#?}");
    let rendered = errors[0].render(false);
    for part in ["error: unknown field `upstrem`", "weir.yaml:4:5", "did you mean `upstream`?"] {
        assert!(rendered.contains(part), "{rendered}");
    }
}

#[test]
fn the_reference_names_every_field() {
    let reference = crate::schema::reference();
    for field in ["`apis`", "`trusted-proxies`", "`api-key`", "`max-series`", "`match`"] {
        assert!(reference.contains(field), "{field}");
    }
}
