//! Heads of tasks while they are trained: intents by cross entropy, tags by the loss of a chain.
//!
//! If a task has texts out of scope, they are one more class whose logit is always 0. The sum `ln sum exp(z)` of the
//! other logits is then the logarithm of the odds that a text is in scope: the energy that inference compares with a
//! threshold is trained to be just that.

use ternary_kernels::ops::Strided;

use super::batch::{Batch, Goal};
use super::crf::Crf;
use super::losses::{disagreement, intent_loss};
use super::net::Net;
use super::params::Places;
use crate::train::Random;

/// Weights of the losses, and the dropout.
#[derive(Clone, Copy, Debug)]
pub(super) struct Weights {
    /// Weight of the loss of tags relative to that of intents.
    pub(super) tags: f32,
    /// Probability that goes to all intents alike.
    pub(super) smoothing: f32,
    /// Share of the inputs of heads that is left out.
    pub(super) dropout: f32,
    /// Share of the elements of word vectors that is left out.
    pub(super) word_dropout: f32,
    /// Of the divergence of two versions of one text.
    pub(super) agreement: f32,
    /// How much of what is right is what teachers say.
    pub(super) taught: f32,
    /// Whether scores of transitions between tags are learned.
    pub(super) transitions: bool,
}

/// Losses, summed over texts.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Loss {
    pub(super) intent: f64,
    pub(super) tags: f64,
    pub(super) texts: usize,
}

impl Loss {
    /// Adds that of other texts.
    pub(super) fn add(&mut self, other: Self) {
        self.intent += other.intent;
        self.tags += other.tags;
        self.texts += other.texts;
    }

    /// The minimised loss, per text.
    pub(super) fn mean(self, tags: f32) -> f64 {
        (self.intent + f64::from(tags) * self.tags) / self.texts.max(1) as f64
    }
}

/// Buffers of the heads.
#[derive(Debug, Default)]
pub(super) struct HeadRoom {
    crf: Crf,
    x: Vec<f32>,
    mask: Vec<f32>,
    y: Vec<f32>,
    dx: Vec<f32>,
    /// Gradients of what twins disagree about, `[texts, intents]`.
    apart: Vec<f32>,
    /// For each text and column the word whose value is the largest.
    largest: Vec<u32>,
}

impl HeadRoom {
    /// Inputs of the intent head of these texts, `[texts, 3 hidden]`: mean and largest of `h`, mean of `e`.
    fn pool(&mut self, net: &Net, batch: &Batch, texts: &[usize], hidden: usize) {
        self.x.clear();
        self.largest.clear();
        for text in texts {
            let words = batch.all[*text].words.clone();
            let at = self.x.len();
            self.x.resize(at + 3 * hidden, 0.0);
            let (mean, rest) = self.x[at..].split_at_mut(hidden);
            let (most, e) = rest.split_at_mut(hidden);
            most.copy_from_slice(&net.h[words.start * hidden..][..hidden]);
            let first = self.largest.len();
            self.largest.resize(first + hidden, words.start as u32);
            let largest = &mut self.largest[first..];
            for w in words.clone() {
                let h = &net.h[w * hidden..][..hidden];
                net.ops.add_assign(mean, h);
                net.ops.add_assign(e, &net.e[w * hidden..][..hidden]);
                for ((m, l), h) in most.iter_mut().zip(&mut *largest).zip(h) {
                    if h > m {
                        (*m, *l) = (*h, w as u32);
                    }
                }
            }
            let share = 1.0 / words.len() as f32;
            net.ops.scale(share, mean);
            net.ops.scale(share, e);
        }
    }

    /// Leaves out a share of the inputs, and makes the others so much larger.
    fn drop(&mut self, share: f32, random: Option<&mut Random>) {
        mask(&mut self.mask, self.x.len(), share, random);
        self.x.iter_mut().zip(&self.mask).for_each(|(x, m)| *x *= m);
    }

    /// `y = x w^T + bias`, `[n, out]`.
    fn affine(&mut self, net: &mut Net, n: usize, w: &[f32], bias: &[f32]) {
        let (out, k) = (bias.len(), w.len() / bias.len());
        self.y.clear();
        for _ in 0..n {
            self.y.extend_from_slice(bias);
        }
        let (a, b) = (Strided::rows(&self.x, k), Strided::rows(w, k).t());
        net.ops.gemm_add(a, b, [n, out, k], &mut self.y, &mut net.room.gemm);
    }

    /// Gradient of [`HeadRoom::affine`] for `dy` in `y`, with the same features left out.
    fn affine_backward(&mut self, net: &mut Net, n: usize, w: &[f32], [dw, dbias]: [&mut [f32]; 2]) {
        let (out, k) = (dbias.len(), w.len() / dbias.len());
        let dy = Strided::rows(&self.y, out);
        net.ops.gemm_add(dy.t(), Strided::rows(&self.x, k), [out, k, n], dw, &mut net.room.gemm);
        for dy in self.y.chunks_exact(out) {
            net.ops.add_assign(dbias, dy);
        }
        self.dx.resize(n * k, 0.0);
        net.ops.gemm(dy, Strided::rows(w, k), [n, k, out], &mut self.dx, &mut net.room.gemm);
        if !self.mask.is_empty() {
            self.dx.iter_mut().zip(&self.mask).for_each(|(d, m)| *d *= m);
        }
    }

    /// Logits of the intents of these texts of one task, `[texts, intents]`.
    pub(super) fn intents(
        &mut self,
        net: &mut Net,
        values: &[f32],
        places: &Places,
        batch: &Batch,
        task: usize,
        texts: &[usize],
    ) -> &[f32] {
        let hidden = net.h.len() / batch.words().max(1);
        self.pool(net, batch, texts, hidden);
        let p = &places.tasks[task];
        self.affine(net, texts.len(), &values[p.intent.clone()], &values[p.intent_bias.clone()]);
        &self.y
    }

    /// Scores of the tags of the words of these texts of one task, `[words, tags]`; nothing without slots.
    pub(super) fn tags(
        &mut self,
        net: &mut Net,
        values: &[f32],
        places: &Places,
        batch: &Batch,
        task: usize,
        texts: &[usize],
    ) -> &[f32] {
        let Some([w, bias, _]) = &places.tasks[task].tags else { return &[] };
        let hidden = net.h.len() / batch.words().max(1);
        let n = self.word_inputs(net, batch, texts, hidden);
        self.affine(net, n, &values[w.clone()], &values[bias.clone()]);
        &self.y
    }

    /// Inputs of the tag head, `[words, 2 hidden]`; returns the number of words.
    fn word_inputs(&mut self, net: &Net, batch: &Batch, texts: &[usize], hidden: usize) -> usize {
        self.x.clear();
        for w in texts.iter().flat_map(|t| batch.all[*t].words.clone()) {
            self.x.extend_from_slice(&net.h[w * hidden..][..hidden]);
            self.x.extend_from_slice(&net.e[w * hidden..][..hidden]);
        }
        self.x.len() / (2 * hidden)
    }

    /// Losses of a part of a batch of `texts` texts, and their gradients: of heads into `grads`, of `h` and `e` into the
    /// net. Without `random` nothing is left out.
    #[expect(clippy::too_many_arguments, reason = "parameters, places, batch and what to do with them")]
    pub(super) fn learn(
        &mut self,
        net: &mut Net,
        values: &[f32],
        places: &Places,
        batch: &Batch,
        outside: &[bool],
        (weights, texts): (Weights, usize),
        mut random: Option<&mut Random>,
        grads: &mut [f32],
    ) -> Loss {
        net.clear_gradients(batch);
        let hidden = net.h.len() / batch.words().max(1);
        let mut loss = Loss { texts: batch.all.len(), ..Loss::default() };
        let scale = 1.0 / texts.max(1) as f32;
        for (task, place) in places.tasks.iter().enumerate() {
            let texts: Vec<usize> = (0..batch.all.len()).filter(|t| batch.all[*t].task == task).collect();
            if texts.is_empty() {
                continue;
            }
            self.pool(net, batch, &texts, hidden);
            self.drop(weights.dropout, random.as_deref_mut());
            let (w, b) = (&values[place.intent.clone()], &values[place.intent_bias.clone()]);
            self.affine(net, texts.len(), w, b);
            let k = b.len();
            self.apart.clear();
            self.apart.resize(self.y.len(), 0.0);
            if weights.agreement > 0.0 {
                for (i, _) in texts.iter().enumerate().skip(1).filter(|(_, t)| batch.all[**t].twin) {
                    let both = &self.y[(i - 1) * k..(i + 1) * k];
                    let d = &mut self.apart[(i - 1) * k..(i + 1) * k];
                    let apart = disagreement(both, outside[task], weights.agreement * scale, d);
                    loss.intent += f64::from(weights.agreement * apart);
                }
            }
            for (text, logits) in texts.iter().zip(self.y.chunks_exact_mut(k)) {
                let goal = batch.all[*text].goal;
                let taught = batch.taught.get(*text).filter(|t| !t.is_empty()).map(|t| (t.as_slice(), weights.taught));
                loss.intent += f64::from(intent_loss(logits, goal, taught, outside[task], weights.smoothing, scale));
            }
            net.ops.add_assign(&mut self.y, &self.apart);
            let [dw, db] = two(grads, &place.intent, &place.intent_bias);
            self.affine_backward(net, texts.len(), w, [dw, db]);
            for ((text, d), largest) in
                texts.iter().zip(self.dx.chunks_exact(3 * hidden)).zip(self.largest.chunks_exact(hidden))
            {
                let words = batch.all[*text].words.clone();
                let share = 1.0 / words.len() as f32;
                for word in words {
                    net.ops.axpy(share, &d[..hidden], &mut net.dh[word * hidden..][..hidden]);
                    net.ops.axpy(share, &d[2 * hidden..], &mut net.de[word * hidden..][..hidden]);
                }
                for ((i, d), word) in d[hidden..2 * hidden].iter().enumerate().zip(largest) {
                    net.dh[*word as usize * hidden + i] += d;
                }
            }

            let Some([tw, tb, tt]) = &place.tags else { continue };
            let n = self.word_inputs(net, batch, &texts, hidden);
            self.drop(weights.dropout, random.as_deref_mut());
            let (w, b, transitions) = (&values[tw.clone()], &values[tb.clone()], &values[tt.clone()]);
            self.affine(net, n, w, b);
            self.crf.begin(transitions, b.len());
            let mut at = 0;
            for text in &texts {
                let t = &batch.all[*text];
                let emissions = &mut self.y[at * b.len()..][..t.words.len() * b.len()];
                at += t.words.len();
                // A text out of scope has no slots, or none that matter.
                if t.goal == Goal::Outside {
                    emissions.fill(0.0);
                    continue;
                }
                let d = &mut grads[tt.clone()];
                loss.tags +=
                    self.crf.loss(transitions, emissions, &batch.tags[t.words.clone()], weights.tags * scale, d);
            }
            self.crf.finish(&mut grads[tt.clone()]);
            if !weights.transitions {
                grads[tt.clone()].fill(0.0);
            }
            let [dw, db] = two(grads, tw, tb);
            self.affine_backward(net, n, w, [dw, db]);
            let words = texts.iter().flat_map(|t| batch.all[*t].words.clone());
            for (word, d) in words.zip(self.dx.chunks_exact(2 * hidden)) {
                net.ops.add_assign(&mut net.dh[word * hidden..][..hidden], &d[..hidden]);
                net.ops.add_assign(&mut net.de[word * hidden..][..hidden], &d[hidden..]);
            }
        }
        loss
    }
}

/// Two tensors that are stored one after the other.
fn two<'g>(grads: &'g mut [f32], a: &std::ops::Range<usize>, b: &std::ops::Range<usize>) -> [&'g mut [f32]; 2] {
    let (left, right) = grads[a.start..b.end].split_at_mut(b.start - a.start);
    [&mut left[..a.len()], right]
}

/// The factors of elements: 0 for a share of them, a larger one for the others in turn; nothing without `random`.
pub(super) fn mask(mask: &mut Vec<f32>, len: usize, share: f32, random: Option<&mut Random>) {
    mask.clear();
    let (Some(random), true) = (random, share > 0.0) else { return };
    let limit = (f64::from(share) * 65536.0) as u64;
    let keep = 1.0 / (1.0 - limit as f32 / 65536.0);
    mask.resize(len, 0.0);
    for four in mask.chunks_mut(4) {
        let bits = random.next_u64();
        for (i, m) in four.iter_mut().enumerate() {
            *m = if (bits >> (16 * i)) & 0xffff < limit { 0.0 } else { keep };
        }
    }
}
