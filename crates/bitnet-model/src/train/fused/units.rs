//! The texts that a worker works on at once.

use crate::train::Batch;

/// Some texts of a batch, one after the other.
#[derive(Debug, Default)]
pub(super) struct Unit {
    /// The tokens to predict from, `[n]`.
    pub(super) ids: Vec<u32>,
    /// The token that each of them predicts; `None` if that is given.
    pub(super) targets: Vec<Option<u32>>,
    /// Tokens of each text, `n` in all.
    pub(super) texts: Vec<usize>,
}

/// The texts of a batch in their order, as many together as fit into `room` tokens, or one that does not. Windows that
/// hold documents are cut between these, however long they are.
pub(super) fn units(batch: &Batch, room: usize) -> Vec<Unit> {
    let mut units: Vec<Unit> = Vec::new();
    for i in 0..batch.b {
        let targets: Vec<Option<u32>> = batch.targets(i).collect();
        let mut end = 0;
        for len in batch.texts(i) {
            let at = end..end + len;
            end = at.end;
            if units.last().is_none_or(|unit| unit.ids.len() + len > room) {
                units.push(Unit::default());
            }
            if let Some(unit) = units.last_mut() {
                unit.ids.extend_from_slice(&batch.window(i)[at.clone()]);
                unit.targets.extend_from_slice(&targets[at]);
                unit.texts.push(len);
            }
        }
    }
    units
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn units_are_filled_with_texts() {
        let lens = |batch: &Batch, room| units(batch, room).into_iter().map(|u| u.texts).collect::<Vec<_>>();
        let ids: Vec<u32> = (0..22).map(|i| u32::from(i % 5 != 4)).collect();
        let batch = Batch::new(ids, 2, 10).unwrap();
        assert_eq!(lens(&batch, 9), [[10], [10]]);
        assert_eq!(lens(&batch, 20), [[10, 10]]);
        let apart = batch.apart(0);
        assert_eq!(lens(&apart, 9), [vec![5], vec![5, 4], vec![5, 1]]);
        let all = units(&apart, 9);
        assert_eq!(
            (&all[1].ids[..], all[1].targets[4]),
            (&apart.ids[5..10].iter().chain(&apart.ids[11..15]).copied().collect::<Vec<_>>()[..], None)
        );
    }
}
