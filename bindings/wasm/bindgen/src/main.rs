//! `bindgen MODULE FOLDER`: the module with its JavaScript glue and types, as `wasm-bindgen --target web` writes them.
//! The library behind that command is used directly: it is built in half the time, and its version is that of the lock
//! file. With `NAMES` in the environment the module keeps the names of its functions, for a profile.

use std::process::ExitCode;

use wasm_bindgen_cli_support::Bindgen;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [module, folder] = &arguments[..] else {
        eprintln!("usage: bindgen MODULE FOLDER");
        return ExitCode::FAILURE;
    };
    let mut bindgen = Bindgen::new();
    bindgen
        .input_path(module)
        .out_name("bitnet")
        .typescript(true)
        .remove_name_section(std::env::var_os("NAMES").is_none())
        .remove_producers_section(true);
    let written = bindgen.web(true).and_then(|b| b.omit_default_module_path(true).generate(folder));
    match written {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{module}: {error:#}");
            ExitCode::FAILURE
        }
    }
}
