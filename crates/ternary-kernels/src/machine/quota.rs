//! CPU time that the control groups of Linux leave to this process.
//!
//! A process is in one group of each hierarchy (`/proc/self/cgroup`), and each group is limited by those above it. Where groups
//! are in the file system, `/proc/self/mountinfo` says: a container often sees only its own part of a hierarchy, mounted as if it
//! were the whole.
//!
//! Source: the kernel's `admin-guide/cgroup-v2.rst` (`cpu.max`) and `scheduler/sched-bwc.rst` (`cpu.cfs_quota_us`), proc(5).

use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};

/// The whole CPUs whose time this process may take, at least 1: the least quota of its groups and of those above them, rounded
/// down. `None` without a limit, and where none can be read. `proc` and `sys` are below `root`.
pub(super) fn whole_cpus(root: &Path) -> Option<NonZeroUsize> {
    let read = |path: &str| super::description(&root.join(path));
    let (groups, mounts) = (read("proc/self/cgroup")?, read("proc/self/mountinfo")?);
    groups.lines().filter_map(Group::of).filter_map(|group| group.limit(root, &mounts)).min()
}

/// The two versions of control groups.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Version {
    /// A hierarchy for some controllers.
    One,
    /// One hierarchy for all.
    Two,
}

/// The group of this process in a hierarchy that may limit CPU time.
#[derive(Clone, Copy, Debug)]
struct Group<'a> {
    version: Version,
    /// From the root of the hierarchy.
    path: &'a str,
}

impl<'a> Group<'a> {
    /// The group of a line of `/proc/self/cgroup`, `number:controllers:path`; `None` for other controllers.
    fn of(line: &'a str) -> Option<Self> {
        let mut parts = line.splitn(3, ':');
        let (number, controllers, path) = (parts.next()?, parts.next()?, parts.next()?);
        let version = match (number, controllers) {
            ("0", "") => Version::Two,
            (_, controllers) if controllers.split(',').any(|c| c == "cpu") => Version::One,
            _ => return None,
        };
        Some(Self { version, path })
    }

    /// The least quota on the way from the mounted root to this group.
    fn limit(self, root: &Path, mounts: &str) -> Option<NonZeroUsize> {
        let (mut dir, rest) = mounts.lines().find_map(|line| self.place(root, line))?;
        let mut least = quota(self.version, &dir);
        for name in rest.split('/').filter(|name| !name.is_empty()) {
            dir.push(name);
            // A limit is smaller than none.
            least = [least, quota(self.version, &dir)].into_iter().flatten().min();
        }
        least
    }

    /// The directory of a mount of this hierarchy, and the path from there to the group; `None` if `line` of
    /// `/proc/self/mountinfo` is about something else, or the group is not in that part of the hierarchy.
    fn place(self, root: &Path, line: &'a str) -> Option<(PathBuf, &'a str)> {
        let (mount, system) = line.split_once(" - ")?;
        let mut system = system.split(' ');
        let (kind, options) = (system.next()?, system.nth(1)?);
        let fits = match self.version {
            Version::One => kind == "cgroup" && options.split(',').any(|o| o == "cpu"),
            Version::Two => kind == "cgroup2",
        };
        let mut fields = mount.split(' ').skip(3);
        let (mounted, point) = (fields.next()?, fields.next()?);
        let rest = self.path.strip_prefix(mounted.trim_end_matches('/'))?;
        let inside = (rest.is_empty() || rest.starts_with('/')) && !rest.split('/').any(|name| name == "..");
        (fits && inside).then(|| (root.join(point.trim_start_matches('/')), rest))
    }
}

/// The whole CPUs of a group's own quota.
fn quota(version: Version, group: &Path) -> Option<NonZeroUsize> {
    let read = |name| super::description(&group.join(name));
    // `max` and -1 are not numbers of this type: they mean that there is not a limit.
    let number = |text: &str| text.trim().parse::<u64>().ok();
    let (quota, period) = match version {
        Version::One => (number(&read("cpu.cfs_quota_us")?)?, number(&read("cpu.cfs_period_us")?)?),
        Version::Two => {
            let text = read("cpu.max")?;
            let (quota, period) = text.trim().split_once(' ')?;
            (number(quota)?, number(period)?)
        }
    };
    let cpus = usize::try_from(quota.checked_div(period)?).unwrap_or(usize::MAX);
    NonZeroUsize::new(cpus.max(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    const V2: &str = "30 23 0:26 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate\n";
    const V1: &str = "25 24 0:22 / /sys/fs/cgroup ro shared:9 - tmpfs tmpfs ro,mode=755\n\
        31 25 0:27 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n\
        33 25 0:29 / /sys/fs/cgroup/cpu,cpuacct rw shared:14 - cgroup cgroup rw,cpu,cpuacct\n";

    /// The limit of a process with these groups and mounts, where these files are below `/sys/fs/cgroup`.
    fn limit(groups: &str, mounts: &str, files: &[(&str, &str)]) -> Option<usize> {
        let dir = tempfile::tempdir().unwrap();
        let write = |path: String, text: &str| {
            let path = dir.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        };
        write("proc/self/cgroup".into(), groups);
        write("proc/self/mountinfo".into(), mounts);
        files.iter().for_each(|(path, text)| write(format!("sys/fs/cgroup/{path}"), text));
        whole_cpus(dir.path()).map(NonZeroUsize::get)
    }

    #[test]
    fn the_least_quota_of_nested_groups_counts() {
        let nested = |own: &str, middle: &str, outer: &str| {
            let files = [("a/b/c/cpu.max", own), ("a/b/cpu.max", middle), ("a/cpu.max", outer)];
            limit("0::/a/b/c\n", V2, &files)
        };
        assert_eq!(nested("300000 100000\n", "max 100000\n", "800000 100000\n"), Some(3));
        assert_eq!(nested("max 100000\n", "max 100000\n", "800000 100000\n"), Some(8));
        assert_eq!(nested("800000 100000\n", "200000 100000\n", "max 100000\n"), Some(2));
        assert_eq!(nested("max 100000\n", "max 100000\n", "max 100000\n"), None);
        // The group beside this one does not count.
        assert_eq!(limit("0::/a/b\n", V2, &[("a/x/cpu.max", "100000 100000\n")]), None);
        // The root of a container's own view.
        assert_eq!(limit("0::/\n", V2, &[("cpu.max", "400000 100000\n")]), Some(4));
    }

    #[test]
    fn parts_of_a_cpu_are_rounded_down_to_at_least_one() {
        let of = |text: &str| limit("0::/\n", V2, &[("cpu.max", text)]);
        for (text, cpus) in [
            ("50000 100000\n", 1),
            ("150000 100000\n", 1),
            ("250000 100000\n", 2),
            ("299999 100000\n", 2),
            ("75000 50000\n", 1),
            ("1000 1000\n", 1),
        ] {
            assert_eq!(of(text), Some(cpus), "{text:?}");
        }
        for text in ["", "max\n", "max 100000\n", "100000\n", "100000 0\n", "-1 100000\n", "a b\n", "1 2 3\n"] {
            assert_eq!(of(text), None, "{text:?}");
        }
    }

    #[test]
    fn version_1() {
        let of = |quota: &str, period: &str| {
            let file = |name| format!("cpu,cpuacct/app/cpu.cfs_{name}_us");
            let (quota_file, period_file) = (file("quota"), file("period"));
            limit("4:memory:/x\n3:cpu,cpuacct:/app\n", V1, &[(&quota_file, quota), (&period_file, period)])
        };
        assert_eq!(of("-1\n", "100000\n"), None);
        assert_eq!(of("350000\n", "100000\n"), Some(3));
        assert_eq!(of("20000\n", "100000\n"), Some(1));
        assert_eq!(of("200000\n", "0\n"), None);
        assert_eq!(of("", "100000\n"), None);
        // A container without a name space of groups: the path is the host's, and what is mounted is its own group.
        let mounts = "40 39 0:29 /docker/7f /sys/fs/cgroup/cpu ro - cgroup cgroup rw,cpu\n";
        let files = [("cpu/cpu.cfs_quota_us", "200000\n"), ("cpu/cpu.cfs_period_us", "100000\n")];
        assert_eq!(limit("3:cpu:/docker/7f\n", mounts, &files), Some(2));
        assert_eq!(limit("3:cpu:/docker/7f0\n", mounts, &files), None, "another container");
        assert_eq!(limit("3:cpuset:/docker/7f\n", mounts, &files), None, "another controller");
    }

    #[test]
    fn both_versions_at_once() {
        let mounts = format!("{V1}35 25 0:30 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n");
        let files = [
            ("cpu,cpuacct/a/cpu.cfs_quota_us", "600000"),
            ("cpu,cpuacct/a/cpu.cfs_period_us", "100000"),
            ("unified/b/cpu.max", "500000 100000"),
        ];
        assert_eq!(limit("2:cpu,cpuacct:/a\n0::/b\n", &mounts, &files), Some(5));
        assert_eq!(limit("2:cpu,cpuacct:/a\n0::/c\n", &mounts, &files), Some(6));
    }

    #[test]
    fn what_cannot_be_read_is_no_limit() {
        assert_eq!(whole_cpus(tempfile::tempdir().unwrap().path()), None);
        let file = [("cpu.max", "100000 100000\n")];
        assert_eq!(limit("0::/\n", "", &file), None);
        assert_eq!(limit("", V2, &file), None);
        assert_eq!(limit("0\n::\n0:\n", V2, &file), None);
        assert_eq!(limit("0::/../other\n", V2, &file), None, "a group outside of what is mounted");
        assert_eq!(limit("0::/\n", "30 23 0:26 /\n - cgroup2\nx - y z w\n", &file), None);
        // Missing groups on the way do not hide the others.
        assert_eq!(limit("0::/gone/too\n", V2, &file), Some(1));
    }
}
