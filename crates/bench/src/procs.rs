//! What `/proc` says of other processes, and the core we stay on.

use std::fs;

use anyhow::{Context, Result};
use rustix::process::{Pid, Resource, Signal};
use rustix::thread::CpuSet;
use rustix::time::ClockId;

/// The machine's monotonic clock: the same in every process, so a timestamp may travel.
pub fn now_ns() -> u64 {
    let now = rustix::time::clock_gettime(ClockId::Monotonic);
    now.tv_sec as u64 * 1_000_000_000 + now.tv_nsec as u64
}

pub fn pin(core: usize) -> Result<()> {
    let mut set = CpuSet::new();
    set.set(core);
    rustix::thread::sched_setaffinity(None, &set).with_context(|| format!("core {core}"))
}

/// As many descriptors as we are allowed; what we start inherits them.
pub fn raise_descriptors() -> Result<()> {
    let mut limit = rustix::process::getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    Ok(rustix::process::setrlimit(Resource::Nofile, limit)?)
}

pub fn signal(pid: u32, signal: Signal) {
    if let Some(pid) = Pid::from_raw(pid as i32) {
        let _ = rustix::process::kill_process(pid, signal);
    }
}

/// The fields of a `stat` file after the command's name, which may hold anything: `state` is the first.
fn fields(path: &str) -> Option<(String, Vec<u64>)> {
    let stat = fs::read_to_string(path).ok()?;
    let (open, close) = (stat.find('(')?, stat.rfind(')')?);
    let numbers = stat[close + 1..].split_whitespace().map(|field| field.parse().unwrap_or(0)).collect();
    Some((stat[open + 1..close].to_owned(), numbers))
}

/// The process and all that descend from it.
pub fn family(pid: u32) -> Vec<u32> {
    let mut parents = Vec::new();
    for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let Ok(child) = entry.file_name().to_string_lossy().parse::<u32>() else { continue };
        if let Some((_, fields)) = fields(&format!("/proc/{child}/stat")) {
            parents.push((child, fields.get(1).copied().unwrap_or(0) as u32));
        }
    }
    let mut family = vec![pid];
    let mut next = 0;
    while let Some(&parent) = family.get(next) {
        family.extend(parents.iter().filter(|(_, of)| *of == parent).map(|(child, _)| *child));
        next += 1;
    }
    family
}

fn ticks_to_us(fields: &[u64]) -> f64 {
    let ticks = fields.get(11).unwrap_or(&0) + fields.get(12).unwrap_or(&0);
    ticks as f64 * 1e6 / rustix::param::clock_ticks_per_second() as f64
}

/// User and system time of the process and its descendants, in microseconds.
pub fn cpu_us(pid: u32) -> f64 {
    // Clock ticks are ten milliseconds, several per cent of what a round of slow streams takes. The scheduler's count is
    // in nanoseconds, but only of the threads that are left, and not every kernel keeps it.
    let ticks = |pid| fields(&format!("/proc/{pid}/stat")).map_or(0.0, |(_, fields)| ticks_to_us(&fields));
    family(pid).into_iter().map(|pid| ticks(pid).max(scheduled_us(pid))).sum()
}

/// What the threads of a process have run, by the scheduler's count.
fn scheduled_us(pid: u32) -> f64 {
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    let nanoseconds = tasks.filter_map(|task| {
        let stat = fs::read_to_string(task.path().join("schedstat")).ok()?;
        stat.split(' ').next()?.parse::<f64>().ok()
    });
    nanoseconds.sum::<f64>() / 1000.0
}

/// The same for each thread of the family whose name starts so; a process counts as a thread.
pub fn threads_us(pid: u32, prefix: &str) -> Vec<(String, f64)> {
    let mut threads = Vec::new();
    for pid in family(pid) {
        for task in fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten() {
            let Some((name, fields)) = fields(&format!("{}/stat", task.path().display())) else { continue };
            if name.starts_with(prefix) {
                threads.push((format!("{name} {}", task.file_name().to_string_lossy()), ticks_to_us(&fields)));
            }
        }
    }
    threads.sort_by(|a, b| a.0.cmp(&b.0));
    threads
}

fn rollup_kib(pid: u32, field: &str) -> u64 {
    let rollup = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap_or_default();
    let line = rollup.lines().find_map(|line| line.strip_prefix(field));
    line.and_then(|rest| rest.split_whitespace().next()?.parse().ok()).unwrap_or(0)
}

/// The family's proportional share of memory, in KiB.
pub fn pss_kib(pid: u32) -> u64 {
    family(pid).into_iter().map(|pid| rollup_kib(pid, "Pss:")).sum()
}

/// The family's resident memory, in KiB.
pub fn rss_kib(pid: u32) -> u64 {
    family(pid).into_iter().map(|pid| rollup_kib(pid, "Rss:")).sum()
}
