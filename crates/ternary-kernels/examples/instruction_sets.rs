//! Prints the instruction sets that this CPU has, one line, worst first. `cargo xtask isas` runs it on emulated CPUs,
//! too, where detection has to find out by itself.
//!
//! `cargo run -p ternary-kernels --example instruction_sets`

use ternary_kernels::Isa;

fn main() {
    println!("{}", Isa::available().map(Isa::name).collect::<Vec<_>>().join(" "));
}
