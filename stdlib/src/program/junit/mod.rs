//! `junit`: reads test reports. A test that failed makes the stage unstable.

mod report;

use std::{
    fs, io,
    io::BufReader,
    path::{Path, PathBuf},
};

use model::{
    event::run::{TestFailure, TestReport},
    glob::{Glob, GlobError},
};

pub(super) use self::report::ReportError;
use super::{
    End, ProgramError,
    agent::Agent,
    arguments::{Arguments, path_below},
    say,
};

/// Report files of one step.
const FILES_MAX: usize = 10_000;
/// Files and directories that are looked at for reports.
const LOOKED_AT_MAX: usize = 1_000_000;
/// Failures that are printed; all are counted.
const PRINTED_MAX: usize = 20;

/// Why there is no test report.
#[derive(Debug, thiserror::Error)]
pub(super) enum JunitError {
    /// It is no pattern.
    #[error("`reports`: `{pattern}` is no pattern: {problem}")]
    Pattern {
        /// What is said.
        pattern: String,
        /// What is wrong.
        problem: GlobError,
    },
    /// Nothing fits.
    #[error("there is no test report `{0}`: say `allow_empty: true` if there need not be one")]
    None(String),
    /// Too much fits.
    #[error("`{pattern}` are more than {FILES_MAX} files, or lies among more than {LOOKED_AT_MAX}")]
    TooMany {
        /// What is said.
        pattern: String,
    },
    /// The folders cannot be looked at.
    #[error("cannot look for test reports in {}", path.display())]
    Folder {
        /// The folder.
        path: PathBuf,
        /// What the system says.
        #[source]
        source: io::Error,
    },
    /// A file is no report.
    #[error("{} is no test report", path.display())]
    Report {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        #[source]
        source: ReportError,
    },
}

pub(super) fn run(arguments: &Arguments, agent: &Agent) -> Result<End, ProgramError> {
    let pattern = path_below("reports", arguments.text("reports")?)?;
    let is_empty_allowed = arguments.truth("allow_empty")?;
    let files = matching(Path::new("."), &pattern)?;
    if files.is_empty() && !is_empty_allowed {
        return Err(JunitError::None(pattern).into());
    }
    let mut sum = TestReport::default();
    for path in &files {
        add(&mut sum, read(path)?);
    }
    let TestReport { passed, failed, skipped, .. } = sum;
    say(&format!("{passed} passed, {failed} failed, {skipped} skipped in {} reports", files.len()))?;
    for TestFailure { suite, name, message } in sum.failures.iter().take(PRINTED_MAX) {
        say(&format!("failed: {suite} {name}"))?;
        for line in message.lines() {
            say(&format!("    {line}"))?;
        }
    }
    if sum.failed > PRINTED_MAX as u64 {
        say(&format!("and {} more", sum.failed - PRINTED_MAX as u64))?;
    }
    agent.tell("/v1/tests", &sum)?;
    Ok(if failed == 0 { End::Success } else { End::Unstable })
}

fn read(path: &Path) -> Result<TestReport, JunitError> {
    let failed = |source| JunitError::Report { path: path.to_owned(), source };
    let file = fs::File::open(path).map_err(|error| failed(error.into()))?;
    report::read(BufReader::new(file)).map_err(failed)
}

fn add(sum: &mut TestReport, report: TestReport) {
    sum.passed += report.passed;
    sum.failed += report.failed;
    sum.skipped += report.skipped;
    sum.duration_ms += report.duration_ms;
    let room = TestReport::FAILURES_MAX.saturating_sub(sum.failures.len());
    sum.failures.extend(report.failures.into_iter().take(room));
}

/// The files below `root` that fit, by name. Symbolic links are not followed.
fn matching(root: &Path, pattern: &str) -> Result<Vec<PathBuf>, JunitError> {
    let glob = Glob::new(pattern).map_err(|problem| JunitError::Pattern { pattern: pattern.to_owned(), problem })?;
    if let Some(path) = glob.literal() {
        let path = root.join(path);
        return Ok(if path.is_file() { vec![path] } else { Vec::new() });
    }
    let too_many = || JunitError::TooMany { pattern: pattern.to_owned() };
    // Everything that fits lies below the last folder that the pattern names.
    let start = glob.prefix().rsplit_once('/').map_or("", |(folder, _)| folder);
    let mut folders = vec![start.to_owned()];
    let (mut found, mut seen) = (Vec::new(), 0);
    while let Some(folder) = folders.pop() {
        let path = root.join(&folder);
        let failed = |source| JunitError::Folder { path: path.clone(), source };
        let entries = match fs::read_dir(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            entries => entries.map_err(failed)?,
        };
        for entry in entries {
            let entry = entry.map_err(failed)?;
            seen += 1;
            if seen > LOOKED_AT_MAX {
                return Err(too_many());
            }
            // A report whose name is no text cannot be meant by a pattern.
            let Ok(name) = entry.file_name().into_string() else { continue };
            let below = if folder.is_empty() { name } else { format!("{folder}/{name}") };
            let kind = entry.file_type().map_err(failed)?;
            if kind.is_dir() {
                folders.push(below);
            } else if kind.is_file() && glob.matches(&below) {
                found.push(root.join(below));
            }
        }
        if found.len() > FILES_MAX {
            return Err(too_many());
        }
    }
    found.sort();
    Ok(found)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    fn names(root: &Path, pattern: &str) -> Vec<String> {
        let found = matching(root, pattern).unwrap();
        found.iter().map(|path| path.strip_prefix(root).unwrap().to_str().unwrap().to_owned()).collect()
    }

    #[test]
    fn reports_are_found_by_path_and_pattern() {
        let root = tempfile::tempdir().unwrap();
        for path in ["target/a/TEST-1.xml", "target/b/c/TEST-2.xml", "target/other.txt", "TEST-3.xml"] {
            let path = root.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, "").unwrap();
        }
        symlink("/", root.path().join("target/root")).unwrap();
        symlink("a/TEST-1.xml", root.path().join("target/TEST-link.xml")).unwrap();
        assert_eq!(names(root.path(), "target/**/TEST-*.xml"), ["target/a/TEST-1.xml", "target/b/c/TEST-2.xml"]);
        assert_eq!(names(root.path(), "**/TEST-*.xml"), ["TEST-3.xml", "target/a/TEST-1.xml", "target/b/c/TEST-2.xml"]);
        assert_eq!(names(root.path(), "TEST-3.xml"), ["TEST-3.xml"]);
        assert_eq!(names(root.path(), "none/*.xml"), Vec::<String>::new());
        assert_eq!(names(root.path(), "none.xml"), Vec::<String>::new());
    }
}
