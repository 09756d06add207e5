//! What the kernel knows of this process: proc_pid_stat(5), proc_pid_limits(5).

use std::fs;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Figures of this process. What cannot be read is missing.
#[derive(Clone, Debug, Default)]
pub(crate) struct Process {
    pub(crate) cpu_seconds: Option<f64>,
    pub(crate) resident_bytes: Option<u64>,
    pub(crate) virtual_bytes: Option<u64>,
    pub(crate) threads: Option<u64>,
    pub(crate) open_fds: Option<u64>,
    pub(crate) max_fds: Option<u64>,
    /// In seconds since 1970.
    pub(crate) started: Option<f64>,
}

/// The kernel's ticks a second for programs, on every machine with Linux: `USER_HZ`.
const TICKS: f64 = 100.0;

impl Process {
    pub(crate) fn now() -> Process {
        let mut process = Process::default();
        if let Ok(stat) = fs::read_to_string("/proc/self/stat") {
            process.read_stat(&stat, since_boot(), SystemTime::now());
        }
        if let Ok(status) = fs::read_to_string("/proc/self/status") {
            process.resident_bytes = kilobytes(&status, "VmRSS:");
        }
        process.open_fds = fs::read_dir("/proc/self/fd").ok().map(|it| {
            // One of them is that of this folder.
            (it.count() as u64).saturating_sub(1)
        });
        let limits = fs::read_to_string("/proc/self/limits").unwrap_or_default();
        let line = limits
            .lines()
            .find_map(|it| it.strip_prefix("Max open files"));
        process.max_fds = line.and_then(|it| it.split_whitespace().next()?.parse().ok());
        process
    }

    fn read_stat(&mut self, stat: &str, since_boot: Option<f64>, now: SystemTime) {
        // The name of the program is in brackets, and may have anything in it.
        let Some((_, rest)) = stat.rsplit_once(')') else {
            return;
        };
        let fields: Vec<&str> = rest.split_whitespace().collect();
        // The first of these is the third of stat.
        let field = |number: usize| fields.get(number - 3)?.parse::<u64>().ok();
        if let (Some(user), Some(system)) = (field(14), field(15)) {
            self.cpu_seconds = Some((user + system) as f64 / TICKS);
        }
        self.threads = field(20);
        self.virtual_bytes = field(23);
        let now = now
            .duration_since(UNIX_EPOCH)
            .unwrap_or(Duration::ZERO)
            .as_secs_f64();
        if let (Some(started), Some(since_boot)) = (field(22), since_boot) {
            self.started = Some(now - since_boot + started as f64 / TICKS);
        }
    }
}

/// How long the machine is up, in seconds.
fn since_boot() -> Option<f64> {
    let uptime = fs::read_to_string("/proc/uptime").ok()?;
    uptime.split_whitespace().next()?.parse().ok()
}

fn kilobytes(status: &str, name: &str) -> Option<u64> {
    let line = status.lines().find_map(|it| it.strip_prefix(name))?;
    let count: u64 = line.split_whitespace().next()?.parse().ok()?;
    Some(count * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_name_of_a_program_may_have_brackets() {
        let stat = "7 (a) b) R 1 2 3 4 5 6 7 8 9 10 250 150 0 0 20 0 9 0 1000 4096 5 6";
        let mut process = Process::default();
        let now = UNIX_EPOCH + Duration::from_secs(100);
        process.read_stat(stat, Some(60.0), now);
        assert_eq!(process.cpu_seconds, Some(4.0));
        assert_eq!(process.threads, Some(9));
        assert_eq!(process.virtual_bytes, Some(4096));
        assert_eq!(process.started, Some(50.0));
    }

    #[test]
    fn this_process_has_all_figures() {
        let process = Process::now();
        assert!(process.resident_bytes.unwrap() > 100_000);
        assert!(process.open_fds.unwrap() >= 3);
        assert!(process.max_fds.unwrap() >= process.open_fds.unwrap());
        let age = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap()
            .as_secs_f64()
            - process.started.unwrap();
        assert!((-1.0..600.0).contains(&age), "{age}");
    }
}
