//! `bitnet __bandwidth`: started by `bench` and `doctor` to measure the memory bandwidth in a separate process.

use std::num::NonZeroUsize;
use std::time::Duration;

use clap::Args;
use ternary_kernels::probe::read_bandwidth;

use crate::error::CliError;
use crate::ui;

#[derive(Debug, Args)]
pub(crate) struct BandwidthArgs {
    /// Threads to read with
    #[arg(long)]
    threads: NonZeroUsize,
    /// Bytes to read in each pass
    #[arg(long)]
    bytes: usize,
}

pub(crate) fn execute(args: &BandwidthArgs) -> Result<(), CliError> {
    let gb_s = read_bandwidth(args.threads, args.bytes, Duration::from_millis(600))?;
    ui::print_line(format_args!("{gb_s:.3}"))
}
