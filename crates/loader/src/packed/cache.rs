//! The packed weights of models that were loaded before, in files of the cache folder.
//!
//! Such a file holds packed matrices and the coarse plane of a head alone; configuration, norms, tables and tokenizer
//! are read from the model's own files. It belongs to files of one path, length and time, to one way of reading
//! them, and to the layouts of the kernels; anything else is another file. Files that cannot be used or
//! written are skipped: the cache makes a start faster and never keeps a model from running.
//!
//! Files appear when they are complete, so several processes may write and read one at the same time. Where all of them
//! would take more than [`PackedCache::limit`], those go that were not used for the longest time.

use std::fmt::Write as _;
use std::fs::{File, FileTimes};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use bitnet_model::{EngineOptions, Packer};

use super::write::Plan;
use super::{ALIGNMENT, NOTES, PackedWeights, SEEN, SOURCE};
use crate::gguf::{Gguf, GgufWriter, Metadata, StringArray};
use crate::mmap::write_atomically;
use crate::synthetic::fnv;
use crate::{Checkpoint, LoadError, LoadOptions, LoadedModel};

/// Prefix and suffix of the names of the files.
const PREFIX: &str = "packed-";
const SUFFIX: &str = ".gguf";
/// Default limit for the size of all files together.
const MOST_BYTES: u64 = 16 << 30;
/// Packed weights below that are packed in a few hundredths of a second.
const LEAST_BYTES: u64 = 64 << 20;
/// Changes whenever the same files would be read as other weights.
const READING: u32 = 1;

/// The place and the limits of packed weights.
#[derive(Clone, Debug)]
pub struct PackedCache {
    folder: PathBuf,
    most: u64,
    least: u64,
}

impl PackedCache {
    /// In this folder, which is created if needed: at most 16 GiB, of models with at least 64 MiB of packed weights.
    pub fn new(folder: impl Into<PathBuf>) -> Self {
        Self { folder: folder.into(), most: MOST_BYTES, least: LEAST_BYTES }
    }

    /// Sets the limit of all files together, in bytes.
    #[must_use]
    pub fn limit(self, bytes: u64) -> Self {
        Self { most: bytes, ..self }
    }

    /// Sets the least size of packed weights that are kept, in bytes.
    #[must_use]
    pub fn at_least(self, bytes: u64) -> Self {
        Self { least: bytes, ..self }
    }

    /// The files of the cache, the one that was used last first.
    pub fn files(&self) -> Vec<CachedFile> {
        let entries = std::fs::read_dir(&self.folder).into_iter().flatten().flatten();
        let mut all: Vec<CachedFile> = entries
            .filter_map(|entry| {
                let path = entry.path();
                path.file_name()?.to_str().filter(|n| is_name(n))?;
                let meta = entry.metadata().ok().filter(|m| m.is_file())?;
                Some(CachedFile { path, bytes: meta.len(), used: meta.modified().unwrap_or(UNIX_EPOCH) })
            })
            .collect();
        all.sort_by(|a, b| b.used.cmp(&a.used).then_with(|| a.path.cmp(&b.path)));
        all
    }

    /// Makes room for `bytes` more. `false` if that is impossible.
    fn make_room(&self, bytes: u64) -> bool {
        if bytes > self.most {
            return false;
        }
        let mut left = self.most.saturating_sub(bytes);
        for file in self.files() {
            if file.bytes <= left {
                left = left.saturating_sub(file.bytes);
            } else if let Err(error) = std::fs::remove_file(&file.path) {
                tracing::debug!(%error, path = %file.path.display(), "the packed weights stay");
            }
        }
        true
    }
}

/// A file of the cache.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct CachedFile {
    /// The file.
    pub path: PathBuf,
    /// Its length.
    pub bytes: u64,
    used: SystemTime,
}

impl CachedFile {
    /// The file that it was made from, if it is recorded.
    pub fn source(&self) -> Option<String> {
        let file = Gguf::open(&self.path).ok()?;
        first_file(file.metadata().str(SOURCE).ok()??).map(str::to_owned)
    }
}

/// The first file of an identity.
pub(crate) fn first_file(identity: &str) -> Option<&str> {
    Some(identity.lines().nth(1)?.rsplit_once(" | ")?.0)
}

/// Whether a file is called like those of the cache.
pub fn is_name(name: &str) -> bool {
    name.starts_with(PREFIX) && name.ends_with(SUFFIX)
}

/// The place in the cache for the model that is loaded.
#[derive(Debug)]
pub(crate) struct Slot {
    cache: PackedCache,
    checkpoint: Checkpoint,
    identity: String,
}

impl Slot {
    /// For a checkpoint whose files are known and not packed; it is returned if there is no place.
    #[expect(clippy::result_large_err, reason = "the checkpoint is given back, which moves it once for each load")]
    pub(crate) fn of(checkpoint: Checkpoint, options: &LoadOptions) -> Result<Self, Checkpoint> {
        match (&options.packed_cache, identity(&checkpoint, options)) {
            (Some(cache), Some(identity)) => Ok(Self { cache: cache.clone(), checkpoint, identity }),
            _ => Err(checkpoint),
        }
    }

    pub(crate) fn checkpoint(&self) -> &Checkpoint {
        &self.checkpoint
    }

    /// Prefix of the names of this model's files.
    fn stem(&self) -> String {
        format!("{PREFIX}{:016x}-", fnv(self.identity.bytes()))
    }

    /// Takes the weights that were used last, if there are any.
    pub(crate) fn find(&self) {
        let stem = self.stem();
        let ours = |f: &CachedFile| f.path.file_name().and_then(|n| n.to_str()).is_some_and(|n| n.starts_with(&stem));
        let _ = self.cache.files().iter().filter(|f| ours(f)).any(|f| self.take(&f.path));
    }

    /// Takes the weights in this file, if they are of this model.
    fn take(&self, path: &Path) -> bool {
        let read = || -> Result<Option<PackedWeights>, LoadError> {
            let file = Gguf::open(path)?;
            match file.metadata().str(SOURCE)? == Some(self.identity.as_str()) {
                true => PackedWeights::of(file).map(Some),
                false => Ok(None),
            }
        };
        match read() {
            Ok(Some(packed)) => {
                // If the time cannot be set, another file may go first.
                let _ = File::options().append(true).open(path).and_then(|f| {
                    let times = FileTimes::new().set_modified(SystemTime::now());
                    f.set_times(times)
                });
                self.checkpoint.use_packed(Some(Arc::new(packed)));
                true
            }
            Ok(None) => false,
            Err(error) => {
                tracing::warn!(%error, path = %path.display(), "these packed weights are ignored");
                false
            }
        }
    }

    fn write(&self, path: &Path, plan: &Plan<'_>) -> Result<(), LoadError> {
        let mut metadata = Metadata::default();
        metadata.set("general.alignment", ALIGNMENT);
        metadata.set(SOURCE, self.identity.as_str());
        plan.describe(&mut metadata);
        metadata.set(SEEN, self.checkpoint.info().ternary_format.as_str());
        metadata.set(NOTES, self.checkpoint.seen_notes().iter().collect::<StringArray>());
        let mut writer = GgufWriter::with_metadata(metadata)?;
        plan.announce(&mut writer)?;
        std::fs::create_dir_all(&self.cache.folder).map_err(LoadError::io("create", &self.cache.folder))?;
        write_atomically(path, |out| {
            let mut stream = writer.start(out)?;
            plan.put(&mut stream, &mut || ())?;
            stream.finish().map(|_| ())
        })
    }
}

/// The inputs of the weights: the files, as far as the folder shows them, and how they are read. The second line
/// is the first file.
fn identity(checkpoint: &Checkpoint, options: &LoadOptions) -> Option<String> {
    if checkpoint.is_packed() {
        return None;
    }
    let mut text = format!("{} {READING} {:?} {:?}", env!("CARGO_PKG_VERSION"), options.qk_layout, options.tl);
    for path in checkpoint.weight_files()? {
        let path = path.canonicalize().ok()?;
        let meta = path.metadata().ok()?;
        let since = |time: std::io::Result<SystemTime>| time.ok()?.duration_since(UNIX_EPOCH).ok();
        // No person gives a file a name of several lines.
        let name = path.to_str().filter(|p| !p.contains('\n'))?;
        write!(text, "\n{name} | {} bytes, {:?}", meta.len(), since(meta.modified())?).ok()?;
        #[cfg(unix)]
        {
            use std::os::unix::fs::MetadataExt;
            write!(text, ", {} {} {} {}", meta.dev(), meta.ino(), meta.ctime(), meta.ctime_nsec()).ok()?;
        }
    }
    Some(text)
}

impl LoadedModel {
    /// Prepares the weights for an engine with these options: with a cache ([`LoadOptions::packed_cache`]), weights of
    /// a large model are kept there as the engine reads them, and mapped from there. Where a packed file is for other
    /// kernels, [`LoadedModel::notes`] says so.
    ///
    /// Failures are logged and leave the weights unchanged.
    pub fn prepare_for(&mut self, options: &EngineOptions) {
        if let Err(error) = self.packed_into_cache(options) {
            tracing::debug!(%error, "the packed weights were not kept");
        }
        match &self.packed {
            Some(packed) if self.huge_pages => packed.move_to_huge_pages(),
            Some(packed) => packed.prefetch(),
            None => (),
        }
        let packed = self.weights.layers.iter().flat_map(|l| l.projections()).find_map(|(_, w)| w.packed_layout());
        if let (None, Some(layout), Ok(packer)) = (&self.slot, packed, Packer::new(&self.weights, options))
            && !packer.is_ready(&self.weights)
        {
            let kernels = packer.kernel_name();
            self.notes.push(format!(
                "the file is packed as {layout}, which is not what {kernels} reads here: the weights are packed again at \
                 each start; \
                 `bitnet convert IN OUT --to packed` makes a file that fits"
            ));
        }
    }

    fn packed_into_cache(&mut self, options: &EngineOptions) -> Result<(), LoadError> {
        let Some(slot) = self.slot.clone() else { return Ok(()) };
        let cache = &slot.cache;
        let Some(plan) = Plan::of_unready(&self.weights, options, cache.least)? else { return Ok(()) };
        let path = cache.folder.join(format!("{}{:08x}{SUFFIX}", slot.stem(), plan.fingerprint()));
        // There may be a file for these kernels although others were used last.
        if !(path.is_file() && slot.take(&path)) {
            if !cache.make_room(plan.bytes()) {
                return Ok(());
            }
            slot.write(&path, &plan)?;
            if !slot.take(&path) {
                return Ok(());
            }
        }
        drop(plan);
        let config = self.weights.config.clone();
        self.weights = slot.checkpoint.weights()?;
        self.packed = slot.checkpoint.packed().map(|(packed, _)| packed);
        // The tokenizer also determined the special ids.
        self.weights.config = config;
        Ok(())
    }
}
