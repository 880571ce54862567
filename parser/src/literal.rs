//! What strings and numbers mean.

use model::diagnostic::Span;

use crate::{
    diagnostic::{Code, Finding, Findings, quoted},
    syntax::ValueKind,
};

/// The largest whole number of canonical JSON (RFC 8785, section 3.2.2.3; RFC 7493, section 2.2).
const INTEGER_MAX: i64 = (1 << 53) - 1;
/// Units of durations, in milliseconds, and of sizes, in bytes.
const UNITS: [(&str, i64, Unit); 8] = [
    ("s", 1_000, Unit::Duration),
    ("m", 60 * 1_000, Unit::Duration),
    ("h", 60 * 60 * 1_000, Unit::Duration),
    ("d", 24 * 60 * 60 * 1_000, Unit::Duration),
    ("K", 1 << 10, Unit::Size),
    ("M", 1 << 20, Unit::Size),
    ("G", 1 << 30, Unit::Size),
    ("T", 1 << 40, Unit::Size),
];

#[derive(Clone, Copy)]
enum Unit {
    Duration,
    Size,
}

/// The number of this text.
pub(crate) fn number(text: &str, span: Span, findings: &mut Findings) -> ValueKind {
    read_number(text).unwrap_or_else(|problem| {
        let message = match problem {
            NumberProblem::NotOne => format!("{} is no number", quoted(text)),
            NumberProblem::TooLarge => format!("{} is over {INTEGER_MAX}, the largest number of a plan", quoted(text)),
            NumberProblem::NotWhole => format!("{} is no whole number of milliseconds or bytes", quoted(text)),
        };
        let help = "durations end with s, m, h or d, sizes with K, M, G or T; other text stands in quotes";
        findings.add(Finding::new(Code::Number, span, message).help(help));
        ValueKind::Wrong
    })
}

enum NumberProblem {
    NotOne,
    TooLarge,
    NotWhole,
}

fn read_number(text: &str) -> Result<ValueKind, NumberProblem> {
    let (negative, digits) = text.strip_prefix('-').map_or((false, text), |digits| (true, digits));
    let end = digits.find(|character: char| !character.is_ascii_digit() && character != '.').unwrap_or(digits.len());
    let (digits, unit) = digits.split_at(end);
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
    if fraction.contains('.') {
        return Err(NumberProblem::NotOne);
    }
    if unit.is_empty() && !fraction.is_empty() {
        return Ok(ValueKind::Decimal(text.to_owned()));
    }
    let known = UNITS.iter().find(|(name, ..)| *name == unit);
    let (factor, unit) = match known {
        Some((_, factor, unit)) if !negative => (*factor, Some(*unit)),
        None if unit.is_empty() => (1, None),
        _ => return Err(NumberProblem::NotOne),
    };
    let value = whole.parse::<i64>().ok().and_then(|whole| whole.checked_mul(factor)).ok_or(NumberProblem::TooLarge)?;
    let value = value.checked_add(part(fraction, factor)?).filter(|value| *value <= INTEGER_MAX).ok_or(NumberProblem::TooLarge)?;
    Ok(match unit {
        None => ValueKind::Integer(if negative { -value } else { value }),
        Some(Unit::Duration) => ValueKind::Duration(value),
        Some(Unit::Size) => ValueKind::Size(value),
    })
}

/// `0.fraction` times `factor`, which must be whole. Trailing zeros mean nothing here.
fn part(fraction: &str, factor: i64) -> Result<i64, NumberProblem> {
    let fraction = fraction.trim_end_matches('0');
    if fraction.is_empty() {
        return Ok(0);
    }
    // A factor of 2^40 has 40 halves, so what has more digits is not whole; 40 digits and 2^40 fit into 128 bits only up to 26 digits,
    // and nobody writes more.
    let digits = u32::try_from(fraction.len()).ok().filter(|digits| *digits <= 26).ok_or(NumberProblem::NotWhole)?;
    let scale = 10i128.pow(digits);
    let scaled =
        fraction.parse::<i128>().map_err(|_| NumberProblem::NotWhole)?.checked_mul(i128::from(factor)).ok_or(NumberProblem::NotWhole)?;
    if scaled % scale != 0 {
        return Err(NumberProblem::NotWhole);
    }
    i64::try_from(scaled / scale).map_err(|_| NumberProblem::TooLarge)
}

/// The text of a string as it is written at `start`, with its quotes.
pub(crate) fn text(written: &str, start: usize, findings: &mut Findings) -> String {
    if let Some(body) = written.strip_prefix("\"\"\"").and_then(|rest| rest.strip_suffix("\"\"\"")) {
        return without_indentation(&body.replace("\r\n", "\n"));
    }
    if let Some(body) = written.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')) {
        return Escapes { body, start: start + 1, at: 0, findings }.resolve();
    }
    let body = written.strip_prefix('\'').and_then(|rest| rest.strip_suffix('\'')).unwrap_or(written);
    body.replace("\r\n", "\n").replace("''", "'")
}

/// The lines of a `"""` block, without the white space that all of them begin with. An empty first and last line (those of the quotes) are
/// left out with their line breaks. Lines of white space alone become empty and say nothing about the indentation.
fn without_indentation(body: &str) -> String {
    let mut lines: Vec<&str> = body.split('\n').collect();
    let is_blank = |line: &str| line.trim_matches([' ', '\t']).is_empty();
    let begins_below = lines.len() > 1 && is_blank(lines[0]);
    if lines.len() > 1 && is_blank(lines[lines.len() - 1]) {
        lines.pop();
    }
    if begins_below && !lines.is_empty() {
        lines.remove(0);
    }
    // Text beside the opening quotes has no indentation of its own.
    let counted = usize::from(!begins_below);
    let indent_of = |line: &str| line.len() - line.trim_start_matches([' ', '\t']).len();
    let mut common: Option<&str> = None;
    for line in lines.iter().skip(counted).filter(|line| !is_blank(line)) {
        let indent = line.get(..indent_of(line)).unwrap_or_default();
        common = Some(common.map_or(indent, |common| shared(common, indent)));
    }
    let common = common.unwrap_or_default();
    let cut = |(place, line): (usize, &&str)| {
        if place < counted {
            (*line).to_owned()
        } else if is_blank(line) {
            String::new()
        } else {
            line.strip_prefix(common).unwrap_or(line).to_owned()
        }
    };
    lines.iter().enumerate().map(cut).collect::<Vec<_>>().join("\n")
}

/// The beginning that both have; both are ASCII white space.
fn shared<'a>(left: &'a str, right: &str) -> &'a str {
    let length = left.bytes().zip(right.bytes()).take_while(|(left, right)| left == right).count();
    left.get(..length).unwrap_or_default()
}

/// Reads the body of a `"…"`.
struct Escapes<'a> {
    body: &'a str,
    /// Where the body stands in the source.
    start: usize,
    at: usize,
    findings: &'a mut Findings,
}

impl Escapes<'_> {
    fn next(&mut self) -> Option<char> {
        let character = self.rest().chars().next()?;
        self.at += character.len_utf8();
        Some(character)
    }

    fn rest(&self) -> &str {
        self.body.get(self.at..).unwrap_or_default()
    }

    fn resolve(mut self) -> String {
        let mut text = String::with_capacity(self.body.len());
        loop {
            let start = self.at;
            match self.next() {
                None => return text,
                Some('\r') if self.rest().starts_with('\n') => {}
                Some('\\') => match self.escape() {
                    Ok(character) => text.extend(character),
                    Err(problem) => {
                        let span = Span { start: self.start + start, end: self.start + self.at };
                        let written = quoted(self.body.get(start..self.at).unwrap_or_default());
                        let help = r#"escapes are \n \t \r \" \\ \xHH \uHHHH \u{…}; a string in single quotes has none"#;
                        self.findings.add(Finding::new(Code::Escape, span, format!("{written} {problem}")).help(help));
                    }
                },
                Some(other) => text.push(other),
            }
        }
    }

    /// The character of the escape after a backslash; none if it joins lines.
    fn escape(&mut self) -> Result<Option<char>, &'static str> {
        let character = match self.next() {
            Some('n') => '\n',
            Some('t') => '\t',
            Some('r') => '\r',
            Some(character @ ('"' | '\\')) => character,
            Some('\n') => return Ok(None),
            Some('\r') if self.rest().starts_with('\n') => {
                self.at += 1;
                return Ok(None);
            }
            Some('x') => character_of(self.digits(2)?)?,
            Some('u') if self.rest().starts_with('{') => {
                let digits = self.rest().find('}').and_then(|end| self.rest().get(1..end)).unwrap_or_default().len();
                if !(1..=6).contains(&digits) {
                    return Err("is no escape: between the braces stand 1 to 6 hexadecimal digits");
                }
                self.at += 1;
                let number = self.digits(digits)?;
                self.at += 1;
                character_of(number)?
            }
            Some('u') => self.four_digits()?,
            _ => return Err("is no escape"),
        };
        Ok(Some(character))
    }

    /// `\uHHHH`; two of them may be the halves of one character, as in JSON.
    fn four_digits(&mut self) -> Result<char, &'static str> {
        let first = self.digits(4)?;
        if !(0xd800..0xdc00).contains(&first) || !self.rest().starts_with("\\u") {
            return character_of(first);
        }
        self.at += 2;
        let second = self.digits(4)?;
        if !(0xdc00..0xe000).contains(&second) {
            return Err("is half a character");
        }
        character_of(0x10000 + ((first - 0xd800) << 10) + (second - 0xdc00))
    }

    fn digits(&mut self, count: usize) -> Result<u32, &'static str> {
        let digits = self.rest().get(..count).filter(|digits| digits.bytes().all(|byte| byte.is_ascii_hexdigit()));
        let number = digits.and_then(|digits| u32::from_str_radix(digits, 16).ok()).ok_or("has too few hexadecimal digits")?;
        self.at += count;
        Ok(number)
    }
}

fn character_of(number: u32) -> Result<char, &'static str> {
    match char::from_u32(number) {
        Some('\0') => Err("is the character NUL, which no string can hold"),
        Some(character) => Ok(character),
        None => Err("is no character of Unicode"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of_text(written: &str) -> Option<String> {
        let mut findings = Findings::default();
        let text = text(written, 0, &mut findings);
        (!findings.has_errors()).then_some(text)
    }

    fn of_number(written: &str) -> Option<ValueKind> {
        let mut findings = Findings::default();
        let number = number(written, Span::default(), &mut findings);
        (!findings.has_errors()).then_some(number)
    }

    #[test]
    fn numbers_durations_and_sizes() {
        for (written, expected) in [
            ("0", ValueKind::Integer(0)),
            ("-7", ValueKind::Integer(-7)),
            ("9007199254740991", ValueKind::Integer(INTEGER_MAX)),
            ("3.10", ValueKind::Decimal("3.10".to_owned())),
            ("90s", ValueKind::Duration(90_000)),
            ("1.5h", ValueKind::Duration(5_400_000)),
            ("2d", ValueKind::Duration(172_800_000)),
            ("50M", ValueKind::Size(52_428_800)),
            ("1G", ValueKind::Size(1_073_741_824)),
            ("0.5K", ValueKind::Size(512)),
        ] {
            assert_eq!(of_number(written), Some(expected), "{written}");
        }
        for written in
            ["9007199254740992", "99999999999999999999", "1x", "10ms", "1.2.3", "-5m", "0.0001s", "3-a", "9007199254740991T", "1_000"]
        {
            assert_eq!(of_number(written), None, "{written}");
        }
        assert_eq!(of_number(&format!("0.{}s", "1".repeat(1000))), None);
    }

    #[test]
    fn verbatim_strings() {
        assert_eq!(of_text("'a''b\r\n\\n'").unwrap(), "a'b\n\\n");
        assert_eq!(of_text("''").unwrap(), "");
        assert_eq!(of_text("''''").unwrap(), "'");
    }

    #[test]
    fn escapes() {
        let written = r#""\n\t\r\"\\\x41\u00e4\u{1F600}\ud83d\ude00""#;
        assert_eq!(of_text(written).unwrap(), "\n\t\r\"\\Aä😀😀");
        assert_eq!(of_text("\"a\\\nb\\\r\nc\r\nd\"").unwrap(), "abc\nd");
        for written in [
            r#""\q""#,
            r#""\x4""#,
            r#""\xg0""#,
            r#""\x00""#,
            r#""\u12""#,
            r#""\ud800""#,
            r#""\ud800\u0041""#,
            r#""\u{}""#,
            r#""\u{1234567}""#,
            r#""\u{110000}""#,
            r#""\u{12""#,
            r#""\'""#,
            r#""\xä""#,
        ] {
            assert_eq!(of_text(written), None, "{written}");
        }
    }

    #[test]
    fn blocks_lose_the_indentation_that_all_lines_have() {
        for (written, expected) in [
            ("\"\"\"\"\"\"", ""),
            ("\"\"\"a\"\"\"", "a"),
            ("\"\"\"\n    a\n      b\n\n    c\n    \"\"\"", "a\n  b\n\nc"),
            ("\"\"\"\r\n\ta\r\n\t\"\"\"", "a"),
            ("\"\"\"a\n    b\n      c\"\"\"", "a\nb\n  c"),
            ("\"\"\"\n\ta\n    b\n\"\"\"", "\ta\n    b"),
            ("\"\"\"\n\\n \"q\"\n\"\"\"", "\\n \"q\""),
            ("\"\"\"\n\"\"\"", ""),
            ("\"\"\"\n   \n\"\"\"", ""),
        ] {
            assert_eq!(of_text(written).unwrap(), expected, "{written:?}");
        }
    }
}
