//! `bench/RESULTS.md`: the machine, the figures, the bars.

use std::fmt::Write;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result};

use crate::cases::IDLE_CONNECTIONS;
use crate::run::{Arguments, Case, Findings, Sample, Suite, cores};

fn rivals(suite: Suite) -> [&'static str; 3] {
    match suite {
        Suite::Http => ["nginx", "haproxy", "envoy"],
        Suite::Llm => ["nginx", "litellm", "portkey"],
    }
}

pub fn median(values: Vec<f64>) -> f64 {
    quartiles(values)[1]
}

/// The first quartile, the median, the third.
fn quartiles(mut values: Vec<f64>) -> [f64; 3] {
    if values.is_empty() {
        return [f64::NAN; 3];
    }
    values.sort_by(f64::total_cmp);
    [0.25, 0.5, 0.75].map(|quantile| {
        let place = quantile * (values.len() - 1) as f64;
        let (low, high) = (values[place.floor() as usize], values[place.ceil() as usize]);
        low + (high - low) * place.fract()
    })
}

impl Findings {
    fn of<'a>(&'a self, case: Case, tool: &'a str, peer: &'a str) -> impl Iterator<Item = &'a Sample> {
        self.samples.iter().filter(move |sample| sample.case == case && sample.tool == tool && sample.peer == peer)
    }

    /// Round by round, what one has over what the other has.
    fn paired(&self, case: Case, tool: &str, pair: (&str, &str), what: fn(&Sample) -> f64) -> Vec<f64> {
        let ratios = self.of(case, tool, pair.0).filter_map(|one| {
            let other = self.of(case, tool, pair.1).find(|other| other.round == one.round)?;
            Some(what(one) / what(other))
        });
        ratios.collect()
    }

    fn figure(&self, case: Case, what: &str) -> Option<f64> {
        let of = |figure: &&crate::run::Figure| figure.case == case && figure.peer == "weir" && figure.what == what;
        self.figures.iter().find(of).map(|figure| figure.value)
    }

    fn ratio(&self, case: Case, tool: &str, rival: &str, what: fn(&Sample) -> f64) -> Option<f64> {
        let ratios = self.paired(case, tool, ("weir", rival), what);
        (!ratios.is_empty()).then(|| median(ratios))
    }
}

/// Round by round, what one adds to the direct way over what the other adds.
fn added(findings: &Findings, case: Case, what: fn(&Sample) -> f64) -> Option<f64> {
    let over = |peer, round| {
        let of = |peer| findings.of(case, "bench", peer).find(|sample| sample.round == round).map(what);
        Some(of(peer)? - of("direct")?)
    };
    let ratios: Vec<f64> = findings
        .of(case, "bench", "weir")
        // What is not more than the noise of the direct way says nothing.
        .filter_map(|sample| Some((over("weir", sample.round)?, over("nginx", sample.round)?)))
        .filter(|(_, nginx)| *nginx > 0.0)
        .map(|(weir, nginx)| weir / nginx)
        .collect();
    (!ratios.is_empty()).then(|| median(ratios))
}

fn llm_bars(findings: &Findings) -> Vec<Bar> {
    let cpu: fn(&Sample) -> f64 = |sample| sample.cpu_us;
    let mut bars = Vec::new();
    let mut bar =
        |what: &str, limit, value, unit| bars.push(Bar { what: what.to_owned(), limit: Some(limit), value, unit });
    for (case, what, limit) in [
        (Case::Small, "1 KB with key, budget, price and journal, CPU per request over nginx", 2.0),
        (Case::Large, "4 KB with key, budget, price and journal, CPU per request over nginx", 2.0),
        (Case::Streams, "100 streams, metered, CPU per token over nginx", 1.1),
        (Case::Many, "400 streams, metered, CPU per token over nginx", 1.1),
        (Case::Translated, "100 streams, OpenAI to Anthropic, CPU per token over nginx", 1.3),
        (Case::Back, "100 streams, Anthropic to OpenAI, CPU per token over nginx", 1.3),
    ] {
        bar(what, limit, findings.ratio(case, "bench", "nginx", cpu), "×");
    }
    let one = |what| added(findings, Case::One, what);
    bar("one connection, added p50 over nginx's", 1.3, one(|sample| sample.outcome.p50), "×");
    bar("one connection, added p99 over nginx's", 1.3, one(|sample| sample.outcome.p99), "×");
    for (case, streams) in [(Case::Streams, 100), (Case::Many, 400)] {
        let first = format!("{streams} streams, added time to the first token");
        let added = |what| added(findings, case, what);
        bar(&format!("{first}, p50 over nginx's"), 1.2, added(|sample| sample.outcome.first_p50), "×");
        bar(&format!("{first}, p99 over nginx's"), 1.2, added(|sample| sample.outcome.first_p99), "×");
    }
    for (what, limit) in [("at rest", 25.0), ("400 streams", 40.0), ("1000 streams", 70.0)] {
        bar(&format!("memory, {what}"), limit, findings.figure(Case::Memory, what), "MiB");
    }
    bar("wrong answers, failed connections and lost tokens in all of it", 0.0, failed(findings), "");
    let what = "1 KB given again from `answer-cache`, CPU per request over nginx that fetches it".to_owned();
    bars.push(Bar { what, limit: None, value: findings.ratio(Case::Hit, "bench", "nginx", cpu), unit: "×" });
    bars
}

fn failed(findings: &Findings) -> Option<f64> {
    let weir = findings.samples.iter().filter(|sample| sample.peer == "weir");
    let failed: Vec<u64> = weir.map(|sample| sample.outcome.bad + sample.outcome.errors).collect();
    (!failed.is_empty()).then(|| failed.iter().sum::<u64>() as f64)
}

struct Bar {
    what: String,
    /// `None` of what is shown and not judged.
    limit: Option<f64>,
    value: Option<f64>,
    unit: &'static str,
}

fn bars(findings: &Findings) -> Vec<Bar> {
    let cpu: fn(&Sample) -> f64 = |sample| sample.cpu_us;
    let p50: fn(&Sample) -> f64 = |sample| sample.outcome.p50;
    let p99: fn(&Sample) -> f64 = |sample| sample.outcome.p99;
    let mut bars = Vec::new();
    let mut bar = |what: String, limit, value, unit| bars.push(Bar { what, limit: Some(limit), value, unit });
    for (case, tool, what, rival, limit, figure) in [
        (Case::Get, "wrk", "small GET, CPU per request over", "nginx", 1.05, cpu),
        (Case::Get, "wrk", "small GET, CPU per request over", "haproxy", 1.1, cpu),
        (Case::Get, "wrk", "small GET, CPU per request over", "envoy", 0.4, cpu),
        (Case::Get, "wrk", "small GET, CPU per request over", "envoy-stats", 0.4, cpu),
        (Case::Policies, "wrk", "with key, limit, metrics and access log, over bare", "nginx", 1.35, cpu),
        (Case::Cache, "wrk", "small GET from the cache, CPU per request over", "nginx", 1.0, cpu),
        (Case::Post, "wrk", "POST 4 KB, CPU per request over", "nginx", 0.95, cpu),
        (Case::Sse, "bench", "streams, CPU per event over", "nginx", 1.0, cpu),
        (Case::Sse, "bench", "streams, CPU per event over", "haproxy", 1.0, cpu),
        (Case::Sse, "bench", "streams, median delay over", "nginx", 1.0, p50),
        (Case::Sse, "bench", "streams, median delay over", "haproxy", 1.0, p50),
        (Case::Sse, "bench", "streams, p99 delay over", "nginx", 1.0, p99),
        (Case::Sse, "bench", "streams, p99 delay over", "haproxy", 1.0, p99),
        (Case::H2, "h2load", "HTTP/2 in, CPU per request over", "envoy", 0.5, cpu),
    ] {
        bar(format!("{what} {rival}"), limit, findings.ratio(case, tool, rival, figure), "×");
    }
    for (case, what, limit, unit) in [
        (Case::Idle, "idle memory", 20.0, "MiB"),
        (Case::Idle, "per idle connection", 20.0, "KiB"),
        (Case::Cores, "busiest worker over the other", 1.3, "×"),
        (Case::Cores, "p99 beside over alone", 2.0, "×"),
        (Case::Reload, "failed requests", 0.0, ""),
        (Case::Reload, "in force after, slowest", 200.0, "ms"),
        (Case::Reload, "RSS growth after the tenth", 5.0, "%"),
    ] {
        bar(format!("{case}: {what}"), limit, findings.figure(case, what), unit);
    }
    let alive = findings.figure(Case::Idle, "connections alive").map(|alive| IDLE_CONNECTIONS as f64 - alive);
    bar(format!("idle: of {IDLE_CONNECTIONS} connections, lost"), 0.0, alive, "");
    bar("wrong answers, failed connections and lost events in all of it".into(), 0.0, failed(findings), "");
    bars
}

pub fn render(findings: &Findings, arguments: &Arguments) -> String {
    let mut text = String::new();
    let _ = write(&mut text, findings, arguments);
    text
}

fn write(text: &mut String, findings: &Findings, arguments: &Arguments) -> std::fmt::Result {
    let (title, command) = match arguments.suite {
        Suite::Http => ("Side by side", "bench run"),
        Suite::Llm => ("Side by side: gateways for models", "bench llm"),
    };
    writeln!(text, "# {title}\n\nWritten by `{command}`; do not edit.\n")?;
    machine(text, findings, arguments)?;

    write!(text, "\n## Bars\n\n{}", table(findings, arguments.suite))?;
    for failure in findings.failures.iter().chain(&findings.overloads) {
        writeln!(text, "\nWithout a result: {}", failure.lines().next().unwrap_or_default())?;
    }

    if findings.samples.iter().any(|sample| sample.peer == "floor") {
        writeln!(text, "\n{FLOOR}")?;
    }
    for &case in &arguments.cases {
        samples(text, findings, case, arguments.suite)?;
        let figures: Vec<_> = findings.figures.iter().filter(|figure| figure.case == case).collect();
        if !figures.is_empty() {
            writeln!(text, "\n## {case}\n")?;
            if case == Case::Cores {
                writeln!(text, "{CORES}\n")?;
            }
            writeln!(text, "| proxy | what | |\n|---|---|--:|")?;
            for figure in figures {
                writeln!(text, "| {} | {} | {:.2} {} |", figure.peer, figure.what, figure.value, figure.unit)?;
            }
        }
    }

    writeln!(text, "\n## Commands\n\n```")?;
    for command in &findings.commands {
        writeln!(text, "{command}")?;
    }
    writeln!(text, "```")
}

const FLOOR: &str = "\
`floor` is no rival: it copies bytes between a client's connection and one of its own to the origin and looks at none of
them (`bench floor`), so it shows what reading and writing alone cost on this machine. `envoy` has its statistics switched
off, `envoy-stats` has them on, as it comes; Weir counts every call in every row.";

const HIT: &str = "\
What was asked before is given again by Weir, which asks no provider: key, budget and journal as in `small`, and the question
compared with those that were asked. nginx is what it is in `small`, a plain proxy of the same bytes, and so has the way to the
provider to go.";

const CORES: &str = "\
Two workers on two cores. Beside small requests runs one text without end that the proxy compresses (gzip, level 4) as it
comes, 20 MB/s of it: much work for one worker, little for the origin and the load tool, which share the cores with them
where there are only two. p99 is that of 1000 requests a second over 64 connections, sent whether or not those before were
answered, with and without the text; the load of the workers is looked at with as many requests beside it as they take.
Beside `floor` runs, in place of the text, a loop of nice 19 that has nothing to do with it (`bench spin`): what that does to
the p99 is the kernel's and the machine's. HAProxy's compressor (SLZ) does less to each byte than the others'.";

/// Between its marks in the readme.
pub fn put(readme: &Path, findings: &Findings, arguments: &Arguments) -> Result<()> {
    let text = fs::read_to_string(readme)?;
    let mark = match arguments.suite {
        Suite::Http => "bench",
        Suite::Llm => "bench-llm",
    };
    let (start, end) = (format!("<!-- {mark} -->"), format!("<!-- /{mark} -->"));
    let (before, rest) = text.split_once(&start).with_context(|| format!("no {start} in {}", readme.display()))?;
    let (_, after) = rest.split_once(&end).with_context(|| format!("no {end} in {}", readme.display()))?;
    let Arguments { rounds, seconds, .. } = arguments;
    let table = table(findings, arguments.suite);
    let how =
        format!("Medians of {rounds} interleaved rounds of {seconds} s, one worker of each on a core of its own.");
    Ok(fs::write(readme, format!("{before}{start}\n{table}\n{how}\n{end}{after}"))?)
}

/// The bars, and what was measured.
pub fn table(findings: &Findings, suite: Suite) -> String {
    let bars = match suite {
        Suite::Http => bars(findings),
        Suite::Llm => llm_bars(findings),
    };
    let mut text = String::from("| bar | limit | measured | |\n|---|--:|--:|---|\n");
    for Bar { what, limit, value, unit } in bars {
        let said = limit.map_or(String::new(), |limit| format!("{limit} {unit}"));
        let _ = match value {
            Some(value) => {
                let verdict = match limit {
                    Some(limit) if value <= limit => "pass",
                    Some(_) => "**FAIL**",
                    None => "",
                };
                writeln!(text, "| {what} | {said} | {value:.2} {unit} | {verdict} |")
            }
            None => writeln!(text, "| {what} | {said} | | not measured |"),
        };
    }
    text
}

fn machine(text: &mut String, findings: &Findings, arguments: &Arguments) -> std::fmt::Result {
    let read = |path| fs::read_to_string(path).unwrap_or_default();
    let cpuinfo = read("/proc/cpuinfo");
    let model = cpuinfo.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": "));
    let model = model.map_or("unknown", |(_, model)| model);
    let kernel = read("/proc/sys/kernel/osrelease");
    let congestion = read("/proc/sys/net/ipv4/tcp_congestion_control");
    let (kernel, congestion) = (kernel.trim(), congestion.trim());
    // We are on one core ourselves: ask for those that are there.
    let count = cpuinfo.lines().filter(|line| line.starts_with("processor")).count().max(cores());
    writeln!(text, "- Machine: {model}, {count} cores, Linux {kernel}, {congestion}")?;
    for version in &findings.versions {
        writeln!(text, "- {version}")?;
    }
    writeln!(
        text,
        "- {} rounds of {} s, A B C, A B C; the proxy has one worker on core 0, origin and load tool are on core 1.",
        arguments.rounds, arguments.seconds
    )?;
    writeln!(
        text,
        "- CPU time is user and system time of all the proxy's processes, over requests (over events, of streams). \
         Ratios are of the same round, then the median with quartiles. Latencies in the closed loop are those of a \
         saturated core: read the CPU time first."
    )?;
    if arguments.suite == Suite::Llm {
        writeln!(
            text,
            "- The time to the first token is that of the way there and back: the provider says in it when the call came and \
             when it was sent, and what lies between, with its timer's coarseness, is nobody's."
        )?;
    }
    Ok(())
}

fn samples(text: &mut String, findings: &Findings, case: Case, suite: Suite) -> std::fmt::Result {
    let rivals = rivals(suite);
    let llm = suite == Suite::Llm;
    let mut tools: Vec<&str> = Vec::new();
    for sample in findings.samples.iter().filter(|sample| sample.case == case) {
        if !tools.contains(&sample.tool.as_str()) {
            tools.push(&sample.tool);
        }
    }
    for tool in tools {
        let mut peers: Vec<&str> = Vec::new();
        for sample in findings.samples.iter().filter(|sample| sample.case == case && sample.tool == tool) {
            if !peers.contains(&sample.peer.as_str()) {
                peers.push(&sample.peer);
            }
        }
        writeln!(text, "\n## {case}, by {tool}\n")?;
        if case == Case::Hit {
            writeln!(text, "{HIT}\n")?;
        }
        writeln!(
            text,
            "| proxy | CPU µs | per second | p50 µs | p99 µs |{} core busy | bad | over {} |",
            if llm { " first p50 µs | first p99 µs |" } else { "" },
            rivals.join(" | over "),
        )?;
        writeln!(text, "|---|--:|--:|--:|--:|{}--:|--:|--:|--:|--:|", if llm { "--:|--:|" } else { "" })?;
        for peer in peers {
            let of = |what: fn(&Sample) -> f64| quartiles(findings.of(case, tool, peer).map(what).collect());
            let [low, cpu, high] = of(|sample| sample.cpu_us);
            let bad: u64 = findings.of(case, tool, peer).map(|s| s.outcome.bad + s.outcome.errors).sum();
            write!(
                text,
                "| {peer} | {cpu:.1} [{low:.1} to {high:.1}] | {:.0} | {:.0} | {} |{} {:.0} % | {bad} |",
                of(|sample| sample.outcome.rps)[1],
                of(|sample| sample.outcome.p50)[1],
                match of(|sample| sample.outcome.p99)[1] {
                    0.0 => String::new(),
                    p99 => format!("{p99:.0}"),
                },
                if llm {
                    let (p50, p99) = (of(|it| it.outcome.first_p50)[1], of(|it| it.outcome.first_p99)[1]);
                    format!(" {p50:.0} | {p99:.0} |")
                } else {
                    String::new()
                },
                of(|sample| sample.busy)[1] * 100.0,
            )?;
            for rival in rivals {
                let ratios = findings.paired(case, tool, (peer, rival), |sample| sample.cpu_us);
                if ratios.is_empty() || rival == peer {
                    write!(text, " |")?;
                } else {
                    let [low, middle, high] = quartiles(ratios);
                    write!(text, " {middle:.2} [{low:.2} to {high:.2}] |")?;
                }
            }
            writeln!(text)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use crate::run::{Case, Findings, Sample, Suite};

    /// What has no limit is shown, and passes or fails nothing.
    #[test]
    fn a_row_without_a_limit_has_no_verdict() {
        let mut findings = Findings::default();
        for (peer, cpu_us) in [("nginx", 20.0), ("weir", 5.0)] {
            let (peer, tool) = (peer.to_owned(), "bench".to_owned());
            let outcome = crate::load::Outcome::default();
            findings.samples.push(Sample { case: Case::Hit, round: 1, peer, tool, cpu_us, busy: 1.0, outcome });
        }
        let table = super::table(&findings, Suite::Llm);
        let row = table.lines().find(|line| line.contains("answer-cache")).unwrap();
        assert!(row.ends_with("|  | 0.25 × |  |"), "{row}");
        let small = table.lines().find(|line| line.contains("1 KB with key")).unwrap();
        assert!(small.ends_with("| 2 × | | not measured |"), "{small}");
    }

    #[test]
    fn quartiles_lie_between() {
        assert_eq!(super::quartiles(vec![3.0, 1.0, 2.0, 5.0, 4.0]), [2.0, 3.0, 4.0]);
        assert_eq!(super::quartiles(vec![1.0, 2.0]), [1.25, 1.5, 1.75]);
    }
}
