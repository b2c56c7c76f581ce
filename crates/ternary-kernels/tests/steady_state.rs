//! Teams and operations allocate nothing once their buffers exist.

use std::alloc::{GlobalAlloc, Layout, System};
use std::num::NonZeroUsize;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use half::f16;
use ternary_kernels::ops::{AttendScratch, KvData, KvRows, Prepare, Queries};
use ternary_kernels::{
    GroupKernel, Int4Batch, Int8Batch, Int16Batch, Ops, Scales, Team, TernaryMatrix, kernels_available, split_cols,
};

/// The system's allocator with a count of the allocations.
struct Counting;

static ALLOCATIONS: AtomicUsize = AtomicUsize::new(0);

// SAFETY: every call goes to the system's allocator unchanged.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Relaxed);
        // SAFETY: the caller keeps the contract of `alloc`.
        unsafe { System.alloc(layout) }
    }
    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: the caller keeps the contract of `dealloc`, and `pointer` came from `System`.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

#[test]
fn a_forward_step_of_phases_allocates_nothing() {
    let (n, heads, d, k) = (3, 4, 32, 128);
    let team = Team::new(NonZeroUsize::new(2).unwrap()).unwrap();
    let ops = Ops::selected().unwrap();
    let x = vec![0.5f32; n * k];
    let gain = vec![1.0f32; k];
    let kv = vec![f16::ONE; 200 * d];
    let mut batch = Int8Batch::with_capacity(n, k);
    let (mut batch4, mut widened) = (Int4Batch::with_capacity(n, k), Int8Batch::with_capacity(0, 0));
    let mut row = vec![0.0; k];
    let kernels = kernels_available();
    let w = TernaryMatrix::from_trits(20, k, &vec![1; 20 * k], Scales::Tensor(1.0)).unwrap();
    let packed: Vec<_> = kernels.iter().map(|kernel| kernel.prepack(&w).unwrap()).collect();
    let mut acc = vec![0; n * 20];
    let groups = GroupKernel::available();
    let group_packed = groups[0].prepack(&w).unwrap();
    let (mut batch16, mut results) = (Int16Batch::with_capacity(n, k), vec![0.0; n * 20]);
    let mut out = vec![0.0f32; n * k];
    let mut scratch = [AttendScratch::new(heads, d), AttendScratch::new(heads, d)];
    let mut step = || {
        batch.reset(n, k);
        for (t, row) in batch.rows_mut().enumerate() {
            ops.rms_norm_quantize(&x[t * k..(t + 1) * k], &gain, 1e-5, row).unwrap();
        }
        batch4.reset(n, k);
        for (t, out) in batch4.rows_mut().enumerate() {
            let prepare = Prepare { norm: Some((&gain, 1e-5)), hadamard: Some(128) };
            ops.prepare_int4(&x[t * k..(t + 1) * k], prepare, &mut row, out).unwrap();
        }
        for (kernel, packed) in kernels.iter().zip(&packed) {
            kernel.gemm_a4(&packed.all(), &batch4.view(), &mut widened, &mut acc);
            kernel.gemv_a4(&packed.all(), &batch4.view().row(0), &mut widened, &mut acc[..20]);
        }
        batch16.reset(n, k);
        for (t, out) in batch16.rows_mut().enumerate() {
            let prepare = Prepare { norm: Some((&gain, 1e-5)), hadamard: Some(128) };
            ops.prepare_int16(&x[t * k..(t + 1) * k], prepare, &mut row, out).unwrap();
        }
        for kernel in &groups {
            kernel.product(&group_packed, 0..20, &batch16.view(), &mut results);
            kernel.product(&group_packed, 16..20, &batch16.view().rows(0..1), &mut results[..4]);
            kernel.product_int8(&group_packed, 0..20, &batch.view(), batch.scales(), &mut results);
        }
        team.for_each_chunk(&mut out, k, |t, out| ops.relu2_mul(&x[t * k..(t + 1) * k], &gain, out));
        team.run(&|_| ());
        // Two groups of two heads, each with its columns of the result.
        let bounds = [0..2 * d, 2 * d..4 * d];
        let mut views = split_cols(&mut out, n, k, &bounds);
        let mut parts = scratch.each_mut().map(|scratch| (scratch, views.next().unwrap()));
        team.run_parts(&mut parts, |i, (scratch, out)| {
            let rows = KvRows::new(KvData::F16(&kv), 200, d, d);
            let queries = Queries {
                data: &x[i * 2 * d..],
                tokens: n,
                token_stride: k,
                group: 2,
                head_dim: d,
                position: 197,
                scale: 0.1,
            };
            ops.attend(&queries, rows, rows, scratch, out);
        });
    };
    // Each thread has begun, and the first steps have created what the standard library allocates once per thread.
    let all = std::sync::Barrier::new(2);
    team.run(&|_| {
        all.wait();
    });
    (0..3).for_each(|_| step());
    let before = ALLOCATIONS.load(Relaxed);
    (0..100).for_each(|_| step());
    assert_eq!(ALLOCATIONS.load(Relaxed), before);
    assert_eq!(out, vec![1.0; n * k]);
}
