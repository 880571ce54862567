//! The steps that pipelines of this folder can call: the standard library, and what they bring in with `use`.

use std::{collections::BTreeMap, io, path::Path};

use anyhow::{Context as _, ensure};
use blob::library::file_in;
use model::{
    Digest,
    manifest::StepManifest,
    planning::{is_address, through_archive},
};

use crate::{
    command::check::pipelines,
    pipeline::{Locked, Pipeline},
    up::colours_on_stderr,
};

/// What a library's description is called.
pub(super) const MANIFEST: &str = "manifest.yml";
/// How a library's name begins that is a path of the repository.
const LOCAL: &str = "./";
/// How a file of steps made of steps ends.
const FILE_ENDING: &str = ".otto";

/// A step.
#[derive(Debug)]
pub(super) struct Found {
    pub(super) manifest: StepManifest,
    /// As `use` names it.
    pub(super) library: String,
    pub(super) digest: Digest,
}

/// Every step, by its name.
pub(super) fn all() -> anyhow::Result<Vec<Found>> {
    let standard = stdlib::library();
    let of_standard = |manifest| Found { manifest, library: standard.name.clone(), digest: standard.digest };
    let mut found: Vec<Found> = standard.steps.iter().cloned().map(of_standard).collect();
    // Where there is no pipeline, there is the standard library.
    let mut brought = BTreeMap::new();
    for file in pipelines(Path::new(".")).unwrap_or_default() {
        let pipeline = Pipeline::open(&file)?;
        match pipeline.lock()? {
            Locked::Lock(lock) => brought.extend(lock.libraries.into_iter().map(|(name, digest)| (name, (digest, file.clone())))),
            Locked::Refused(refused) => pipeline.complain(&refused, &mut io::stderr(), colours_on_stderr())?,
        }
    }
    for (library, (digest, file)) in brought.into_iter().filter(|(name, _)| name.starts_with(LOCAL) || is_address(name)) {
        let steps = manifests(&Pipeline::open(&file)?, &library, &digest).with_context(|| format!("the library {library}"))?;
        found.extend(steps.into_iter().map(|manifest| Found { manifest, library: library.clone(), digest }));
    }
    found.sort_by(|one, other| one.manifest.symbol.cmp(&other.manifest.symbol).then_with(|| one.library.cmp(&other.library)));
    Ok(found)
}

/// The step of this name; one of a library goes before that of the standard library.
pub(super) fn named(symbol: &str) -> anyhow::Result<Found> {
    let mut found: Vec<Found> = all()?.into_iter().filter(|found| found.manifest.symbol == symbol).collect();
    found.sort_by_key(|found| found.library == stdlib::library().name);
    let first = found.into_iter().next();
    first.with_context(|| {
        format!("no step here is named `{symbol}`: `otto step list` shows those that there are, and `use` brings in others")
    })
}

fn manifests(pipeline: &Pipeline, library: &str, digest: &Digest) -> anyhow::Result<Vec<StepManifest>> {
    let Some(path) = library.strip_prefix(LOCAL) else {
        let archive = Pipeline::archive(library, digest)?;
        let manifest = file_in(&archive, MANIFEST)?.context("its archive has no manifest.yml")?;
        return Ok(vec![manifest_of(&manifest)?]);
    };
    if path.ends_with(FILE_ENDING) {
        let source = pipeline.file(path)?.context("it is not there")?;
        return Ok(lsp::steps_of(&String::from_utf8_lossy(&source)));
    }
    let file = format!("{path}/{MANIFEST}");
    ensure!(through_archive(&file).is_some() || !path.is_empty(), "it has no path");
    Ok(vec![manifest_of(&pipeline.file(&file)?.context("it has no manifest.yml")?)?])
}

/// Reads a manifest, as the parser does.
pub(super) fn manifest_of(bytes: &[u8]) -> anyhow::Result<StepManifest> {
    let text = std::str::from_utf8(bytes).context("its manifest.yml is not UTF-8")?;
    let options = serde_saphyr::options! { strict_booleans: true, with_snippet: false };
    serde_saphyr::from_str_with_options(text, options).context("its manifest.yml is no step manifest")
}
