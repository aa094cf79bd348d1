//! What the kernel says of this process and of the group it is confined to. Where there is no `/proc`, nothing is
//! said.

use std::fs;
use std::path::Path;

#[derive(Clone, Copy, Debug)]
pub struct Process {
    pub resident_bytes: u64,
    pub cpu_seconds: f64,
    pub open_fds: u64,
    /// `None` for as many as there is room for.
    pub max_fds: Option<u64>,
    pub threads: u64,
    pub start_seconds: f64,
}

/// What its cgroup (version 2) may use, and uses. `None` where it may use all there is, or nobody says.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Cgroup {
    pub memory_bytes: Option<u64>,
    pub memory_max_bytes: Option<u64>,
    pub cpu_seconds: Option<f64>,
    /// In cores.
    pub cpu_max: Option<f64>,
    /// How often it was held up because it had used its share of a period, and for how long.
    pub throttled_periods: Option<u64>,
    pub throttled_seconds: Option<f64>,
}

// === impl Process ===

impl Process {
    pub(crate) fn read() -> Option<Process> {
        let status = fs::read_to_string("/proc/self/status").ok()?;
        let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
        let resident_bytes = resident.trim().strip_suffix(" kB")?.parse::<u64>().ok()? * 1024;

        let threads = status.lines().find_map(|line| line.strip_prefix("Threads:"))?.trim().parse().ok()?;
        let limits = fs::read_to_string("/proc/self/limits").unwrap_or_default();
        let max_fds = limits.lines().find_map(|line| line.strip_prefix("Max open files"));
        let max_fds = max_fds.and_then(|rest| rest.split_whitespace().next()?.parse().ok());

        // The command may contain anything, so fields are counted from behind its bracket.
        let stat = fs::read_to_string("/proc/self/stat").ok()?;
        let fields: Vec<_> = stat.rsplit_once(')')?.1.split_whitespace().collect();
        let ticks = |at: usize| fields.get(at)?.parse::<u64>().ok().map(|ticks| ticks as f64 / USER_HZ);
        let boot = fs::read_to_string("/proc/stat").ok()?;
        let boot = boot.lines().find_map(|line| line.strip_prefix("btime "))?.parse::<f64>().ok()?;

        Some(Process {
            resident_bytes,
            cpu_seconds: ticks(11)? + ticks(12)?,
            // One of them is the directory that is being read.
            open_fds: (fs::read_dir("/proc/self/fd").ok()?.count() as u64).saturating_sub(1),
            max_fds,
            threads,
            start_seconds: boot + ticks(19)?,
        })
    }
}

// === impl Cgroup ===

impl Cgroup {
    /// `None` where there is no cgroup of version 2.
    pub(crate) fn read() -> Option<Cgroup> {
        let groups = fs::read_to_string("/proc/self/cgroup").ok()?;
        let own = groups.lines().find_map(|line| line.strip_prefix("0::/"))?;
        let root = Path::new("/sys/fs/cgroup");
        let own = root.join(own);
        // Inside a container the path may be that of the host, and the root its own.
        let folders = [own, root.to_owned()];
        folders.iter().map(|folder| Cgroup::of(folder)).find(|group| *group != Cgroup::default())
    }

    fn of(folder: &Path) -> Cgroup {
        let read = |name: &str| fs::read_to_string(folder.join(name)).ok();
        let number = |name: &str| read(name)?.trim().parse().ok();
        let stat = read("cpu.stat").unwrap_or_default();
        let field = |name: &str| {
            let mut words = stat.lines().map(|line| line.split_once(' ').unwrap_or((line, "")));
            words.find(|(it, _)| *it == name)?.1.trim().parse::<u64>().ok()
        };
        let micros = |name: &str| field(name).map(|micros| micros as f64 / 1e6);
        Cgroup {
            memory_bytes: number("memory.current"),
            memory_max_bytes: number("memory.max"),
            cpu_seconds: micros("usage_usec"),
            cpu_max: read("cpu.max").and_then(|text| cores(&text)),
            throttled_periods: field("nr_throttled"),
            throttled_seconds: micros("throttled_usec"),
        }
    }
}

/// `200000 100000` is two cores; `max 100000` is all.
fn cores(text: &str) -> Option<f64> {
    let (quota, period) = text.trim().split_once(' ')?;
    let (quota, period): (f64, f64) = (quota.parse().ok()?, period.parse().ok()?);
    (period > 0.0).then(|| quota / period)
}

/// Fixed by the kernel's interface on every architecture Weir runs on.
const USER_HZ: f64 = 100.0;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_is_there() {
        let process = Process::read().unwrap();
        assert!(process.resident_bytes > 0 && process.open_fds > 2 && process.threads > 0);
        assert!(process.max_fds.is_none_or(|most| most >= process.open_fds));
    }

    #[test]
    fn a_cgroup_is_what_its_files_say() {
        let folder = tempfile::tempdir().unwrap();
        for (name, text) in [
            ("memory.current", "1048576\n"),
            ("memory.max", "max\n"),
            ("cpu.max", "150000 100000\n"),
            ("cpu.stat", "usage_usec 2500000\nuser_usec 1\nnr_throttled 3\nthrottled_usec 500000\n"),
        ] {
            fs::write(folder.path().join(name), text).unwrap();
        }
        let expected = Cgroup {
            memory_bytes: Some(1_048_576),
            memory_max_bytes: None,
            cpu_seconds: Some(2.5),
            cpu_max: Some(1.5),
            throttled_periods: Some(3),
            throttled_seconds: Some(0.5),
        };
        assert_eq!(Cgroup::of(folder.path()), expected);
        assert_eq!(cores("max 100000"), None);
    }
}
