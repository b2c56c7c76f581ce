//! Options of `bitnet train --task extract`.

use std::path::PathBuf;
use std::time::Duration;

use bitnet::train::extract::ExtractOptions;
use bitnet::{Directions, EncoderMixer};
use clap::Args;

use crate::choices;
use crate::commands::train::TrainArgs;
use crate::error::CliError;

/// Options of extractors only.
#[derive(Debug, Args)]
#[command(next_help_heading = "Extractors (--task extract)")]
pub(crate) struct ExtractArgs {
    /// Passes over the utterances, each time in another version [default: 30, and 2000 steps at least]
    #[arg(long, value_name = "N")]
    passes: Option<u64>,
    /// End after this time at the latest, as 40m, 90s or 2h; the learning rate falls accordingly
    #[arg(long, value_name = "TIME", value_parser = parse_time, help_heading = "Training")]
    pub(crate) time: Option<Duration>,
    /// Rows of the table of features [default: 16384]
    #[arg(long, value_name = "N")]
    buckets: Option<usize>,
    /// Words on each side that a word makes pairs with, 0 to 2 [default: 1]
    #[arg(long, value_name = "N")]
    reach: Option<usize>,
    /// No runs of characters as features of words
    #[arg(long)]
    no_runs: bool,
    /// Which words a word knows about: all, or those before it (an ablation) [default: both]
    #[arg(long, value_name = "WHICH", value_parser = choices::directions())]
    directions: Option<Directions>,
    /// Share of utterances with typing errors [default: 0.5]
    #[arg(long, value_name = "SHARE", allow_negative_numbers = true)]
    typos: Option<f64>,
    /// Share of utterances in which slots get other values [default: 0.5]
    #[arg(long, value_name = "SHARE", allow_negative_numbers = true)]
    exchange: Option<f64>,
    /// Halves of two utterances taken as out of scope, as a share of all; for tasks with utterances out of scope [default: 0]
    #[arg(long, value_name = "SHARE", allow_negative_numbers = true)]
    mixtures: Option<f64>,
    /// Share of the words outside of slots that are left out [default: 0]
    #[arg(long, value_name = "SHARE", allow_negative_numbers = true)]
    left_out: Option<f64>,
    /// Share of the words in whose place stands a sign that says nothing [default: 0]
    #[arg(long, value_name = "SHARE", allow_negative_numbers = true)]
    masked: Option<f64>,
    /// Share of utterances without slots whose second half is that of another one of the same intent [default: 0]
    #[arg(long, value_name = "SHARE", allow_negative_numbers = true)]
    crossed: Option<f64>,
    /// Of the utterances in scope, the share that shall still get its right intent with the threshold; without it the threshold
    /// balances that share with what is noticed as out of scope
    #[arg(long, value_name = "SHARE", allow_negative_numbers = true)]
    in_scope: Option<f64>,
    /// How often an utterance out of scope is seen in a pass [default: 5]
    #[arg(long, value_name = "N")]
    outside_repeats: Option<usize>,
    /// Share of the features of a word that is left out [default: 0.1]
    #[arg(long, value_name = "SHARE", allow_negative_numbers = true)]
    feature_dropout: Option<f64>,
    /// Share of the inputs of the heads that is left out [default: 0.2]
    #[arg(long, value_name = "SHARE", allow_negative_numbers = true)]
    dropout: Option<f64>,
    /// Share of the elements of word vectors that is left out [default: 0]
    #[arg(long, value_name = "SHARE", allow_negative_numbers = true)]
    word_dropout: Option<f64>,
    /// See each utterance in two versions side by side, with this weight of how much their intents differ [default: 0]
    #[arg(long, value_name = "WEIGHT", allow_negative_numbers = true)]
    agreement: Option<f64>,
    /// Extractor that teaches intents, one that was trained before; repeatable
    #[arg(long, value_name = "FILE")]
    pub(super) teacher: Vec<PathBuf>,
    /// How much of what is right is what teachers say [default: 0.7]
    #[arg(long, value_name = "SHARE", allow_negative_numbers = true)]
    taught: Option<f64>,
    /// Weight decay of the rows of the table [default: 0]
    #[arg(long, value_name = "DECAY", allow_negative_numbers = true)]
    table_decay: Option<f64>,
    /// Probability that is spread over all intents [default: 0.05]
    #[arg(long, value_name = "SHARE", allow_negative_numbers = true)]
    smoothing: Option<f64>,
    /// Weight of the loss of slots relative to that of intents [default: 0.5]
    #[arg(long, value_name = "WEIGHT", allow_negative_numbers = true)]
    tag_weight: Option<f32>,
    /// How much faster rows of the table move [default: 2]
    #[arg(long, value_name = "FACTOR", allow_negative_numbers = true)]
    table_lr: Option<f64>,
    /// Learn no scores of transitions between tags
    #[arg(long)]
    no_transitions: bool,
    /// Find slots that no utterance has twice at most once in a text
    #[arg(long)]
    once: bool,
    /// Share of the run at its beginning without quantisation [default: 0]
    #[arg(long, value_name = "SHARE", allow_negative_numbers = true)]
    float_share: Option<f64>,
}

impl ExtractArgs {
    /// The first of these options that was given.
    pub(crate) fn given(&self) -> Option<&'static str> {
        let all = [
            ("--passes", self.passes.is_some()),
            ("--buckets", self.buckets.is_some()),
            ("--reach", self.reach.is_some()),
            ("--no-runs", self.no_runs),
            ("--directions", self.directions.is_some()),
            ("--typos", self.typos.is_some()),
            ("--left-out", self.left_out.is_some()),
            ("--masked", self.masked.is_some()),
            ("--crossed", self.crossed.is_some()),
            ("--word-dropout", self.word_dropout.is_some()),
            ("--agreement", self.agreement.is_some()),
            ("--teacher", !self.teacher.is_empty()),
            ("--taught", self.taught.is_some()),
            ("--table-decay", self.table_decay.is_some()),
            ("--exchange", self.exchange.is_some()),
            ("--mixtures", self.mixtures.is_some()),
            ("--in-scope", self.in_scope.is_some()),
            ("--outside-repeats", self.outside_repeats.is_some()),
            ("--feature-dropout", self.feature_dropout.is_some()),
            ("--dropout", self.dropout.is_some()),
            ("--smoothing", self.smoothing.is_some()),
            ("--tag-weight", self.tag_weight.is_some()),
            ("--table-lr", self.table_lr.is_some()),
            ("--no-transitions", self.no_transitions),
            ("--once", self.once),
            ("--float-share", self.float_share.is_some()),
        ];
        all.into_iter().find(|(_, given)| *given).map(|(name, _)| name)
    }
}

/// A time as a person writes it: `90s`, `40m`, `2h`.
fn parse_time(text: &str) -> Result<Duration, String> {
    let units = [('s', 1.0), ('m', 60.0), ('h', 3600.0)];
    let seconds = units.iter().find_map(|(unit, factor)| Some(text.strip_suffix(*unit)?.parse::<f64>().ok()? * factor));
    let time = seconds.and_then(|s| Duration::try_from_secs_f64(s).ok()).filter(|t| !t.is_zero());
    time.ok_or_else(|| "expected a time like 90s, 40m or 2h".to_owned())
}

/// The first option that was given and is about language models only.
pub(super) fn foreign(args: &TrainArgs) -> Option<&'static str> {
    let (s, r) = (&args.shape, &args.run);
    let all = [
        ("--config", args.config.is_some()),
        ("--previous", args.previous),
        ("--from", args.from.is_some()),
        ("--tokenizer", args.tokenizer.is_some()),
        ("--train-tokenizer", args.train_tokenizer.is_some()),
        ("--sample", args.sample.is_some()),
        ("--kv-heads", s.kv_heads.is_some()),
        ("--head-dim", s.head_dim.is_some()),
        ("--family", s.family.is_some()),
        ("--group-size", s.group_size.is_some()),
        ("--vocab", s.vocab.is_some()),
        ("--hadamard", s.hadamard),
        ("--activations", s.activations.is_some()),
        ("--share-qk", s.share_qk),
        ("--gate", s.gate),
        ("--pre-conv", s.pre_conv),
        ("--ttt-decay", s.ttt_decay),
        ("--mini-batch", s.mini_batch.is_some()),
        ("--base-lr", s.base_lr.is_some()),
        ("--accumulate", r.accumulate.is_some()),
        ("--grow-from", r.grow_from.is_some()),
        ("--across-documents", r.across_documents),
        ("--cut-documents", r.cut_documents),
        ("--optimizer", r.optimizer.is_some()),
        ("--muon-lr", r.muon_lr.is_some()),
        ("--schedule", r.schedule.is_some()),
        ("--context", r.context.is_some()),
        ("--lr2", r.lr2.is_some()),
        ("--inner-warmup", r.inner_warmup.is_some()),
        ("--validate-every", r.validate_every.is_some()),
        ("--checkpoint-every", r.checkpoint_every.is_some()),
    ];
    all.into_iter().find(|(_, given)| *given).map(|(name, _)| name)
}

/// The mixers of the layers.
fn mixers(names: &[String]) -> Result<Vec<EncoderMixer>, CliError> {
    let of = |name: &String| {
        EncoderMixer::from_name(&name.replace('-', "_")).ok_or_else(|| {
            let problem = "an extractor's layers are attention, ttt-linear or gated-delta";
            CliError::usage(format!("--mixer {name}: {problem}"))
        })
    };
    names.iter().map(of).collect()
}

/// The options of the run.
pub(super) fn options(args: &TrainArgs) -> Result<ExtractOptions, CliError> {
    fn set<T: Copy>(to: &mut T, from: Option<T>) {
        if let Some(v) = from {
            *to = v;
        }
    }
    let (s, r, e) = (&args.shape, &args.run, &args.extract);
    let mut o = ExtractOptions::default();
    let wide = |n: Option<u32>| n.map(|n| n as usize);
    set(&mut o.hidden, wide(s.hidden));
    o.ffn = wide(s.ffn).unwrap_or(o.hidden.saturating_mul(3));
    set(&mut o.layers, wide(s.layers));
    set(&mut o.heads, wide(s.heads));
    set(&mut o.buckets, e.buckets);
    set(&mut o.reach, e.reach);
    o.runs = !e.no_runs;
    set(&mut o.directions, e.directions);
    set(&mut o.augmentation.left_out, e.left_out);
    set(&mut o.augmentation.masked, e.masked);
    set(&mut o.augmentation.crossed, e.crossed);
    o.in_scope = e.in_scope;
    set(&mut o.word_dropout, e.word_dropout);
    set(&mut o.agreement, e.agreement);
    set(&mut o.average, r.ema);
    set(&mut o.taught, e.taught);
    set(&mut o.table_decay, e.table_decay);
    set(&mut o.passes, e.passes);
    (o.steps, o.time) = (r.steps, e.time);
    set(&mut o.batch, r.batch);
    set(&mut o.lr, r.lr);
    set(&mut o.threads, r.threads);
    set(&mut o.warmup, r.warmup);
    set(&mut o.weight_decay, r.weight_decay);
    set(&mut o.clip, r.clip);
    set(&mut o.seed, r.seed);
    set(&mut o.patience, r.patience);
    set(&mut o.augmentation.typos, e.typos);
    set(&mut o.augmentation.exchange, e.exchange);
    set(&mut o.augmentation.mixtures, e.mixtures);
    set(&mut o.augmentation.outside_repeats, e.outside_repeats);
    set(&mut o.augmentation.feature_dropout, e.feature_dropout);
    set(&mut o.dropout, e.dropout);
    set(&mut o.smoothing, e.smoothing);
    set(&mut o.tag_weight, e.tag_weight);
    set(&mut o.table_lr, e.table_lr);
    o.transitions = !e.no_transitions;
    o.once = e.once;
    set(&mut o.float_share, e.float_share);
    o.mixers = mixers(&s.mixer)?;
    Ok(o)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_as_people_write_them() {
        let seconds = |text| parse_time(text).map(|t| t.as_secs());
        assert_eq!([seconds("90s"), seconds("40m"), seconds("1.5h")], [Ok(90), Ok(2400), Ok(5400)]);
        for bad in ["", "40", "m", "-1m", "0s", "nans", "1e300h", "5d"] {
            assert!(seconds(bad).is_err(), "{bad}");
        }
    }
}
