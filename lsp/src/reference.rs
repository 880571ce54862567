//! What the word or string at a cursor refers to.

use lsp_types::Uri;
use model::manifest::{ParameterManifest, StepManifest};

use crate::{
    cursor::{Bracket, Cursor, Last, Token, TokenKind},
    index::{Declared, Index, Stage, find},
    words::Place,
    workspace::Workspace,
};

/// What is referred to.
#[derive(Debug)]
pub(crate) enum Reference<'i> {
    Stage(&'i Stage),
    Parameter(&'i Declared),
    Credential(&'i Declared),
    Environment(&'i Declared),
    Cache(&'i Declared),
    /// A file of the repository, by its path.
    File(String),
    Step(StepManifest),
    StepParameter(StepManifest, ParameterManifest),
    /// A word of the language, and what it does.
    Word(String, &'static str),
}

/// What is looked for in a string, or after an arrow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Wanted {
    Stage,
    Credential,
    Environment,
    Blueprint,
    Library,
    File,
    Nothing,
}

impl Wanted {
    /// What the value at a cursor names.
    pub(crate) fn at(cursor: &Cursor, place: Place, steps: &[StepManifest]) -> Self {
        let frame = cursor.frame();
        if frame.last == Last::Arrow {
            return Self::Environment;
        }
        // In the brackets of a list or call, it is the name before them that matters.
        let outer = cursor
            .frames
            .iter()
            .rev()
            .find(|frame| !matches!(frame.bracket, Bracket::List | Bracket::Parenthesis) || place == Place::Steps);
        let (outer, place) = (outer.unwrap_or(frame), Self::place_of(cursor, place));
        let setting =
            if matches!(frame.bracket, Bracket::List | Bracket::Parenthesis) && place != Place::Steps { &frame.head } else { &outer.entry };
        match (place, setting.as_str()) {
            (_, "files" | "json" | "exists") => Self::File,
            (Place::Steps, step) => {
                let manifest = steps.iter().find(|manifest| manifest.symbol == step);
                let keyword = frame.keyword.as_deref();
                let is_credential = manifest.is_some_and(|manifest| match keyword {
                    Some(keyword) => manifest.credentials.iter().any(|name| name == keyword),
                    None => false,
                });
                if is_credential { Self::Credential } else { Self::Nothing }
            }
            (Place::File, "use") => Self::Library,
            (Place::Other, _) if outer.head == "use" => Self::Library,
            (Place::Pipeline | Place::Stage | Place::Plan, "from") => match &frame.keyword {
                Some(keyword) if keyword != "blueprint" => Self::Nothing,
                Some(_) | None => Self::Blueprint,
            },
            (Place::Pipeline | Place::Stage | Place::Environment, "credentials") => Self::Credential,
            (_, "needs" | "from") => Self::Stage,
            (_, "environment") => Self::Environment,
            _ => Self::Nothing,
        }
    }

    /// The place of the block around lists and parentheses.
    fn place_of(cursor: &Cursor, place: Place) -> Place {
        if place != Place::Other {
            return place;
        }
        let count =
            cursor.frames.iter().rposition(|frame| matches!(frame.bracket, Bracket::Brace | Bracket::File)).map_or(1, |last| last + 1);
        let outer = Cursor { frames: cursor.frames.iter().take(count).cloned().collect(), ..Cursor::default() };
        Place::of(&outer)
    }
}

/// What a file has, for questions about a place in it.
#[derive(Debug)]
pub(crate) struct Facts<'w> {
    pub(crate) workspace: &'w Workspace,
    pub(crate) uri: &'w Uri,
    pub(crate) index: Index,
    pub(crate) steps: Vec<StepManifest>,
}

impl Facts<'_> {
    /// The step with this name.
    pub(crate) fn step(&self, name: &str) -> Option<&StepManifest> {
        self.steps.iter().find(|step| step.symbol == name)
    }

    /// What the token at the cursor refers to.
    pub(crate) fn reference(&self, cursor: &Cursor) -> Option<Reference<'_>> {
        let token = cursor.token.as_ref()?;
        let place = Place::of(cursor);
        match token.kind {
            TokenKind::String => self.named(&token.text, Wanted::at(cursor, place, &self.steps)),
            TokenKind::Keyword => {
                let step = self.step(&cursor.frame().entry)?;
                let parameter = step.parameters.iter().find(|parameter| parameter.name == token.text)?;
                Some(Reference::StepParameter(step.clone(), parameter.clone()))
            }
            TokenKind::Entry if place == Place::Steps => {
                self.step(&token.text).cloned().map(Reference::Step).or_else(|| word(place, &token.text))
            }
            TokenKind::Entry | TokenKind::Word => self.word(cursor, token, place),
        }
    }

    fn word(&self, cursor: &Cursor, token: &Token, place: Place) -> Option<Reference<'_>> {
        let frame = cursor.frame();
        if frame.last == Last::Arrow {
            return find(&self.index.environments, &token.text).map(Reference::Environment);
        }
        if frame.entry == "use" && frame.last == Last::Name {
            return find(&self.index.caches, &token.text).map(Reference::Cache);
        }
        if let Some((scope @ ("params" | "vars"), name)) = token.text.split_once('.') {
            let parameter = find(&self.index.parameters, name).map(Reference::Parameter);
            return parameter.or_else(|| word(Place::Other, scope));
        }
        word(place, &token.text).or_else(|| word(place, token.text.split('.').next().unwrap_or_default()))
    }

    fn named(&self, text: &str, wanted: Wanted) -> Option<Reference<'_>> {
        let file = |endings: &[&str]| self.workspace.named(self.uri, text, endings).map(Reference::File);
        match wanted {
            Wanted::Stage => self.index.stage(text).map(Reference::Stage),
            Wanted::Credential => find(&self.index.credentials, text).map(Reference::Credential),
            Wanted::Environment => find(&self.index.environments, text).map(Reference::Environment),
            Wanted::Blueprint => file(&["", ".blueprint"]),
            Wanted::Library => file(&["", ".otto", "/manifest.yml"]),
            Wanted::File => file(&[""]),
            Wanted::Nothing => None,
        }
    }
}

fn word<'i>(place: Place, word: &str) -> Option<Reference<'i>> {
    place.meaning(word).map(|meaning| Reference::Word(word.to_owned(), meaning))
}
