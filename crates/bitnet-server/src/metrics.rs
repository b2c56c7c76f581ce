//! Counters, and their text format for Prometheus.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// Upper ends of the buckets of times, in seconds: from a token of a small model to the prompt of a large one.
const SECONDS: [f64; 16] =
    [0.000_25, 0.000_5, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0];

/// The number of times in each bucket.
#[derive(Debug, Default)]
pub(crate) struct Histogram {
    /// One for each of [`SECONDS`], and one for longer times.
    counts: [AtomicU64; SECONDS.len() + 1],
    nanoseconds: AtomicU64,
}

impl Histogram {
    pub(crate) fn record(&self, time: Duration) {
        let seconds = time.as_secs_f64();
        let bucket = SECONDS.partition_point(|end| *end < seconds);
        self.counts[bucket].fetch_add(1, Relaxed);
        self.nanoseconds.fetch_add(u64::try_from(time.as_nanos()).unwrap_or(u64::MAX), Relaxed);
    }

    fn write(&self, out: &mut String, name: &str, help: &str) {
        head(out, name, help, "histogram");
        let mut total = 0;
        for (count, end) in self.counts.iter().zip(SECONDS.iter().map(f64::to_string).chain(["+Inf".to_owned()])) {
            total += count.load(Relaxed);
            let _ = writeln!(out, "{name}_bucket{{le=\"{end}\"}} {total}");
        }
        let seconds = self.nanoseconds.load(Relaxed) as f64 / 1e9;
        let _ = writeln!(out, "{name}_sum {seconds}\n{name}_count {total}");
    }
}

fn head(out: &mut String, name: &str, help: &str, kind: &str) {
    let _ = writeln!(out, "# HELP {name} {help}\n# TYPE {name} {kind}");
}

/// Everything that is counted.
#[derive(Debug, Default)]
pub(crate) struct Metrics {
    /// Counts by endpoint and status.
    requests: Mutex<BTreeMap<(&'static str, u16), u64>>,
    pub(crate) prompt_tokens: AtomicU64,
    pub(crate) cached_tokens: AtomicU64,
    pub(crate) generated_tokens: AtomicU64,
    pub(crate) embedded_tokens: AtomicU64,
    /// Texts whose client went away.
    pub(crate) cancelled: AtomicU64,
    pub(crate) steps: AtomicU64,
    pub(crate) first_token: Histogram,
    pub(crate) next_token: Histogram,
    pub(crate) queued: Histogram,
    /// Times of building constraints.
    pub(crate) constraints: Histogram,
    /// Constraints that found no thread.
    pub(crate) constraints_refused: AtomicU64,
    /// Constraints that cannot be used, or were not ready in time.
    pub(crate) constraints_failed: AtomicU64,
    /// Models that were loaded, that could not be, and that left memory.
    pub(crate) loaded: AtomicU64,
    pub(crate) load_failures: AtomicU64,
    pub(crate) left: AtomicU64,
    /// Connections that were closed to make room for others.
    pub(crate) evicted: AtomicU64,
    /// Connections now.
    pub(crate) connections: AtomicU64,
}

/// Gauges: values of this moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Gauges {
    /// Texts that are generated.
    pub(crate) active: usize,
    /// Texts that wait.
    pub(crate) waiting: usize,
    pub(crate) max_sessions: usize,
    pub(crate) queue: usize,
    /// Large requests waiting to be parsed.
    pub(crate) unread: usize,
    /// Constraints waiting to be compiled.
    pub(crate) constraints: usize,
    /// Memory of the constraints of all texts.
    pub(crate) constraint_bytes: usize,
    /// Models in memory.
    pub(crate) models: usize,
}

impl Metrics {
    /// Counts an answer.
    pub(crate) fn answered(&self, endpoint: &'static str, status: u16) {
        *self.requests.lock().unwrap_or_else(PoisonError::into_inner).entry((endpoint, status)).or_default() += 1;
    }

    /// All of it in the text format of Prometheus.
    pub(crate) fn text(&self, now: Gauges) -> String {
        let mut out = String::with_capacity(4096);
        head(&mut out, "bitnet_requests_total", "Responses by endpoint and HTTP status.", "counter");
        for ((endpoint, status), n) in &*self.requests.lock().unwrap_or_else(PoisonError::into_inner) {
            let _ = writeln!(out, "bitnet_requests_total{{endpoint=\"{endpoint}\",status=\"{status}\"}} {n}");
        }
        let counters = [
            ("bitnet_prompt_tokens_total", "Prompt tokens, cached ones included.", &self.prompt_tokens),
            ("bitnet_cached_prompt_tokens_total", "Prompt tokens found in the cache.", &self.cached_tokens),
            ("bitnet_generated_tokens_total", "Generated tokens.", &self.generated_tokens),
            ("bitnet_embedded_tokens_total", "Tokens of embedded texts.", &self.embedded_tokens),
            ("bitnet_cancelled_total", "Sequences cancelled because their client disconnected.", &self.cancelled),
            ("bitnet_steps_total", "Forward passes of the engine.", &self.steps),
            (
                "bitnet_constraint_refused_total",
                "Constraints refused: no thread was free in time.",
                &self.constraints_refused,
            ),
            (
                "bitnet_constraint_failed_total",
                "Constraints that were invalid or not compiled in time.",
                &self.constraints_failed,
            ),
            ("bitnet_model_loads_total", "Models loaded for requests.", &self.loaded),
            ("bitnet_model_load_failures_total", "Models that could not be loaded.", &self.load_failures),
            ("bitnet_model_unloads_total", "Models that left memory.", &self.left),
            ("bitnet_connections_evicted_total", "Idle connections closed to make room for others.", &self.evicted),
        ];
        for (name, help, value) in counters {
            head(&mut out, name, help, "counter");
            let _ = writeln!(out, "{name} {}", value.load(Relaxed));
        }
        let gauges = [
            ("bitnet_active_sequences", "Sequences being generated.", now.active),
            ("bitnet_queue_length", "Sequences waiting in the queue.", now.waiting),
            ("bitnet_max_sequences", "Maximum number of sequences generated at once.", now.max_sessions),
            ("bitnet_queue_capacity", "Maximum number of waiting sequences.", now.queue),
            ("bitnet_prompt_queue_length", "Large requests waiting to be parsed.", now.unread),
            ("bitnet_constraint_queue_length", "Constraints waiting to be compiled.", now.constraints),
            ("bitnet_constraint_bytes", "Memory used by the constraints of all sequences.", now.constraint_bytes),
            ("bitnet_models_loaded", "Models in memory.", now.models),
            ("bitnet_connections", "Connections.", self.connections.load(Relaxed) as usize),
        ];
        for (name, help, value) in gauges {
            head(&mut out, name, help, "gauge");
            let _ = writeln!(out, "{name} {value}");
        }
        let histograms = [
            ("bitnet_queue_seconds", "Time from request to the start of each sequence.", &self.queued),
            (
                "bitnet_time_to_first_token_seconds",
                "Time from request to the first token of each sequence.",
                &self.first_token,
            ),
            ("bitnet_time_per_output_token_seconds", "Time between two tokens of a sequence.", &self.next_token),
            ("bitnet_constraint_seconds", "Time to compile the constraint of a request.", &self.constraints),
        ];
        for (name, help, histogram) in histograms {
            histogram.write(&mut out, name, help);
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_add_up() {
        let h = Histogram::default();
        for ms in [0.1, 0.25, 0.3, 7.0, 40_000.0] {
            h.record(Duration::from_secs_f64(ms / 1e3));
        }
        let mut out = String::new();
        h.write(&mut out, "t", "Times.");
        let bucket = |le: &str| {
            let line = out.lines().find(|l| l.starts_with(&format!("t_bucket{{le=\"{le}\"}}"))).unwrap();
            line.rsplit(' ').next().unwrap().parse::<u64>().unwrap()
        };
        assert_eq!(["0.00025", "0.0005", "0.005", "0.01", "30", "+Inf"].map(bucket), [2, 3, 3, 4, 4, 5]);
        assert!(out.contains("t_count 5\n") && out.contains("t_sum 40.00765\n"), "{out}");
    }

    #[test]
    fn every_sample_has_a_type() {
        let metrics = Metrics::default();
        metrics.answered("/v1/models", 200);
        metrics.answered("/v1/models", 200);
        let text = metrics.text(Gauges { active: 2, ..Gauges::default() });
        assert!(text.contains("bitnet_requests_total{endpoint=\"/v1/models\",status=\"200\"} 2\n"));
        assert!(text.contains("bitnet_active_sequences 2\n"));
        for line in text.lines().filter(|l| !l.starts_with('#')) {
            let name = line.split(['{', ' ']).next().unwrap();
            let base = ["_bucket", "_sum", "_count"].iter().find_map(|s| name.strip_suffix(s)).unwrap_or(name);
            assert!(text.contains(&format!("# TYPE {base} ")), "{line}");
            assert!(line.rsplit(' ').next().unwrap().parse::<f64>().is_ok(), "{line}");
        }
    }
}
