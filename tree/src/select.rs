//! Which part of a tree is meant: files, directories with all that is in them, and patterns.

use model::glob::{Glob, GlobError};

use crate::name;

/// What is packed.
#[derive(Debug)]
pub struct Selection(Vec<Item>);

#[derive(Debug)]
struct Item {
    /// As the caller wrote it.
    text: String,
    kind: ItemKind,
}

#[derive(Debug)]
enum ItemKind {
    Everything,
    /// A path, which matches itself only.
    Path(Vec<u8>),
    Pattern(Glob),
}

/// Why something cannot be selected.
#[derive(Debug, thiserror::Error)]
pub enum SelectionError {
    /// It is not below the root.
    #[error("`{text}` {what}: name files and directories below the work directory")]
    Outside {
        /// What was asked for.
        text: String,
        /// What is wrong with it.
        what: &'static str,
    },
    /// It is no pattern.
    #[error("`{text}` is no pattern")]
    Pattern {
        /// What was asked for.
        text: String,
        /// What is wrong with it.
        #[source]
        source: GlobError,
    },
}

impl Selection {
    /// These paths and patterns (see [`model::glob`]), from the root. A directory is meant with everything in it; `.` is the whole tree.
    pub fn new<'a>(paths: impl IntoIterator<Item = &'a str>) -> Result<Self, SelectionError> {
        paths.into_iter().map(item).collect::<Result<_, _>>().map(Self)
    }

    /// The whole tree.
    pub fn everything() -> Self {
        Self(vec![Item { text: ".".to_owned(), kind: ItemKind::Everything }])
    }

    /// The places of what means this path.
    pub(crate) fn matching(&self, path: &[u8]) -> impl Iterator<Item = usize> {
        let text = String::from_utf8_lossy(path).into_owned();
        (0..).zip(&self.0).filter(move |(_, item)| item.matches(path, &text)).map(|(at, _)| at)
    }

    /// Whether something below this folder can be meant.
    pub(crate) fn is_below(&self, folder: &[u8]) -> bool {
        self.0.iter().any(|item| item.is_below(folder))
    }

    /// How many there are.
    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    /// As the caller wrote it.
    pub(crate) fn text(&self, at: usize) -> &str {
        &self.0[at].text
    }
}

fn item(text: &str) -> Result<Item, SelectionError> {
    let outside = |what| SelectionError::Outside { text: text.to_owned(), what };
    let path = String::from_utf8(name::inside(text.as_bytes()).map_err(outside)?).expect("parts of a text are text");
    let kind = if path.is_empty() {
        if text.is_empty() {
            return Err(outside("is no path"));
        }
        ItemKind::Everything
    } else {
        let glob = Glob::new(&path).map_err(|source| SelectionError::Pattern { text: text.to_owned(), source })?;
        glob.literal().map(|path| ItemKind::Path(path.as_bytes().to_vec())).unwrap_or(ItemKind::Pattern(glob))
    };
    Ok(Item { text: text.to_owned(), kind })
}

impl Item {
    fn matches(&self, path: &[u8], text: &str) -> bool {
        match &self.kind {
            ItemKind::Everything => true,
            ItemKind::Path(own) => own == path,
            ItemKind::Pattern(glob) => glob.matches(text),
        }
    }

    fn is_below(&self, folder: &[u8]) -> bool {
        let fixed = match &self.kind {
            ItemKind::Everything => return true,
            ItemKind::Path(path) => path.as_slice(),
            ItemKind::Pattern(glob) => glob.prefix().as_bytes(),
        };
        let is_pattern = matches!(self.kind, ItemKind::Pattern(_));
        // `a/b*` is below `a`, and `a*/b` below `ax`.
        fixed.strip_prefix(folder).is_some_and(|rest| rest.starts_with(b"/") || is_pattern && rest.is_empty())
            || is_pattern && [folder, b"/"].concat().starts_with(fixed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_is_entered_if_something_below_it_is_meant() {
        let cases = [
            ("target/debug", "target", true),
            ("target/debug", "target/debug", false), // It is meant itself then, with all that is in it.
            ("target", "targets", false),
            ("a/b*", "a", true),
            ("a/b*", "b", false),
            ("a*/b", "ax", true),
            ("**/*.xml", "anywhere/at/all", true),
            ("reports/**/*.xml", "reports", true),
            ("reports/**/*.xml", "report", false),
            (".", "x", true),
        ];
        for (item, folder, expected) in cases {
            assert_eq!(Selection::new([item]).unwrap().is_below(folder.as_bytes()), expected, "{item} in {folder}");
        }
    }

    #[test]
    fn what_is_not_below_the_root_is_no_selection() {
        for (path, expected) in [
            ("/etc/passwd", "`/etc/passwd` is an absolute path: name files and directories below the work directory"),
            ("a/../..", "`a/../..` leads upwards: name files and directories below the work directory"),
            ("", "`` is no path: name files and directories below the work directory"),
            ("a[", "`a[` is no pattern"),
        ] {
            assert_eq!(Selection::new([path]).unwrap_err().to_string(), expected);
        }
    }
}
