//! The browser: the WebAssembly module, its npm package, the page, and their tests.
//!
//! The module needs the standard library built from source, as the check of the kernels does (`foreign.rs`).

use std::path::Path;

use crate::error::XtaskError;
use crate::foreign::{RUSTC, WASM, missing_for_wasm, skip_or_fail};
use crate::programs;
use crate::shell::{Outcome, Steps, root, run, works};

/// The crate, the package, the module's build, what the package is built into.
const CRATE: &str = "bindings/wasm/Cargo.toml";
const PACKAGE: &str = "bindings/wasm/js";
const TARGET: &str = "target/foreign/browser";
const DIST: &str = "bindings/wasm/js/dist";
/// The page, and the folder that it is built into.
const PAGE: &str = "web";
const SITE: &str = "target/site";
/// The model that comes with the package.
const MODEL: &str = "crates/bitnet/models/tiny-stories-ttt.gguf";
/// Largest module after compression, bytes.
const LARGEST: usize = 3 << 20;

/// Flags of both modules: the stack that templates and grammars are read on. Straight-line code is not
/// vectorised: LLVM 22 makes a wrong test of whether any of 32 flags is set, which the sampler's search for NaNs meets.
const FLAGS: &str = "-C no-vectorize-slp -C link-arg=-zstack-size=8388608";

/// The package with its tests, then the page if it is there.
///
/// # Errors
/// If something does not build or a test fails; in continuous integration also a missing tool.
pub(crate) fn check(steps: &mut Steps) -> Result<(), XtaskError> {
    if let Some(missing) = missing() {
        return steps.try_run("browser", || skip_or_fail(missing));
    }
    site(steps)?;
    let program = root().join(programs::built("debug", "bitnet")).display().to_string();
    let env = [("BITNET", program.as_str())];
    steps.run("browser: the package in Node and in a browser", || script(PACKAGE, &["test"], &env))?;
    steps.try_run("browser: the site", || {
        let chromium = std::env::var("CHROMIUM").unwrap_or_else(|_| "/usr/bin/chromium".into());
        if !works(&chromium, &["--version"]) {
            let remedy = "install Debian's package chromium, or name a browser of its kind with CHROMIUM";
            return skip_or_fail(XtaskError::Missing { what: "chromium".into(), remedy });
        }
        script(PAGE, &["e2e:site"], &env).map(|()| Outcome::Done)
    })
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

/// The module twice: for every browser with vectors, and with relaxed ones, which is several times as fast where the host
/// rounds a product and sum once; the package chooses. Their glue is the same.
fn module() -> Result<(), XtaskError> {
    let plain = build_module("", &format!("{TARGET}/glue"))?;
    let relaxed = build_module(",+relaxed-simd", &format!("{TARGET}/glue-relaxed"))?;
    let read = |path: &str| std::fs::read(path).map_err(XtaskError::io(path));
    let glue = |folder: &str| -> Result<[Vec<u8>; 2], XtaskError> {
        Ok([read(&format!("{folder}/bitnet.js"))?, read(&format!("{folder}/bitnet.d.ts"))?])
    };
    if glue(&plain)? != glue(&relaxed)? {
        let (what, expected) = ("the glue of the relaxed module".into(), "that of the plain one".into());
        return Err(XtaskError::Unexpected { what, expected, got: format!("another one, see {relaxed}") });
    }
    std::fs::create_dir_all(DIST).map_err(XtaskError::io(DIST))?;
    let copies = [
        (format!("{plain}/bitnet.js"), "bitnet.js"),
        (format!("{plain}/bitnet.d.ts"), "bitnet.d.ts"),
        (format!("{plain}/bitnet_bg.wasm"), "bitnet_bg.wasm"),
        (format!("{relaxed}/bitnet_bg.wasm"), "bitnet_relaxed_bg.wasm"),
        (MODEL.to_owned(), "tiny-stories-ttt.gguf"),
    ];
    for (from, to) in copies {
        let to = format!("{DIST}/{to}");
        std::fs::copy(&from, &to).map_err(XtaskError::io(&to))?;
    }
    size(&format!("{DIST}/bitnet_bg.wasm"))?;
    size(&format!("{DIST}/bitnet_relaxed_bg.wasm"))
}

/// Builds the module with more features of WebAssembly, and writes it with its glue to `folder`, which is returned.
fn build_module(features: &str, folder: &str) -> Result<String, XtaskError> {
    let flags = format!("-C target-feature=+simd128{features} {FLAGS}");
    let build = ["build", "--locked", "--release", "--target", WASM, "--manifest-path", CRATE];
    let build = [&build[..], &["-p", "bitnet-wasm", "--target-dir", TARGET]].concat();
    if has_std() {
        run("cargo", &build, &[("RUSTFLAGS", &flags)])?;
    } else {
        let flags = format!("-C linker-flavor=wasm-ld {flags}");
        let linker = ("CARGO_TARGET_WASM32_UNKNOWN_UNKNOWN_LINKER", "wasm-ld");
        let env = [("RUSTC", RUSTC), ("RUSTC_BOOTSTRAP", "1"), ("RUSTFLAGS", &flags), linker];
        run("cargo", &[&build[..], &["-Z", "build-std=std,panic_abort"]].concat(), &env)?;
    }
    let module = format!("{TARGET}/{WASM}/release/bitnet_wasm.wasm");
    let tool = ["run", "--quiet", "--locked", "--manifest-path", CRATE, "-p", "bindgen", "--target-dir", TARGET, "--"];
    run("cargo", &[&tool[..], &[&module, folder]].concat(), &[])?;
    Ok(folder.to_owned())
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

/// Installs what the lock file of a folder names, unless that is there, and runs one of its scripts.
pub(crate) fn script(folder: &str, args: &[&str], env: &[(&str, &str)]) -> Result<(), XtaskError> {
    let lock = format!("{folder}/package-lock.json");
    let installed = format!("{folder}/node_modules/.installed.json");
    let wanted = std::fs::read(&lock).map_err(XtaskError::io(&lock))?;
    if std::fs::read(&installed).ok().as_ref() != Some(&wanted) {
        run("npm", &["--prefix", folder, "ci"], &[])?;
        std::fs::write(&installed, &wanted).map_err(XtaskError::io(&installed))?;
    }
    run("npm", &[&["--prefix", folder, "run", "--silent"][..], args].concat(), env)
}

/// The package, and the page as a folder for any static server.
///
/// # Errors
/// If a tool is missing or something does not build.
pub(crate) fn site(steps: &mut Steps) -> Result<(), XtaskError> {
    if let Some(missing) = missing() {
        return Err(missing);
    }
    steps.run("browser: module", module)?;
    steps.run("browser: package", || script(PACKAGE, &["build"], &[]))?;
    steps.run("browser: site", || script(PAGE, &["build:site"], &[]))?;
    println!("{SITE} opens from any static server: python3 -m http.server --directory {SITE} 8000");
    Ok(())
}
