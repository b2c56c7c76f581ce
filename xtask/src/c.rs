//! The library for C: a folder to compile and link with, and its tests in C, C++, CMake and Go.

use std::collections::BTreeSet;
use std::path::Path;

use crate::error::XtaskError;
use crate::foreign::skip_or_fail;
use crate::programs;
use crate::shell::{Outcome, Steps, cargo, output, root, run, works};

/// The crate, which is a workspace of its own, and the folder that everything of it is built into.
const CRATE: &str = "bindings/c/Cargo.toml";
const FOLDER: &str = "bindings/c";
const TARGET: &str = "target/c";
/// The folder to compile and link with: `include`, `lib`.
const DIST: &str = "target/c/dist";
/// Programs of the tests.
const TESTS: &str = "target/c/tests";
/// The shared library with the version of its interface, and the name that linkers look for.
const SHARED: [&str; 2] = if cfg!(target_os = "macos") {
    ["libbitnet.1.dylib", "libbitnet.dylib"]
} else {
    ["libbitnet.so.1", "libbitnet.so"]
};

/// Options of every build.
const OPTIONS: [&str; 6] = ["--release", "--locked", "--manifest-path", CRATE, "--target-dir", TARGET];
/// The compiler with lints, in the build that the tests need anyway.
const LINTS: [(&str, &str); 2] =
    [("RUSTC_WORKSPACE_WRAPPER", "clippy-driver"), ("CLIPPY_ARGS", "-Dwarnings__CLIPPY_HACKERY__")];
/// Libraries of the system that the static library needs.
const SYSTEM: [&str; 3] = ["-lm", "-lpthread", "-ldl"];

/// Builds the libraries and the folder to link with, and says where it is.
///
/// # Errors
/// If something does not build.
pub(crate) fn build(steps: &mut Steps) -> Result<(), XtaskError> {
    steps.run("c: library", || library(&[]))?;
    println!("{DIST} has include/bitnet.h, libbitnet.a, {}, and files for pkg-config and CMake", SHARED[1]);
    Ok(())
}

/// The libraries, and the folder with all that a program needs.
fn library(env: &[(&str, &str)]) -> Result<(), XtaskError> {
    cargo(&[&["build"][..], &OPTIONS].concat(), env)?;
    let fresh = |path: &str| -> Result<(), XtaskError> { std::fs::create_dir_all(path).map_err(XtaskError::io(path)) };
    if Path::new(DIST).exists() {
        std::fs::remove_dir_all(DIST).map_err(XtaskError::io(DIST))?;
    }
    for folder in ["include", "lib/pkgconfig", "lib/cmake/bitnet", "share/doc/bitnet"] {
        fresh(&format!("{DIST}/{folder}"))?;
    }
    let built = format!("{TARGET}/release/{}bitnet_c", std::env::consts::DLL_PREFIX);
    let copies = [
        (format!("{FOLDER}/include/bitnet.h"), "include/bitnet.h".to_owned()),
        (format!("{built}.a"), "lib/libbitnet.a".to_owned()),
        (format!("{built}{}", std::env::consts::DLL_SUFFIX), format!("lib/{}", SHARED[0])),
        ("LICENSE-MIT".to_owned(), "share/doc/bitnet/LICENSE-MIT".to_owned()),
        ("LICENSE-APACHE".to_owned(), "share/doc/bitnet/LICENSE-APACHE".to_owned()),
    ];
    for (from, to) in copies {
        std::fs::copy(&from, format!("{DIST}/{to}")).map_err(XtaskError::io(&from))?;
    }
    let link = format!("{DIST}/lib/{}", SHARED[1]);
    #[cfg(unix)]
    std::os::unix::fs::symlink(SHARED[0], &link).map_err(XtaskError::io(&link))?;
    #[cfg(not(unix))]
    std::fs::copy(format!("{DIST}/lib/{}", SHARED[0]), &link).map_err(XtaskError::io(&link))?;

    let manifest = std::fs::read_to_string(CRATE).map_err(XtaskError::io(CRATE))?;
    let version = manifest.lines().find_map(|line| line.strip_prefix("version = \"")?.strip_suffix('"'));
    let values = [("@VERSION@", version.unwrap_or("0")), ("@SHARED@", SHARED[0]), ("@SONAME@", SHARED[0])];
    for (from, to) in [("bitnet.pc", "lib/pkgconfig"), ("bitnet-config.cmake", "lib/cmake/bitnet")] {
        let path = format!("{FOLDER}/{from}");
        let text = std::fs::read_to_string(&path).map_err(XtaskError::io(&path))?;
        let text = values.iter().fold(text, |text, (name, value)| text.replace(name, value));
        let to = format!("{DIST}/{to}/{from}");
        std::fs::write(&to, text).map_err(XtaskError::io(&to))?;
    }
    Ok(())
}

/// Format, lints, unit tests, the header, the libraries, and programs in C, C++ and Go that use them: plain, under the address
/// sanitizer and under valgrind. Needs the command line program.
///
/// # Errors
/// If something fails; in continuous integration also if a tool is missing.
pub(crate) fn test(steps: &mut Steps) -> Result<(), XtaskError> {
    if cfg!(not(unix)) {
        let why = "its tests use a compiler with the options of GCC and Clang".to_owned();
        return steps.try_run("c", || Ok(Outcome::Skipped(why)));
    }
    steps.run("c: format", || cargo(&["fmt", "--manifest-path", CRATE, "--check"], &[]))?;
    steps.run("c: lints, unit tests, header", || cargo(&[&["test"][..], &OPTIONS].concat(), &LINTS))?;
    steps.run("c: library", || library(&LINTS))?;
    steps.try_run("c: licences, bans, sources", || {
        if !works("cargo", &["deny", "--version"]) {
            let remedy = "install it with `cargo install cargo-deny --locked`";
            return skip_or_fail(XtaskError::Missing { what: "cargo-deny".into(), remedy });
        }
        // It reads the `deny.toml` next to the manifest.
        cargo(&["deny", "--manifest-path", CRATE, "check", "licenses", "bans", "sources"], &[]).map(|()| Outcome::Done)
    })?;
    std::fs::create_dir_all(TESTS).map_err(XtaskError::io(TESTS))?;
    steps.try_run("c: symbols", with(&["nm"], symbols))?;
    steps.try_run("c: programs", with(&["cc", "c++"], programs_plain))?;
    steps.try_run("c: address sanitizer", with(&["cc", "c++"], address_sanitizer))?;
    steps.try_run("c: valgrind", with(&["cc", "valgrind"], valgrind))?;
    steps.try_run("c: the tokens of the command line program", with(&["cc"], same_tokens))?;
    steps.try_run("c: the examples", with(&["cc", "pkg-config"], hello))?;
    steps.try_run("c: CMake", with(&["cmake", "c++"], cmake))?;
    steps.try_run("c: Go", with(&["go", "cc", "pkg-config"], go))
}

/// A step that needs these tools.
fn with(tools: &[&'static str], step: fn() -> Result<(), XtaskError>) -> impl FnOnce() -> Result<Outcome, XtaskError> {
    let version = |tool: &str| if tool == "go" { "version" } else { "--version" };
    let missing = tools.iter().find(|tool| !works(tool, &[version(tool)])).copied();
    move || match missing {
        Some(tool) => {
            let remedy = "install gcc, g++, binutils, cmake, pkg-config, valgrind and golang-go, as `.ci/run` does";
            skip_or_fail(XtaskError::Missing { what: tool.into(), remedy })
        }
        None => step().map(|()| Outcome::Done),
    }
}

/// The absolute path of something below the repository.
fn absolute(path: &str) -> String {
    root().join(path).display().to_string()
}

fn expect(what: &str, expected: &str, got: &str) -> Result<(), XtaskError> {
    if expected == got {
        return Ok(());
    }
    Err(XtaskError::Unexpected { what: what.into(), expected: expected.into(), got: got.into() })
}

/// The shared library shows what the header declares and nothing else.
fn symbols() -> Result<(), XtaskError> {
    let header = format!("{FOLDER}/include/bitnet.h");
    let header = std::fs::read_to_string(&header).map_err(XtaskError::io(&header))?;
    let declared: BTreeSet<&str> = declared(&header).collect();
    let list = output("nm", &["-D", "--defined-only", &format!("{DIST}/lib/{}", SHARED[0])], &[])?;
    let shown: BTreeSet<&str> = list.lines().filter_map(|line| line.split_whitespace().nth(2)).collect();
    println!("{} functions", shown.len());
    let difference: Vec<&&str> = declared.symmetric_difference(&shown).collect();
    expect("symbols that only the header or only the library has", "[]", &format!("{difference:?}"))
}

/// Functions that a header declares: names before a bracket, outside of comments.
fn declared(header: &str) -> impl Iterator<Item = &str> {
    let code = header.lines().map(str::trim_start).filter(|line| !line.starts_with(['*', '/', '#']));
    code.filter_map(|line| {
        let name = line.split('(').next().filter(|_| line.contains('('))?;
        let name = name.rsplit([' ', '*']).next()?;
        (name.starts_with("bitnet_") && !line.contains("typedef")).then_some(name)
    })
}

/// Compiles a program of `bindings/c`, against the static library.
fn compile(source: &str, name: &str, more: &[&str]) -> Result<String, XtaskError> {
    let (compiler, standard) = if source.ends_with(".cpp") { ("c++", "-std=c++17") } else { ("cc", "-std=c99") };
    let (source, program) = (format!("{FOLDER}/{source}"), format!("{TESTS}/{name}"));
    let (include, library) = (format!("-I{DIST}/include"), format!("{DIST}/lib/libbitnet.a"));
    let strict = [standard, "-Wall", "-Wextra", "-Werror", "-pedantic", "-g", "-O1", &include, "-o", &program];
    run(compiler, &[&strict[..], &[&source], more, &[&library], &SYSTEM].concat(), &[])?;
    Ok(program)
}

/// The programs of the tests, their sources and their arguments.
const PROGRAMS: [(&str, &str, &[&str]); 3] =
    [("misuse", "tests/misuse.c", &[]), ("api", "tests/api.c", &["models"]), ("wrapper", "tests/wrapper.cpp", &[])];

fn programs_plain() -> Result<(), XtaskError> {
    for (name, source, args) in PROGRAMS {
        run(&compile(source, name, &[])?, args, &[])?;
    }
    Ok(())
}

/// The programs with every access of theirs and every allocation of the library watched, and memory that is lost.
fn address_sanitizer() -> Result<(), XtaskError> {
    for (name, source, args) in PROGRAMS {
        let program = compile(source, &format!("{name}-asan"), &["-fsanitize=address"])?;
        run(&program, args, &[("ASAN_OPTIONS", "detect_leaks=1")])?;
    }
    Ok(())
}

/// The programs in C with every access watched, those of the library, too.
fn valgrind() -> Result<(), XtaskError> {
    for (name, source, args) in PROGRAMS.into_iter().filter(|(_, source, _)| source.ends_with(".c")) {
        let program = compile(source, name, &[])?;
        let watched = ["--quiet", "--error-exitcode=9", "--leak-check=full", "--errors-for-leak-kinds=definite"];
        run("valgrind", &[&watched[..], &[&program], args].concat(), &[])?;
    }
    Ok(())
}

/// Models, prompts, seeds and temperatures whose tokens are compared.
const CASES: [(&str, &str, &str, &str); 4] = [
    ("crates/bitnet/models/tiny-stories-ttt.gguf", "Once upon a time", "7", "0.8"),
    ("crates/bitnet/models/tiny-stories-ttt.gguf", "The dog", "0", "0"),
    ("models/tinystories-5m.gguf", "Once upon a time", "3", "1"),
    ("models/tiny-ja-ttt.gguf", "むかしむかし", "11", "0.9"),
];

fn same_tokens() -> Result<(), XtaskError> {
    let tokens = compile("tests/tokens.c", "tokens", &[])?;
    let bitnet = programs::built("debug", "bitnet");
    for (model, prompt, seed, temperature) in CASES {
        let options = ["--seed", seed, "--temperature", temperature, "-n", "24", "--json", prompt];
        let answer = output(&bitnet, &[&["run", "-m", model][..], &options].concat(), &[])?;
        let answer: serde_json::Value = serde_json::from_str(&answer).unwrap_or_default();
        let ids = answer["ids"].as_array().map(Vec::as_slice).unwrap_or_default();
        let ids: Vec<String> = ids.iter().map(ToString::to_string).collect();
        if ids.is_empty() {
            let (what, expected) = (format!("{bitnet} run --json"), "tokens".into());
            return Err(XtaskError::Unexpected { what, expected, got: answer.to_string() });
        }
        for how in ["callback", "stream"] {
            let got = output(&tokens, &[model, prompt, seed, temperature, "24", how], &[])?;
            expect(&format!("tokens of {model} after {prompt:?}, by {how}"), &ids.join(","), got.trim())?;
        }
        println!("{model}, {prompt:?}: {} tokens are the same", ids.len());
    }
    let builtin = output(&tokens, &["builtin", "The dog", "0", "0", "24", "stream"], &[])?;
    let file = output(&tokens, &[CASES[1].0, "The dog", "0", "0", "24", "callback"], &[])?;
    expect("tokens of the model within the library", &file, &builtin)
}

/// Where pkg-config and the loader find the library.
fn found() -> [(&'static str, String); 2] {
    [
        ("PKG_CONFIG_PATH", absolute(&format!("{DIST}/lib/pkgconfig"))),
        ("LD_LIBRARY_PATH", absolute(&format!("{DIST}/lib"))),
    ]
}

/// The first example with both libraries; its story.
fn story() -> Result<String, XtaskError> {
    let example = "examples/hello.c";
    let fixed = output(&compile(example, "hello", &[])?, &[], &[])?;
    let env = found();
    let env: Vec<(&str, &str)> = env.iter().map(|(name, value)| (*name, value.as_str())).collect();
    let flags = output("pkg-config", &["--cflags", "--libs", "bitnet"], &env)?;
    let (source, program) = (format!("{FOLDER}/{example}"), format!("{TESTS}/hello-shared"));
    let flags: Vec<&str> = flags.split_whitespace().collect();
    run("cc", &[&[source.as_str(), "-o", &program][..], &flags].concat(), &[])?;
    expect("the story with the shared library", &fixed, &output(&program, &[], &env)?)?;
    if fixed.split_whitespace().count() < 20 {
        return Err(XtaskError::Unexpected { what: "story".into(), expected: "a text".into(), got: fixed });
    }
    Ok(fixed)
}

fn hello() -> Result<(), XtaskError> {
    println!("{}", story()?.trim());
    // A model that is not there is an error with its name.
    match works(&format!("{TESTS}/hello"), &["Once", "nowhere.gguf"]) {
        true => expect("hello with a model that is not there", "a failure", "success"),
        false => Ok(()),
    }
}

fn cmake() -> Result<(), XtaskError> {
    for (folder, fixed) in [("cmake", "OFF"), ("cmake-static", "ON")] {
        let (source, build) = (format!("{FOLDER}/examples/cmake"), format!("{TESTS}/{folder}"));
        let options = [format!("-DCMAKE_PREFIX_PATH={}", absolute(DIST)), format!("-DBITNET_STATIC={fixed}")];
        run("cmake", &["-S", &source, "-B", &build, &options[0], &options[1]], &[])?;
        run("cmake", &["--build", &build], &[])?;
        let prompt = "Once upon a time there was a little";
        let chosen = output(&format!("{build}/choose"), &[prompt, " girl", " quantum"], &[])?;
        println!("{}", chosen.trim_end());
        let first = chosen.lines().next().unwrap_or_default();
        expect("the chosen text", "true", &(first.starts_with('*') && first.ends_with("girl")).to_string())?;
    }
    Ok(())
}

/// The example in Go tells the story of the one in C.
fn go() -> Result<(), XtaskError> {
    let (cache, program) = (absolute(&format!("{TARGET}/go")), absolute(&format!("{TESTS}/story")));
    let mut env = found().to_vec();
    env.extend([("GOCACHE", cache), ("CGO_ENABLED", "1".to_owned()), ("GOFLAGS", "-mod=mod".to_owned())]);
    let env: Vec<(&str, &str)> = env.iter().map(|(name, value)| (*name, value.as_str())).collect();
    let build =
        format!("cd {FOLDER}/examples/go && test -z \"$(gofmt -l .)\" && go vet . && go build -o '{program}' .");
    run("sh", &["-c", &build], &env)?;
    expect("the story in Go", &story()?, &output(&program, &[], &env)?)?;
    match works(&program, &["Once", "nowhere.gguf"]) {
        true => expect("the program in Go with a model that is not there", "a failure", "success"),
        false => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn functions_of_a_header_are_found() {
        let header = "/** bitnet_comment(x) */\n * bitnet_more(x)\ntypedef int (*bitnet_on)(void *user);\n\
            uint32_t bitnet_a(void);\nconst char *bitnet_b(const struct x *y,\n    size_t len);\n#define bitnet_c(x) x\n";
        assert_eq!(declared(header).collect::<Vec<_>>(), ["bitnet_a", "bitnet_b"]);
    }

    #[test]
    fn the_header_declares_what_the_sources_export() {
        let sources = root().join(FOLDER).join("src");
        let files: Vec<std::path::PathBuf> =
            std::fs::read_dir(sources).unwrap().map(|entry| entry.unwrap().path()).collect();
        let texts: Vec<String> = files.iter().map(|path| std::fs::read_to_string(path).unwrap()).collect();
        let exported: BTreeSet<&str> = texts
            .iter()
            .flat_map(|text| text.split("extern \"C\" fn bitnet_").skip(1))
            .filter_map(|rest| rest.split('(').next())
            .collect();
        let header = std::fs::read_to_string(root().join(FOLDER).join("include/bitnet.h")).unwrap();
        let declared: BTreeSet<&str> = declared(&header).filter_map(|name| name.strip_prefix("bitnet_")).collect();
        assert!(exported.len() > 30);
        assert_eq!(declared, exported);
    }
}
