//! Pipeline files on this machine: read, and planned as the services would plan them.

use std::{
    collections::BTreeMap,
    fs::File,
    io::{self, Read as _, Write},
    path::{Component, Path},
};

use anyhow::{Context as _, bail, ensure};
use model::{
    context::TriggerContext,
    diagnostic::Diagnostic,
    planning::{Listing, PLAN_ROUNDS_MAX},
};
use parser::{Changed, PlanInput, Planning};

/// The pipeline file of a folder that names none.
pub const PIPELINE_FILE: &str = "Ottofile";
/// Bytes of one file that are read; the parser's own limits are far below.
const FILE_BYTES_MAX: u64 = 16 * 1024 * 1024;

/// What the parser makes of a file, and the file's bytes, for its diagnostics. Files that it names are read from `root`.
pub fn plan_file(root: &Path, file: &str, context: &TriggerContext) -> anyhow::Result<(Planning, Vec<u8>)> {
    let source = read(Path::new(file))?;
    let planning = plan_source(root, file, &source, context)?;
    Ok((planning, source))
}

/// What the parser makes of the bytes of a file. Files that it names are read from `root`.
pub fn plan_source(root: &Path, file: &str, source: &[u8], context: &TriggerContext) -> anyhow::Result<Planning> {
    let libraries = [stdlib::library()];
    let mut files = BTreeMap::new();
    let (mut listing, mut changed) = (None, None);
    for _ in 0..PLAN_ROUNDS_MAX {
        let (listing_known, changed_known) = (listing.as_ref(), changed.as_ref());
        let input =
            PlanInput { path: file, source, context, files: &files, listing: listing_known, changed: changed_known, libraries: &libraries };
        match parser::plan(&input) {
            Planning::Needs(needs) => {
                if needs.listing {
                    listing = Some(Listing::new());
                }
                if needs.changed {
                    changed = Some(Changed::Unknown);
                }
                for name in needs.files {
                    ensure!(is_inside(&name), "{file} names {name}, which is outside of the repository");
                    let path = root.join(&name);
                    let bytes = if path.is_file() { Some(read(&path)?) } else { None };
                    files.insert(name, bytes);
                }
            }
            done @ (Planning::Plan { .. } | Planning::Refused(_)) => return Ok(done),
        }
    }
    bail!("{file} names files that name files, more than {PLAN_ROUNDS_MAX} deep")
}

fn is_inside(name: &str) -> bool {
    Path::new(name).components().all(|component| matches!(component, Component::Normal(_) | Component::CurDir))
}

/// The bytes of a file that may be no pipeline file at all: a device never ends, and says that it is empty.
pub fn read(path: &Path) -> anyhow::Result<Vec<u8>> {
    let doing = || format!("cannot read {}", path.display());
    let mut bytes = Vec::new();
    File::open(path).and_then(|file| file.take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes)).with_context(doing)?;
    ensure!(bytes.len() as u64 <= FILE_BYTES_MAX, "{} has over {FILE_BYTES_MAX} bytes: is it a pipeline file?", path.display());
    Ok(bytes)
}

/// Shows people what is wrong with a file, or may be: one paragraph each.
pub fn complain(diagnostics: &[Diagnostic], source: &[u8], out: &mut impl Write, colour: bool) -> io::Result<()> {
    diagnostics.iter().try_for_each(|diagnostic| writeln!(out, "{}\n", parser::render(diagnostic, source, colour)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_never_ends_is_not_read_to_its_end() {
        let error = read(Path::new("/dev/zero")).unwrap_err().to_string();
        assert!(error.starts_with("/dev/zero has over 16777216 bytes"), "{error}");
    }

    #[test]
    fn each_complaint_is_a_paragraph() {
        let source = b"pipeline { stage 'A' { steps { shh 'a' } } stage 'A' { steps { shh 'b' } } }";
        let input = PlanInput {
            path: "Ottofile",
            source,
            context: &TriggerContext::default(),
            files: &BTreeMap::new(),
            listing: None,
            changed: None,
            libraries: &[stdlib::library()],
        };
        let Planning::Refused(diagnostics) = parser::plan(&input) else { panic!("it is wrong") };
        let mut printed = Vec::new();
        complain(&diagnostics, source, &mut printed, false).unwrap();
        let printed = String::from_utf8(printed).unwrap();
        assert!(diagnostics.len() > 1 && printed.matches("\n\n").count() == diagnostics.len() && printed.ends_with("\n\n"), "{printed}");
    }
}
