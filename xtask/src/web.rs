//! The browser: the WebAssembly module, its npm package, the page, and their tests.
//!
//! The module needs the standard library built from source, as the check of the kernels does (`foreign.rs`).

use std::path::Path;

use crate::error::XtaskError;
use crate::foreign::{RUSTC, WASM, missing_for_wasm, skip_or_fail};
use crate::shell::{Steps, run, works};

/// The crate, the package, the module's build, what the package is built into.
const CRATE: &str = "bindings/wasm/Cargo.toml";
const PACKAGE: &str = "bindings/wasm/js";
const TARGET: &str = "target/foreign/browser";
const DIST: &str = "bindings/wasm/js/dist";
/// The model that comes with the package.
const MODEL: &str = "crates/bitnet/models/tiny-stories-ttt.gguf";
/// Largest module after compression, bytes.
const LARGEST: usize = 3 << 20;

/// Flags of the module: vectors, and the stack that templates and grammars are read on. Straight-line code is not
/// vectorised: LLVM 22 makes a wrong test of whether any of 32 flags is set, which the sampler's search for NaNs meets.
const FLAGS: &str = "-C target-feature=+simd128 -C no-vectorize-slp -C link-arg=-zstack-size=8388608";

/// The package with its tests, then the page if it is there.
///
/// # Errors
/// If something does not build or a test fails; in continuous integration also a missing tool.
pub(crate) fn check(steps: &mut Steps) -> Result<(), XtaskError> {
    if let Some(missing) = missing() {
        return steps.try_run("browser", || skip_or_fail(missing));
    }
    steps.run("browser: module", module)?;
    steps.run("browser: package", package)?;
    steps.run("browser: same tokens as native, hostile input", || npm(PACKAGE, &["test", "--silent"]))
}

fn missing() -> Option<XtaskError> {
    let compiler = if has_std() { None } else { missing_for_wasm() };
    compiler.or_else(|| {
        let remedy = "install Node 20 with npm, as `.ci/run` does";
        (!works("npm", &["--version"])).then(|| XtaskError::Missing { what: "npm".into(), remedy })
    })
}

/// Whether the compiler has the standard library of this target: `rustup target add wasm32-unknown-unknown`. If not,
/// Debian's compiler builds it from source.
fn has_std() -> bool {
    let sysroot = crate::shell::output("rustc", &["--print", "sysroot"], &[]).unwrap_or_default();
    Path::new(sysroot.trim()).join("lib/rustlib").join(WASM).join("lib").is_dir()
}

fn npm(folder: &str, args: &[&str]) -> Result<(), XtaskError> {
    run("npm", &[&["--prefix", folder][..], args].concat(), &[])
}

/// Builds the module and writes its glue next to the package's sources.
pub(crate) fn module() -> Result<(), XtaskError> {
    let build = ["build", "--locked", "--profile", "dist", "--target", WASM, "--manifest-path", CRATE];
    let build = [&build[..], &["-p", "bitnet-wasm", "--target-dir", TARGET]].concat();
    if has_std() {
        run("cargo", &build, &[("RUSTFLAGS", FLAGS)])?;
    } else {
        let flags = format!("-C linker-flavor=wasm-ld {FLAGS}");
        let linker = ("CARGO_TARGET_WASM32_UNKNOWN_UNKNOWN_LINKER", "wasm-ld");
        let env = [("RUSTC", RUSTC), ("RUSTC_BOOTSTRAP", "1"), ("RUSTFLAGS", &flags), linker];
        run("cargo", &[&build[..], &["-Z", "build-std=std,panic_abort"]].concat(), &env)?;
    }
    let module = format!("{TARGET}/{WASM}/dist/bitnet_wasm.wasm");
    let tool = ["run", "--quiet", "--locked", "--manifest-path", CRATE, "-p", "bindgen", "--target-dir", TARGET, "--"];
    run("cargo", &[&tool[..], &[&module, DIST]].concat(), &[])?;
    let to = format!("{DIST}/tiny-stories-ttt.gguf");
    std::fs::copy(MODEL, &to).map_err(XtaskError::io(&to))?;
    size(&format!("{DIST}/bitnet_bg.wasm"))
}

/// Prints how large the module is, and refuses it if a visitor would wait for it.
fn size(module: &str) -> Result<(), XtaskError> {
    let bytes = std::fs::read(module).map_err(XtaskError::io(module))?;
    let script =
        format!("console.log(require('zlib').gzipSync(require('fs').readFileSync('{module}'), {{level: 9}}).length)");
    let compressed = crate::shell::output("node", &["-e", &script], &[])?;
    let compressed: usize = compressed.trim().parse().unwrap_or(usize::MAX);
    println!("{module}: {} bytes, {compressed} compressed with gzip", bytes.len());
    match compressed <= LARGEST {
        true => Ok(()),
        false => Err(XtaskError::Unexpected {
            what: "the compressed module".into(),
            expected: format!("at most {LARGEST} bytes"),
            got: compressed.to_string(),
        }),
    }
}

/// Compiles the package's TypeScript.
pub(crate) fn package() -> Result<(), XtaskError> {
    if !Path::new(PACKAGE).join("node_modules").is_dir() {
        npm(PACKAGE, &["ci", "--no-audit", "--no-fund"])?;
    }
    npm(PACKAGE, &["run", "--silent", "build"])
}

/// The package, and the page as a folder for any static server.
///
/// # Errors
/// If a tool is missing or something does not build.
pub(crate) fn site(steps: &mut Steps) -> Result<(), XtaskError> {
    if let Some(missing) = missing() {
        return Err(missing);
    }
    steps.run("module", module)?;
    steps.run("package", package)
}
