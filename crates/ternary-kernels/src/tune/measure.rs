//! The measurement: prototypes of every shape, a pool of copies as large as the model, candidates in turn.

use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::{Duration, Instant};

use measure::{Samples, Turns};

use super::{Dropped, Group, Measurement, Phase, Shape, TuneOptions};
use crate::team::{Call, tokens_and_pieces};
use crate::{AlignedBuf, Int4Batch, Int8Batch, Kernel, KernelError, Packed, Scales, Team, TernaryMatrix};

/// Rounds that are always measured, and rounds after which more change nothing.
const ROUNDS: (usize, usize) = (3, 25);
/// A phase of a round is repeated for at least this long, so that the clock and a wake-up do not matter.
const MIN_SAMPLE: Duration = Duration::from_millis(3);
/// A candidate that takes this many times as long as the best on a small matrix, in both phases, is dropped: the sizes
/// of the formats differ by less than half of that.
const HOPELESS: f64 = 2.5;
/// Timings of the first look, after one to warm up.
const FIRST_LOOK_ROUNDS: usize = 3;
/// Tokens of the first look at prefill.
const FIRST_LOOK_TOKENS: usize = 16;
/// The largest pool, for any cache size that a CPU reports.
const LARGEST_POOL: usize = 1 << 30;

/// The result of [`run`].
pub(super) struct Measured {
    pub(super) measurements: Vec<Measurement>,
    pub(super) dropped: Vec<Dropped>,
    pub(super) rounds: usize,
    pub(super) from_memory: bool,
    pub(super) elapsed: Duration,
}

/// Kernels that are measured, and those that were dropped.
type Contenders = (Vec<Arc<dyn Kernel>>, Vec<Dropped>);

/// A kernel under test.
struct Candidate {
    kernel: Arc<dyn Kernel>,
    /// One packed matrix of each shape.
    prototypes: Vec<Packed>,
    /// Seconds for one product in each round, for each shape: decode, prefill.
    samples: Vec<[Vec<f64>; 2]>,
}

/// Activations of some tokens.
enum Input {
    Int8(Int8Batch),
    Int4(Int4Batch),
}

/// The state that all candidates share.
struct Bench {
    team: Team,
    shapes: Vec<Shape>,
    /// One token, and many tokens, for each shape.
    inputs: Vec<[Input; 2]>,
    /// Buffers of each thread: sums, and widened activations for kernels that widen int4.
    rooms: Vec<(AlignedBuf<i32>, Int8Batch)>,
    /// Packed matrices of one candidate, one after the other.
    pool: AlignedBuf<u8>,
}

pub(super) fn run(
    groups: &[Group],
    kernels: &[Arc<dyn Kernel>],
    defaults: &[&str],
    options: &TuneOptions,
    progress: &mut dyn FnMut(f64) -> ControlFlow<()>,
) -> Result<Measured, KernelError> {
    let began = Instant::now();
    let mut tell = |done: f64| match progress(done) {
        ControlFlow::Continue(()) => Ok(()),
        ControlFlow::Break(()) => Err(KernelError::Cancelled { op: "tune" }),
    };
    let shapes = distinct(groups);
    let tokens = options.prefill_tokens.max(1);
    let block = kernels.iter().map(|k| k.block_rows()).max().unwrap_or(0);
    let mut bench = Bench {
        team: Team::new(options.threads)?,
        inputs: shapes
            .iter()
            .map(|s| Ok([activations(1, s)?, activations(tokens, s)?]))
            .collect::<Result<_, KernelError>>()?,
        rooms: (0..options.threads.get())
            .map(|_| (AlignedBuf::zeroed(block * tokens.max(FIRST_LOOK_TOKENS)), Int8Batch::with_capacity(0, 0)))
            .collect(),
        pool: AlignedBuf::zeroed(0),
        shapes,
    };
    tell(0.0)?;
    let (kernels, dropped) = bench.first_look(kernels, defaults, &mut tell)?;
    let mut candidates = bench.pack(kernels, &mut tell)?;
    let slots = bench.slots(&candidates);
    let largest = candidates.iter().map(|c| c.bytes(&slots)).max().unwrap_or(0);
    let whole = candidates.iter().map(|c| c.model_bytes(&bench.shapes)).min().unwrap_or(0);
    bench.pool = AlignedBuf::zeroed(largest);

    let mut rounds = 0;
    while rounds < ROUNDS.0 || (rounds < ROUNDS.1 && began.elapsed() < options.budget) {
        let n = candidates.len();
        for (turn, i) in measure::order(rounds, n).enumerate() {
            bench.round(&mut candidates[i], &slots, rounds);
            let in_round = (turn + 1) as f64 / n as f64;
            let by_rounds = (rounds as f64 + in_round) / ROUNDS.0 as f64;
            let by_time = began.elapsed().as_secs_f64() / options.budget.as_secs_f64().max(1e-3);
            tell(by_rounds.min(by_time).min(1.0))?;
        }
        rounds += 1;
    }
    let measurements = bench.summary(&candidates, tokens);
    let from_memory = whole > crate::last_level_cache();
    Ok(Measured { measurements, dropped, rounds, from_memory, elapsed: began.elapsed() })
}

/// Every shape of `groups` once, with the number of all its matrices.
fn distinct(groups: &[Group]) -> Vec<Shape> {
    let mut all: Vec<Shape> = Vec::new();
    for s in groups.iter().flat_map(|g| &g.shapes).filter(|s| s.rows * s.cols * s.count > 0) {
        match all.iter_mut().find(|a| (a.rows, a.cols, a.int4) == (s.rows, s.cols, s.int4)) {
            Some(a) => a.count += s.count,
            None => all.push(*s),
        }
    }
    all
}

/// SplitMix64 of a counter.
fn hash(i: usize) -> u64 {
    let z = (i as u64).wrapping_add(0x9E37_79B9_7F4A_7C15);
    let z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

/// Pseudo-random codes, `[n, k]`.
fn activations(n: usize, shape: &Shape) -> Result<Input, KernelError> {
    let k = shape.cols;
    let codes = (0..n * k).map(|i| (hash(i) % 255) as i8);
    Ok(match shape.int4 {
        false => Input::Int8(Int8Batch::from_codes(n, k, &codes.map(|c| c.max(-127)).collect::<Vec<_>>())?),
        true => Input::Int4(Int4Batch::from_codes(n, k, &codes.map(|c| c >> 4).collect::<Vec<_>>())?),
    })
}

/// Pseudo-random trits.
fn matrix(s: Shape) -> Result<TernaryMatrix, KernelError> {
    let trits: Vec<i8> = (0..s.rows * s.cols).map(|i| (hash(i) % 3) as i8 - 1).collect();
    TernaryMatrix::from_trits(s.rows, s.cols, &trits, Scales::Tensor(1.0))
}

/// Bytes that a matrix takes in the pool: each begins at a cache line, as it does in a model.
fn room(packed: &Packed) -> usize {
    packed.byte_len().next_multiple_of(64)
}

impl Candidate {
    /// Bytes of the matrices of these shapes.
    fn bytes(&self, slots: &[usize]) -> usize {
        slots.iter().map(|&s| room(&self.prototypes[s])).sum()
    }

    /// Bytes of the whole model.
    fn model_bytes(&self, shapes: &[Shape]) -> usize {
        self.prototypes.iter().zip(shapes).map(|(p, s)| p.byte_len() * s.count).sum()
    }
}

impl Bench {
    /// Every kernel on the smallest matrix, in turns; those far behind the best are left out.
    fn first_look(
        &mut self,
        kernels: &[Arc<dyn Kernel>],
        defaults: &[&str],
        tell: &mut impl FnMut(f64) -> Result<(), KernelError>,
    ) -> Result<Contenders, KernelError> {
        let small = (0..self.shapes.len()).min_by_key(|&s| self.shapes[s].rows * self.shapes[s].cols).unwrap_or(0);
        let w = matrix(self.shapes[small])?;
        let many = activations(FIRST_LOOK_TOKENS, &self.shapes[small])?;
        let packed = kernels.iter().map(|kernel| kernel.prepack(&w)).collect::<Result<Vec<_>, _>>()?;
        let looks: Vec<(usize, usize)> = (0..kernels.len()).flat_map(|k| [(k, 0), (k, 1)]).collect();
        let Self { team, inputs, rooms, .. } = self;
        let mut told = Ok(());
        let times = Turns::new(FIRST_LOOK_ROUNDS).warm_once().time(&looks, |&(k, phase)| {
            told = std::mem::replace(&mut told, Ok(())).and_then(|()| tell(0.0));
            if told.is_ok() {
                let x = [&inputs[small][0], &many][phase];
                product(team, kernels[k].as_ref(), &packed[k], packed[k].all().bytes(), x, rooms);
            }
        });
        told?;
        let times: Vec<[f64; 2]> = times.chunks_exact(2).map(|t| [t[0].least(), t[1].least()]).collect();
        let best = |phase: usize| times.iter().map(|t| t[phase]).fold(f64::INFINITY, f64::min);
        let best = [best(0), best(1)];
        let (mut kept, mut dropped) = (Vec::new(), Vec::new());
        for (kernel, t) in kernels.iter().zip(&times) {
            let worse = (t[0] / best[0]).min(t[1] / best[1]);
            if worse <= HOPELESS || defaults.contains(&kernel.name()) {
                kept.push(kernel.clone());
            } else {
                dropped.push(Dropped { kernel: kernel.name().to_owned(), times: worse });
            }
        }
        Ok((kept, dropped))
    }

    /// Packs one matrix of each shape for each kernel.
    fn pack(
        &self,
        kernels: Vec<Arc<dyn Kernel>>,
        tell: &mut impl FnMut(f64) -> Result<(), KernelError>,
    ) -> Result<Vec<Candidate>, KernelError> {
        let empty = || self.shapes.iter().map(|_| [Vec::new(), Vec::new()]).collect();
        let mut all: Vec<Candidate> =
            kernels.into_iter().map(|kernel| Candidate { kernel, prototypes: Vec::new(), samples: empty() }).collect();
        for &shape in &self.shapes {
            let w = matrix(shape)?;
            for candidate in &mut all {
                candidate.prototypes.push(candidate.kernel.prepack(&w)?);
                tell(0.0)?;
            }
        }
        Ok(all)
    }

    /// The shapes of the matrices in the pool: each at least once, then in turn until the model is complete or the
    /// smallest packing fills twice the last-level cache.
    fn slots(&self, candidates: &[Candidate]) -> Vec<usize> {
        let limit = (2 * crate::last_level_cache()).min(LARGEST_POOL);
        let least = |s: usize| candidates.iter().map(|c| c.prototypes[s].byte_len()).min().unwrap_or(0);
        let (mut slots, mut bytes) = (Vec::new(), 0);
        for turn in 0..self.shapes.iter().map(|s| s.count).max().unwrap_or(0) {
            for s in (0..self.shapes.len()).filter(|&s| turn < self.shapes[s].count) {
                if turn > 0 && bytes >= limit {
                    return slots;
                }
                slots.push(s);
                bytes += least(s);
            }
        }
        slots
    }

    /// Fills the pool with matrices of one candidate and measures both phases.
    fn round(&mut self, candidate: &mut Candidate, slots: &[usize], round: usize) {
        let Candidate { kernel, prototypes, samples } = candidate;
        let mut rest = &mut self.pool[..];
        let mut jobs = Vec::with_capacity(slots.len());
        let mut matrices = Vec::with_capacity(slots.len());
        let mut at = 0;
        for &s in slots {
            let (len, room) = (prototypes[s].byte_len(), room(&prototypes[s]));
            let (mine, behind) = rest.split_at_mut(room);
            jobs.push((&mut mine[..len], s));
            matrices.push((s, at..at + len));
            (rest, at) = (behind, at + room);
        }
        self.team.run_parts(&mut jobs, |_, (bytes, s)| bytes.copy_from_slice(prototypes[*s].all().bytes()));
        drop(jobs);

        let Self { team, inputs, rooms, pool, shapes } = self;
        let mut time = |s: usize, phase: usize, bytes: &[u8]| {
            product(team, kernel.as_ref(), &prototypes[s], bytes, &inputs[s][phase], rooms)
        };
        // One token passes through all of them, as in use.
        let (mut sums, began) = (vec![(0.0, 0usize); shapes.len()], Instant::now());
        loop {
            for (s, range) in &matrices {
                let sum = &mut sums[*s];
                *sum = (sum.0 + time(*s, 0, &pool[range.clone()]), sum.1 + 1);
            }
            if began.elapsed() >= MIN_SAMPLE {
                break;
            }
        }
        for (samples, (seconds, n)) in samples.iter_mut().zip(sums) {
            samples[0].push(seconds / n as f64);
        }
        // Many tokens, with another matrix of each shape in each round.
        for (s, samples) in samples.iter_mut().enumerate() {
            let all: Vec<_> = matrices.iter().filter(|(slot, _)| *slot == s).map(|(_, range)| range).collect();
            let (mut seconds, mut n, began) = (0.0, 0, Instant::now());
            while n == 0 || began.elapsed() < MIN_SAMPLE {
                seconds += time(s, 1, &pool[all[(round + n) % all.len()].clone()]);
                n += 1;
            }
            samples[1].push(seconds / n as f64);
        }
    }

    /// Medians, in the order of shapes, phases and candidates.
    fn summary(&self, candidates: &[Candidate], tokens: usize) -> Vec<Measurement> {
        let mut all = Vec::new();
        for (s, shape) in self.shapes.iter().enumerate() {
            for (phase, n) in [(Phase::Decode, 1), (Phase::Prefill, tokens)] {
                for c in candidates {
                    all.push(Measurement {
                        rows: shape.rows,
                        cols: shape.cols,
                        int4: shape.int4,
                        phase,
                        kernel: c.kernel.name().to_owned(),
                        seconds: Samples::from(c.samples[s][phase as usize].clone()).median(),
                        bytes: c.prototypes[s].byte_len(),
                        operations: 2.0 * shape.rows as f64 * shape.cols as f64 * n as f64,
                    });
                }
            }
        }
        all
    }
}

/// Seconds of one product, with its rows split over the threads and divided into blocks like in an engine. `bytes` are
/// a copy of those of `packed`.
fn product(
    team: &Team,
    kernel: &dyn Kernel,
    packed: &Packed,
    bytes: &[u8],
    x: &Input,
    rooms: &mut [(AlignedBuf<i32>, Int8Batch)],
) -> f64 {
    let n = match x {
        Input::Int8(x) => x.view().n(),
        Input::Int4(x) => x.view().n(),
    };
    let call = Call { tokens: kernel.block_tokens(), rows: kernel.block_rows(), least_rows: kernel.least_rows(n) };
    let (tokens, pieces) = tokens_and_pieces(team.threads(), n, (packed.rows(), packed.cols()), &call);
    let began = Instant::now();
    team.run_pieces(rooms, n.div_ceil(tokens) * pieces, |piece, (acc, widened)| {
        let first = piece / pieces * tokens;
        let tokens = first..n.min(first + tokens);
        for block in packed.blocks(packed.split(piece % pieces, pieces), kernel.block_rows()) {
            let acc = &mut acc[..tokens.len() * block.len()];
            let rows = packed.rows_of(bytes, block).expect("blocks begin and end at panels");
            match x {
                Input::Int8(x) if tokens.len() == 1 => kernel.gemv(&rows, &x.view().row(first), acc),
                Input::Int8(x) => kernel.gemm(&rows, &x.view().rows(tokens.clone()), acc),
                Input::Int4(x) if tokens.len() == 1 => kernel.gemv_a4(&rows, &x.view().row(first), widened, acc),
                Input::Int4(x) => kernel.gemm_a4(&rows, &x.view().rows(tokens.clone()), widened, acc),
            }
        }
    });
    std::hint::black_box(&rooms);
    began.elapsed().as_secs_f64()
}
