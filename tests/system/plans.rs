//! Plans as the program makes them: of the examples, and the same everywhere.

use std::{fs, os::unix::process::CommandExt as _, path::Path, process::Command};

use crate::house::OTTO;

/// The examples, and the contexts in which each is explained.
const EXAMPLES: [(&str, &[&[&str]]); 9] = [
    ("demo", &[&["--branch", "main"]]),
    ("gem", &[&["--event", "tag", "--tag", "v1.0.0"], &["--branch", "main"]]),
    ("library", &[&["--event", "pull_request", "--pr", "topic:main"], &["--event", "tag", "--tag", "v0.2.0"]]),
    ("matrix", &[&["--branch", "main"]]),
    ("merge-queue", &[&["--event", "merge_queue", "--branch", "main"], &["--event", "pull_request", "--pr", "topic:main:fork"]]),
    ("monorepo", &[&["--branch", "main", "--changed", "app/index.html"]]),
    ("own-step", &[&["--branch", "main"]]),
    ("release", &[&["--event", "manual", "--branch", "main", "--param", "version=1.4.0"]]),
    ("web", &[&["--branch", "main", "--event", "push"], &["--branch", "topic/a", "--event", "push"]]),
];

fn examples() -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples")
}

/// What the program prints in a folder, with exit code 0 and nothing on standard error.
fn otto(folder: &Path, arguments: &[&str]) -> String {
    let output = Command::new(OTTO).args(arguments).current_dir(folder).output().unwrap();
    let errors = String::from_utf8(output.stderr).unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success() && errors.is_empty(), "otto {arguments:?} in {}: {errors}\n{text}", folder.display());
    text
}

#[test]
fn every_example_is_right_and_explained_as_it_was() {
    let mut folders: Vec<String> = fs::read_dir(examples())
        .unwrap()
        .map(|entry| entry.unwrap())
        .filter(|entry| entry.path().is_dir())
        .map(|entry| entry.file_name().into_string().unwrap())
        .collect();
    folders.sort();
    assert_eq!(folders, EXAMPLES.map(|(name, _)| name.to_owned()), "each folder is an example, and each example is compared");
    let mut settings = insta::Settings::clone_current();
    settings.set_snapshot_path(examples().join("../tests/system/snapshots"));
    settings.set_prepend_module_to_snapshot(false);
    settings.set_omit_expression(true);
    settings.bind(|| {
        for (name, contexts) in EXAMPLES {
            // Apart from this repository, which a copy of the project may not have.
            let copy = tempfile::tempdir().unwrap();
            let folder = copy.path();
            copy_all(&examples().join(name), folder);
            for (at, context) in contexts.iter().enumerate() {
                let with = |first: &[&'static str]| [first, context].concat();
                assert!(otto(folder, &with(&["check", "Ottofile"])).contains("plan sha256:"), "{name}");
                let text = otto(folder, &with(&["explain", "Ottofile"]));
                insta::assert_snapshot!(format!("{name}-{}", at + 1), without_digests(&text));
                let picture = otto(folder, &with(&["explain", "--format", "svg", "Ottofile"]));
                assert!(picture.starts_with("<svg"), "{name}");
                if (name, at) == ("web", 0) {
                    fresh(&examples().join("web/plan.svg"), &picture);
                }
            }
        }
    });
}

fn copy_all(from: &Path, to: &Path) {
    for entry in fs::read_dir(from).unwrap().map(|entry| entry.unwrap()) {
        let (from, to) = (entry.path(), to.join(entry.file_name()));
        if entry.file_type().unwrap().is_dir() {
            fs::create_dir(&to).unwrap();
            copy_all(&from, &to);
        } else {
            fs::copy(&from, &to).unwrap();
        }
    }
}

/// What is another with each commit and each word in a manifest, made alike.
fn without_digests(text: &str) -> String {
    ["sha256:", "commit "].iter().fold(text.to_owned(), |text, mark| {
        let mut parts = text.split(mark);
        let first = parts.next().unwrap_or_default().to_owned();
        parts.fold(first, |text, part| text + mark + "…" + part.trim_start_matches(|character: char| character.is_ascii_hexdigit()))
    })
}

/// Holds a picture that documents show against what it is a picture of; `UPDATE_PICTURES=1` writes it anew.
fn fresh(path: &Path, picture: &str) {
    if std::env::var_os("UPDATE_PICTURES").is_some() {
        fs::write(path, picture).unwrap();
    }
    let shown = fs::read_to_string(path).unwrap_or_default();
    assert!(shown == picture, "{} is not what the example gives: run this test with UPDATE_PICTURES=1", path.display());
}

#[test]
fn every_example_is_written_in_the_canonical_spelling() {
    for (name, _) in EXAMPLES {
        otto(&examples().join(name), &["fmt", "--check"]);
    }
}

/// A pipeline that asks for everything that could differ from one machine to another.
const PIPELINE: &str = "parameters { greeting { type = string default = 'Grüße' } }
pipeline {
  env { KEY = files('src/**', '*.json') }
  each(os: json('matrix.json'), jdk: [8, 21.10]) {
    stage 'Test' { when { exists('src/b') && it.os != 'mac' } steps [ echo params.greeting ] }
  }
  stage 'Größe' { timeout = 1.5h cache { all = ['x/'] } steps [ sh 'date; locale' ] }
}
";

#[test]
fn the_same_source_and_context_give_the_same_bytes_everywhere() {
    let files = [("Ottofile", PIPELINE), ("matrix.json", "[\"linux\", \"mac\"]"), ("src/a", "a\n"), ("src/b", "b\n"), ("src/Ä", "ä\n")];
    let plan = |folder: &Path, environment: &[(&str, &str)], user: Option<u32>| {
        let mut command = Command::new(OTTO);
        command.args(["explain", "--format", "plan", "--branch", "main", "--changed", "src/a"]).current_dir(folder);
        command.envs(environment.iter().copied());
        if let Some(user) = user {
            command.uid(user);
        }
        let output = command.output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        output.stdout
    };
    let folder = |reversed: bool| {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("src")).unwrap();
        let mut files = files.to_vec();
        if reversed {
            files.reverse();
        }
        for (path, text) in &files {
            fs::write(folder.path().join(path), text).unwrap();
        }
        let everybody = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        fs::set_permissions(folder.path(), everybody).unwrap();
        folder
    };
    let (one, other) = (folder(false), folder(true));
    let first = plan(one.path(), &[], None);
    assert!(first.starts_with(b"{\"") && first.len() > 500);
    assert_eq!(first, plan(one.path(), &[], None), "twice");
    assert_eq!(first, plan(other.path(), &[], None), "in another folder, made in another order");
    assert_eq!(first, plan(one.path(), &[("LC_ALL", "tr_TR.UTF-8"), ("LANG", "C")], None), "with another locale");
    assert_eq!(first, plan(one.path(), &[("TZ", "Pacific/Kiritimati")], None), "in another time zone");
    // Only root can be another user; others are another user than on the machine of the next engineer.
    let me = std::os::unix::fs::MetadataExt::uid(&fs::metadata(one.path()).unwrap());
    let is_reached = [Path::new(OTTO), one.path()].into_iter().flat_map(Path::ancestors).all(everybody_may_enter);
    if me == 0 && is_reached {
        assert_eq!(first, plan(one.path(), &[("HOME", "/nonexistent"), ("USER", "nobody")], Some(65534)), "as another user");
    }
}

fn everybody_may_enter(path: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt as _;
    fs::metadata(path).is_ok_and(|metadata| metadata.permissions().mode() & 0o005 == 0o005)
}
