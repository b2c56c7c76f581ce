//! The error type of everything that reads or writes a checkpoint.

use std::path::{Path, PathBuf};

use ternary_kernels::KernelError;

use crate::files::FileError;
use crate::tokenizer::TokenizerError;

/// The reason why a checkpoint could not be read or written. Every message names the thing at fault and, if there is
/// one, the way out.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
#[allow(missing_docs, reason = "fields that are named after what they hold have no comment")]
pub enum LoadError {
    /// An error in the contents of this file, described by `source`.
    #[error("{}: {source}", path.display())]
    InFile {
        /// The file.
        path: PathBuf,
        /// The problem.
        source: Box<LoadError>,
    },
    /// A part of a GGUF file that was split.
    #[error("{}: {reason}", path.display())]
    Split {
        /// The part.
        path: PathBuf,
        /// The problem, and the way out.
        reason: String,
    },
    /// The operating system failed an operation on a file.
    #[error("cannot {op} {}: {source}", path.display())]
    Io {
        /// The operation ("open", "map", ...).
        op: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// The system's reason.
        source: std::io::Error,
    },
    /// A path that is not a regular file, or a disk that is full; the message names it.
    #[error(transparent)]
    File(FileError),
    /// Writing to a stream failed.
    #[error("cannot write {what}: {source}")]
    Write {
        /// Kind of file.
        what: String,
        /// The system's reason.
        source: std::io::Error,
    },

    /// Something is wrong with a tokenizer.
    #[error(transparent)]
    Tokenizer(#[from] TokenizerError),
    /// Something is wrong with a chat template.
    #[error(transparent)]
    Chat(#[from] crate::chat::ChatError),
    /// The tokenizer has tokens that the model does not have.
    #[error(
        "the tokenizer has {tokens} tokens, the model only {vocab}: it belongs to another model; pass the right one with --tokenizer"
    )]
    TokenizerTooLarge {
        /// Tokens of the tokenizer.
        tokens: usize,
        /// Rows of the embedding.
        vocab: usize,
    },

    // ---- GGUF: container ----
    /// The file does not begin with the GGUF magic.
    #[error("this is not a GGUF file: it begins with {found:02x?}, not with \"GGUF\"")]
    NotGguf {
        /// The first bytes of the file, at most four.
        found: Vec<u8>,
    },
    /// A GGUF file written for big-endian machines.
    #[error(
        "this is a big-endian GGUF file; only little-endian ones are read (convert it with gguf_convert_endian.py little)"
    )]
    BigEndianGguf,
    /// A GGUF version that is not read.
    #[error("GGUF version {version} is not read, only 2 and 3 are: {way_out}")]
    GgufVersion {
        /// The version field.
        version: u32,
        /// The way out.
        way_out: &'static str,
    },
    /// The file ends in the middle of something.
    #[error("the file ends inside {what}: {needed} bytes are needed at offset {offset}, {left} are left")]
    Truncated {
        /// Kind of data.
        what: &'static str,
        /// Offset in the file, bytes.
        offset: u64,
        /// Bytes needed from there.
        needed: u64,
        /// Bytes that the file has from there.
        left: u64,
    },
    /// A count or a length that the rest of the file cannot hold.
    #[error(
        "{what} claims {count} entries at offset {offset}, but the {left} bytes that are left cannot hold so many: \
         the file is damaged"
    )]
    CountTooLarge {
        /// The quantity.
        what: &'static str,
        /// The count in the file.
        count: u64,
        /// Offset in the file, bytes.
        offset: u64,
        /// Bytes that the file has from there.
        left: u64,
    },
    /// A name longer than any sane writer makes.
    #[error("{what} at offset {offset} is {len} bytes long, more than the {max} that are accepted")]
    NameTooLong {
        /// Key or tensor name.
        what: &'static str,
        /// Offset in the file, bytes.
        offset: u64,
        /// Its length, bytes.
        len: u64,
        /// The limit, bytes.
        max: u64,
    },
    /// Text that is not UTF-8.
    #[error("{what} at offset {offset} is not UTF-8")]
    NotUtf8 {
        /// Key, tensor name, or the key whose value it is.
        what: String,
        /// Offset in the file, bytes.
        offset: u64,
    },
    /// A metadata key that occurs twice.
    #[error("metadata key {key:?} occurs twice; which of the two values is meant cannot be known")]
    DuplicateKey { key: String },
    /// A tensor name that occurs twice.
    #[error("tensor {tensor:?} occurs twice; which of the two is meant cannot be known")]
    DuplicateTensor { tensor: String },
    /// A metadata value of a type that GGUF does not have.
    #[error("metadata key {key:?} has value type {type_id} at offset {offset}; GGUF knows 0 to 12")]
    ValueType {
        key: String,
        /// The type in the file.
        type_id: u32,
        /// Offset in the file, bytes.
        offset: u64,
    },
    /// A boolean that is neither 0 nor 1.
    #[error("metadata key {key:?} holds the boolean {value}; only 0 and 1 are booleans")]
    BadBool {
        key: String,
        /// The byte in the file.
        value: u8,
    },
    /// Arrays of arrays of arrays ...
    #[error("metadata key {key:?} nests arrays more than {max} deep")]
    NestedTooDeep {
        key: String,
        /// The limit.
        max: usize,
    },
    /// An alignment that no file can have.
    #[error("general.alignment is {value}; it must be a power of two, from 1 to {max}")]
    BadAlignment {
        /// The value in the file.
        value: String,
        /// The largest accepted.
        max: u64,
    },
    /// A metadata key (or a field of `config.json`) that is needed and absent.
    #[error("{key:?} is missing; it is needed for {needed_for}")]
    MissingKey { key: String, needed_for: &'static str },
    /// A metadata key (or a field of `config.json`) of the wrong type.
    #[error("{key:?} should be {expected}, but is {got}")]
    KeyType {
        key: String,
        /// The expected value.
        expected: &'static str,
        /// The value in the file.
        got: String,
    },
    /// A metadata key (or a field of `config.json`) whose value is not supported.
    #[error("{key:?} is {value}: {reason}")]
    KeyValue {
        key: String,
        value: String,
        /// The reason, and what would work.
        reason: String,
    },

    // ---- Tensors ----
    /// A tensor with more dimensions than the container allows.
    #[error("tensor {tensor:?} has {dims} dimensions; at most 4 are allowed")]
    TooManyDims {
        tensor: String,
        /// Its number of dimensions.
        dims: u32,
    },
    /// A shape whose size does not fit 64 bits.
    #[error("the size of tensor {tensor:?} with dimensions {dims:?} overflows")]
    ShapeOverflow {
        tensor: String,
        /// Its dimensions, fastest first.
        dims: Vec<u64>,
    },
    /// A row that is not a whole number of blocks.
    #[error("tensor {tensor:?}: {ty} stores blocks of {block} weights, so rows of {cols} are impossible")]
    PartialBlock {
        tensor: String,
        /// Its type.
        ty: &'static str,
        /// Weights per block.
        block: u64,
        /// Weights per row.
        cols: u64,
    },
    /// A tensor whose offset is not aligned.
    #[error(
        "tensor {tensor:?} is at offset {offset} of the data, which is not a multiple of the alignment {alignment}"
    )]
    Misaligned {
        tensor: String,
        /// Its offset in the data section, bytes.
        offset: u64,
        /// The alignment, bytes.
        alignment: u64,
    },
    /// A tensor that reaches beyond the end of the file.
    #[error(
        "tensor {tensor:?} ({ty}) needs bytes {start} to {end}, but the file has {file_len}: the download is incomplete \
         or the file is damaged"
    )]
    OutOfFile {
        tensor: String,
        /// Its type.
        ty: String,
        /// First byte in the file.
        start: u64,
        /// One past its last byte.
        end: u64,
        /// Length of the file.
        file_len: u64,
    },
    /// Two tensors that claim the same bytes.
    #[error("tensors {first:?} and {second:?} overlap at offset {offset} of the data: the file is damaged")]
    Overlap {
        /// The tensor that begins first.
        first: String,
        /// The tensor that begins inside it.
        second: String,
        /// Offset of the second one, bytes.
        offset: u64,
    },
    /// An unknown tensor type.
    #[error(
        "tensor {tensor:?} has the unknown type id {type_id}; it was probably written by a newer program: convert the \
         model again to I2_S, TQ1_0, TQ2_0 or F16"
    )]
    UnknownType { tensor: String, type_id: u32 },
    /// A type id that stands for different types in different programs, if the file does not say which.
    #[error(
        "tensor {tensor:?} has type id {type_id}, which means {meanings}; architecture {architecture:?} does not decide \
         it, and it is not guessed: {way_out}"
    )]
    AmbiguousType {
        tensor: String,
        type_id: u32,
        /// The meanings of the id, and the programs that use them.
        meanings: &'static str,
        /// `general.architecture` of the file.
        architecture: String,
        /// The way out.
        way_out: &'static str,
    },
    /// A type id that stands for several layouts, none of which fits the tensor's size, or several of which fit and the
    /// scales do not decide.
    #[error(
        "tensor {tensor:?} has type id {type_id}, which means {meanings}. The file has {room} bytes for it: {sizes}. \
         Either the file is cut short or damaged, or its layout is another one, and it is not guessed: {way_out}"
    )]
    NoLayoutFits {
        tensor: String,
        type_id: u32,
        /// The meanings of the id, and the programs that use them.
        meanings: &'static str,
        /// Bytes up to the next tensor or the end of the file.
        room: u64,
        /// Bytes in each layout.
        sizes: String,
        /// The way out.
        way_out: &'static str,
    },
    /// A type that is known, but cannot be read or written here.
    #[error("tensor {tensor:?} has type {ty}{}, which is not supported: {reason}", id_in_gguf(*type_id))]
    UnsupportedType {
        tensor: String,
        /// The name of the type.
        ty: String,
        /// The type id, in GGUF files.
        type_id: Option<u32>,
        /// Why, and the way out.
        reason: &'static str,
    },
    /// A TL1 or TL2 tensor without tile sizes.
    #[error(
        "tensor {tensor:?} is {ty}, [{rows}, {cols}]: the order of its bytes depends on tile sizes that were chosen when the \
         writing program was built and that the file does not hold, and {named}; name them with --tl \
         (a preset: {presets}; that program's include/kernel_config.ini; or {rows}x{cols}:bm=N,bk=N,bmm=N), in a program with \
         LoadOptions::tl, or use the I2_S file of the same model"
    )]
    TilesNeeded {
        tensor: String,
        /// Its type.
        ty: &'static str,
        rows: u64,
        /// Its columns.
        cols: u64,
        /// The shapes for which tiles were named.
        named: String,
        /// Names of the presets.
        presets: String,
    },
    /// Tile sizes that are not understood.
    #[error("tile sizes {what:?}: {reason}")]
    Tiles {
        /// The value that was given.
        what: String,
        /// The problem, and the expected form.
        reason: String,
    },
    /// A tensor whose bytes are more or fewer than its shape and type need.
    #[error("tensor {tensor:?} ({ty}) needs {expected} bytes, but {got} are there")]
    TensorBytes {
        tensor: String,
        /// Its type.
        ty: String,
        /// Bytes that shape and type need.
        expected: u64,
        /// Bytes that are there.
        got: u64,
    },
    /// A tensor that the model needs and the file lacks.
    #[error("tensor {tensor:?} is missing; {hint}")]
    MissingTensor {
        tensor: String,
        /// Possible meanings.
        hint: String,
    },
    /// A tensor that no supported model has, so that ignoring it could change what the model computes.
    #[error(
        "tensor {tensor:?} belongs to no supported model with {layers} layers; ignoring it would compute something else \
         than the model does"
    )]
    UnexpectedTensor {
        tensor: String,
        /// Layers by the configuration.
        layers: usize,
    },
    /// The configuration or the weights contradict themselves or each other.
    #[error(transparent)]
    Model(#[from] bitnet_model::ModelError),
    /// A tensor of the wrong shape.
    #[error("tensor {tensor:?} should have shape {expected:?}, but has {got:?} (slowest dimension first)")]
    TensorShape {
        tensor: String,
        /// The shape that the configuration requires.
        expected: Vec<u64>,
        /// The shape in the file.
        got: Vec<u64>,
    },
    /// A tensor whose contents are not a valid ternary matrix.
    #[error("tensor {tensor:?}: {source}")]
    Ternary {
        tensor: String,
        /// The problem.
        source: KernelError,
    },
    /// Packed weights that contradict themselves, or of another version.
    #[error("packed weights: {reason}")]
    Packed {
        /// The problem with them, and the way out.
        reason: String,
    },
    /// A number that no model can compute with.
    #[error("tensor {tensor:?} holds {value} at position {position}; weights and scales must be finite")]
    NotFinite {
        tensor: String,
        /// Index of the value in the flattened tensor.
        position: u64,
        value: f32,
    },

    // ---- safetensors ----
    /// The header of a safetensors file is invalid.
    #[error("invalid safetensors file: {source}")]
    Safetensors {
        /// Message of the safetensors library.
        source: ::safetensors::SafeTensorError,
    },
    /// A JSON file that cannot be parsed or has the wrong shape.
    #[error("invalid JSON in {what}: {source}")]
    Json {
        /// Which file or part.
        what: &'static str,
        /// The parser's reason.
        source: serde_json::Error,
    },
    /// A file larger than files of its kind can be.
    #[error("{what} has {len} bytes, more than the {max} that are accepted")]
    FileTooLarge {
        /// Kind of file.
        what: &'static str,
        /// Its length, bytes.
        len: u64,
        /// The limit, bytes.
        max: u64,
    },
    /// An index that names a shard outside its folder, itself, or something that is not a safetensors file.
    #[error(
        "the index maps tensor {tensor:?} to {shard:?}, which is not a file name ending in .safetensors in the same folder: \
         {reason}"
    )]
    BadShard {
        tensor: String,
        /// The entry of the index.
        shard: String,
        /// The problem.
        reason: &'static str,
    },
    /// Some names of tensors have a prefix of a training program and others do not, or two names differ only in it.
    #[error(
        "tensor {tensor:?} has the prefix {prefix:?} of a training program and {other:?} has not; which of them belong to the \
         model is not guessed: save the model again without the wrapper"
    )]
    WrappedName {
        /// The tensor with the prefix.
        tensor: String,
        prefix: &'static str,
        /// A tensor without it.
        other: String,
    },
    /// A shard that the index names and the folder lacks.
    #[error("shard {shard:?} is missing in {}: download the whole repository, or the index belongs to another one", folder.display())]
    MissingShard {
        /// The file.
        shard: String,
        /// The folder in which it should be.
        folder: PathBuf,
    },
    /// A path that holds no model in any form that is read.
    #[error("{} holds no model: {reason}", path.display())]
    NoModel {
        path: PathBuf,
        /// Files that were looked for.
        reason: String,
    },

    // ---- Extractors ----
    /// A model of another kind instead of an extractor.
    #[error(
        "this is not an extractor but a model of architecture {architecture:?}: a language model is loaded with Model::load, or \
         used with `bitnet run`; extractors are made with `bitnet train --task extract`"
    )]
    NotAnExtractor {
        /// The architecture in the file.
        architecture: String,
    },
    /// An extractor of a form that is not read.
    #[error(
        "{key} is {format}, and this version reads form {read}: extractors of other forms split and read words in another way, so \
         they cannot be converted; train it again from its utterances with `bitnet train --task extract`, or use the version \
         that made it"
    )]
    ExtractorFormat {
        /// Where the form is named.
        key: &'static str,
        /// The form of the file.
        format: u64,
        /// The form that is read.
        read: u32,
    },
    /// A row of an extractor's features with several scales.
    #[error(
        "tensor \"features.weight\": the blocks of row {row} have different scales, but a row of features has one: export the \
         extractor again, without quantising it once more"
    )]
    FeatureBlocks {
        /// The row.
        row: usize,
    },

    // ---- Writing ----
    /// Tensors were written in another order than they were announced.
    #[error("tensor {got:?} was written where {expected:?} was announced")]
    WriteOrder {
        /// The tensor announced for this place; empty after the last.
        expected: String,
        /// The tensor that was written; empty if the writing ended too early.
        got: String,
    },
    /// The written file differs from the source.
    #[error("read-back of {}: tensor {tensor:?} differs from the source ({what})", path.display())]
    ReadBack {
        /// The file that was written.
        path: PathBuf,
        tensor: String,
        /// The difference.
        what: String,
    },
}

/// ` (id 42)` after the name of a type of GGUF.
fn id_in_gguf(type_id: Option<u32>) -> String {
    type_id.map(|id| format!(" (id {id})")).unwrap_or_default()
}

impl LoadError {
    /// Adds the file of the error, unless it is known.
    pub(crate) fn in_file(self, path: &Path) -> Self {
        match self {
            e @ (LoadError::InFile { .. }
            | LoadError::Io { .. }
            | LoadError::File(_)
            | LoadError::Tokenizer(TokenizerError::Read { .. } | TokenizerError::File(_))
            | LoadError::NoModel { .. }
            | LoadError::MissingShard { .. }
            | LoadError::Split { .. }
            | LoadError::ReadBack { .. }) => e,
            e => LoadError::InFile { path: path.to_path_buf(), source: Box::new(e) },
        }
    }

    /// The error without the name of its file.
    pub fn root(&self) -> &LoadError {
        match self {
            LoadError::InFile { source, .. } => source.root(),
            e => e,
        }
    }

    pub(crate) fn io(op: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> LoadError {
        let path = path.to_path_buf();
        move |source| LoadError::Io { op, path, source }
    }
}

impl From<FileError> for LoadError {
    fn from(error: FileError) -> Self {
        match error {
            FileError::Io { op, path, source } => LoadError::Io { op, path, source },
            error => LoadError::File(error),
        }
    }
}
