//! A server under mixed load for minutes: how long ordinary clients wait, and whether memory grows.

use std::path::Path;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use measure::Samples;

use crate::error::HostileError;
use crate::served::{Serving, hostile, plain, requests};
use crate::watch::megabytes;

/// Clients of each sort.
const CLIENTS: usize = 4;

/// Runs for `time`; whether the server lived and memory stayed.
pub(crate) fn run(program: &Path, inputs: &Path, time: Duration) -> Result<bool, HostileError> {
    let requests = requests(inputs)?;
    let mut serving = Serving::start(program, &[])?;
    plain(&serving.client).map_err(|problem| HostileError::Server { problem })?;
    // Every request once, so that caches are filled before anything is compared.
    for (_, path, body) in &requests {
        // Its answer does not matter here.
        let _ = hostile(&serving.client, path, body);
    }
    let (began, before) = (Instant::now(), serving.memory("VmRSS"));
    let waits = Mutex::new(Vec::new());
    let failures = Mutex::new(Vec::new());
    let count = Mutex::new(0usize);
    let (target, asked) = (serving.client.clone(), &requests);
    std::thread::scope(|scope| {
        let (target, waits, failures, count) = (&target, &waits, &failures, &count);
        for client in 0..CLIENTS {
            scope.spawn(move || {
                let mut turn = client;
                while began.elapsed() < time {
                    let Some((name, path, body)) = asked.get(turn % asked.len()) else { return };
                    turn += CLIENTS + 1;
                    match hostile(target, path, body) {
                        Ok(_) => *lock(count) += 1,
                        Err(error) => lock(failures).push(format!("{name}: {error}")),
                    }
                }
            });
            scope.spawn(move || {
                while began.elapsed() < time {
                    match plain(target) {
                        Ok(wait) => lock(waits).push((began.elapsed(), wait)),
                        Err(error) => lock(failures).push(format!("plain: {error}")),
                    }
                    std::thread::sleep(Duration::from_millis(50));
                }
            });
        }
    });
    let after = serving.memory("VmRSS");
    let (waits, failures) = (std::mem::take(&mut *lock(&waits)), std::mem::take(&mut *lock(&failures)));
    let part = |from: f64, to: f64| {
        let within = |at: Duration| (from..to).contains(&(at.as_secs_f64() / time.as_secs_f64()));
        waits.iter().filter(|w| within(w.0)).map(|w| 1e3 * w.1.as_secs_f64()).collect::<Samples>()
    };
    println!("{:.0} s, {} hostile requests, {} plain ones", began.elapsed().as_secs_f64(), lock(&count), waits.len());
    for (name, part) in [("first fifth", part(0.0, 0.2)), ("last fifth", part(0.8, 2.0)), ("all", part(0.0, 2.0))] {
        let [p50, p99, most] = [0.5, 0.99, 1.0].map(|share| part.percentile(share));
        println!("plain requests, {name}: p50 {p50:.1} ms, p99 {p99:.1} ms, longest {most:.1} ms");
    }
    println!("resident: {} at the beginning, {} at the end", megabytes(before), megabytes(after));
    for failure in failures.iter().take(10) {
        println!("FAULT  {failure}");
    }
    let lives = serving.lives();
    let grown = after > before + before / 4 + 50_000_000;
    if !lives {
        println!("FAULT  the server has ended");
    }
    if grown {
        println!("FAULT  memory has grown");
    }
    Ok(lives && !grown && failures.is_empty() && !waits.is_empty())
}

/// Nothing panics while it holds one of these.
fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}
