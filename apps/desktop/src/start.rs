//! The program: its beginning, its end, and its ways in from outside.

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use auto_launch::{AutoLaunch, AutoLaunchBuilder};
use tauri::{AppHandle, Manager, RunEvent, WindowEvent};
use tauri_plugin_global_shortcut::{GlobalShortcutExt, ShortcutState};

use crate::engine::Engine;
use crate::memory::{Found, Memory};
use crate::settings::Settings;
use crate::shared::{Notice, Shared, Wish};
use crate::{Failure, commands, tray, window};

/// The folder for everything, instead of those of the system: a second character, or a test.
const HOME: &str = "BITNET_DESKTOP_HOME";
/// Time that the page has to keep its texts before the end.
const LAST_WORDS: Duration = Duration::from_secs(3);

/// Runs the program until it is ended.
pub fn run() -> ExitCode {
    let builder = tauri::Builder::default()
        .plugin(tauri_plugin_single_instance::init(|app, _, _| show(app)))
        .invoke_handler(tauri::generate_handler![
            commands::begin,
            commands::listen,
            commands::load,
            commands::info,
            commands::open,
            commands::generate,
            commands::cancel,
            commands::fork,
            commands::save,
            commands::restore,
            commands::close,
            commands::keep,
            commands::recall,
            commands::forget,
            commands::remembered,
            commands::export,
            commands::choose_model,
            commands::set_model,
            commands::set_threads,
            commands::set_language,
            commands::set_shortcut,
            commands::set_autostart,
            commands::show_bubble,
            commands::drag,
            commands::menu,
            commands::quit,
        ])
        .setup(|app| Ok(set_up(app.handle())?));
    match builder.build(tauri::generate_context!()) {
        Ok(app) => {
            app.run(on_event);
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

fn set_up(app: &AppHandle) -> tauri::Result<()> {
    let (memory_folder, settings_path) = match std::env::var_os(HOME).map(PathBuf::from) {
        Some(home) => (home.join("memory"), home.join("settings.json")),
        None => (app.path().app_data_dir()?.join("memory"), app.path().app_config_dir()?.join("settings.json")),
    };
    let mut notices = Vec::new();
    let settings = match Settings::read(&settings_path) {
        Found::Good(settings) => settings,
        Found::Nothing => Settings::default(),
        Found::SetAside(path, damage) => {
            notices.push(Notice::new("settings", format!("{}: {damage}", path.display())));
            Settings::default()
        }
    };
    let memory = match Memory::open(&memory_folder) {
        Ok(memory) => Some(Arc::new(memory)),
        Err(error) => {
            notices.push(Notice::new("memory", error.to_string()));
            None
        }
    };
    let handle = app.clone();
    let trouble = move |failure: Failure| {
        let notice = Notice::new("save", failure.message);
        if let Some(shared) = handle.try_state::<Shared>() {
            shared.wish(Wish::Notice { notice });
        }
    };
    let engine = Engine::start(memory.clone(), Box::new(trouble));
    app.manage(Shared::new(engine, memory, settings.clone(), settings_path, notices));
    if let Err(error) = tray::add(app) {
        eprintln!("no tray: {error}");
    }
    let plugin = tauri_plugin_global_shortcut::Builder::new().build();
    let registered = app.plugin(plugin).map_err(Failure::internal).and_then(|()| set_shortcut(app, &settings.shortcut));
    if let Err(error) = registered {
        let notice = Notice::new("shortcut", format!("{}: {error}", settings.shortcut));
        app.state::<Shared>().wish(Wish::Notice { notice });
    }
    Ok(())
}

/// Another start of the program, or its icon: the character comes to the front with its bubble.
fn show(app: &AppHandle) {
    if let Some(window) = app.get_webview_window("main") {
        let _ = window.show();
        let _ = window.set_focus();
    }
    if let Some(shared) = app.try_state::<Shared>() {
        shared.wish(Wish::Show);
    }
}

/// Takes other keys than before; none if there are none.
///
/// # Errors
/// `request` for keys that cannot be read or belong to another program.
pub(crate) fn set_shortcut(app: &AppHandle, keys: &str) -> Result<(), Failure> {
    let all = app.global_shortcut();
    let fail = |e: tauri_plugin_global_shortcut::Error| Failure::request("shortcut", e.to_string());
    let before = app.state::<Shared>().settings().shortcut;
    all.unregister_all().map_err(fail)?;
    if keys.trim().is_empty() {
        return Ok(());
    }
    let toggle = |app: &AppHandle, state: ShortcutState| {
        if state == ShortcutState::Pressed {
            if let Some(window) = app.get_webview_window("main") {
                let _ = window.show();
            }
            app.state::<Shared>().wish(Wish::Toggle);
        }
    };
    let register = |keys: &str| all.on_shortcut(keys, move |app, _, event| toggle(app, event.state));
    register(keys).map_err(|error| {
        // The keys of before work again.
        if before != keys {
            let _ = register(&before);
        }
        fail(error)
    })
}

/// The start with the system, which the system keeps; off unless it was turned on.
///
/// # Errors
/// `internal` if the system has none.
pub(crate) fn autostart() -> Result<AutoLaunch, Failure> {
    // An AppImage is another file than the program within.
    let program = std::env::var_os("APPIMAGE").map(PathBuf::from);
    let program = match program {
        Some(image) => image,
        None => std::env::current_exe().map_err(Failure::internal)?,
    };
    let mut builder = AutoLaunchBuilder::new();
    builder.set_app_name("bitnet-desktop").set_app_path(&program.to_string_lossy());
    builder.build().map_err(Failure::internal)
}

/// Ends the program: the page keeps its texts first, if it still answers.
pub(crate) fn leave(app: &AppHandle) {
    let heard = app.state::<Shared>().wish(Wish::Leave);
    let app = app.clone();
    std::thread::spawn(move || {
        if heard {
            std::thread::sleep(LAST_WORDS);
        }
        app.exit(0);
    });
}

fn on_event(app: &AppHandle, event: RunEvent) {
    match event {
        RunEvent::WindowEvent { event: WindowEvent::Moved(position), label, .. } => {
            if let Some(window) = app.get_webview_window(&label) {
                window::moved(&window, position);
            }
        }
        RunEvent::WindowEvent { event: WindowEvent::CloseRequested { api, .. }, .. } => {
            api.prevent_close();
            leave(app);
        }
        RunEvent::Exit => {
            if let Some(shared) = app.try_state::<Shared>() {
                shared.write_place();
                shared.engine.close();
            }
        }
        _ => {}
    }
}
