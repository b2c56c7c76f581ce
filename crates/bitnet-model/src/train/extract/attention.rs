//! Attention over the words of a text, in both directions or with a causal mask, and its gradient. Texts have a dozen
//! words, so plain loops over heads of a few dozen numbers do it.

use crate::encoder::Directions;

/// Heads of attention.
#[derive(Clone, Copy, Debug)]
pub(super) struct Heads {
    pub(super) heads: usize,
    /// Width of a head, even.
    pub(super) d: usize,
    pub(super) directions: Directions,
}

/// Cosines and sines of the rotary embedding, `[words, d / 2]`.
#[derive(Clone, Debug)]
pub(super) struct Rotations {
    cos: Vec<f32>,
    sin: Vec<f32>,
    half: usize,
}

impl Rotations {
    /// For `words` positions of heads of width `d`; angles in f64, rounded once.
    pub(super) fn new(words: usize, d: usize, theta: f64) -> Self {
        let half = d / 2;
        let angle = |p: usize, i: usize| p as f64 * theta.powf(-((2 * i) as f64) / d as f64);
        let all = || (0..words).flat_map(|p| (0..half).map(move |i| angle(p, i)));
        Self { cos: all().map(|a| a.cos() as f32).collect(), sin: all().map(|a| a.sin() as f32).collect(), half }
    }

    /// Turns the heads of one row of queries or keys at position `p`; `back` is the transpose, which turns gradients.
    pub(super) fn turn(&self, row: &mut [f32], p: usize, back: bool) {
        let (cos, sin) = (&self.cos[p * self.half..][..self.half], &self.sin[p * self.half..][..self.half]);
        let sign = if back { -1.0 } else { 1.0 };
        for head in row.chunks_exact_mut(2 * self.half) {
            let (a, b) = head.split_at_mut(self.half);
            for (((a, b), cos), sin) in a.iter_mut().zip(b).zip(cos).zip(sin) {
                let sin = sign * sin;
                (*a, *b) = (*a * cos - *b * sin, *b * cos + *a * sin);
            }
        }
    }
}

fn dot(a: &[f32], b: &[f32]) -> f32 {
    // Eight sums, so that they can be computed side by side.
    let (x, xs) = a.as_chunks::<8>();
    let (y, ys) = b.as_chunks::<8>();
    let mut sums = [0.0f32; 8];
    for (x, y) in x.iter().zip(y) {
        for i in 0..8 {
            sums[i] += x[i] * y[i];
        }
    }
    sums.iter().sum::<f32>() + xs.iter().zip(ys).map(|(a, b)| a * b).sum::<f32>()
}

fn axpy(a: f32, x: &[f32], y: &mut [f32]) {
    for (y, x) in y.iter_mut().zip(x) {
        *y += a * x;
    }
}

impl Heads {
    fn hidden(self) -> usize {
        self.heads * self.d
    }

    /// Attention of one text: `qkv` `[n, 3 hidden]`, rotated already. Writes `out` `[n, hidden]` and appends the
    /// probabilities `[heads, n, n]` to `probs`: 0 where a word does not see another one, so that the gradient is, too.
    pub(super) fn forward(self, qkv: &[f32], out: &mut [f32], probs: &mut Vec<f32>) {
        let (hidden, d) = (self.hidden(), self.d);
        let n = out.len() / hidden;
        let scale = 1.0 / (d as f32).sqrt();
        out.fill(0.0);
        for h in 0..self.heads {
            let part = |row: usize, which: usize| &qkv[row * 3 * hidden + which * hidden + h * d..][..d];
            for i in 0..n {
                let at = probs.len();
                let q = part(i, 0);
                let seen = self.directions.seen(i, n);
                probs.extend((0..seen).map(|j| dot(q, part(j, 1)) * scale));
                let p = &mut probs[at..];
                let most = p.iter().copied().fold(f32::NEG_INFINITY, f32::max);
                p.iter_mut().for_each(|p| *p = (*p - most).exp());
                let sum: f32 = p.iter().sum();
                p.iter_mut().for_each(|p| *p /= sum);
                let out = &mut out[i * hidden + h * d..][..d];
                for (j, p) in p.iter().enumerate() {
                    axpy(*p, part(j, 2), out);
                }
                probs.resize(at + n, 0.0);
            }
        }
    }

    /// Its gradient: from `dout` `[n, hidden]` to `dqkv` `[n, 3 hidden]`, which is written; `probs` are those of this
    /// text.
    pub(super) fn backward(self, qkv: &[f32], probs: &[f32], dout: &[f32], dqkv: &mut [f32]) {
        let (hidden, d) = (self.hidden(), self.d);
        let n = dout.len() / hidden;
        let scale = 1.0 / (d as f32).sqrt();
        dqkv.fill(0.0);
        let mut ds = vec![0.0f32; n];
        for h in 0..self.heads {
            let place = |row: usize, which: usize| row * 3 * hidden + which * hidden + h * d;
            for i in 0..n {
                let p = &probs[(h * n + i) * n..][..n];
                let dout = &dout[i * hidden + h * d..][..d];
                let mut mean = 0.0;
                for ((j, ds), p) in ds.iter_mut().enumerate().zip(p) {
                    *ds = dot(dout, &qkv[place(j, 2)..][..d]);
                    mean += *ds * p;
                    axpy(*p, dout, &mut dqkv[place(j, 2)..][..d]);
                }
                for ((j, ds), p) in ds.iter().enumerate().zip(p) {
                    let g = p * (ds - mean) * scale;
                    axpy(g, &qkv[place(j, 1)..][..d], &mut dqkv[place(i, 0)..][..d]);
                    axpy(g, &qkv[place(i, 0)..][..d], &mut dqkv[place(j, 1)..][..d]);
                }
            }
        }
    }
}
