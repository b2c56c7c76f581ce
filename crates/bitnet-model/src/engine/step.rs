//! The forward step: tokens of one or several sequences through all layers.

use smallvec::SmallVec;
use ternary_kernels::ops::Ops;
use ternary_kernels::team::Columns;
use ternary_kernels::{ColsMut, Team};

use super::attention::{self, Segment};
use super::fold::RowForm;
use super::linear::{Linear, add_projection, project};
use super::quantized::Quantized;
use super::scratch::{MAX_ROWS, Scratch, ThreadScratch, adds_plainly};
use super::ttt::Texts;
use super::{AttentionMixer, Engine, HeadRequest, Inner, Layer, Mixer, SequenceState, StepOutput, Workspace, head};
use crate::{Activation, InputForm, ModelError};

/// Which positions of a [`StepInput`] the logits are computed for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogitsWanted {
    /// None: the tokens only enter the state.
    None,
    /// The last token.
    Last,
    /// Every token.
    All,
}

/// Tokens that continue one sequence.
#[derive(Debug)]
pub struct StepInput<'a> {
    /// The sequence's state, which goes on by the new tokens.
    pub state: &'a mut SequenceState,
    /// The new tokens.
    pub tokens: &'a [u32],
    /// Which positions to compute logits for.
    pub wanted: LogitsWanted,
    /// Which logits of these positions.
    pub head: HeadRequest,
}

/// Parts of a phase, one per thread, on the stack for up to this many threads.
pub(super) const INLINE_PARTS: usize = 16;

/// A row that is not finite, and where.
pub(super) type NonFinite = (&'static str, usize);

impl Engine {
    /// Feeds tokens of several sequences through the model in one pass over the weights, and appends what the inputs want
    /// to know about their positions to `out`, in the order of the inputs.
    ///
    /// The result for each sequence is the same, bit for bit, as if it had been fed alone, token by token.
    ///
    /// # Errors
    /// [`ModelError::TokenOutOfRange`], [`ModelError::ContextFull`], [`ModelError::ForeignSequence`],
    /// [`ModelError::StateLost`] and [`ModelError::NoHead`] before anything is computed; [`ModelError::Diverged`] if an activation is not finite. After an
    /// error the states are as they were before; with one exception: that of a text which went alone through a model with
    /// test-time-training layers is lost, and refused from then on.
    pub fn step(&self, inputs: &mut [StepInput<'_>], out: &mut StepOutput) -> Result<(), ModelError> {
        inputs.iter().try_for_each(|input| self.check(input.state, input.tokens))?;
        if self.config().headless && inputs.iter().any(|input| input.wanted != LogitsWanted::None) {
            return Err(ModelError::NoHead);
        }
        let before: SmallVec<[usize; INLINE_PARTS]> = inputs.iter().map(|i| i.state.len()).collect();
        let mut ws = self.lock();
        let mut undo = std::mem::take(&mut ws.scratch.undo);
        undo.clear();
        // Several texts must not lose their states by the fault of one. A single one would only meet its fault again, and
        // what is overwritten at the end of a mini-batch is as large as the state.
        let several = inputs.len() > 1;
        for input in inputs.iter_mut() {
            if several {
                input.state.remember(input.tokens.len(), &mut undo);
            }
            input.state.begin();
        }
        let result = self.inner.share(&mut ws, inputs, out);
        match result {
            Ok(()) => {
                self.inner.complete(&mut ws, inputs);
                inputs.iter_mut().for_each(|input| input.state.end());
            }
            Err(_) => {
                let mut rest = several.then_some(&undo[..]);
                for (input, len) in inputs.iter_mut().zip(before) {
                    rest = input.state.undo(len, input.tokens.len(), rest);
                }
            }
        }
        ws.scratch.undo = undo;
        result
    }

    /// Reads `tokens` as [`Engine::step`] does, without asking what follows, and returns for each test-time-training layer its inner
    /// losses `|f(k; W) - v|^2 / 2`, `[tokens, heads]` f32, each at the inner weights of the beginning of its mini-batch: what
    /// the state knew of a token before it read it. To look at; it takes longer than a step.
    ///
    /// # Errors
    /// The errors of [`Engine::step`]; a text whose step fails is lost.
    pub fn inner_losses(&self, state: &mut SequenceState, tokens: &[u32]) -> Result<Vec<Vec<f32>>, ModelError> {
        self.check(state, tokens)?;
        let mut losses = vec![Vec::new(); state.ttt.len()];
        let mut ws = self.lock();
        let Workspace { team, scratch, .. } = &mut *ws;
        let before = state.len();
        state.begin();
        for tokens in tokens.chunks(MAX_ROWS) {
            state.kv.reserve(state.len() + tokens.len());
            let head = HeadRequest::default();
            let mut block = [Segment { state: &mut *state, tokens, first_row: 0, wanted: 0..0, head }];
            let mut out = StepOutput::default();
            let result = self.inner.block(team, scratch, &mut block, tokens.len(), Some(&mut losses), &mut out);
            if let Err(error) = result {
                state.undo(before, 0, None);
                return Err(error);
            }
            self.inner.complete_open(scratch, &mut block);
        }
        state.end();
        Ok(losses)
    }

    /// What follows the last token of `state`, once more and as `request` asks; appended to `out` as one position. Nothing is read
    /// again: the state keeps what the head needs. `false` if it does not, because it was taken back.
    ///
    /// # Errors
    /// [`ModelError::ForeignSequence`], [`ModelError::StateLost`], [`ModelError::NoHead`].
    pub fn predict(
        &self,
        state: &SequenceState,
        request: HeadRequest,
        out: &mut StepOutput,
    ) -> Result<bool, ModelError> {
        self.check(state, &[])?;
        if self.config().headless {
            return Err(ModelError::NoHead);
        }
        let Some(last) = state.last() else { return Ok(false) };
        let mut ws = self.lock();
        let Workspace { team, scratch: s, .. } = &mut *ws;
        s.reserve(self.config(), 1);
        s.x[..last.len()].copy_from_slice(last);
        head::run(&self.inner, team, s, std::iter::once((0, request)), out);
        Ok(true)
    }

    /// Whether `tokens` may follow what `state` holds.
    pub(crate) fn check(&self, state: &SequenceState, tokens: &[u32]) -> Result<(), ModelError> {
        if !state.engine().is(self) {
            return Err(ModelError::ForeignSequence);
        }
        state.usable()?;
        self.check_tokens(tokens)?;
        let (limit, used, more) = (state.limit(), state.len(), tokens.len());
        if used.saturating_add(more) > limit {
            return Err(ModelError::ContextFull { limit, used, more });
        }
        Ok(())
    }
}

impl Engine {
    /// Whether `tokens` are in the vocabulary.
    pub(crate) fn check_tokens(&self, tokens: &[u32]) -> Result<(), ModelError> {
        let vocab = self.config().vocab_size;
        match tokens.iter().find(|&&t| t as usize >= vocab) {
            Some(&id) => Err(ModelError::TokenOutOfRange { id, vocab }),
            None => Ok(()),
        }
    }
}

impl Inner {
    /// Cuts the inputs into blocks of at most [`MAX_ROWS`] tokens: many short inputs share one, a long one fills several.
    pub(super) fn step(
        &self,
        team: &Team,
        s: &mut Scratch,
        inputs: &mut [StepInput<'_>],
        out: &mut StepOutput,
    ) -> Result<(), ModelError> {
        let (mut input, mut done) = (0, 0);
        while input < inputs.len() {
            let mut block = SmallVec::<[Segment<'_>; INLINE_PARTS]>::new();
            let mut rows = 0;
            let mut rest = &mut inputs[input..];
            while let [first, others @ ..] = rest {
                let todo = &first.tokens[done..];
                let take = todo.len().min(MAX_ROWS - rows);
                if take == 0 && !todo.is_empty() {
                    break;
                }
                let len = first.state.len();
                first.state.kv.reserve(len + take);
                let last = take == todo.len();
                let wanted = match first.wanted {
                    LogitsWanted::Last if last && take > 0 => rows + take - 1..rows + take,
                    LogitsWanted::All => rows..rows + take,
                    _ => rows..rows,
                };
                let (head, tokens) = (first.head, &todo[..take]);
                block.push(Segment { state: first.state, tokens, first_row: rows, wanted, head });
                rows += take;
                if !last {
                    done += take;
                    break;
                }
                (input, done) = (input + 1, 0);
                rest = others;
            }
            self.block(team, s, &mut block, rows, None, out)?;
        }
        Ok(())
    }

    /// One pass over the weights for `n` rows. Where `losses` are given, there is one text, and the inner losses of each
    /// test-time-training layer are appended to its own.
    fn block(
        &self,
        team: &Team,
        s: &mut Scratch,
        segments: &mut [Segment<'_>],
        n: usize,
        losses: Option<&mut [Vec<f32>]>,
        out: &mut StepOutput,
    ) -> Result<(), ModelError> {
        if n == 0 {
            return Ok(());
        }
        let c = &self.config;
        self.complete_open(s, segments);
        s.reserve(c, n);
        if c.attention_layers() > 0 {
            let longest = segments.iter().map(|g| g.state.len() + g.tokens.len()).max().unwrap_or(0);
            if longest > s.rope.len() {
                s.rope.grow(longest.next_power_of_two());
            }
            s.plan.make(segments, c.num_key_value_heads, attention::tile_tokens(c), team.threads());
            attention::reserve(c, &s.plan, &mut s.attention);
        }
        for segment in segments.iter() {
            self.embed(segment.tokens, &mut s.x[segment.first_row * c.hidden_size..]);
        }
        let mut texts = match losses {
            Some(losses) => Texts::Watched(segments, losses),
            None => Texts::Own(segments),
        };
        if let Err((what, row)) = self.layers(team, s, &mut texts, n) {
            return Err(position_error(segments, what, row));
        }
        let wanted = segments.iter().flat_map(|g| g.wanted.clone().map(|row| (row, g.head)));
        head::run(self, team, s, wanted, out);
        out.add_hidden(&s.x[..n * c.hidden_size]);
        for segment in segments.iter_mut().filter(|g| !g.tokens.is_empty()) {
            let n = segment.tokens.len();
            let last = segment.first_row + n - 1;
            segment.state.advance(n, &s.x[last * c.hidden_size..][..c.hidden_size]);
        }
        Ok(())
    }

    /// Writes the embeddings of `tokens` to the first rows of `x`, `[.., hidden]`.
    pub(super) fn embed(&self, tokens: &[u32], x: &mut [f32]) {
        let scale = self.config.embedding_scale;
        for (&token, x) in tokens.iter().zip(x.chunks_exact_mut(self.config.hidden_size)) {
            self.embedding.row_into(token as usize, x);
            if let Some(fold) = self.fold.as_ref().filter(|fold| fold.embedding) {
                fold.turn_back(self.ops, x);
            }
            if scale != 1.0 {
                self.ops.scale(scale, x);
            }
        }
    }

    /// The first `n` rows of the residual stream through all layers.
    pub(super) fn layers(
        &self,
        team: &Team,
        s: &mut Scratch,
        texts: &mut Texts<'_, '_>,
        n: usize,
    ) -> Result<(), NonFinite> {
        for layer in &self.layers {
            match &layer.mixer {
                Mixer::Attention(mixer) => self.attention_block(team, s, layer, mixer, texts.segments(), n)?,
                Mixer::Ttt(mixer) => self.ttt_block(team, s, layer, mixer, texts, n)?,
                Mixer::Delta(mixer) => self.delta_block(team, s, layer, mixer, texts.segments(), n)?,
            }
            self.feed_forward_block(team, s, layer, n)?;
        }
        Ok(())
    }

    fn attention_block(
        &self,
        team: &Team,
        s: &mut Scratch,
        layer: &Layer,
        mixer: &AttentionMixer,
        segments: &mut [Segment<'_>],
        n: usize,
    ) -> Result<(), NonFinite> {
        let (c, ops) = (&self.config, self.ops);
        self.quantize_inputs(team, s, &layer.input_norm, c.inputs.mixer, &[&mixer.q, &mixer.k, &mixer.v], n)
            .map_err(|row| ("the input of attention", row))?;
        let Scratch { q, k, v, quantized, threads, .. } = &mut *s;
        let outputs = [(&mixer.q, &mut q[..]), (&mixer.k, &mut k[..]), (&mixer.v, &mut v[..])].into_iter();
        let products = outputs.enumerate().map(|(i, (w, out))| (w, input(quantized, i), &mut out[..n * w.rows()]));
        project(ops, team, products.collect(), n, threads);
        attention::run(c, ops, team, s, mixer, segments);
        let norm = layer.attn_sub_norm.as_ref().or(layer.o.norm.as_ref()).map(|g| (g, c.rms_norm_eps));
        self.quantize_attention(team, s, n, norm).map_err(|row| ("the output of attention", row))?;
        self.add_branch(team, s, &layer.o, layer.mixer_out_norm.as_ref(), n);
        Ok(())
    }

    fn feed_forward_block(&self, team: &Team, s: &mut Scratch, layer: &Layer, n: usize) -> Result<(), NonFinite> {
        let (c, ops) = (&self.config, self.ops);
        let norm = &layer.post_attention_norm;
        self.quantize_inputs(team, s, norm, c.inputs.feed_forward, &[&layer.gate, &layer.up], n)
            .map_err(|row| ("the input of the feed-forward block", row))?;
        // Gate and up in one pass, with the activation between them applied while both are in cache.
        let u = ColsMut::new(&mut s.u[..n * c.intermediate_size], n, c.intermediate_size);
        // As many as for one of the two: a piece is twice the work.
        let pieces = layer.gate.pieces(team.threads(), n);
        let x = [input(&s.quantized, 0), input(&s.quantized, 1)];
        let mut outputs = [Columns::new((), u, layer.gate.panel_rows(), pieces)];
        team.run_columns(&mut outputs, &mut s.threads, |(), rows, u, scratch| {
            gated(ops, c.hidden_act, layer, rows, x, scratch, u);
        });
        let norm = layer.ffn_sub_norm.as_ref().or(layer.down.norm.as_ref()).map(|g| (g, c.rms_norm_eps));
        let form = self.row_form(c.inputs.down, c.intermediate_size);
        quantize_rows(ops, team, &s.u[..n * c.intermediate_size], n, norm, form, &mut s.quantized[0])
            .map_err(|row| ("the output of the feed-forward activation", row))?;
        self.add_branch(team, s, &layer.down, layer.ffn_out_norm.as_ref(), n);
        Ok(())
    }

    /// Normalises `n` rows of the residual stream with `gain` and quantises them for `projections`: once for all of them, or,
    /// where they have norms of their own, for each after its own norm. The error is a row that is not finite.
    fn quantize_inputs(
        &self,
        team: &Team,
        s: &mut Scratch,
        gain: &Vec<f32>,
        form: InputForm,
        projections: &[&Linear],
        n: usize,
    ) -> Result<(), usize> {
        let (c, ops) = (&self.config, self.ops);
        let (hidden, eps) = (c.hidden_size, c.rms_norm_eps);
        let form = self.row_form(form, hidden);
        let Scratch { x, quantized, threads, .. } = s;
        let x = &x[..n * hidden];
        if !c.projection_norms {
            return quantize_rows(ops, team, x, n, Some((gain, eps)), form, &mut quantized[0]);
        }
        for (w, out) in projections.iter().zip(quantized) {
            let own = w.norm.as_ref().map(|gain| (gain, eps));
            out.fill(team, form, n, hidden, threads.iter_mut(), |scratch, i, row| {
                let normed = &mut scratch.row[..hidden];
                ops.rms_norm(&x[i * hidden..(i + 1) * hidden], gain, eps, normed);
                row.quantize(ops, normed, own)
            })?;
        }
        Ok(())
    }

    /// Like [`quantize_rows`], for the result of attention, after its gate where it has one.
    fn quantize_attention(
        &self,
        team: &Team,
        s: &mut Scratch,
        n: usize,
        norm: Option<(&Vec<f32>, f32)>,
    ) -> Result<(), usize> {
        let (c, ops) = (&self.config, self.ops);
        let Scratch { q, attn, plan, quantized, threads, .. } = s;
        let (width, stride) = (c.num_attention_heads * c.head_dim, c.query_rows());
        let chunk = n.div_ceil(team.threads());
        let form = self.row_form(c.inputs.output, width);
        let own = threads.iter_mut().zip(q[..n * stride].chunks_mut(chunk * stride));
        quantized[0].fill(team, form, n, width, own, |(scratch, queries), i, row| {
            let out = &mut scratch.row[..width];
            attention::gather_row(c, plan, attn, i, out);
            if c.gated_attention {
                let gate = &mut queries[i % chunk * stride + width..][..width];
                ops.sigmoid_in_place(1.0, gate);
                out.iter_mut().zip(gate).for_each(|(out, gate)| *out *= *gate);
            }
            row.quantize(ops, out, norm)
        })
    }

    /// How rows of `width` elements become codes in `form`, for the projections of the layers.
    pub(super) fn row_form(&self, form: InputForm, width: usize) -> RowForm<'_> {
        self.fold.as_ref().map_or_else(|| form.into(), |fold| fold.row(form, width))
    }

    /// Adds the projection `w` of the quantised rows to the residual stream: as it is, or normalised with `gain`, where there is
    /// one, and scaled.
    pub(super) fn add_branch(&self, team: &Team, s: &mut Scratch, w: &Linear, gain: Option<&Vec<f32>>, n: usize) {
        let (c, ops) = (&self.config, self.ops);
        let hidden = c.hidden_size;
        let Scratch { x, branch, quantized, threads, .. } = s;
        let x = &mut x[..n * hidden];
        if adds_plainly(c) {
            return add_projection(ops, team, w, &quantized[0], threads, x);
        }
        let branch = &mut branch[..n * hidden];
        project(ops, team, SmallVec::from_iter([(w, &quantized[0], &mut *branch)]), n, threads);
        let chunk = n.div_ceil(team.threads()) * hidden;
        let mut parts: SmallVec<[_; INLINE_PARTS]> = x.chunks_mut(chunk).zip(branch.chunks_mut(chunk)).collect();
        team.run_parts(&mut parts, |_, (x, branch)| {
            for (x, row) in x.chunks_exact_mut(hidden).zip(branch.chunks_exact_mut(hidden)) {
                if let Some(gain) = gain {
                    ops.rms_norm_in_place(row, gain, c.rms_norm_eps);
                }
                if c.residual_scale != 1.0 {
                    ops.scale(c.residual_scale, row);
                }
                ops.add_assign(x, row);
            }
        });
    }
}

/// The input of projection `i` of those that read the same row.
fn input(quantized: &[Quantized], i: usize) -> &Quantized {
    &quantized[i.min(quantized.len() - 1)]
}

fn position_of(segments: &[Segment<'_>], row: usize) -> usize {
    let holds = |s: &&Segment<'_>| (s.first_row..s.first_row + s.tokens.len()).contains(&row);
    segments.iter().find(holds).map_or(0, |s| s.state.len() + row - s.first_row)
}

fn position_error(segments: &[Segment<'_>], what: &'static str, row: usize) -> ModelError {
    ModelError::Diverged { what, position: position_of(segments, row) }
}

/// Normalises (where a gain is given) and quantises each of the `n` rows of `x`; the error is the row that is not finite.
fn quantize_rows(
    ops: Ops,
    team: &Team,
    x: &[f32],
    n: usize,
    norm: Option<(&Vec<f32>, f32)>,
    form: RowForm<'_>,
    out: &mut Quantized,
) -> Result<(), usize> {
    let width = x.len() / n;
    out.fill(team, form, n, width, std::iter::repeat(()), |(), i, row| {
        row.quantize(ops, &x[i * width..(i + 1) * width], norm)
    })
}

/// `u = act(gate) * up` for some rows.
fn gated(
    ops: Ops,
    act: Activation,
    layer: &Layer,
    rows: std::ops::Range<usize>,
    [gate_input, up_input]: [&Quantized; 2],
    scratch: &mut ThreadScratch,
    u: &mut ColsMut<'_, f32>,
) {
    let (n, first) = (gate_input.n(), rows.start);
    let ThreadScratch { product, gate, up, .. } = scratch;
    for block in layer.gate.blocks(rows) {
        let len = block.len();
        let mut gate = ColsMut::new(&mut gate[..n * len], n, len);
        let mut up = ColsMut::new(&mut up[..n * len], n, len);
        layer.gate.forward::<false>(ops, block.clone(), gate_input, product, &mut gate);
        layer.up.forward::<false>(ops, block.clone(), up_input, product, &mut up);
        for t in 0..n {
            let out = &mut u.row_mut(t)[block.start - first..block.end - first];
            match act {
                Activation::Relu2 => ops.relu2_mul(gate.row(t), up.row(t), out),
                Activation::Silu => ops.silu_mul(gate.row(t), up.row(t), out),
                Activation::GeluTanh => {
                    ops.gelu_mul_assign(gate.row(t), up.row_mut(t));
                    out.copy_from_slice(up.row(t));
                }
            }
        }
    }
}
