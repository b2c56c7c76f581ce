//! Tests of the thread team: every part once, panics, sleep, concurrent and nested callers.

use std::sync::atomic::AtomicU64;

use super::*;

fn team(threads: usize) -> Team {
    Team::new(NonZeroUsize::new(threads).unwrap()).unwrap()
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
    // 7 threads are more than the CPUs of many machines: the waits must give their CPU away.
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
fn part_0_is_the_callers_and_the_others_have_named_threads_of_their_own() {
    let team = team(3);
    let caller = thread::current().id();
    let seen = Mutex::new(Vec::new());
    team.run(&|i| lock(&seen).push((i, thread::current().id(), thread::current().name().map(str::to_owned))));
    let mut seen = lock(&seen).clone();
    seen.sort_by_key(|s| s.0);
    assert_eq!(seen[0].1, caller);
    assert_eq!(seen[1].2.as_deref(), Some("team-1"));
    assert_eq!(seen[2].2.as_deref(), Some("team-2"));
    assert!(seen[1].1 != caller && seen[2].1 != caller && seen[1].1 != seen[2].1);
}

#[test]
fn plain_writes_of_parts_are_seen_by_the_caller_and_by_the_next_epoch() {
    let team = team(2);
    let mut parts = [0u64; 2];
    for epoch in 0..10_000u64 {
        // Thread i writes what the other thread wrote before: lost or late writes would break the sequence.
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
    let counts = counters(&team);
    for round in 1..=20 {
        thread::sleep(AWAKE * 3);
        if round == 10 {
            while team.shared.seldom.0.sleepers.load(SeqCst) == 0 {
                thread::yield_now();
            }
        }
        team.run(&|i| {
            if i == 1 {
                // Long enough for the caller to fall asleep.
                thread::sleep(AWAKE * 3);
            }
            counts[i].fetch_add(1, Relaxed);
        });
        assert_eq!(values(&counts), [round; 2]);
    }
}

#[test]
fn waits_near_the_edge_of_sleep_lose_no_wakeup() {
    // Pauses around AWAKE, on either side: the race between falling asleep and the next epoch.
    let team = team(2);
    let count = AtomicUsize::new(0);
    for i in 0..400u32 {
        let pause = AWAKE - Duration::from_micros(20) + Duration::from_nanos(u64::from(i) * 100);
        let start = Instant::now();
        while start.elapsed() < pause {
            std::hint::spin_loop();
        }
        team.run(&|i| {
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
    for pause in [Duration::ZERO, AWAKE * 10] {
        let team = team(3);
        team.run(&|i| {
            if i > 0 {
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
        // The team is as good as new, and the panic is not told twice.
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
    team.run(&|_| lock(&ids).push(thread::current().id()));
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
                // Twice nested.
                outer.for_each_chunk(&mut [0; 4], 1, |_, _| assert_eq!(thread::current().id(), here));
            });
        }
    });
    assert_eq!(same.load(Relaxed), 2 * (2 + 3));
}

#[test]
fn parts_go_to_thread_i_modulo_threads_each_once() {
    for threads in [1, 2, 3] {
        let team = team(threads);
        let ids = Mutex::new(vec![None; threads]);
        team.run(&|i| lock(&ids)[i] = Some(thread::current().id()));
        let ids = ids.into_inner().unwrap();
        for len in 0..=10 {
            let mut parts = vec![(0, None); len];
            team.run_parts(&mut parts, |i, p| *p = (p.0 + i + 1, Some(thread::current().id())));
            for (i, part) in parts.iter().enumerate() {
                assert_eq!(*part, (i + 1, ids[i % threads]));
            }
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
