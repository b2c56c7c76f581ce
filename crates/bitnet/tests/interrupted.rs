//! A session that is saved, restored, forked, taken back or shifted goes on as one that was never interrupted.

use std::num::NonZeroUsize;
use std::ops::ControlFlow;

use bitnet::{
    Error, FinishReason, GenerateOptions, KvType, Model, ModelBuilder, ModelError, Session, Snapshots, Speculation,
    WhenFull,
};
use loader::files::FileError;
use loader::synthetic::Spec;
use proptest::prelude::*;

/// A model of two layers with these mixers; without a vocabulary, so tokens are given as they are.
fn model(mixers: &str, seed: u64, builder: ModelBuilder) -> Model {
    let dir = tempfile::tempdir().unwrap();
    let json = dir.path().join("shape.json");
    let shape = format!(
        r#"{{"vocab_size": 200, "hidden_size": 128, "intermediate_size": 256, "num_hidden_layers": 2, "seed": {seed},
            "num_attention_heads": 2, "num_key_value_heads": 1, "mixers": {mixers}, "ttt": {{"use_gate": true}}}}"#
    );
    std::fs::write(&json, shape).unwrap();
    let (spec, path) = (Spec::from_config_file(&json).unwrap(), dir.path().join("model.gguf"));
    assert!(spec.write(&path, NonZeroUsize::MIN, &mut |_| ControlFlow::Continue(())).unwrap());
    builder.threads(1).load(&path).unwrap()
}

const MIXERS: [&str; 3] =
    [r#"["ttt_linear", "ttt_mlp"]"#, r#"["attention", "ttt_linear"]"#, r#"["attention", "attention"]"#];

fn options(n: usize) -> GenerateOptions {
    let mut options = GenerateOptions::default().temperature(0.9).seed(3).max_tokens(n);
    options.ignore_eos = true;
    options.speculation = Speculation::PromptLookup { max_draft: 4 };
    options
}

/// An operation on a session.
#[derive(Clone, Debug)]
enum Happening {
    Feed(Vec<u32>),
    Generate(usize),
    /// Saved and restored, by bytes or through a file.
    Restore {
        file: bool,
    },
    /// A fork continues; later operations on the original change nothing.
    Fork,
    /// Back to this share of its tokens.
    Rewind(f64),
    /// The same text up to this share, and then another.
    Other(f64, Vec<u32>),
}

fn tokens(most: usize) -> impl Strategy<Value = Vec<u32>> {
    prop::collection::vec(0u32..200, 1..most)
}

fn happening() -> impl Strategy<Value = Happening> {
    prop_oneof![
        tokens(60).prop_map(Happening::Feed),
        (1usize..30).prop_map(Happening::Generate),
        any::<bool>().prop_map(|file| Happening::Restore { file }),
        Just(Happening::Fork),
        (0.0..1.0).prop_map(Happening::Rewind),
        ((0.0..1.0), tokens(20)).prop_map(|(share, ids)| Happening::Other(share, ids)),
    ]
}

fn happen(model: &Model, session: &mut Session, what: &Happening, dir: &std::path::Path) {
    let share = |session: &Session, share: f64| (session.len() as f64 * share) as usize;
    match what {
        Happening::Feed(ids) => drop(session.feed_ids(ids).unwrap().to_vec()),
        Happening::Generate(_) if session.is_empty() => {}
        Happening::Generate(n) => {
            let before = session.tokens().to_vec();
            let new = session.generate_ids(&[], options(*n)).unwrap().finish().unwrap().ids;
            let mut fresh = model.session();
            assert_eq!(fresh.generate_ids(&before, options(*n)).unwrap().finish().unwrap().ids, new);
        }
        Happening::Restore { file: false } => *session = model.restore_session(&session.save().unwrap()).unwrap(),
        Happening::Restore { file: true } => {
            let path = dir.join("a.session");
            session.save_to(&path).unwrap();
            *session = model.load_session(&path).unwrap();
        }
        Happening::Fork => {
            let mut fork = session.fork();
            std::mem::swap(&mut fork, session);
            fork.feed_ids(&[1, 2, 3]).unwrap();
            fork.rewind(1).unwrap();
        }
        Happening::Rewind(to) => {
            let to = share(session, *to);
            let expected = session.tokens()[..to].to_vec();
            session.rewind(to).unwrap();
            assert_eq!(session.tokens(), expected);
        }
        Happening::Other(to, ids) => {
            let whole = [&session.tokens()[..share(session, *to)], ids].concat();
            let output = session.generate_from(&whole, options(3)).unwrap().finish().unwrap();
            assert_eq!(output.stats.prompt_tokens + output.stats.reused_tokens, whole.len());
            assert_eq!(output.ids, model.session().generate_ids(&whole, options(3)).unwrap().finish().unwrap().ids);
        }
    }
}

fn check(model: &Model, happenings: &[Happening]) {
    let dir = tempfile::tempdir().unwrap();
    let mut session = model.session();
    session.feed_ids(&[7, 8, 9]).unwrap();
    for what in happenings {
        happen(model, &mut session, what, dir.path());
    }
    let ids = session.tokens().to_vec();
    let mut fresh = model.session();
    if !ids.is_empty() {
        fresh.feed_ids(&ids).unwrap();
    }
    assert_eq!(session.feed_ids(&[5, 6]).unwrap(), fresh.feed_ids(&[5, 6]).unwrap());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn what_happened_to_a_session_does_not_show(
        which in 0usize..3,
        kv in prop_oneof![Just(KvType::F16), Just(KvType::Q8)],
        every in 0usize..3,
        happenings in prop::collection::vec(happening(), 1..12),
    ) {
        // Copies so often and so few that some are dropped; or none.
        let builder = Model::builder().kv(kv).snapshots(Snapshots::default().every(every).most(3));
        check(&model(MIXERS[which], 0, builder), &happenings);
    }
}

#[test]
fn going_back_reads_no_more_than_promised() {
    let builder = || Model::builder().snapshots(Snapshots::default().every(1).most(4));
    let [pure, hybrid, attention] = MIXERS.map(|m| model(m, 0, builder()));
    let ids: Vec<u32> = (0..300).map(|i| (i * 37 + 5) % 200).collect();
    let state = pure.config().state_bytes().unwrap();
    let mut session = pure.session();
    session.feed_ids(&ids).unwrap();
    let kept = session.snapshot_bytes() / state;
    assert!((2..=4).contains(&kept), "{kept} copies");
    assert_eq!(session.fork().snapshot_bytes(), session.snapshot_bytes());
    assert_eq!(attention.session().snapshot_bytes(), 0);
    // At most 2n / most tokens are read again: this shows in what a new text reuses.
    for len in [290, 200, 120] {
        let mut fork = session.fork();
        let other: Vec<u32> = ids[..len].iter().copied().chain([1]).collect();
        let reused = fork.generate_from(&other, options(1)).unwrap().finish().unwrap().stats.reused_tokens;
        assert!(len - reused <= 2 * 300 / 4, "{len}: {reused} of {len} tokens are reused");
    }
    // If more tokens would have to be read than allowed, nothing happens.
    for (mixers, limited) in [(MIXERS[0], true), (MIXERS[2], false)] {
        let strict = model(mixers, 0, Model::builder().snapshots(Snapshots::none().replay(50)));
        let mut session = strict.session();
        session.feed_ids(&ids).unwrap();
        match session.rewind(200) {
            Err(Error::Model(ModelError::ReplayTooLong { to: 200, from: 0, most: 50 })) => assert!(limited),
            Ok(()) => assert!(!limited),
            other => panic!("{other:?}"),
        }
        assert_eq!(session.len(), if limited { 300 } else { 200 });
        session.rewind(50).unwrap();
        let mut fresh = strict.session();
        fresh.feed_ids(&ids[..50]).unwrap();
        assert_eq!(session.feed_ids(&[3]).unwrap(), fresh.feed_ids(&[3]).unwrap());
    }
    drop(hybrid);
}

#[test]
fn a_file_of_another_model_or_a_damaged_one_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    for mixers in MIXERS {
        let [one, other] = [0, 1].map(|seed| model(mixers, seed, Model::builder()));
        let path = dir.path().join("s");
        let mut session = one.session();
        session.feed_ids(&[1, 2, 3]).unwrap();
        session.save_to(&path).unwrap();
        session.save_to(&path).unwrap();
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1, "nothing else is left there");
        assert!(one.load_session(&path).is_ok());
        let refused = other.load_session(&path).map(drop);
        assert!(matches!(refused, Err(Error::Model(ModelError::SavedSequence(_)))), "{refused:?}");
        let mut bytes = std::fs::read(&path).unwrap();
        // The version.
        bytes[8] ^= 1;
        std::fs::write(&path, &bytes).unwrap();
        assert!(matches!(one.load_session(&path), Err(Error::Model(ModelError::SavedSequence(_)))));
        assert!(matches!(one.load_session(dir.path().join("none")), Err(Error::File(e)) if e.is_absent()));
        let nowhere = session.save_to(dir.path().join("no/folder"));
        assert!(matches!(nowhere, Err(Error::File(FileError::Io { .. }))), "{nowhere:?}");
    }
}

#[test]
fn a_full_context_ends_a_text_or_slides() {
    let model = model(MIXERS[2], 0, Model::builder().context(40));
    let prompt: Vec<u32> = (0..20).collect();
    let full = model.session().generate_ids(&prompt, options(100)).unwrap().finish().unwrap();
    assert_eq!((full.finish_reason, full.ids.len()), (FinishReason::Length, 20));

    let mut session = model.session();
    let shift = |n| options(n).when_full(WhenFull::ContextShift { keep: 4 });
    let long = session.generate_ids(&prompt, shift(100)).unwrap().finish().unwrap();
    assert_eq!((long.finish_reason, long.ids.len(), &long.ids[..20]), (FinishReason::Length, 100, &full.ids[..]));
    // Each time the first four and the newest 18 stay, so there is room for another 18.
    assert_eq!(long.stats.context_shifts, 5);
    let all = [prompt.clone(), long.ids.clone()].concat();
    assert_eq!(session.tokens()[..4], prompt[..4]);
    let n = session.len();
    assert_eq!(session.tokens()[4..], all[all.len() - (n - 4)..]);
    // It goes on as a session that never held anything else.
    let mut fresh = model.session();
    fresh.feed_ids(session.tokens()).unwrap();
    assert_eq!(session.feed_ids(&[9]).unwrap(), fresh.feed_ids(&[9]).unwrap());
    // The context shifts for a prompt, too, if the prompt fits after the tokens that always stay.
    let mut session = model.session();
    session.feed_ids(&prompt).unwrap();
    session.generate_ids(&prompt, options(1)).map(drop).unwrap();
    assert!(session.generate_ids(&[1, 2, 3], options(1)).is_err());
    let output = session.generate_ids(&[1, 2, 3], shift(2)).unwrap().finish().unwrap();
    assert_eq!((output.stats.context_shifts, session.len()), (1, 4 + 18 + 3 + 2));
    let whole: Vec<u32> = (0..90).collect();
    let output = session.generate_from(&whole, shift(2)).unwrap().finish().unwrap();
    assert_eq!(
        (output.stats.context_shifts, &session.tokens()[..4], &session.tokens()[4..22]),
        (1, &whole[..4], &whole[72..])
    );
    let refused = model.session().generate_ids(&[1; 37], shift(1)).map(drop);
    assert!(refused.is_ok());
    let mut session = model.session();
    session.feed_ids(&prompt).unwrap();
    let refused = session.generate_ids(&[1; 37], shift(1)).map(drop);
    assert!(
        matches!(refused, Err(Error::Model(ModelError::ContextFull { limit: 40, used: 4, more: 37 }))),
        "{refused:?}"
    );
}
