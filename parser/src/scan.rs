//! The linear pass before the grammar: it makes the tokens, and refuses nesting that is too deep, brackets, strings and comments that are
//! not closed, and characters that mean nothing.
//!
//! It reads each byte once and does not recurse, so it is safe on any input; the grammar, which recurses, only ever sees what passed here.

use model::diagnostic::Span;

use crate::{
    diagnostic::{Code, Finding, Findings, Lines, is_hidden},
    limits::NESTING_MAX,
    token::Tokens,
};

/// Reads the source. `None` if the grammar must not see it; then `findings` say why.
pub(crate) fn scan(source: &str, lines: &Lines<'_>, findings: &mut Findings) -> Option<Tokens> {
    let mut scanner = Scanner { source: source.as_bytes(), lines, findings, open: Vec::new(), tokens: Tokens::default(), sound: true };
    scanner.all(source);
    let Scanner { sound, mut tokens, .. } = scanner;
    tokens.end();
    sound.then_some(tokens)
}

struct Scanner<'a> {
    source: &'a [u8],
    lines: &'a Lines<'a>,
    findings: &'a mut Findings,
    /// The opening brackets that are not closed yet.
    open: Vec<Opened>,
    tokens: Tokens,
    sound: bool,
}

/// A bracket that is not closed yet.
struct Opened {
    bracket: u8,
    /// Where it stands, in bytes and in tokens.
    at: usize,
    token: usize,
}

impl Scanner<'_> {
    fn refuse(&mut self, finding: Finding) {
        self.sound = false;
        self.findings.add(finding);
    }

    fn all(&mut self, source: &str) {
        let mut at = if source.starts_with('\u{feff}') { '\u{feff}'.len_utf8() } else { 0 };
        while let Some(&byte) = self.source.get(at) {
            let next = match byte {
                b' ' | b'\n' | b'\t' | b'\r' => Some(at + 1),
                b'a'..=b'z' | b'A'..=b'Z' | b'_' => Some(self.name(at)),
                b'"' | b'\'' => self.text(at, byte),
                b'/' => self.comment(at),
                b'{' | b'[' | b'(' => self.opening(at, byte),
                b'}' | b']' | b')' => self.closing(at, byte),
                b'0'..=b'9' => Some(self.number(at)),
                b'-' if self.byte(at + 1).is_ascii_digit() => Some(self.number(at)),
                b'=' | b':' | b',' | b'.' | b'!' | b'&' | b'|' | b'>' | b'-' => Some(self.sign(at, byte)),
                _ => Some(self.character(source, at)),
            };
            let Some(next) = next else { return };
            at = next;
        }
        if let Some(Opened { bracket, at, .. }) = self.open.pop() {
            let message = format!("this `{}` is never closed", char::from(bracket));
            let help = format!("is a `{}` missing here, or inside?", char::from(partner(bracket)));
            self.refuse(Finding::new(Code::Bracket, at_byte(at), message).label("opened here").help(help));
        }
    }

    /// The byte at `at`; 0 behind the end.
    fn byte(&self, at: usize) -> u8 {
        self.source.get(at).copied().unwrap_or_default()
    }

    /// The end of the name that begins at `start`, with its dots.
    fn name(&mut self, start: usize) -> usize {
        let mut at = start + 1;
        loop {
            match (self.byte(at), self.byte(at + 1)) {
                (b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'_', _) => at += 1,
                (b'-', next) if next.is_ascii_alphanumeric() || matches!(next, b'_' | b'-') => at += 1,
                (b'.', next) if next.is_ascii_alphabetic() || next == b'_' => at += 1,
                _ => break,
            }
        }
        self.tokens.add_name(self.source.get(start..at).unwrap_or_default(), start);
        at
    }

    /// The end of the number that begins at `start`. The whole run of characters is taken; which of them is a number, a duration or a size
    /// is checked when it is read.
    fn number(&mut self, start: usize) -> usize {
        let mut at = start + 1;
        loop {
            match (self.byte(at), self.byte(at + 1)) {
                (b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'_', _) => at += 1,
                (b'-', next) if next.is_ascii_alphanumeric() || matches!(next, b'_' | b'-') => at += 1,
                (b'.', next) if next.is_ascii_digit() => at += 1,
                _ => break,
            }
        }
        self.tokens.add(b'0', start, at);
        at
    }

    /// The end of the sign at `at`.
    fn sign(&mut self, at: usize, byte: u8) -> usize {
        let (class, length) = match (byte, self.byte(at + 1)) {
            (b'=' | b'!', b'=') => (b'?', 2),
            (b'&', b'&') | (b'|', b'|') => (byte, 2),
            (b'-', b'>') => (b'>', 2),
            (b'=' | b':' | b',' | b'!', _) => (byte, 1),
            _ => (b'.', 1),
        };
        self.tokens.add(class, at, at + length);
        at + length
    }

    /// The end of the string that begins at `start`; `None` if there is none.
    fn text(&mut self, start: usize, quote: u8) -> Option<usize> {
        let rest = self.source.get(start..).unwrap_or_default();
        let (opening, end) = if rest.starts_with(b"\"\"\"") {
            (3, find(rest.get(3..).unwrap_or_default(), b"\"\"\"").map(|place| place + 6))
        } else if quote == b'"' {
            (1, end_of_escaped(rest))
        } else {
            (1, end_of_verbatim(rest))
        };
        let Some(end) = end else {
            let span = Span { start, end: start + opening };
            let help = "a string may span lines, so the quote may also be missing above";
            self.refuse(Finding::new(Code::Unclosed, span, "this string is never closed").label("begins here").help(help));
            return None;
        };
        for place in rest.get(..end).unwrap_or_default().iter().enumerate().filter(|(_, byte)| **byte == 0).map(|(place, _)| place) {
            self.refuse(Finding::new(Code::Escape, at_byte(start + place), "a string cannot hold the character NUL"));
        }
        self.tokens.add(b's', start, start + end);
        Some(start + end)
    }

    /// The end of the comment that begins at `start`; `None` if there is none.
    fn comment(&mut self, start: usize) -> Option<usize> {
        let rest = self.source.get(start..).unwrap_or_default();
        if rest.starts_with(b"//") {
            return Some(start + find(rest, b"\n").unwrap_or(rest.len()));
        }
        if !rest.starts_with(b"/*") {
            let help = "a comment begins with `//` or `/*`; a path stands in quotes";
            self.refuse(Finding::new(Code::Character, at_byte(start), "a single `/` means nothing here").help(help));
            return Some(start + 1);
        }
        let body = rest.get(2..).unwrap_or_default();
        let Some(length) = find(body, b"*/") else {
            let finding = Finding::new(Code::Unclosed, Span { start, end: start + 2 }, "this comment is never closed").label("begins here");
            self.refuse(finding.help("close it with `*/`"));
            return None;
        };
        self.warn_of_a_comment_within(start, body.get(..length).unwrap_or_default());
        Some(start + 2 + length + 2)
    }

    /// A comment that was closed with `/` alone runs to the end of the next one. The first line that looks like it is named.
    fn warn_of_a_comment_within(&mut self, start: usize, body: &[u8]) {
        let mut from = 0;
        while let Some(line) = find(body.get(from..).unwrap_or_default(), b"\n").map(|place| from + place + 1) {
            let text = body.get(line..).unwrap_or_default();
            let indent = text.iter().take_while(|byte| matches!(byte, b' ' | b'\t')).count();
            if text.get(indent..).unwrap_or_default().starts_with(b"/*") {
                let place = start + 2 + line + indent;
                let message = format!("a comment begins inside the comment of line {}", self.lines.line(start));
                let finding = Finding::new(Code::CommentInComment, Span { start: place, end: place + 2 }, message);
                let help = "did the comment above end? comments end with `*/` and are not nested";
                return self.findings.add(finding.label("still a comment").help(help));
            }
            from = line;
        }
    }

    fn opening(&mut self, at: usize, bracket: u8) -> Option<usize> {
        self.open.push(Opened { bracket, at, token: self.tokens.len() });
        self.tokens.add(bracket, at, at + 1);
        if self.open.len() <= NESTING_MAX {
            return Some(at + 1);
        }
        let message = format!("brackets are nested more than {NESTING_MAX} deep");
        self.refuse(Finding::new(Code::NestingTooDeep, at_byte(at), message).label(format!("this is the {}th", self.open.len())));
        None
    }

    fn closing(&mut self, at: usize, bracket: u8) -> Option<usize> {
        let closes = char::from(bracket);
        let Some(opened) = self.open.pop() else {
            self.refuse(Finding::new(Code::Bracket, at_byte(at), format!("this `{closes}` closes nothing")).help("is one too many here?"));
            return None;
        };
        if partner(opened.bracket) != bracket {
            let line = self.lines.line(opened.at);
            let message = format!("this `{closes}` cannot close the `{}` of line {line}", char::from(opened.bracket));
            self.refuse(
                Finding::new(Code::Bracket, at_byte(at), message).label(format!("expected `{}`", char::from(partner(opened.bracket)))),
            );
            return None;
        }
        self.tokens.add(bracket, at, at + 1);
        if bracket == b'}' {
            self.tokens.close_brace(opened.token);
        }
        Some(at + 1)
    }

    /// Refuses the character at `at` and gives the place after it.
    fn character(&mut self, source: &str, at: usize) -> usize {
        let character =
            source.get(at..).and_then(|rest| rest.chars().next()).expect("every byte before it was one of ASCII, or skipped whole");
        let end = at + character.len_utf8();
        let shown = if is_hidden(character) || character.is_whitespace() {
            format!("U+{:04X}", u32::from(character))
        } else {
            format!("`{character}`")
        };
        let help = match character {
            ';' => "steps and settings need nothing between them",
            '‘' | '’' | '“' | '”' | '„' | '`' => "quotes are `'` and `\"`",
            '#' => "a comment begins with `//` or `/*`",
            '$' | '@' | '*' | '\\' | '~' | '+' => "what is not a name or a number stands in quotes",
            character if character.is_alphabetic() => "names are made of a-z, A-Z, 0-9, `_` and `-`; other text stands in quotes",
            _ => "",
        };
        let finding =
            Finding::new(Code::Character, Span { start: at, end }, format!("the character {shown} means nothing outside of strings"));
        self.refuse(finding.help(help));
        end
    }
}

fn at_byte(at: usize) -> Span {
    Span { start: at, end: at + 1 }
}

fn partner(bracket: u8) -> u8 {
    match bracket {
        b'{' => b'}',
        b'[' => b']',
        _ => b')',
    }
}

/// Where `needle`, which is short, first stands.
fn find(bytes: &[u8], needle: &[u8]) -> Option<usize> {
    bytes.windows(needle.len()).position(|window| window == needle)
}

/// The length of the `"…"` at the beginning of `bytes`.
fn end_of_escaped(bytes: &[u8]) -> Option<usize> {
    let mut at = 1;
    loop {
        match bytes.get(at)? {
            b'\\' => at += 2,
            b'"' => return Some(at + 1),
            _ => at += 1,
        }
    }
}

/// The length of the `'…'` at the beginning of `bytes`, in which `''` is one quote.
fn end_of_verbatim(bytes: &[u8]) -> Option<usize> {
    let mut at = 1;
    loop {
        match (bytes.get(at)?, bytes.get(at + 1)) {
            (b'\'', Some(b'\'')) => at += 2,
            (b'\'', _) => return Some(at + 1),
            _ => at += 1,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::diagnostic::Files;

    fn codes(source: &str) -> Vec<String> {
        let mut files = Files::default();
        let file = files.add("f", source.as_bytes());
        let mut findings = Findings::default();
        let tokens = scan(source, &files.get(file).lines, &mut findings);
        assert_eq!(tokens.is_none(), findings.has_errors(), "{source}");
        findings.finish(&files).into_iter().map(|diagnostic| format!("{}:{}", diagnostic.code, diagnostic.span.start)).collect()
    }

    #[test]
    fn what_stands_in_strings_and_comments_is_not_read() {
        for source in
            ["", "\u{feff}a", "'{ // /* ''['", "\"\\\"{\"", "\"\"\" \"{ \" \"\"\"", "// {\n", "/* { ' */", "''", "\"\"", "a{[()]}"]
        {
            assert!(codes(source).is_empty(), "{source}");
        }
    }

    #[test]
    fn what_is_not_closed_is_named_where_it_begins() {
        assert_eq!(codes("a 'b''"), ["E0104:2"]);
        assert_eq!(codes("a \"b\\\""), ["E0104:2"]);
        assert_eq!(codes("\"\"\"a\"\""), ["E0104:0"]);
        assert_eq!(codes("/* a"), ["E0104:0"]);
        assert_eq!(codes("/*/"), ["E0104:0"]);
        assert_eq!(codes("a { b"), ["E0105:2"]);
        assert_eq!(codes("a { b ]"), ["E0105:6"]);
        assert_eq!(codes("a }"), ["E0105:2"]);
    }

    #[test]
    fn every_strange_character_is_named() {
        assert_eq!(codes("a; ü \u{a0}\0 / 'ü'"), ["E0106:1", "E0106:3", "E0106:6", "E0106:8", "E0106:10"]);
        assert_eq!(codes("'\0'"), ["E0107:1"]);
    }

    #[test]
    fn nesting_is_limited() {
        assert!(codes(&("{".repeat(NESTING_MAX) + &"}".repeat(NESTING_MAX))).is_empty());
        assert_eq!(codes(&"[".repeat(1_000_000)), ["E0103:64"]);
    }

    #[test]
    fn a_comment_in_a_comment_is_a_warning() {
        assert_eq!(codes("/* a /\n  /* b */"), ["W0101:9"]);
        assert!(codes("/* a /* b */").is_empty());
    }

    #[test]
    fn tokens_end_where_they_end() {
        let shown = |source: &str| {
            let tokens = scan(source, &Lines::of(source.as_bytes()), &mut Findings::default()).unwrap();
            let token = |token| {
                let Span { start, end } = tokens.span(token..token + 1);
                format!("{}{}", char::from(tokens.class(token)), source.get(start..end).unwrap())
            };
            (0..tokens.len()).map(token).collect::<Vec<_>>().join(" ")
        };
        assert_eq!(shown("a.b-c->d.1 -1-x /* y */ e- f"), "da.b-c >-> nd .. 01 0-1-x ne .- nf");
        assert_eq!(shown("a==b!=!c&&d||e&|>"), "na ?== nb ?!= !! nc &&& nd ||| ne .& .| .>");
        assert_eq!(shown("k:'a''b'//x\n3.5s\"c\"=="), "kk :: s'a''b' 03.5s s\"c\" ?==");
    }
}
