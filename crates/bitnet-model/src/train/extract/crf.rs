//! The loss of a chain of tags: a linear-chain conditional random field (Lafferty, McCallum, Pereira 2001).
//!
//! The score of tags `y` of `n` words is `start(y_1) + sum_t emission(t, y_t) + sum_t transition(y_t, y_{t+1}) +
//! end(y_n)`, the loss `ln sum_y exp(score(y)) - score(gold)`. Sums over all sequences are the forward and backward
//! recursion. They run in f64 on probabilities that are divided by their sum after each word, whose logarithms add up
//! to the logarithm of the whole sum: with the largest emission of a word taken off first nothing overflows, and what
//! underflows is below `e^-700` of the rest. So an exponential is taken once for a word and a tag, not for a pair of
//! tags.

use crate::encoder::tag_may_follow;

/// Buffers of [`Crf::loss`], and the expected transitions of a batch.
#[derive(Debug, Default)]
pub(super) struct Crf {
    tags: usize,
    /// `exp(transition)`, `[from, to]`; 0 if it is forbidden.
    weight: Vec<f64>,
    /// `exp` of the transitions to the first and from the last tag.
    start: Vec<f64>,
    end: Vec<f64>,
    /// Results of the forward pass for each word, `[n, tags]`, and their divisors.
    alpha: Vec<f64>,
    sums: Vec<f64>,
    /// `exp(emission - largest)`, `[n, tags]`.
    emitted: Vec<f64>,
    beta: Vec<f64>,
    right: Vec<f64>,
    /// `sum alpha(from) right(to)` of all pairs of words since [`Crf::begin`], `[from, to]`.
    pairs: Vec<f64>,
}

impl Crf {
    /// Takes the scores of transitions of a task, `[tags + 2, tags]`: `[from, to]`, then first tags, then last ones.
    pub(super) fn begin(&mut self, transitions: &[f32], tags: usize) {
        self.tags = tags;
        let exp = |v: &f32| f64::from(*v).exp();
        self.weight.clear();
        for (from, row) in transitions.chunks_exact(tags).take(tags).enumerate() {
            self.weight.extend(
                row.iter().enumerate().map(|(to, v)| if tag_may_follow(Some(from), to) { exp(v) } else { 0.0 }),
            );
        }
        let start = &transitions[tags * tags..][..tags];
        self.start.clear();
        self.start.extend(start.iter().enumerate().map(|(to, v)| if tag_may_follow(None, to) { exp(v) } else { 0.0 }));
        self.end.clear();
        self.end.extend(transitions[tags * (tags + 1)..].iter().map(exp));
        self.pairs.clear();
        self.pairs.resize(tags * tags, 0.0);
    }

    /// The loss of one text: `emissions` `[n, tags]` and the right tags, of which there is at least one and which are
    /// allowed. Leaves `scale` times the gradient in `emissions` and adds that of first and last tags to `d`
    /// `[tags + 2, tags]`; that of the transitions between comes with [`Crf::finish`].
    pub(super) fn loss(
        &mut self,
        transitions: &[f32],
        emissions: &mut [f32],
        gold: &[u16],
        scale: f32,
        d: &mut [f32],
    ) -> f64 {
        let (tags, n) = (self.tags, gold.len());
        let mut log_sum = self.forward(emissions, n);
        let last = &self.alpha[(n - 1) * tags..];
        let total: f64 = last.iter().zip(&self.end).map(|(a, e)| a * e).sum();
        log_sum += total.ln();

        let mut score = f64::from(transitions[tags * tags + usize::from(gold[0])]);
        score += f64::from(transitions[tags * (tags + 1) + usize::from(gold[n - 1])]);
        for (t, tag) in gold.iter().enumerate() {
            score += f64::from(emissions[t * tags + usize::from(*tag)]);
        }
        for pair in gold.windows(2) {
            score += f64::from(transitions[usize::from(pair[0]) * tags + usize::from(pair[1])]);
        }

        self.beta.clear();
        self.beta.extend(self.end.iter().map(|e| e / total));
        self.right.resize(tags, 0.0);
        for t in (0..n).rev() {
            let alpha = &self.alpha[t * tags..][..tags];
            let row = &mut emissions[t * tags..][..tags];
            for ((e, a), b) in row.iter_mut().zip(alpha).zip(&self.beta) {
                *e = scale * (a * b) as f32;
            }
            if t == 0 {
                for (d, e) in d[tags * tags..].iter_mut().zip(&*row) {
                    *d += e;
                }
            }
            if t == n - 1 {
                for (d, e) in d[tags * (tags + 1)..].iter_mut().zip(&*row) {
                    *d += e;
                }
            }
            row[usize::from(gold[t])] -= scale;
            if t > 0 {
                let emitted = &self.emitted[t * tags..][..tags];
                for ((r, e), b) in self.right.iter_mut().zip(emitted).zip(&self.beta) {
                    *r = e * b / self.sums[t];
                }
                let before = &self.alpha[(t - 1) * tags..][..tags];
                let rows = self.weight.chunks_exact(tags).zip(self.pairs.chunks_exact_mut(tags));
                for (((weight, pairs), a), beta) in rows.zip(before).zip(&mut self.beta) {
                    let a = a * f64::from(scale);
                    let mut sum = 0.0;
                    for ((w, p), r) in weight.iter().zip(pairs).zip(&self.right) {
                        sum += w * r;
                        *p += a * r;
                    }
                    *beta = sum;
                }
            }
        }
        d[tags * tags + usize::from(gold[0])] -= scale;
        d[tags * (tags + 1) + usize::from(gold[n - 1])] -= scale;
        for pair in gold.windows(2) {
            d[usize::from(pair[0]) * tags + usize::from(pair[1])] -= scale;
        }
        log_sum - score
    }

    /// Fills `alpha`, `sums` and `emitted`; returns the logarithm of the product of all divisors.
    fn forward(&mut self, emissions: &[f32], n: usize) -> f64 {
        let tags = self.tags;
        for buffer in [&mut self.alpha, &mut self.emitted] {
            buffer.clear();
            buffer.resize(n * tags, 0.0);
        }
        self.sums.clear();
        let mut log_sum = 0.0;
        for (t, row) in emissions.chunks_exact(tags).take(n).enumerate() {
            let most = row.iter().copied().fold(f32::NEG_INFINITY, f32::max);
            let emitted = &mut self.emitted[t * tags..][..tags];
            for (e, v) in emitted.iter_mut().zip(row) {
                *e = (f64::from(*v) - f64::from(most)).exp();
            }
            let (before, here) = self.alpha.split_at_mut(t * tags);
            let here = &mut here[..tags];
            match before.len().checked_sub(tags) {
                None => here.copy_from_slice(&self.start),
                Some(at) => {
                    for (a, weight) in before[at..].iter().zip(self.weight.chunks_exact(tags)) {
                        for (h, w) in here.iter_mut().zip(weight) {
                            *h += a * w;
                        }
                    }
                }
            }
            here.iter_mut().zip(&*emitted).for_each(|(h, e)| *h *= e);
            let sum: f64 = here.iter().sum();
            here.iter_mut().for_each(|h| *h /= sum);
            self.sums.push(sum);
            log_sum += sum.ln() + f64::from(most);
        }
        log_sum
    }

    /// Adds the gradient of transitions between two words of all texts since [`Crf::begin`], less what [`Crf::loss`]
    /// has taken off for the right ones.
    pub(super) fn finish(&self, d: &mut [f32]) {
        for ((d, p), w) in d.iter_mut().zip(&self.pairs).zip(&self.weight) {
            *d += (p * w) as f32;
        }
    }
}

/// The best tags of a text and their score: the highest one over all that are allowed (Viterbi), for `emissions`
/// `[n, tags]`.
pub(super) fn best(transitions: &[f32], emissions: &[f32], tags: usize) -> (f32, Vec<u16>) {
    let n = emissions.len() / tags;
    let mut score = vec![f32::NEG_INFINITY; tags];
    let mut from = vec![0u16; n * tags];
    let mut next = score.clone();
    for (t, row) in emissions.chunks_exact(tags).enumerate() {
        for to in 0..tags {
            let (mut best, mut at) = (f32::NEG_INFINITY, 0);
            if t == 0 {
                if tag_may_follow(None, to) {
                    best = transitions[tags * tags + to];
                }
            } else if to != 0 && to.is_multiple_of(2) {
                for f in [to - 1, to] {
                    let s = score[f] + transitions[f * tags + to];
                    if s > best {
                        (best, at) = (s, f);
                    }
                }
            } else {
                for (f, s) in score.iter().enumerate() {
                    let s = s + transitions[f * tags + to];
                    if s > best {
                        (best, at) = (s, f);
                    }
                }
            }
            next[to] = best + row[to];
            from[t * tags + to] = at as u16;
        }
        std::mem::swap(&mut score, &mut next);
    }
    let end = &transitions[tags * (tags + 1)..];
    let mut best = (0..tags).fold(0, |b, t| if score[t] + end[t] > score[b] + end[b] { t } else { b });
    let (mut path, sum) = (vec![0; n], score[best] + end[best]);
    for t in (0..n).rev() {
        path[t] = best as u16;
        best = usize::from(from[t * tags + best]);
    }
    (sum, path)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::train::Random;

    /// The score of a sequence, or `None` if it is forbidden.
    fn score(transitions: &[f64], emissions: &[f64], tags: usize, y: &[usize]) -> Option<f64> {
        let mut s = transitions[tags * tags + y[0]] + transitions[tags * (tags + 1) + y[y.len() - 1]];
        for (t, tag) in y.iter().enumerate() {
            tag_may_follow(t.checked_sub(1).map(|t| y[t]), *tag).then_some(())?;
            s += emissions[t * tags + tag];
        }
        s += y.windows(2).map(|p| transitions[p[0] * tags + p[1]]).sum::<f64>();
        Some(s)
    }

    /// All sequences of `n` tags.
    fn all(n: usize, tags: usize) -> impl Iterator<Item = Vec<usize>> {
        (0..tags.pow(n as u32)).map(move |i| (0..n).map(|t| i / tags.pow(t as u32) % tags).collect())
    }

    fn brute(transitions: &[f64], emissions: &[f64], tags: usize, gold: &[usize]) -> f64 {
        let sum: f64 =
            all(gold.len(), tags).filter_map(|y| score(transitions, emissions, tags, &y)).map(f64::exp).sum();
        sum.ln() - score(transitions, emissions, tags, gold).unwrap()
    }

    #[test]
    fn loss_and_gradient_are_those_of_the_sum_over_all_sequences() {
        let tags = 5;
        for (seed, gold) in
            [(1, vec![0u16]), (2, vec![1, 2]), (3, vec![1, 2, 0, 3]), (4, vec![0, 3, 4, 4]), (5, vec![1, 1, 3])]
        {
            let mut random = Random::new(seed, "crf");
            let mut draw = |n: usize| (0..n).map(|_| (2.0 * random.normal()) as f32).collect::<Vec<f32>>();
            let (transitions, emissions) = (draw((tags + 2) * tags), draw(gold.len() * tags));
            let wide = |v: &[f32]| v.iter().map(|v| f64::from(*v)).collect::<Vec<f64>>();
            let (mut wt, mut we) = (wide(&transitions), wide(&emissions));
            let y: Vec<usize> = gold.iter().map(|t| usize::from(*t)).collect();
            let mut crf = Crf::default();
            let (mut de, mut dt) = (emissions.clone(), vec![0.0; transitions.len()]);
            crf.begin(&transitions, tags);
            let loss = crf.loss(&transitions, &mut de, &gold, 1.0, &mut dt);
            crf.finish(&mut dt);
            let right = brute(&wt, &we, tags, &y);
            // Both are computed in f64 from the same numbers, of a few tens.
            assert!((loss - right).abs() < 1e-10, "{loss} {right}");
            // Central differences with a step of 1e-5 are wrong by about 1e-10; the gradient is f32 and at most 4.
            let step = 1e-5;
            for i in 0..we.len() {
                let mut at = |v: f64| {
                    we[i] += v;
                    let l = brute(&wt, &we, tags, &y);
                    we[i] -= v;
                    l
                };
                let slope = (at(step) - at(-step)) / (2.0 * step);
                assert!((slope - f64::from(de[i])).abs() < 1e-6, "emission {i}: {slope} {}", de[i]);
            }
            for i in 0..wt.len() {
                let mut at = |v: f64| {
                    wt[i] += v;
                    let l = brute(&wt, &we, tags, &y);
                    wt[i] -= v;
                    l
                };
                let slope = (at(step) - at(-step)) / (2.0 * step);
                assert!((slope - f64::from(dt[i])).abs() < 1e-6, "transition {i}: {slope} {}", dt[i]);
            }
            // The best sequence is the best of all.
            let (wt, we) = (wide(&transitions), wide(&emissions));
            let of = |y: &Vec<usize>| score(&wt, &we, tags, y).unwrap_or(f64::NEG_INFINITY);
            let most = all(gold.len(), tags).max_by(|a, b| of(a).total_cmp(&of(b))).unwrap();
            let found: Vec<usize> = best(&transitions, &emissions, tags).1.into_iter().map(usize::from).collect();
            assert_eq!(found, most);
        }
    }

    #[test]
    fn large_scores_do_not_overflow() {
        let tags = 3;
        let transitions = vec![0.0; (tags + 2) * tags];
        let mut emissions = vec![500.0, -500.0, 0.0, -500.0, 500.0, 500.0];
        let (mut crf, mut d) = (Crf::default(), vec![0.0; transitions.len()]);
        crf.begin(&transitions, tags);
        let loss = crf.loss(&transitions, &mut emissions, &[1, 2], 1.0, &mut d);
        // O, B scores 1000; B, I, which is right, and all others 0.
        assert!((loss - 1000.0).abs() < 1e-6 && emissions.iter().chain(&d).all(|v| v.is_finite()), "{loss}");
    }
}
