//! Energy used by the CPU, if it measures that: the counters of RAPL, as shown by Linux.

use std::path::{Path, PathBuf};

/// The folder in which Linux lists the meters of the CPU packages, and of their parts.
const POWERCAP: &str = "/sys/class/powercap";

/// Meters of all packages, read once at the beginning.
#[derive(Debug)]
pub(crate) struct EnergyMeter {
    packages: Vec<Package>,
}

#[derive(Debug)]
struct Package {
    counter: PathBuf,
    /// The counter begins again at 0 after this many microjoules.
    range: u64,
    start: u64,
}

impl EnergyMeter {
    /// Begins to measure; `None` if no meter can be read (virtual machines have none, and Linux lets only root read
    /// them).
    pub(crate) fn start() -> Option<Self> {
        Self::start_in(Path::new(POWERCAP))
    }

    fn start_in(powercap: &Path) -> Option<Self> {
        let mut packages = Vec::new();
        for entry in std::fs::read_dir(powercap).ok()?.flatten() {
            let dir = entry.path();
            // `intel-rapl:0` is a package (on AMD too), `intel-rapl:0:0` a part of it that its counter includes
            // already. The same package shows again as `intel-rapl-mmio:0`.
            let name = entry.file_name().to_string_lossy().into_owned();
            let is_number = |number: &str| !number.is_empty() && number.bytes().all(|b| b.is_ascii_digit());
            if !name.strip_prefix("intel-rapl:").is_some_and(is_number) {
                continue;
            }
            // `psys` meters the whole board.
            if !std::fs::read_to_string(dir.join("name")).is_ok_and(|n| n.starts_with("package")) {
                continue;
            }
            let counter = dir.join("energy_uj");
            let (Some(start), Some(range)) = (number(&counter), number(&dir.join("max_energy_range_uj"))) else {
                continue;
            };
            packages.push(Package { counter, range, start });
        }
        (!packages.is_empty()).then_some(Self { packages })
    }

    /// Joules of all packages since the beginning; right as long as no counter went round twice, which takes minutes.
    /// `None` if a meter vanished or nothing was counted.
    pub(crate) fn joules(&self) -> Option<f64> {
        let mut sum = 0;
        for p in &self.packages {
            let now = number(&p.counter)?;
            sum += if now >= p.start { now - p.start } else { now + p.range.saturating_sub(p.start) };
        }
        (sum > 0).then_some(sum as f64 / 1e6)
    }
}

fn number(path: &Path) -> Option<u64> {
    std::fs::read_to_string(path).ok()?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packages_are_summed_and_a_counter_may_go_round() {
        let dir = tempfile::tempdir().unwrap();
        let put = |zone: &str, file: &str, text: &str| {
            std::fs::create_dir_all(dir.path().join(zone)).unwrap();
            std::fs::write(dir.path().join(zone).join(file), text).unwrap();
        };
        assert!(EnergyMeter::start_in(dir.path()).is_none());
        let zones = [
            ("intel-rapl:0", "package-0"),
            ("intel-rapl:1", "package-1"),
            ("intel-rapl:0:0", "core"),
            ("intel-rapl:2", "psys"),
            ("intel-rapl-mmio:0", "package-0"),
        ];
        for (zone, name) in zones {
            put(zone, "name", &format!("{name}\n"));
            put(zone, "energy_uj", "900\n");
            put(zone, "max_energy_range_uj", "1000\n");
        }
        let meter = EnergyMeter::start_in(dir.path()).unwrap();
        assert_eq!(meter.packages.len(), 2);
        assert_eq!(meter.joules(), None);
        put("intel-rapl:0", "energy_uj", "950\n");
        put("intel-rapl:1", "energy_uj", "150\n");
        for other in ["intel-rapl:0:0", "intel-rapl:2", "intel-rapl-mmio:0"] {
            put(other, "energy_uj", "999\n");
        }
        // 50 and 100 + 150 microjoules.
        assert_eq!(meter.joules(), Some(300e-6));
    }
}
