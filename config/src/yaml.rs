//! A YAML document as a tree in which everything knows where it stands.

use std::fmt;

use serde::{
    Deserialize, Deserializer,
    de::{MapAccess, SeqAccess, Visitor},
};
use serde_saphyr::{DefaultMessageFormatter, MessageFormatter as _, Spanned};

/// How alike a key must be to be what was meant, where more than one letter is wrong; 1 is the same.
const ALIKE: f64 = 0.75;

/// The line and the column of something, from 1.
pub(crate) type At = (u64, u64);

/// A part of a document.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Node {
    /// Nothing stands there.
    Null,
    /// A text, a number, a boolean.
    Scalar(String),
    List(Vec<(At, Node)>),
    /// The keys in the order in which they stand, each with the place of its key and of its value.
    Map(Vec<Entry>),
}

/// A key with its value.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Entry {
    pub(crate) key: String,
    pub(crate) key_at: At,
    pub(crate) at: At,
    pub(crate) value: Node,
}

/// Why a text is no document.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Malformed {
    pub(crate) at: Option<At>,
    pub(crate) what: String,
}

impl From<&serde_saphyr::Error> for Malformed {
    fn from(error: &serde_saphyr::Error) -> Self {
        let error = error.without_snippet();
        let at = error.location().filter(|at| at.line() > 0).map(|at| (at.line(), at.column()));
        Self { at, what: DefaultMessageFormatter.format_message(error).replace('\n', " ") }
    }
}

/// Reads a document; one of nothing is an empty map.
pub(crate) fn parse(text: &str) -> Result<Vec<Entry>, Malformed> {
    match serde_saphyr::from_str::<Node>(text).map_err(|error| Malformed::from(&error))? {
        Node::Map(entries) => Ok(entries),
        Node::Null => Ok(Vec::new()),
        Node::Scalar(_) | Node::List(_) => Err(Malformed { at: Some((1, 1)), what: "expected keys with values".to_owned() }),
    }
}

/// Where the value at a path of keys stands; of what is not there, where the next thing around it does.
pub(crate) fn place(entries: &[Entry], path: &[&str]) -> Option<At> {
    let (first, rest) = path.split_first()?;
    let entry = entries.iter().find(|entry| entry.key == *first)?;
    match &entry.value {
        Node::Map(inside) if !rest.is_empty() => place(inside, rest).or(Some(entry.key_at)),
        Node::Map(_) => Some(entry.key_at),
        Node::Null | Node::Scalar(_) | Node::List(_) => Some(entry.at),
    }
}

/// What was probably meant by a key that is none of these.
pub(crate) fn suggestion<'a>(key: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let alike = known.into_iter().map(|known| (strsim::jaro_winkler(key, known), known));
    let meant = alike.filter(|(score, known)| *score >= ALIKE || strsim::damerau_levenshtein(key, known) <= 1);
    meant.max_by(|one, other| one.0.total_cmp(&other.0)).map(|(_, known)| known)
}

impl<'de> Deserialize<'de> for Node {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Reader)
    }
}

struct Reader;

impl<'de> Visitor<'de> for Reader {
    type Value = Node;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value, a list or keys with values")
    }

    fn visit_bool<E>(self, value: bool) -> Result<Node, E> {
        Ok(Node::Scalar(value.to_string()))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Node, E> {
        Ok(Node::Scalar(value.to_string()))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Node, E> {
        Ok(Node::Scalar(value.to_string()))
    }

    fn visit_i128<E>(self, value: i128) -> Result<Node, E> {
        Ok(Node::Scalar(value.to_string()))
    }

    fn visit_u128<E>(self, value: u128) -> Result<Node, E> {
        Ok(Node::Scalar(value.to_string()))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Node, E> {
        Ok(Node::Scalar(value.to_string()))
    }

    fn visit_str<E>(self, value: &str) -> Result<Node, E> {
        Ok(Node::Scalar(value.to_owned()))
    }

    fn visit_string<E>(self, value: String) -> Result<Node, E> {
        Ok(Node::Scalar(value))
    }

    fn visit_unit<E>(self) -> Result<Node, E> {
        Ok(Node::Null)
    }

    fn visit_none<E>(self) -> Result<Node, E> {
        Ok(Node::Null)
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Node, D::Error> {
        Node::deserialize(deserializer)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut sequence: A) -> Result<Node, A::Error> {
        let mut list = Vec::new();
        while let Some(Spanned { value, referenced, .. }) = sequence.next_element::<Spanned<Node>>()? {
            list.push(((referenced.line(), referenced.column()), value));
        }
        Ok(Node::List(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Node, A::Error> {
        let mut entries = Vec::new();
        while let Some(key) = map.next_key::<Spanned<String>>()? {
            let value = map.next_value::<Spanned<Node>>()?;
            entries.push(Entry {
                key: key.value,
                key_at: (key.referenced.line(), key.referenced.column()),
                at: (value.referenced.line(), value.referenced.column()),
                value: value.value,
            });
        }
        Ok(Node::Map(entries))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everything_knows_where_it_stands() {
        let text = "# a comment\na: 1\nb:\n  c: [x, 2]\n  'd': ~\ne: 0x10\n";
        let entries = parse(text).unwrap();
        assert_eq!(entries[0], Entry { key: "a".into(), key_at: (2, 1), at: (2, 4), value: Node::Scalar("1".into()) });
        let Node::Map(inside) = &entries[1].value else { panic!("{entries:?}") };
        let list = Node::List(vec![((4, 7), Node::Scalar("x".into())), ((4, 10), Node::Scalar("2".into()))]);
        assert_eq!(inside[0], Entry { key: "c".into(), key_at: (4, 3), at: (4, 6), value: list });
        assert_eq!((inside[1].key.as_str(), &inside[1].value), ("d", &Node::Null));
        assert_eq!(
            (place(&entries, &["b", "c"]), place(&entries, &["b", "x"]), place(&entries, &["x"])),
            (Some((4, 6)), Some((3, 1)), None)
        );
        assert_eq!(parse("# nothing\n"), Ok(Vec::new()));
    }

    #[test]
    fn what_is_no_document_is_named_with_its_place() {
        for (text, at, what) in [("a: 1\na: 2\n", (2, 1), "uplicate"), ("- 1\n", (1, 1), "expected keys"), ("a: [1\n", (1, 4), "unclosed")]
        {
            let malformed = parse(text).unwrap_err();
            assert!(malformed.at == Some(at) && malformed.what.contains(what), "{text:?}: {malformed:?}");
        }
    }

    #[test]
    fn a_key_that_is_nearly_right_is_recognized() {
        let known = ["listen", "data", "public_url"];
        assert_eq!(
            (suggestion("lisen", known), suggestion("publicUrl", known), suggestion("zebra", known)),
            (Some("listen"), Some("public_url"), None)
        );
    }
}
