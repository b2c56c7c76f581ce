//! Contents of a GGUF file: architecture, tensors by type, and how many of the ternary weights are zero.
//!
//! ```text
//! cargo run --release -p loader --example inspect -- models/tinystories-5m.gguf
//! ```

use std::collections::BTreeMap;
use std::path::Path;

use loader::gguf::Gguf;
use loader::{LoadError, LoadOptions};

fn main() -> Result<(), LoadError> {
    let path = std::env::args().nth(1).unwrap_or_else(|| "models/tinystories-5m.gguf".into());
    let path = Path::new(&path);

    // Only the table of contents: no weights are read.
    let file = Gguf::open(path)?;
    println!("{}, GGUF version {}, {} bytes", file.architecture(), file.version(), file.file_len());
    let mut types: BTreeMap<String, (usize, u64)> = BTreeMap::new();
    for tensor in file.tensors() {
        let (count, values) = types.entry(tensor.tensor_type().to_string()).or_default();
        *count += 1;
        *values += tensor.dims().iter().product::<u64>();
    }
    for (name, (count, values)) in types {
        println!("{count:5} tensors of {name}, {values} values");
    }

    // The whole model, checked.
    let model = loader::load(path, &LoadOptions::default())?;
    let (mut zeros, mut all) = (0, 0);
    for layer in &model.weights.layers {
        for (_, matrix) in layer.projections() {
            let mut row = vec![0i8; matrix.cols()];
            for r in 0..matrix.rows() {
                matrix.decode_row(r, &mut row);
                zeros += row.iter().filter(|trit| **trit == 0).count();
                all += row.len();
            }
        }
    }
    println!("{all} ternary weights, {:.1} % of them zero", 100.0 * zeros as f64 / all as f64);
    for note in model.notes {
        println!("note: {note}");
    }
    Ok(())
}
