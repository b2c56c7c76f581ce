//! Nothing is made; without a build script, build dependencies would not count.

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
}
