//! Collects the pages of the error codes, so that the program can print them wherever it runs, and says how the program is linked.

use std::{env, error::Error, fmt::Write as _, fs, path::Path};

fn main() -> Result<(), Box<dyn Error>> {
    let folder = Path::new(&env::var_os("CARGO_MANIFEST_DIR").ok_or("cargo names the package")?).join("../docs/errors").canonicalize()?;
    let mut pages = Vec::new();
    for entry in fs::read_dir(&folder)? {
        let path = entry?.path();
        if path.extension().is_some_and(|ending| ending == "md") {
            pages.push(path);
        }
    }
    pages.sort();
    let mut table = String::from("&[\n");
    for page in &pages {
        let code = page.file_stem().and_then(|name| name.to_str()).ok_or("a page is named by its code")?;
        let file = page.to_str().ok_or("the folder's path is text")?;
        writeln!(table, "    ({code:?}, include_str!({file:?})),")?;
    }
    table.push_str("]\n");
    let out = env::var_os("OUT_DIR").ok_or("cargo names the folder for what is generated")?;
    fs::write(Path::new(&out).join("error_pages.rs"), table)?;
    // What a build script prints is for cargo: what it depends on, and what the linker is told.
    println!("cargo::rerun-if-changed={}", folder.display());
    if env::var_os("CARGO_CFG_TARGET_OS").is_some_and(|os| os == "linux")
        && env::var_os("CARGO_CFG_TARGET_ENV").is_some_and(|env| env == "gnu")
    {
        // The linker then knows the address of everything, and the start of each process need not write 60,000 of them: a third of the time
        // that `otto --version` takes, and 290 pages for each process. What that costs stands in SECURITY.md.
        println!("cargo::rustc-link-arg-bins=-no-pie");
    }
    Ok(())
}
