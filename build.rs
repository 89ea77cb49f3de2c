//! Bakes libtorch's folder into the binaries, so that no LD_LIBRARY_PATH is needed: torch-sys sets no rpath for those
//! who depend on it.

use std::{env, fs, path::PathBuf};

fn main() {
    println!("cargo:rerun-if-env-changed=LIBTORCH");
    println!("cargo:rerun-if-changed=.dev/libtorch");
    let Some(libtorch) = env::var_os("LIBTORCH").map(PathBuf::from) else {
        println!("cargo:warning=LIBTORCH is not set: run `make setup` first");
        return;
    };
    let lib = libtorch.join("lib");
    match fs::canonicalize(&lib) {
        Ok(lib) => println!("cargo:rustc-link-arg=-Wl,-rpath,{}", lib.display()),
        Err(_) => println!("cargo:warning={} is not there: run `make setup` first", lib.display()),
    }
}
