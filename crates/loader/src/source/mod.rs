//! A checkpoint on disk as a [`WeightSource`]: one GGUF file or one Hugging Face folder, brought to the model's own
//! conventions (separate projections, half-rotation order, scales that multiply).
#![deny(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    clippy::cast_possible_truncation
)]

mod dense;
mod facts;
mod store;
mod weights;

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use bitnet_model::{
    Architecture, DeltaTensor, FloatMatrix, FloatType, Mixer, ModelConfig, ModelWeights, Norm, Projection, Table,
    TttTensor, WeightSource,
};
use ternary_kernels::{FileFormat, KernelError, Scales, SharedBytes, TernaryMatrix, Twos, quantize};

use crate::LoadError;
use crate::architecture::{qwen35, rules};
use crate::config::from_hf::NOT_BITNET;
use crate::config::{DensePolicy, Reading, ScaleMeaning, from_gguf, from_hf, to_f32};
use crate::gguf::{self, Gguf};
use crate::heads;
use crate::loaded::{Container, GenerationConfig, LoadOptions, ModelInfo, QkLayout};
use crate::mmap::read_bounded;
use crate::names::{self, Names};
use crate::packed::PackedWeights;
use crate::safetensors::Safetensors;
use facts::{facts, pooling};
use store::{RawKind, RawTensor, Store};
pub(crate) use store::{ggml_type, widen};

/// An opened checkpoint. Tensors are read on request.
#[derive(Debug)]
pub struct Checkpoint {
    path: PathBuf,
    store: Store,
    names: Names,
    reading: Reading,
    /// Whether there are layers that predict further tokens.
    nextn: bool,
    /// Weights of this checkpoint that were packed before.
    packed: Mutex<Option<Arc<PackedWeights>>>,
    /// Notes and formats that show only while tensors are read.
    seen: Mutex<LoadObservations>,
}

#[derive(Debug, Default)]
struct LoadObservations {
    notes: BTreeSet<String>,
    formats: BTreeSet<String>,
    /// Tensors with weights of +2.
    twos: BTreeMap<String, Twos>,
}

/// A note about weights of groups that were stored as floats.
const UNPACKED: &str = "the ternary weights were stored as floats, one scale per group; they were recovered exactly";

/// A note on weights with one scale in a folder that does not state the kind of its model.
const ONE_SCALE: &str = "the weights are ternary with one scale for each matrix, and nothing says that this is a BitNet model: activations have 8 bits, \
                         as those of BitNet models; a model that was trained with half-precision activations (TriLM) needs 16 bits \
                         (--activations 16)";

/// The prefix of the text model in checkpoints of models of texts and images, and a tensor that shows it.
const MULTIMODAL_PREFIX: &str = "model.language_model.";
const MULTIMODAL_EMBEDDING: &str = "model.language_model.embed_tokens.weight";

/// Name for messages about a file that is not a model.
const IN_MEMORY: &str = "(in memory)";

impl Checkpoint {
    /// Opens a GGUF file, a Hugging Face folder, or a safetensors file or index inside of one.
    ///
    /// # Errors
    /// [`LoadError::NoModel`] if there is none; any error in the container or the configuration, including tensors that
    /// no supported model has ([`LoadError::UnexpectedTensor`]).
    pub fn open(path: &Path, options: &LoadOptions) -> Result<Self, LoadError> {
        if !path.is_dir() {
            // A pipe or a device is rejected before anything waits for it.
            crate::files::regular(path, "a model")?;
        }
        if let Some(file) = gguf::locate(path)? {
            let store = Self::store(Gguf::open(&file)?, options).map_err(|e| e.in_file(&file))?;
            return Self::read(&file, store, None, options);
        }
        let (tensors, wrappers) = Safetensors::open(path)?.without_wrappers().map_err(|e| e.in_file(path))?;
        let folder = if path.is_dir() { path } else { path.parent().unwrap_or(Path::new("")) };
        let mut checkpoint = Self::read(path, Store::Hf(tensors), Some(folder), options)?;
        if !wrappers.is_empty() {
            let note = format!("{} in the names of the tensors was left out", wrappers.join(", "));
            checkpoint.reading.notes.push(note);
        }
        Ok(checkpoint)
    }

    /// Reads a whole GGUF file in memory, for example a model that a program contains.
    ///
    /// # Errors
    /// The errors of [`Checkpoint::open`].
    pub fn from_bytes(bytes: SharedBytes, options: &LoadOptions) -> Result<Self, LoadError> {
        let path = Path::new(IN_MEMORY);
        let file = Gguf::from_bytes(bytes).map_err(|e| e.in_file(path))?;
        let store = Self::store(file, options).map_err(|e| e.in_file(path))?;
        Self::read(path, store, None, options)
    }

    fn store(file: Gguf, options: &LoadOptions) -> Result<Store, LoadError> {
        Ok(match PackedWeights::are_in(&file) {
            true => {
                let packed = PackedWeights::of(file)?;
                packed.expect_model()?;
                Store::Packed(Arc::new(packed))
            }
            false => Store::Gguf(file, options.tl.clone()),
        })
    }

    /// Uses the packed weights of this checkpoint from now on.
    pub(crate) fn use_packed(&self, packed: Option<Arc<PackedWeights>>) {
        packed.iter().flat_map(|p| &p.notes).for_each(|note| self.saw_note(note));
        let seen = packed.iter().filter_map(|p| p.seen.as_deref());
        seen.flat_map(|s| s.split('+')).for_each(|format| self.saw(format, None));
        *self.packed.lock().unwrap_or_else(PoisonError::into_inner) = packed;
    }

    /// Packed weights of another file, and whether the checkpoint itself has some.
    pub(crate) fn packed(&self) -> Option<(Arc<PackedWeights>, bool)> {
        let other = self.packed.lock().unwrap_or_else(PoisonError::into_inner).clone();
        match (other, &self.store) {
            (Some(packed), _) => Some((packed, false)),
            (None, Store::Packed(packed)) => Some((packed.clone(), true)),
            (None, Store::Gguf(..) | Store::Hf(_)) => None,
        }
    }

    /// Notes from reading the weights.
    pub(crate) fn seen_notes(&self) -> Vec<String> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).notes.iter().cloned().collect()
    }

    /// The files that hold the weights, all parts of a model; not known of bytes in memory.
    pub(crate) fn weight_files(&self) -> Option<Vec<PathBuf>> {
        match &self.store {
            Store::Gguf(file, _) => file.paths(),
            Store::Packed(packed) => packed.file().paths(),
            // The configuration says what the numbers mean.
            Store::Hf(files) => {
                let config = self.folder().map(|folder| folder.join("config.json"));
                Some(files.files().iter().cloned().chain(config).collect())
            }
        }
    }

    /// Whether the checkpoint itself contains packed weights.
    pub fn is_packed(&self) -> bool {
        matches!(self.store, Store::Packed(_))
    }

    /// The packed matrix of this name in a GGUF file, if there is one.
    fn packed_matrix(&self, name: &str) -> Result<Option<TernaryMatrix>, LoadError> {
        let Some((packed, own)) = self.packed() else { return Ok(None) };
        let Some(w) = packed.matrix(name)? else { return Ok(None) };
        if let Some(layout) = packed.layout(name).filter(|_| own) {
            self.saw(&format!("packed {layout}"), None);
        }
        self.saw_levels(name, &w);
        Ok(Some(w))
    }

    /// `table` with its coarse plane, if one was built before.
    fn with_plane(&self, name: &str, table: Table) -> Result<Table, LoadError> {
        let Some((packed, _)) = self.packed() else { return Ok(table) };
        let Table::Float(m) = table else { return Ok(table) };
        match packed.coarse(name, m.rows(), m.cols())? {
            Some(plane) => Ok(Table::Float(m.with_coarse(plane)?)),
            None => Ok(Table::Float(m)),
        }
    }

    /// The configuration of the contents of `store`; errors name `path`.
    fn read(path: &Path, store: Store, folder: Option<&Path>, options: &LoadOptions) -> Result<Self, LoadError> {
        let names = match &store {
            Store::Gguf(..) | Store::Packed(_) => Names::Gguf,
            Store::Hf(t) if t.get(MULTIMODAL_EMBEDDING).is_some() => Names::Hf { prefix: MULTIMODAL_PREFIX },
            Store::Hf(t) => {
                let based = t.get("model.embed_tokens.weight").is_some() || t.get("embed_tokens.weight").is_none();
                Names::Hf { prefix: if based { "model." } else { "" } }
            }
        };
        let facts = facts(&store, names).map_err(|e| e.in_file(path))?;
        let nextn = facts.nextn.is_some();
        let mut reading = match (&store, folder) {
            (Store::Gguf(file, _), _) => from_gguf::read(file.metadata(), facts).map_err(|e| e.in_file(path))?,
            (Store::Packed(packed), _) => {
                from_gguf::read(packed.file().metadata(), facts).map_err(|e| e.in_file(path))?
            }
            (Store::Hf(_), folder) => {
                let config = folder.unwrap_or(path).join("config.json");
                let generation = config.with_file_name("generation_config.json");
                let json = read_bounded(&config, "config.json", from_hf::MAX_CONFIG)?;
                let pooling = pooling(&config)?;
                let mut reading = from_hf::read(&json, pooling, &facts).map_err(|e| e.in_file(&config))?;
                if generation.is_file() {
                    let json = read_bounded(&generation, "generation_config.json", from_hf::MAX_CONFIG)?;
                    from_hf::read_generation(&json, &mut reading).map_err(|e| e.in_file(&generation))?;
                }
                reading
            }
        };
        if let Some(layout) = options.qk_layout {
            reading.qk = layout;
        }
        reading.config.validate().map_err(|e| LoadError::from(e).in_file(path))?;
        let seen = Mutex::default();
        let checkpoint =
            Self { path: path.to_path_buf(), store, names, reading, nextn, packed: Mutex::default(), seen };
        checkpoint.check_names().map_err(|e| e.in_file(path))?;
        Ok(checkpoint)
    }

    /// Rejects tensors that would be ignored although they change what the model computes, and unsupported types.
    fn check_names(&self) -> Result<(), LoadError> {
        // A layer has several tensors, so no more layers than tensors can be complete: missing ones are reported later.
        let layers = self.config().num_hidden_layers.min(self.store.names().count());
        let known = self.names.all(self.config(), layers);
        let mut skipped = BTreeSet::new();
        for name in self.store.names() {
            if let Some(note) = self.beside(name) {
                skipped.insert(note);
                continue;
            }
            if !known.contains(name) && !Names::is_redundant(name) {
                let layers = self.config().num_hidden_layers;
                return Err(LoadError::UnexpectedTensor { tensor: name.to_owned(), layers });
            }
            // A type that cannot be read tells more about a file than the first missing tensor.
            self.store.get(name)?;
        }
        skipped.into_iter().for_each(|note| self.saw_note(note));
        Ok(())
    }

    /// A note on a tensor that is not part of the model itself and is not read; `None` for all others.
    fn beside(&self, name: &str) -> Option<&'static str> {
        if self.reading.family != Architecture::Qwen35 {
            return None;
        }
        match self.names {
            Names::Gguf => {
                let layer = name.strip_prefix("blk.")?.split_once('.')?.0.parse::<usize>().ok()?;
                (self.nextn && layer >= self.config().num_hidden_layers).then_some(qwen35::NEXTN_NOTE)
            }
            Names::Hf { .. } if name.starts_with("mtp.") => Some(qwen35::NEXTN_NOTE),
            Names::Hf { .. } => {
                let vision = ["model.visual.", "visual."].iter().any(|prefix| name.starts_with(prefix));
                vision.then_some("the tensors of the vision model are not read")
            }
        }
    }

    /// The path that was opened; a word in parentheses for bytes in memory.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The GGUF file, if it is one.
    pub fn gguf(&self) -> Option<&Gguf> {
        match &self.store {
            Store::Gguf(g, _) => Some(g),
            Store::Packed(p) => Some(p.file()),
            Store::Hf(_) => None,
        }
    }

    /// The folder with `config.json`, if it is a Hugging Face checkpoint.
    pub fn folder(&self) -> Option<&Path> {
        match (&self.store, self.path.is_dir()) {
            (Store::Gguf(..) | Store::Packed(_), _) => None,
            (Store::Hf(_), true) => Some(&self.path),
            (Store::Hf(_), false) => self.path.parent(),
        }
    }

    /// The name that a projection has in this container.
    pub fn projection_name(&self, layer: usize, which: Projection) -> String {
        self.names.projection(layer, which, self.config().mixer(layer)) + ".weight"
    }

    /// `general.architecture` or `model_type`.
    pub fn architecture(&self) -> &str {
        &self.reading.architecture
    }

    /// The family of the model.
    pub fn family(&self) -> bitnet_model::Architecture {
        self.reading.family
    }

    /// Sampling defaults.
    pub fn generation(&self) -> &GenerationConfig {
        &self.reading.generation
    }

    /// All weights, checked.
    ///
    /// # Errors
    /// Tensors or keys that are missing or malformed.
    pub fn weights(&self) -> Result<ModelWeights, LoadError> {
        ModelWeights::from_source(self).map_err(|e| e.in_file(&self.path))
    }

    /// Facts for users; the ternary format is known after [`Checkpoint::weights`].
    pub fn info(&self) -> ModelInfo {
        let seen = self.seen.lock().unwrap_or_else(|e| e.into_inner());
        let formats: Vec<&str> = seen.formats.iter().map(String::as_str).collect();
        ModelInfo {
            path: self.path.clone(),
            container: if self.gguf().is_some() { Container::Gguf } else { Container::Safetensors },
            architecture: self.reading.architecture.clone(),
            name: self.reading.name.clone(),
            ternary_format: formats.join("+"),
            file_bytes: self.store.file_bytes(),
        }
    }

    /// Notes on what was repaired or assumed so far.
    pub fn notes(&self) -> Vec<String> {
        let seen = self.seen.lock().unwrap_or_else(|e| e.into_inner());
        let mut notes: Vec<String> = self.reading.notes.iter().chain(&seen.notes).cloned().collect();
        if let Some((tensor, twos)) = seen.twos.first_key_value() {
            let all = seen.twos.values().fold(0usize, |n, t| n.saturating_add(t.count));
            notes.push(format!(
                "{all} weights in {} tensors are +2 times their scale, the first at row {}, column {} of {tensor}: they are \
                 computed with as such",
                seen.twos.len(),
                twos.row,
                twos.col
            ));
        }
        notes
    }

    fn saw(&self, format: &str, note: Option<&str>) {
        let mut seen = self.seen.lock().unwrap_or_else(|e| e.into_inner());
        if !seen.formats.contains(format) {
            seen.formats.insert(format.to_owned());
        }
        if let Some(n) = note
            && !seen.notes.contains(n)
        {
            seen.notes.insert(n.to_owned());
        }
    }

    fn saw_note(&self, note: &str) {
        let mut seen = self.seen.lock().unwrap_or_else(|e| e.into_inner());
        if !self.reading.notes.iter().any(|n| n == note) {
            seen.notes.insert(note.to_owned());
        }
    }

    /// The tensor `name`, or an error that states its purpose.
    fn need(&self, name: &str, what: &str) -> Result<RawTensor, LoadError> {
        self.store.get(name)?.ok_or_else(|| LoadError::MissingTensor {
            tensor: name.to_owned(),
            hint: format!("it is {what}; the download is incomplete, or the configuration belongs to another model"),
        })
    }

    /// An embedding or a head, `[vocab, hidden]`: floats, or ternary with a scale for each group.
    fn table(&self, name: &str, what: &str) -> Result<Table, LoadError> {
        let t = self.need(name, what)?;
        let (rows, cols) = (self.config().vocab_size, self.config().hidden_size);
        let refuse = |reason: &'static str| {
            Err(LoadError::UnsupportedType { tensor: name.to_owned(), ty: t.kind.name(), type_id: None, reason })
        };
        match t.kind {
            RawKind::Packed | RawKind::Panels(_) => refuse(
                "an embedding or a head must hold floats (F32, F16, BF16, Q8_0, Q6_K ...) or ternary blocks (Q2_0, PQ2_0, \
                 PTQ1_0, TQ1_0, TQ2_0); convert it again",
            ),
            RawKind::Ternary(format) => {
                t.expect_shape(&[rows as u64, cols as u64])?;
                self.saw(format.name(), None);
                let w = TernaryMatrix::from_bytes(format, rows, cols, t.bytes, None)
                    .map_err(|source| LoadError::Ternary { tensor: name.to_owned(), source })?;
                self.saw_levels(name, &w);
                Ok(Table::Ternary(w))
            }
            RawKind::Float(ty) => {
                t.expect_shape(&[rows as u64, cols as u64])?;
                if !matches!(ty, FloatType::Block(_))
                    && let Some(w) = dense::as_groups(name, (rows, cols), |part| t.rows_f32(ty, cols, part))?
                    && matches!(w.scales(), Scales::Groups(_))
                {
                    self.saw(&ty.name(), Some(UNPACKED));
                    return Ok(Table::Ternary(w));
                }
                Ok(Table::Float(FloatMatrix::new(ty, rows, cols, t.bytes)?))
            }
        }
    }

    /// Notes weights of +2.
    fn saw_levels(&self, tensor: &str, w: &TernaryMatrix) {
        if let Some(twos) = w.twos() {
            let mut seen = self.seen.lock().unwrap_or_else(|e| e.into_inner());
            seen.twos.entry(tensor.to_owned()).or_insert(twos);
        }
    }

    /// Rows `part` of the ternary tensor `base`, which holds `total` rows of `cols` weights in `parts` parts.
    fn ternary(&self, base: &str, total: usize, cols: usize, part: MergedRows) -> Result<TernaryMatrix, LoadError> {
        let name = format!("{base}.weight");
        let t = self.need(&name, "a projection")?;
        // Before anything of that size is made.
        let shape = [total as u64, cols as u64];
        match t.kind {
            RawKind::Packed => t.expect_shape(&[total.div_ceil(4) as u64, cols as u64])?,
            RawKind::Ternary(_) | RawKind::Float(_) | RawKind::Panels(_) => t.expect_shape(&shape)?,
        }
        let scales = self.scales_beside(base, total, &part)?;
        let in_tensor = |source: KernelError| LoadError::Ternary { tensor: name.clone(), source };
        let whole = match t.kind {
            RawKind::Packed => {
                if scales.is_none() {
                    let hint = "packed weights need their scale".to_owned();
                    return Err(LoadError::MissingTensor { tensor: format!("{base}.weight_scale"), hint });
                }
                self.saw("HF packed", None);
                let w = TernaryMatrix::from_bytes(FileFormat::HfPacked, total, cols, t.bytes, scales);
                let w = w.map_err(in_tensor)?;
                // They were checked, and are read again when they are packed.
                w.release();
                w
            }
            RawKind::Ternary(format) => {
                self.saw(format.name(), None);
                let w = TernaryMatrix::from_bytes(format, total, cols, t.bytes, scales).map_err(in_tensor)?;
                w.release();
                self.saw_levels(&name, &w);
                w
            }
            RawKind::Float(ty) => return self.dense(&t, ty, cols, &part, scales),
            RawKind::Panels(_) => {
                let (tensor, ty) = (name.clone(), t.kind.name());
                let reason = "merged projections are not packed: pack the original file again";
                return Err(LoadError::UnsupportedType { tensor, ty, type_id: None, reason });
            }
        };
        if part.is_whole(total) { Ok(whole) } else { whole.slice_rows(part.rows).map_err(in_tensor) }
    }

    /// Rows `part` of a tensor of floats: ternary already, or master weights.
    fn dense(
        &self,
        t: &RawTensor,
        ty: FloatType,
        cols: usize,
        part: &MergedRows,
        scales: Option<Scales>,
    ) -> Result<TernaryMatrix, LoadError> {
        let refuse = |reason: &'static str| {
            let ty = ty.name();
            LoadError::UnsupportedType { tensor: t.name.clone(), ty, type_id: None, reason }
        };
        if matches!(ty, FloatType::Block(_)) {
            return Err(refuse(
                "block quantisation does not keep ternary weights; convert the model again to I2_S, TQ1_0 or TQ2_0",
            ));
        }
        let values = t.rows_f32(ty, cols, part.rows.clone())?;
        t.bytes.release();
        let first = part.rows.start.saturating_mul(cols);
        if let Some((at, &value)) = values.iter().enumerate().find(|(_, v)| !v.is_finite()) {
            let position = first.saturating_add(at) as u64;
            return Err(LoadError::NotFinite { tensor: t.name.clone(), position, value });
        }
        let rows = part.rows.len();
        let scales = scales.map(|s| match s {
            Scales::Rows(all) => Scales::Rows(all.get(part.rows.clone()).unwrap_or(&[]).into()).simplified(),
            other @ (Scales::Tensor(_) | Scales::Groups(_)) => other,
        });
        let in_tensor = |source: KernelError| LoadError::Ternary { tensor: t.name.clone(), source };
        let (trits, scale) = match dense::as_ternary(&values) {
            Some(found) => found,
            None => {
                let some = |r: Range<usize>| {
                    let part = r.start.saturating_mul(cols)..r.end.saturating_mul(cols);
                    Ok(values.get(part).unwrap_or(&[]).to_vec())
                };
                if scales.is_none()
                    && let Some(found) = dense::as_groups(&t.name, (rows, cols), some)?
                {
                    self.saw(&ty.name(), Some(UNPACKED));
                    return Ok(found);
                }
                match self.reading.dense {
                    DensePolicy::Refuse(reason) => return Err(refuse(reason)),
                    DensePolicy::Absmean if scales.is_some() => {
                        return Err(refuse("it has a separate scale, so it should be ternary, but it is not"));
                    }
                    DensePolicy::Absmean => {
                        let note = "the projections are master weights; they were quantised to ternary (absmean) while \
                                    loading";
                        self.saw(&ty.name(), Some(note));
                        if let Some(len) = self.reading.config.weight_group {
                            return dense::quantize_groups(&values, (rows, cols), len).map_err(in_tensor);
                        }
                        let (trits, scale) = quantize::absmean_quantize(&values, rows, cols).map_err(in_tensor)?;
                        // Converters of embedding models store the mean itself, so every container has the same bits.
                        let of_mean = self.reading.config.projection_norms;
                        (trits, if of_mean { quantize::absmean(&values) } else { scale })
                    }
                }
            }
        };
        let says_nothing = matches!(self.reading.dense, DensePolicy::Refuse(reason) if reason == NOT_BITNET);
        self.saw(&ty.name(), says_nothing.then_some(ONE_SCALE));
        dense::pack(rows, cols, &trits, scale, scales).map_err(in_tensor)
    }

    /// The separate scales of `base`, as factors: one, one per part, or one per row.
    fn scales_beside(&self, base: &str, total: usize, part: &MergedRows) -> Result<Option<Scales>, LoadError> {
        let name = base.to_owned() + self.names.scale_suffix();
        let Some(t) = self.store.get(&name)? else { return Ok(None) };
        let values = t.floats()?;
        let mut factors = Vec::with_capacity(values.len());
        for (i, &v) in values.iter().enumerate() {
            let factor = match self.reading.scale {
                ScaleMeaning::Multiply => v,
                // 0 and subnormal scales become infinite, and are rejected with other invalid scales.
                ScaleMeaning::Divide => 1.0 / v,
            };
            if !factor.is_finite() || factor < 0.0 {
                return Err(LoadError::NotFinite { tensor: name, position: i as u64, value: v });
            }
            factors.push(factor);
        }
        match factors.as_slice() {
            [one] => Ok(Some(Scales::Tensor(*one))),
            per_part if per_part.len() == part.all.len() => {
                let rows = part.all.iter().zip(per_part).flat_map(|(&n, &f)| std::iter::repeat_n(f, n));
                Ok(Some(Scales::Rows(rows.collect())))
            }
            per_row if per_row.len() == total => Ok(Some(Scales::Rows(per_row.into()))),
            _ => Err(LoadError::TensorShape { tensor: name, expected: vec![part.all.len() as u64], got: t.shape }),
        }
    }
}

/// A projection as rows of a tensor.
struct MergedRows {
    rows: std::ops::Range<usize>,
    /// Rows of every part of the tensor, in order.
    all: Vec<usize>,
}

impl MergedRows {
    fn is_whole(&self, total: usize) -> bool {
        self.rows == (0..total)
    }
}
