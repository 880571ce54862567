//! The codes of the parser's diagnostics, and how they are collected.

use model::diagnostic::{Diagnostic, Severity, Span};

use crate::limits::DIAGNOSTICS_MAX;

/// Characters of a piece of source that a message quotes.
const QUOTED_CHARACTERS_MAX: usize = 64;

macro_rules! codes {
    ($($(#[$doc:meta])+ $variant:ident = $code:literal,)+) => {
        /// What kind of mistake it is. The codes are stable: a code is never given another meaning.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
        pub enum Code {
            $($(#[$doc])+ $variant,)+
        }

        impl Code {
            /// Every code.
            pub const ALL: &'static [Self] = &[$(Self::$variant),+];

            /// The code as people and machines see it.
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $code),+ }
            }
        }
    };
}

codes! {
    /// The source is not UTF-8.
    NotUtf8 = "E0101",
    /// The source is larger than the limit.
    SourceTooLarge = "E0102",
    /// Brackets are nested deeper than the limit.
    NestingTooDeep = "E0103",
    /// A string or a comment is not closed.
    Unclosed = "E0104",
    /// A bracket has no partner.
    Bracket = "E0105",
    /// A character that means nothing where it stands.
    Character = "E0106",
    /// An escape that means nothing, or a character that no string may hold.
    Escape = "E0107",
    /// A number that is none, or is too large.
    Number = "E0108",
    /// Something else was expected here.
    Syntax = "E0109",
    /// There is no pipeline.
    NoPipeline = "E0201",
    /// A block or setting stands twice.
    Doubled = "E0202",
    /// A name that means nothing where it stands.
    UnknownName = "E0203",
    /// `use` of something that is no library.
    UnknownLibrary = "E0204",
    /// A block where a value belongs, or the other way round.
    Shape = "E0205",
    /// A setting's value is not of its type or range.
    SettingValue = "E0206",
    /// A stage has no name.
    StageWithoutName = "E0301",
    /// A stage's name cannot be one.
    StageName = "E0302",
    /// Two stages have one name.
    StageTwice = "E0303",
    /// `steps` without a step.
    NoSteps = "E0304",
    /// A name of a variable of the environment that cannot be one.
    VariableName = "E0305",
    /// No stage has this name, or more than one.
    UnknownStage = "E0311",
    /// `from` of a stage that has no such block.
    NothingToCopy = "E0312",
    /// `from` copies what copies it.
    CopyCircle = "E0313",
    /// What `from` copies is wrong where it is copied to.
    CopiedWrong = "E0314",
    /// A stage that is `once` has `retry`.
    OnceRetried = "E0315",
    /// A stage makes a cache and uses it.
    CacheOfItself = "E0316",
    /// A condition stands where none can, or something else among conditions.
    MisplacedCondition = "E0317",
    /// A block lacks a setting that it needs.
    MissingSetting = "E0318",
    /// What cannot be the name of a host.
    HostName = "E0319",
    /// Stages wait for each other in a circle.
    StageCircle = "E0306",
    /// No stage makes what is used.
    NothingMakes = "E0307",
    /// What is used is made by a stage that is not waited for.
    NotWaitedFor = "E0308",
    /// Several stages make what is used, and nothing says which.
    SeveralMake = "E0309",
    /// A pipeline where a blueprint belongs, or the other way round.
    WrongFile = "E0208",
    /// No library has this step.
    UnknownStep = "E0401",
    /// Not a step, where a step belongs.
    NotAStep = "E0402",
    /// Positional and keyword arguments in one call.
    MixedArguments = "E0403",
    /// More arguments than parameters.
    TooManyArguments = "E0404",
    /// A keyword that is no parameter.
    UnknownKeyword = "E0405",
    /// A parameter is given twice.
    DoubledKeyword = "E0406",
    /// A required parameter is not given.
    MissingArgument = "E0407",
    /// An argument is not of its parameter's type.
    ArgumentType = "E0408",
    /// The name of a variable that there is not.
    UnknownVariable = "E0409",
    /// A parameter's declaration is wrong.
    ParameterDeclaration = "E0220",
    /// A value that is given for a parameter is none of its type.
    ParameterGiven = "E0221",
    /// A value is given for a parameter that there is not.
    UnknownParameter = "E0222",
    /// A parameter has no value.
    MissingParameter = "E0223",
    /// `triggers` says something that is no trigger.
    Trigger = "E0230",
    /// A line of `cron` that names no time.
    CronLine = "E0231",
    /// A function's arguments are not what it takes.
    FunctionArguments = "E0420",
    /// The name of a function that there is not.
    UnknownFunction = "E0421",
    /// A value that stands where it cannot.
    ValueType = "E0422",
    /// Something that is no condition, where a condition belongs.
    NotACondition = "E0423",
    /// A comparison that means nothing.
    Comparison = "E0424",
    /// A pattern that is none.
    Pattern = "E0425",
    /// A pattern that no file matches.
    NoMatch = "E0426",
    /// A value that is known in the run only, where it must be known before.
    InRunOnly = "E0427",
    /// A value that must stand in the file as it is.
    NotALiteral = "E0428",
    /// A value is larger than the limit.
    ValueTooLarge = "E0620",
    /// More patterns for paths than the limit.
    TooManyPatterns = "E0621",
    /// A JSON file is not what is read from it.
    JsonFile = "E0720",
    /// Text from outside, where code is run.
    OutsideCode = "E0801",
    /// There is no such file in the commit.
    NoFile = "E0207",
    /// Steps under a condition that is decided in the run.
    WhenInRun = "E0410",
    /// A name of a captured variable that cannot be one.
    CaptureName = "E0411",
    /// A name of a step that cannot be one.
    StepName = "E0412",
    /// Blocks of steps are nested deeper than the limit.
    StepsTooDeep = "E0609",
    /// The plan would be nested deeper than the limit.
    PlanTooDeep = "E0610",
    /// A manifest of a step that is none.
    Manifest = "E0703",
    /// Two libraries, or one file, have two steps of one name.
    StepTwice = "E0704",
    /// An address that names no library.
    LibraryAddress = "E0705",
    /// A remote library without a digest in the lock file.
    NotLocked = "E0706",
    /// The lock file does not read as one.
    LockFile = "E0707",
    /// What is brought in is not what the lock file says.
    LockMismatch = "E0708",
    /// A configuration that does not fit the manifest of its step.
    Configuration = "E0709",
    /// A step gets a credential that its stage does not list.
    CredentialNotListed = "E0804",
    /// A step of a library goes before one of the standard library.
    StandardStepHidden = "W0401",
    /// More branches of an `each` than the limit.
    TooManyBranches = "E0606",
    /// Files bring in files deeper than the limit.
    IncludeTooDeep = "E0607",
    /// More is expanded than the limit.
    ExpandedTooLarge = "E0608",
    /// A file brings in itself.
    IncludeCircle = "E0701",
    /// A path that leads out of the repository.
    PathOutside = "E0702",
    /// More stages than the limit.
    TooManyStages = "E0601",
    /// More steps than the limit.
    TooManySteps = "E0602",
    /// More edges than the limit.
    TooManyEdges = "E0603",
    /// The plan would be larger than the limit.
    PlanTooLarge = "E0604",
    /// There are more errors than are shown.
    TooManyErrors = "E0605",
    /// A value stands where only a reference to a credential may.
    CredentialValue = "E0802",
    /// A credential that is not declared.
    CredentialUnknown = "E0803",
    /// A credential is used outside of the environments that list it.
    CredentialElsewhere = "E0805",
    /// An environment that is not declared.
    UnknownEnvironment = "E0806",
    /// A reference to a credential that is none.
    CredentialReference = "E0807",
    /// A line inside a comment begins with `/*`.
    CommentInComment = "W0101",
    /// A block that does nothing.
    NothingToDo = "W0201",
    /// What an agent must have is named nearly like something else.
    UnusualFact = "W0202",
    /// There are more warnings than are shown.
    TooManyWarnings = "W0601",
}

impl Code {
    /// Whether there is no plan because of it.
    pub fn severity(self) -> Severity {
        if self.as_str().starts_with('W') { Severity::Warning } else { Severity::Error }
    }
}

/// One of the files of a plan, by its place in [`Files`]; the first is the pipeline file.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct FileId(usize);

/// The files that findings can stand in.
#[derive(Debug, Default)]
pub(crate) struct Files<'a>(Vec<File<'a>>);

/// A file and its lines.
#[derive(Debug)]
pub(crate) struct File<'a> {
    /// Its path from the repository's root.
    pub(crate) path: &'a str,
    pub(crate) lines: Lines<'a>,
}

impl<'a> Files<'a> {
    /// Adds a file; its findings are found under the id.
    pub(crate) fn add(&mut self, path: &'a str, source: &'a [u8]) -> FileId {
        self.0.push(File { path, lines: Lines::of(source) });
        FileId(self.0.len() - 1)
    }

    pub(crate) fn get(&self, id: FileId) -> &File<'a> {
        &self.0[id.0]
    }
}

/// One mistake, before its line and column are known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Finding {
    /// Set when it is added.
    file: FileId,
    code: Code,
    span: Span,
    message: String,
    label: String,
    help: String,
}

impl Finding {
    pub(crate) fn new(code: Code, span: Span, message: impl Into<String>) -> Self {
        Self { file: FileId::default(), code, span, message: message.into(), label: String::new(), help: String::new() }
    }

    /// What stands under the mark.
    pub(crate) fn label(self, label: impl Into<String>) -> Self {
        Self { label: label.into(), ..self }
    }

    /// How to mend it.
    pub(crate) fn help(self, help: impl Into<String>) -> Self {
        Self { help: help.into(), ..self }
    }
}

/// The mistakes that were found so far.
#[derive(Debug, Default)]
pub(crate) struct Findings {
    /// The file that is being read: what is added stands in it.
    file: FileId,
    errors: Kept,
    warnings: Kept,
}

/// Up to [`DIAGNOSTICS_MAX`] findings, and how many more there were.
#[derive(Debug, Default)]
struct Kept {
    found: Vec<Finding>,
    left_out: usize,
}

impl Findings {
    /// Goes on with another file, and gives the one before.
    pub(crate) fn enter(&mut self, file: FileId) -> FileId {
        std::mem::replace(&mut self.file, file)
    }

    /// The file that is being read.
    pub(crate) fn file(&self) -> FileId {
        self.file
    }

    /// Adds a finding, unless the same was found at the same place: what is expanded many times is wrong once.
    pub(crate) fn add(&mut self, finding: Finding) {
        let finding = Finding { file: self.file, ..finding };
        let kept = match finding.code.severity() {
            Severity::Error => &mut self.errors,
            Severity::Warning => &mut self.warnings,
        };
        if kept.found.contains(&finding) {
            return;
        }
        if kept.found.len() < DIAGNOSTICS_MAX { kept.found.push(finding) } else { kept.left_out += 1 }
    }

    /// How many errors there are so far.
    pub(crate) fn errors(&self) -> usize {
        self.errors.found.len() + self.errors.left_out
    }

    /// Whether no more errors are shown: then the costly part of their text need not be made.
    pub(crate) fn is_full(&self) -> bool {
        self.errors.found.len() >= DIAGNOSTICS_MAX
    }

    pub(crate) fn has_errors(&self) -> bool {
        !self.errors.found.is_empty()
    }

    /// As they are told: the first of the file first.
    pub(crate) fn finish(self, files: &Files<'_>) -> Vec<Diagnostic> {
        let mut all = self.errors.close(Code::TooManyErrors);
        all.extend(self.warnings.close(Code::TooManyWarnings));
        all.sort_by_key(|finding| (finding.file, finding.span));
        all.into_iter().map(|finding| diagnostic(finding, files)).collect()
    }
}

impl Kept {
    /// The findings; where some were left out, the last one says so.
    fn close(mut self, code: Code) -> Vec<Finding> {
        if let (true, Some(last)) = (self.left_out > 0, self.found.iter().max_by_key(|finding| (finding.file, finding.span))) {
            let message = format!("{} more are not shown: at most {DIAGNOSTICS_MAX} are", self.left_out);
            let more = Finding { file: last.file, ..Finding::new(code, last.span, message).help("mend these, then look again") };
            self.found.push(more);
        }
        self.found
    }
}

fn diagnostic(finding: Finding, files: &Files<'_>) -> Diagnostic {
    let Finding { file, code, span, message, label, help } = finding;
    let file = files.get(file);
    let (line, column) = file.lines.place(span.start);
    Diagnostic {
        code: code.as_str().to_owned(),
        severity: code.severity(),
        message,
        file: file.path.to_owned(),
        line,
        column,
        span,
        label,
        help,
    }
}

/// Where the lines of a source begin.
#[derive(Debug)]
pub(crate) struct Lines<'a> {
    source: &'a [u8],
    starts: Vec<usize>,
    /// How many characters begin before each block of [`BLOCK_BYTES`] bytes: a file can be one line, with thousands of places to tell.
    characters: Vec<usize>,
}

const BLOCK_BYTES: usize = 1024;

/// How many characters begin in these bytes, whether they are UTF-8 or not.
fn characters(bytes: &[u8]) -> usize {
    bytes.iter().filter(|byte| **byte & 0xc0 != 0x80).count()
}

impl<'a> Lines<'a> {
    pub(crate) fn of(source: &'a [u8]) -> Self {
        let after_breaks = source.iter().enumerate().filter(|(_, byte)| **byte == b'\n').map(|(place, _)| place + 1);
        let mut blocks = vec![0];
        for block in source.chunks(BLOCK_BYTES) {
            blocks.push(blocks.last().copied().unwrap_or_default() + characters(block));
        }
        Self { source, starts: std::iter::once(0).chain(after_breaks).collect(), characters: blocks }
    }

    /// The line of a byte, from 1.
    pub(crate) fn line(&self, offset: usize) -> usize {
        self.starts.partition_point(|start| *start <= offset)
    }

    /// The byte at a line and a column in bytes, both from 1; the last one where there is no such place.
    pub(crate) fn offset(&self, line: usize, column: usize) -> usize {
        let start = self.starts.get(line.saturating_sub(1)).copied().unwrap_or(self.source.len());
        (start + column.saturating_sub(1)).min(self.source.len().saturating_sub(1))
    }

    /// Line and column of a byte, from 1. A leading byte order mark takes no column.
    pub(crate) fn place(&self, offset: usize) -> (usize, usize) {
        let line = self.line(offset);
        let start = self.starts[line - 1];
        let mark = usize::from(start == 0 && offset >= 3 && self.source.starts_with("\u{feff}".as_bytes()));
        (line, self.characters_before(offset) - self.characters_before(start) - mark + 1)
    }

    fn characters_before(&self, offset: usize) -> usize {
        let offset = offset.min(self.source.len());
        let block = offset / BLOCK_BYTES;
        self.characters[block] + characters(self.source.get(block * BLOCK_BYTES..offset).unwrap_or_default())
    }
}

/// Whether a character would steer a terminal, or turn the direction of the text around it: what is shown must be what is there.
pub(crate) fn is_hidden(character: char) -> bool {
    let turns = matches!(character, '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2060}'..='\u{2069}' | '\u{feff}');
    character.is_control() || turns
}

/// A piece of source for a message: between backticks, as [`excerpt`] has it.
pub(crate) fn quoted(text: &str) -> String {
    format!("`{}`", excerpt(text))
}

/// A piece of source for a message: shortened, and without what [`is_hidden`].
pub(crate) fn excerpt(text: &str) -> String {
    let mut shown = String::new();
    for (place, character) in text.chars().enumerate() {
        if place == QUOTED_CHARACTERS_MAX {
            shown.push('…');
            break;
        }
        if is_hidden(character) { shown.extend(character.escape_default()) } else { shown.push(character) }
    }
    shown
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn no_code_is_given_twice() {
        let codes: BTreeSet<&str> = Code::ALL.iter().map(|code| code.as_str()).collect();
        assert_eq!(codes.len(), Code::ALL.len());
    }

    #[test]
    fn a_place_is_counted_in_characters() {
        let source = "\u{feff}äb\r\ncd";
        let lines = Lines::of(source.as_bytes());
        assert_eq!(lines.place(3), (1, 1));
        assert_eq!(lines.place(5), (1, 2));
        assert_eq!(lines.place(8), (2, 1));
        assert_eq!(lines.place(source.len()), (2, 3));
        assert_eq!(lines.place(source.len() + 9), (2, 3));
    }

    #[test]
    fn what_is_quoted_steers_no_terminal() {
        assert_eq!(quoted("a\u{1b}[1m"), "`a\\u{1b}[1m`");
        assert_eq!(quoted(&"x".repeat(100)).chars().count(), QUOTED_CHARACTERS_MAX + 3);
    }

    #[test]
    fn what_is_left_out_is_said() {
        let mut findings = Findings::default();
        for place in 0..DIAGNOSTICS_MAX + 3 {
            findings.add(Finding::new(Code::Syntax, Span { start: place, end: place }, "x"));
        }
        let mut files = Files::default();
        files.add("f", b"");
        let diagnostics = findings.finish(&files);
        assert_eq!(diagnostics.len(), DIAGNOSTICS_MAX + 1);
        assert!(diagnostics.last().unwrap().message.starts_with("3 more"));
    }
}
