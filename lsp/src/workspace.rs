//! The editor's folder: where files are, and what the parser may read of them. Nothing outside of the folder is ever read.

use std::{
    collections::BTreeMap,
    fs::File,
    io::Read as _,
    path::{Component, Path, PathBuf},
    str::FromStr as _,
};

use lsp_types::Uri;
use model::{
    context::TriggerContext,
    diagnostic::Diagnostic,
    manifest::{ParameterKind, ParameterManifest, StepManifest},
    planning::{Listing, PLAN_ROUNDS_MAX},
};
use parser::{Changed, PlanInput, Planning};

use crate::{
    index::{Declared, Index, StepDefined},
    text::Text,
};

/// Bytes of one file that are read: a file over the parser's own limit is cut, and then refused by it.
const FILE_BYTES_MAX: u64 = 2 * 1024 * 1024;
/// Files of the folder that `changed`, `exists` and `files` can see here. In an editor, what they say is only asked whether it can be right.
const LISTING_FILES_MAX: usize = 50_000;

/// The folder, and the files that are open in the editor.
#[derive(Debug, Default)]
pub(crate) struct Workspace {
    root: Option<PathBuf>,
    pub(crate) open: BTreeMap<Uri, Open>,
}

/// A file as it stands in the editor.
#[derive(Debug)]
pub(crate) struct Open {
    pub(crate) version: i32,
    pub(crate) text: Text,
}

impl Workspace {
    pub(crate) fn new(root: Option<&Uri>) -> Self {
        Self { root: root.and_then(path_of), open: BTreeMap::new() }
    }

    /// The folder of the repository: the editor's, or that of the file where the editor has none.
    fn root(&self, uri: &Uri) -> Option<PathBuf> {
        let path = path_of(uri)?;
        match &self.root {
            Some(root) if path.starts_with(root) => Some(root.clone()),
            Some(_) | None => path.parent().map(Path::to_path_buf),
        }
    }

    /// The file's path from the repository's root.
    pub(crate) fn relative(&self, uri: &Uri) -> Option<String> {
        let path = path_of(uri)?;
        let relative = path.strip_prefix(self.root(uri)?).ok()?;
        Some(relative.to_str()?.replace('\\', "/"))
    }

    /// The address of a file of the repository that `uri` is in.
    pub(crate) fn uri(&self, uri: &Uri, path: &str) -> Option<Uri> {
        uri_of(&self.inside(uri, path)?)
    }

    /// A path of the repository on this machine; `None` if it leads out of it, also by a symbolic link.
    fn inside(&self, uri: &Uri, path: &str) -> Option<PathBuf> {
        let root = self.root(uri)?.canonicalize().ok()?;
        if !Path::new(path).components().all(|component| matches!(component, Component::Normal(_) | Component::CurDir)) {
            return None;
        }
        root.join(path).canonicalize().ok().filter(|path| path.starts_with(&root))
    }

    /// The bytes of a file of the repository: as it stands in the editor, or on the disk.
    fn read(&self, uri: &Uri, path: &str) -> Option<Vec<u8>> {
        let found = self.inside(uri, path)?;
        if let Some(open) =
            self.open.iter().find(|(uri, _)| path_of(uri).and_then(|path| path.canonicalize().ok()).as_ref() == Some(&found))
        {
            return Some(open.1.text.source().as_bytes().to_vec());
        }
        if !found.is_file() {
            return None;
        }
        let mut bytes = Vec::new();
        File::open(found).ok()?.take(FILE_BYTES_MAX).read_to_end(&mut bytes).ok()?;
        Some(bytes)
    }

    /// The first of the paths that a name in `uri` can mean: from the file where it begins with `./`, with an ending where it has none.
    pub(crate) fn named(&self, uri: &Uri, name: &str, endings: &[&str]) -> Option<String> {
        let path = match name.strip_prefix("./") {
            Some(rest) => {
                let file = self.relative(uri)?;
                let folder = file.rsplit_once('/').map_or("", |(folder, _)| folder);
                if folder.is_empty() { rest.to_owned() } else { format!("{folder}/{rest}") }
            }
            None => name.to_owned(),
        };
        let found = endings.iter().map(|ending| format!("{path}{ending}"));
        found.into_iter().find(|path| self.inside(uri, path).is_some_and(|path| path.is_file()))
    }

    /// The steps that a file can use: the standard ones, and those of the libraries of the repository that it names.
    pub(crate) fn steps(&self, uri: &Uri, index: &Index) -> Vec<StepManifest> {
        let mut steps = stdlib::library().steps;
        for library in &index.libraries {
            let Some(path) = self.named(uri, library, &["", ".otto", "/manifest.yml"]) else { continue };
            let Some(text) = self.read(uri, &path).and_then(|bytes| String::from_utf8(bytes).ok()) else { continue };
            if path.ends_with("manifest.yml") {
                steps.extend(stdlib::manifest(&text));
            } else {
                steps.extend(Index::of(&text).steps.iter().map(manifest));
            }
        }
        steps
    }

    /// What the parser says of an open file.
    pub(crate) fn diagnostics(&self, uri: &Uri) -> Vec<Diagnostic> {
        let (Some(open), Some(path)) = (self.open.get(uri), self.relative(uri)) else { return Vec::new() };
        let source = open.text.source();
        let index = Index::of(source);
        if !index.steps.is_empty() && !index.blocks.iter().any(|block| matches!(block.name.as_str(), "pipeline" | "blueprint")) {
            // A library is planned where it is used.
            return parser::format(source).err().unwrap_or_default();
        }
        let context = TriggerContext { parameters: given(&index.parameters), ..TriggerContext::default() };
        let libraries = [stdlib::library()];
        let mut files = BTreeMap::new();
        let (mut listing, changed) = (None, Changed::Unknown);
        for _ in 0..PLAN_ROUNDS_MAX {
            let input = PlanInput {
                path: &path,
                source: source.as_bytes(),
                context: &context,
                files: &files,
                listing: listing.as_ref(),
                changed: Some(&changed),
                libraries: &libraries,
            };
            match parser::plan(&input) {
                Planning::Plan { warnings, .. } => return warnings,
                Planning::Refused(diagnostics) => return diagnostics,
                Planning::Needs(needs) => {
                    if needs.listing {
                        listing = Some(self.listing(uri));
                    }
                    files.extend(needs.files.into_iter().map(|name| (name.clone(), self.read(uri, &name))));
                }
            }
        }
        Vec::new()
    }

    /// The files of the repository, with what stands for their contents: only whether a path is there is asked here.
    fn listing(&self, uri: &Uri) -> Listing {
        let Some(root) = self.root(uri) else { return Listing::new() };
        let files = ignore::WalkBuilder::new(&root).hidden(false).filter_entry(|entry| entry.file_name() != ".git").build();
        let files = files.flatten().filter(|entry| entry.file_type().is_some_and(|kind| kind.is_file())).take(LISTING_FILES_MAX);
        let relative = files.filter_map(|entry| Some(entry.path().strip_prefix(&root).ok()?.to_str()?.replace('\\', "/")));
        relative.map(|path| (path, "0".repeat(40))).collect()
    }
}

/// A value for each parameter that a file declares without a default, for who asks whether the file is right, and not for a run.
pub fn stand_ins(source: &str) -> BTreeMap<String, String> {
    given(&Index::of(source).parameters)
}

/// The steps that a file makes of steps, as other steps are described.
pub fn steps_of(source: &str) -> Vec<StepManifest> {
    Index::of(source).steps.iter().map(manifest).collect()
}

/// A value for each parameter that has no default: an editor does not know what a run will be given.
fn given(parameters: &[Declared]) -> BTreeMap<String, String> {
    let value = |parameter: &Declared| match parameter.settings.get("type").map(String::as_str) {
        Some("boolean") => "true".to_owned(),
        Some("number") => "1".to_owned(),
        Some("list") => "[]".to_owned(),
        Some("choice") => {
            let options = parameter.settings.get("options").map_or("", String::as_str);
            options.split(['\'', '"']).nth(1).unwrap_or_default().to_owned()
        }
        Some(_) | None => "text".to_owned(),
    };
    let without = parameters.iter().filter(|parameter| !parameter.settings.contains_key("default"));
    without.map(|parameter| (parameter.name.clone(), value(parameter))).collect()
}

/// A step that is made of steps, as other steps are described.
fn manifest(step: &StepDefined) -> StepManifest {
    let setting = |declared: &Declared, name: &str| declared.settings.get(name).cloned().unwrap_or_default();
    let parameter = |parameter: &Declared| ParameterManifest {
        name: parameter.name.clone(),
        kind: match setting(parameter, "type").as_str() {
            "boolean" => ParameterKind::Boolean,
            "number" => ParameterKind::Number,
            "list" => ParameterKind::List,
            _ => ParameterKind::String,
        },
        required: !parameter.settings.contains_key("default"),
        default: None,
        description: setting(parameter, "description"),
        names: None,
        unit: None,
    };
    StepManifest {
        symbol: step.declared.name.clone(),
        description: setting(&step.declared, "description"),
        parameters: step.parameters.iter().map(parameter).collect(),
        configuration: BTreeMap::new(),
        credentials: Vec::new(),
        cache: false,
        includes: Vec::new(),
        entrypoint: None,
    }
}

/// The path of a `file:` address.
pub(crate) fn path_of(uri: &Uri) -> Option<PathBuf> {
    let rest = uri.as_str().strip_prefix("file://")?;
    let path = rest.get(rest.find('/')?..)?;
    let mut bytes = Vec::with_capacity(path.len());
    let mut rest = path.bytes();
    while let Some(byte) = rest.next() {
        if byte == b'%' {
            let digit = |byte: Option<u8>| byte.and_then(|byte| char::from(byte).to_digit(16));
            let (high, low) = (digit(rest.next())?, digit(rest.next())?);
            bytes.push(u8::try_from(high * 16 + low).ok()?);
        } else {
            bytes.push(byte);
        }
    }
    String::from_utf8(bytes).ok().map(PathBuf::from)
}

/// The `file:` address of a path.
pub(crate) fn uri_of(path: &Path) -> Option<Uri> {
    let mut address = "file://".to_owned();
    for byte in path.to_str()?.bytes() {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'/' | b'-' | b'_' | b'.' | b'~') {
            address.push(char::from(byte));
        } else {
            address.push('%');
            address.extend([byte >> 4, byte & 15].map(|digit| char::from_digit(digit.into(), 16).unwrap_or('0').to_ascii_uppercase()));
        }
    }
    Uri::from_str(&address).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_and_paths_are_each_others_inverse() {
        for path in ["/a/b c/Ottofile", "/ä/100%/x.otto"] {
            assert_eq!(path_of(&uri_of(Path::new(path)).unwrap()).unwrap(), Path::new(path));
        }
        assert_eq!(path_of(&Uri::from_str("untitled:Untitled-1").unwrap()), None);
    }

    #[test]
    fn nothing_outside_of_the_folder_is_read() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().join("repository");
        std::fs::create_dir(&root).unwrap();
        std::fs::write(folder.path().join("secret"), "x").unwrap();
        std::fs::write(root.join("here"), "y").unwrap();
        let file = uri_of(&root.join("Ottofile")).unwrap();
        let workspace = Workspace::new(uri_of(&root).as_ref());
        assert_eq!(workspace.read(&file, "here"), Some(b"y".to_vec()));
        assert_eq!(workspace.read(&file, "../secret"), None);
        assert_eq!(workspace.read(&file, folder.path().join("secret").to_str().unwrap()), None);
        #[cfg(unix)]
        {
            std::os::unix::fs::symlink(folder.path().join("secret"), root.join("link")).unwrap();
            assert_eq!(workspace.read(&file, "link"), None);
        }
    }
}
