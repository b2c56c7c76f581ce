//! Accuracy of a model: intents, slots, utterances out of scope.

use std::collections::BTreeMap;

use super::batch::{Batch, Goal};
use super::data::Utterance;
use super::learner::{Guess, Learner};
use super::{Marked, typos};
use crate::encoder::{OosRule, OosScore};
use crate::train::Random;

/// How often a slot was right.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SlotCounts {
    /// Found at the right place, with all its words.
    pub right: usize,
    /// Found.
    pub found: usize,
    /// There.
    pub there: usize,
}

impl SlotCounts {
    /// The harmonic mean of precision and recall, 0 to 1; 1 if there is nothing to find and nothing was found.
    pub fn f1(self) -> f64 {
        let all = self.found + self.there;
        if all == 0 { 1.0 } else { 2.0 * self.right as f64 / all as f64 }
    }

    fn add(&mut self, other: Self) {
        self.right += other.right;
        self.found += other.found;
        self.there += other.there;
    }
}

/// Figures of a task over some utterances.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct TaskFigures {
    /// Utterances in scope.
    pub texts: usize,
    /// Utterances in scope with the right intent.
    pub intents: usize,
    /// Utterances in scope with the right intent and all slots right.
    pub whole: usize,
    /// Counts of each slot.
    pub slots: Vec<SlotCounts>,
    /// Counts of answers by expected intent (first) and found intent (second).
    pub confusion: BTreeMap<(usize, usize), usize>,
    /// The probability that an utterance in scope has a higher score than one that is not, by the task's score or the
    /// energy; `None` if all are of one kind.
    pub auroc: Option<f64>,
}

impl TaskFigures {
    /// The share of right intents.
    pub fn accuracy(&self) -> f64 {
        self.intents as f64 / self.texts.max(1) as f64
    }

    /// The share of utterances with everything right.
    pub fn all_right(&self) -> f64 {
        self.whole as f64 / self.texts.max(1) as f64
    }

    /// All slots together.
    pub fn slot_counts(&self) -> SlotCounts {
        let mut all = SlotCounts::default();
        self.slots.iter().for_each(|s| all.add(*s));
        all
    }
}

/// The model's answer for an utterance, with the right one.
#[derive(Clone, Debug)]
pub(super) struct Judged {
    guess: Guess,
    intent: Option<usize>,
    /// Right tags.
    tags: Vec<u16>,
}

/// Utterances with typing errors, each the same whenever it is asked for.
pub(super) fn misspelt(all: &[Utterance], seed: u64) -> Vec<Utterance> {
    let with = |u: &Utterance| {
        let mut u = u.clone();
        let mut random = Random::new(seed, &u.said.text());
        typos::of_any_script(&mut u.said, 0.2, &mut random);
        u
    };
    all.iter().map(with).collect()
}

/// Texts that are computed at once.
const AT_ONCE: usize = 128;

/// The answers of `learner` for utterances of `task`.
pub(super) fn judge(learner: &mut Learner, task: usize, utterances: &[Utterance]) -> Vec<Judged> {
    let mut batch = Batch::default();
    let mut all = Vec::with_capacity(utterances.len());
    for some in utterances.chunks(AT_ONCE) {
        batch.clear();
        let mut read = Vec::new();
        for u in some {
            let goal = u.intent.map_or(Goal::Outside, Goal::Intent);
            let said: &Marked = &u.said;
            if batch.push(said, &u.slots, (task, learner.config.features()), goal, &mut || false) {
                read.push(u);
            }
        }
        let guesses = learner.guess(&batch);
        for ((u, guess), text) in read.into_iter().zip(guesses).zip(&batch.all) {
            let tags = batch.tags[text.words.clone()].to_vec();
            all.push(Judged { guess, intent: u.intent, tags });
        }
    }
    all
}

/// The slots that the tags mark: slot, first word and the word after the last.
fn spans(tags: &[u16]) -> Vec<(usize, usize, usize)> {
    let mut spans: Vec<(usize, usize, usize)> = Vec::new();
    for (i, tag) in tags.iter().map(|t| usize::from(*t)).enumerate() {
        let slot = tag.wrapping_sub(1) / 2;
        match spans.last_mut() {
            Some(span) if tag > 0 && tag.is_multiple_of(2) && span.0 == slot && span.2 == i => span.2 = i + 1,
            _ if tag > 0 => spans.push((slot, i, i + 1)),
            _ => {}
        }
    }
    spans
}

/// Figures of a task with `slots` slots; `rule` and `temperature` are those of its configuration.
pub(super) fn figures(judged: &[Judged], slots: usize, rule: Option<OosRule>, temperature: f32) -> TaskFigures {
    let mut f = TaskFigures { slots: vec![SlotCounts::default(); slots], ..TaskFigures::default() };
    let score = rule.map_or(OosScore::Energy, |r| r.score);
    let (mut inside, mut outside) = (Vec::new(), Vec::new());
    for j in judged {
        let s = oos_score(score, &j.guess.logits, temperature);
        let Some(intent) = j.intent else {
            outside.push(s);
            continue;
        };
        inside.push(s);
        let said = j.guess.intent();
        f.texts += 1;
        f.intents += usize::from(said == intent);
        *f.confusion.entry((intent, said)).or_default() += 1;
        let (there, found) = (spans(&j.tags), spans(&j.guess.tags));
        let mut right = 0;
        there.iter().for_each(|s| f.slots[s.0].there += 1);
        for s in &found {
            let is_right = there.contains(s);
            f.slots[s.0].found += 1;
            f.slots[s.0].right += usize::from(is_right);
            right += usize::from(is_right);
        }
        f.whole += usize::from(said == intent && right == there.len() && right == found.len());
    }
    f.auroc = auroc(&inside, &outside);
    f
}

/// Score of a text; higher means more in scope.
fn oos_score(score: OosScore, logits: &[f32], temperature: f32) -> f32 {
    let most = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let sum: f32 = logits.iter().map(|z| ((z - most) / temperature).exp()).sum();
    match score {
        OosScore::Energy => most + temperature * sum.ln(),
        OosScore::MaxLogit => most,
        OosScore::MaxProbability => 1.0 / sum,
    }
}

/// The probability that one of `high` is above one of `low`, ties half; `None` without both.
pub fn auroc(high: &[f32], low: &[f32]) -> Option<f64> {
    if high.is_empty() || low.is_empty() {
        return None;
    }
    let mut all: Vec<(f32, bool)> = high.iter().map(|v| (*v, true)).chain(low.iter().map(|v| (*v, false))).collect();
    all.sort_by(|a, b| a.0.total_cmp(&b.0));
    let (mut below, mut sum) = (0usize, 0.0);
    for same in all.chunk_by(|a, b| a.0 == b.0) {
        let highs = same.iter().filter(|s| s.1).count();
        let lows = same.len() - highs;
        sum += highs as f64 * (below as f64 + lows as f64 / 2.0);
        below += lows;
    }
    Some(sum / (high.len() as f64 * low.len() as f64))
}

/// The temperature under which the right intents are the likeliest: of 61 between a quarter and four, evenly in their
/// logarithm; 1 without utterances in scope.
pub(super) fn temperature(judged: &[Judged]) -> f32 {
    let loss = |t: f32| -> f64 {
        let of = |j: &Judged| {
            let intent = j.intent?;
            let all = &j.guess.logits;
            Some(f64::from(oos_score(OosScore::Energy, all, t) - all[intent]) / f64::from(t))
        };
        judged.iter().filter_map(of).sum()
    };
    if judged.iter().all(|j| j.intent.is_none()) {
        return 1.0;
    }
    let candidates = (0..=60).map(|i| 4f32.powf((i - 30) as f32 / 30.0));
    candidates.fold((1.0, f64::MAX), |best, t| if loss(t) < best.1 { (t, loss(t)) } else { best }).0
}

/// The rule by which most is right: the score with the best [`auroc`], and a threshold. With `in_scope` it is the highest
/// one with which at least that share of the utterances in scope gets its right intent and is not taken as out of scope;
/// where there is none, and without it, the one with the best mean of two shares, that one and what is out of scope
/// taken as such. `None` without utterances of both kinds.
pub(super) fn oos_rule(judged: &[Judged], temperature: f32, in_scope: Option<f64>) -> Option<OosRule> {
    let scores = |score: OosScore| judged.iter().map(move |j| oos_score(score, &j.guess.logits, temperature));
    let parts = |score| {
        let (inside, outside): (Vec<_>, Vec<_>) = scores(score).zip(judged).partition(|(_, j)| j.intent.is_some());
        let only = |all: Vec<(f32, &Judged)>| all.into_iter().map(|(s, _)| s).collect::<Vec<f32>>();
        auroc(&only(inside), &only(outside))
    };
    let rated = OosScore::ALL.into_iter().filter_map(|s| Some((s, parts(s)?)));
    let (score, _) = rated.max_by(|a, b| a.1.total_cmp(&b.1))?;
    let mut all: Vec<(f32, Option<bool>)> =
        scores(score).zip(judged).map(|(s, j)| (s, j.intent.map(|i| i == j.guess.intent()))).collect();
    all.sort_by(|a, b| a.0.total_cmp(&b.0));
    let inside = all.iter().filter(|a| a.1.is_some()).count() as f64;
    let outside = all.len() as f64 - inside;
    let mut right = all.iter().filter(|a| a.1 == Some(true)).count() as f64;
    let mut caught = 0.0;
    let (mut best, mut asked) = ((f64::MIN, f32::MIN), None);
    for (i, (s, is)) in all.iter().enumerate() {
        let before = i.checked_sub(1).map_or(s - 1.0, |i| all[i].0);
        let balance = right / inside + caught / outside;
        let between = before + (s - before) / 2.0;
        if balance > best.0 && before < *s {
            best = (balance, between);
        }
        if before < *s && in_scope.is_some_and(|share| right / inside >= share) {
            asked = Some(between);
        }
        match is {
            Some(true) => right -= 1.0,
            Some(false) => {}
            None => caught += 1.0,
        }
    }
    Some(OosRule { score, threshold: asked.unwrap_or(best.1) }).filter(|r| r.threshold.is_finite())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn areas_are_shares_of_pairs() {
        assert_eq!(auroc(&[2.0, 3.0], &[0.0, 1.0]), Some(1.0));
        assert_eq!(auroc(&[1.0, 3.0], &[1.0, 2.0]), Some((0.5 + 0.0 + 1.0 + 1.0) / 4.0));
        assert_eq!((auroc(&[], &[1.0]), auroc(&[0.0; 3], &[0.0; 5])), (None, Some(0.5)));
    }

    #[test]
    fn tags_say_spans() {
        assert_eq!(spans(&[0, 1, 2, 1, 3, 0, 4]), [(0, 1, 3), (0, 3, 4), (1, 4, 5), (1, 6, 7)]);
        assert!(spans(&[]).is_empty());
    }

    fn judged(logits: [f32; 2], intent: Option<usize>) -> Judged {
        Judged { guess: Guess { logits: logits.to_vec(), tags: vec![] }, intent, tags: vec![] }
    }

    #[test]
    fn a_threshold_keeps_what_it_is_asked_to_keep() {
        // In scope: right at 4, 3 and 2, wrong at 1; out of scope at 3.5 and 0.
        let mut all: Vec<Judged> = [4.0, 3.0, 2.0].map(|z| judged([z, -9.0], Some(0))).into();
        all.extend([judged([1.0, -9.0], Some(1)), judged([3.5, -9.0], None), judged([0.0, -9.0], None)]);
        let kept = |share| {
            let rule = oos_rule(&all, 1.0, share).unwrap();
            let score = |j: &&Judged| oos_score(rule.score, &j.guess.logits, 1.0) >= rule.threshold;
            let of = |out: bool| all.iter().filter(|j| j.intent.is_none() == out).filter(score).count();
            (of(false), of(true))
        };
        assert_eq!([kept(Some(0.75)), kept(Some(0.5)), kept(Some(0.25))], [(3, 1), (2, 1), (1, 0)]);
        // More than there is: as without, where the best threshold lies below what is wrong anyway.
        assert_eq!((kept(Some(0.9)), kept(None)), ((4, 1), (4, 1)));
    }

    #[test]
    fn thresholds_part_what_is_in_scope() {
        let mut all = vec![judged([4.0, 0.0], Some(0)), judged([0.0, 3.0], Some(1)), judged([0.5, 0.4], None)];
        let rule = oos_rule(&all, 1.0, None).unwrap();
        let score = |z: [f32; 2]| oos_score(rule.score, &z, 1.0);
        assert!(score([0.5, 0.4]) < rule.threshold && rule.threshold < score([0.0, 3.0]), "{rule:?}");
        let f = figures(&all, 0, Some(rule), 1.0);
        assert_eq!((f.texts, f.intents, f.whole, f.auroc), (2, 2, 2, Some(1.0)));
        all.pop();
        assert_eq!(oos_rule(&all, 1.0, None), None);
        // Always right: the sharper the better. Right as often as not, and sure: the flatter the better.
        assert!(temperature(&all) < 0.3);
        assert!(temperature(&[judged([9.0, 0.0], Some(0)), judged([9.0, 0.0], Some(1))]) > 3.9);
        assert_eq!(temperature(&[]), 1.0);
    }
}
