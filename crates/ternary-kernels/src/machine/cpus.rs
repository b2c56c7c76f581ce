//! The default number of threads.

use std::collections::BTreeSet;
use std::num::NonZeroUsize;
use std::path::Path;
use std::sync::OnceLock;

use super::quota;

/// CPUs that this process may use; 1 where the system does not say. On Linux these are the CPUs of its affinity mask, limited by
/// the quotas of its control groups, in whole CPUs, rounded down, at least 1: `cpu.max` of version 2, `cpu.cfs_quota_us` of version
/// 1, in the group itself and in all above it. Elsewhere it is what [`std::thread::available_parallelism`] says.
///
/// The system is asked once, which takes some ten files; what changes later does not count.
pub fn available_cpus() -> NonZeroUsize {
    static CPUS: OnceLock<NonZeroUsize> = OnceLock::new();
    *CPUS.get_or_init(|| {
        let read = if cfg!(target_os = "linux") { available(Path::new("/")) } else { None };
        read.or_else(|| std::thread::available_parallelism().ok()).unwrap_or(NonZeroUsize::MIN)
    })
}

/// The number of CPUs in the affinity mask, or of those whose time the quotas allow, if that is smaller. `None` if the mask is not
/// known; in some virtual machines it names CPUs that could be added later, so one with CPUs that are not online does not count.
/// Linux describes CPUs and processes in `sys` and `proc` below `root`.
fn available(root: &Path) -> Option<NonZeroUsize> {
    let (allowed, online) = (allowed(root)?, online(root)?);
    let mask = NonZeroUsize::new(allowed.len()).filter(|_| allowed.iter().all(|cpu| online.contains(cpu)))?;
    Some(quota::whole_cpus(root).map_or(mask, |quota| quota.min(mask)))
}

/// Threads where none are asked for: one for each physical core that this process may use, but no more than the CPU time that
/// it may take.
///
/// - What the process may use is what [`available_cpus`] says: its affinity mask and its quotas limit it.
/// - Of the hardware threads of one core only one counts, where the system tells which belong together: products read memory, or keep
///   the units of a core busy, with one thread already, and a second one takes half of the core's caches. On fewer than four cores
///   all count: there the second thread of a core still adds a little.
/// - On CPUs with fast and slow cores all count. Threads take small pieces of work, so a slow core does as many as it can and
///   delays no other.
///
/// It is determined once; later changes do not count.
///
/// ```
/// let threads = ternary_kernels::default_threads();
/// assert!(threads <= std::thread::available_parallelism().unwrap_or(threads));
/// ```
pub fn default_threads() -> NonZeroUsize {
    static THREADS: OnceLock<NonZeroUsize> = OnceLock::new();
    *THREADS.get_or_init(|| {
        let available = available_cpus();
        // Where there are so few, the number of cores changes nothing.
        match cfg!(target_os = "linux") && available > ENOUGH_CORES {
            true => cores(available, Path::new("/")),
            false => available,
        }
    })
}

/// On this many cores, one thread each is enough to read memory at its full speed. On fewer cores, a second thread per
/// core still helps: on one core of a Zen 4 server, one thread streams weights at 24 to 30 GB/s, two threads together
/// at 33.
const ENOUGH_CORES: NonZeroUsize = NonZeroUsize::new(4).expect("not zero");

/// `available`, or the number of cores that the CPUs in the affinity mask belong to, if that is known and smaller.
fn cores(available: NonZeroUsize, root: &Path) -> NonZeroUsize {
    let count = || {
        let (allowed, online) = (allowed(root)?, online(root)?);
        let mut cores = BTreeSet::new();
        for cpu in allowed.intersection(&online) {
            let topology = root.join(format!("sys/devices/system/cpu/cpu{cpu}/topology"));
            // The second is the older name.
            let siblings = ["core_cpus_list", "thread_siblings_list"].map(|name| topology.join(name));
            let siblings = siblings.iter().find_map(|path| super::description(path))?;
            // All CPUs of a core have the same list, which contains each of them.
            cores.insert(cpu_list(&siblings).filter(|s| s.contains(cpu))?.first().copied()?);
        }
        NonZeroUsize::new(cores.len())
    };
    count().filter(|&cores| cores >= ENOUGH_CORES).map_or(available, |cores| cores.min(available))
}

/// The CPUs of this process's affinity mask.
fn allowed(root: &Path) -> Option<BTreeSet<usize>> {
    let status = super::description(&root.join("proc/self/status"))?;
    cpu_list(status.lines().find_map(|l| l.strip_prefix("Cpus_allowed_list:"))?)
}

/// The CPUs that run.
fn online(root: &Path) -> Option<BTreeSet<usize>> {
    cpu_list(&super::description(&root.join("sys/devices/system/cpu/online"))?)
}

/// The CPUs of a list as the Linux kernel writes it, `0-3,8,10-11`; `None` if it is something else or too long.
fn cpu_list(text: &str) -> Option<BTreeSet<usize>> {
    /// More CPUs than any kernel is built for.
    const MOST: usize = 1 << 16;
    let mut cpus = BTreeSet::new();
    for range in text.trim().split(',') {
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        let (first, last): (usize, usize) = (first.trim().parse().ok()?, last.trim().parse().ok()?);
        if first > last || last >= MOST || cpus.len() + (last - first) >= MOST {
            return None;
        }
        cpus.extend(first..=last);
    }
    Some(cpus)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(dir: &tempfile::TempDir, path: &str, text: &str) {
        let path = dir.path().join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }

    /// Directories like `/sys` and `/proc` of a machine whose cores have these CPUs, for a process with this mask.
    fn machine(cores: &[&str], allowed: &str) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        let write = |path: String, text: &str| write(&dir, &path, text);
        write("sys/devices/system/cpu/online".into(), &format!("{}\n", cores.join(",")));
        write("proc/self/status".into(), &format!("Name:\tx\nCpus_allowed:\tff\nCpus_allowed_list:\t{allowed}\n"));
        for core in cores {
            for cpu in cpu_list(core).unwrap() {
                // Some kernels have only the old name.
                let name = if cpu % 3 == 0 { "thread_siblings_list" } else { "core_cpus_list" };
                write(format!("sys/devices/system/cpu/cpu{cpu}/topology/{name}"), &format!("{core}\n"));
            }
        }
        dir
    }

    fn count(dir: &tempfile::TempDir, available: usize) -> usize {
        cores(NonZeroUsize::new(available).unwrap(), dir.path()).get()
    }

    /// The values of [`available_cpus`] and [`default_threads`], if the files are enough to tell.
    fn defaults(dir: &tempfile::TempDir) -> Option<[usize; 2]> {
        let available = available(dir.path())?;
        Some([available.get(), cores(available, dir.path()).get()])
    }

    /// Puts the process into a control group of version 2 with this `cpu.max`.
    fn limit(dir: &tempfile::TempDir, max: &str) {
        write(dir, "proc/self/cgroup", "0::/box\n");
        write(dir, "proc/self/mountinfo", "30 23 0:26 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n");
        write(dir, "sys/fs/cgroup/box/cpu.max", max);
    }

    #[test]
    fn the_smaller_of_mask_and_quota_counts() {
        let eight = ["0-1", "2-3", "4-5", "6-7", "8-9", "10-11", "12-13", "14-15"];
        let of = |allowed: &str, max: Option<&str>| {
            let dir = machine(&eight, allowed);
            max.into_iter().for_each(|max| limit(&dir, max));
            defaults(&dir)
        };
        assert_eq!(of("0-15", None), Some([16, 8]), "no control groups");
        assert_eq!(of("0-15", Some("max 100000\n")), Some([16, 8]));
        assert_eq!(of("0-15", Some("600000 100000\n")), Some([6, 6]), "less than the cores");
        assert_eq!(of("0-15", Some("1200000 100000\n")), Some([12, 8]), "more than the cores");
        assert_eq!(of("0-15", Some("350000 100000\n")), Some([3, 3]));
        assert_eq!(of("0-15", Some("50000 100000\n")), Some([1, 1]));
        // A mask that is smaller than the quota: of one thread per core, of both, of part of a core.
        assert_eq!(of("0,2,4,6,8", Some("1200000 100000\n")), Some([5, 5]));
        assert_eq!(of("0-9", Some("1200000 100000\n")), Some([10, 5]));
        assert_eq!(of("0-2", Some("400000 100000\n")), Some([3, 3]));
    }

    #[test]
    fn a_mask_of_cpus_that_are_not_there_does_not_count() {
        // As a hypervisor that can add CPUs says it.
        let dir = machine(&["0-1", "2-3", "4-5", "6-7"], "0-127");
        assert_eq!(defaults(&dir), None);
        assert_eq!(count(&dir, 8), 4, "cores are those of the CPUs that run");
        let dir = machine(&["0-1", "2-3"], "0-3");
        std::fs::remove_file(dir.path().join("sys/devices/system/cpu/online")).unwrap();
        assert_eq!(defaults(&dir), None);
    }

    #[test]
    fn fast_and_slow_cores_all_count() {
        // Six fast cores with two threads each, eight slow ones with one.
        let mut cores = vec!["0-1", "2-3", "4-5", "6-7", "8-9", "10-11"];
        cores.extend(["12", "13", "14", "15", "16", "17", "18", "19"]);
        assert_eq!(defaults(&machine(&cores, "0-19")), Some([20, 14]));
        // The fast ones alone, the slow ones alone.
        assert_eq!(defaults(&machine(&cores, "0-11")), Some([12, 6]));
        assert_eq!(defaults(&machine(&cores, "12-19")), Some([8, 8]));
        // Two fast and two slow ones of a telephone: all threads help.
        assert_eq!(defaults(&machine(&["0", "1", "2", "3"], "0-3")), Some([4, 4]));
    }

    #[test]
    fn this_machine_has_what_the_standard_library_finds() {
        let std = std::thread::available_parallelism().unwrap();
        assert_eq!(available_cpus(), std);
        assert!(default_threads() <= std);
    }

    #[test]
    fn each_core_counts_once() {
        // Hyper-threads with adjacent numbers, and with numbers half the machine apart.
        assert_eq!(count(&machine(&["0-1", "2-3", "4-5", "6-7"], "0-7"), 8), 4);
        assert_eq!(count(&machine(&["0,4", "1,5", "2,6", "3,7"], "0-7"), 8), 4);
        // Four fast cores with two hyper-threads and four slow ones with one.
        assert_eq!(count(&machine(&["0-1", "2-3", "4-5", "6-7", "8", "9", "10", "11"], "0-11"), 12), 8);
        assert_eq!(count(&machine(&["0", "1"], "0-1"), 2), 2);
    }

    #[test]
    fn masks_and_quotas_limit() {
        let cores = ["0-1", "2-3", "4-5", "6-7"];
        assert_eq!(count(&machine(&cores, "0-3"), 4), 4, "two cores: every thread helps");
        // One of each pair.
        assert_eq!(count(&machine(&cores, "0,2,4,6"), 4), 4);
        assert_eq!(count(&machine(&cores, "1"), 1), 1);
        // A quota of three CPUs.
        assert_eq!(count(&machine(&cores, "0-7"), 3), 3);
        assert_eq!(count(&machine(&cores, "0-7"), 5), 4);
    }

    #[test]
    fn what_is_unknown_is_not_guessed() {
        let all = ["0-1", "2-3"];
        // A CPU that runs and has no topology; no mask; invalid masks.
        let bare = machine(&["0-1", "2-3", "4-5", "6-7", "8-9"], "0-9");
        std::fs::remove_dir_all(bare.path().join("sys/devices/system/cpu/cpu4/topology")).unwrap();
        assert_eq!(count(&bare, 10), 10);
        assert_eq!(count(&machine(&all, ""), 4), 4);
        assert_eq!(count(&machine(&all, "all"), 4), 4);
        assert_eq!(count(&machine(&all, "0-18446744073709551615"), 4), 4);
        assert_eq!(count(&machine(&all, "3-0"), 4), 4);
        assert_eq!(count(&tempfile::tempdir().unwrap(), 4), 4);
        // A core that does not list its own CPU.
        let odd = machine(&all, "0-3");
        std::fs::write(odd.path().join("sys/devices/system/cpu/cpu2/topology/core_cpus_list"), "7").unwrap();
        assert_eq!(count(&odd, 4), 4);
    }

    #[test]
    fn lists_of_cpus() {
        assert_eq!(cpu_list("0-2,5, 7-7\n"), Some(BTreeSet::from([0, 1, 2, 5, 7])));
        for bad in ["", "1-", "-1", "a", "1,,2", "0-65536", "2-1"] {
            assert_eq!(cpu_list(bad), None, "{bad:?}");
        }
    }
}
