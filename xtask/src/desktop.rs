//! The desktop program: its page, its build, its tests in a window, its packages.

use std::path::{Path, PathBuf};

use crate::error::XtaskError;
use crate::foreign::skip_or_fail;
use crate::shell::{Outcome, Steps, cargo, root, run, works};
use crate::web::script;

/// The crate, which is a workspace of its own, and the folder that everything of it is built into.
const CRATE: &str = "apps/desktop/Cargo.toml";
const FOLDER: &str = "apps/desktop";
const TARGET: &str = "target/desktop";
/// The page, whose sources are those of the server's.
const PAGE: &str = "web";
/// Features that only the test of the window has.
const HOOKS: [&str; 2] = ["--features", "test-hooks"];
const NAME: &str = "bitnet-desktop";

/// Builds the program as users have it, and says where it is.
///
/// # Errors
/// If a tool is missing or something does not build.
pub(crate) fn build(steps: &mut Steps) -> Result<(), XtaskError> {
    page(steps)?;
    steps.run("desktop: program", || cargo(&[&["build", "--release"][..], &OPTIONS].concat(), &[]))?;
    println!("{TARGET}/release/{NAME} is the program");
    Ok(())
}

/// Options of every build.
const OPTIONS: [&str; 5] = ["--locked", "--manifest-path", CRATE, "--target-dir", TARGET];

/// The page that the program embeds.
fn page(steps: &mut Steps) -> Result<(), XtaskError> {
    if let Some(missing) = missing() {
        return Err(missing);
    }
    steps.run("desktop: page", || script(PAGE, &["build:desktop"], &[]))
}

/// Packages: a `.deb`, and a tarball of what is in it.
///
/// # Errors
/// If a tool is missing or something does not build.
pub(crate) fn package(steps: &mut Steps) -> Result<(), XtaskError> {
    page(steps)?;
    let target = root().join(TARGET).display().to_string();
    steps.run("desktop: packages", || {
        script(FOLDER, &["tauri", "--", "build", "--bundles", "deb"], &[("CARGO_TARGET_DIR", &target)])
    })?;
    steps.run("desktop: tarball", || {
        let deb = found(&format!("{TARGET}/release/bundle/deb"), ".deb")?.display().to_string();
        let unpacked = format!("{TARGET}/release/bundle/tar/{NAME}");
        if Path::new(&unpacked).exists() {
            std::fs::remove_dir_all(&unpacked).map_err(XtaskError::io(&unpacked))?;
        }
        std::fs::create_dir_all(&unpacked).map_err(XtaskError::io(&unpacked))?;
        run("dpkg-deb", &["--extract", &deb, &unpacked], &[])?;
        let file = deb.replace("/deb/", "/tar/").replace(".deb", ".tar.gz");
        let folder = format!("{TARGET}/release/bundle/tar");
        run(
            "tar",
            &["--create", "--gzip", "--file", &file, "--owner=0", "--group=0", "--directory", &folder, NAME],
            &[],
        )?;
        println!("{deb}\n{file}");
        Ok(())
    })
}

/// The file in a folder whose name ends so.
fn found(folder: &str, ending: &str) -> Result<PathBuf, XtaskError> {
    let mut files: Vec<PathBuf> = std::fs::read_dir(folder)
        .map_err(XtaskError::io(folder))?
        .filter_map(|entry| entry.ok().map(|entry| entry.path()))
        .filter(|path| path.to_string_lossy().ends_with(ending))
        .collect();
    files.sort();
    files.pop().ok_or_else(|| XtaskError::Unexpected {
        what: folder.into(),
        expected: format!("a file {ending}"),
        got: "none".into(),
    })
}

/// Format, lints, unit tests, licences, and the program in a window: answers, is killed, remembers. Pictures remain in
/// `target/desktop/shots`.
///
/// # Errors
/// If something fails; in continuous integration also if a tool is missing.
pub(crate) fn test(steps: &mut Steps) -> Result<(), XtaskError> {
    if let Some(missing) = missing() {
        return steps.try_run("desktop", || skip_or_fail(missing));
    }
    page(steps)?;
    steps.run("desktop: format", || cargo(&["fmt", "--manifest-path", CRATE, "--check"], &[]))?;
    // The compiler with lints, in the build that the tests need anyway: a build for lints alone would check four hundred
    // crates once more.
    let lints = [("RUSTC_WORKSPACE_WRAPPER", "clippy-driver"), ("CLIPPY_ARGS", "-Dwarnings__CLIPPY_HACKERY__")];
    let options = [&OPTIONS[..], &HOOKS].concat();
    steps.run("desktop: lints, unit tests", || cargo(&[&["test"][..], &options].concat(), &lints))?;
    steps.run("desktop: program for the test", || cargo(&[&["build"][..], &options].concat(), &lints))?;
    steps.try_run("desktop: licences, bans, sources", || {
        if !works("cargo", &["deny", "--version"]) {
            let remedy = "install it with `cargo install cargo-deny --locked`";
            return skip_or_fail(XtaskError::Missing { what: "cargo-deny".into(), remedy });
        }
        // It reads the `deny.toml` next to the manifest.
        cargo(&["deny", "--manifest-path", CRATE, "check", "licenses", "bans", "sources"], &[]).map(|()| Outcome::Done)
    })?;
    steps.try_run("desktop: in a window", || {
        for (program, args) in [
            ("Xvfb", &["-help"][..]),
            ("dbus-daemon", &["--version"]),
            ("WebKitWebDriver", &["--help"]),
            ("import", &["-version"]),
            ("xdotool", &["--version"]),
        ] {
            if !works(program, args) {
                let remedy = "install xvfb, dbus, webkit2gtk-driver, imagemagick and xdotool, as `.ci/run` does";
                return skip_or_fail(XtaskError::Missing { what: program.into(), remedy });
            }
        }
        let program = root().join(TARGET).join("debug").join(NAME).display().to_string();
        script(PAGE, &["e2e:desktop"], &[("BITNET_DESKTOP", &program)])?;
        println!("{TARGET}/shots has pictures");
        Ok(Outcome::Done)
    })
}

/// The first tool of a build that this machine lacks.
fn missing() -> Option<XtaskError> {
    let lack = |what: &str, remedy| Some(XtaskError::Missing { what: what.into(), remedy });
    for program in ["node", "npm"] {
        if !works(program, &["--version"]) {
            return lack(program, "install Node 20 with npm, as `.ci/run` does");
        }
    }
    let libraries = ["webkit2gtk-4.1", "gtk+-3.0", "librsvg-2.0"];
    if cfg!(target_os = "linux") && !works("pkg-config", &[&["--exists"][..], &libraries].concat()) {
        let remedy = "install libwebkit2gtk-4.1-dev, libayatana-appindicator3-dev and librsvg2-dev, as `.ci/run` does";
        return lack("the system's web view (webkit2gtk-4.1)", remedy);
    }
    None
}
