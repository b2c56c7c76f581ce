//! The window: its place, its two sizes, and dialogs for files.

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};

use tauri::{AppHandle, LogicalSize, Manager, Monitor, PhysicalPosition, PhysicalSize, WebviewWindow};

use crate::Failure;
use crate::shared::Shared;

/// Sizes in logical pixels: the character alone, and with its bubble.
const FIGURE: LogicalSize<f64> = LogicalSize { width: 150.0, height: 156.0 };
const BUBBLE: LogicalSize<f64> = LogicalSize { width: 420.0, height: 680.0 };
/// Pixels between the corner of the screen and the character, at first.
const MARGIN: i32 = 24;

/// Whether the reader moves the window, and not the program.
static DRAGGED: AtomicBool = AtomicBool::new(false);

/// Gives the window its size, at the place of the character: its lower right corner.
///
/// # Errors
/// `internal` if the system refuses.
pub(crate) fn arrange(window: &WebviewWindow, open: bool) -> Result<(), Failure> {
    DRAGGED.store(false, Ordering::Relaxed);
    let fail = Failure::internal;
    let monitor = match window.current_monitor().map_err(fail)? {
        Some(monitor) => Some(monitor),
        None => window.primary_monitor().map_err(fail)?,
    };
    let scale = monitor.as_ref().map_or(1.0, Monitor::scale_factor);
    let area = monitor.as_ref().map(|monitor| {
        let area = monitor.work_area();
        (area.position, area.size)
    });
    let mut logical = if open { BUBBLE } else { FIGURE };
    if let Some((_, size)) = area {
        logical.width = logical.width.min(f64::from(size.width) / scale);
        logical.height = logical.height.min(f64::from(size.height) / scale);
    }
    let size: PhysicalSize<u32> = logical.to_physical(scale);
    let shared = window.state::<Shared>();
    shared.write_place();
    let position = area.map(|area| place(area, size, shared.settings().place));
    // The program sets the size, and borders to pull at are not wanted.
    window.set_max_size(None::<LogicalSize<f64>>).map_err(fail)?;
    window.set_min_size(Some(logical)).map_err(fail)?;
    window.set_max_size(Some(logical)).map_err(fail)?;
    window.set_size(logical).map_err(fail)?;
    if let Some(position) = position {
        window.set_position(position).map_err(fail)?;
    }
    Ok(())
}

/// Where a window of `size` lies, with its lower right corner at `corner`, but within the area.
fn place(
    area: (PhysicalPosition<i32>, PhysicalSize<u32>),
    size: PhysicalSize<u32>,
    corner: Option<(i32, i32)>,
) -> PhysicalPosition<i32> {
    let (from, extent) = area;
    let along = |from: i32, extent: u32, size: u32, corner: Option<i32>| {
        let [extent, size] = [extent, size].map(|n| i32::try_from(n).unwrap_or(i32::MAX));
        let end = from.saturating_add(extent);
        let corner = corner.unwrap_or(end.saturating_sub(MARGIN));
        corner.min(end).saturating_sub(size).max(from)
    };
    PhysicalPosition::new(
        along(from.x, extent.width, size.width, corner.map(|c| c.0)),
        along(from.y, extent.height, size.height, corner.map(|c| c.1)),
    )
}

/// The reader drags the window until the button is let go.
///
/// # Errors
/// `internal` if the system refuses.
pub(crate) fn drag(window: &WebviewWindow) -> Result<(), Failure> {
    DRAGGED.store(true, Ordering::Relaxed);
    window.start_dragging().map_err(Failure::internal)
}

/// The window has moved to `position`: if it was dragged, the character stands there from now on.
pub(crate) fn moved(window: &WebviewWindow, position: PhysicalPosition<i32>) {
    if !DRAGGED.load(Ordering::Relaxed) {
        return;
    }
    let Ok(size) = window.outer_size() else { return };
    let [width, height] = [size.width, size.height].map(|n| i32::try_from(n).unwrap_or(0));
    let corner = (position.x.saturating_add(width), position.y.saturating_add(height));
    window.state::<Shared>().set_place(corner);
}

/// A model file that the reader chooses.
///
/// # Errors
/// `internal` if there can be no dialog.
pub(crate) async fn choose_model(app: &AppHandle) -> Result<Option<PathBuf>, Failure> {
    if let Some(path) = by_variable("BITNET_DESKTOP_MODEL") {
        return Ok(Some(path));
    }
    let dialog = rfd::AsyncFileDialog::new().add_filter("GGUF", &["gguf"]);
    show(app, move || dialog.pick_file()).await
}

/// A file to write that the reader chooses.
///
/// # Errors
/// `internal` if there can be no dialog.
pub(crate) async fn choose_target(app: &AppHandle, name: &str) -> Result<Option<PathBuf>, Failure> {
    if let Some(path) = by_variable("BITNET_DESKTOP_TARGET") {
        return Ok(Some(path));
    }
    let dialog = rfd::AsyncFileDialog::new().add_filter("JSON", &["json"]).set_file_name(name);
    show(app, move || dialog.save_file()).await
}

/// The test of the window names files by variables.
fn by_variable(name: &str) -> Option<PathBuf> {
    if cfg!(feature = "test-hooks") { std::env::var_os(name).map(PathBuf::from) } else { None }
}

/// Shows a dialog: it is made on the thread of the window and waited for elsewhere.
async fn show<F>(app: &AppHandle, dialog: impl FnOnce() -> F + Send + 'static) -> Result<Option<PathBuf>, Failure>
where
    F: Future<Output = Option<rfd::FileHandle>> + Send + 'static,
{
    let (made, dialogs) = std::sync::mpsc::channel();
    app.run_on_main_thread(move || {
        let _ = made.send(dialog());
    })
    .map_err(Failure::internal)?;
    let dialog = tauri::async_runtime::spawn_blocking(move || dialogs.recv());
    let dialog = dialog.await.map_err(Failure::internal)?.map_err(Failure::internal)?;
    Ok(dialog.await.map(|file| file.path().to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    const AREA: (PhysicalPosition<i32>, PhysicalSize<u32>) =
        (PhysicalPosition { x: 100, y: 30 }, PhysicalSize { width: 1000, height: 700 });

    fn at(width: u32, height: u32, corner: Option<(i32, i32)>) -> (i32, i32) {
        let position = place(AREA, PhysicalSize { width, height }, corner);
        (position.x, position.y)
    }

    #[test]
    fn the_character_stays_where_it_is_when_the_bubble_opens() {
        assert_eq!(at(150, 160, None), (1100 - 24 - 150, 730 - 24 - 160));
        let corner = Some((900, 650));
        assert_eq!(at(150, 160, corner), (750, 490));
        assert_eq!(at(400, 600, corner), (500, 50));
    }

    #[test]
    fn it_never_leaves_the_screen() {
        assert_eq!(at(150, 160, Some((5000, 5000))), (950, 570));
        assert_eq!(at(150, 160, Some((i32::MIN, i32::MIN))), (100, 30));
        assert_eq!(at(400, 600, Some((160, 100))), (100, 30));
        assert_eq!(at(5000, 5000, None), (100, 30));
    }
}
