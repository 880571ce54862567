//! Collects the pages of the error codes, so that the program can print them wherever it runs.

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
    // The one thing that a build script prints: what it depends on.
    println!("cargo::rerun-if-changed={}", folder.display());
    Ok(())
}
