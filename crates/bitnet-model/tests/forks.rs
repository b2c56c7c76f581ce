//! Forks share the pages of keys and values of their common beginning, and none sees the writes of another.

use bitnet_model::{Engine, EngineOptions, KvType, ModelConfig, ModelWeights, Sequence, SyntheticWeights};
use proptest::prelude::*;

/// Positions in a page; `Sequence::state().kv_bytes()` grows in these steps.
const PAGE: usize = 256;

fn engine() -> Engine {
    let mut config = ModelConfig::new(96, 48, 80, 2, 4, 2);
    config.head_dim = 12;
    let weights = ModelWeights::from_source(&SyntheticWeights::new(config, 3)).unwrap();
    Engine::new(&weights, &EngineOptions::default().threads(1)).unwrap()
}

fn text(seed: u32, len: usize) -> Vec<u32> {
    (0..len as u32).map(|i| (i.wrapping_mul(37) + seed * 11 + i / 7) % 96).collect()
}

#[test]
fn pages_are_shared_until_one_side_writes() {
    let engine = engine();
    for kv in KvType::ALL {
        let mut one = Sequence::new(&engine, kv, None);
        one.feed(&text(1, 2 * PAGE + 10)).unwrap();
        let all = one.state().kv_bytes();
        let mut other = one.fork();
        assert_eq!(other.state().kv_bytes(), all);
        assert!(one.state().shared_kv_bytes() * 100 > all * 95, "{}", kv.name());
        other.feed(&[5]).unwrap();
        // The last page of each layer is a copy now.
        let page = other.state().shared_kv_bytes() / 2;
        assert_eq!(one.state().shared_kv_bytes(), 2 * page);
        assert!(3 * page <= all && all < 4 * page, "{}: pages of {page} of {all}", kv.name());
        // A side that rewinds releases pages that it does not need, rather than copying them later.
        one.rewind(PAGE).unwrap();
        assert_eq!(one.state().kv_bytes() / page, 1, "the page after it belongs to the other side now");
        drop(other);
        assert_eq!(one.state().shared_kv_bytes(), 0);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(12))]
    /// Forks at any position, continued in turn and rewound, give the same results as sequences that read the same
    /// tokens from the beginning.
    #[test]
    fn forks_go_on_by_themselves(
        kv in prop::sample::select(KvType::ALL.to_vec()),
        start in 1usize..(2 * PAGE + 20),
        steps in prop::collection::vec((0usize..4, 0usize..3, 1usize..(PAGE + 30), 0usize..(3 * PAGE)), 1..7),
    ) {
        let engine = engine();
        let mut first = Sequence::new(&engine, kv, None);
        first.feed(&text(0, start)).unwrap();
        let mut forks = vec![first];
        for (i, (which, what, len, back)) in steps.into_iter().enumerate() {
            let which = which % forks.len();
            match what {
                0 => forks.push(forks[which].clone()),
                1 => {
                    let to = 1 + back % forks[which].len();
                    forks[which].rewind(to).unwrap();
                }
                _ => {
                    forks[which].feed(&text(i as u32 + 1, len)).unwrap();
                }
            }
        }
        for mut fork in forks {
            let mut fresh = Sequence::new(&engine, kv, None);
            fresh.feed(fork.tokens()).unwrap();
            prop_assert_eq!(fork.feed(&[3, 1, 4]).unwrap(), fresh.feed(&[3, 1, 4]).unwrap());
        }
    }
}
