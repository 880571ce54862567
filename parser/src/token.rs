//! The tokens of a file: for each the one character by which `otto.pest` knows it, and where it stands.

use std::ops::Range;

use model::diagnostic::Span;

/// A name, in the grammar's characters; the others are in `otto.pest`.
const NAME: u8 = b'n';
/// A token that is left out, because something inside the brackets around it is wrong.
const LEFT_OUT: u8 = b'_';

/// The tokens of a file, in order. Indices are those of tokens, not of bytes.
#[derive(Debug, Default)]
pub(crate) struct Tokens {
    /// One character of ASCII for each.
    classes: Vec<u8>,
    /// Where each begins and ends: a file is far smaller than 4 GiB.
    places: Vec<(u32, u32)>,
    /// The pairs of braces, each after those inside it.
    braces: Vec<(u32, u32)>,
}

impl Tokens {
    /// Adds a token. What the one before it means is known only now.
    pub(crate) fn add(&mut self, class: u8, start: usize, end: usize) {
        self.settle(class);
        self.classes.push(class);
        self.places.push((short(start), short(end)));
    }

    /// Adds a name, whose class may depend on the token behind it.
    pub(crate) fn add_name(&mut self, name: &[u8], start: usize) {
        let class = match name {
            b"it" => b'i',
            b"use" | b"type" => b'u',
            b"in" => b'I',
            b"matches" => b'M',
            b"true" | b"false" => b'b',
            b"concat" | b"format" | b"join" | b"files" | b"json" => b'f',
            name if name.contains(&b'.') => b'd',
            _ => NAME,
        };
        self.add(class, start, start + name.len());
    }

    /// Decides what the last token is, now that the next is known.
    fn settle(&mut self, next: u8) {
        let Some((last, before)) = self.classes.split_last_mut() else { return };
        match (*last, next) {
            (NAME | b'i' | b'u' | b'I' | b'M' | b'b' | b'f', b':') => {
                *last = b'k';
                if let Some(word @ b'u') = before.last_mut() {
                    *word = NAME;
                }
            }
            (b'u', NAME | b'd' | b'i' | b'f' | b'I' | b'M' | b'u') | (b'f', b'(') | (b'I', b'[') | (b'M', b's') => {}
            (b'u' | b'f' | b'I' | b'M', _) => *last = NAME,
            _ => {}
        }
    }

    /// The last token is the brace that closes the one at `open`.
    pub(crate) fn close_brace(&mut self, open: usize) {
        self.braces.push((short(open), short(self.classes.len().saturating_sub(1))));
    }

    /// Says that no token follows.
    pub(crate) fn end(&mut self) {
        self.settle(b'}');
    }

    /// How many there are.
    pub(crate) fn len(&self) -> usize {
        self.classes.len()
    }

    /// The characters of all tokens, for the grammar.
    pub(crate) fn text(&self) -> &str {
        str::from_utf8(&self.classes).expect("each class is a character of ASCII")
    }

    /// The class of a token; 0 behind the last.
    pub(crate) fn class(&self, token: usize) -> u8 {
        self.classes.get(token).copied().unwrap_or_default()
    }

    /// Where these tokens stand, from the beginning of the first to the end of the last. Of no tokens: where they would stand.
    pub(crate) fn span(&self, tokens: Range<usize>) -> Span {
        let before = tokens.start.checked_sub(1).and_then(|token| self.places.get(token)).map_or(0, |place| place.1);
        let start = self.places.get(tokens.start).map_or(before, |place| place.0);
        let last = tokens.end.checked_sub(1).filter(|last| *last >= tokens.start);
        let end = last.and_then(|last| self.places.get(last)).map_or(start, |place| place.1);
        Span { start: start as usize, end: end as usize }
    }

    /// Leaves out all inside the innermost braces around a token, and gives where these stand. The closing brace is inside, the opening
    /// one is not.
    pub(crate) fn leave_out_around(&mut self, token: usize) -> Option<Span> {
        let token = short(token);
        let around = self.braces.iter().filter(|(open, close)| *open < token && token <= *close);
        let (open, close) = around.min_by_key(|(open, close)| close - open).copied()?;
        let (open, close) = (open as usize, close as usize);
        self.classes.get_mut(open + 1..close)?.fill(LEFT_OUT);
        Some(self.span(open..close + 1))
    }
}

/// An offset or an index. Files are limited to far less.
fn short(offset: usize) -> u32 {
    u32::try_from(offset).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn classes(words: &[(&str, u8)]) -> String {
        let mut tokens = Tokens::default();
        for (place, (word, class)) in words.iter().enumerate() {
            if *class == 0 { tokens.add_name(word.as_bytes(), place) } else { tokens.add(*class, place, place + 1) }
        }
        tokens.end();
        tokens.text().to_owned()
    }

    #[test]
    fn a_word_means_something_only_before_what_it_belongs_to() {
        assert_eq!(classes(&[("use", 0), ("x", 0), ("use", 0), ("{", b'{')]), "unn{");
        assert_eq!(classes(&[("type", 0), ("use", 0), ("it", 0), ("type", 0)]), "uuin");
        assert_eq!(classes(&[("a", 0), ("in", 0), ("[", b'['), ("in", 0), ("b", 0), ("in", 0)]), "nI[nnn");
        assert_eq!(classes(&[("a", 0), ("matches", 0), ("'x'", b's'), ("matches", 0)]), "nMsn");
        assert_eq!(classes(&[("join", 0), ("(", b'('), ("join", 0), ("'x'", b's')]), "f(ns");
        assert_eq!(classes(&[("use", 0), ("a", 0), (":", b':'), ("true", 0), (":", b':'), ("true", 0)]), "nk:k:b");
        assert_eq!(classes(&[("it.x", 0), ("it", 0), ("its", 0)]), "din");
    }

    #[test]
    fn the_innermost_braces_are_left_out() {
        // a { b { c } }
        let mut tokens = Tokens::default();
        for (place, class) in b"n{n{n}".iter().enumerate() {
            tokens.add(*class, place * 2, place * 2 + 1);
        }
        tokens.close_brace(3);
        tokens.add(b'}', 12, 13);
        tokens.close_brace(1);
        assert_eq!(tokens.leave_out_around(1), None);
        assert_eq!(tokens.leave_out_around(4), Some(Span { start: 6, end: 11 }));
        assert_eq!(tokens.text(), "n{n{_}}");
        assert_eq!(tokens.leave_out_around(5), Some(Span { start: 6, end: 11 }));
        assert_eq!(tokens.leave_out_around(6), Some(Span { start: 2, end: 13 }));
        assert_eq!(tokens.text(), "n{____}");
        assert_eq!(tokens.span(7..7), Span { start: 13, end: 13 });
    }
}
