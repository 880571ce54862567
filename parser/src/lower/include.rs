//! Files that bring in files: paths, the depth, circles, and how much may be read again and again.

use model::diagnostic::Span;

use super::Lowering;
use crate::{
    diagnostic::{Code, Finding, quoted},
    limits::{EXPANDED_BYTES_MAX, INCLUDE_DEPTH_MAX},
};

impl Lowering<'_, '_> {
    /// The path from the repository's root of what a file names: `./x` begins at the file's folder, `x` at the repository's root.
    /// `None` if it leads out of the repository, which is told.
    pub(super) fn path_of(&mut self, written: &str, span: Span) -> Option<String> {
        let file = self.files.get(self.source.id).path;
        let folder = file.rsplit_once('/').map_or("", |(folder, _)| folder);
        let from = if written.starts_with("./") || written.starts_with("../") { folder } else { "" };
        let mut parts: Vec<&str> = from.split('/').filter(|part| !part.is_empty()).collect();
        let mut inside = !written.starts_with('/') && !written.contains(['\\', '\0']);
        for part in written.split('/') {
            match part {
                "" | "." => {}
                ".." => inside &= parts.pop().is_some(),
                part => parts.push(part),
            }
        }
        if inside && !parts.is_empty() {
            return Some(parts.join("/"));
        }
        let finding = Finding::new(Code::PathOutside, span, format!("{} is no path of a file in the repository", quoted(written)));
        self.error(finding.help("`./x` begins at this file's folder, `x` at the repository's root; nothing outside of it can be named"));
        None
    }

    /// Does the work within a file that another one names at `span`, unless it would be too deep, or the file is being read already.
    pub(super) fn included<T>(&mut self, path: &str, span: Span, work: impl FnOnce(&mut Self) -> Option<T>) -> Option<T> {
        if let Some(place) = self.including.iter().position(|outer| outer == path) {
            let circle: Vec<String> = self.including[place..].iter().chain([&path.to_owned()]).map(|path| quoted(path)).collect();
            let finding = Finding::new(Code::IncludeCircle, span, format!("{} brings in itself", quoted(path)));
            self.error(finding.label("closes the circle").help(format!("the circle: {}", circle.join(" → "))));
            return None;
        }
        if self.including.len() > INCLUDE_DEPTH_MAX {
            let message = format!("files bring in files more than {INCLUDE_DEPTH_MAX} deep");
            let outer: Vec<String> = self.including.iter().map(|path| quoted(path)).collect();
            self.error(Finding::new(Code::IncludeTooDeep, span, message).help(format!("from the outermost: {}", outer.join(" → "))));
            return None;
        }
        self.including.push(path.to_owned());
        let result = work(self);
        self.including.pop();
        result
    }

    /// Counts source that is about to be read once more, by `each`, `from` or a step made of steps. `false` if it is too much, which is
    /// told: then the work must not be done.
    pub(super) fn expanded(&mut self, bytes: usize, span: Span) -> bool {
        let before = self.expanded_bytes;
        self.expanded_bytes = before.saturating_add(bytes);
        if before <= EXPANDED_BYTES_MAX && self.expanded_bytes > EXPANDED_BYTES_MAX {
            let message = format!("what is expanded here would make more than {EXPANDED_BYTES_MAX} bytes of pipeline");
            let help = "`each`, `from` and steps made of steps are written out while planning: expand less, or split the pipeline";
            self.error(Finding::new(Code::ExpandedTooLarge, span, message).help(help));
        }
        self.expanded_bytes <= EXPANDED_BYTES_MAX
    }
}
