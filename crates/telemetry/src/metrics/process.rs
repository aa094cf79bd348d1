//! What the kernel says of this process. Where there is no `/proc`, nothing is said.

use std::fs;

#[derive(Clone, Copy, Debug)]
pub(crate) struct Process {
    pub(crate) resident_bytes: u64,
    pub(crate) cpu_seconds: f64,
    pub(crate) open_fds: u64,
    pub(crate) start_seconds: f64,
}

impl Process {
    pub(crate) fn read() -> Option<Process> {
        let status = fs::read_to_string("/proc/self/status").ok()?;
        let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
        let resident_bytes = resident.trim().strip_suffix(" kB")?.parse::<u64>().ok()? * 1024;

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
            start_seconds: boot + ticks(19)?,
        })
    }
}

/// Fixed by the kernel's interface on every architecture Weir runs on.
const USER_HZ: f64 = 100.0;
