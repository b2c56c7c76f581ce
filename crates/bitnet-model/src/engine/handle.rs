//! The engine: a packed model with the threads and buffers that compute it.

use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use ternary_kernels::ops::Ops;
use ternary_kernels::{Isa, Kernel, Team};

use super::fingerprint;
use super::kernels::{Kernels, ProjectionGroup};
use super::limits::MAX_ROWS;
use super::network::Network;
use super::options::EngineOptions;
use super::table::EngineTable;
use super::workspace::{Buffers, Workspace};
use crate::weights::ModelWeights;
use crate::{ModelConfig, ModelError};

/// Up to this many bytes of packed weights, the schedule is sequence-parallel: as much as a core's own caches hold,
/// with a part of the shared one.
const SEQUENCE_PARALLEL_MAX_WEIGHT_BYTES: usize = 4 << 20;

/// A model ready for inference on this CPU: immutable, cheap to clone, shared between threads.
///
/// Forward steps of several sequences take turns: the engine never computes with more threads than it was given.
#[derive(Clone, Debug)]
pub struct Engine {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    network: Network,
    isa: Isa,
    kernel_name: String,
    threads: usize,
    sequence_parallel: bool,
    fingerprint: OnceLock<u64>,
    workspace: Mutex<Workspace>,
}

impl Engine {
    /// Packs `weights` for the kernel that `options` choose.
    ///
    /// # Errors
    /// An instruction set that this CPU does not have (including one that `BITNET_ISA` names), weights that a kernel
    /// rejects, threads that cannot be started; unsupported combinations of formulas ([`ModelError::Config`]).
    pub fn new(weights: &ModelWeights, options: &EngineOptions) -> Result<Self, ModelError> {
        let mut config = weights.config.clone();
        if let Some(bits) = options.activation_bits {
            config.inputs = config.inputs.with_bits(bits);
        }
        check(&config)?;
        let isa = match options.isa {
            Some(isa) => isa.require()?,
            None => Isa::selected()?,
        };
        let kernels = Kernels::choose(&options.layer_kernels, options.kernel.as_ref(), isa, &config, weights)?;
        let team = Team::new(options.threads.unwrap_or_else(ternary_kernels::default_threads))?;
        let threads = team.threads();
        let kernel_name = kernels.describe();
        let network = Network::new(weights, config, kernels, options, Ops::for_isa(isa)?, &team)?;
        let is_small = || network.packed_bytes() <= SEQUENCE_PARALLEL_MAX_WEIGHT_BYTES;
        let sequence_parallel = options.sequence_parallel.unwrap_or_else(is_small);
        let workspace = Workspace::new(&network, team, sequence_parallel)?;
        tracing::debug!(kernel = kernel_name, isa = isa.name(), threads, "engine ready");
        Ok(Self {
            inner: Arc::new(Inner {
                network,
                isa,
                kernel_name,
                threads,
                sequence_parallel,
                fingerprint: OnceLock::new(),
                workspace: Mutex::new(workspace),
            }),
        })
    }

    /// Shape and formulas.
    pub fn config(&self) -> &ModelConfig {
        &self.inner.network.config
    }
    /// Whether both are the same engine, that is, clones of one.
    pub fn is(&self, other: &Engine) -> bool {
        Arc::ptr_eq(&self.inner, &other.inner)
    }
    /// The instruction set in use.
    pub fn isa(&self) -> Isa {
        self.inner.isa
    }
    /// Name of the kernel in use; if projection groups have different ones, like
    /// `base3_avx512vbmi; qkv: i2s_avx512vnni`.
    pub fn kernel_name(&self) -> &str {
        &self.inner.kernel_name
    }
    /// The kernel of one projection group, for matrices without a scale per group.
    pub fn kernel_for(&self, group: ProjectionGroup) -> &Arc<dyn Kernel> {
        self.inner.network.kernels.of(group)
    }
    /// Threads in use, including the caller's.
    pub fn threads(&self) -> usize {
        self.inner.threads
    }
    /// From now on the last worker takes `times` as long for its work as it needs, as a slow core does, or does none where
    /// that is infinite; 1 ends it. No result depends on it. To measure what unlike cores make of the speed.
    #[doc(hidden)]
    pub fn slow_worker(&self, times: f32) {
        let team = &self.lock().team;
        team.slow_thread(team.threads() - 1, times);
    }
    /// How the head is stored, and so computed: `f16` for example, or `none`.
    pub fn head_type(&self) -> String {
        self.inner.network.head.table().map_or_else(|| "none".to_owned(), EngineTable::type_name)
    }
    /// Bytes of packed ternary weights, all of which every decode step reads.
    pub fn packed_bytes(&self) -> usize {
        self.inner.network.packed_bytes()
    }
    /// Bytes of the stored head. A decode step that needs all logits reads all of them.
    pub fn head_bytes(&self) -> usize {
        self.inner.network.head.table().map_or(0, EngineTable::byte_len)
    }
    /// Bytes of the coarse plane of the head. A decode step that needs only the best logits reads all of them, and the
    /// stored rows that [`StepOutput::rescored`](crate::StepOutput::rescored) counts; `None` if such a step reads the
    /// stored head.
    pub fn coarse_head_bytes(&self) -> Option<usize> {
        self.inner.network.head.plane_bytes()
    }

    /// Bytes of the codes of activations of a forward step, with their sums and scales: room for the widest row, for
    /// the largest number of tokens that have passed together so far. Half as many with four bits as with eight.
    pub fn activation_bytes(&self) -> usize {
        self.lock().all_buffers().map(|buffers| buffers.projections.input_bytes()).sum()
    }
    /// Bytes of the other buffers of the layers, for the largest number of tokens that have passed together so far.
    pub fn working_bytes(&self) -> usize {
        self.lock().all_buffers().map(Buffers::byte_len).sum()
    }

    /// A number that identifies a model, by its configuration and all weights. It is the same for every exact kernel
    /// and for every file format. It is computed when it is first requested, which takes about as long as a token on
    /// one thread.
    pub fn fingerprint(&self) -> u64 {
        *self.inner.fingerprint.get_or_init(|| fingerprint::of(&self.inner.network))
    }

    /// Applies the norm before the head to one residual row `[hidden]` f32, into `out`.
    pub(crate) fn final_norm(&self, row: &[f32], out: &mut [f32]) {
        let Network { ops, head, config, .. } = &self.inner.network;
        ops.rms_norm(row, &head.norm.gain, config.rms_norm_eps, out);
    }

    /// The best number of tokens of one text to read in one step: enough that all threads have their share.
    pub(crate) fn tokens_at_once(&self) -> usize {
        if self.inner.sequence_parallel { 4 * MAX_ROWS } else { MAX_ROWS }
    }

    /// Whether `tokens` are in the vocabulary.
    pub(crate) fn check_tokens(&self, tokens: &[u32]) -> Result<(), ModelError> {
        let vocab = self.config().vocab_size;
        match tokens.iter().find(|&&t| t as usize >= vocab) {
            Some(&id) => Err(ModelError::TokenOutOfRange { id, vocab }),
            None => Ok(()),
        }
    }

    /// The weights.
    pub(super) fn network(&self) -> &Network {
        &self.inner.network
    }

    /// Waits for the step of another thread to end.
    pub(super) fn lock(&self) -> MutexGuard<'_, Workspace> {
        // A panic in a step leaves scratch contents that the next step overwrites: nothing needs repair.
        self.inner.workspace.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Checks that all formulas of `config` are supported.
fn check(config: &ModelConfig) -> Result<(), ModelError> {
    if config.sub_norms && config.projection_norms {
        let must = "false in a model with sub-norms: both come before the output and the down projection";
        return Err(ModelError::Config { field: "projection_norms", value: "true".to_owned(), must });
    }
    Ok(())
}
