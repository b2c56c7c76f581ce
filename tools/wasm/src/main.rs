//! Checks kernels and operations inside a WebAssembly runtime, which `cargo xtask isas` builds and runs. It has nothing
//! to print with: it returns, or it traps.

use std::num::NonZeroUsize;

use half::{bf16, f16};
use ternary_kernels::check::{self_check, self_check_group};
use ternary_kernels::ops::coarse::{BLOCK_ROWS, CoarseBatch, CoarsePlane, StoredRows};
use ternary_kernels::ops::{AttendScratch, KvData, KvRows, Queries};
use ternary_kernels::{
    ColsMut, Elut, Entry, GroupKernel, Int8Batch, Int16Batch, Isa, Ops, Team, gemm, kernels_available, registry,
};

fn main() {
    let sets: Vec<_> = Isa::available().map(Isa::name).collect();
    assert_eq!(sets, ["scalar", "simd128"], "the program was built without SIMD");
    let names: Vec<_> = kernels_available().iter().map(|k| k.name().to_owned()).collect();
    let of = |isa: &str| ["i2s", "base3", "tl1", "tl2"].map(|format| format!("{format}_{isa}"));
    assert_eq!(names, [of("simd128"), of("scalar")].concat());
    assert_eq!(registry().len(), names.len() + 4, "and rounded tables on both");
    for kernel in registry().iter().filter_map(Entry::kernel) {
        let report = self_check(kernel.as_ref()).expect("every shape can be packed");
        assert!(report.products > 60 && report.mismatch.is_none(), "{}: {report:?}", kernel.name());
    }
    let groups = GroupKernel::available();
    assert_eq!(groups.iter().map(GroupKernel::name).collect::<Vec<_>>(), ["group_scalar", "group_simd128"]);
    for kernel in &groups {
        let report = self_check_group(kernel).expect("every shape can be packed");
        assert!(report.products > 60 && report.mismatch.is_none(), "{}: {report:?}", kernel.name());
    }
    level_sets();
    let portable = Ops::for_isa(Isa::Scalar).expect("everywhere");
    let simd = Ops::for_isa(Isa::Simd128).expect("just listed");
    assert!(middles(portable) == middles(simd), "products whose sum lies in the middle");
    assert!(halves(portable) == halves(simd), "halves");
    assert!(rounded(portable) == rounded(simd), "numbers rounded to halves");
    for (rows, cols) in [(1, 1), (70, 100), (200, 256), (130, 1000)] {
        assert_eq!(bounds(portable, rows, cols), bounds(simd, rows, cols), "bounds of a head of {rows} x {cols}");
    }
    for (len, head_dim) in [(1, 16), (70, 32), (130, 64), (20, 40)] {
        assert_eq!(attended(portable, len, head_dim), attended(simd, len, head_dim), "{len} keys of {head_dim}");
    }
    for n in [0, 1, 15, 16, 17, 64, 100, 2560] {
        for seed in 0..8 {
            assert_eq!(results(portable, n, seed), results(simd, n, seed), "{n} elements, seed {seed}");
        }
    }
}

/// Look-up tables of other levels than the ternary ones: both sets give the sums of the definition.
fn level_sets() {
    let sets: [(&[i8], usize); 5] =
        [(&[-2, -1, 0, 1], 2), (&[-2, -1, 0, 1, 2], 2), (&[-1, 1], 4), (&[-1, 1], 5), (&[-7, 2], 1)];
    for (levels, group) in sets {
        for (rows, cols, n) in [(1, 1, 1), (33, 100, 3), (40, 3000, 2)] {
            let codes: Vec<u8> = (0..rows * cols).map(|i| (i * (i % 97) / 7 % levels.len()) as u8).collect();
            let x: Vec<i8> = (0..n * cols).map(|i| (i * 31 % 255) as i16 - 127).map(|x| x as i8).collect();
            let batch = Int8Batch::from_codes(n, cols, &x).expect("codes lie in -127..=127");
            for isa in [Isa::Scalar, Isa::Simd128] {
                let kernel = Elut::for_isa(levels, group, isa).expect("a set that has tables");
                let w = kernel.pack(rows, cols, &codes).expect("codes below the number of levels");
                let mut acc = vec![i32::MIN; n * rows];
                gemm(&kernel, &w, &batch.view(), &mut acc).expect("shapes agree");
                for (i, a) in acc.iter().enumerate() {
                    let (t, r) = (i / rows, i % rows);
                    let weight = |k: usize| i32::from(levels[usize::from(codes[r * cols + k])]);
                    let sum: i32 = (0..cols).map(|k| weight(k) * i32::from(x[t * cols + k])).sum();
                    assert_eq!(*a, sum, "{levels:?} in groups of {group}, {isa}");
                }
            }
        }
    }
}

/// Sums of a product and a number that lie in the middle between two numbers, or so near that f64 does not see the
/// difference; subnormal results; numbers that are not finite. A lane of each, next to ordinary ones.
fn middles(ops: Ops) -> Vec<u32> {
    let mut out = Vec::new();
    let tiny = f32::EPSILON / 2.0;
    let factors = [
        tiny,
        -tiny,
        tiny * (1.0 + f32::EPSILON),
        tiny * 1.25,
        1e-38,
        -1e-38,
        2f32.powi(-126),
        1e-45,
        3e38,
        f32::INFINITY,
    ];
    for factor in factors {
        for at in 0..16 {
            for x in [1.0, 1.0 - f32::EPSILON, 0.75 + 1.0 / 16.0, 1e-7, 2f32.powi(-23), 0.5, f32::MAX, f32::NAN] {
                let mut xs = numbers(48, at);
                let mut ys = numbers(48, at + 20);
                xs[16 + at as usize] = x;
                let special = [
                    1.0,
                    1.0 + f32::EPSILON,
                    -1.0,
                    2f32.powi(-126),
                    2f32.powi(-149),
                    0.0,
                    -0.0,
                    f32::MAX,
                    f32::NEG_INFINITY,
                ];
                ys[16 + at as usize] = special[(at as usize + out.len()) % special.len()];
                ops.axpy(factor, &xs, &mut ys);
                // NaNs may have any bits.
                out.extend(ys.iter().map(|y| if y.is_nan() { 0x7fc0_0000 } else { y.to_bits() }));
            }
        }
    }
    out
}

/// Every half as a factor: NaNs are left out, as a NaN may have any bits.
fn halves(ops: Ops) -> Vec<u32> {
    let all: Vec<f16> = (0..=u16::MAX).map(f16::from_bits).map(|h| if h.is_nan() { f16::ONE } else { h }).collect();
    let one = |i: usize| std::array::from_fn::<f32, 16, _>(|l| if l == i { 1.0 } else { 0.0 });
    let mut out = Vec::new();
    for (n, chunk) in all.chunks(16).enumerate() {
        let finite: Vec<f16> = chunk.iter().map(|&h| if h.is_infinite() { f16::MAX } else { h }).collect();
        out.push(ops.dot_f16(&one(n % 16), &finite).to_bits());
        out.push(ops.dot_f16(&[1.0; 16], &finite).to_bits());
    }
    out
}

/// Numbers as halves, among them those in the middle between two halves and next to it, subnormal ones, those that overflow,
/// and NaNs.
fn rounded(ops: Ops) -> Vec<u16> {
    let mut x = numbers(1000, 3);
    for bits in (0..=u16::MAX).step_by(7).chain([0x7bff, 0x7c00, 0x03ff, 0x0400, 0x0001]) {
        let half = f16::from_bits(bits).to_f32().to_bits();
        // The middle above a normal half is bit 12; subnormal ones are reached by small numbers.
        x.extend([0, 0x0fff, 0x1000, 0x1001, 0x1fff].map(|more| f32::from_bits(half.wrapping_add(more))));
        x.extend([0.5, 1.0, 1.5].map(|step| f32::from(bits % 2048) * 2f32.powi(-24) + step * 2f32.powi(-24)));
    }
    let mut halves = vec![f16::ZERO; x.len()];
    ops.f32_to_f16(&x, &mut halves);
    halves.iter().map(|half| half.to_bits()).collect()
}

/// The bounds of the coarse plane of a head, whose codes and digits reach their largest values.
fn bounds(ops: Ops, rows: usize, cols: usize) -> Vec<u32> {
    let team = Team::new(NonZeroUsize::MIN).expect("this thread");
    let w = numbers(rows * cols, 9);
    let plane = CoarsePlane::build(ops, &team, rows, cols, StoredRows::F32(&w)).expect("a small head");
    let mut batch = CoarseBatch::new(cols);
    for (t, factor) in [1.0, 1e3, 1e-3].into_iter().enumerate() {
        let mut x = numbers(cols, 20 + t as u64);
        x.iter_mut().for_each(|x| *x = if t == 1 { x.signum() * factor } else { *x * factor });
        assert!(batch.push(ops, &x), "within the limits");
    }
    let (n, blocks) = (batch.len(), plane.blocks());
    let (mut upper, mut maxima) = (vec![0.0; n * blocks * BLOCK_ROWS], vec![0.0; n * blocks]);
    let (mut upper_rows, mut maximum_rows) =
        (ColsMut::new(&mut upper, n, blocks * BLOCK_ROWS), ColsMut::new(&mut maxima, n, blocks));
    ops.coarse_bounds(&plane, &batch, 0..blocks, &mut upper_rows, &mut maximum_rows);
    upper.iter().chain(&maxima).map(|x| x.to_bits()).collect()
}

/// Attention to keys and values of every type.
fn attended(ops: Ops, len: usize, head_dim: usize) -> Vec<u32> {
    let (tokens, group) = (3, 2);
    let width = head_dim.next_multiple_of(16);
    let q = numbers(tokens * group * head_dim, 1);
    let queries = Queries {
        data: &q,
        tokens,
        token_stride: group * head_dim,
        group,
        head_dim,
        position: len.saturating_sub(tokens),
        scale: 0.1,
    };
    let rows = |seed| numbers(len.max(tokens) * head_dim, seed);
    let mut out = Vec::new();
    let mut scratch = AttendScratch::new(group, head_dim);
    let mut attend = |keys: KvData<'_>, values: KvData<'_>, stride: usize| {
        let of = |data| KvRows::new(data, len.max(tokens), head_dim, stride);
        let mut y = vec![0.0; tokens * group * head_dim];
        ops.attend(&queries, of(keys), of(values), &mut scratch, &mut ColsMut::new(&mut y, tokens, group * head_dim));
        out.extend(y.into_iter().map(f32::to_bits));
    };
    let (k, v) = (rows(5), rows(6));
    attend(KvData::F32(&k), KvData::F32(&v), head_dim);
    let half = |x: &[f32]| x.iter().map(|&x| f16::from_f32(x)).collect::<Vec<_>>();
    attend(KvData::F16(&half(&k)), KvData::F16(&half(&v)), head_dim);
    let eight = |x: &[f32]| {
        let mut codes = vec![0; x.len() / head_dim * width];
        let steps = x.chunks(head_dim).zip(codes.chunks_mut(width)).map(|(x, codes)| ops.quantize_kv8(x, codes));
        (steps.collect::<Vec<f32>>(), codes)
    };
    let ((ks, kc), (vs, vc)) = (eight(&k), eight(&v));
    attend(KvData::Int8 { codes: &kc, steps: &ks }, KvData::Int8 { codes: &vc, steps: &vs }, width);
    let four = |x: &[f32]| {
        let mut nibbles = vec![0; x.len() / head_dim * width / 2];
        let rows = x.chunks(head_dim).zip(nibbles.chunks_mut(width / 2));
        (rows.map(|(x, nibbles)| ops.quantize_kv4(x, nibbles)).collect::<Vec<f32>>(), nibbles)
    };
    let ((ks, kc), (vs, vc)) = (four(&k), four(&v));
    let of = |nibbles, steps| KvData::Int4 { nibbles, steps, first: None };
    attend(of(&kc, &ks), of(&vc, &vs), width);
    out
}

/// Numbers of very different sizes, the same at every call.
fn numbers(n: usize, seed: u64) -> Vec<f32> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    (0..n)
        .map(|_| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let unit = (state >> 40) as f32 / (1 << 23) as f32 - 1.0;
            unit * 2f32.powi((state >> 20 & 15) as i32 - 8)
        })
        .collect()
}

/// The bits of the results of the operations.
fn results(ops: Ops, n: usize, seed: u64) -> Vec<u32> {
    let (a, b) = (numbers(n, 2 * seed), numbers(n, 2 * seed + 1));
    let halves: Vec<f16> = b.iter().map(|&b| f16::from_f32(b)).collect();
    let brains: Vec<bf16> = b.iter().map(|&b| bf16::from_f32(b)).collect();
    let mut out = vec![ops.dot(&a, &b), ops.dot_f16(&a, &halves), ops.dot_bf16(&a, &brains)];
    let mut y = vec![0.0; n];
    ops.relu2_mul(&a, &b, &mut y);
    out.extend(&y);
    ops.silu_mul(&a, &b, &mut y);
    out.extend(&y);
    ops.rms_norm(&a, &b, 1e-5, &mut y);
    out.extend(&y);
    ops.axpy(0.3, &b, &mut y);
    out.extend(&y);
    ops.scale(1.7, &mut y);
    out.extend(&y);
    let integers: Vec<i32> = a.iter().map(|&a| (a * 1e6) as i32).collect();
    ops.scale_i32(&integers, 0.1, &mut y);
    out.extend(&y);
    let mut batch = Int8Batch::with_capacity(1, n);
    batch.reset(1, n);
    ops.quantize_int8(&a, batch.row_mut(0)).expect("finite numbers");
    out.extend(batch.view().row(0).codes().iter().map(|&c| f32::from(c)));
    out.extend(batch.scales());
    let mut batch = Int16Batch::with_capacity(1, n);
    batch.reset(1, n);
    ops.quantize_int16(&a, batch.row_mut(0)).expect("finite numbers");
    out.extend((0..n).map(|c| f32::from(batch.view().code(0, c))));
    out.extend(batch.view().sums(0).iter().map(|&s| s as f32));
    out.extend(batch.scales());
    // Twenty rows, some of which are added up side by side.
    let rows = numbers(20 * n, seed + 100);
    let mut sums = [0.0; 20];
    ops.dots(&rows, &a, &mut sums);
    out.extend(sums);
    out.into_iter().map(f32::to_bits).collect()
}
