//! Every file in `examples/` is run as it is, but for its ports.

use std::path::Path;

use simulator::{Options, Simulator};
use testkit::dns::NameServer;
use testkit::{Folder, curl};

use crate::weir::{Running, get};

const EXAMPLES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../examples");

struct Example {
    weir: Running,
    folder: Folder,
    address: String,
}

impl Example {
    fn start(name: &str, simulator: &Simulator, names: &NameServer) -> Example {
        let mut text = std::fs::read_to_string(Path::new(EXAMPLES).join(name)).unwrap();
        for port in ["9000", "9001"] {
            text = text.replace(&format!("127.0.0.1:{port}"), &simulator.address().to_string());
        }
        let folder = Folder::new();
        folder.write("provider.key", "sk-provider");
        let text = match name.rsplit_once('.').unwrap().1 {
            _ if name == "tls.yaml" => {
                folder.authority("ca").issue("web", &["localhost", "127.0.0.1"]);
                text.replace("127.0.0.1:8443", "127.0.0.1:0").replace("127.0.0.1:8080", "127.0.0.1:0")
            }
            _ if name == "services.yaml" => {
                text.replace("127.0.0.1:8600", &names.address().to_string()).replace("orders.service.consul", "s.test")
                    + "\nlisteners: { web: { address: '127.0.0.1:0' } }\n"
            }
            "toml" => text + "\n[listeners.web]\naddress = \"127.0.0.1:0\"\n",
            "json" => text.replacen('{', "{ \"listeners\": { \"web\": { \"address\": \"127.0.0.1:0\" } },", 1),
            _ => text + "\nlisteners: { web: { address: '127.0.0.1:0' } }\n",
        };
        folder.write(name, text);
        let weir = Running::start(folder.base(), &["run", name]);
        let line = weir.line("listener=web");
        let address = line.split_whitespace().find_map(|word| word.strip_prefix("address=")).unwrap().to_owned();
        Example { weir, folder, address }
    }

    #[track_caller]
    fn check(&self, path: &str, fields: &str, status: &str, part: &str) {
        let answer = get(&self.address, path, fields);
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")) && answer.contains(part), "{path}\n{answer}");
    }
}

#[test]
fn every_example_answers() {
    let simulator = Simulator::start(Options::default()).unwrap();
    let port = simulator.address().port();
    let names = NameServer::start(&format!("s 60 SRV 0 1 {port} a\na 60 A 127.0.0.1\n"));
    for entry in std::fs::read_dir(EXAMPLES).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        let example = Example::start(&name, &simulator, &names);
        match name.as_str() {
            "hello.yaml" | "hello.toml" | "hello.json" => example.check("/echo", "", "200", "\"/echo\""),
            "limits.yaml" => {
                // The simulator has no such path, which is counted all the same.
                example.check("/search", "x-tenant: a\r\n", "404", "\"x-tenant\";r=590;t=1,");
                example.check("/health", "x-tenant: a\r\n", "200", "\"address-concurrency\";r=7");
            }
            "overload.yaml" => {
                example.check("/echo", "x-api-key: secret\r\n", "200", "\"/echo\"");
                example.check("/health", "", "200", "ok");
            }
            // Whether or not there is a store: each lets its part through.
            "shared-limits.yaml" => example.check("/echo", "", "200", "\"address\";r="),
            "browsers.yaml" => {
                let origin = "origin: https://app.example.com\r\n";
                example.check("/echo", origin, "200", "access-control-allow-origin: https://app.example.com");
                example.check("/echo", "", "200", "\"x-caller\":\"127.0.0.1\"");
                example.check(
                    "/slow-body?chunks=1&every=1ms",
                    "accept-encoding: gzip\r\n",
                    "200",
                    "content-encoding: gzip",
                );
                example.check("/internal", "", "403", "forbidden");
                example.check(&format!("/{}", "x".repeat(5000)), "", "414", "uri-too-long");
            }
            "canary.yaml" => {
                example.check("/orders", "x-beta: 1\r\n", "404", "");
                assert_eq!(simulator.seen("/orders").len(), 1);
                example.check("/other", "", "404", "");
                assert!(simulator.seen("/other").is_empty());
            }
            "cache.yaml" => {
                example.check("/echo?a=1&utm_source=x", "", "200", "stored");
                example.check("/echo?a=1", "", "200", "weir; hit");
                assert_eq!(simulator.seen("/echo").iter().filter(|it| it.query.contains("a=1")).count(), 1);
            }
            "models.yaml" => {
                example.check("/v1/models", "", "200", "\"smart\"");
                let body = r#"{"model":"smart","messages":[{"role":"user","content":"Hi. [sim tokens=3]"}]}"#;
                let url = format!("http://{}/v1/chat/completions", example.address);
                let said = curl(&["-H", "content-type: application/json", "-d", body, &url]);
                assert!(said.answer.status == 200 && said.answer.text().contains("The water is"), "{said:?}");
                assert_eq!(said.answer.header("weir-model"), Some("other/smart"));
            }
            // There is no store, so nothing is lent, and nothing is spent.
            "shared-budgets.yaml" => {
                let body = r#"{"model":"small","messages":[{"role":"user","content":"Hi."}]}"#;
                let url = format!("http://{}/v1/chat/completions", example.address);
                let said = curl(&["-H", "content-type: application/json", "-d", body, &url]);
                assert!(said.answer.status == 503 && said.answer.text().contains("does not answer"), "{said:?}");
            }
            "grpc.yaml" => {
                let before = simulator.requests();
                example.check("/echo", "", "200", "HTTP/2");
                assert!(simulator.requests() > before);
            }
            "keys-and-limits.yaml" => {
                example.check("/echo", "", "401", "");
                example.check("/health", "", "200", "");
                example.check("/echo", "x-api-key: secret\r\n", "200", "\"/echo\"");
            }
            "resilience.yaml" => {
                let ask = |status: u16| {
                    example.check(&format!("/echo?fault=status={status}"), "", &status.to_string(), "");
                };
                // Half of its calls fail, of as many as it takes to tell.
                (0..20).for_each(|n| ask(if n < 10 { 200 } else { 504 }));
                example.check("/echo", "", "503", "urn:weir:problem:upstream-open");
            }
            "tls.yaml" => {
                let port = example.address.rsplit_once(':').unwrap().1;
                let authority = example.folder.path("ca.crt");
                let url = format!("https://localhost:{port}/echo");
                let said = curl(&[
                    "--cacert",
                    authority.to_str().unwrap(),
                    "--resolve",
                    &format!("localhost:{port}:127.0.0.1"),
                    &url,
                ]);
                assert!(said.answer.status == 200 && said.answer.text().contains("\"/echo\""), "{said:?}");
                let line = example.weir.line("listener=plain");
                let plain = line.split_whitespace().find_map(|word| word.strip_prefix("address=")).unwrap();
                let answer = get(plain, "/a?b", "");
                assert!(answer.contains("location: https://127.0.0.1:8443/a?b"), "{answer}");
            }
            "services.yaml" => example.check("/echo", "", "200", "\"/echo\""),
            "rewrite.yaml" => {
                example.check("/ping", "", "200", "pong");
                example.check("/old/a", "", "308", "/api/a");
                example.check("/api/echo", "", "200", "\"/echo\"");
                example.check("/v2/orders/7", "", "404", "");
                assert_eq!(simulator.seen("/orders/7").len(), 1);
            }
            "tokens-and-rules.yaml" => {
                example.check("/echo", "", "401", "Bearer realm=\"api\"");
                example.check("/echo", "authorization: Bearer eyJ9.e30.AA\r\n", "401", "cannot be verified");
                example.check("/echo", "x-api-key: secret\r\n", "200", "\"/echo\"");
                example.check("/internal/x", "x-api-key: secret\r\n", "403", "forbidden");
                example.check("/%69nternal/x", "x-api-key: secret\r\n", "403", "forbidden");
            }
            other => panic!("{other} has no test"),
        }
    }
}
