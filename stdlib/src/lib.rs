//! The standard step library: the manifests under `steps/`, built into the program as `library.json` is made of them, and the programs of those steps that need one.
//!
//! **Invariant:** what a manifest declares is what the step does, and it is planned and explained as such.

pub mod program;

use std::sync::LazyLock;

use model::manifest::{StepLibrary, StepManifest};

/// The name by which `use` brings the library in. It is in scope without being named.
pub const NAME: &str = "stdlib";

/// The library as it is made of the manifests: each `otto run` reads it, and JSON is read in a tenth of the time that YAML takes.
const GENERATED: &str = include_str!("../library.json");

static LIBRARY: LazyLock<StepLibrary> =
    LazyLock::new(|| serde_json::from_str(GENERATED).unwrap_or_else(|error| panic!("the built-in library does not read: {error}")));

/// The standard library; its steps are ordered by symbol.
pub fn library() -> StepLibrary {
    LIBRARY.clone()
}

/// Reads one manifest.
pub fn manifest(text: &str) -> Result<StepManifest, InvalidManifest> {
    serde_saphyr::from_str_with_options(text, serde_saphyr::options! { strict_booleans: true })
        .map_err(|error| InvalidManifest(error.to_string()))
}

/// Why a text is no step manifest.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("no step manifest: {0}")]
pub struct InvalidManifest(String);

#[cfg(test)]
mod tests {
    use std::{env, fs, path::Path};

    use model::{
        Digest,
        manifest::{Named, ParameterKind},
    };

    use super::*;

    /// Set, the test writes the library instead of comparing it.
    const UPDATE: &str = "UPDATE_SPEC";

    /// The path and the text of each manifest, by path: the library's digest is made in this order.
    fn manifests() -> Vec<(String, String)> {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("steps");
        let read = |entry: fs::DirEntry| {
            let path = format!("{}/manifest.yml", entry.file_name().to_str().unwrap());
            let text = fs::read_to_string(folder.join(&path)).unwrap();
            (path, text)
        };
        let mut manifests: Vec<_> = fs::read_dir(&folder).unwrap().map(|entry| read(entry.unwrap())).collect();
        manifests.sort();
        manifests
    }

    /// Each path and text is preceded by its length, so that no two libraries are read alike.
    fn digest(manifests: &[(String, String)]) -> Digest {
        let mut builder = Digest::builder();
        for part in manifests.iter().flat_map(|(path, text)| [path, text]) {
            builder.update(&(part.len() as u64).to_be_bytes());
            builder.update(part.as_bytes());
        }
        builder.finish()
    }

    #[test]
    fn the_committed_library_is_fresh() {
        let manifests = manifests();
        let steps = manifests.iter().map(|(path, text)| manifest(text).unwrap_or_else(|error| panic!("{path}: {error}"))).collect();
        let library = StepLibrary { name: NAME.to_owned(), digest: digest(&manifests), steps };
        let text = serde_json::to_string_pretty(&library).unwrap() + "\n";
        if env::var_os(UPDATE).is_some() {
            fs::write(Path::new(env!("CARGO_MANIFEST_DIR")).join("library.json"), text).unwrap();
        } else {
            assert_eq!(text, GENERATED, "`cargo xtask generate` writes it");
        }
    }

    const SYMBOLS: [&str; 13] =
        ["archive", "checkout", "dir", "drop", "echo", "error", "git", "http", "junit", "sh", "sleep", "trigger", "unarchive"];

    #[test]
    fn every_manifest_reads_and_stands_in_the_order_of_its_symbol() {
        let library = library();
        assert_eq!(library.name, "stdlib");
        assert_eq!(library.steps.iter().map(|step| step.symbol.as_str()).collect::<Vec<_>>(), SYMBOLS);
        for ((path, _), step) in manifests().iter().zip(&library.steps) {
            assert_eq!(*path, format!("{}/manifest.yml", step.symbol));
            assert_eq!(step.problems(), [], "{path}");
            assert!(!step.description.is_empty() && step.parameters.iter().all(|parameter| !parameter.description.is_empty()));
        }
    }

    #[test]
    fn the_script_of_sh_is_code() {
        let library = library();
        let sh = library.steps.iter().find(|step| step.symbol == "sh").unwrap();
        assert_eq!(sh.parameters[0].kind, ParameterKind::Code);
        assert!(sh.parameters[0].required && !sh.parameters[1].required);
    }

    #[test]
    fn nothing_but_the_script_of_sh_is_code() {
        let library = library();
        let code = library.steps.iter().flat_map(|step| step.parameters.iter().map(move |parameter| (step, parameter)));
        let code: Vec<_> =
            code.filter(|(_, parameter)| parameter.kind == ParameterKind::Code).map(|(step, _)| step.symbol.as_str()).collect();
        assert_eq!(code, ["sh"]);
    }

    #[test]
    fn what_other_stages_use_is_said() {
        let library = library();
        let names = library.steps.iter().flat_map(|step| step.parameters.iter().map(move |parameter| (step, parameter.names)));
        let names: Vec<_> = names.filter_map(|(step, names)| Some((step.symbol.as_str(), names?))).collect();
        assert_eq!(names, [("archive", Named::ArtifactMade), ("drop", Named::VariableDropped), ("unarchive", Named::ArtifactUsed)]);
    }

    #[test]
    fn the_digest_tells_libraries_apart() {
        let of = |path: &str, text: &str| digest(&[(path.to_owned(), text.to_owned())]);
        assert_ne!(of("a", "bc"), of("ab", "c"));
    }

    #[test]
    fn what_is_no_manifest_is_refused() {
        for text in
            ["", "symbol: x", "symbol: x\ndescription: y\nparamters: []", "symbol: x\ndescription: y\nparameters: [{name: a, type: int}]"]
        {
            assert!(manifest(text).is_err(), "{text}");
        }
    }
}
