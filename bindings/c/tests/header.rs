//! The committed header is the one that cbindgen makes of the sources. `BITNET_WRITE_HEADER=1` writes it.

use std::path::Path;

#[test]
fn the_header_is_made_from_the_sources() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"));
    let config = cbindgen::Config::from_file(folder.join("cbindgen.toml")).expect("cbindgen.toml");
    let bindings = cbindgen::Builder::new().with_config(config).with_crate(folder).generate().expect("the sources");
    let mut made = Vec::new();
    bindings.write(&mut made);
    let made = String::from_utf8(made).expect("UTF-8");
    let path = folder.join("include/bitnet.h");
    if std::env::var_os("BITNET_WRITE_HEADER").is_some() {
        std::fs::write(&path, &made).expect("include/bitnet.h");
    }
    let committed = std::fs::read_to_string(&path).expect("include/bitnet.h");
    let first = made.lines().zip(committed.lines()).position(|(made, committed)| made != committed);
    assert!(
        made == committed,
        "include/bitnet.h is old from line {} on: run `BITNET_WRITE_HEADER=1 cargo test --test header` in bindings/c",
        first.unwrap_or_else(|| made.lines().count().min(committed.lines().count())) + 1
    );
}
