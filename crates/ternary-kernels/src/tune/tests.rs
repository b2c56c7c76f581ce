//! Measurements and choices.

use super::*;

fn groups() -> Vec<Group> {
    let shape = |rows, cols, count| Shape { rows, cols, count, int4: false };
    vec![
        Group { name: "qkv".into(), shapes: vec![shape(96, 80, 2), shape(33, 80, 4)] },
        Group { name: "o".into(), shapes: vec![shape(96, 80, 2)] },
    ]
}

fn quick() -> TuneOptions {
    let mut options = TuneOptions::new(NonZeroUsize::new(2).unwrap());
    options.budget = Duration::ZERO;
    options.prefill_tokens = 5;
    options
}

#[test]
fn every_contender_is_measured_on_every_shape_in_both_phases() {
    let mut heard = Vec::new();
    let report = tune(&groups(), &quick(), &mut |done| {
        heard.push(done);
        ControlFlow::Continue(())
    })
    .unwrap();
    assert_eq!((report.rounds, report.threads, report.from_memory), (3, 2, false));
    assert!(heard.windows(2).all(|w| w[0] <= w[1]) && heard.iter().all(|h| (0.0..=1.0).contains(h)));
    let kernels: Vec<String> = report.measurements.iter().map(|m| m.kernel.clone()).collect();
    let contenders = kernels.iter().collect::<std::collections::BTreeSet<_>>().len();
    // Two shapes, one of which is in both groups.
    assert_eq!(report.measurements.len(), 2 * 2 * contenders);
    // If an instruction set is forced, only its kernels.
    let forced = Isa::selected().ok().filter(|isa| Some(*isa) != Isa::available().last());
    assert_eq!(contenders + report.dropped.len(), candidates(forced, false).unwrap().len());
    assert!(kernels.contains(&report.default));
    for m in &report.measurements {
        assert!(m.seconds > 0.0 && m.seconds < 1.0 && m.bytes > 0 && m.gb_s() > 0.0, "{m:?}");
        let tokens = if m.phase == Phase::Decode { 1.0 } else { 5.0 };
        assert_eq!(m.operations, 2.0 * (m.rows * m.cols) as f64 * tokens);
    }
    assert_eq!(report.choices.iter().map(|c| c.group.as_str()).collect::<Vec<_>>(), ["qkv", "o"]);
    for c in &report.choices {
        assert!(crate::by_name(&c.kernel).unwrap().exact() && c.of_default <= 1.0 && !c.why.is_empty());
    }
    assert!(report.elapsed > Duration::ZERO);
}

/// The same matrix with activations of both widths is measured twice, and each group is judged by its own width.
#[test]
fn int4_activations_are_measured_where_they_are_used() {
    let shape = |int4| Shape { rows: 96, cols: 80, count: 2, int4 };
    let group = |name: &str, int4| Group { name: name.into(), shapes: vec![shape(int4)] };
    let report = tune(&[group("qkv", false), group("o", true)], &quick(), &mut |_| ControlFlow::Continue(())).unwrap();
    let of = |int4| report.measurements.iter().filter(|m| m.int4 == int4).count();
    assert_eq!(report.choices.len(), 2);
    assert!(of(true) == of(false) && of(true) > 0 && report.measurements.iter().all(|m| m.seconds > 0.0));

    // A kernel that is only fast with int8 is not chosen for int4.
    let kernels = ["i2s_scalar", "base3_scalar"].map(|k| crate::by_name(k).unwrap());
    let of = |kernel: &str, int4, phase, seconds| Measurement {
        rows: 96,
        cols: 80,
        int4,
        phase,
        kernel: kernel.to_owned(),
        seconds,
        bytes: 1,
        operations: 1.0,
    };
    let measurements: Vec<Measurement> = [Phase::Decode, Phase::Prefill]
        .into_iter()
        .flat_map(|phase| {
            [(false, 1.0, 0.5), (true, 0.5, 1.0)]
                .into_iter()
                .flat_map(move |(int4, a, b)| [of("i2s_scalar", int4, phase, a), of("base3_scalar", int4, phase, b)])
        })
        .collect();
    let groups = [group("qkv", false), group("o", true)];
    let choices = choose::all(&groups, &measurements, &kernels, &["i2s_scalar"; 2], &quick());
    assert_eq!(choices.iter().map(|c| c.kernel.as_str()).collect::<Vec<_>>(), ["base3_scalar", "i2s_scalar"]);
}

#[test]
fn a_set_restricts_the_candidates() {
    let names = |isa| candidates(Some(isa), false).unwrap().iter().map(|k| k.name().to_owned()).collect::<Vec<_>>();
    assert!(
        names(Isa::Scalar).contains(&"i2s_scalar".to_owned())
            && names(Isa::Scalar).iter().all(|n| n.ends_with("scalar"))
    );
    let mut options = quick();
    options.isa = Some(Isa::Scalar);
    let report = tune(&groups(), &options, &mut |_| ControlFlow::Continue(())).unwrap();
    assert!(report.measurements.iter().all(|m| m.kernel.ends_with("scalar")));
    assert_eq!(report.default, "i2s_scalar");
    for isa in Isa::ALL.iter().filter(|i| !i.is_available()) {
        assert!(matches!(candidates(Some(*isa), false), Err(KernelError::UnavailableIsa { .. })));
    }
}

#[test]
fn it_ends_when_told_and_refuses_nothing_to_measure() {
    let cancelled = tune(&groups(), &quick(), &mut |_| ControlFlow::Break(()));
    assert_eq!(cancelled, Err(KernelError::Cancelled { op: "tune" }));
    let empty = [Group { name: "o".into(), shapes: vec![Shape { rows: 0, cols: 5, count: 1, int4: false }] }];
    for groups in [&[][..], &empty] {
        let refused = tune(groups, &quick(), &mut |_| ControlFlow::Continue(()));
        assert!(matches!(refused, Err(KernelError::ShapeMismatch { op: "tune", .. })));
    }
}

/// Invented times for two kernels on the one shape of a group, in seconds: decode and prefill of each.
fn chosen(a: [f64; 2], b: [f64; 2], prompt_per_token: f64, kernels: [&str; 2]) -> Choice {
    let group = Group { name: "g".into(), shapes: vec![Shape { rows: 10, cols: 10, count: 3, int4: false }] };
    let mut measurements = Vec::new();
    for (kernel, seconds) in kernels.iter().zip([a, b]) {
        for (phase, seconds) in [Phase::Decode, Phase::Prefill].into_iter().zip(seconds) {
            let (bytes, operations) = (1, 1.0);
            let kernel = (*kernel).to_owned();
            measurements.push(Measurement {
                rows: 10,
                cols: 10,
                int4: false,
                phase,
                kernel,
                seconds,
                bytes,
                operations,
            });
        }
    }
    let mut options = quick();
    (options.prefill_tokens, options.prompt_per_token) = (100, prompt_per_token);
    let candidates: Vec<_> = kernels.iter().map(|k| crate::by_name(k).unwrap()).collect();
    choose::all(&[group], &measurements, &candidates, &[kernels[0]], &options).swap_remove(0)
}

#[test]
fn the_phases_are_weighed_and_noise_changes_nothing() {
    const KERNELS: [&str; 2] = ["i2s_scalar", "base3_scalar"];
    let choose = |a, b, weight| chosen(a, b, weight, KERNELS);
    // A fifth faster in decode, a tenth slower in prefill: (0.8 + w 0.55) against (1 + w 0.5).
    let c = choose([1.0, 50.0], [0.8, 55.0], 1.0);
    assert_eq!(c.kernel, "base3_scalar");
    assert!((c.of_default - 1.35 / 1.5).abs() < 1e-12 && c.why.contains("0.80") && c.why.contains("1.10"), "{c:?}");
    // With ten prompt tokens per generated token the other kernel is better.
    let c = choose([1.0, 50.0], [0.8, 55.0], 10.0);
    assert_eq!((c.kernel.as_str(), c.of_default, c.why.as_str()), ("i2s_scalar", 1.0, "the default, and the fastest"));
    // Two per cent are noise, four are not.
    let c = choose([1.0, 0.0], [0.98, 0.0], 1.0);
    assert_eq!(c.kernel, "i2s_scalar");
    assert!(c.why.contains("base3_scalar saves only 2.0 %"), "{}", c.why);
    assert_eq!(choose([1.0, 0.0], [0.96, 0.0], 1.0).kernel, "base3_scalar");
}

/// A kernel that rounds and is the fastest.
#[derive(Debug)]
struct Rounding(Arc<dyn Kernel>);
impl Kernel for Rounding {
    fn name(&self) -> &str {
        "rounding"
    }
    fn panel_rows(&self) -> usize {
        self.0.panel_rows()
    }
    fn exact(&self) -> bool {
        false
    }
    fn prepack(&self, w: &crate::TernaryMatrix) -> Result<crate::Packed, KernelError> {
        self.0.prepack(w)
    }
    fn gemv(&self, w: &crate::PackedRows<'_>, x: &crate::Int8Vector<'_>, acc: &mut [i32]) {
        self.0.gemv(w, x, acc);
    }
    fn gemm(&self, w: &crate::PackedRows<'_>, x: &crate::Int8Matrix<'_>, acc: &mut [i32]) {
        self.0.gemm(w, x, acc);
    }
}

#[test]
fn a_kernel_that_rounds_is_never_chosen() {
    let exact = crate::by_name("i2s_scalar").unwrap();
    let kernels: [Arc<dyn Kernel>; 2] = [Arc::new(Rounding(exact.clone())), exact];
    let group = Group { name: "g".into(), shapes: vec![Shape { rows: 4, cols: 4, count: 1, int4: false }] };
    let of = |kernel: &str, phase, seconds| Measurement {
        rows: 4,
        cols: 4,
        int4: false,
        phase,
        kernel: kernel.to_owned(),
        seconds,
        bytes: 1,
        operations: 1.0,
    };
    let measurements: Vec<Measurement> = [Phase::Decode, Phase::Prefill]
        .into_iter()
        .flat_map(|phase| [of("rounding", phase, 0.1), of("i2s_scalar", phase, 1.0)])
        .collect();
    let choices = choose::all(&[group], &measurements, &kernels, &["i2s_scalar"], &quick());
    assert_eq!(choices[0].kernel, "i2s_scalar");
}
