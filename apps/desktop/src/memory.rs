//! The memory: texts, and the model's state for each conversation.
//!
//! Every file begins with a line that names its kind, its version and the SHA-256 of the rest, and is written all or
//! nothing. The texts are one file, the page's JSON. A state is a line of JSON about it, then the bytes of
//! [`bitnet::Session::save`]. A file that is not as it was written is set aside under another name and reported; it never
//! stops the program.

use std::io::{Read, Write};
use std::path::{Path, PathBuf};

use loader::files::{self, FileError, FolderLock, Kind, Pending};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

/// The file of the texts.
const TEXTS: &str = "texts.json";
/// Ending of the files of states.
const STATE: &str = "state";
/// Marks of both kinds; a newer version gets another number.
const TEXTS_MARK: &str = "bitnet-desktop-texts 1";
const STATE_MARK: &str = "bitnet-desktop-state 1";
/// Largest texts, and largest line about a state.
const MAX_TEXTS: u64 = 256 << 20;
const MAX_HEAD: usize = 4096;
/// A state with keys and values of a long text may be large; more than this is none of ours.
const MAX_STATE: u64 = 64 << 30;
/// Characters of the ids that the page makes.
const MAX_ID: usize = 64;

/// A folder that remembers. No other process has it at the same time.
#[derive(Debug)]
pub struct Memory {
    folder: PathBuf,
    _lock: FolderLock,
}

/// About a state.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct About {
    /// The conversation, and its last text that the state has read; both are ids of the page.
    pub conversation: String,
    /// See `conversation`.
    pub tip: String,
    /// Tokens that the state has read.
    pub tokens: usize,
    /// Name of the model, for people.
    pub model: String,
    /// Fingerprint of the model, in hexadecimal.
    pub fingerprint: String,
}

/// Why a file cannot be used.
#[derive(Debug, PartialEq, Eq)]
pub enum Damage {
    /// It is not of this kind, or of a later version.
    Mark,
    /// It is not as it was written.
    Checksum,
    /// It cannot be read at all.
    Unreadable(String),
}

impl std::fmt::Display for Damage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Mark => f.write_str("it is of another kind or of a later version"),
            Self::Checksum => f.write_str("it is damaged (its checksum differs)"),
            Self::Unreadable(why) => f.write_str(why),
        }
    }
}

/// The contents of a file.
#[derive(Debug, PartialEq, Eq)]
pub enum Found<T> {
    /// There is none.
    Nothing,
    /// It is as it was written.
    Good(T),
    /// It is not, and lies now at this path.
    SetAside(PathBuf, Damage),
}

impl Memory {
    /// Takes a folder, which is made if it is not there; only its owner may look into it.
    ///
    /// # Errors
    /// [`FileError::InUse`] if another process has it; [`FileError::Io`] if it cannot be written to.
    pub fn open(folder: &Path) -> Result<Self, FileError> {
        private_folder(folder).map_err(FileError::io("make the folder", folder))?;
        let lock = FolderLock::take(folder)?;
        files::sweep(folder);
        Ok(Self { folder: folder.to_owned(), _lock: lock })
    }

    /// The texts, as the page made them.
    pub fn texts(&self) -> Found<String> {
        let path = self.folder.join(TEXTS);
        let bytes = match files::read(&path, Kind::new("remembered texts", MAX_TEXTS)) {
            Ok(bytes) => bytes,
            Err(e) if e.is_absent() => return Found::Nothing,
            Err(e) => return set_aside(path, Damage::Unreadable(e.to_string())),
        };
        let text = unseal(TEXTS_MARK, &bytes)
            .and_then(|body| String::from_utf8(body.to_vec()).map_err(|_| Damage::Checksum))
            .and_then(|text| {
                serde_json::from_str::<serde::de::IgnoredAny>(&text).map(|_| text).map_err(|_| Damage::Checksum)
            });
        match text {
            Ok(text) => Found::Good(text),
            Err(damage) => set_aside(path, damage),
        }
    }

    /// Remembers the texts.
    ///
    /// # Errors
    /// A full disk, a folder that cannot be written to; the old file remains.
    pub fn keep_texts(&self, json: &str) -> Result<(), FileError> {
        write_sealed(&self.folder.join(TEXTS), TEXTS_MARK, &[json.as_bytes()])
    }

    /// Remembers a state in place of the earlier one of the same conversation and model.
    ///
    /// # Errors
    /// The errors of [`Memory::keep_texts`].
    pub fn keep_state(&self, about: &About, bytes: &[u8]) -> Result<(), FileError> {
        let mut head = serde_json::to_vec(about).unwrap_or_default();
        head.push(b'\n');
        write_sealed(&self.state_path(&about.conversation, &about.fingerprint), STATE_MARK, &[&head, bytes])
    }

    /// The state of a conversation that a model with this fingerprint made.
    pub fn state(&self, conversation: &str, fingerprint: &str) -> Found<(About, Vec<u8>)> {
        let path = self.state_path(conversation, fingerprint);
        let mut bytes = match files::read(&path, Kind::new("a remembered state", MAX_STATE)) {
            Ok(bytes) => bytes,
            Err(e) if e.is_absent() => return Found::Nothing,
            Err(e) => return set_aside(path, Damage::Unreadable(e.to_string())),
        };
        let parts = unseal(STATE_MARK, &bytes).and_then(|body| {
            let about = about(body).ok_or(Damage::Checksum)?;
            // Renamed by hand, perhaps: a state is that of the model that it names.
            let same = about.conversation == conversation && about.fingerprint == fingerprint;
            let line = body.iter().position(|b| *b == b'\n').unwrap_or_default();
            same.then_some((about, bytes.len() - body.len() + line + 1)).ok_or(Damage::Mark)
        });
        match parts {
            Ok((about, start)) => {
                bytes.drain(..start);
                Found::Good((about, bytes))
            }
            Err(damage) => set_aside(path, damage),
        }
    }

    /// Sets a state aside that was written whole, but which the model refuses.
    pub fn refuse_state(&self, about: &About, why: String) -> (PathBuf, Damage) {
        match set_aside::<()>(self.state_path(&about.conversation, &about.fingerprint), Damage::Unreadable(why)) {
            Found::SetAside(path, damage) => (path, damage),
            _ => (self.folder.clone(), Damage::Checksum),
        }
    }

    /// All states with the bytes of their files; what cannot be read is left out.
    pub fn states(&self) -> Vec<(About, u64)> {
        let mut found: Vec<(About, u64)> = self.state_files().iter().filter_map(|path| peek(path)).collect();
        found.sort_by(|a, b| (&a.0.conversation, &a.0.fingerprint).cmp(&(&b.0.conversation, &b.0.fingerprint)));
        found
    }

    /// Removes every state of a conversation.
    ///
    /// # Errors
    /// [`FileError::Io`] if a file cannot be removed.
    pub fn forget(&self, conversation: &str) -> Result<(), FileError> {
        let prefix = format!("{}-", short_hash(conversation));
        self.remove(|name| name.starts_with(&prefix))
    }

    /// Removes all texts and states, and what was set aside.
    ///
    /// # Errors
    /// [`FileError::Io`] if a file cannot be removed.
    pub fn forget_all(&self) -> Result<(), FileError> {
        self.remove(|name| name.starts_with(TEXTS) || name.contains(&format!(".{STATE}")))
    }

    fn remove(&self, which: impl Fn(&str) -> bool) -> Result<(), FileError> {
        let entries = std::fs::read_dir(&self.folder).map_err(FileError::io("read", &self.folder))?;
        for entry in entries.flatten() {
            if which(&entry.file_name().to_string_lossy()) {
                std::fs::remove_file(entry.path()).map_err(FileError::io("remove", &entry.path()))?;
            }
        }
        Ok(())
    }

    fn state_files(&self) -> Vec<PathBuf> {
        let entries = std::fs::read_dir(&self.folder).into_iter().flatten().flatten();
        entries.map(|entry| entry.path()).filter(|path| path.extension().is_some_and(|e| e == STATE)).collect()
    }

    fn state_path(&self, conversation: &str, fingerprint: &str) -> PathBuf {
        // Ids of the page never become paths.
        self.folder.join(format!("{}-{}.{STATE}", short_hash(conversation), short_hash(fingerprint)))
    }
}

/// Whether the page may have made this id.
pub fn is_id(id: &str) -> bool {
    !id.is_empty() && id.len() <= MAX_ID && id.bytes().all(|b| b.is_ascii_alphanumeric())
}

fn private_folder(folder: &Path) -> std::io::Result<()> {
    let mut builder = std::fs::DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    {
        use std::os::unix::fs::DirBuilderExt;
        builder.mode(0o700);
    }
    builder.create(folder)
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn short_hash(text: &str) -> String {
    hex(&Sha256::digest(text)[..8])
}

/// Writes a file with its line in front.
pub(crate) fn write_sealed(path: &Path, mark: &str, parts: &[&[u8]]) -> Result<(), FileError> {
    let mut hash = Sha256::new();
    parts.iter().for_each(|part| hash.update(part));
    let line = format!("{mark} {}\n", hex(&hash.finalize()));
    let mut file = Pending::private(path)?;
    file.expect(line.len() as u64 + parts.iter().map(|part| part.len() as u64).sum::<u64>());
    for part in [&[line.as_bytes()][..], parts].concat() {
        file.write_all(part).map_err(|e| file.failed(e))?;
    }
    file.commit()
}

/// The bytes after the line, if it is as it was written.
pub(crate) fn unseal<'a>(mark: &str, bytes: &'a [u8]) -> Result<&'a [u8], Damage> {
    let rest = bytes.strip_prefix(mark.as_bytes()).and_then(|rest| rest.strip_prefix(b" ")).ok_or(Damage::Mark)?;
    let (sum, body) = rest.split_at_checked(64).ok_or(Damage::Checksum)?;
    let body = body.strip_prefix(b"\n").ok_or(Damage::Checksum)?;
    if sum == hex(&Sha256::digest(body)).as_bytes() { Ok(body) } else { Err(Damage::Checksum) }
}

/// Gives a file another name, so that neither is it lost nor in the way.
pub(crate) fn set_aside<T>(path: PathBuf, damage: Damage) -> Found<T> {
    // The earlier one under this name is replaced, so that they do not pile up; a folder does not replace a file.
    for ending in [".damaged", ".damaged-2"] {
        let mut name = path.file_name().unwrap_or_default().to_owned();
        name.push(ending);
        let aside = path.with_file_name(name);
        if std::fs::rename(&path, &aside).is_ok() {
            return Found::SetAside(aside, damage);
        }
    }
    // It stays, and writing will name the reason.
    Found::SetAside(path, damage)
}

/// The line about a state at the beginning of a body.
fn about(body: &[u8]) -> Option<About> {
    let end = body.iter().take(MAX_HEAD).position(|b| *b == b'\n')?;
    serde_json::from_slice(&body[..end]).ok()
}

/// About a state and its size, without reading all of it.
fn peek(path: &Path) -> Option<(About, u64)> {
    let (file, len) = files::open(path, "a remembered state").ok()?;
    let mut head = Vec::new();
    file.take((STATE_MARK.len() + 66 + MAX_HEAD) as u64).read_to_end(&mut head).ok()?;
    let body = head.strip_prefix(STATE_MARK.as_bytes())?.get(66..)?;
    Some((about(body)?, len))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn about_of(conversation: &str, fingerprint: &str) -> About {
        About {
            conversation: conversation.into(),
            tip: "tip".into(),
            tokens: 7,
            model: "a model".into(),
            fingerprint: fingerprint.into(),
        }
    }

    fn memory() -> (tempfile::TempDir, Memory) {
        let folder = tempfile::tempdir().unwrap();
        let memory = Memory::open(&folder.path().join("memory")).unwrap();
        (folder, memory)
    }

    #[test]
    fn texts_and_states_come_back_as_they_were() {
        let (folder, memory) = memory();
        assert_eq!(memory.texts(), Found::Nothing);
        let texts = r#"{"conversations":["日本語"]}"#;
        memory.keep_texts(texts).unwrap();
        let bytes: Vec<u8> = (0..=255).cycle().take(10_000).collect();
        memory.keep_state(&about_of("c1", "f1"), &bytes).unwrap();
        drop(memory);
        let memory = Memory::open(&folder.path().join("memory")).unwrap();
        assert_eq!(memory.texts(), Found::Good(texts.to_owned()));
        assert_eq!(memory.state("c1", "f1"), Found::Good((about_of("c1", "f1"), bytes)));
        assert_eq!(memory.state("c1", "f2"), Found::Nothing);
        assert_eq!(memory.states().len(), 1);
        assert!(memory.states()[0].1 > 10_000);
    }

    /// Each byte of a small file is changed, and each beginning of it is tried: all are noticed, and the next start finds
    /// nothing in the way.
    #[test]
    fn damage_is_noticed_and_set_aside() {
        let (_folder, memory) = memory();
        memory.keep_state(&about_of("c", "f"), b"state").unwrap();
        let path = memory.state_path("c", "f");
        let good = std::fs::read(&path).unwrap();
        let flipped = (0..good.len()).map(|at| {
            let mut bad = good.clone();
            bad[at] ^= 1;
            bad
        });
        let cut = (0..good.len()).map(|len| good[..len].to_vec());
        for bad in flipped.chain(cut).chain([[&good[..], b"x"].concat()]) {
            std::fs::write(&path, &bad).unwrap();
            let Found::SetAside(aside, _) = memory.state("c", "f") else { panic!("taken: {bad:?}") };
            assert_eq!(std::fs::read(aside).unwrap(), bad);
            assert_eq!(memory.state("c", "f"), Found::Nothing);
        }
        std::fs::write(&path, &good).unwrap();
        assert!(matches!(memory.state("c", "f"), Found::Good(_)));
    }

    #[test]
    fn texts_that_are_not_json_or_a_folder_are_set_aside() {
        let (_folder, memory) = memory();
        write_sealed(&memory.folder.join(TEXTS), TEXTS_MARK, &[b"{\"half"]).unwrap();
        assert!(matches!(memory.texts(), Found::SetAside(_, Damage::Checksum)));
        std::fs::create_dir(memory.folder.join(TEXTS)).unwrap();
        assert!(matches!(memory.texts(), Found::SetAside(_, Damage::Unreadable(_))));
        memory.keep_texts("{}").unwrap();
    }

    #[test]
    fn a_state_under_the_name_of_another_model_is_not_taken() {
        let (_folder, memory) = memory();
        memory.keep_state(&about_of("c", "f1"), b"state").unwrap();
        std::fs::rename(memory.state_path("c", "f1"), memory.state_path("c", "f2")).unwrap();
        assert!(matches!(memory.state("c", "f2"), Found::SetAside(_, Damage::Mark)));
    }

    #[test]
    fn forgetting_removes_the_files() {
        let (_folder, memory) = memory();
        memory.keep_texts("{}").unwrap();
        for (conversation, model) in [("a", "1"), ("a", "2"), ("b", "1")] {
            memory.keep_state(&about_of(conversation, model), b"state").unwrap();
        }
        memory.forget("a").unwrap();
        let left: Vec<String> = memory.states().into_iter().map(|(about, _)| about.conversation).collect();
        assert_eq!(left, ["b"]);
        std::fs::write(memory.state_path("b", "1"), "bad").unwrap();
        assert!(matches!(memory.state("b", "1"), Found::SetAside(..)));
        memory.forget_all().unwrap();
        let names: Vec<String> = std::fs::read_dir(&memory.folder)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned())
            .collect();
        assert_eq!(names, [".lock"]);
    }

    #[test]
    fn a_folder_is_held_once() {
        let (folder, memory) = memory();
        assert!(matches!(Memory::open(&folder.path().join("memory")), Err(FileError::InUse { .. })));
        drop(memory);
        Memory::open(&folder.path().join("memory")).unwrap();
    }

    #[cfg(unix)]
    #[test]
    fn others_cannot_read_it() {
        use std::os::unix::fs::PermissionsExt;
        let (_folder, memory) = memory();
        memory.keep_texts("{}").unwrap();
        let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(&memory.folder), mode(&memory.folder.join(TEXTS))), (0o700, 0o600));
    }

    #[test]
    fn ids_are_words() {
        assert!(is_id("a0Z"));
        for bad in ["", "../x", "a b", "あ", &"a".repeat(65)] {
            assert!(!is_id(bad), "{bad}");
        }
    }
}
