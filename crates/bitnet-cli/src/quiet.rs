//! Panics of libraries that read strangers' files, as errors.

use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Once;

thread_local! {
    /// Whether this thread's panics are caught, and need no message.
    static CAUGHT: Cell<bool> = const { Cell::new(false) };
}

/// The result of `work`; `None` if it panicked, without the message that the system would print. Values that `work` has
/// changed may be in disorder then, and must not be used again.
pub(crate) fn catch<T>(work: impl FnOnce() -> T) -> Option<T> {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            if !CAUGHT.get() {
                before(info);
            }
        }));
    });
    let outer = CAUGHT.replace(true);
    let result = catch_unwind(AssertUnwindSafe(work));
    CAUGHT.set(outer);
    result.ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_is_none_and_the_next_call_works() {
        assert_eq!(catch(|| 1), Some(1));
        assert_eq!(catch(|| [1, 2].iter().map(|i| 6 / (i - 2)).sum::<i32>()), None);
        assert_eq!(catch(|| 2), Some(2));
        assert!(!CAUGHT.get());
    }
}
