//! A clock from the host, and a place for the message of a panic.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use wasm_bindgen::prelude::wasm_bindgen;

#[wasm_bindgen]
extern "C" {
    #[wasm_bindgen(js_namespace = performance, js_name = now)]
    fn performance_now() -> f64;
    #[wasm_bindgen(js_namespace = Date, js_name = now)]
    fn date_now() -> f64;
}

static LAST_PANIC: Mutex<Option<String>> = Mutex::new(None);

/// Sets the clock of all times, and a hook that keeps the message of a panic: the instance ends with a trap that says
/// nothing.
pub(crate) fn start() {
    #[cfg(target_arch = "wasm32")]
    bitnet::set_clock(performance_now);
    std::panic::set_hook(Box::new(|panic| {
        *LAST_PANIC.lock().unwrap_or_else(PoisonError::into_inner) = Some(panic.to_string());
    }));
}

/// Milliseconds since any moment.
pub(crate) fn now() -> f64 {
    performance_now()
}

/// The time of day, which the standard library does not know here.
pub(crate) fn time_of_day() -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::try_from_secs_f64(date_now() / 1e3).unwrap_or_default()
}

/// The message of the panic that ended this instance, if one did.
#[wasm_bindgen]
pub fn last_panic() -> Option<String> {
    LAST_PANIC.lock().unwrap_or_else(PoisonError::into_inner).clone()
}
