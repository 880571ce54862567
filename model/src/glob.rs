//! Patterns for branches, tags and paths: `release/*`, `src/**`, `*.{yml,yaml}`.
//!
//! | | matches |
//! |---|---|
//! | `*` | any characters but `/` |
//! | `?` | one character but `/` |
//! | `**` | any characters; `**/` at the beginning of a part of a path also none, so `**/x` matches `x` and `a/**/b` matches `a/b` |
//! | `[abc]`, `[a-z]`, `[!a]` | one of these characters, or another one; never `/` |
//! | `{a,b}` | one of these patterns; they may be nested |
//! | `\*` | the character itself |
//!
//! The whole text must match. Upper and lower case differ, and a leading dot is a character like others.
//!
//! **Invariant:** matching takes time linear in the text for one pattern: the pattern's places are followed all at once, nothing is tried
//! again.

use std::fmt;

/// Bytes of a pattern. Time and memory of a match grow with pattern times text.
pub const GLOB_BYTES_MAX: usize = 1024;
/// What it costs to look at a text, in steps: it must be fetched.
const LOOK_STEPS: usize = 4;
/// Braces within braces.
const NESTING_MAX: usize = 8;

/// A pattern that was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Glob {
    /// What stands before the first special character: most texts fail here.
    prefix: String,
    /// What stands after the last one: most other texts fail here.
    suffix: String,
    /// The places of the pattern; the last one is its end.
    places: Vec<Place>,
}

/// What is wrong with a pattern.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GlobError {
    /// It is longer than [`GLOB_BYTES_MAX`].
    TooLong,
    /// It is empty.
    Empty,
    /// A `[` without its `]`, or `[]`.
    Class,
    /// A range such as `[z-a]`.
    Range,
    /// A `{` or `}` without its partner.
    Brace,
    /// Braces are nested too deep.
    Nesting,
    /// A `\` at the end.
    Escape,
}

impl fmt::Display for GlobError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooLong => write!(formatter, "the pattern is longer than {GLOB_BYTES_MAX} bytes"),
            Self::Empty => formatter.write_str("the pattern is empty"),
            Self::Class => formatter.write_str("`[` has no `]`, or nothing stands between them"),
            Self::Range => formatter.write_str("a range in `[…]` runs backwards"),
            Self::Brace => formatter.write_str("`{` and `}` do not fit together"),
            Self::Nesting => write!(formatter, "more than {NESTING_MAX} braces within braces"),
            Self::Escape => formatter.write_str("nothing stands after the last `\\`"),
        }
    }
}

impl std::error::Error for GlobError {}

/// One place of a pattern: what the next character may be, and where it goes on.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Place {
    /// This character.
    One(char),
    /// Any character but `/`.
    Any,
    /// One of these ranges, or none of them; never `/`.
    Class { negated: bool, ranges: Vec<(char, char)> },
    /// Stays as long as characters come; goes on with the next place without one. `/` stays only if `across`.
    Many { across: bool },
    /// Goes on at both places, without a character.
    Split(usize, usize),
    /// Goes on there, without a character.
    Jump(usize),
    /// The end of the pattern.
    End,
}

impl Glob {
    /// Reads a pattern.
    pub fn new(pattern: &str) -> Result<Self, GlobError> {
        if pattern.len() > GLOB_BYTES_MAX {
            return Err(GlobError::TooLong);
        }
        if pattern.is_empty() {
            return Err(GlobError::Empty);
        }
        let mut reader = Reader { rest: pattern.chars().peekable(), places: Vec::new(), at_part: true };
        reader.sequence(0)?;
        reader.places.push(Place::End);
        let prefix =
            reader.places.iter().map_while(|place| if let Place::One(character) = place { Some(*character) } else { None }).collect();
        let suffix = suffix(&reader.places);
        Ok(Self { prefix, suffix, places: reader.places })
    }

    /// What every text that matches begins with.
    pub fn prefix(&self) -> &str {
        &self.prefix
    }

    /// The text, if the pattern matches nothing else.
    pub fn literal(&self) -> Option<&str> {
        (self.prefix.chars().count() + 1 == self.places.len()).then_some(self.prefix.as_str())
    }

    /// Whether the whole text matches.
    pub fn matches(&self, text: &str) -> bool {
        self.matches_counting(text, &mut 0)
    }

    /// [`Glob::matches`], and adds to `steps` what it cost: a few steps at least, and at most the pattern's length times the text's.
    pub fn matches_counting(&self, text: &str, steps: &mut usize) -> bool {
        *steps += LOOK_STEPS;
        if !text.starts_with(&self.prefix) || !text.ends_with(&self.suffix) {
            return false;
        }
        *steps += self.places.len();
        let mut active = Active::new(self.places.len());
        let mut next = Active::new(self.places.len());
        active.add(&self.places, 0);
        for character in text.chars() {
            next.clear();
            *steps += 1 + active.list.len();
            for place in active.list.drain(..) {
                let goes_on = match &self.places[place] {
                    Place::One(expected) => *expected == character,
                    Place::Any => character != '/',
                    Place::Class { negated, ranges } => {
                        let within = ranges.iter().any(|(first, last)| (*first..=*last).contains(&character));
                        character != '/' && within != *negated
                    }
                    Place::Many { across } => {
                        if *across || character != '/' {
                            next.add(&self.places, place);
                        }
                        false
                    }
                    Place::Split(..) | Place::Jump(_) | Place::End => false,
                };
                if goes_on {
                    next.add(&self.places, place + 1);
                }
            }
            std::mem::swap(&mut active, &mut next);
            if active.list.is_empty() {
                return false;
            }
        }
        active.list.contains(&(self.places.len() - 1))
    }
}

/// What every text ends with that matches: the characters before the end to which nothing jumps past another one.
fn suffix(places: &[Place]) -> String {
    let targets = places.iter().map(|place| match place {
        Place::Split(left, right) => *left.max(right),
        Place::Jump(target) => *target,
        Place::One(_) | Place::Any | Place::Class { .. } | Place::Many { .. } | Place::End => 0,
    });
    let last = targets.max().unwrap_or(0);
    let ends = places.iter().enumerate().rev().skip(1);
    let characters: Vec<char> = ends
        .map_while(|(place, kind)| if let (Place::One(character), true) = (kind, place >= last) { Some(*character) } else { None })
        .collect();
    characters.into_iter().rev().collect()
}

/// The places where a match stands at once.
struct Active {
    list: Vec<usize>,
    seen: Vec<bool>,
    open: Vec<usize>,
}

impl Active {
    fn new(places: usize) -> Self {
        Self { list: Vec::new(), seen: vec![false; places], open: Vec::new() }
    }

    fn clear(&mut self) {
        self.list.clear();
        self.seen.fill(false);
    }

    /// Adds a place, and those that are reached from it without a character.
    fn add(&mut self, places: &[Place], place: usize) {
        self.open.push(place);
        while let Some(place) = self.open.pop() {
            if std::mem::replace(&mut self.seen[place], true) {
                continue;
            }
            match &places[place] {
                Place::Split(left, right) => self.open.extend([*right, *left]),
                Place::Jump(target) => self.open.push(*target),
                Place::Many { .. } => {
                    self.list.push(place);
                    self.open.push(place + 1);
                }
                Place::One(_) | Place::Any | Place::Class { .. } | Place::End => self.list.push(place),
            }
        }
    }
}

struct Reader<'a> {
    rest: std::iter::Peekable<std::str::Chars<'a>>,
    places: Vec<Place>,
    /// Whether a part of a path begins here: at the beginning, or after `/`.
    at_part: bool,
}

impl Reader<'_> {
    /// Reads to the end, or to the `,` or `}` of the braces around it.
    fn sequence(&mut self, depth: usize) -> Result<(), GlobError> {
        while let Some(character) = self.rest.peek().copied() {
            if depth > 0 && matches!(character, ',' | '}') {
                return Ok(());
            }
            self.rest.next();
            let at_part = std::mem::replace(&mut self.at_part, character == '/');
            match character {
                '*' if self.rest.next_if_eq(&'*').is_some() => self.across(at_part),
                '*' => self.places.push(Place::Many { across: false }),
                '?' => self.places.push(Place::Any),
                '[' => self.class()?,
                '{' => self.braces(depth, at_part)?,
                '}' => return Err(GlobError::Brace),
                '\\' => {
                    let escaped = self.rest.next().ok_or(GlobError::Escape)?;
                    self.places.push(Place::One(escaped));
                }
                other => self.places.push(Place::One(other)),
            }
        }
        Ok(())
    }

    /// After `**`: more stars say nothing more, and `**/` is any number of folders, also none.
    fn across(&mut self, at_part: bool) {
        while self.rest.next_if_eq(&'*').is_some() {}
        if at_part && self.rest.next_if_eq(&'/').is_some() {
            let split = self.places.len();
            self.places.push(Place::Split(split + 1, split + 3));
            self.places.push(Place::Many { across: true });
            self.places.push(Place::One('/'));
            self.at_part = true;
        } else {
            self.places.push(Place::Many { across: true });
        }
    }

    fn class(&mut self) -> Result<(), GlobError> {
        let negated = self.rest.next_if(|next| matches!(next, '!' | '^')).is_some();
        let mut ranges = Vec::new();
        loop {
            let first = match self.rest.next().ok_or(GlobError::Class)? {
                ']' if ranges.is_empty() => return Err(GlobError::Class),
                ']' => break,
                '\\' => self.rest.next().ok_or(GlobError::Escape)?,
                first => first,
            };
            let mut last = first;
            if self.rest.next_if_eq(&'-').is_some() {
                match self.rest.peek().copied().ok_or(GlobError::Class)? {
                    // A `-` at the end is one of the characters.
                    ']' => ranges.push(('-', '-')),
                    end => {
                        self.rest.next();
                        last = end;
                    }
                }
            }
            if first > last {
                return Err(GlobError::Range);
            }
            ranges.push((first, last));
        }
        self.places.push(Place::Class { negated, ranges });
        Ok(())
    }

    fn braces(&mut self, depth: usize, at_part: bool) -> Result<(), GlobError> {
        if depth == NESTING_MAX {
            return Err(GlobError::Nesting);
        }
        let mut jumps = Vec::new();
        loop {
            let split = self.places.len();
            self.places.push(Place::Split(split + 1, split + 1));
            self.at_part = at_part;
            self.sequence(depth + 1)?;
            match self.rest.next() {
                Some(',') => {
                    jumps.push(self.places.len());
                    self.places.push(Place::Jump(0));
                    self.places[split] = Place::Split(split + 1, self.places.len());
                }
                Some('}') => break,
                _ => return Err(GlobError::Brace),
            }
        }
        let end = self.places.len();
        for jump in jumps {
            self.places[jump] = Place::Jump(end);
        }
        self.at_part = false;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn matches(pattern: &str, text: &str) -> bool {
        Glob::new(pattern).unwrap().matches(text)
    }

    #[test]
    fn a_star_stays_within_a_part_and_two_go_across() {
        for (pattern, yes, no) in [
            ("main", &["main"][..], &["main2", "mai", "Main", ""][..]),
            ("release/*", &["release/1", "release/"], &["release/1/a", "release"]),
            ("*", &["a", ".a", ""], &["a/b"]),
            ("v*", &["v1.2", "v"], &["av1", "v1/2"]),
            ("src/**", &["src/a", "src/a/b"], &["src", "srca"]),
            ("**", &["", "a", "a/b"], &[]),
            ("**/x", &["x", "a/x", "a/b/x"], &["ax", "a/bx"]),
            ("a/**/b", &["a/b", "a/c/b", "a/c/d/b"], &["ab", "a/cb"]),
            ("a**b", &["ab", "axb", "a/b"], &["a/bc"]),
            ("*.rs", &["a.rs", ".rs"], &["a/b.rs", "a.rsx"]),
            ("**/*.rs", &["a.rs", "a/b.rs"], &["a.r"]),
            ("a?c", &["abc", "aäc"], &["a/c", "ac"]),
        ] {
            for text in yes {
                assert!(matches(pattern, text), "{pattern} {text}");
            }
            for text in no {
                assert!(!matches(pattern, text), "{pattern} {text}");
            }
        }
    }

    #[test]
    fn classes_braces_and_escapes_are_read() {
        for (pattern, yes, no) in [
            ("[abc]", &["a", "c"][..], &["d", "", "ab"][..]),
            ("[a-c]x", &["bx"], &["dx"]),
            ("[!a-c]", &["d"], &["a", "/"]),
            ("[a-]", &["a", "-"], &["b"]),
            ("*.{yml,yaml}", &["a.yml", "a.yaml"], &["a.yamll", "a."]),
            ("{a,b{c,d}}e", &["ae", "bce", "bde"], &["be", "e"]),
            ("a{,b}", &["a", "ab"], &["b"]),
            ("{**/x,y}", &["x", "a/x", "y"], &["a/y"]),
            ("{a}", &["a"], &["{a}"]),
            ("a,b", &["a,b"], &["a"]),
            (r"\*\{", &["*{"], &["a{"]),
            (r"[\]]", &["]"], &["\\"]),
        ] {
            for text in yes {
                assert!(matches(pattern, text), "{pattern} {text}");
            }
            for text in no {
                assert!(!matches(pattern, text), "{pattern} {text}");
            }
        }
    }

    #[test]
    fn what_is_no_pattern_is_refused() {
        for (pattern, error) in [
            ("", GlobError::Empty),
            ("[", GlobError::Class),
            ("[]", GlobError::Class),
            ("[a", GlobError::Class),
            ("[z-a]", GlobError::Range),
            ("{a", GlobError::Brace),
            ("a}", GlobError::Brace),
            ("\\", GlobError::Escape),
            (&"{".repeat(20), GlobError::Nesting),
            (&"a".repeat(GLOB_BYTES_MAX + 1), GlobError::TooLong),
        ] {
            assert_eq!(Glob::new(pattern), Err(error), "{pattern}");
        }
    }

    #[test]
    fn a_pattern_without_special_characters_is_its_text() {
        assert_eq!(Glob::new("a/b").unwrap().literal(), Some("a/b"));
        assert_eq!(Glob::new("a/*").unwrap().literal(), None);
        assert_eq!(Glob::new(r"a\*").unwrap().literal(), Some("a*"));
    }

    #[test]
    fn a_text_that_ends_otherwise_is_soon_put_aside() {
        for (pattern, suffix) in
            [("**/*.rs", ".rs"), ("{a,bc}", ""), ("{a,b}c", "c"), ("x{,bc}", ""), ("a/b", "a/b"), ("**/x", "x"), ("*?", "")]
        {
            assert_eq!(Glob::new(pattern).unwrap().suffix, suffix, "{pattern}");
        }
        let mut steps = 0;
        assert!(!Glob::new("**/*.rs").unwrap().matches_counting("a/b/c.md", &mut steps));
        assert_eq!(steps, LOOK_STEPS);
    }

    #[test]
    fn many_stars_do_not_try_everything() {
        let pattern = "*a".repeat(500);
        assert!(!matches(&pattern, &("a".repeat(400) + "b")));
        assert!(matches(&pattern, &"a".repeat(1000)));
    }
}
