//! `BITNET_ISA` forces an instruction set; a name that is unknown or not available is an error, without fallback.
//!
//! The variable is read once per process, so each case runs this test binary again.

use std::io::Write;

use ternary_kernels::{Isa, KernelError, best};

const MARK: &str = "best kernel here:";

/// Prints the best kernel; it tests nothing by itself.
#[test]
fn probe() {
    let _ = match best() {
        Ok(kernel) => writeln!(std::io::stderr(), "{MARK} {}", kernel.name()),
        Err(KernelError::UnknownIsa { name, .. }) => writeln!(std::io::stderr(), "{MARK} unknown {name}"),
        Err(KernelError::UnavailableIsa { name, .. }) => writeln!(std::io::stderr(), "{MARK} unavailable {name}"),
        Err(other) => panic!("{other}"),
    };
}

/// The output of `probe` with `BITNET_ISA` set to `isa`, or not set. On architectures other than x86-64 there may be
/// none, because this process is emulated and the system cannot start another one.
fn best_with(isa: Option<&str>) -> String {
    let mut command = std::process::Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", "probe", "--nocapture"]).env_remove("BITNET_ISA");
    if let Some(isa) = isa {
        command.env("BITNET_ISA", isa);
    }
    let output = match command.output() {
        Ok(output) => output,
        Err(_) if cfg!(not(target_arch = "x86_64")) => return String::new(),
        Err(error) => panic!("{error}"),
    };
    let text = String::from_utf8_lossy(&output.stderr);
    match text.lines().find_map(|l| l.split_once(MARK)) {
        Some((_, name)) => name.trim().to_owned(),
        None if cfg!(not(target_arch = "x86_64")) => String::new(),
        None => panic!("no answer in {text}"),
    }
}

#[test]
fn the_variable_forces_a_set_or_is_an_error() {
    let last = format!("i2s_{}", Isa::available().last().unwrap());
    if best_with(None) != last {
        eprintln!("skipped: this process is emulated and its children are not, or on another CPU");
        return;
    }
    for &isa in Isa::ALL {
        let expected = match isa.is_available() {
            true => format!("i2s_{isa}"),
            false => format!("unavailable {isa}"),
        };
        assert_eq!(best_with(Some(isa.name())), expected);
    }
    assert_eq!(best_with(Some("sse9")), "unknown sse9");
    assert_eq!(best_with(Some("")), last);
}
