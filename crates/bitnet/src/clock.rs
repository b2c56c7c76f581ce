//! The clock of [`Stats`](crate::Stats): the system's, or, where the standard library has none, the caller's.
//!
//! On `wasm32-unknown-unknown` the standard library panics when it is asked for the time. A program for the browser
//! hands over the clock of its host once ([`set_clock`]); until then times are zero.

#[cfg(not(all(target_family = "wasm", target_os = "unknown")))]
pub(crate) use std::time::Instant;

#[cfg(all(target_family = "wasm", target_os = "unknown"))]
pub(crate) use host::Instant;
#[cfg(all(target_family = "wasm", target_os = "unknown"))]
pub use host::set_clock;

#[cfg(any(test, all(target_family = "wasm", target_os = "unknown")))]
mod host {
    use std::sync::OnceLock;
    use std::time::Duration;

    static CLOCK: OnceLock<fn() -> f64> = OnceLock::new();

    /// Has all times of this crate come from `now`: milliseconds since any moment, such as `performance.now()`. The
    /// first call counts; returns whether this was it.
    #[cfg_attr(test, expect(unreachable_pub, reason = "exported where the host supplies the clock"))]
    pub fn set_clock(now: fn() -> f64) -> bool {
        CLOCK.set(now).is_ok()
    }

    /// A moment of the caller's clock.
    #[derive(Clone, Copy, Debug)]
    pub(crate) struct Instant(Duration);

    impl Instant {
        pub(crate) fn now() -> Self {
            let milliseconds = CLOCK.get().map_or(0.0, |now| now());
            Self(Duration::try_from_secs_f64(milliseconds / 1e3).unwrap_or_default())
        }

        /// Time since then; zero if the clock went back.
        pub(crate) fn elapsed(self) -> Duration {
            Self::now().0.saturating_sub(self.0)
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};
    use std::time::Duration;

    use super::host::{Instant, set_clock};

    static NOW: AtomicU64 = AtomicU64::new(0);

    /// In milliseconds; a negative one is a clock that is broken.
    fn now() -> f64 {
        NOW.load(Ordering::Relaxed) as i64 as f64
    }

    #[test]
    fn times_are_those_of_the_callers_clock() {
        // Zero before there is one.
        assert_eq!(Instant::now().elapsed(), Duration::ZERO);
        assert!(set_clock(now) && !set_clock(|| 5.0));
        NOW.store(250, Ordering::Relaxed);
        let began = Instant::now();
        NOW.store(1750, Ordering::Relaxed);
        assert_eq!(began.elapsed(), Duration::from_millis(1500));
        for back in [0, -1i64 as u64] {
            NOW.store(back, Ordering::Relaxed);
            assert_eq!(began.elapsed(), Duration::ZERO);
        }
    }
}
