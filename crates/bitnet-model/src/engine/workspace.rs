//! Buffers and threads of a forward step, created once and used by one step at a time.

use std::num::NonZeroUsize;

use ternary_kernels::{AlignedBuf, KernelError, Team};

use super::blocks::attention::AttentionScratch;
use super::blocks::delta::DeltaScratch;
use super::blocks::feed_forward::FeedForwardScratch;
use super::blocks::lm_head::{HeadScratch, StepOutput};
use super::blocks::ttt::TttScratch;
use super::context::ProjectionScratch;
use super::limits::MAX_ROWS;
use super::linear::ProductScratch;
use super::network::Network;
use crate::ModelConfig;

/// The buffers of a pass through all layers.
#[derive(Debug)]
pub(super) struct Buffers {
    /// The number of tokens that fit, at most [`MAX_ROWS`]; grown on demand.
    rows: usize,
    /// The residual stream, `[rows, hidden]`.
    pub(super) residual: AlignedBuf<f32>,
    pub(super) projections: ProjectionScratch,
    pub(super) blocks: BlockScratch,
    pub(super) head: HeadScratch,
}

/// The buffers of each block; all layers use the same.
#[derive(Debug)]
pub(super) struct BlockScratch {
    /// `None` for a model without such layers, like the next two.
    pub(super) attention: Option<AttentionScratch>,
    pub(super) ttt: Option<TttScratch>,
    pub(super) delta: Option<DeltaScratch>,
    pub(super) feed_forward: FeedForwardScratch,
}

impl Buffers {
    /// Buffers of `threads` threads, without room for tokens.
    pub(super) fn new(network: &Network, threads: usize) -> Self {
        let (config, kernels) = (&network.config, &network.kernels);
        let group_len = kernels.activation_group();
        Self {
            rows: 0,
            residual: AlignedBuf::zeroed(0),
            projections: ProjectionScratch::new(config, threads, kernels.calls(), group_len),
            blocks: BlockScratch {
                attention: AttentionScratch::new(config, threads),
                ttt: TttScratch::new(config, threads),
                delta: DeltaScratch::new(config, threads),
                feed_forward: FeedForwardScratch::new(threads),
            },
            head: HeadScratch::new(config, &network.head, threads, group_len),
        }
    }

    /// Makes room for `rows` tokens.
    pub(super) fn reserve(&mut self, config: &ModelConfig, rows: usize) {
        ProductScratch::level(&mut self.projections.products);
        if rows <= self.rows {
            return;
        }
        let rows = rows.next_power_of_two().min(MAX_ROWS);
        let BlockScratch { attention, ttt, delta, feed_forward } = &mut self.blocks;
        self.residual = AlignedBuf::zeroed(rows * config.hidden_size);
        self.projections.reserve(config, rows);
        attention.iter_mut().for_each(|scratch| scratch.reserve(config, rows));
        ttt.iter_mut().for_each(|scratch| scratch.reserve(config, rows));
        delta.iter_mut().for_each(|scratch| scratch.reserve(config, rows));
        feed_forward.reserve(config, rows, self.projections.call(rows));
        self.head.reserve(config);
        self.rows = rows;
    }

    /// Bytes of the buffers of rows without the quantised inputs.
    pub(super) fn byte_len(&self) -> usize {
        let BlockScratch { attention, ttt, delta, feed_forward } = &self.blocks;
        let mixers = attention.as_ref().map_or(0, AttentionScratch::byte_len)
            + ttt.as_ref().map_or(0, TttScratch::byte_len)
            + delta.as_ref().map_or(0, DeltaScratch::byte_len);
        let own = size_of_val(&self.residual[..]) + self.projections.byte_len() + self.head.byte_len();
        own + mixers + feed_forward.byte_len()
    }
}

/// A thread with its own buffers, for the sequence-parallel schedule.
#[derive(Debug)]
pub(super) struct Worker {
    /// A team of one thread.
    pub(super) team: Team,
    pub(super) buffers: Buffers,
    pub(super) out: StepOutput,
}

/// The buffers and threads of one forward step at a time.
#[derive(Debug)]
pub(super) struct Workspace {
    pub(super) team: Team,
    pub(super) buffers: Buffers,
    /// One for each thread if the schedule is sequence-parallel, else none.
    pub(super) workers: Vec<Worker>,
    /// Values to restore in the state of each text, where it cannot be rewound, if a step of several texts fails.
    pub(super) undo: Vec<Vec<f32>>,
}

impl Workspace {
    /// With workers if `sequence_parallel`.
    pub(super) fn new(network: &Network, team: Team, sequence_parallel: bool) -> Result<Self, KernelError> {
        let worker = |_| {
            let team = Team::new(NonZeroUsize::MIN)?;
            Ok(Worker { team, buffers: Buffers::new(network, 1), out: StepOutput::default() })
        };
        let count = if sequence_parallel { team.threads() } else { 0 };
        let workers = (0..count).map(worker).collect::<Result<_, KernelError>>()?;
        Ok(Self { buffers: Buffers::new(network, team.threads()), team, workers, undo: Vec::new() })
    }

    /// The buffers of all threads together, then those of each worker.
    pub(super) fn all_buffers(&self) -> impl Iterator<Item = &Buffers> {
        std::iter::once(&self.buffers).chain(self.workers.iter().map(|worker| &worker.buffers))
    }
}
