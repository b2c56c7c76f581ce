//! Measured figures and the file that keeps them.

use std::collections::BTreeMap;
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::error::BenchError;
use crate::machine::{Machine, today};
use crate::plan::Effort;

/// Quantity of a figure.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum What {
    /// One token times a matrix that is in the caches, microseconds.
    Gemv,
    /// One token times matrices that come from main memory, microseconds for each.
    Stream,
    /// Many tokens times a matrix, microseconds.
    Gemm,
    /// Tokens generated per second.
    Decode,
    /// Tokens generated per second by several texts in one pass over the weights.
    Together,
    /// Tokens of a prompt read per second.
    Prefill,
    /// Seconds until the model is ready.
    Load,
    /// Seconds for loading and for the first reading of a prompt.
    FirstToken,
    /// MiB of anonymous memory while decoding.
    Memory,
    /// As `Decode`, activations of 8 and of 4 bits in turn.
    V2Decode,
    /// As `Together`, activations of 8 and of 4 bits in turn.
    V2Together,
    /// As `Prefill`, activations of 8 and of 4 bits in turn.
    V2Prefill,
    /// As `Decode`, one type of keys and values after the other.
    KvDecode,
    /// MiB of anonymous memory while several texts are generated; bytes are those that the texts keep.
    TextMemory,
    /// As `Decode`, shapes of several families in turn.
    FamilyDecode,
    /// As `Prefill`, shapes of several families in turn; of an embedding model a text that becomes a vector.
    FamilyPrefill,
    /// Share of Hadamard transforms in a layer while one token is generated, in per cent.
    Hadamard,
    /// KiB of keys, values and states of one text.
    SessionMemory,
    /// Microseconds for the next token of one text.
    TokenTime,
    /// Tokens of a prompt read per second by the model that comes with the program.
    ShippedPrefill,
    /// Tokens generated per second by it, of all texts.
    ShippedDecode,
}

impl What {
    /// The unit of [`Figure::value`].
    pub(crate) fn unit(self) -> &'static str {
        match self {
            What::Gemv | What::Stream | What::Gemm | What::TokenTime => "us",
            What::Decode | What::Together | What::Prefill | What::ShippedPrefill | What::ShippedDecode => "tok/s",
            What::V2Decode | What::V2Together | What::V2Prefill | What::KvDecode => "tok/s",
            What::FamilyDecode | What::FamilyPrefill => "tok/s",
            What::SessionMemory => "KiB",
            What::Load | What::FirstToken => "s",
            What::Memory | What::TextMemory => "MiB",
            What::Hadamard => "%",
        }
    }

    pub(crate) fn more_is_better(self) -> bool {
        self.unit() == "tok/s"
    }

    /// Whether its bytes come from memory for every token or matrix.
    pub(crate) fn reads_memory(self) -> bool {
        use What::{Decode, FamilyDecode, KvDecode, Stream, Together, V2Decode, V2Together};
        matches!(self, Decode | FamilyDecode | Together | Stream | V2Decode | V2Together | KvDecode)
    }
}

/// One measured figure, with all that is needed to judge it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Figure {
    /// Names it: figures of different runs with the same name can be compared.
    pub(crate) id: String,
    /// The quantity, and so its unit.
    pub(crate) what: What,
    /// The program or kernel: the name of a kernel, `bitnet`, `candle f32`.
    pub(crate) subject: String,
    /// The instruction set, if one was chosen.
    pub(crate) isa: Option<String>,
    /// Threads that computed.
    pub(crate) threads: usize,
    /// Context of a decode step, number of texts, length of a prompt, tokens of a product.
    pub(crate) tokens: u64,
    /// `[out, in]` of a matrix.
    pub(crate) shape: Option<[u64; 2]>,
    pub(crate) value: f64,
    /// Least and most of the repetitions, or the interval of confidence of a kernel's median.
    pub(crate) range: Option<[f64; 2]>,
    /// Bytes that one token, or one product, reads.
    pub(crate) bytes: Option<u64>,
    /// Multiplications and additions of one token, or of one product.
    pub(crate) operations: Option<u64>,
    /// Read bandwidth of the memory with as many threads, before and after, in GB/s.
    pub(crate) bandwidth_gb_s: Option<[f64; 2]>,
    /// Peak of the set's dot-product instructions with as many threads, before and after, in 1e9 operations
    /// per second.
    pub(crate) peak_gop_s: Option<[f64; 2]>,
    /// Energy of the CPU packages, joules per token, if they have a meter.
    pub(crate) joules: Option<f64>,
    /// A remark that a reader needs: an extrapolation for example.
    pub(crate) note: Option<String>,
    /// Revision that was measured.
    pub(crate) revision: String,
    /// Day of the measurement.
    pub(crate) date: String,
    /// Whether it was measured with `--quick`.
    pub(crate) quick: bool,
}

impl Figure {
    /// A value of today, of one thread, with nothing else said about it.
    pub(crate) fn of(id: String, what: What, subject: &str, value: f64, revision: &str, effort: Effort) -> Self {
        Self {
            id,
            what,
            subject: subject.to_owned(),
            isa: None,
            threads: 1,
            tokens: 0,
            shape: None,
            value,
            range: None,
            bytes: None,
            operations: None,
            bandwidth_gb_s: None,
            peak_gop_s: None,
            joules: None,
            note: None,
            revision: revision.to_owned(),
            date: today(),
            quick: effort == Effort::Quick,
        }
    }

    /// Work per second.
    pub(crate) fn rate(&self) -> f64 {
        match self.what.unit() {
            "us" => 1e6 / self.value,
            _ => self.value,
        }
    }

    /// GB/s that it read.
    pub(crate) fn gb_s(&self) -> Option<f64> {
        Some(self.bytes? as f64 * self.rate() / 1e9)
    }

    /// 1e9 operations per second that it did.
    pub(crate) fn gop_s(&self) -> Option<f64> {
        Some(self.operations? as f64 * self.rate() / 1e9)
    }

    /// Its share of the read bandwidth, the mean of before and after, if its bytes come from memory.
    pub(crate) fn bandwidth_share(&self) -> Option<f64> {
        Some(self.gb_s()? / mean(self.bandwidth_gb_s.filter(|_| self.what.reads_memory())?))
    }

    /// Peak of the dot-product instructions, the better of before and after: unlike the memory's, their speed does
    /// not change, and other programs can only make it look lower.
    pub(crate) fn peak(&self) -> Option<f64> {
        self.peak_gop_s.map(|[a, b]| a.max(b))
    }

    /// Its share of [`Figure::peak`], if many tokens share the weights.
    pub(crate) fn peak_share(&self) -> Option<f64> {
        let limited = matches!(self.what, What::Prefill | What::V2Prefill | What::FamilyPrefill | What::Gemm);
        Some(self.gop_s()? / self.peak().filter(|_| limited)?)
    }
}

/// The mean of two.
pub(crate) fn mean([a, b]: [f64; 2]) -> f64 {
    (a + b) / 2.0
}

/// A measurement that gave no figure.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Failure {
    /// Name of the measurement.
    pub(crate) task: String,
    /// Why.
    pub(crate) problem: String,
}

/// All figures of a machine. A later measurement takes the place of an earlier one of the same name.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Results {
    /// The machine that they were measured on.
    pub(crate) machine: Machine,
    /// In the order of their names.
    pub(crate) figures: Vec<Figure>,
    /// In the order in which they happened.
    pub(crate) failures: Vec<Failure>,
    /// For each task that succeeded: its figures, as passed to [`Results::take`].
    #[serde(default)]
    pub(crate) done: BTreeMap<String, String>,
}

impl Results {
    /// No figures yet.
    pub(crate) fn new(machine: Machine) -> Self {
        Self { machine, figures: Vec::new(), failures: Vec::new(), done: BTreeMap::new() }
    }

    /// Reads a file that [`Results::save`] wrote.
    ///
    /// # Errors
    /// If it cannot be read or is something else.
    pub(crate) fn load(path: &Path) -> Result<Self, BenchError> {
        let bytes = std::fs::read(path).map_err(BenchError::io(path))?;
        serde_json::from_slice(&bytes).map_err(|e| BenchError::unreadable(path.display().to_string(), e))
    }

    /// Writes a sibling and renames it: an interruption leaves the old file or the new one.
    ///
    /// # Errors
    /// If it cannot be written.
    pub(crate) fn save(&self, path: &Path) -> Result<(), BenchError> {
        let text = serde_json::to_string_pretty(self).map_err(|e| BenchError::unreadable("the results", e))? + "\n";
        let new = path.with_extension("json.new");
        std::fs::write(&new, text).map_err(BenchError::io(&new))?;
        std::fs::rename(&new, path).map_err(BenchError::io(path))
    }

    /// The figure called `id`.
    pub(crate) fn get(&self, id: &str) -> Option<&Figure> {
        self.figures.iter().find(|f| f.id == id)
    }

    /// Whether a task succeeded with exactly this revision and effort.
    pub(crate) fn has(&self, task: &str, measured: &str) -> bool {
        self.done.get(task).is_some_and(|m| m == measured)
    }

    /// Takes the figures of a task that succeeded; `measured` names revision and effort.
    pub(crate) fn take(&mut self, task: &str, measured: &str, figures: Vec<Figure>) {
        self.failures.retain(|f| f.task != task);
        self.done.insert(task.to_owned(), measured.to_owned());
        for figure in figures {
            match self.figures.binary_search_by(|f| f.id.cmp(&figure.id)) {
                Ok(at) => self.figures[at] = figure,
                Err(at) => self.figures.insert(at, figure),
            }
        }
    }

    /// Remembers why a task gave no figures.
    pub(crate) fn fail(&mut self, task: &str, problem: String) {
        self.failures.retain(|f| f.task != task);
        self.failures.push(Failure { task: task.to_owned(), problem });
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn figure(id: &str, what: What, value: f64) -> Figure {
        Figure {
            id: id.into(),
            what,
            subject: "bitnet".into(),
            isa: Some("avx2".into()),
            threads: 1,
            tokens: 0,
            shape: None,
            value,
            range: None,
            bytes: Some(1_000_000_000),
            operations: Some(4_000_000_000),
            bandwidth_gb_s: Some([30.0, 50.0]),
            peak_gop_s: Some([100.0, 100.0]),
            joules: None,
            note: None,
            revision: "r".into(),
            date: "2026-01-01".into(),
            quick: false,
        }
    }

    #[test]
    fn shares_are_of_the_mean() {
        let f = figure("d", What::Decode, 20.0);
        assert_eq!(f.gb_s(), Some(20.0));
        assert_eq!(f.bandwidth_share(), Some(0.5));
        assert_eq!(f.peak_share(), None);
        // 50 ms for each of the same.
        assert_eq!(figure("k", What::Stream, 50_000.0).bandwidth_share(), Some(0.5));
        assert_eq!(figure("k", What::Gemv, 50_000.0).bandwidth_share(), None);
        // 80 of 100.
        assert_eq!(figure("k", What::Gemm, 50_000.0).peak_share(), Some(0.8));
    }

    #[test]
    fn a_later_figure_takes_the_place_and_clears_the_failure() {
        let mut r = Results::new(Machine::here());
        r.fail("t", "no".into());
        r.take("t", "r", vec![figure("b", What::Decode, 1.0), figure("a", What::Decode, 2.0)]);
        r.take("t", "r", vec![figure("b", What::Decode, 3.0)]);
        let ids: Vec<_> = r.figures.iter().map(|f| (f.id.as_str(), f.value)).collect();
        assert_eq!(ids, [("a", 2.0), ("b", 3.0)]);
        assert!(r.failures.is_empty() && r.has("t", "r") && !r.has("t", "s") && !r.has("u", "r"));

        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("r.json");
        r.save(&path).unwrap();
        assert_eq!(Results::load(&path).unwrap(), r);
        std::fs::write(&path, "{}").unwrap();
        assert!(matches!(Results::load(&path), Err(BenchError::Unreadable { .. })));
    }
}
