//! The maximum depth of a recursion over definitions that name each other, for any order of visits.

/// A definition: its own number of levels, and the definitions that it names.
#[derive(Debug, Default)]
pub(super) struct Node {
    pub(super) levels: u64,
    pub(super) names: Vec<usize>,
}

/// An upper bound for the levels of a walk that enters each definition at most once at a time. Exact if nothing is
/// recursive; definitions that are part of a recursion, or between two, count as if one walk could go through all of
/// them.
pub(super) fn deepest(nodes: &[Node]) -> u64 {
    let mut named_by = vec![Vec::new(); nodes.len()];
    for (i, node) in nodes.iter().enumerate() {
        node.names.iter().for_each(|&name| named_by[name].push(i));
    }
    // First removes definitions that are not reachable from a recursive one, then those that do not reach one.
    let (from_above, above) = longest(nodes.len(), |i| nodes[i].levels, |i| &nodes[i].names, |i| &named_by[i], None);
    let (from_below, below) =
        longest(nodes.len(), |i| nodes[i].levels, |i| &named_by[i], |i| &nodes[i].names, Some(&above));
    let core = (0..nodes.len()).filter(|&i| !above[i] && !below[i]);
    from_above + from_below + core.map(|i| nodes[i].levels).sum::<u64>()
}

/// The longest path among the nodes that can be put in order, and which nodes these are. Those in `gone` are ignored.
fn longest<'a>(
    count: usize,
    levels: impl Fn(usize) -> u64,
    next: impl Fn(usize) -> &'a [usize],
    previous: impl Fn(usize) -> &'a [usize],
    gone: Option<&[bool]>,
) -> (u64, Vec<bool>) {
    let gone = |i: usize| gone.is_some_and(|g| g[i]);
    let mut waits: Vec<usize> = (0..count).map(|i| previous(i).iter().filter(|&&p| !gone(p)).count()).collect();
    let mut ready: Vec<usize> = (0..count).filter(|&i| !gone(i) && waits[i] == 0).collect();
    let mut before = vec![0u64; count];
    let mut ordered = vec![false; count];
    let mut most = 0;
    while let Some(i) = ready.pop() {
        ordered[i] = true;
        let here = before[i] + levels(i);
        most = most.max(here);
        for &n in next(i).iter().filter(|&&n| !gone(n)) {
            before[n] = before[n].max(here);
            waits[n] -= 1;
            if waits[n] == 0 {
                ready.push(n);
            }
        }
    }
    (most, ordered)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nodes(all: &[(u64, &[usize])]) -> Vec<Node> {
        all.iter().map(|(levels, names)| Node { levels: *levels, names: names.to_vec() }).collect()
    }

    #[test]
    fn paths_are_followed_and_recursions_are_summed() {
        assert_eq!(deepest(&[]), 0);
        assert_eq!(deepest(&nodes(&[(2, &[1, 2]), (3, &[2]), (4, &[])])), 9);
        assert_eq!(deepest(&nodes(&[(2, &[1, 2]), (30, &[]), (4, &[])])), 32);
        // 0 -> (1 <-> 2) -> 3, and 4 on its own.
        assert_eq!(deepest(&nodes(&[(1, &[1]), (10, &[2]), (20, &[1, 3]), (5, &[]), (3, &[])])), 36 + 2);
        assert_eq!(deepest(&nodes(&[(7, &[0])])), 7);
        let chain: Vec<Node> = (0..100_000).map(|i| Node { levels: 1, names: vec![(i + 1) % 100_000] }).collect();
        assert_eq!(deepest(&chain), 100_000);
    }
}
