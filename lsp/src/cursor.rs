//! What stands at a place of a text, in which blocks: read from the words alone, as the text around a cursor is seldom complete.

use model::diagnostic::Span;

/// The functions that begin no entry of their own after a name.
const FUNCTIONS: [&str; 5] = ["concat", "format", "join", "files", "json"];

/// Where a cursor stands.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Cursor {
    /// The brackets around it, the outermost first; the first is the file.
    pub(crate) frames: Vec<Frame>,
    /// The word or string that it stands in, or at whose end.
    pub(crate) token: Option<Token>,
    /// Whether it stands in a comment.
    pub(crate) in_comment: bool,
}

/// A bracket that is open at the cursor.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Frame {
    /// The name whose bracket it is; empty for the file.
    pub(crate) head: String,
    /// Whether it is `{`, `[`, `(`, or the file.
    pub(crate) bracket: Bracket,
    /// The entry in it that has begun before the cursor; empty if none has.
    pub(crate) entry: String,
    /// The keyword in it whose value is next: `name:`.
    pub(crate) keyword: Option<String>,
    /// What stood in it before the cursor.
    pub(crate) last: Last,
    /// The entry before `entry`, which goes on if that was a keyword.
    before: String,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum Bracket {
    #[default]
    File,
    Brace,
    List,
    Parenthesis,
}

/// What stood before the cursor.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum Last {
    #[default]
    Nothing,
    /// The name of an entry.
    Name,
    /// `=`.
    Equals,
    /// `->`.
    Arrow,
    /// `:`.
    Colon,
    /// `,`, or what compares or joins.
    Operator,
    /// A value, or a closed bracket.
    Value,
}

/// A word or a string.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Token {
    /// Where it stands; of a string, without its quotes.
    pub(crate) span: Span,
    /// What stands there.
    pub(crate) text: String,
    pub(crate) kind: TokenKind,
    /// What is written of it before the cursor.
    pub(crate) written: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum TokenKind {
    /// A name that begins an entry.
    Entry,
    /// A name before `:`.
    Keyword,
    /// Any other name.
    Word,
    String,
}

impl Cursor {
    /// What stands at `offset`.
    pub(crate) fn at(source: &str, offset: usize) -> Self {
        let mut scanner = Scanner { source, at: 0, cursor: Self { frames: vec![Frame::default()], ..Self::default() } };
        scanner.run(offset);
        scanner.cursor
    }

    /// The innermost bracket.
    pub(crate) fn frame(&self) -> &Frame {
        static FILE: Frame = Frame {
            head: String::new(),
            bracket: Bracket::File,
            entry: String::new(),
            keyword: None,
            last: Last::Nothing,
            before: String::new(),
        };
        self.frames.last().unwrap_or(&FILE)
    }
}

struct Scanner<'a> {
    source: &'a str,
    at: usize,
    cursor: Cursor,
}

impl Scanner<'_> {
    fn rest(&self) -> &str {
        self.source.get(self.at..).unwrap_or_default()
    }

    fn run(&mut self, offset: usize) {
        while self.at < offset {
            let rest = self.rest();
            let Some(first) = rest.chars().next() else { return };
            let length = if rest.starts_with("//") || rest.starts_with("/*") {
                let end = if rest.starts_with("//") {
                    rest.find('\n')
                } else {
                    rest.get(2..).and_then(|body| body.find("*/")).map(|end| end + 4)
                };
                let length = end.unwrap_or(rest.len());
                self.cursor.in_comment = self.at + length > offset || self.at + length == offset && rest.starts_with("//");
                length
            } else if first == '"' || first == '\'' {
                self.string(offset)
            } else if is_name(first) && name_length(rest) > 0 {
                self.name(offset)
            } else {
                self.other(first)
            };
            self.at += length.max(1);
        }
        if self.at == offset && self.cursor.token.is_none() && !self.cursor.in_comment && self.rest().starts_with(is_name) {
            self.name(offset);
        }
    }

    fn string(&mut self, offset: usize) -> usize {
        let rest = self.rest();
        let quotes = if rest.starts_with("\"\"\"") { 3 } else { 1 };
        let end = closing(rest, quotes);
        let (body, length) = end.map_or((rest.len(), rest.len()), |end| (end, end + quotes));
        let (start, end) = (self.at + quotes, self.at + body);
        if offset >= start && offset <= end {
            self.token(Span { start, end: end.max(start) }, TokenKind::String, offset);
        } else {
            self.last(Last::Value);
        }
        length
    }

    fn name(&mut self, offset: usize) -> usize {
        let rest = self.rest();
        let length = name_length(rest);
        let name = rest.get(..length).unwrap_or_default().to_owned();
        let after = rest.get(length..).unwrap_or_default().trim_start();
        let is_keyword = after.starts_with(':');
        let begins = self.begins_entry(&name);
        if offset <= self.at + length {
            let kind = if is_keyword {
                TokenKind::Keyword
            } else if begins {
                TokenKind::Entry
            } else {
                TokenKind::Word
            };
            self.token(Span { start: self.at, end: self.at + length }, kind, offset);
            return length;
        }
        let Some(frame) = self.cursor.frames.last_mut() else { return length };
        if is_keyword {
            frame.keyword = Some(name);
        } else if begins {
            frame.before = std::mem::replace(&mut frame.entry, name);
            frame.keyword = None;
            frame.last = Last::Name;
        } else {
            frame.last = Last::Value;
        }
        length
    }

    /// Whether a name begins an entry here, and is not a value.
    fn begins_entry(&self, name: &str) -> bool {
        let frame = self.cursor.frame();
        let is_argument = (FUNCTIONS.contains(&name) || name == "it" || name.contains('.')) && !frame.entry.is_empty();
        let is_value = match frame.last {
            Last::Equals | Last::Arrow | Last::Colon => true,
            Last::Name => matches!(frame.entry.as_str(), "use" | "type"),
            Last::Operator => frame.bracket != Bracket::List,
            Last::Nothing | Last::Value => false,
        };
        frame.bracket != Bracket::Parenthesis && !is_argument && !is_value
    }

    fn other(&mut self, first: char) -> usize {
        let rest = self.rest();
        let operator = ["->", "==", "!=", "&&", "||"].into_iter().find(|operator| rest.starts_with(operator));
        match (first, operator) {
            (_, Some("->")) => self.last(Last::Arrow),
            (_, Some(_)) | (',' | '!', None) => self.last(Last::Operator),
            ('=', _) => self.last(Last::Equals),
            (':', _) => self.last(Last::Colon),
            ('{', _) => self.open(Bracket::Brace),
            ('[', _) => self.open(Bracket::List),
            ('(', _) => self.open(Bracket::Parenthesis),
            ('}' | ']' | ')', _) => self.close(first),
            _ if first.is_whitespace() => {}
            _ => self.last(Last::Value),
        }
        operator.map_or(first.len_utf8(), str::len)
    }

    fn last(&mut self, last: Last) {
        if let Some(frame) = self.cursor.frames.last_mut() {
            frame.last = last;
            if last == Last::Value {
                frame.keyword = None;
            }
        }
    }

    fn open(&mut self, bracket: Bracket) {
        let head = self.cursor.frame().entry.clone();
        self.cursor.frames.push(Frame { head, bracket, ..Frame::default() });
    }

    fn close(&mut self, bracket: char) {
        if self.cursor.frames.len() > 1 {
            self.cursor.frames.pop();
        }
        self.last(Last::Value);
        // A block ends its entry; a list or parentheses may be followed by more of it.
        if let (Some(frame), '}') = (self.cursor.frames.last_mut(), bracket) {
            frame.before = std::mem::take(&mut frame.entry);
        }
    }

    fn token(&mut self, span: Span, kind: TokenKind, offset: usize) {
        let text = self.source.get(span.start..span.end).unwrap_or_default().to_owned();
        let written = self.source.get(span.start..offset.min(span.end)).unwrap_or_default().to_owned();
        self.cursor.token = Some(Token { span, text, kind, written });
    }
}

/// Where the closing quotes of a string begin.
fn closing(rest: &str, quotes: usize) -> Option<usize> {
    if quotes == 3 {
        return rest.get(3..)?.find("\"\"\"").map(|end| end + 3);
    }
    let quote = *rest.as_bytes().first()?;
    let mut bytes = rest.bytes().enumerate().skip(1);
    while let Some((place, byte)) = bytes.next() {
        if byte == b'\\' && quote == b'"' {
            bytes.next();
        } else if byte == quote {
            return Some(place);
        }
    }
    None
}

/// How long the name or number is that begins here, with its dots. A `-` belongs to it only before another character of a name.
fn name_length(rest: &str) -> usize {
    let mut characters = rest.char_indices().peekable();
    while let Some((place, character)) = characters.next() {
        let goes_on = characters.peek().is_some_and(|(_, next)| is_name(*next) && *next != '-');
        if !(is_name(character) || character == '.') || character == '-' && !goes_on {
            return place;
        }
    }
    rest.len()
}

fn is_name(character: char) -> bool {
    character.is_ascii_alphanumeric() || matches!(character, '_' | '-')
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The cursor at `|`.
    fn at(source: &str) -> Cursor {
        let offset = source.find('|').unwrap();
        Cursor::at(&source.replace('|', ""), offset)
    }

    fn heads(cursor: &Cursor) -> Vec<&str> {
        cursor.frames.iter().map(|frame| frame.head.as_str()).collect()
    }

    #[test]
    fn the_blocks_around_are_named() {
        let cursor = at("pipeline { stage('A') { steps [ sh 'x' dir 'd' [ ec|ho 'x' ] ] } }");
        assert_eq!(heads(&cursor), ["", "pipeline", "stage", "steps", "dir"]);
        let token = cursor.token.unwrap();
        assert_eq!((token.text.as_str(), token.written.as_str(), token.kind), ("echo", "ec", TokenKind::Entry));
        assert_eq!(heads(&at("pipeline { stage concat('a', it) { | } }")), ["", "pipeline", "stage"]);
        assert_eq!(heads(&at("pipeline { /* { */ '{' | ")), ["", "pipeline"]);
    }

    #[test]
    fn what_is_written_says_what_comes_next() {
        let cursor = at("a { needs = ['|'] }");
        assert_eq!(cursor.frame().head, "needs");
        assert_eq!(cursor.token.unwrap().kind, TokenKind::String);
        assert_eq!(at("stage 'a' { environment -> | }").frame().last, Last::Arrow);
        assert_eq!(at("a { type = | }").frame().last, Last::Equals);
        let cursor = at("steps { git url: '|' }");
        assert_eq!((cursor.frame().entry.as_str(), cursor.frame().keyword.as_deref()), ("git", Some("url")));
        assert_eq!(at("steps { git ur|l: 'x' }").token.unwrap().kind, TokenKind::Keyword);
        assert_eq!(at("env { A = params.|").token.unwrap().written, "params.");
        assert_eq!(at("a { b = |params.x }").token.unwrap().text, "params.x");
        assert!(at("a // b|").in_comment && at("/* | */").in_comment && !at("/* */|").in_comment);
        assert_eq!(at("a { from '| ").frame().entry, "from");
    }
}
