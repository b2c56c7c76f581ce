//! Kernels by choice, by kind and by tuning: another kernel, the same text.

use std::num::NonZeroUsize;
use std::ops::ControlFlow;
use std::time::Duration;

use bitnet::{ChosenBy, GenerateOptions, Model, ModelBuilder, ProjectionGroup, TuneOptions, UseTuning};
use ternary_kernels::{by_name, tune::Choice};

fn load(builder: ModelBuilder) -> Model {
    builder.threads(2).load(test_support::workspace_dir().join("models/tinystories-5m.gguf")).unwrap()
}

fn story(model: &Model) -> Vec<u32> {
    let options = GenerateOptions::default().temperature(0.0).max_tokens(24);
    model.session().generate("Once upon a time", options).unwrap().finish().unwrap().ids
}

fn chosen(model: &Model) -> Vec<(&'static str, String, ChosenBy)> {
    model.kernels().iter().map(|k| (k.group.name(), k.kernel.clone(), k.by)).collect()
}

#[test]
fn a_kernel_for_one_kind_leaves_the_others_and_the_text() {
    let plain = load(Model::builder().tuning(UseTuning::No));
    assert!(plain.kernels().iter().all(|k| k.by == ChosenBy::Default && k.kernel == plain.engine().kernel_name()));
    let down = by_name("base3_scalar").unwrap();
    let mixed = load(Model::builder().tuning(UseTuning::No).kernel_for(ProjectionGroup::Down, down.clone()));
    let expected: Vec<_> =
        chosen(&plain)[..3].iter().cloned().chain([("down", "base3_scalar".into(), ChosenBy::Caller)]).collect();
    assert_eq!(chosen(&mixed), expected);
    assert_eq!(mixed.engine().kernel_for(ProjectionGroup::Down).name(), "base3_scalar");
    let all = load(Model::builder().kernel(by_name("i2s_scalar").unwrap()).kernel_for(ProjectionGroup::Down, down));
    assert_eq!(all.engine().kernel_name(), "i2s_scalar; down: base3_scalar");
    assert_eq!(story(&mixed), story(&plain));
    assert_eq!(story(&all), story(&plain));
}

#[test]
fn what_tuning_found_is_used_at_the_next_load_and_changes_no_text() {
    let dir = tempfile::tempdir().unwrap();
    let folder = || UseTuning::FromFolder(dir.path().to_path_buf());
    let plain = load(Model::builder().tuning(folder()));
    assert!(plain.kernels().iter().all(|k| k.by == ChosenBy::Default));

    let mut options = TuneOptions::new(NonZeroUsize::new(2).unwrap());
    (options.budget, options.prefill_tokens) = (Duration::ZERO, 8);
    let mut report = bitnet::tune(plain.config(), &options, &mut |_| ControlFlow::Continue(())).unwrap();
    assert_eq!(report.choices.iter().map(|c| c.group.as_str()).collect::<Vec<_>>(), ["qkv", "o", "gate-up", "down"]);
    // The fastest kernel here is not known in advance; other kernels show that the stored choice is used.
    let names = ["base3_scalar", "i2s_scalar", "base3_scalar", "i2s_scalar"];
    report.choices.iter_mut().zip(names).for_each(|(c, name): (&mut Choice, _)| c.kernel = name.to_owned());
    let file = bitnet::store_tuning(plain.config(), &options, &report, Some(dir.path())).unwrap();

    let tuned = load(Model::builder().tuning(folder()));
    let expected: Vec<_> =
        ProjectionGroup::ALL.iter().zip(names).map(|(k, n)| (k.name(), n.to_owned(), ChosenBy::Tuning)).collect();
    assert_eq!(chosen(&tuned), expected);
    assert_eq!(story(&tuned), story(&plain));
    assert_eq!(tuned.engine().kernel_for(ProjectionGroup::GateUp).name(), "base3_scalar");

    // Asking goes before it, for one kind or for all; other threads and damage leave it out.
    let o = load(Model::builder().tuning(folder()).kernel_for(ProjectionGroup::O, by_name("base3_scalar").unwrap()));
    assert_eq!(chosen(&o)[1], ("o", "base3_scalar".to_owned(), ChosenBy::Caller));
    assert_eq!(chosen(&o)[0].2, ChosenBy::Tuning);
    let all = load(Model::builder().tuning(folder()).kernel(by_name("i2s_scalar").unwrap()));
    assert!(all.kernels().iter().all(|k| k.by == ChosenBy::Caller && k.kernel == "i2s_scalar"));
    assert_eq!(chosen(&load(Model::builder().tuning(UseTuning::No))), chosen(&plain));
    let three = bitnet::kernels_for(plain.config(), None, NonZeroUsize::new(3), &folder()).unwrap();
    assert!(three.iter().all(|k| k.by == ChosenBy::Default));
    std::fs::write(file, "{").unwrap();
    assert_eq!(chosen(&load(Model::builder().tuning(folder()))), chosen(&plain));
}
