//! CPU inference: preallocated buffers, plain slices, integer kernels, one thread team.
//!
//! [`Engine`] holds a model's weights packed for the chosen kernel; [`Sequence`](crate::Sequence) holds the state of
//! one text. A forward step runs the layers one after the other; within a layer the threads of the team share the
//! output rows of each projection and the heads of attention. See `docs/ARCHITECTURE.md`.
//!
//! **One canonical arithmetic.** The value of a token depends on the tokens before it and on nothing else: not on how
//! many tokens pass together, not on the number of threads. Integer products are exact; every float reduction runs
//! within one token, in an order fixed by [`ternary_kernels::ops`].

mod attention;
mod cache;
mod delta;
mod fingerprint;
mod fold;
mod head;
mod kernels;
mod lanes;
mod linear;
mod quantized;
mod scratch;
mod shares;
mod state;
mod step;
mod table;
mod ttt;

use std::num::NonZeroUsize;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use ternary_kernels::ops::Ops;
use ternary_kernels::ops::coarse::CoarsePlane;
use ternary_kernels::{Isa, Kernel, Team};

pub use cache::KvType;
pub use head::{Candidate, HeadMode, HeadRequest, Prediction, StepOutput};
pub use kernels::ProjectionGroup;
pub use state::SequenceState;
pub use step::{LogitsWanted, StepInput};

use crate::weights::ModelWeights;
use crate::{ActivationBits, InputForm, ModelConfig, ModelError, Projection};
use delta::DeltaMixer;
use fold::FoldSigns;
use kernels::{KernelOverrides, Kernels};
use lanes::Lane;
use linear::Linear;
use quantized::Quantized;
use scratch::{MAX_ROWS, Scratch};
use table::EngineTable;
use ttt::TttMixer;
use ttt_layer::{GatedDelta, RowWise};

/// How an [`Engine`] computes.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct EngineOptions {
    /// Threads to compute with, the caller's included; `None` takes the CPUs that the process may use. One thread
    /// spawns none.
    pub threads: Option<NonZeroUsize>,
    /// Instruction set; `None` takes what `BITNET_ISA` names, or the best that this CPU has.
    pub isa: Option<Isa>,
    /// A kernel of your own for the ternary products; `None` takes the best for the instruction set and the model's size.
    /// Matrices with a scale for each group of weights, and with 16-bit inputs, have a kernel of theirs in any case.
    pub kernel: Option<Arc<dyn Kernel>>,
    layer_kernels: KernelOverrides,
    /// Whether test-time-training layers update their inner models while they read. Without it these stay what training has made of
    /// them, for ablations. On by default.
    pub inner_updates: bool,
    /// Whether the threads split the work by sequences and pieces of a sequence, rather than each product by rows; `None` decides
    /// by the size of the model. No result depends on it.
    pub sequence_parallel: Option<bool>,
    /// How the best logits are found; which they are does not depend on it.
    pub head: HeadMode,
    /// Bits of the inputs of all projections; `None` takes what the model was made for. Another number changes what a model
    /// computes: models with a scale per group of weights choose another most likely token at every tenth position or so, with 8 bits
    /// for a token ([`ActivationBits::Eight`]) as with 8 bits for a group ([`ActivationBits::EightByGroup`]), which are closer on average.
    pub activation_bits: Option<ActivationBits>,
}

impl Default for EngineOptions {
    fn default() -> Self {
        Self {
            threads: None,
            isa: None,
            kernel: None,
            layer_kernels: KernelOverrides::default(),
            inner_updates: true,
            sequence_parallel: None,
            head: HeadMode::default(),
            activation_bits: None,
        }
    }
}

impl EngineOptions {
    /// With `n` threads; 0 takes the default.
    #[must_use]
    pub fn threads(mut self, n: usize) -> Self {
        self.threads = NonZeroUsize::new(n);
        self
    }
    /// With an instruction set.
    #[must_use]
    pub fn isa(mut self, isa: Isa) -> Self {
        self.isa = Some(isa);
        self
    }
    /// With inner updates of test-time-training layers, or without.
    #[must_use]
    pub fn inner_updates(mut self, on: bool) -> Self {
        self.inner_updates = on;
        self
    }
    /// With work split by sequences, or by the rows of each product.
    #[must_use]
    pub fn sequence_parallel(mut self, on: bool) -> Self {
        self.sequence_parallel = Some(on);
        self
    }
    /// With another way to the best logits.
    #[must_use]
    pub fn head(mut self, mode: HeadMode) -> Self {
        self.head = mode;
        self
    }
    /// With inputs of other bits than those the model was made for.
    #[must_use]
    pub fn activation_bits(mut self, bits: ActivationBits) -> Self {
        self.activation_bits = Some(bits);
        self
    }
    /// With a kernel of your own.
    #[must_use]
    pub fn kernel(mut self, kernel: Arc<dyn Kernel>) -> Self {
        self.kernel = Some(kernel);
        self
    }
    /// With a kernel for one projection group, whatever the others have. Exact kernels give the same results in every mixture.
    #[must_use]
    pub fn kernel_for(mut self, group: ProjectionGroup, kernel: Arc<dyn Kernel>) -> Self {
        self.layer_kernels.set(group, kernel);
        self
    }
}

/// A model ready for inference on this CPU: immutable, cheap to clone, shared between threads.
///
/// Forward steps of several sequences take turns: the engine never computes with more threads than it was given.
#[derive(Clone, Debug)]
pub struct Engine {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    config: ModelConfig,
    embedding: EngineTable,
    /// `None` where it is the embedding, and in a model without a head.
    head: Option<EngineTable>,
    /// Of the head, if that is what finds the best logits.
    plane: Option<CoarsePlane>,
    /// What the head reads, if it is ternary.
    head_form: Option<InputForm>,
    /// Signed Hadamard transforms of a folded model.
    fold: Option<FoldSigns>,
    layers: Vec<Layer>,
    final_norm: Vec<f32>,
    isa: Isa,
    ops: Ops,
    kernels: Kernels,
    kernel_name: String,
    threads: usize,
    /// Whether each thread has a lane, see [`lanes`].
    in_lanes: bool,
    fingerprint: OnceLock<u64>,
    workspace: Mutex<Workspace>,
}

/// A layer's weights, packed.
#[derive(Debug)]
struct Layer {
    input_norm: Vec<f32>,
    mixer: Mixer,
    attn_sub_norm: Option<Vec<f32>>,
    o: Linear,
    mixer_out_norm: Option<Vec<f32>>,
    post_attention_norm: Vec<f32>,
    gate: Linear,
    up: Linear,
    ffn_sub_norm: Option<Vec<f32>>,
    down: Linear,
    ffn_out_norm: Option<Vec<f32>>,
}

/// How a layer carries what it has read to the tokens that follow.
#[derive(Debug)]
enum Mixer {
    Attention(Box<AttentionMixer>),
    Ttt(Box<TttMixer>),
    Delta(Box<DeltaMixer>),
}

/// The projections of attention.
#[derive(Debug)]
struct AttentionMixer {
    q: Linear,
    k: Linear,
    v: Linear,
    /// Gain of the norm of each head of q, and of k, where the model has such norms.
    q_norm: Option<Vec<f32>>,
    k_norm: Option<Vec<f32>>,
    /// Which of the layers in a sequence's keys and values is this one.
    slot: usize,
}

/// What one forward step at a time uses.
#[derive(Debug)]
struct Workspace {
    team: Team,
    scratch: Scratch,
    /// One for each thread where they pay, see [`lanes`].
    lanes: Vec<Lane>,
}

impl Workspace {
    /// Of all threads together, then of each lane.
    fn scratches(&self) -> impl Iterator<Item = &Scratch> {
        std::iter::once(&self.scratch).chain(self.lanes.iter().map(Lane::scratch))
    }
}

impl Engine {
    /// Packs `weights` for the kernel that `options` choose.
    ///
    /// # Errors
    /// An instruction set that this CPU does not have (also one that `BITNET_ISA` names), a kernel that refuses the
    /// weights, threads that cannot be started; formulas that are not computed together ([`ModelError::Config`]).
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
        let kernels = Kernels::choose(options, isa, &config, weights)?;
        let team = Team::new(options.threads.unwrap_or_else(ternary_kernels::default_threads))?;
        let threads = team.threads();
        let ops = Ops::for_isa(isa)?;
        let mut layers: Vec<Option<Result<Layer, ModelError>>> = (0..weights.layers.len()).map(|_| None).collect();
        team.for_each_chunk(&mut layers, 1, |l, slot| {
            let w = &weights.layers[l];
            let linear = |p: Projection| kernels.pack(&config, l, w, p);
            let before = || weights.layers[..l].iter();
            let layer = || -> Result<Layer, ModelError> {
                let slot = before().filter(|l| l.ttt.is_some()).count();
                let ttt = TttMixer::new(w, ops, slot, options.inner_updates, linear)?;
                let slot = before().filter(|l| l.delta.is_some()).count();
                let mixer = match (ttt, DeltaMixer::new(w, ops, slot, linear)?) {
                    (Some(ttt), _) => Mixer::Ttt(Box::new(ttt)),
                    (None, Some(delta)) => Mixer::Delta(Box::new(delta)),
                    (None, None) => Mixer::Attention(Box::new(AttentionMixer {
                        q: linear(Projection::Q)?,
                        k: linear(Projection::K)?,
                        v: linear(Projection::V)?,
                        q_norm: w.head_q_norm.clone(),
                        k_norm: w.head_k_norm.clone(),
                        slot: before().filter(|l| l.ttt.is_none() && l.delta.is_none()).count(),
                    })),
                };
                Ok(Layer {
                    input_norm: w.input_norm.clone(),
                    mixer,
                    attn_sub_norm: w.attn_sub_norm.clone(),
                    o: linear(Projection::O)?,
                    mixer_out_norm: w.mixer_out_norm.clone(),
                    post_attention_norm: w.post_attention_norm.clone(),
                    gate: linear(Projection::Gate)?,
                    up: linear(Projection::Up)?,
                    ffn_sub_norm: w.ffn_sub_norm.clone(),
                    down: linear(Projection::Down)?,
                    ffn_out_norm: w.ffn_out_norm.clone(),
                })
            };
            slot[0] = Some(layer());
        });
        let layers = layers.into_iter().map(|l| l.expect("every layer was packed")).collect::<Result<Vec<_>, _>>()?;
        let embedding = EngineTable::new(&weights.embedding, &kernels)?;
        let head = weights.head.as_ref().map(|t| EngineTable::new(t, &kernels)).transpose()?;
        let floats = (!config.headless).then(|| head.as_ref().unwrap_or(&embedding)).and_then(EngineTable::as_float);
        let plane = match floats {
            Some(floats) => head::plane(options.head, floats, ops, &team)?,
            None => None,
        };
        let kernel_name = kernels.describe();
        let head_bits = match options.activation_bits {
            Some(bits @ (ActivationBits::Eight | ActivationBits::EightByGroup)) => bits,
            None | Some(ActivationBits::Four | ActivationBits::Sixteen) => ActivationBits::Sixteen,
        };
        let ternary_head = !config.headless && floats.is_none();
        let head_form = ternary_head.then_some(InputForm { hadamard: None, bits: head_bits });
        let scratch =
            |threads| Scratch::new(&config, threads, (kernels.row_block(), kernels.activation_group()), head_form);
        let lanes = lanes::of(options.sequence_parallel, &layers, threads, scratch)?;
        let scratch = scratch(threads);
        tracing::debug!(kernel = kernel_name, isa = isa.name(), threads, "engine ready");
        Ok(Self {
            inner: Arc::new(Inner {
                embedding,
                head,
                plane,
                head_form,
                fold: FoldSigns::of(&config),
                layers,
                final_norm: weights.final_norm.clone(),
                isa,
                ops,
                threads,
                in_lanes: !lanes.is_empty(),
                fingerprint: OnceLock::new(),
                workspace: Mutex::new(Workspace { team, scratch, lanes }),
                kernels,
                kernel_name,
                config,
            }),
        })
    }

    /// Shape and formulas.
    pub fn config(&self) -> &ModelConfig {
        &self.inner.config
    }
    /// Whether both are the same engine: clones of one.
    pub fn is(&self, other: &Engine) -> bool {
        Arc::ptr_eq(&self.inner, &other.inner)
    }
    /// The instruction set in use.
    pub fn isa(&self) -> Isa {
        self.inner.isa
    }
    /// Name of the kernel in use; where projection groups have different ones, as `base3_avx512vbmi; qkv: i2s_avx512vnni`.
    pub fn kernel_name(&self) -> &str {
        &self.inner.kernel_name
    }
    /// The kernel of one projection group, for matrices without a scale per group.
    pub fn kernel_for(&self, group: ProjectionGroup) -> &Arc<dyn Kernel> {
        self.inner.kernels.of(group)
    }
    /// Threads in use, the caller's included.
    pub fn threads(&self) -> usize {
        self.inner.threads
    }
    /// How the head is stored, and so computed: `f16` for example, or `none`.
    pub fn head_type(&self) -> String {
        self.inner.head_table().map_or_else(|| "none".to_owned(), EngineTable::type_name)
    }
    /// Bytes of packed ternary weights, all of which every decode step reads.
    pub fn packed_bytes(&self) -> usize {
        self.inner.layers.iter().flat_map(Layer::linears).map(Linear::byte_len).sum()
    }
    /// Bytes of the stored head. A decode step that needs all logits reads all of them.
    pub fn head_bytes(&self) -> usize {
        self.inner.head_table().map_or(0, EngineTable::byte_len)
    }
    /// Bytes of the coarse plane of the head, all of which a decode step reads that needs only the best logits, besides the
    /// stored rows that [`StepOutput::rescored`] counts; `None` where such a step reads the stored head.
    pub fn coarse_head_bytes(&self) -> Option<usize> {
        self.inner.plane.as_ref().map(CoarsePlane::byte_len)
    }

    /// Bytes of the codes of activations that a forward step holds, with their sums and scales: room for the widest row, for as many
    /// tokens as have passed together so far. Half as many with four bits as with eight.
    pub fn activation_bytes(&self) -> usize {
        self.lock().scratches().flat_map(|s| &s.quantized).map(Quantized::byte_len).sum()
    }
    /// Bytes of the other buffers that the layers compute in, for as many tokens as have passed together so far.
    pub fn working_bytes(&self) -> usize {
        self.lock().scratches().map(Scratch::byte_len).sum()
    }

    /// A number that tells models apart: of the configuration and of all weights. It is the same for every exact kernel and for
    /// every file format, and computed when it is first asked for, which takes about as long as a token on one thread.
    pub fn fingerprint(&self) -> u64 {
        *self.inner.fingerprint.get_or_init(|| fingerprint::of(&self.inner))
    }

    /// The norm before the head, of one residual row `[hidden]` f32 into `out`.
    pub(crate) fn final_norm(&self, row: &[f32], out: &mut [f32]) {
        self.inner.ops.rms_norm(row, &self.inner.final_norm, self.inner.config.rms_norm_eps, out);
    }

    /// The test-time-training layers, in their order.
    fn ttt_layers(&self) -> impl Iterator<Item = &RowWise> {
        self.inner.ttt_layers()
    }

    /// The layers of the gated delta rule, in their order.
    fn delta_layers(&self) -> impl Iterator<Item = &GatedDelta> {
        self.inner.delta_layers()
    }

    /// Tokens of one text that are best read in one step: enough that all threads have their share.
    pub(crate) fn tokens_at_once(&self) -> usize {
        if self.inner.in_lanes { 4 * MAX_ROWS } else { MAX_ROWS }
    }

    fn lock(&self) -> MutexGuard<'_, Workspace> {
        // A panic in a step leaves scratch contents behind that the next step overwrites: nothing to repair.
        self.inner.workspace.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    /// The test-time-training layers, in their order.
    fn ttt_layers(&self) -> impl Iterator<Item = &RowWise> {
        self.layers.iter().filter_map(|l| match &l.mixer {
            Mixer::Attention(_) | Mixer::Delta(_) => None,
            Mixer::Ttt(mixer) => Some(&mixer.rows),
        })
    }

    /// The layers of the gated delta rule, in their order.
    fn delta_layers(&self) -> impl Iterator<Item = &GatedDelta> {
        self.layers.iter().filter_map(|l| match &l.mixer {
            Mixer::Attention(_) | Mixer::Ttt(_) => None,
            Mixer::Delta(mixer) => Some(&mixer.rule),
        })
    }

    /// What the logits are computed with; `None` in a model without a head.
    fn head_table(&self) -> Option<&EngineTable> {
        (!self.config.headless).then(|| self.head.as_ref().unwrap_or(&self.embedding))
    }
}

impl Layer {
    fn linears(&self) -> impl Iterator<Item = &Linear> {
        let (attention, ttt, delta) = match &self.mixer {
            Mixer::Attention(m) => (Some([&m.q, &m.k, &m.v]), None, None),
            Mixer::Ttt(m) => (None, Some(m.linears()), None),
            Mixer::Delta(m) => (None, None, Some(m.linears())),
        };
        let mixer = attention.into_iter().flatten().chain(ttt.into_iter().flatten());
        let mixer = mixer.chain(delta.into_iter().flatten());
        mixer.chain([&self.o, &self.gate, &self.up, &self.down])
    }
}

/// Whether there is code for everything that `c` asks for.
fn check(c: &ModelConfig) -> Result<(), ModelError> {
    if c.sub_norms && c.projection_norms {
        let must = "false in a model with sub-norms: both stand before the output and the down projection";
        return Err(ModelError::Config { field: "projection_norms", value: "true".to_owned(), must });
    }
    Ok(())
}
