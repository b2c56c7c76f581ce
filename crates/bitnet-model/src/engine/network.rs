//! A model's weights, packed for the kernels that compute them.

use std::sync::Arc;

use ternary_kernels::Team;
use ternary_kernels::ops::Ops;
use ttt_layer::{GatedDelta, RowWise};

use super::blocks::attention::{Attention, HeadNorms};
use super::blocks::branch::Branch;
use super::blocks::delta::Delta;
use super::blocks::feed_forward::FeedForward;
use super::blocks::lm_head::{FinalNorm, LmHead};
use super::blocks::ttt::Ttt;
use super::fold::FoldSigns;
use super::kernels::Kernels;
use super::linear::Linear;
use super::options::EngineOptions;
use super::table::EngineTable;
use crate::weights::ModelWeights;
use crate::{ActivationBits, InputForm, ModelConfig, ModelError, Projection};

/// A model in the form that the engine computes with.
#[derive(Debug)]
pub(super) struct Network {
    pub(super) config: ModelConfig,
    pub(super) ops: Ops,
    pub(super) kernels: Kernels,
    pub(super) embedding: Arc<EngineTable>,
    /// Signed Hadamard transforms of a folded model.
    pub(super) fold: Option<FoldSigns>,
    pub(super) layers: Vec<Layer>,
    pub(super) head: LmHead,
}

/// A layer: the mixer passes information from token to token, the feed-forward block computes within a token.
#[derive(Debug)]
pub(super) struct Layer {
    pub(super) mixer: Mixer,
    pub(super) feed_forward: FeedForward,
}

/// How a layer passes what it has read on to later tokens.
#[derive(Debug)]
pub(super) enum Mixer {
    Attention(Box<Attention>),
    Ttt(Box<Ttt>),
    Delta(Box<Delta>),
}

impl Network {
    /// Packs `weights`, all threads.
    pub(super) fn new(
        weights: &ModelWeights,
        config: ModelConfig,
        kernels: Kernels,
        options: &EngineOptions,
        ops: Ops,
        team: &Team,
    ) -> Result<Self, ModelError> {
        let mut layers: Vec<Option<Result<Layer, ModelError>>> = (0..weights.layers.len()).map(|_| None).collect();
        team.for_each_chunk(&mut layers, 1, |l, slot| {
            slot[0] = Some(Layer::new(weights, l, &config, &kernels, options, ops));
        });
        let layers = layers.into_iter().map(|l| l.expect("every layer was packed")).collect::<Result<Vec<_>, _>>()?;
        let embedding = Arc::new(EngineTable::new(&weights.embedding, &kernels)?);
        let head = match &weights.head {
            _ if config.headless => None,
            None => Some(embedding.clone()),
            Some(table) => Some(Arc::new(EngineTable::new(table, &kernels)?)),
        };
        let head_bits = match options.activation_bits {
            Some(bits @ (ActivationBits::Eight | ActivationBits::EightByGroup)) => bits,
            None | Some(ActivationBits::Four | ActivationBits::Sixteen) => ActivationBits::Sixteen,
        };
        let head_form = InputForm { hadamard: None, bits: head_bits };
        let norm = FinalNorm { gain: weights.final_norm.clone() };
        let head = LmHead::new(norm, head, options.head, head_form, ops, team)?;
        let fold = FoldSigns::of(&config);
        Ok(Self { config, ops, kernels, embedding, fold, layers, head })
    }

    /// The head, if it is not the embedding.
    pub(super) fn own_head(&self) -> Option<&EngineTable> {
        self.head.table().filter(|table| !std::ptr::eq(*table, Arc::as_ptr(&self.embedding)))
    }

    /// Bytes of the packed weights of all layers.
    pub(super) fn packed_bytes(&self) -> usize {
        self.layers.iter().flat_map(Layer::linears).map(Linear::byte_len).sum()
    }

    /// The test-time-training layers, in their order.
    pub(super) fn ttt_layers(&self) -> impl Iterator<Item = &RowWise> {
        self.layers.iter().filter_map(|l| match &l.mixer {
            Mixer::Attention(_) | Mixer::Delta(_) => None,
            Mixer::Ttt(ttt) => Some(&ttt.rows),
        })
    }

    /// The layers of the gated delta rule, in their order.
    pub(super) fn delta_layers(&self) -> impl Iterator<Item = &GatedDelta> {
        self.layers.iter().filter_map(|l| match &l.mixer {
            Mixer::Attention(_) | Mixer::Ttt(_) => None,
            Mixer::Delta(delta) => Some(&delta.rule),
        })
    }
}

impl Layer {
    /// Packs layer `index` of `weights`.
    fn new(
        weights: &ModelWeights,
        index: usize,
        config: &ModelConfig,
        kernels: &Kernels,
        options: &EngineOptions,
        ops: Ops,
    ) -> Result<Self, ModelError> {
        let layer = &weights.layers[index];
        let linear = |p: Projection| kernels.pack(config, index, layer, p);
        let before = || weights.layers[..index].iter();
        let slot = before().filter(|l| l.ttt.is_some()).count();
        let ttt = Ttt::new(layer, ops, slot, options.inner_updates, linear)?;
        let slot = before().filter(|l| l.delta.is_some()).count();
        let mixer = match (ttt, Delta::new(layer, ops, slot, linear)?) {
            (Some(ttt), _) => Mixer::Ttt(Box::new(ttt)),
            (None, Some(delta)) => Mixer::Delta(Box::new(delta)),
            (None, None) => Mixer::Attention(Box::new(Attention {
                query: linear(Projection::Q)?,
                key: linear(Projection::K)?,
                value: linear(Projection::V)?,
                branch: Branch::of_mixer(layer, linear)?,
                head_norms: HeadNorms { query: layer.head_q_norm.clone(), key: layer.head_k_norm.clone() },
                slot: before().filter(|l| l.ttt.is_none() && l.delta.is_none()).count(),
            })),
        };
        let feed_forward = FeedForward {
            gate: linear(Projection::Gate)?,
            up: linear(Projection::Up)?,
            branch: Branch::of_feed_forward(layer, linear)?,
        };
        Ok(Self { mixer, feed_forward })
    }

    /// The branch of the mixer.
    pub(super) fn mixer_branch(&self) -> &Branch {
        match &self.mixer {
            Mixer::Attention(attention) => &attention.branch,
            Mixer::Ttt(ttt) => &ttt.branch,
            Mixer::Delta(delta) => &delta.branch,
        }
    }

    /// All projections, in their order.
    pub(super) fn linears(&self) -> impl Iterator<Item = &Linear> {
        let (attention, ttt, delta) = match &self.mixer {
            Mixer::Attention(a) => (Some([&a.query, &a.key, &a.value]), None, None),
            Mixer::Ttt(ttt) => (None, Some(ttt.linears()), None),
            Mixer::Delta(delta) => (None, None, Some(delta.linears())),
        };
        let mixer = attention.into_iter().flatten().chain(ttt.into_iter().flatten());
        let mixer = mixer.chain(delta.into_iter().flatten());
        let FeedForward { branch, gate, up } = &self.feed_forward;
        mixer.chain([&self.mixer_branch().output, gate, up, &branch.output])
    }
}
