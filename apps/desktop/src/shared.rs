//! State that commands, tray and window share.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde::Serialize;
use tauri::ipc::Channel;

use crate::Failure;
use crate::engine::Engine;
use crate::memory::Memory;
use crate::settings::Settings;

/// Something to tell the reader: a kind that the page has words for, and the program's own.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Notice {
    kind: &'static str,
    message: String,
}

impl Notice {
    pub(crate) fn new(kind: &'static str, message: impl Into<String>) -> Self {
        Self { kind, message: message.into() }
    }
}

/// Wishes from outside of the page.
#[derive(Clone, Debug, Serialize)]
#[serde(tag = "kind", rename_all = "camelCase")]
pub(crate) enum Wish {
    Show,
    Toggle,
    Settings,
    /// The program ends as soon as the page has kept its texts.
    Leave,
    Notice {
        notice: Notice,
    },
}

/// State of the program.
pub(crate) struct Shared {
    pub(crate) engine: Arc<Engine>,
    /// Nothing if its folder cannot be used.
    pub(crate) memory: Option<Arc<Memory>>,
    settings: Mutex<Settings>,
    settings_path: PathBuf,
    /// Whether the character was moved since the settings were written: a drag has too many places to write each.
    moved: AtomicBool,
    /// Files that the reader chose in this run: the page cannot name others.
    chosen: Mutex<Vec<PathBuf>>,
    wishes: Mutex<Wishes>,
}

/// The page's ear, and what it was told before it had one.
#[derive(Default)]
struct Wishes {
    page: Option<Channel<Wish>>,
    waiting: Vec<Wish>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Shared {
    pub(crate) fn new(
        engine: Engine,
        memory: Option<Arc<Memory>>,
        settings: Settings,
        settings_path: PathBuf,
        notices: Vec<Notice>,
    ) -> Self {
        let waiting = notices.into_iter().map(|notice| Wish::Notice { notice }).collect();
        Self {
            engine: Arc::new(engine),
            memory,
            settings: Mutex::new(settings),
            settings_path,
            moved: AtomicBool::new(false),
            chosen: Mutex::default(),
            wishes: Mutex::new(Wishes { page: None, waiting }),
        }
    }

    pub(crate) fn settings(&self) -> Settings {
        lock(&self.settings).clone()
    }

    /// Changes the settings and writes them.
    ///
    /// # Errors
    /// `internal` if they cannot be written; then they are changed for this run.
    pub(crate) fn set(&self, change: impl FnOnce(&mut Settings)) -> Result<(), Failure> {
        let mut settings = lock(&self.settings);
        let before = settings.clone();
        change(&mut settings);
        if *settings == before {
            return Ok(());
        }
        Ok(settings.write(&self.settings_path)?)
    }

    /// The character stands elsewhere; [`Shared::write_place`] writes it.
    pub(crate) fn set_place(&self, corner: (i32, i32)) {
        lock(&self.settings).place = Some(corner);
        self.moved.store(true, Ordering::Relaxed);
    }

    /// Writes the place of the character if it has moved. One that cannot be written counts for this run.
    pub(crate) fn write_place(&self) {
        if self.moved.swap(false, Ordering::Relaxed) {
            let _ = self.settings().write(&self.settings_path);
        }
    }

    pub(crate) fn add_chosen(&self, path: PathBuf) {
        lock(&self.chosen).push(path);
    }

    /// Whether the reader has chosen this file, in this run or in an earlier one.
    pub(crate) fn is_chosen(&self, path: &Path) -> bool {
        lock(&self.chosen).iter().any(|chosen| chosen == path) || lock(&self.settings).model.as_deref() == Some(path)
    }

    /// The page listens from now on, in place of one that did before.
    pub(crate) fn listen(&self, page: Channel<Wish>) {
        let mut wishes = lock(&self.wishes);
        for wish in std::mem::take(&mut wishes.waiting) {
            let _ = page.send(wish);
        }
        wishes.page = Some(page);
    }

    /// Asks the page for something. Whether it can hear it.
    pub(crate) fn wish(&self, wish: Wish) -> bool {
        let mut wishes = lock(&self.wishes);
        match &wishes.page {
            Some(page) => page.send(wish).is_ok(),
            None => {
                wishes.waiting.push(wish);
                false
            }
        }
    }
}
