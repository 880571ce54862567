//! Pipeline files on this machine: read, and planned as the services would plan them.

mod context;
mod git;
mod library;
mod tree;

use std::{
    collections::BTreeMap,
    env::current_dir,
    io::{self, Write},
    path::{Component, Path, PathBuf},
};

use anyhow::{Context as _, bail, ensure};
use blob::library::file_in;
use model::{
    Digest,
    context::{EventKind, TriggerContext},
    diagnostic::Diagnostic,
    plan::PlanDocument,
    planning::{ARCHIVE_DIGEST, LOCK_FILE, Listing, PLAN_ROUNDS_MAX, PlanNotes, is_address, through_archive},
};
use parser::{Changed, Locking, PlanInput, Planning, lock::Lock};

use self::{
    library::{Kept, MANIFEST},
    tree::Tree,
};

pub use context::ContextArgs;
pub use tree::{STDIN, above, read};

/// The pipeline file of a folder that names none.
pub const PIPELINE_FILE: &str = "Ottofile";

/// A pipeline file, and the tree that it stands in.
#[derive(Debug)]
pub struct Pipeline {
    tree: Tree,
    /// The path from the root of the tree.
    pub path: String,
    /// The file's bytes.
    pub source: Vec<u8>,
}

/// A pipeline file with its plan, or with what is wrong with it.
#[derive(Debug)]
pub struct Planned {
    /// The plan and what was found out beside it; `None` if the file is refused.
    pub plan: Option<(PlanDocument, Box<PlanNotes>)>,
    /// Errors and warnings, the first of the file first.
    pub diagnostics: Vec<Diagnostic>,
    /// For what the plan was made.
    pub context: TriggerContext,
    /// The tree's files, if the pipeline asks for them.
    pub listing: Option<Listing>,
    /// What changed, if the pipeline asks for it.
    pub changed: Option<Changed>,
    /// Every file that was read, by its path from the root.
    files: BTreeMap<String, Option<Vec<u8>>>,
}

/// What comes of a file that is locked.
#[derive(Debug)]
pub enum Locked {
    /// Everything that it brings in.
    Lock(Lock),
    /// It is refused.
    Refused(Box<Planned>),
}

impl Pipeline {
    /// A file of the working tree, or standard input.
    pub fn open(file: &Path) -> anyhow::Result<Self> {
        Self::of(file, read(file)?)
    }

    /// A file of the working tree that was read. What is no regular file, such as a pipe, stands in the current folder.
    pub fn of(file: &Path, source: Vec<u8>) -> anyhow::Result<Self> {
        let doing = || format!("cannot read {}", file.display());
        let path = match file.canonicalize() {
            Ok(path) if path.is_file() && file != Path::new(STDIN) => path,
            Ok(_) | Err(_) => {
                let folder = current_dir().and_then(|folder| folder.canonicalize()).with_context(doing)?;
                folder.join(file.file_name().with_context(doing)?)
            }
        };
        let folder = path.parent().context("a file is in a folder")?;
        let tree = Tree::around(folder);
        let path =
            path.strip_prefix(tree.root())?.to_str().with_context(|| format!("the path {} is not UTF-8", path.display()))?.to_owned();
        Ok(Self { tree, path, source })
    }

    /// The file at `path` of a revision of the repository of this folder.
    pub fn of_revision(revision: &str, path: &str) -> anyhow::Result<Self> {
        let folder = current_dir().context("there is no current folder")?;
        let root = git::asked(&folder, &["rev-parse", "--show-toplevel"]).context("this folder is in no git repository")?;
        let name = format!("{revision}^{{commit}}");
        let commit = git::asked(&folder, &["rev-parse", "--verify", "-q", "--end-of-options", &name]);
        let commit = commit.with_context(|| format!("there is no commit `{revision}`"))?;
        let tree = Tree::Commit { root: root.into(), commit };
        let source = tree.file(path)?.with_context(|| format!("there is no file `{path}` in the commit `{revision}`"))?;
        Ok(Self { tree, path: path.to_owned(), source })
    }

    /// The root of the tree.
    pub fn root(&self) -> &Path {
        self.tree.root()
    }

    /// A regular file of the tree, or of an archive in it; `None` if there is none at this path.
    pub fn file(&self, path: &str) -> anyhow::Result<Option<Vec<u8>>> {
        let Some((archive, inner)) = through_archive(path) else { return self.tree.file(path) };
        let Some(bytes) = self.tree.file(archive)? else { return Ok(None) };
        if inner == ARCHIVE_DIGEST {
            return Ok(Some(Digest::of(&bytes).to_string().into_bytes()));
        }
        file_in(&bytes, inner).with_context(|| format!("cannot read {archive}"))
    }

    /// The facts that it is planned for; `event` is what happened if the arguments do not tell.
    pub fn context(&self, args: &ContextArgs, event: EventKind) -> anyhow::Result<TriggerContext> {
        let commit = match &self.tree {
            Tree::Commit { commit, .. } => Some(commit.as_str()),
            Tree::Working { .. } => None,
        };
        args.resolve(self.root(), commit, event)
    }

    /// What the parser makes of it. Git and other files are asked only for what the parser asks for.
    pub fn plan(&self, args: &ContextArgs, event: EventKind) -> anyhow::Result<Planned> {
        let mut context = self.context(args, event)?;
        let libraries = [stdlib::library()];
        let mut files = BTreeMap::new();
        let (mut listing, mut changed) = (None, None);
        for _ in 0..PLAN_ROUNDS_MAX {
            let planning = parser::plan(&PlanInput {
                path: &self.path,
                source: &self.source,
                context: &context,
                files: &files,
                listing: listing.as_ref(),
                changed: changed.as_ref(),
                libraries: &libraries,
            });
            let (plan, diagnostics) = match planning {
                Planning::Plan { document, notes, warnings } => (Some((document, notes)), warnings),
                Planning::Refused(diagnostics) => (None, diagnostics),
                Planning::Needs(needs) => {
                    if needs.listing && listing.is_none() {
                        listing = Some(self.tree.listing()?);
                    }
                    if needs.changed && changed.is_none() {
                        if context.base.is_empty() {
                            context.base = args.base_of(self.root(), &context.commit);
                        }
                        changed = Some(self.changed(args, &context)?);
                    }
                    for path in needs.files {
                        let bytes = if is_address(&path) { self.locked_manifest(&path)? } else { self.file(&path)? };
                        files.insert(path, bytes);
                    }
                    continue;
                }
            };
            return Ok(Planned { plan, diagnostics, context, listing, changed, files });
        }
        bail!("{} names files that name files, more than {PLAN_ROUNDS_MAX} deep", self.path)
    }

    /// What the file brings in. Libraries from addresses are fetched; the lock file that there is already is not looked at.
    pub fn lock(&self) -> anyhow::Result<Locked> {
        self.lock_with(&Kept::at_home()?)
    }

    fn lock_with(&self, kept: &Kept) -> anyhow::Result<Locked> {
        let context = self.context(&ContextArgs::default(), EventKind::Push)?;
        let libraries = [stdlib::library()];
        let (mut files, mut remote, mut listing) = (BTreeMap::new(), BTreeMap::new(), None);
        for _ in 0..PLAN_ROUNDS_MAX {
            let input = PlanInput {
                path: &self.path,
                source: &self.source,
                context: &context,
                files: &files,
                listing: listing.as_ref(),
                // What is brought in does not depend on what changed.
                changed: Some(&Changed::Unknown),
                libraries: &libraries,
            };
            let needs = match parser::lock(&input, &remote) {
                Locking::Locked(lock) => return Ok(Locked::Lock(lock)),
                Locking::Refused(diagnostics) => {
                    return Ok(Locked::Refused(Box::new(Planned { plan: None, diagnostics, context, listing, changed: None, files })));
                }
                Locking::Needs(needs) => needs,
            };
            if needs.listing && listing.is_none() {
                listing = Some(self.tree.listing()?);
            }
            for name in needs.files {
                let bytes = if is_address(&name) {
                    let archive = kept.fetch(&name)?;
                    remote.insert(name.clone(), Digest::of(&archive));
                    file_in(&archive, MANIFEST).with_context(|| format!("the library {name} cannot be read"))?
                } else {
                    self.file(&name)?
                };
                files.insert(name, bytes);
            }
        }
        bail!("{} names files that name files, more than {PLAN_ROUNDS_MAX} deep", self.path)
    }

    /// The manifest of a library from an address, from the archive that the lock file has the digest of. It is fetched where it is not
    /// kept yet; only what has the digest is taken.
    fn locked_manifest(&self, address: &str) -> anyhow::Result<Option<Vec<u8>>> {
        let Some(lock) = self.tree.file(LOCK_FILE)?.and_then(|lock| Lock::read(&lock).ok()) else { return Ok(None) };
        let Some(digest) = lock.libraries.get(address) else { return Ok(None) };
        let archive = Self::archive(address, digest)?;
        file_in(&archive, MANIFEST).with_context(|| format!("the library {address} cannot be read"))
    }

    /// The archive of a library from an address: the one that is kept, else fetched and then kept. Only what has the digest is taken.
    pub fn archive(address: &str, digest: &Digest) -> anyhow::Result<Vec<u8>> {
        let kept = Kept::at_home()?;
        let archive = match kept.get(digest) {
            Some(archive) => archive,
            None => kept.fetch(address)?,
        };
        let actual = Digest::of(&archive);
        ensure!(actual == *digest, "the library {address} has changed: it is {actual}, and {LOCK_FILE} has {digest}");
        Ok(archive)
    }

    fn changed(&self, args: &ContextArgs, context: &TriggerContext) -> anyhow::Result<Changed> {
        if let Some(paths) = args.changed() {
            return Ok(Changed::Paths(paths.to_vec()));
        }
        if context.base.is_empty() { Ok(Changed::Unknown) } else { self.tree.changed(&context.base).map(Changed::Paths) }
    }

    /// What is wrong with the file, or may be, for people: one paragraph each, with the paths as they are from the current folder.
    pub fn complain(&self, planned: &Planned, out: &mut impl Write, colour: bool) -> io::Result<()> {
        planned.diagnostics.iter().try_for_each(|diagnostic| {
            let shown = Diagnostic { file: self.shown(&diagnostic.file), ..diagnostic.clone() };
            writeln!(out, "{}\n", parser::render(&shown, self.source_of(planned, &diagnostic.file), colour))
        })
    }

    /// The bytes of a file that was read while planning.
    pub fn source_of<'a>(&'a self, planned: &'a Planned, file: &str) -> &'a [u8] {
        if file == self.path { &self.source } else { planned.files.get(file).and_then(Option::as_deref).unwrap_or_default() }
    }

    /// A path of the tree as it is named from the current folder.
    pub fn shown(&self, path: &str) -> String {
        let full = self.root().join(path);
        current_dir().map_or_else(|_| path.to_owned(), |from| relative(&from, &full).display().to_string())
    }
}

/// `path` as it is named in the folder `from`: with `..` only where it is in the same few folders.
fn relative(from: &Path, path: &Path) -> PathBuf {
    let ups = from.ancestors().position(|ancestor| ancestor.components().count() > 1 && path.starts_with(ancestor));
    let Some(ups) = ups else { return path.to_owned() };
    let common = from.ancestors().nth(ups).expect("it was found there");
    let rest = path.strip_prefix(common).expect("it begins with it");
    std::iter::repeat_n(Component::ParentDir, ups).chain(rest.components()).collect()
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn paths_are_shown_as_they_are_from_here() {
        for (from, path, shown) in [
            ("/a/b", "/a/b/Ottofile", "Ottofile"),
            ("/a/b", "/a/b/c/Ottofile", "c/Ottofile"),
            ("/a/b/c", "/a/b/Ottofile", "../Ottofile"),
            ("/a/b", "/x/Ottofile", "/x/Ottofile"),
        ] {
            assert_eq!(relative(Path::new(from), Path::new(path)), Path::new(shown));
        }
    }

    #[test]
    fn each_complaint_is_a_paragraph() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("Ottofile");
        fs::write(&file, "pipeline { stage 'A' { steps { shh 'a' } } stage 'B' { steps { shh 'b' } } }").unwrap();
        let pipeline = Pipeline::open(&file).unwrap();
        let planned = pipeline.plan(&ContextArgs::default(), EventKind::Manual).unwrap();
        let mut printed = Vec::new();
        pipeline.complain(&planned, &mut printed, false).unwrap();
        let printed = String::from_utf8(printed).unwrap();
        let paragraphs = printed.matches("\n\n").count();
        assert!(paragraphs > 1 && paragraphs == planned.diagnostics.len() && printed.ends_with("\n\n"), "{printed}");
    }

    /// Serves the same bytes to whoever asks, a few times.
    fn serve(bytes: Vec<u8>) -> String {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        std::thread::spawn(move || {
            for connection in listener.incoming().take(4) {
                let mut connection = connection.unwrap();
                let mut request = [0; 4096];
                let _length = io::Read::read(&mut connection, &mut request).unwrap();
                let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\nConnection: close\r\n\r\n", bytes.len());
                connection.write_all(head.as_bytes()).and_then(|()| connection.write_all(&bytes)).unwrap();
            }
        });
        format!("http://{address}/deploy@1.4.0")
    }

    #[test]
    fn a_library_from_an_address_is_fetched_locked_and_kept() {
        let folder = tempfile::tempdir().unwrap();
        let archive = library::tests::archive("symbol: deploy\ndescription: Deploys.\nentrypoint: { path: run }\n");
        let address = serve(archive.clone());
        let file = folder.path().join("Ottofile");
        fs::write(&file, format!("use '{address}'\npipeline {{ steps [ deploy ] }}\n")).unwrap();
        let kept = Kept::at(folder.path().join("kept"));
        let pipeline = Pipeline::open(&file).unwrap();
        let locked = pipeline.lock_with(&kept).unwrap();
        let Locked::Lock(lock) = locked else { panic!("{locked:?}") };
        assert_eq!(lock.libraries.get(&address), Some(&Digest::of(&archive)));
        assert_eq!(kept.get(&Digest::of(&archive)).unwrap(), archive);
    }

    #[test]
    fn a_file_name_does_not_steer_the_terminal() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("a\u{1b}[31m.otto");
        for source in ["pipeline { stage 'A' { steps { shh 'a' } } }", ""] {
            fs::write(&file, source).unwrap();
            let pipeline = Pipeline::open(&file).unwrap();
            let planned = pipeline.plan(&ContextArgs::default(), EventKind::Manual).unwrap();
            let mut printed = Vec::new();
            pipeline.complain(&planned, &mut printed, false).unwrap();
            let printed = String::from_utf8(printed).unwrap();
            assert!(printed.contains("a\\u{1b}[31m.otto:1:") && !printed.contains('\u{1b}'), "{printed}");
        }
    }

    #[test]
    fn a_pipe_is_a_file_of_the_current_folder() {
        let pipeline = Pipeline::of(Path::new("/dev/null"), b"pipeline {}".to_vec()).unwrap();
        assert!(pipeline.root().join(&pipeline.path).starts_with(current_dir().unwrap().ancestors().last().unwrap()));
        assert!(pipeline.path.ends_with("null") && Pipeline::of(Path::new("-"), Vec::new()).unwrap().path.ends_with('-'));
    }

    #[test]
    fn a_missing_file_is_named() {
        assert_eq!(Pipeline::open(Path::new("/nowhere/Ottofile")).unwrap_err().to_string(), "cannot read /nowhere/Ottofile");
    }
}
