//! Tests of the thread team: every part once, panics, sleep, late threads, concurrent and nested callers.

use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::*};
use std::time::{Duration, Instant};

use super::wait::SPIN;
use super::*;

fn team(threads: usize) -> Team {
    Team::new(NonZeroUsize::new(threads).unwrap()).unwrap()
}

/// Runs `f(i)` on each thread of the team: no part ends before all have begun.
fn on_all(team: &Team, f: impl Fn(usize) + Sync) {
    let begun = AtomicUsize::new(0);
    team.run(&|i| {
        begun.fetch_add(1, SeqCst);
        while begun.load(SeqCst) < team.threads() {
            thread::yield_now();
        }
        f(i);
    });
}

/// One counter per thread of the team.
fn counters(team: &Team) -> Vec<AtomicUsize> {
    (0..team.threads()).map(|_| AtomicUsize::new(0)).collect()
}

fn values(counters: &[AtomicUsize]) -> Vec<usize> {
    counters.iter().map(|c| c.load(Relaxed)).collect()
}

#[test]
fn every_part_runs_once_in_each_of_many_epochs() {
    // 7 threads are more than the CPUs of many machines: waiting threads must yield their CPU.
    for (threads, epochs) in [(1, 1000), (2, 20_000), (3, 1000), (7, 300)] {
        let team = team(threads);
        let counts = counters(&team);
        for epoch in 1..=epochs {
            team.run(&|i| {
                counts[i].fetch_add(1, Relaxed);
            });
            assert_eq!(values(&counts), vec![epoch; threads]);
        }
    }
}

#[test]
fn workers_have_names() {
    let team = team(3);
    let seen = Mutex::new(Vec::new());
    on_all(&team, |_| {
        lock(&seen).push(thread::current().name().map(str::to_owned));
    });
    let seen = lock(&seen).clone();
    for name in ["team-1", "team-2"] {
        assert_eq!(seen.iter().flatten().filter(|s| *s == name).count(), 1, "{seen:?}");
    }
}

#[test]
fn plain_writes_of_parts_are_seen_by_the_caller_and_by_the_next_epoch() {
    let team = team(2);
    let mut parts = [0u64; 2];
    for epoch in 0..10_000u64 {
        // Thread i writes the previous value of the other thread: lost or late writes would break the sequence.
        parts.swap(0, 1);
        team.run_parts(&mut parts, |_, p| {
            assert_eq!(*p, epoch);
            *p += 1;
        });
    }
    assert_eq!(parts, [10_000; 2]);
}

#[test]
fn sleeping_workers_and_a_sleeping_caller_are_woken() {
    let team = team(2);
    let caller = thread::current().id();
    for round in 0..20 {
        if round % 2 == 0 {
            while team.shared.sleep.sleepers() == 0 {
                thread::yield_now();
            }
        }
        let done = AtomicUsize::new(0);
        on_all(&team, |_| {
            if thread::current().id() != caller {
                // Long enough for the caller to fall asleep.
                thread::sleep(SPIN * 10);
            }
            done.fetch_add(1, Relaxed);
        });
        assert_eq!(done.load(Relaxed), 2);
    }
}

#[test]
fn waits_near_the_edge_of_sleep_lose_no_wakeup() {
    // Pauses around the time after which a worker sleeps, shorter and longer. Without the worker no part ends.
    let team = team(2);
    let count = AtomicUsize::new(0);
    for i in 0..400u32 {
        let pause = SPIN - Duration::from_micros(20) + Duration::from_nanos(u64::from(i) * 100);
        let start = Instant::now();
        while start.elapsed() < pause {
            std::hint::spin_loop();
        }
        on_all(&team, |i| {
            count.fetch_add(i, Relaxed);
        });
    }
    assert_eq!(count.load(Relaxed), 400);
}

#[test]
fn drop_joins_workers_that_spin_and_workers_that_sleep() {
    struct Witness(Arc<AtomicUsize>);
    impl Drop for Witness {
        fn drop(&mut self) {
            self.0.fetch_add(1, SeqCst);
        }
    }
    thread_local! { static WITNESS: Cell<Option<Witness>> = const { Cell::new(None) }; }
    let ended = Arc::new(AtomicUsize::new(0));
    for pause in [Duration::ZERO, SPIN * 20] {
        let team = team(3);
        let caller = thread::current().id();
        on_all(&team, |_| {
            if thread::current().id() != caller {
                WITNESS.set(Some(Witness(ended.clone())));
            }
        });
        thread::sleep(pause);
        drop(team);
        assert_eq!(ended.swap(0, SeqCst), 2, "workers that ended with their team");
    }
    drop(team(3));
}

#[test]
fn a_panic_is_resumed_on_the_caller_after_all_parts_ended() {
    let team = team(3);
    for culprit in 0..3 {
        let counts = counters(&team);
        let result = catch_unwind(AssertUnwindSafe(|| {
            team.run(&|i| {
                if i == culprit {
                    panic!("part {i}");
                }
                thread::sleep(Duration::from_millis(2));
                counts[i].fetch_add(1, Relaxed);
            });
        }));
        let payload = result.unwrap_err();
        assert_eq!(payload.downcast_ref::<String>(), Some(&format!("part {culprit}")));
        assert_eq!(values(&counts).iter().sum::<usize>(), 2);
        // The team works as before, and the panic is not reported twice.
        team.run(&|i| {
            counts[i].fetch_add(1, Relaxed);
        });
        assert_eq!(values(&counts).iter().sum::<usize>(), 5);
    }
    assert!(catch_unwind(AssertUnwindSafe(|| team.run(&|i| panic!("all of them, {i}")))).is_err());
    let count = AtomicUsize::new(0);
    team.run(&|_| {
        count.fetch_add(1, Relaxed);
    });
    assert_eq!(count.load(Relaxed), 3);
}

#[test]
fn a_panic_of_the_caller_does_not_mark_its_later_runs_as_nested() {
    let team = team(2);
    let _ = catch_unwind(AssertUnwindSafe(|| team.run(&|_| panic!("both"))));
    let ids = Mutex::new(Vec::new());
    on_all(&team, |_| lock(&ids).push(thread::current().id()));
    let ids = lock(&ids);
    assert_ne!(ids[0], ids[1]);
}

#[test]
fn concurrent_callers_take_turns() {
    let team = team(2);
    let total = AtomicU64::new(0);
    let running = AtomicUsize::new(0);
    thread::scope(|s| {
        for caller in 0..4u64 {
            let (team, total, running) = (&team, &total, &running);
            s.spawn(move || {
                for _ in 0..500 {
                    let mut parts = [0u64; 5];
                    team.run(&|i| {
                        if i == 0 {
                            assert_eq!(running.fetch_add(1, SeqCst), 0, "two jobs at once");
                            running.fetch_sub(1, SeqCst);
                        }
                    });
                    team.run_parts(&mut parts, |i, p| *p = caller + i as u64);
                    assert_eq!(parts, std::array::from_fn(|i| caller + i as u64));
                    total.fetch_add(parts.iter().sum(), Relaxed);
                }
            });
        }
    });
    assert_eq!(total.load(Relaxed), 500 * (4 * 10 + 5 * 6));
}

#[test]
fn nested_runs_go_through_their_parts_on_the_calling_thread() {
    let (outer, other) = (team(2), team(3));
    let same = AtomicUsize::new(0);
    outer.run(&|_| {
        let here = thread::current().id();
        for inner in [&outer, &other] {
            inner.run(&|_| {
                assert_eq!(thread::current().id(), here);
                same.fetch_add(1, Relaxed);
                // Nested twice.
                outer.for_each_chunk(&mut [0; 4], 1, |_, _| assert_eq!(thread::current().id(), here));
            });
        }
    });
    assert_eq!(same.load(Relaxed), 2 * (2 + 3));
}

#[test]
fn each_part_is_done_once() {
    for threads in 1..=8 {
        let team = team(threads);
        for len in 0..=40 {
            let mut parts = vec![0; len];
            team.run_parts(&mut parts, |i, p| *p += i + 1);
            assert!(parts.iter().copied().eq(1..=len), "{len} parts on {threads}");
        }
        let mut nothing = [(); 9];
        let count = AtomicUsize::new(0);
        team.run_parts(&mut nothing, |i, ()| {
            count.fetch_add(i, Relaxed);
        });
        assert_eq!(count.load(Relaxed), 36);
    }
}

#[test]
fn a_worker_that_does_not_come_is_not_waited_for() {
    // The only worker is kept busy in a job of another caller; then there are pieces meant for it.
    let team = team(2);
    let (held, release) = (AtomicBool::new(false), AtomicBool::new(false));
    let caller = thread::current().id();
    let mut done = vec![0; 100];
    let rest = AtomicUsize::new(0);
    // Part 0 of the caller continues only when the worker holds one; the worker's ends only when all other parts are
    // done.
    team.run_parts(&mut done, |_, d| {
        *d += 1;
        if thread::current().id() == caller {
            while !held.load(SeqCst) {
                thread::yield_now();
            }
            if rest.fetch_add(1, SeqCst) + 1 == 99 {
                release.store(true, SeqCst);
            }
        } else {
            held.store(true, SeqCst);
            while !release.load(SeqCst) {
                thread::yield_now();
            }
        }
    });
    assert_eq!((done, rest.into_inner()), (vec![1; 100], 99));
}

#[test]
fn rooms_belong_to_one_thread_at_a_time() {
    for threads in [1, 2, 5, 8] {
        let team = team(threads);
        let mut rooms = vec![Vec::new(); threads];
        for pieces in [0, 1, 2, 3, 8, 100, 1000] {
            rooms.iter_mut().for_each(Vec::clear);
            team.run_pieces(&mut rooms, pieces, |piece, room| room.push(piece));
            let mut all = rooms.concat();
            all.sort_unstable();
            assert!(all.into_iter().eq(0..pieces), "{pieces} on {threads}");
        }
    }
    assert!(catch_unwind(|| team(3).run_pieces(&mut [0; 2], 5, |_, _| ())).is_err());
}

#[test]
fn pieces_in_line_may_wait_for_those_before() {
    for threads in [1, 2, 3, 8] {
        let team = team(threads);
        for pieces in [1, 2, 7, 100] {
            let turn = AtomicUsize::new(0);
            let wait = |piece: usize| {
                while turn.load(SeqCst) != piece {
                    thread::yield_now();
                }
                turn.store(piece + 1, SeqCst);
            };
            team.run_in_line(&mut vec![(); pieces], &mut vec![(); threads], |piece, (), ()| wait(piece));
            assert_eq!(turn.swap(0, SeqCst), pieces);
            // Nested, too.
            team.run_parts(&mut [(), ()], |i, ()| {
                if i == 1 {
                    team.run_in_line(&mut vec![(); pieces], &mut vec![(); threads], |piece, (), ()| wait(piece));
                }
            });
            assert_eq!(turn.into_inner(), pieces);
        }
    }
}

#[test]
fn columns_are_covered_once() {
    for threads in [1, 2, 3, 8] {
        let team = team(threads);
        for (n, widths, panel, pieces, block) in [
            (3, [20, 7, 0], 4, 6, 3),
            (3, [20, 7, 0], 4, 6, 2),
            (1, [1, 1, 1], 16, 3, usize::MAX),
            (2, [64, 5, 33], 1, 40, 1),
            (4, [9, 9, 9], 2, 1, 4),
            (7, [9, 30, 9], 2, 2, 3),
            (0, [9, 9, 9], 2, 2, 3),
        ] {
            let mut data = widths.map(|w| vec![0usize; n * w]);
            let mut outputs: Vec<_> = (0..3)
                .zip(&mut data)
                .map(|(i, d)| Columns::new(i, ColsMut::new(d, n, widths[i]), panel, pieces).in_blocks(block))
                .collect();
            team.run_columns(&mut outputs, &mut vec![(); threads], |&i, rows, cols, view, ()| {
                assert!(cols.start.is_multiple_of(panel) && view.width() == cols.len());
                assert!(rows.start.is_multiple_of(block) && rows.len() <= block && view.n() == rows.len());
                for (r, t) in rows.enumerate() {
                    for (c, v) in cols.clone().zip(view.row_mut(r)) {
                        *v += i * 10_000 + t * 100 + c + 1;
                    }
                }
            });
            drop(outputs);
            for (i, data) in data.iter().enumerate() {
                let want = (0..n).flat_map(|t| (0..widths[i]).map(move |c| i * 10_000 + t * 100 + c + 1));
                assert!(data.iter().copied().eq(want), "output {i} of {widths:?} on {threads}");
            }
        }
    }
}

#[test]
fn a_slow_thread_does_fewer_pieces() {
    let team = team(2);
    let caller = thread::current().id();
    let (taken, by_caller) = (AtomicUsize::new(0), AtomicUsize::new(0));
    let mut rooms = [0usize; 2];
    team.run_pieces(&mut rooms, 64, |_, room| {
        *room += 1;
        let left = 64 - (taken.fetch_add(1, SeqCst) + 1);
        if thread::current().id() == caller {
            by_caller.fetch_add(1, SeqCst);
            return;
        }
        // As slow as three of the caller's pieces, while there are any.
        let until = by_caller.load(SeqCst) + left.min(3);
        while by_caller.load(SeqCst) < until && taken.load(SeqCst) < 64 {
            thread::yield_now();
        }
    });
    assert_eq!(rooms[0] + rooms[1], 64);
    // Half of them would be its share.
    assert!(rooms[1] <= 64 / 4 + 4, "{rooms:?}");
}

#[test]
fn a_slow_worker_leaves_the_last_pieces_and_gets_another_trial() {
    let team = team(2);
    // Pieces that the worker did in `phases` phases of two. Slowed, they take so long that `pace` watches them.
    let by_worker = |phases: usize| {
        let mut rooms = [0usize; 2];
        for _ in 0..phases {
            team.run_pieces(&mut rooms, 2, |_, room| {
                let began = Instant::now();
                while began.elapsed() < Duration::from_micros(40) {
                    std::hint::spin_loop();
                }
                *room += 1;
            });
        }
        assert_eq!(rooms[0] + rooms[1], 2 * phases);
        rooms[1]
    };
    team.slow_thread(1, 20.0);
    by_worker(400);
    assert!(by_worker(200) < 100, "a worker of a twentieth of the speed does as much as the caller");
    team.slow_thread(1, 1.0);
    // Until its slowness is forgotten, which takes some hundred phases.
    assert!((0..50).any(|_| by_worker(200) > 20), "a worker that is fast again stays idle");
}

#[test]
fn a_slowed_thread_computes_the_same() {
    let team = team(3);
    // The last one does nothing.
    for (thread, times) in [(0, 3.0), (1, 2.5), (2, 1.0), (2, f32::INFINITY)] {
        team.slow_thread(thread, times);
        let mut parts = [0; 50];
        for round in 1..=20 {
            team.run_parts(&mut parts, |i, p| *p += i);
            assert!(parts.iter().enumerate().all(|(i, p)| *p == i * round));
        }
    }
}

#[test]
fn thousands_of_phases_with_pauses() {
    for threads in [2, 3, 16] {
        let team = team(threads);
        let mut state = 1u32;
        let mut random = move || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            state >> 16
        };
        let rounds = if threads == 16 { 300 } else { 3000 };
        for round in 0..rounds {
            let pieces = random() as usize % 20;
            let sleeper = random() as usize % 400;
            let mut parts = vec![0; pieces];
            team.run_parts(&mut parts, |i, p| {
                if i == sleeper {
                    thread::sleep(Duration::from_micros(50 + 10 * i as u64));
                }
                *p += round + i;
            });
            assert!(parts.iter().enumerate().all(|(i, p)| *p == round + i), "round {round} on {threads}");
            if random() % 64 == 0 {
                // Some workers fall asleep, some do not.
                thread::sleep(SPIN * (random() % 3));
            }
        }
    }
}

#[test]
fn chunks_cover_the_data_once() {
    for threads in [1, 2, 3] {
        let team = team(threads);
        for len in [0, 1, 5, 6, 7, 64, 100] {
            for chunk_len in [1, 2, 3, 7, 100, 1000] {
                let mut data = vec![usize::MAX; len];
                team.for_each_chunk(&mut data, chunk_len, |c, chunk| {
                    for (i, v) in chunk.iter_mut().enumerate() {
                        assert_eq!(*v, usize::MAX);
                        *v = c * chunk_len + i;
                    }
                });
                assert!(data.iter().copied().eq(0..len), "{len} in chunks of {chunk_len} on {threads}");
            }
        }
    }
}

#[test]
fn shares_are_consecutive_and_differ_by_one_at_most() {
    for len in 0..40 {
        for parts in 1..10 {
            let mut at = 0;
            for p in 0..parts {
                let r = share(len, p, parts);
                assert_eq!(r.start, at);
                assert!(r.len() == len / parts || r.len() == len.div_ceil(parts));
                at = r.end;
            }
            assert_eq!(at, len);
        }
    }
    assert_eq!(share(usize::MAX, 2, 3).end, usize::MAX);
}
