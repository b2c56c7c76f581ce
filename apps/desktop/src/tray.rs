//! The menu of the tray, which a right click on the character shows as well.

use std::panic::{AssertUnwindSafe, catch_unwind};

use tauri::menu::{Menu, MenuEvent, MenuItem, PredefinedMenuItem};
use tauri::tray::TrayIconBuilder;
use tauri::{AppHandle, Manager, WebviewWindow, Wry};

use crate::Failure;
use crate::settings::Language;
use crate::shared::{Shared, Wish};
use crate::start;

/// Id of the tray's icon.
const TRAY: &str = "tray";

/// Items of the menu: an id and words in both languages.
const ITEMS: [(&str, &str, &str); 4] = [
    ("toggle", "Open or close the bubble", "吹き出しを開閉"),
    ("settings", "Settings …", "設定…"),
    ("hide", "Hide or show the character", "キャラクターを隠す・表示"),
    ("quit", "Quit", "終了"),
];

fn menu(app: &AppHandle, language: Language) -> tauri::Result<Menu<Wry>> {
    let menu = Menu::new(app)?;
    for (id, en, ja) in ITEMS {
        if id == "quit" {
            menu.append(&PredefinedMenuItem::separator(app)?)?;
        }
        let words = if language == Language::Ja { ja } else { en };
        menu.append(&MenuItem::with_id(app, id, words, true, None::<&str>)?)?;
    }
    Ok(menu)
}

fn language(app: &AppHandle) -> Language {
    app.state::<Shared>().settings().language.unwrap_or(Language::En)
}

/// Makes the tray's icon.
///
/// # Errors
/// Without a tray; the character has the same menu.
pub(crate) fn add(app: &AppHandle) -> Result<(), String> {
    let make = || -> tauri::Result<()> {
        let mut builder = TrayIconBuilder::with_id(TRAY).menu(&menu(app, language(app))?).tooltip("bitnet");
        if let Some(icon) = app.default_window_icon() {
            builder = builder.icon(icon.clone());
        }
        builder.build(app).map(|_| ())
    };
    app.on_menu_event(on_menu);
    // The library of the tray is looked for at run time, and its absence is a panic there.
    match catch_unwind(AssertUnwindSafe(make)) {
        Ok(made) => made.map_err(|e| e.to_string()),
        Err(_) => Err("the library of the tray is missing (libayatana-appindicator3)".to_owned()),
    }
}

fn on_menu(app: &AppHandle, event: MenuEvent) {
    let shared = app.state::<Shared>();
    let Some(window) = app.get_webview_window("main") else { return };
    let hide = event.id() == "hide" && window.is_visible().unwrap_or(true);
    // The menu works without it.
    let _ = if hide { window.hide() } else { window.show() };
    match event.id().as_ref() {
        "toggle" => {
            shared.wish(Wish::Toggle);
        }
        "settings" => {
            shared.wish(Wish::Settings);
        }
        "quit" => start::leave(app),
        _ => {}
    }
}

/// Gives the tray's menu another language.
pub(crate) fn translate(app: &AppHandle, language: Language) {
    let handle = app.clone();
    let _ = app.run_on_main_thread(move || {
        if let (Some(tray), Ok(menu)) = (handle.tray_by_id(TRAY), menu(&handle, language)) {
            let _ = tray.set_menu(Some(menu));
        }
    });
}

/// Shows the menu at the pointer.
///
/// # Errors
/// `internal` if the system refuses.
pub(crate) fn popup(app: &AppHandle, window: &WebviewWindow) -> Result<(), Failure> {
    let menu = menu(app, language(app)).map_err(Failure::internal)?;
    window.popup_menu(&menu).map_err(Failure::internal)
}
