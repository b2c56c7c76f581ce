//! The tables of docs/models.md, written from the tables of the program by `cargo xtask tables`: a test compares them,
//! so that the page stays correct.

use bitnet::{KvType, MemoryEstimate};
use bitnet_model::{Architecture, Presence};
use loader::convert::Target;
use ternary_kernels::{FORMATS, FormatInfo, ScalePlace};

use crate::names::{ELSEWHERE, KNOWN};
use crate::ui;

/// Names of the families in both containers, and their formulas.
fn families() -> String {
    let mut table = "| GGUF | `model_type` | computes |\n|---|---|---|\n".to_owned();
    for a in Architecture::ALL {
        let names: Vec<String> = a.gguf_names().iter().map(|n| format!("`{n}`")).collect();
        let f = a.formulas();
        let mut parts = vec![f.activation.map_or("the activation that the file names", |a| a.name()).to_owned()];
        let mut add = |presence: Presence, what: &str| match presence {
            Presence::Always => parts.push(what.to_owned()),
            Presence::ByFile => parts.push(format!("{what} if the file has them")),
            Presence::Never => {}
        };
        add(f.sub_norms, "sub-norms");
        add(f.projection_norms, "norms before every projection");
        add(f.forms, "Hadamard transforms and 4-bit activations");
        let flags = [
            (f.head_norms && !f.head_norms_after_rope, "norms of the heads of q and k"),
            (f.head_norms_after_rope, "norms of the heads of q and k after the rotary embedding"),
            (f.output_norms, "norms after attention and feed-forward block"),
            (f.qkv_bias, "biases of q, k and v"),
            (f.embedding_root, "embedding times the root of its length"),
            (f.scales, "scales of embedding, residual branches and logits"),
            (f.mixers, "attention or test-time training, layer by layer"),
            (f.delta, "the gated delta rule (Gated DeltaNet) in all layers except one in every few"),
            (f.gated_attention, "a gate of attention's output"),
            (f.partial_rotary, "a rotary embedding of a part of each head"),
            (f.fold, "signed Hadamard transforms folded into the weights if the file says so"),
            (f.embeds, "with a head, or without one as an embedding model"),
        ];
        parts.extend(flags.iter().filter(|(yes, _)| *yes).map(|(_, what)| (*what).to_owned()));
        table += &format!("| {} | `{}` | {} |\n", names.join(", "), a.model_type(), parts.join("; "));
    }
    table
}

/// The formats of ternary matrices.
fn formats() -> String {
    let mut table = "| format | GGUF ids | bits per weight | scale | |\n|---|---|--:|---|---|\n".to_owned();
    for f in FORMATS.iter().filter(|f| f.name != "trits") {
        let ids: Vec<String> = f.ggml_ids.iter().map(u32::to_string).collect();
        let scale = match f.scale {
            ScalePlace::Beside => "in a separate tensor".to_owned(),
            ScalePlace::Tensor => "one f32 for a matrix".to_owned(),
            ScalePlace::Row(2) => "f16 for each row".to_owned(),
            ScalePlace::Row(_) => "f32 for each row".to_owned(),
            ScalePlace::Block(_) => format!("f16 for each {} weights", f.weights),
        };
        let ids = if ids.is_empty() { "safetensors".to_owned() } else { ids.join(", ") };
        let written = Target::ALL.iter().any(|t| t.format().name() == f.name);
        let written = if written { "read and written" } else { "read" };
        table += &format!("| {} | {ids} | {} | {scale} | {written} |\n", f.name, bits(f));
    }
    table
}

fn bits(f: &FormatInfo) -> String {
    match f.bytes {
        Some(bytes) => {
            let bits = 8.0 * bytes as f64 / f.weights as f64;
            format!("{bits}")
        }
        None => "about 2".to_owned(),
    }
}

/// Models that have short names, and those that are not computed here.
fn known() -> String {
    let mut table =
        "| name | what it is | weights | memory, 4096 tokens | repository |\n|---|---|--:|--:|---|\n".to_owned();
    for k in KNOWN {
        let weights = k.config().map_or("".to_owned(), |c| ui::count(c.parameters()));
        let memory = k.config().map_or("".to_owned(), |c| ui::bytes(MemoryEstimate::at(&c, KvType::F16, 4096).total()));
        let repo = k.repo();
        table += &format!("| `{}` | {} | {weights} | {memory} | {repo} |\n", k.name, k.what);
    }
    table += "\n| not computed here | why; what does |\n|---|---|\n";
    ELSEWHERE.iter().for_each(|(name, why)| table += &format!("| {name} | {why} |\n"));
    table
}

#[test]
fn the_page_of_models_is_what_the_program_knows() {
    let root = test_support::workspace_dir();
    let path = root.join("docs/models.md");
    let mut page = std::fs::read_to_string(&path).unwrap();
    let tables = [("families", families()), ("formats", formats()), ("known", known())];
    for (name, table) in &tables {
        let (begin, end) = (format!("<!-- {name} -->\n"), format!("<!-- /{name} -->"));
        let from = page.find(&begin).unwrap_or_else(|| panic!("{begin}")) + begin.len();
        let to = from + page[from..].find(&end).unwrap_or_else(|| panic!("{end}"));
        if std::env::var_os("BITNET_WRITE_DOCS").is_some() {
            page.replace_range(from..to, table);
        }
        let holds = page[from..].starts_with(&format!("{table}{end}"));
        assert!(holds, "docs/models.md, {name}: `cargo xtask tables` writes\n{table}");
    }
    if std::env::var_os("BITNET_WRITE_DOCS").is_some() {
        std::fs::write(&path, page).unwrap();
    }
}

/// The README names every family and every format.
#[test]
fn the_readme_names_all_of_them() {
    let readme = std::fs::read_to_string(test_support::workspace_dir().join("README.md")).unwrap();
    for name in Architecture::ALL.iter().flat_map(|a| a.gguf_names()) {
        assert!(readme.contains(&format!("`{name}`")), "README.md lacks `{name}`");
    }
    for f in FORMATS.iter().filter(|f| !f.ggml_ids.is_empty()) {
        assert!(readme.contains(f.name), "README.md lacks {}", f.name);
    }
}
