//! Nothing: this package is about its build dependencies, see its `Cargo.toml`.
