//! What one stage makes and another uses: variables of the run, and artifacts. Noted where a value or a step names them, so that the
//! wiring can give each use its edge, or say at its place that nothing makes it.

use model::{diagnostic::Span, manifest::Named};

use super::Lowering;
use crate::diagnostic::FileId;

/// A variable or an artifact is named.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Mention {
    pub(super) kind: Mentioned,
    /// The name, of a variable without `vars.`.
    pub(super) name: String,
    pub(super) file: FileId,
    pub(super) span: Span,
}

/// What is done with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Mentioned {
    /// `vars.x` of the run.
    VariableUsed,
    /// `into: 'x'` of a step, or of a `prompt`.
    VariableMade,
    /// `drop 'x'`.
    VariableDropped,
    ArtifactMade,
    ArtifactUsed,
    /// A step gets it, so the stage must list it.
    CredentialUsed,
}

impl Lowering<'_, '_> {
    /// Notes it for the stage that is being read.
    pub(super) fn mention(&mut self, kind: Mentioned, name: &str, span: Span) {
        self.mentions.push(Mention { kind, name: name.to_owned(), file: self.source.id, span });
    }

    /// Notes what the text of a step's parameter names, as its manifest says.
    pub(super) fn mention_of_parameter(&mut self, names: Named, name: &str, span: Span) {
        match names {
            Named::ArtifactMade => self.mention(Mentioned::ArtifactMade, name, span),
            Named::ArtifactUsed => self.mention(Mentioned::ArtifactUsed, name, span),
            Named::VariableDropped => self.mention(Mentioned::VariableDropped, name, span),
        }
    }
}
