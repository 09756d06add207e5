//! Whether the supervisor of this process would follow another one in its place.
//!
//! A supervisor that waits for its own child takes the end of the old process for the end of the program. It starts a
//! second copy, which finds its addresses taken and fails, again and again; or ends all that is left, as the kernel does when the
//! first process of a container ends. So an upgrade is refused there before anything is started.

use std::fs;
use std::path::Path;

/// As much of a process as tells a supervisor from others.
struct Process {
    id: u32,
    /// The name that the kernel has for it, of 15 bytes at the most.
    name: String,
    arguments: Vec<String>,
}

/// Supervisors that start the program again, by the kernel's name for them, and what does it instead.
const RESTART: [(&str, &str, &str); 6] = [
    ("runsv", "runit", "sv restart"),
    ("supervise", "daemontools", "svc -t"),
    ("s6-supervise", "s6", "s6-svc -r"),
    (
        "supervise-daemo",
        "OpenRC's supervise-daemon",
        "rc-service NAME restart",
    ),
    ("supervisord", "supervisord", "supervisorctl restart"),
    ("procd", "procd", "service NAME restart"),
];

/// First processes of containers, which end with the one that they start.
const END: [&str; 4] = ["tini", "docker-init", "dumb-init", "catatonit"];

/// What init(8) is called: that of SysV, and busybox's.
const INIT: [&str; 3] = ["init", "busybox", "linuxrc"];

/// Why this process, which runs this program, cannot be replaced where it is.
pub(super) fn refusal(program: &Path) -> Option<String> {
    let is_set = |name: &str| std::env::var_os(name).is_some();
    let id = std::process::id();
    if std::env::var("SYSTEMD_EXEC_PID") == Ok(id.to_string()) && !is_set("NOTIFY_SOCKET") {
        return Some(UNTOLD_SYSTEMD.to_owned());
    }
    if id == 1 {
        return Some(FIRST_PROCESS.to_owned());
    }
    let parent = Process::of(std::os::unix::process::parent_id())?;
    let inittab = || fs::read_to_string("/etc/inittab").unwrap_or_default();
    refused_by(&parent, program, inittab)
}

const FIRST_PROCESS: &str =
    "this is process 1 of a container, which ends with it: start another container instead";

const UNTOLD_SYSTEMD: &str = "systemd takes the end of this process for the end of the service, \
    since it is not told of another: set Type=notify, and use the feature `systemd`";

fn refused_by(
    parent: &Process,
    program: &Path,
    inittab: impl FnOnce() -> String,
) -> Option<String> {
    let Process { id, name, .. } = parent;
    if let Some((_, supervisor, command)) = RESTART.iter().find(|(it, ..)| parent.is_called(it)) {
        return Some(format!(
            "{supervisor} (process {id}) would start the program once more when this process ends: \
             let it be restarted there instead ({command})"
        ));
    }
    if END.contains(&name.as_str()) {
        return Some(format!(
            "{name} (process {id}) ends with this process, and its container with it: start another \
             container instead"
        ));
    }
    let is_init = *id == 1 && INIT.contains(&name.as_str());
    (is_init && respawns(&inittab(), program)).then(|| {
        "init would start the program once more when this process ends, by /etc/inittab: let it be \
         restarted there instead (kill -TERM)"
            .to_owned()
    })
}

impl Process {
    /// None if it is of another namespace, or /proc is not to be had.
    fn of(id: u32) -> Option<Process> {
        let name = fs::read_to_string(format!("/proc/{id}/comm")).ok()?;
        let arguments = fs::read(format!("/proc/{id}/cmdline")).unwrap_or_default();
        let arguments = arguments.split(|it| *it == 0);
        let arguments = arguments.map(|it| String::from_utf8_lossy(it).into_owned());
        Some(Process {
            id,
            name: name.trim_end().to_owned(),
            arguments: arguments.collect(),
        })
    }

    /// Whether it is this program, or an interpreter that runs it: by its path, or as a module.
    fn is_called(&self, name: &str) -> bool {
        let is_it = |it: &String| it.rsplit(['/', '.']).next() == Some(name);
        self.name == name || (self.name.starts_with("python") && self.arguments.iter().any(is_it))
    }
}

/// Whether init starts this program again whenever it ends: inittab(5). What is started by a script that does not
/// name it is not found.
fn respawns(inittab: &str, program: &Path) -> bool {
    let Some(program) = program.file_name() else {
        return false;
    };
    inittab.lines().filter(|it| !it.starts_with('#')).any(|it| {
        let mut fields = it.splitn(4, ':').skip(2);
        let (Some(action), Some(process)) = (fields.next(), fields.next()) else {
            return false;
        };
        let mut words = process.split_whitespace();
        ["respawn", "askfirst", "ondemand"].contains(&action)
            && words.any(|it| Path::new(it).file_name() == Some(program))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(name: &str, arguments: &[&str], id: u32, inittab: &str) -> Option<String> {
        let arguments = arguments.iter().map(|it| (*it).to_owned()).collect();
        let name = name.to_owned();
        let parent = Process {
            id,
            name,
            arguments,
        };
        refused_by(&parent, Path::new("/usr/bin/greeter"), || {
            inittab.to_owned()
        })
    }

    #[test]
    fn supervisors_that_start_a_second_copy_are_known() {
        for (name, supervisor, command) in RESTART {
            assert!(name.len() <= 15, "the kernel cuts {name}");
            let why = refused(name, &[], 7, "").unwrap();
            assert!(why.contains(supervisor) && why.contains(command), "{why}");
        }
        for name in END {
            assert!(refused(name, &[], 1, "").unwrap().contains("container"));
        }
        for arguments in [
            ["/usr/bin/python3", "/usr/bin/supervisord", "-n"],
            ["python3", "-m", "supervisor.supervisord"],
        ] {
            assert!(refused("python3", &arguments, 7, "").is_some());
        }
    }

    #[test]
    fn others_are_not_refused() {
        for name in [
            "systemd",
            "sh",
            "bash",
            "start-stop-daem",
            "runsvdir",
            "init",
        ] {
            assert_eq!(refused(name, &["supervisord"], 1, ""), None);
        }
        assert_eq!(refused("python3", &["python3", "deploy.py"], 7, ""), None);
    }

    #[test]
    fn init_is_refused_if_it_respawns_the_program() {
        let of_busybox = "::sysinit:/etc/init.d/rcS\n::respawn:/usr/bin/greeter --port 1\n";
        let of_sysv = "# greeter\ngr:2345:respawn:/usr/bin/env X=1 /opt/greeter\n";
        let by_hand = "::askfirst:-/bin/sh\n::once:/usr/bin/greeter\n#::respawn:/usr/bin/greeter";
        for (inittab, is_refused) in [(of_busybox, true), (of_sysv, true), (by_hand, false)] {
            for name in INIT {
                assert_eq!(refused(name, &[], 1, inittab).is_some(), is_refused);
                assert_eq!(refused(name, &[], 7, inittab), None, "not the first");
            }
            assert_eq!(refused("systemd", &[], 1, inittab), None);
        }
    }
}
