//! Prints the instruction sets that this CPU has, in one line, worst first. `cargo xtask isas` also runs it on emulated
//! CPUs, where detection has to work without help.
//!
//! `cargo run -p ternary-kernels --example instruction_sets`

use ternary_kernels::Isa;

fn main() {
    println!("{}", Isa::available().map(Isa::name).collect::<Vec<_>>().join(" "));
}
