//! A stack of known size, for any calling thread.

/// Enough for the deepest template that is let through, with room to spare.
const STACK: usize = 32 << 20;

/// Runs `run` on a separate thread; `None` if no thread could be started, or if it panicked.
///
/// WebAssembly has no threads here and a stack of its own that nothing overflows into: what is too deep for it ends the
/// instance, and the host sees an exception.
pub(in super::super) fn on_own_stack<T: Send>(run: impl FnOnce() -> T + Send) -> Option<T> {
    if cfg!(target_family = "wasm") {
        return Some(run());
    }
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().name("chat template".into()).stack_size(STACK);
        thread.spawn_scoped(scope, run).ok()?.join().ok()
    })
}
