//! The folder beside the output, where a run keeps its rows and how far it is.
//!
//! `OUT.map/rows` grows by whole batches; `OUT.map/journal.json` says how many of its bytes belong to which rows of the
//! input, and for which input, model and options. The journal is replaced after the rows are on the disk: after a kill,
//! `rows` has the bytes of the journal and perhaps more, which are cut off. At the end `rows` becomes the output.

use std::fs::{File, OpenOptions};
use std::io::{Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use loader::files::{self, FileError, FolderLock, Kind};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::read::Place;
use crate::error::CliError;

/// The name of the journal.
const JOURNAL_FILE: &str = "journal.json";
/// The form of the journal.
const VERSION: u32 = 1;
/// Choices and schemas are within it.
const JOURNAL: Kind = Kind::new("a journal of `bitnet map`", 256 << 20);

/// How far a run is.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Journal {
    version: u32,
    /// Input, model and options: rows of different ones do not belong into one table.
    pub(super) of: Value,
    /// The place in the input before which all rows are written.
    pub(super) place: Place,
    /// Bytes of `rows` that belong to them.
    bytes: u64,
    /// Rows that failed.
    pub(super) failed: u64,
    /// Rows without a text.
    pub(super) nulls: u64,
    /// Whether all rows are written, and the output may be there already.
    pub(super) finished: bool,
}

/// The folder of a run.
#[derive(Debug)]
pub(super) struct Work {
    folder: PathBuf,
    /// Whether the journal is kept: a stream cannot be read again.
    resumable: bool,
    rows: Option<File>,
    pub(super) journal: Journal,
    written: u64,
    last: Instant,
    _lock: FolderLock,
}

/// Whether a run for an output was begun and not finished.
pub(super) fn is_begun(output: &Path) -> bool {
    folder_of(output).join(JOURNAL_FILE).is_file()
}

/// The folder for an output.
fn folder_of(output: &Path) -> PathBuf {
    // A link is kept, and the file behind it replaced: from the same file system.
    let mut name = files::resolve(output).into_os_string();
    name.push(".map");
    name.into()
}

impl Work {
    /// Begins, or continues with `resume` where a run was ended; `of` is the input, the model and the options, and `head`
    /// the bytes before all rows. With `force` an earlier run is forgotten.
    ///
    /// # Errors
    /// An earlier run without a word on what to do with it; one with another input, model or options; a run that is going
    /// on; files that cannot be read or written.
    pub(super) fn open(
        output: &Path,
        of: Value,
        head: &[u8],
        (resume, force, resumable): (bool, bool, bool),
    ) -> Result<Self, CliError> {
        let folder = folder_of(output);
        if std::fs::symlink_metadata(&folder).is_ok_and(|meta| !meta.is_dir()) {
            let problem = format!("{} is in the way: rows are kept in a folder of this name", folder.display());
            return Err(CliError::usage(problem));
        }
        std::fs::create_dir_all(&folder).map_err(FileError::io("create", &folder))?;
        let lock = FolderLock::take(&folder)?;
        let found = Self::read(&folder.join(JOURNAL_FILE));
        let place = Place::default();
        let fresh = Journal { version: VERSION, of, place, bytes: 0, failed: 0, nulls: 0, finished: false };
        let journal = match found {
            _ if force && !resume => fresh.clone(),
            Ok(None) => fresh.clone(),
            // Nothing was made yet.
            Ok(Some(journal)) if journal.place.rows == 0 && !journal.finished => fresh.clone(),
            Ok(Some(journal)) if resume => {
                check_same(&journal.of, &fresh.of, output)?;
                journal
            }
            Ok(Some(journal)) => {
                return Err(CliError::usage(format!(
                    "{} holds {} rows of an earlier run; --resume continues it, --force begins again",
                    folder.display(),
                    journal.place.rows
                )));
            }
            Err(problem) => {
                let path = folder.join(JOURNAL_FILE);
                return Err(CliError::Table { path, problem: format!("{problem}; --force begins again") });
            }
        };
        let begins = journal == fresh;
        let mut work =
            Self { folder, resumable, rows: None, written: journal.bytes, journal, last: Instant::now(), _lock: lock };
        if begins {
            work.remove_files();
            work.append(head)?;
            work.commit()?;
        } else if !work.journal.finished {
            work.cut()?;
        }
        Ok(work)
    }

    fn read(path: &Path) -> Result<Option<Journal>, String> {
        let text = match files::read_text(path, JOURNAL) {
            Ok(text) => text,
            Err(error) if error.is_absent() => return Ok(None),
            Err(error) => return Err(error.to_string()),
        };
        let version = |value: &Value| value["version"].as_u64();
        let damaged = |e: serde_json::Error| format!("the journal is damaged: {e}");
        let value: Value = serde_json::from_str(&text).map_err(damaged)?;
        match version(&value) {
            Some(v) if v == u64::from(VERSION) => serde_json::from_value(value).map(Some).map_err(damaged),
            _ => Err("the journal is that of another version of this program".to_owned()),
        }
    }

    pub(super) fn rows_path(&self) -> PathBuf {
        self.folder.join("rows")
    }

    fn file(&mut self) -> Result<&mut File, CliError> {
        let path = self.rows_path();
        if self.rows.is_none() {
            files::replaceable(&path)?;
            let open = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&path);
            self.rows = Some(open.map_err(FileError::io("write", &path))?);
        }
        self.rows.as_mut().ok_or_else(|| CliError::usage("there are no rows"))
    }

    /// Cuts off bytes that the journal does not know.
    fn cut(&mut self) -> Result<(), CliError> {
        let (path, bytes) = (self.rows_path(), self.journal.bytes);
        let file = self.file()?;
        let failed = || FileError::io("write", &path);
        let len = file.metadata().map_err(failed())?.len();
        if len < bytes {
            let problem = format!("it has {len} bytes, and the journal knows {bytes}; --force begins again");
            return Err(CliError::Table { path, problem });
        }
        file.set_len(bytes).map_err(failed())?;
        file.seek(SeekFrom::Start(bytes)).map_err(failed())?;
        Ok(())
    }

    /// Appends bytes, which count from the next [`Work::commit`] on.
    ///
    /// # Errors
    /// A full disk, for example.
    pub(super) fn append(&mut self, bytes: &[u8]) -> Result<(), CliError> {
        let path = self.rows_path();
        self.file()?.write_all(bytes).map_err(FileError::io("write", &path))?;
        self.written += bytes.len() as u64;
        Ok(())
    }

    /// The time since the last commit.
    pub(super) fn since_commit(&self) -> Duration {
        self.last.elapsed()
    }

    /// Makes sure that all that was appended survives a kill and a power failure.
    ///
    /// # Errors
    /// A full disk, for example.
    pub(super) fn commit(&mut self) -> Result<(), CliError> {
        let path = self.rows_path();
        self.journal.bytes = self.written;
        self.last = Instant::now();
        if !self.resumable {
            return Ok(());
        }
        self.file()?.sync_data().map_err(FileError::io("write", &path))?;
        let text = serde_json::to_vec_pretty(&self.journal).map_err(std::io::Error::from);
        let path = self.folder.join(JOURNAL_FILE);
        files::write(&path, &text.map_err(FileError::io("write", &path))?)?;
        Ok(())
    }

    /// Whether an earlier run completed the output and was ended right after.
    pub(super) fn is_done(&self, output: &Path) -> bool {
        self.journal.finished && !self.rows_path().exists() && output.exists()
    }

    /// Gives the rows the name of the output, in one step.
    ///
    /// # Errors
    /// A file that cannot be renamed.
    pub(super) fn rename_to(&mut self, output: &Path) -> Result<(), CliError> {
        let rows = self.rows_path();
        self.file()?.sync_all().map_err(FileError::io("write", &rows))?;
        self.rows = None;
        std::fs::rename(&rows, files::resolve(output)).map_err(FileError::io("rename to", output))?;
        // The name is durable once its folder is. Some file systems cannot flush folders.
        if cfg!(unix)
            && let Ok(folder) =
                File::open(self.folder.parent().filter(|p| *p != Path::new("")).unwrap_or(Path::new(".")))
        {
            let _ = folder.sync_all();
        }
        Ok(())
    }

    fn remove_files(&mut self) {
        self.rows = None;
        self.written = 0;
        // In this order: without rows, a finished journal says that the output is complete.
        for name in ["rows", JOURNAL_FILE] {
            let _ = std::fs::remove_file(self.folder.join(name));
        }
    }

    /// Removes the folder: the output is complete, or nothing of it is wanted.
    pub(super) fn remove(mut self) {
        self.remove_files();
        let _ = std::fs::remove_file(self.folder.join(".lock"));
        files::sweep(&self.folder);
        // Files of others stay, and so does the folder then.
        let _ = std::fs::remove_dir(&self.folder);
    }
}

/// Checks that an earlier run was of the same input, model and options.
fn check_same(before: &Value, now: &Value, output: &Path) -> Result<(), CliError> {
    let Some((key, before, now)) = difference("", before, now) else { return Ok(()) };
    Err(CliError::usage(format!(
        "--resume: `{key}` of the earlier run was {before} and is {now} now, and its rows would not belong to the others; \
         use the same, or begin again with --force ({})",
        output.display()
    )))
}

/// The first value that differs, with its path.
fn difference(path: &str, a: &Value, b: &Value) -> Option<(String, String, String)> {
    if let (Value::Object(a), Value::Object(b)) = (a, b) {
        let keys = a.keys().chain(b.keys().filter(|key| !a.contains_key(*key)));
        return keys.into_iter().find_map(|key| {
            let path = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
            difference(&path, a.get(key).unwrap_or(&Value::Null), b.get(key).unwrap_or(&Value::Null))
        });
    }
    // Long lists are not for a message.
    let short = |value: &Value| {
        let text = value.to_string();
        if text.chars().count() > 80 { format!("{}...", text.chars().take(80).collect::<String>()) } else { text }
    };
    (a != b).then(|| (path.to_owned(), short(a), short(b)))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn open(output: &Path, of: Value, how: (bool, bool)) -> Result<Work, String> {
        Work::open(output, of, b"head\n", (how.0, how.1, true)).map_err(|e| e.to_string())
    }

    #[test]
    fn a_run_continues_where_its_journal_ends() {
        let folder = tempfile::tempdir().unwrap();
        let output = folder.path().join("out.csv");
        let mut work = open(&output, json!({"a": 1}), (false, false)).unwrap();
        work.append(b"one\n").unwrap();
        work.journal.place = Place { rows: 1, bytes: 10, lines: 1 };
        work.commit().unwrap();
        work.append(b"half of tw").unwrap();
        drop(work);
        let error = open(&output, json!({"a": 1}), (false, false)).unwrap_err();
        assert!(error.contains("1 rows of an earlier run") && error.contains("--resume"), "{error}");
        let error = open(&output, json!({"a": 2}), (true, false)).unwrap_err();
        assert!(error.contains("`a` of the earlier run was 1 and is 2 now"), "{error}");
        let mut work = open(&output, json!({"a": 1}), (true, false)).unwrap();
        assert_eq!(work.journal.place.rows, 1);
        // Not two at a time.
        assert!(open(&output, json!({"a": 1}), (true, false)).unwrap_err().contains("in use"));
        work.append(b"two\n").unwrap();
        work.journal.finished = true;
        work.commit().unwrap();
        work.rename_to(&output).unwrap();
        drop(work);
        // Ended after the renaming and before the end.
        assert!(is_begun(&output));
        let work = open(&output, json!({"a": 1}), (true, false)).unwrap();
        assert!(work.is_done(&output));
        work.remove();
        assert_eq!(std::fs::read_to_string(&output).unwrap(), "head\none\ntwo\n");
        assert!(!folder_of(&output).exists());
    }

    #[test]
    fn damaged_folders_are_named() {
        let folder = tempfile::tempdir().unwrap();
        let output = folder.path().join("out");
        let mut work = open(&output, json!({}), (true, false)).unwrap();
        work.journal.place.rows = 1;
        work.commit().unwrap();
        drop(work);
        let (rows, journal) = (folder_of(&output).join("rows"), folder_of(&output).join("journal.json"));
        std::fs::write(&rows, "he").unwrap();
        assert!(open(&output, json!({}), (true, false)).unwrap_err().contains("2 bytes"));
        for bad in ["", "{", "[]", "{\"version\": 2}", "{\"version\": 1}"] {
            std::fs::write(&journal, bad).unwrap();
            let error = open(&output, json!({}), (true, false)).unwrap_err();
            assert!(error.contains("journal") && error.contains("--force"), "{bad}: {error}");
        }
        // Something of another program is not touched.
        std::fs::write(folder_of(&output).join("other"), "x").unwrap();
        open(&output, json!({}), (false, true)).unwrap().remove();
        assert!(!rows.exists() && !journal.exists() && folder_of(&output).join("other").exists());
        std::fs::write(folder_of(&folder.path().join("b")), "x").unwrap();
        assert!(open(&folder.path().join("b"), json!({}), (false, true)).unwrap_err().contains("in the way"));
    }

    #[test]
    fn the_first_difference_is_told() {
        let found = difference("", &json!({"o": {"x": 1, "y": [2]}}), &json!({"o": {"x": 1, "y": [3]}, "z": 1}));
        assert_eq!(found.unwrap(), ("o.y".into(), "[2]".into(), "[3]".into()));
        let found = difference("", &json!({}), &json!({"z": 1})).unwrap();
        assert_eq!((&*found.0, &*found.1), ("z", "null"));
        assert_eq!(difference("", &json!({"a": null}), &json!({})), None);
    }
}
