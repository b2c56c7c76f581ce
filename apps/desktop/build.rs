//! Writes what the window may ask for: the commands of the program and nothing else. Each is allowed by
//! `capabilities/main.json`.

/// Every command; `src/lib.rs` has the same list.
const COMMANDS: &[&str] = &[
    "begin",
    "listen",
    "load",
    "info",
    "open",
    "generate",
    "cancel",
    "fork",
    "save",
    "restore",
    "close",
    "keep",
    "recall",
    "forget",
    "remembered",
    "export",
    "choose_model",
    "set_model",
    "set_threads",
    "set_language",
    "set_shortcut",
    "set_autostart",
    "show_bubble",
    "drag",
    "menu",
    "quit",
];

fn main() {
    let manifest = tauri_build::AppManifest::new().commands(COMMANDS);
    if let Err(error) = tauri_build::try_build(tauri_build::Attributes::new().app_manifest(manifest)) {
        eprintln!("{error:#}");
        std::process::exit(1);
    }
}
