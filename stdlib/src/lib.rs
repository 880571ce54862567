//! The standard step library: the manifests under `steps/`, built into the program, and the programs of those steps that need one.
//!
//! **Invariant:** what a manifest declares is what the step does, and it is planned and explained as such.

pub mod program;

use std::sync::LazyLock;

use model::{
    Digest,
    manifest::{StepLibrary, StepManifest},
};

/// The name by which `use` brings the library in. It is in scope without being named.
pub const NAME: &str = "stdlib";

/// The path and the text of each manifest, by path: the library's digest is made in this order.
macro_rules! manifests {
    ($($symbol:literal),+ $(,)?) => {
        [$((concat!($symbol, "/manifest.yml"), include_str!(concat!("../steps/", $symbol, "/manifest.yml")))),+]
    };
}

const MANIFESTS: [(&str, &str); 13] =
    manifests!("archive", "checkout", "dir", "drop", "echo", "error", "git", "http", "junit", "sh", "sleep", "trigger", "unarchive",);

static LIBRARY: LazyLock<StepLibrary> = LazyLock::new(|| StepLibrary {
    name: NAME.to_owned(),
    digest: digest(&MANIFESTS),
    steps: MANIFESTS
        .iter()
        .map(|(path, text)| manifest(text).unwrap_or_else(|error| panic!("the built-in manifest {path} does not read: {error}")))
        .collect(),
});

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

/// Each path and text is preceded by its length, so that no two libraries are read alike.
fn digest(manifests: &[(&str, &str)]) -> Digest {
    let mut builder = Digest::builder();
    for part in manifests.iter().flat_map(|(path, text)| [path, text]) {
        builder.update(&(part.len() as u64).to_be_bytes());
        builder.update(part.as_bytes());
    }
    builder.finish()
}

#[cfg(test)]
mod tests {
    use model::manifest::{Named, ParameterKind};

    use super::*;

    const SYMBOLS: [&str; 13] =
        ["archive", "checkout", "dir", "drop", "echo", "error", "git", "http", "junit", "sh", "sleep", "trigger", "unarchive"];

    #[test]
    fn every_manifest_reads_and_stands_in_the_order_of_its_symbol() {
        let library = library();
        assert_eq!(library.name, "stdlib");
        assert_eq!(library.steps.iter().map(|step| step.symbol.as_str()).collect::<Vec<_>>(), SYMBOLS);
        for ((path, _), step) in MANIFESTS.iter().zip(&library.steps) {
            assert_eq!(*path, format!("{}/manifest.yml", step.symbol));
            assert_eq!(step.problems(), [], "{path}");
            assert!(!step.description.is_empty() && step.parameters.iter().all(|parameter| !parameter.description.is_empty()));
        }
    }

    #[test]
    fn every_folder_under_steps_is_built_in() {
        let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("steps");
        let mut found: Vec<String> = std::fs::read_dir(folder)
            .unwrap()
            .map(|entry| format!("{}/manifest.yml", entry.unwrap().file_name().to_str().unwrap()))
            .collect();
        found.sort();
        assert_eq!(found, MANIFESTS.map(|(path, _)| path.to_owned()));
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
        assert_ne!(digest(&[("a", "bc")]), digest(&[("ab", "c")]));
        assert_eq!(library().digest, digest(&MANIFESTS));
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
