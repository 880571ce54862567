//! `otto step verify`: whether a step library can be used, and what is in the way.

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    fs::{self, File},
    io::BufReader,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::Context as _;
use clap::Args;
use model::{
    context::TriggerContext,
    planning::{ARCHIVE_ENDING, LOCK_FILE},
};
use parser::{Changed, PlanInput, Planning};
use tree::{Archive, Rules, unpack_new};

use super::found::{MANIFEST, manifest_of};
use crate::{command::Terminal, exit, up::colours_on_stderr};

/// Where the parser finds the library that is verified.
const PLACE: &str = "library";

/// Check a step library: a folder, or its .tar.gz
///
/// Tells what is wrong with its manifest, its programs and its archive, where, and how to mend it. Ends with 2 if anything is.
#[derive(Debug, Args)]
pub(super) struct VerifyArgs {
    /// The folder, or the archive
    library: PathBuf,
}

/// Something that is wrong.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Problem {
    what: String,
    place: String,
    help: String,
}

pub(super) fn run(args: &VerifyArgs) -> anyhow::Result<ExitCode> {
    let problems = problems(&args.library)?;
    let mut terminal = Terminal::stdout();
    if problems.is_empty() {
        terminal.print(&format!("{} can be used\n", args.library.display()))?;
        return Ok(ExitCode::SUCCESS);
    }
    terminal.print(&shown(&problems))?;
    Ok(exit::bad_input())
}

/// One paragraph for each.
pub(super) fn shown(problems: &[Problem]) -> String {
    let mut text = String::new();
    for Problem { what, place, help } in problems {
        if place.is_empty() {
            // The parser has written it whole.
            writeln!(text, "{what}\n").expect("a text takes everything");
        } else {
            writeln!(text, "error: {what}\n  --> {place}\n  = help: {help}\n").expect("a text takes everything");
        }
    }
    text
}

/// What is wrong with a folder, or an archive.
pub(super) fn problems(library: &Path) -> anyhow::Result<Vec<Problem>> {
    let metadata = fs::metadata(library).with_context(|| format!("cannot read {}", library.display()))?;
    if metadata.is_dir() {
        return Ok(of_folder(library, &library.display().to_string()));
    }
    let place = library.display().to_string();
    let mut problems = Vec::new();
    if !place.ends_with(ARCHIVE_ENDING) {
        problems.push(Problem {
            what: "a pipeline takes it for no library".to_owned(),
            place: place.clone(),
            help: format!("its name ends with `{ARCHIVE_ENDING}`"),
        });
    }
    let folder = tempfile::tempdir()?;
    let unpacked = folder.path().join("library");
    let archive = Archive::tar_gz(BufReader::new(File::open(library)?));
    if let Err(error) = unpack_new(archive, &unpacked, &Rules::LIBRARY, &|| false) {
        problems.push(Problem {
            what: format!("no agent unpacks it: {}", service::supervisor::chain(&error)),
            place,
            help: "pack its folder with `otto step pack`".to_owned(),
        });
        return Ok(problems);
    }
    problems.extend(of_folder(&unpacked, &place));
    Ok(problems)
}

fn of_folder(folder: &Path, shown: &str) -> Vec<Problem> {
    let place = format!("{shown}/{MANIFEST}");
    let bytes = match fs::read(folder.join(MANIFEST)) {
        Ok(bytes) => bytes,
        Err(error) => {
            let what = format!("there is no manifest: {error}");
            return vec![Problem { what, place, help: "`otto step new` writes a library with one".to_owned() }];
        }
    };
    let mut problems = of_manifest(&bytes, &place);
    let Ok(manifest) = manifest_of(&bytes) else { return problems };
    if let Some(entrypoint) = &manifest.entrypoint {
        let of_machine = || format!("{}-{}-{}", entrypoint.path, std::env::consts::ARCH, std::env::consts::OS);
        let path = if entrypoint.multiarch { of_machine() } else { entrypoint.path.clone() };
        problems.extend(of_program(folder, &path, &place));
    }
    for include in &manifest.includes {
        if !folder.join(include).exists() {
            let what = format!("`includes` names `{include}`, which is not there");
            problems.push(Problem { what, place: place.clone(), help: "add it, or take it out of the manifest".to_owned() });
        }
    }
    problems
}

/// What the parser says of a manifest.
fn of_manifest(bytes: &[u8], shown: &str) -> Vec<Problem> {
    let path = format!("{PLACE}/{MANIFEST}");
    let files = BTreeMap::from([(path.clone(), Some(bytes.to_vec())), (format!("{PLACE}.otto"), None), (LOCK_FILE.to_owned(), None)]);
    let planning = parser::plan(&PlanInput {
        path: "Ottofile",
        source: format!("use './{PLACE}'\npipeline {{ }}\n").as_bytes(),
        context: &TriggerContext::default(),
        files: &files,
        listing: Some(&BTreeMap::new()),
        changed: Some(&Changed::Unknown),
        libraries: &[stdlib::library()],
    });
    let diagnostics = match planning {
        Planning::Plan { warnings, .. } => warnings,
        Planning::Refused(diagnostics) => diagnostics,
        Planning::Needs(_) => Vec::new(),
    };
    let of_it = diagnostics.into_iter().filter(|diagnostic| diagnostic.file == path);
    let rendered = of_it.map(|mut diagnostic| {
        shown.clone_into(&mut diagnostic.file);
        parser::render(&diagnostic, bytes, colours_on_stderr())
    });
    rendered.map(|what| Problem { what, place: String::new(), help: String::new() }).collect()
}

fn of_program(folder: &Path, path: &str, manifest: &str) -> Option<Problem> {
    let problem = |what: String, help: String| Some(Problem { what, place: manifest.to_owned(), help });
    // The path itself was looked at with the manifest.
    let inside = folder.canonicalize().ok()?;
    let Ok(full) = folder.join(path).canonicalize() else {
        return problem(format!("the entrypoint `{path}` is not there"), "add the program, or name another".to_owned());
    };
    if !full.starts_with(&inside) {
        return problem(format!("the entrypoint `{path}` lies outside of the library"), "copy it into the folder".to_owned());
    }
    let is_program = fs::metadata(&full).is_ok_and(|metadata| metadata.is_file() && metadata.permissions().mode() & 0o111 != 0);
    if is_program { None } else { problem(format!("the entrypoint `{path}` is no program"), format!("`chmod +x {path}` makes it one")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn library(manifest: &str, mode: u32) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join(MANIFEST), manifest).unwrap();
        fs::write(folder.path().join("run"), "#!/bin/sh\n").unwrap();
        fs::set_permissions(folder.path().join("run"), fs::Permissions::from_mode(mode)).unwrap();
        folder
    }

    const SOUND: &str = "symbol: deploy\ndescription: Deploys.\nentrypoint: { path: run }\n";

    #[test]
    fn a_sound_library_has_no_problem() {
        assert_eq!(problems(library(SOUND, 0o755).path()).unwrap(), []);
    }

    #[test]
    fn each_problem_is_told_with_its_place_and_what_helps() {
        for (manifest, mode, expected) in [
            (SOUND, 0o644, ["`run` is no program", "chmod +x run"]),
            (&SOUND.replace("path: run", "path: gone"), 0o755, ["`gone` is not there", "name another"]),
            (&SOUND.replace("path: run", "path: ../run"), 0o755, ["no path inside", "manifest.yml:3"]),
            (&SOUND.replace("symbol: deploy", "symbol: 1"), 0o755, ["cannot be the name", "manifest.yml:1"]),
            (&format!("{SOUND}includes: [lib]\n"), 0o755, ["`lib`, which is not there", "take it out"]),
            ("symbol: [", 0o755, ["no step manifest", "manifest.yml"]),
        ] {
            let folder = library(manifest, mode);
            let text = shown(&problems(folder.path()).unwrap());
            assert!(expected.iter().all(|part| text.contains(part)), "{manifest}: {text}");
        }
        let empty = tempfile::tempdir().unwrap();
        assert!(shown(&problems(empty.path()).unwrap()).contains("there is no manifest"));
        let archive = empty.path().join("x.tar.gz");
        fs::write(&archive, "no archive").unwrap();
        assert!(shown(&problems(&archive).unwrap()).contains("no agent unpacks it"));
    }
}
