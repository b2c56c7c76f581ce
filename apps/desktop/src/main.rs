//! The desktop companion. Everything is in the library, so that it can be tested.

// No console window next to it on Windows.
#![cfg_attr(not(debug_assertions), windows_subsystem = "windows")]

fn main() -> std::process::ExitCode {
    bitnet_desktop::run()
}
