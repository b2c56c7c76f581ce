//! Rests of a worker, so that it does not lose its CPU in the middle of a piece.
//!
//! A worker that shares its CPU with another program loses it when its time slice ends, nearly always in the middle of
//! a piece, and then all threads wait for that piece while the other program runs. A worker that has seen this knows
//! the length of a slice. From then on it stops shortly before the slice ends, between two pieces, and sleeps for as
//! long as it would have been away: meanwhile the others continue without it. After a few rests it skips one, to find
//! out whether the other program is still there.
//!
//! Times of single pieces are taken only after a phase that took suspiciously long.

use std::time::{Duration, Instant};

/// A phase of at least this time is suspicious: no phase of decoding takes so long, and no time slice is much shorter.
const SUSPICIOUS: Duration = Duration::from_micros(500);
/// A thread has lost its CPU if a piece took this many times as long as others, and [`SUSPICIOUS`].
const FAR_LONGER: u32 = 8;
/// Phases for which pieces are timed after a suspicion.
const WATCHED: u32 = 256;
/// Rests before the next check whether they are needed.
const RESTS: u32 = 16;
/// The longest rest, and so the longest plausible time slice.
const LONGEST: Duration = Duration::from_millis(12);

/// A worker's knowledge of its time slices.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pace {
    /// Phases in which pieces will still be timed.
    watched: u32,
    /// The usual time of a piece.
    usual: Duration,
    /// The estimated time at which this thread began to run.
    running_since: Instant,
    /// The time for which it ran before it lost its CPU.
    slice: Duration,
    /// The time for which it was away.
    away: Duration,
    /// Remaining rests.
    rests: u32,
}

impl Pace {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            watched: 0,
            usual: Duration::ZERO,
            running_since: now,
            slice: Duration::ZERO,
            away: Duration::ZERO,
            rests: 0,
        }
    }

    /// Whether pieces are timed.
    pub(super) fn watches(&self) -> bool {
        self.watched > 0
    }

    /// Notes that the thread has slept.
    pub(super) fn slept(&mut self, now: Instant) {
        self.running_since = now;
    }

    /// Notes that a phase took from `began` to `ended`.
    pub(super) fn phase(&mut self, began: Instant, ended: Instant) {
        if ended - began >= SUSPICIOUS {
            self.watched = WATCHED;
        } else {
            self.watched = self.watched.saturating_sub(1);
        }
    }

    /// Notes that a piece took from `began` to `ended`.
    pub(super) fn piece(&mut self, began: Instant, ended: Instant) {
        let took = ended - began;
        if self.usual > Duration::ZERO && took >= SUSPICIOUS.max(self.usual * FAR_LONGER) {
            (self.slice, self.away) = (began - self.running_since, (took - self.usual).min(LONGEST));
            self.rests = RESTS;
            self.running_since = ended;
        } else if self.usual == Duration::ZERO {
            // If the first piece had lost its CPU, this decreases piece by piece.
            self.usual = took;
        } else {
            self.usual = (self.usual * 7 + took) / 8;
        }
    }

    /// The length of a rest that should begin now, if any.
    pub(super) fn rest(&mut self, now: Instant) -> Option<Duration> {
        let running = now - self.running_since;
        // A slice that hardly lasts a few pieces does not predict the next one.
        if self.rests == 0 || self.slice < SUSPICIOUS || running < self.slice - self.slice / 8 {
            return None;
        }
        self.rests -= 1;
        Some(self.away)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PIECE: Duration = Duration::from_micros(5);

    /// Runs pieces until `pace` wants to rest, at most `most`; returns how long that took, and the rest.
    fn run(pace: &mut Pace, now: &mut Instant, most: u32) -> Option<(Duration, Duration)> {
        let began = *now;
        for _ in 0..most {
            if let Some(rest) = pace.rest(*now) {
                let worked = *now - began;
                *now += rest;
                pace.slept(*now);
                return Some((worked, rest));
            }
            pace.piece(*now, *now + PIECE);
            *now += PIECE;
        }
        None
    }

    #[test]
    fn a_lost_slice_is_laid_down_before_it_ends_a_few_times() {
        let mut now = Instant::now();
        let mut pace = Pace::new(now);
        assert_eq!(run(&mut pace, &mut now, 600), None);
        // After 3 ms it is away for 4 ms in the middle of a piece.
        let away = Duration::from_millis(4);
        pace.piece(now, now + PIECE + away);
        now += PIECE + away;
        for _ in 0..RESTS {
            let (worked, rest) = run(&mut pace, &mut now, 1000).unwrap();
            assert!((Duration::from_micros(2600)..Duration::from_millis(3)).contains(&worked), "{worked:?}");
            assert!(rest.abs_diff(away) < PIECE, "{rest:?}");
        }
        assert_eq!(run(&mut pace, &mut now, 10_000), None);
    }

    #[test]
    fn long_pieces_and_short_slices_are_no_reason() {
        let mut now = Instant::now();
        let mut pace = Pace::new(now);
        for _ in 0..100 {
            pace.piece(now, now + Duration::from_millis(3));
            now += Duration::from_millis(3);
            assert_eq!(pace.rest(now), None);
        }
        let mut pace = Pace::new(now);
        assert_eq!(run(&mut pace, &mut now, 10), None);
        pace.piece(now, now + Duration::from_millis(4));
        now += Duration::from_millis(4);
        assert_eq!(run(&mut pace, &mut now, 1000), None);
    }

    #[test]
    fn pieces_are_timed_for_a_while_after_a_suspicion() {
        let now = Instant::now();
        let mut pace = Pace::new(now);
        pace.phase(now, now + PIECE * 20);
        assert!(!pace.watches());
        pace.phase(now, now + SUSPICIOUS);
        for _ in 0..WATCHED {
            assert!(pace.watches());
            pace.phase(now, now + PIECE * 20);
        }
        assert!(!pace.watches());
    }
}
