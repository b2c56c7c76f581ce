//! Further families: the tiny models of the repository pass, and damage to any of them shows.

use bitnet_model::Projection;
use parity::{Options, Report, Sabotage, Verdict};

fn rows(sabotage: Option<Sabotage>) -> Vec<(String, Verdict, String)> {
    let mut options = Options::default();
    options.sabotage = sabotage;
    let mut report = Report::default();
    let folder = test_support::testdata("families");
    parity::run(&folder, &options, &mut report).expect("testdata is part of the repository");
    report.rows.into_iter().map(|r| (r.case, r.verdict, r.detail)).collect()
}

#[test]
fn undamaged_models_pass() {
    let rows = rows(None);
    assert!(rows.iter().all(|(_, verdict, _)| *verdict == Verdict::Ok), "{rows:#?}");
    let has = |part: &str| rows.iter().filter(|(case, ..)| case.ends_with(part)).count();
    assert_eq!([has("logits"), has("cuts"), has("greedy"), has("rope"), has("equal")], [4, 4, 4, 4, 1], "{rows:#?}");
    assert_eq!([has("hidden states"), has("vectors"), has("codes"), has("pooling")], [1; 4], "{rows:#?}");
}

/// Every model sees a damaged weight and turned heads, in its final results.
#[test]
fn damage_shows_in_every_family() {
    for sabotage in [Sabotage::FlipTrit(Projection::V, 0), Sabotage::Rope] {
        let rows = rows(Some(sabotage));
        let results = rows.iter().filter(|(case, ..)| case.ends_with("logits") || case.ends_with("hidden states"));
        let results: Vec<_> = results.collect();
        assert_eq!(results.len(), 5, "{rows:#?}");
        assert!(results.iter().all(|(_, verdict, _)| *verdict == Verdict::Fail), "{sabotage:?}: {results:#?}");
    }
}

/// The large set, if it is next to the repository: everything passes.
#[test]
fn the_large_set_passes() {
    let Some(shared) = test_support::shared_dir() else { return };
    let mut report = Report::default();
    parity::run(&shared.join("fixtures/families"), &Options::default(), &mut report).expect("it can be listed");
    let others: Vec<_> = report.rows.iter().filter(|r| r.verdict != Verdict::Ok).collect();
    assert!(others.is_empty() && report.count(Verdict::Ok) > 100, "{others:#?}");
}
