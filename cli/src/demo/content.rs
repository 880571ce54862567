//! The content of the demo's repository: `examples/demo`, built into the program.

use std::{fs, io, path::Path};

/// Path and bytes of every file.
pub(super) const FILES: [(&str, &str); 6] = [
    (".gitignore", include_str!("../../../examples/demo/.gitignore")),
    ("Cargo.lock", include_str!("../../../examples/demo/Cargo.lock")),
    ("Cargo.toml", include_str!("../../../examples/demo/Cargo.toml")),
    (PIPELINE, include_str!("../../../examples/demo/Ottofile")),
    ("src/lib.rs", include_str!("../../../examples/demo/src/lib.rs")),
    ("src/main.rs", include_str!("../../../examples/demo/src/main.rs")),
];
/// The pipeline file.
pub(super) const PIPELINE: &str = "Ottofile";

/// The text of the pipeline file.
pub(super) fn pipeline() -> &'static str {
    FILES.iter().find(|(path, _)| *path == PIPELINE).map(|(_, text)| *text).expect("it is one of them")
}

/// Writes the files below `folder`.
pub(super) fn write(folder: &Path) -> io::Result<()> {
    for (path, text) in FILES {
        let path = folder.join(path);
        fs::create_dir_all(path.parent().expect("it lies in the folder"))?;
        fs::write(path, text)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;

    fn files(folder: &Path, found: &mut Vec<PathBuf>) {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if !path.is_dir() {
                found.push(path);
            } else if path.file_name().unwrap() != "target" {
                files(&path, found);
            }
        }
    }

    #[test]
    fn every_file_of_the_example_is_built_in() {
        let example = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/demo");
        let mut found = Vec::new();
        files(&example, &mut found);
        let mut found: Vec<String> = found.iter().map(|path| path.strip_prefix(&example).unwrap().to_str().unwrap().to_owned()).collect();
        found.sort();
        assert_eq!(found, FILES.map(|(path, _)| path.to_owned()));
    }

    #[test]
    fn writing_makes_the_same_files() {
        let folder = tempfile::tempdir().unwrap();
        write(folder.path()).unwrap();
        assert_eq!(fs::read_to_string(folder.path().join(PIPELINE)).unwrap(), pipeline());
        assert!(folder.path().join("src/lib.rs").is_file());
    }
}
