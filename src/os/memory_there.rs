//! How much memory there is for this process: what the machine has, or the nearest limit of its control groups.
//!
//! A service or a container may have far less than its machine, and is killed when it takes more. Both kinds of control
//! groups are asked, and every group that this one is in. What cannot be read limits nothing.

use std::fs;
use std::path::{Component, Path, PathBuf};

/// Where processes see their groups, and where groups are mounted.
const GROUPS: &str = "/proc/self/cgroup";
const MOUNTS: &str = "/proc/self/mountinfo";

/// A quarter of the memory that there is for this process, or of what it can address if that is less, in bytes, but 16 MiB at
/// the least.
pub(crate) fn quarter_of_memory() -> usize {
    let read = |path| fs::read_to_string(path).unwrap_or_default();
    let limit = nearest_limit(&read(GROUPS), &read(MOUNTS));
    let there = machine().min(limit.unwrap_or(u64::MAX));
    let quarter = usize::try_from(there / 4).unwrap_or(usize::MAX);
    quarter.clamp(16 << 20, usize::MAX / 4)
}

/// What the machine has, in bytes.
fn machine() -> u64 {
    // SAFETY: system calls without memory; they say -1 for what they do not know.
    let (pages, size) = unsafe {
        (
            libc::sysconf(libc::_SC_PHYS_PAGES),
            libc::sysconf(libc::_SC_PAGESIZE),
        )
    };
    let number = |it: libc::c_long| u64::try_from(it).unwrap_or(0);
    number(pages).saturating_mul(number(size))
}

/// The least limit of the groups that these files tell of, in bytes; `None` if there is none.
fn nearest_limit(groups: &str, mounts: &str) -> Option<u64> {
    let limits = mounts.lines().filter_map(|line| {
        let mount = Mount::read(line)?;
        let folder = mount.folder_of(group(groups, mount.is_unified)?)?;
        least_limit(&folder, &mount)
    });
    limits.min()
}

/// A mount of a hierarchy of groups that can limit memory.
struct Mount {
    /// Which group is seen there.
    root: PathBuf,
    folder: PathBuf,
    /// Whether it is of the second version.
    is_unified: bool,
}

impl Mount {
    /// What a line of mountinfo says, if it is such a mount: proc_pid_mountinfo(5).
    fn read(line: &str) -> Option<Mount> {
        let (place, kind) = line.split_once(" - ")?;
        let mut place = place.split(' ').skip(3);
        let (root, folder) = (place.next()?, place.next()?);
        let mut kind = kind.split(' ');
        let is_unified = match kind.next()? {
            "cgroup2" => true,
            "cgroup" if kind.nth(1)?.split(',').any(|it| it == "memory") => false,
            _ => return None,
        };
        Some(Mount {
            root: unescaped(root).into(),
            folder: unescaped(folder).into(),
            is_unified,
        })
    }

    /// Where this group lies under it.
    fn folder_of(&self, group: &str) -> Option<PathBuf> {
        let group = Path::new(group);
        // A container may see itself as the root, though its group has a longer name, or one outside of the mount
        // (`/../..`).
        let inside = group.strip_prefix(&self.root).unwrap_or(group);
        let is_name = |it: &Component<'_>| matches!(it, Component::Normal(_));
        let names = inside.components().filter(|it| *it != Component::RootDir);
        let names: Vec<_> = names.collect();
        Some(match names.iter().all(is_name) {
            true => self.folder.join(names.iter().collect::<PathBuf>()),
            false => self.folder.clone(),
        })
    }

    /// The files that limit a group.
    fn files(&self) -> &'static [&'static str] {
        match self.is_unified {
            // Above `memory.high` a process is slowed down until it hardly runs.
            true => &["memory.max", "memory.high"],
            false => &["memory.limit_in_bytes"],
        }
    }
}

/// The group of this process, in the hierarchy of either version: cgroups(7).
fn group(groups: &str, is_unified: bool) -> Option<&str> {
    groups.lines().find_map(|line| {
        let mut parts = line.splitn(3, ':');
        let (_, controllers, path) = (parts.next()?, parts.next()?, parts.next()?);
        let is_meant = match is_unified {
            true => controllers.is_empty(),
            false => controllers.split(',').any(|it| it == "memory"),
        };
        is_meant.then_some(path)
    })
}

/// The least limit of this group and of all that it is in, as far as they are seen.
fn least_limit(folder: &Path, mount: &Mount) -> Option<u64> {
    let groups = folder.ancestors();
    let groups = groups.take_while(|it| it.starts_with(&mount.folder));
    let limits = groups.flat_map(|group| {
        let read = |file: &&str| {
            // "max" is no number; nor is what no machine has a limit.
            let text = fs::read_to_string(group.join(file)).ok()?;
            text.trim().parse::<u64>().ok()
        };
        mount.files().iter().filter_map(read)
    });
    limits.min()
}

/// As mountinfo writes a space, a tab, a line's end and a backslash.
fn unescaped(text: &str) -> String {
    let pairs = [
        ("\\040", " "),
        ("\\011", "\t"),
        ("\\012", "\n"),
        ("\\134", "\\"),
    ];
    pairs
        .iter()
        .fold(text.to_owned(), |text, (from, to)| text.replace(from, to))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A folder that looks like a mount, and is removed at the end.
    struct Tree(PathBuf);

    impl Tree {
        fn new(name: &str, files: &[(&str, &str)]) -> Tree {
            let tree = format!("touchdown-{name} {}", std::process::id());
            let tree = Tree(std::env::temp_dir().join(tree));
            for (path, text) in files {
                let path = tree.0.join(path);
                fs::create_dir_all(path.parent().unwrap()).unwrap();
                fs::write(path, text).unwrap();
            }
            tree
        }

        /// The line of its mount.
        fn line(&self, root: &str, kind: &str) -> String {
            let folder = self.0.to_str().unwrap().replace(' ', "\\040");
            format!("30 23 0:26 {root} {folder} rw,nosuid shared:9 - {kind}")
        }
    }

    impl Drop for Tree {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    const UNIFIED: &str = "cgroup2 cgroup2 rw,nsdelegate";
    const MEMORY: &str = "cgroup cgroup rw,memory";

    #[test]
    fn the_nearest_limit_is_that_of_the_group_or_of_one_that_it_is_in() {
        let tree = Tree::new(
            "unified",
            &[
                ("system.slice/memory.max", "200000000\n"),
                ("system.slice/greeter.service/memory.max", "max\n"),
                ("system.slice/greeter.service/memory.high", "300000000\n"),
                ("system.slice/other.service/memory.max", "1\n"),
            ],
        );
        let mounts = tree.line("/", UNIFIED);
        let limit = |group| nearest_limit(&format!("0::{group}\n"), &mounts);
        assert_eq!(limit("/system.slice/greeter.service"), Some(200_000_000));
        assert_eq!(limit("/system.slice/other.service"), Some(1));
        assert_eq!(limit("/user.slice"), None);
        fs::write(tree.0.join("system.slice/greeter.service/memory.high"), "5").unwrap();
        assert_eq!(limit("/system.slice/greeter.service"), Some(5));
    }

    #[test]
    fn the_first_version_has_a_hierarchy_of_its_own() {
        let tree = Tree::new(
            "first",
            &[
                ("memory.limit_in_bytes", "9223372036854771712\n"),
                ("docker/abc/memory.limit_in_bytes", "134217728\n"),
            ],
        );
        let mounts = [
            tree.line("/", "cgroup cgroup rw,cpu,cpuacct"),
            tree.line("/", MEMORY),
        ];
        let groups = "11:cpu,cpuacct:/docker/abc\n9:memory:/docker/abc\n0::/docker/abc\n";
        assert_eq!(nearest_limit(groups, &mounts.join("\n")), Some(134_217_728));
        assert_eq!(nearest_limit(groups, &mounts[0]), None);
    }

    #[test]
    fn a_container_that_sees_its_own_group_as_the_root_finds_its_limit() {
        let tree = Tree::new(
            "container",
            &[("memory.max", "4096"), ("in/memory.max", "99")],
        );
        for (root, group, limit) in [
            // Without a namespace of its own.
            ("/docker/abc", "/docker/abc", 4096),
            ("/docker/abc", "/docker/abc/in", 99),
            // With one.
            ("/", "/", 4096),
            ("/", "/in", 99),
            ("/../..", "/../../other", 4096),
        ] {
            let found = nearest_limit(&format!("0::{group}"), &tree.line(root, UNIFIED));
            assert_eq!(found, Some(limit), "{group} under {root}");
        }
    }

    #[test]
    fn what_cannot_be_understood_limits_nothing() {
        for (groups, mounts) in [
            ("", ""),
            ("0::/", "30 23 0:26 /"),
            ("0::", "30 23 0:26 / /nowhere rw - cgroup2"),
            ("0", "30 23 0:26 / /nowhere rw - cgroup2 x rw"),
        ] {
            assert_eq!(nearest_limit(groups, mounts), None, "{groups} {mounts}");
        }
        assert!(quarter_of_memory() >= 16 << 20);
    }
}
