//! A stack of known size, for any calling thread.

/// Enough for the deepest template that is let through, with room to spare.
const STACK: usize = 32 << 20;

/// Runs `run` on a separate thread; `None` if no thread could be started, or if it panicked.
pub(in super::super) fn on_own_stack<T: Send>(run: impl FnOnce() -> T + Send) -> Option<T> {
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().name("chat template".into()).stack_size(STACK);
        thread.spawn_scoped(scope, run).ok()?.join().ok()
    })
}
