//! Changed copies of GGUF files and of folders.

use std::path::{Path, PathBuf};

use loader::gguf::{GgmlType, Gguf, GgufWriter, Metadata, Value};
use loader::{LoadError, LoadOptions, LoadedModel};

/// The parts of a GGUF file.
pub struct Edit {
    pub metadata: Metadata,
    /// Name, shape with the slowest dimension first, type, bytes.
    pub tensors: Vec<(String, Vec<u64>, GgmlType, Vec<u8>)>,
}

impl Edit {
    pub fn open(path: &Path) -> Self {
        let file = Gguf::open(path).unwrap();
        let tensor = |t: &loader::gguf::TensorInfo| {
            let (ty, bytes) = file.data(t).unwrap();
            (t.name().to_owned(), t.shape(), ty, bytes.to_vec())
        };
        Self { metadata: file.metadata().clone(), tensors: file.tensors().iter().map(tensor).collect() }
    }

    /// The small model of stories.
    pub fn stories() -> Self {
        Self::open(&test_support::workspace_dir().join("models/tinystories-5m.gguf"))
    }

    pub fn set(mut self, key: &str, value: impl Into<Value>) -> Self {
        self.metadata.set(key, value);
        self
    }

    pub fn remove(mut self, key: &str) -> Self {
        self.metadata.retain(|k| k != key);
        self
    }

    /// Renames the architecture, in its own key and in front of all others.
    pub fn architecture(mut self, new: &str) -> Self {
        let old = self.metadata.str("general.architecture").unwrap().unwrap().to_owned();
        let mut renamed = Metadata::default();
        for (key, value) in self.metadata.iter() {
            match key.strip_prefix(&format!("{old}.")) {
                Some(rest) => renamed.set(&format!("{new}.{rest}"), value.clone()),
                None => renamed.set(key, value.clone()),
            }
        }
        renamed.set("general.architecture", new);
        self.metadata = renamed;
        self
    }

    /// Adds a tensor of floats.
    pub fn floats(mut self, name: &str, values: &[f32]) -> Self {
        let bytes = values.iter().flat_map(|v| v.to_le_bytes()).collect();
        self.tensors.push((name.to_owned(), vec![values.len() as u64], GgmlType::F32, bytes));
        self
    }

    pub fn write(&self, path: &Path) -> PathBuf {
        let mut writer = GgufWriter::with_metadata(self.metadata.clone()).unwrap();
        for (name, shape, ty, _) in &self.tensors {
            writer.announce(name, shape, *ty).unwrap();
        }
        let mut stream = writer.start(std::fs::File::create(path).unwrap()).unwrap();
        for (name, _, _, bytes) in &self.tensors {
            stream.tensor(name, |o| o.write_all(bytes)).unwrap();
        }
        stream.finish().unwrap();
        path.to_path_buf()
    }

    /// Part `n` of this file; `cuts` are the beginnings of new parts. Only the first has metadata.
    pub fn part(&self, n: usize, cuts: &[usize]) -> Self {
        let bounds: Vec<usize> = [0].iter().chain(cuts).copied().chain([self.tensors.len()]).collect();
        let metadata = if n == 0 { self.metadata.clone() } else { Metadata::default() };
        Edit { metadata, tensors: self.tensors[bounds[n]..bounds[n + 1]].to_vec() }
            .set("split.no", Value::U16(n as u16))
            .set("split.count", Value::U16(cuts.len() as u16 + 1))
            .set("split.tensors.count", Value::I32(self.tensors.len() as i32))
    }

    /// Writes all parts under the names of splitting programs.
    pub fn write_split(&self, folder: &Path, name: &str, cuts: &[usize]) -> Vec<PathBuf> {
        let count = cuts.len() + 1;
        let path = |n: usize| folder.join(format!("{name}-{:05}-of-{count:05}.gguf", n + 1));
        (0..count).map(|n| self.part(n, cuts).write(&path(n))).collect()
    }
}

pub fn try_load(path: &Path) -> Result<LoadedModel, LoadError> {
    loader::load(path, &LoadOptions::default())
}

/// The message of a file that must be rejected.
pub fn refusal(path: &Path) -> String {
    match try_load(path) {
        Ok(_) => panic!("{} was accepted", path.display()),
        Err(e) => e.to_string(),
    }
}

/// A copy of the folder of the small model of stories with these fields of `config.json` and these additional files;
/// null removes a field.
pub fn stories_folder(out: &Path, fields: &serde_json::Value, files: &[(&str, String)]) -> Option<PathBuf> {
    let source = test_support::shared_dir()?.join("models/tinystories_5m/packed");
    std::fs::create_dir_all(out).unwrap();
    for name in ["model.safetensors", "tokenizer.json"] {
        std::fs::write(out.join(name), std::fs::read(source.join(name)).unwrap()).unwrap();
    }
    let mut config: serde_json::Value =
        serde_json::from_slice(&std::fs::read(source.join("config.json")).unwrap()).unwrap();
    for (key, value) in fields.as_object().unwrap() {
        config[key.as_str()] = value.clone();
    }
    std::fs::write(out.join("config.json"), config.to_string()).unwrap();
    for (name, text) in files {
        std::fs::create_dir_all(out.join(name).parent().unwrap()).unwrap();
        std::fs::write(out.join(name), text).unwrap();
    }
    Some(out.to_path_buf())
}
