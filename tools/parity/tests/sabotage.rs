//! The comparison is able to fail: damage to a model's weights shows, each kind of it in the row that should see it.

use bitnet_model::Projection;
use parity::{Options, Report, Sabotage, Verdict};

/// A small model whose every projection was traced.
const CASE: &str = "bitnet/sharded_tiny";

fn rows(sabotage: Option<Sabotage>) -> Vec<(String, Verdict, String)> {
    let mut options = Options::default();
    (options.sabotage, options.filter) = (sabotage, Some(CASE.into()));
    let mut report = Report::default();
    parity::run(&test_support::testdata(""), &options, &mut report).expect("testdata is part of the repository");
    report.rows.into_iter().map(|r| (r.case, r.verdict, r.detail)).collect()
}

fn failed(sabotage: Sabotage, kind: &str) -> bool {
    let rows = rows(Some(sabotage));
    let (_, verdict, _) = rows.iter().find(|(case, ..)| case.ends_with(kind)).expect("the row exists");
    *verdict == Verdict::Fail
}

#[test]
fn an_undamaged_model_passes() {
    let rows = rows(None);
    assert_eq!(rows.len(), 3, "{rows:?}");
    assert!(rows.iter().all(|(_, verdict, _)| *verdict == Verdict::Ok), "{rows:?}");
}

/// Logits cannot see a row of `up` after a gate that is zero for every token, and nothing can see a weight of `down`
/// whose input is zero for every token: so eight weights of each projection are tried, and most of them must show.
#[test]
fn one_flipped_trit_of_any_projection_is_caught() {
    for p in Projection::OF_ATTENTION {
        let caught = |kind| (0..8).filter(|&col| failed(Sabotage::FlipTrit(p, col), kind)).count();
        assert!(caught("projections") >= if p == Projection::Down { 2 } else { 8 }, "{p:?}");
        assert!(p == Projection::Up || caught("logits") >= 2, "{p:?}");
    }
}

/// The norms after v, gate and up take a wrong scale away, so the logits cannot see it: the projections have to.
#[test]
fn a_scale_wrong_by_one_step_of_bf16_is_caught() {
    for p in Projection::OF_ATTENTION {
        assert!(failed(Sabotage::Scale(p), "projections"), "{p:?}");
    }
    assert!(failed(Sabotage::Scale(Projection::Down), "logits"));
    assert!(failed(Sabotage::Scale(Projection::O), "logits"));
    assert!(failed(Sabotage::Scale(Projection::Q), "logits"));
}

#[test]
fn a_shifted_rotary_embedding_is_caught() {
    assert!(failed(Sabotage::Rope, "logits"));
}

#[test]
fn a_folder_without_cases_does_not_pass() {
    let empty = tempfile::tempdir().expect("a temporary folder");
    let mut report = Report::default();
    parity::run(empty.path(), &Options::default(), &mut report).expect("it can be listed");
    assert!(!report.passed());
}

/// A transform that is left out shows in every case of BitNet v2, and in no other.
#[test]
fn a_missing_hadamard_transform_is_caught() {
    let Some(shared) = test_support::shared_dir() else { return };
    let verdicts = |sabotage: Option<Sabotage>| -> Vec<(String, Verdict)> {
        let mut options = Options::default();
        (options.sabotage, options.filter) = (sabotage, Some("units/".into()));
        let mut report = Report::default();
        parity::run(&shared.join("fixtures"), &options, &mut report).expect("the fixtures can be listed");
        report.rows.into_iter().map(|r| (r.case, r.verdict)).collect()
    };
    let undamaged = verdicts(None);
    assert!(undamaged.len() >= 22 && undamaged.iter().all(|(_, v)| *v == Verdict::Ok), "{undamaged:?}");
    for (case, verdict) in verdicts(Some(Sabotage::Hadamard)) {
        let sees = case.contains("/hbitlinear") || case.contains("/hadamard");
        assert_eq!(verdict == Verdict::Fail, sees, "{case}");
    }
}

/// Both mistakes leave a model that looks alive; each has to show in the logits of every form, and in the gradients.
#[test]
fn wrong_inner_rates_and_forgotten_positions_are_caught() {
    let Some(shared) = test_support::shared_dir() else { return };
    let verdicts = |sabotage: Option<Sabotage>| -> Vec<(String, Verdict)> {
        let mut options = Options::default();
        (options.sabotage, options.filter) = (sabotage, Some("ttt/".into()));
        let mut report = Report::default();
        parity::run(&shared.join("fixtures"), &options, &mut report).expect("the fixtures can be listed");
        report.rows.into_iter().map(|r| (r.case, r.verdict)).collect()
    };
    let undamaged = verdicts(None);
    assert!(undamaged.len() >= 21 && undamaged.iter().all(|(_, v)| *v == Verdict::Ok), "{undamaged:?}");
    for sabotage in [Sabotage::InnerRate, Sabotage::TokenIndex] {
        for (case, verdict) in verdicts(Some(sabotage)) {
            let sees = ["logits", "gradients", "states"].iter().any(|part| case.contains(part));
            assert!(!sees || verdict == Verdict::Fail, "{sabotage:?} unseen by {case}");
        }
    }
}
