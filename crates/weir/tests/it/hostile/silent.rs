//! HTTP/2 clients that went without a word: they are asked whether they are there, and given up. By the byte.

use std::time::Duration;

use simulator::{Options, Simulator};
use testkit::{Raw, eventually};

use super::frames::{ACK, END_STREAM, Frame, Http2, Outcome, PING};
use super::process::Process;

/// One client is asked soon, and has long to answer.
fn process(service: &Simulator, timeout: &str) -> Process {
    Process::start(
        &format!(", limits: {{ ping: 100ms, ping-timeout: {timeout} }}"),
        &format!("node: {{ workers: 1 }}\napis: {{ a: {{ upstream: '{}' }} }}", service.url()),
    )
}

fn greeted(process: &Process) -> Http2 {
    let http2 = Http2::connect(process.web, &[]);
    http2.wait_at_most(Duration::from_secs(20));
    http2
}

/// The next time that it is asked whether it is there.
fn asked(http2: &mut Http2) -> Option<Frame> {
    loop {
        let frame = http2.read().ok()?;
        if frame.kind == PING && frame.flags & ACK == 0 {
            return Some(frame);
        }
    }
}

/// How often calls ended before they had an answer, since their clients had gone.
fn gone(process: &Process) -> u32 {
    let answer = Raw::connect(process.metrics).send("GET /metrics HTTP/1.1\r\nhost: t\r\n\r\n").answer();
    let text = answer.text();
    let calls = text.lines().filter(|line| line.starts_with("weir_requests_total{") && line.contains("code=\"none\""));
    calls.map(|line| line.rsplit(' ').next().unwrap().parse::<u32>().unwrap()).sum()
}

#[test]
fn who_does_not_answer_is_given_up_with_all_that_he_waits_for() {
    let service = Simulator::start(Options::default()).unwrap();
    let process = process(&service, "300ms");
    let mut http2 = greeted(&process);
    for stream in [1, 3] {
        http2.get(stream, "/delay/3600000").unwrap();
    }
    eventually("both are under way", || service.requests() == 2);
    assert!(asked(&mut http2).is_some());
    assert_eq!(http2.outcome(1), Outcome::Gone);
    eventually("both are booked as calls whose client left", || gone(&process) == 2);
    // One that waits for nothing is given up too.
    let mut idle = greeted(&process);
    assert!(asked(&mut idle).is_some());
    assert!(asked(&mut idle).is_none());
    process.serves("/echo");
    assert_eq!(gone(&process), 2);
}

#[test]
fn who_answers_stays() {
    let service = Simulator::start(Options::default()).unwrap();
    // So long that it would not be asked five times if an answer went unheard.
    let process = process(&service, "3600s");
    let mut http2 = greeted(&process);
    http2.get(1, "/delay/1000").unwrap();
    let (mut questions, mut answered) = (0, false);
    while questions < 5 || !answered {
        let frame = http2.read().expect("it is there");
        match (frame.kind, frame.stream) {
            (PING, 0) if frame.flags & ACK == 0 => {
                questions += 1;
                http2.frame(PING, ACK, 0, &frame.payload).unwrap();
            }
            (_, 1) => answered |= frame.flags & END_STREAM != 0,
            _ => {}
        }
    }
    http2.get(3, "/echo").unwrap();
    assert_eq!(http2.outcome(3), Outcome::Status(200));
    assert_eq!(gone(&process), 0);
}
