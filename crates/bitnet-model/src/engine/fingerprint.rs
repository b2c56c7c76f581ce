//! A number that identifies a model, by everything that it computes with.
//!
//! Trits are only stored packed, in a different layout for each kernel. The products are common to all layouts: so each
//! matrix is multiplied by one vector of codes that are never 0, and the exact sums are hashed. A different trit
//! changes the sum of its row, for any kernel and any file format. This takes about as long as a token on one thread,
//! once. A kernel with rounded tables gives other sums, and exact kernels reject its states: they would not continue
//! with the same tokens either.

use ternary_kernels::{GroupKernel, GroupPacked, Int8Batch, Int16Batch, Kernel, KernelError, Packed, Scales};

use super::linear::Weights;
use super::network::{Layer, Mixer, Network};
use super::table::EngineTable;
use crate::{ActivationBits, ModelConfig, RopeScaling};

/// A hash of eight bytes at a time: an embedding has hundreds of megabytes.
struct Hash(u64);

impl Hash {
    fn word(&mut self, word: u64) {
        // The multiplier and the shift of MurmurHash3's finaliser, which spread each bit over all others.
        let mixed = (self.0 ^ word).wrapping_mul(0xFF51_AFD7_ED55_8CCD);
        self.0 = mixed ^ (mixed >> 33);
    }

    fn bytes(&mut self, bytes: &[u8]) {
        self.word(bytes.len() as u64);
        let (words, rest) = bytes.as_chunks();
        words.iter().for_each(|w| self.word(u64::from_le_bytes(*w)));
        let mut last = [0; 8];
        last[..rest.len()].copy_from_slice(rest);
        self.word(u64::from_le_bytes(last));
    }

    fn floats(&mut self, values: &[f32]) {
        self.word(values.len() as u64);
        values.iter().for_each(|v| self.word(u64::from(v.to_bits())));
    }

    /// The sums of all rows of `packed` with the codes of [`code`]; `acc` is a buffer for them.
    fn products(&mut self, packed: &Packed, kernel: &dyn Kernel, acc: &mut Vec<i32>) -> Result<(), KernelError> {
        let codes: Vec<i8> = (0..packed.cols()).map(code).collect();
        let x = Int8Batch::from_codes(1, codes.len(), &codes)?;
        acc.resize(packed.rows(), 0);
        for block in packed.blocks(0..packed.rows(), kernel.block_rows()) {
            kernel.gemv(&packed.rows_range(block.clone())?, &x.view().row(0), &mut acc[block]);
        }
        acc.iter().for_each(|sum| self.word(u64::from(sum.cast_unsigned())));
        Ok(())
    }

    /// Like [`Hash::products`], for weights with group scales, whose products are f32: a different trit or scale
    /// changes the product of its row.
    fn group_products(&mut self, packed: &GroupPacked, kernel: &GroupKernel) -> Result<(), KernelError> {
        let codes: Vec<i16> = (0..packed.cols()).map(|k| i16::from(code(k))).collect();
        let x = Int16Batch::from_codes(1, codes.len(), &codes)?;
        let mut y = vec![0.0; packed.rows()];
        kernel.product(packed, 0..packed.rows(), &x.view(), &mut y);
        self.floats(&y);
        Ok(())
    }

    fn table(&mut self, table: &EngineTable) {
        match table {
            EngineTable::Float(m) => self.bytes(m.bytes()),
            EngineTable::Ternary { packed, kernel, .. } => {
                let products = self.group_products(packed, kernel);
                debug_assert!(products.is_ok(), "{products:?}");
            }
        }
    }

    /// The formulas of `c` beyond BitNet, each with its own number.
    fn extensions(&mut self, c: &ModelConfig) {
        let flags = [c.head_norms, c.projection_norms, c.output_norms, c.qkv_bias, c.headless];
        flags.into_iter().for_each(|on| self.word(u64::from(on)));
        // Hashed last and only if set, so that fingerprints of models without it do not change.
        if c.head_norms_after_rope {
            self.word(0x6166_7465_7220_726f);
        }
        let scales = [c.embedding_scale, c.residual_scale, c.logit_divisor, c.rope_attention_factor()];
        self.floats(&scales);
        self.floats(c.attention_scale.as_slice());
        for form in c.inputs.all() {
            self.word(match form.bits {
                ActivationBits::Eight | ActivationBits::Four | ActivationBits::Sixteen => u64::from(form.bits.number()),
                ActivationBits::EightByGroup => 0x6772_6f75_7038,
            });
        }
        // Later additions are hashed only if present, so that saved sessions of older kinds of models stay valid.
        if c.has_delta() {
            let o = &c.delta;
            [o.conv_kernel, o.state_size, o.key_heads, o.value_heads].into_iter().for_each(|n| self.word(n as u64));
        }
        if c.gated_attention {
            self.word(0x6A7E);
        }
        if let Some(width) = c.rotary_dim {
            self.word(width as u64);
        }
        if let Some(fold) = &c.fold {
            [fold.block as u64, u64::from(fold.head), u64::from(fold.embedding)].into_iter().for_each(|n| self.word(n));
            fold.all_signs().for_each(|signs| self.bytes(bytemuck::cast_slice(signs)));
        }
    }

    fn layer(&mut self, layer: &Layer, acc: &mut Vec<i32>) {
        let branches = [layer.mixer_branch(), &layer.feed_forward.branch];
        for branch in branches {
            self.floats(&branch.input_norm);
            self.floats(branch.sub_norm.as_deref().unwrap_or_default());
        }
        for linear in layer.linears() {
            let products = match linear.weights() {
                Weights::Trits { packed, scales, kernel } => {
                    match scales {
                        Scales::Tensor(s) => self.floats(&[*s]),
                        Scales::Rows(s) => self.floats(s),
                        // Hashed with the packed weights.
                        Scales::Groups(_) => (),
                    }
                    self.products(packed, kernel.as_ref(), acc)
                }
                Weights::Groups { packed, kernel } => self.group_products(packed, kernel),
            };
            linear.learnt().for_each(|values| self.floats(values));
            // Codes in range and matching lengths are never rejected.
            debug_assert!(products.is_ok(), "{products:?}");
        }
        let heads = match &layer.mixer {
            Mixer::Attention(m) => [m.head_norms.query.as_ref(), m.head_norms.key.as_ref()],
            Mixer::Ttt(_) | Mixer::Delta(_) => [None, None],
        };
        let outputs = branches.map(|branch| branch.output_norm.as_ref());
        heads.into_iter().chain(outputs).flatten().for_each(|gain| self.floats(gain));
        if let Mixer::Delta(mixer) = &layer.mixer {
            mixer.rule.learnt().for_each(|values| self.floats(values));
        }
        if let Mixer::Ttt(mixer) = &layer.mixer {
            mixer.learnt().for_each(|values| self.floats(values));
            // States of models with and without inner updates are not interchangeable.
            if !mixer.rows.has_inner_updates() {
                self.word(0xF20_2E4);
            }
        }
    }
}

/// Activation `k`: between 1 and 127 or between -127 and -1, in an order that no matrix shares.
fn code(k: usize) -> i8 {
    let mut hash = Hash(0x7217);
    hash.word(k as u64);
    let size = (hash.0 >> 32) % 127 + 1;
    if hash.0 & 1 == 0 { size as i8 } else { -(size as i8) }
}

/// The fingerprint of a model.
pub(super) fn of(model: &Network) -> u64 {
    let mut hash = Hash(0x5EED);
    let c = &model.config;
    let eps = u64::from(c.rms_norm_eps.to_bits());
    let shape =
        [c.vocab_size, c.hidden_size, c.intermediate_size, c.num_attention_heads, c.num_key_value_heads, c.head_dim];
    shape.into_iter().for_each(|n| hash.word(n as u64));
    [eps, c.rope_theta.to_bits(), c.hidden_act as u64].into_iter().for_each(|n| hash.word(n));
    // An unscaled rotary embedding keeps the fingerprint of existing saved sessions.
    if c.rope_scaling != RopeScaling::None {
        hash.floats(&c.rope_frequencies());
    }
    // Features that BitNet models do not have do not change theirs either.
    if c.beyond_bitnet().is_some() {
        hash.extensions(c);
    }
    (0..c.num_hidden_layers).for_each(|l| hash.word(c.mixer(l) as u64));
    for table in [Some(&*model.embedding), model.own_head()].into_iter().flatten() {
        hash.table(table);
    }
    let mut acc = Vec::new();
    model.layers.iter().for_each(|l| hash.layer(l, &mut acc));
    hash.floats(&model.head.norm.gain);
    hash.0
}
