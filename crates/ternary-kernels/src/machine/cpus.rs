//! The default number of threads.

use std::collections::BTreeSet;
use std::num::NonZeroUsize;
use std::path::Path;
use std::sync::OnceLock;

/// CPUs that this process may use, as [`std::thread::available_parallelism`] says, 1 where it does not know. On Linux these are the CPUs
/// of its affinity mask (`sched_getaffinity`), limited by the quotas of its control groups, in whole CPUs, rounded down, at least 1:
/// `cpu.max` of version 2, `cpu.cfs_quota_us` of version 1, in the group itself and in all above it.
///
/// The system is asked once, which takes some ten files; what changes later does not count.
pub fn available_cpus() -> NonZeroUsize {
    static CPUS: OnceLock<NonZeroUsize> = OnceLock::new();
    *CPUS.get_or_init(|| std::thread::available_parallelism().unwrap_or(NonZeroUsize::MIN))
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
            true => cores(available, Path::new("/sys"), Path::new("/proc")),
            false => available,
        }
    })
}

/// On this many cores, one thread each is enough to read memory at its full speed. On fewer cores, a second thread per
/// core still helps: on one core of a Zen 4 server, one thread streams weights at 24 to 30 GB/s, two threads together
/// at 33.
const ENOUGH_CORES: NonZeroUsize = NonZeroUsize::new(4).expect("not zero");

/// `available`, or the number of cores that the CPUs in the affinity mask belong to, if that is known and smaller.
/// `sys` and `proc` are the directories in which Linux describes CPUs and processes.
fn cores(available: NonZeroUsize, sys: &Path, proc: &Path) -> NonZeroUsize {
    let count = || {
        let status = std::fs::read_to_string(proc.join("self/status")).ok()?;
        let allowed = status.lines().find_map(|l| l.strip_prefix("Cpus_allowed_list:"))?;
        let mut cores = BTreeSet::new();
        for cpu in cpu_list(allowed)? {
            let topology = sys.join(format!("devices/system/cpu/cpu{cpu}/topology"));
            // The second is the older name.
            let siblings = ["core_cpus_list", "thread_siblings_list"].map(|name| topology.join(name));
            let siblings = siblings.iter().find_map(|path| std::fs::read_to_string(path).ok())?;
            // All CPUs of a core have the same list, which contains each of them.
            cores.insert(cpu_list(&siblings).filter(|s| s.contains(&cpu))?.into_iter().min()?);
        }
        NonZeroUsize::new(cores.len())
    };
    count().filter(|&cores| cores >= ENOUGH_CORES).map_or(available, |cores| cores.min(available))
}

/// The CPUs of a list as the Linux kernel writes it, `0-3,8,10-11`; `None` if it is something else or too long.
fn cpu_list(text: &str) -> Option<Vec<usize>> {
    /// More CPUs than any kernel is built for.
    const MOST: usize = 1 << 16;
    let mut cpus = Vec::new();
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

    /// Directories like `/sys` and `/proc` of a machine whose cores have these CPUs, for a process with this mask.
    fn machine(cores: &[&str], allowed: &str) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        let write = |path: String, text: &str| {
            let path = dir.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        };
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
        cores(NonZeroUsize::new(available).unwrap(), &dir.path().join("sys"), &dir.path().join("proc")).get()
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
        // CPU 4 has no topology; no mask; invalid masks.
        assert_eq!(count(&machine(&all, "0-4"), 5), 5);
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
        assert_eq!(cpu_list("0-2,5, 7-7\n"), Some(vec![0, 1, 2, 5, 7]));
        for bad in ["", "1-", "-1", "a", "1,,2", "0-65536", "2-1"] {
            assert_eq!(cpu_list(bad), None, "{bad:?}");
        }
    }
}
