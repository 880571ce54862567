//! Pipeline files on this machine: read, and planned as the services would plan them.

use std::{
    collections::BTreeMap,
    fs,
    path::{Component, Path},
};

use anyhow::{Context as _, bail, ensure};
use model::{context::TriggerContext, planning::PLAN_ROUNDS_MAX};
use parser::{PlanInput, Planning};

/// The pipeline file of a folder that names none.
pub const PIPELINE_FILE: &str = "Ottofile";
/// Bytes of one file that are read; the parser's own limits are far below.
const FILE_BYTES_MAX: u64 = 16 * 1024 * 1024;

/// What the parser makes of a file, and the file's bytes, for its diagnostics. Files that it names are read from `root`.
pub fn plan_file(root: &Path, file: &str, context: &TriggerContext) -> anyhow::Result<(Planning, Vec<u8>)> {
    let source = read(Path::new(file))?;
    let libraries = [stdlib::library()];
    let mut files = BTreeMap::new();
    for _ in 0..PLAN_ROUNDS_MAX {
        let input = PlanInput { path: file, source: &source, context, files: &files, libraries: &libraries };
        match parser::plan(&input) {
            Planning::Needs(names) => {
                for name in names {
                    ensure!(is_inside(&name), "{file} names {name}, which is outside of the repository");
                    files.insert(name.clone(), read(&root.join(&name))?);
                }
            }
            done @ (Planning::Plan { .. } | Planning::Refused(_)) => return Ok((done, source)),
        }
    }
    bail!("{file} names files that name files, more than {PLAN_ROUNDS_MAX} deep")
}

fn is_inside(name: &str) -> bool {
    Path::new(name).components().all(|component| matches!(component, Component::Normal(_) | Component::CurDir))
}

fn read(path: &Path) -> anyhow::Result<Vec<u8>> {
    let doing = || format!("cannot read {}", path.display());
    let length = fs::metadata(path).with_context(doing)?.len();
    ensure!(length <= FILE_BYTES_MAX, "{} has {length} bytes, over the limit of {FILE_BYTES_MAX}", path.display());
    fs::read(path).with_context(doing)
}
