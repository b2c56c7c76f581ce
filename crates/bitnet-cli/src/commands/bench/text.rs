//! The report of `bitnet bench` as text.

use super::steps::Measured;
use super::{BenchArgs, Report};
use crate::ui::{self, Style, Ui};

/// The report for a person.
pub(super) fn as_text(
    r: &Report,
    [shape, by]: [&str; 2],
    args: &BenchArgs,
    prefill: Option<Measured>,
    decode: Option<Measured>,
    ui: &Ui,
) -> String {
    let mut text = String::new();
    let mut line = |label: &str, value: String| {
        text.push_str(&format!("  {} {value}\n", ui.out(Style::Dim, format_args!("{label:<10}"))));
    };
    line("model", format!("{shape}, loaded in {:.2} s", r.load_s));
    let plural = if r.threads == 1 { "thread" } else { "threads" };
    line("with", format!("{}{by}, head {}, kv {}, {} {plural}", r.kernel, r.head, r.kv, r.threads));
    let after = match (args.context, args.sessions) {
        (0, 1) => String::new(),
        (0, s) => format!(" of each of {s} texts"),
        (c, 1) => format!(" after {c}"),
        (c, s) => format!(" of each of {s} texts after {c}"),
    };
    let mut speed = |label: &str, tokens: u32, after: &str, measured: &Option<Measured>| {
        let Some(measured) = measured else { return };
        let [low, high] = measured.rates.range().map(ui::rate);
        let median = ui.out(Style::Bold, format_args!("{} tokens/s", ui::rate(measured.rates.median())));
        let spread = format!("{tokens} tokens{after}, {low} to {high} in {} runs", measured.rates.len());
        line(label, format!("{median}  {}", ui.out(Style::Dim, spread)));
    };
    speed("prefill", args.prompt, "", &prefill);
    speed("decode", args.new, &after, &decode);
    if let Some(share) = r.bandwidth_share {
        let [before, after] = r.read_bandwidth_gb_s;
        line(
            "bandwidth",
            format!(
                "{:.0} % of {before:.1} GB/s before and {after:.1} GB/s after ({} per token)",
                share * 100.0,
                ui::bytes(r.bytes_per_token)
            ),
        );
    }
    let speeds = |rates: [Option<f64>; 2], shares: [Option<f64>; 2]| {
        let speed = |i: usize| {
            let (rate, share) = rates[i].zip(shares[i])?;
            Some(format!("{} {} tokens/s ({:.0} %)", ["prefill", "decode"][i], ui::rate(rate), share * 100.0))
        };
        [speed(0), speed(1)].into_iter().flatten().collect::<Vec<_>>().join(", ")
    };
    if let Some(b) = &r.beside {
        let plural = if b.busy == 1 { "process" } else { "processes" };
        let speeds = speeds([b.prefill_tok_s, b.decode_tok_s], [b.prefill_share, b.decode_share]);
        line("beside", format!("{} busy {plural}: {speeds}, fair share {:.0} %", b.busy, b.fair_share * 100.0));
    }
    if let Some(s) = &r.slow_worker {
        let speeds = speeds([s.prefill_tok_s, s.decode_tok_s], [s.prefill_share, s.decode_share]);
        line("unlike", format!("one thread {} times slower: {speeds} of the sum of all threads", s.times));
    }
    if r.rows_rescored_mean > 0.0 {
        line("head", format!("{:.1} rows computed per token after the coarse pass", r.rows_rescored_mean));
    }
    if let (Some(rss), Some(file), Some(peak)) = (r.rss_anonymous_mib, r.rss_file_mib, r.peak_rss_mib) {
        line("memory", format!("{rss:.0} MiB of our own, {file:.0} MiB of mapped files, {peak:.0} MiB at the peak"));
    }
    text
}
