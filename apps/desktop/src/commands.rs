//! The commands that the page may call. The engine computes on its own thread; here one only waits for it, on threads that may wait.

use std::io::Write;
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use serde::Serialize;
use tauri::ipc::{Channel, InvokeBody, Request, Response};
use tauri::{AppHandle, Manager, State, WebviewWindow};

use crate::Failure;
use crate::engine::{Binding, GenerateRequest, Info, Listener, News, Recalled, Source, Worker};
use crate::memory::Found;
use crate::plan::Plan;
use crate::settings::{Language, MAX_THREADS, Settings};
use crate::shared::{Notice, Shared, Wish};
use crate::{start, tray, window};

/// Characters of a conversation that is exported.
const MAX_EXPORT: usize = 256 << 20;

/// Does something where waiting is allowed.
async fn apart<T: Send + 'static>(
    app: &AppHandle,
    what: impl FnOnce(&Shared) -> Result<T, Failure> + Send + 'static,
) -> Result<T, Failure> {
    let app = app.clone();
    let done = tauri::async_runtime::spawn_blocking(move || what(&app.state::<Shared>())).await;
    done.map_err(Failure::internal)?
}

/// Has the engine do something.
async fn engine<T: Send + 'static>(
    app: &AppHandle,
    job: impl FnOnce(&mut Worker) -> Result<T, Failure> + Send + 'static,
) -> Result<T, Failure> {
    apart(app, move |shared| shared.engine.wait(job)).await
}

fn not_chosen(path: &Path) -> Failure {
    Failure::request("path", format!("{}: choose it in the settings", path.display()))
}

/// Facts that the page needs at its beginning.
#[derive(Debug, Serialize)]
pub(crate) struct Beginning {
    texts: Option<String>,
    settings: Settings,
    autostart: bool,
    notices: Vec<Notice>,
}

#[tauri::command]
pub(crate) async fn begin(app: AppHandle) -> Result<Beginning, Failure> {
    apart(&app, |shared| {
        let mut notices = Vec::new();
        let found = shared.memory.as_ref().map_or(Found::Nothing, |memory| memory.texts());
        let texts = match found {
            Found::Nothing => None,
            Found::Good(texts) => Some(texts),
            Found::SetAside(path, damage) => {
                notices.push(Notice::new("texts", format!("{}: {damage}", path.display())));
                None
            }
        };
        let autostart = start::autostart().and_then(|auto| auto.is_enabled().map_err(Failure::internal));
        Ok(Beginning { texts, settings: shared.settings(), autostart: autostart.unwrap_or(false), notices })
    })
    .await
}

#[tauri::command]
pub(crate) fn listen(shared: State<'_, Shared>, window: WebviewWindow, wishes: Channel<Wish>) -> Result<(), Failure> {
    shared.listen(wishes);
    window::arrange(&window, false)?;
    window.show().map_err(Failure::internal)
}

#[tauri::command]
pub(crate) async fn load(app: AppHandle, path: Option<PathBuf>) -> Result<Info, Failure> {
    apart(&app, move |shared| {
        let source = match path {
            None => Source::Builtin,
            Some(path) if shared.is_chosen(&path) => Source::Path(path),
            Some(path) => return Err(not_chosen(&path)),
        };
        let threads = shared.settings().threads;
        shared.engine.wait(move |worker| worker.load(&source, threads))
    })
    .await
}

#[tauri::command]
pub(crate) async fn info(app: AppHandle) -> Result<Info, Failure> {
    engine(&app, |worker| worker.info()).await
}

#[tauri::command]
pub(crate) async fn open(app: AppHandle) -> Result<String, Failure> {
    engine(&app, Worker::open).await
}

#[tauri::command]
pub(crate) async fn generate(app: AppHandle, request: GenerateRequest, news: Channel<News>) -> Result<(), Failure> {
    let listener: Listener = Box::new(move |item| {
        // A page that was loaded again does not listen to the old one's news.
        let _ = news.send(item);
    });
    engine(&app, move |worker| {
        worker.generate(&request, listener);
        Ok(())
    })
    .await
}

#[tauri::command]
pub(crate) async fn cancel(app: AppHandle, id: String) -> Result<(), Failure> {
    engine(&app, move |worker| {
        worker.cancel(&id);
        Ok(())
    })
    .await
}

#[tauri::command]
pub(crate) async fn fork(app: AppHandle, session: String) -> Result<String, Failure> {
    engine(&app, move |worker| worker.fork(&session)).await
}

/// The number of tokens in eight bytes, and the session.
#[tauri::command]
pub(crate) async fn save(app: AppHandle, session: String) -> Result<Response, Failure> {
    let (bytes, tokens) = engine(&app, move |worker| worker.save(&session)).await?;
    Ok(Response::new([&(tokens as u64).to_le_bytes()[..], &bytes].concat()))
}

#[tauri::command]
pub(crate) async fn restore(app: AppHandle, request: Request<'_>) -> Result<String, Failure> {
    let InvokeBody::Raw(bytes) = request.body() else {
        return Err(Failure::request("saved", "a session is sent as bytes"));
    };
    let bytes = bytes.clone();
    engine(&app, move |worker| worker.restore(&bytes)).await
}

#[tauri::command]
pub(crate) async fn close(app: AppHandle, session: String) -> Result<(), Failure> {
    engine(&app, move |worker| worker.close(&session)).await
}

/// Remembers the page's texts, and the sessions that have read them.
#[tauri::command]
pub(crate) async fn keep(app: AppHandle, texts: String, states: Vec<Binding>) -> Result<(), Failure> {
    apart(&app, move |shared| {
        if let Some(memory) = &shared.memory {
            memory.keep_texts(&texts)?;
        }
        shared.engine.wait(move |worker| worker.bind(states))
    })
    .await
}

#[tauri::command]
pub(crate) async fn recall(app: AppHandle, conversation: String) -> Result<Option<Recalled>, Failure> {
    engine(&app, move |worker| worker.recall(&conversation)).await
}

/// Forgets the states of one conversation; everything without one.
#[tauri::command]
pub(crate) async fn forget(app: AppHandle, conversation: Option<String>) -> Result<(), Failure> {
    engine(&app, move |worker| worker.forget(conversation.as_deref())).await
}

/// A remembered state, with the bytes of its file.
#[derive(Debug, Serialize)]
pub(crate) struct Remembered {
    conversation: String,
    model: String,
    tokens: usize,
    bytes: u64,
}

#[tauri::command]
pub(crate) async fn remembered(app: AppHandle) -> Result<Vec<Remembered>, Failure> {
    apart(&app, |shared| {
        let states = shared.memory.as_ref().map(|memory| memory.states()).unwrap_or_default();
        let row = |(about, bytes): (crate::memory::About, u64)| Remembered {
            conversation: about.conversation,
            model: about.model,
            tokens: about.tokens,
            bytes,
        };
        Ok(states.into_iter().map(row).collect())
    })
    .await
}

/// Writes a conversation with its state to a file that the reader chooses, in the format of the page. Where it lies now.
#[tauri::command]
pub(crate) async fn export(
    app: AppHandle,
    conversation: String,
    session: Option<String>,
) -> Result<Option<PathBuf>, Failure> {
    if conversation.len() > MAX_EXPORT {
        return Err(Failure::request("conversation", format!("at most {MAX_EXPORT} bytes are written")));
    }
    serde_json::from_str::<serde_json::Map<String, serde_json::Value>>(&conversation)
        .map_err(|e| Failure::request("conversation", e.to_string()))?;
    let Some(path) = window::choose_target(&app, "conversation.bitnet.json").await? else { return Ok(None) };
    apart(&app, move |shared| {
        let saved = match session {
            Some(session) => Some(shared.engine.wait(move |worker| worker.save(&session))?),
            None => None,
        };
        let mut file = loader::files::Pending::private(&path)?;
        let state = saved.map_or_else(
            || "null".to_owned(),
            |(bytes, tokens)| {
                let bytes = BASE64_STANDARD.encode(bytes);
                format!(r#"{{"backend":"desktop","tokens":{tokens},"bytes":"{bytes}"}}"#)
            },
        );
        let head = r#"{"format":"bitnet-conversation","version":1,"conversation":"#;
        for part in [head, &conversation, ",\"state\":", &state, "}\n"] {
            file.write_all(part.as_bytes()).map_err(|e| file.failed(e))?;
        }
        file.commit()?;
        Ok(Some(path))
    })
    .await
}

/// A file that the reader chooses, with its memory, before it is loaded.
#[tauri::command]
pub(crate) async fn choose_model(app: AppHandle) -> Result<Option<Plan>, Failure> {
    let Some(path) = window::choose_model(&app).await? else { return Ok(None) };
    apart(&app, move |shared| {
        let plan = Plan::of(&path)?;
        shared.add_chosen(path);
        Ok(Some(plan))
    })
    .await
}

#[tauri::command]
pub(crate) async fn set_model(app: AppHandle, path: Option<PathBuf>) -> Result<(), Failure> {
    apart(&app, move |shared| {
        if let Some(unknown) = path.as_ref().filter(|path| !shared.is_chosen(path)) {
            return Err(not_chosen(unknown));
        }
        shared.set(|settings| settings.model = path)
    })
    .await
}

#[tauri::command]
pub(crate) async fn set_threads(app: AppHandle, threads: usize) -> Result<(), Failure> {
    if threads > MAX_THREADS {
        return Err(Failure::request("threads", format!("{threads}: at most {MAX_THREADS}")));
    }
    apart(&app, move |shared| shared.set(|settings| settings.threads = threads)).await
}

#[tauri::command]
pub(crate) async fn set_language(app: AppHandle, language: Language) -> Result<(), Failure> {
    apart(&app, move |shared| shared.set(|settings| settings.language = Some(language))).await?;
    tray::translate(&app, language);
    Ok(())
}

#[tauri::command]
pub(crate) async fn set_shortcut(app: AppHandle, shortcut: String) -> Result<(), Failure> {
    let handle = app.clone();
    apart(&app, move |shared| {
        start::set_shortcut(&handle, &shortcut)?;
        shared.set(|settings| settings.shortcut = shortcut)
    })
    .await
}

#[tauri::command]
pub(crate) async fn set_autostart(app: AppHandle, on: bool) -> Result<(), Failure> {
    apart(&app, move |_| {
        let auto = start::autostart()?;
        if on { auto.enable() } else { auto.disable() }.map_err(Failure::internal)
    })
    .await
}

#[tauri::command]
pub(crate) fn show_bubble(window: WebviewWindow, open: bool) -> Result<(), Failure> {
    window::arrange(&window, open)?;
    if open {
        window.set_focus().map_err(Failure::internal)?;
    }
    Ok(())
}

#[tauri::command]
pub(crate) fn drag(window: WebviewWindow) -> Result<(), Failure> {
    window::drag(&window)
}

#[tauri::command]
pub(crate) fn menu(app: AppHandle, window: WebviewWindow) -> Result<(), Failure> {
    tray::popup(&app, &window)
}

#[tauri::command]
pub(crate) fn quit(app: AppHandle) {
    app.exit(0);
}
