//! Names the shared library after the version of its interface, `BITNET_ABI_VERSION`: a program finds the one that it was
//! linked with, or none.

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    match std::env::var("CARGO_CFG_TARGET_OS").as_deref() {
        Ok("linux") => {
            println!("cargo:rustc-cdylib-link-arg=-Wl,-soname,libbitnet.so.1");
            // The grammar engine has a C interface as well, which is not ours to show.
            println!("cargo:rustc-cdylib-link-arg=-Wl,--exclude-libs,ALL");
        }
        Ok("macos") => println!("cargo:rustc-cdylib-link-arg=-Wl,-install_name,@rpath/libbitnet.1.dylib"),
        _ => {}
    }
}
