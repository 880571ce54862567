//! `json('matrix.json')`: a list that is read from the commit while planning.

use model::{diagnostic::Span, plan};
use serde_json::value::RawValue;

use super::{
    Lowering,
    value::{Known, plain_number},
};
use crate::{
    diagnostic::{Code, Finding, Lines, quoted},
    limits::JSON_BYTES_MAX,
    syntax::Name,
};

/// What is wrong in a JSON file, and where.
struct Problem {
    span: Span,
    message: String,
}

impl Lowering<'_, '_> {
    /// The list of a JSON file of the commit.
    pub(super) fn json(&mut self, path: &Name) -> Option<Known> {
        let resolved = self.path_of(&path.kind, path.span)?;
        if let Some(known) = self.memo.json.get(&resolved) {
            return known.clone();
        }
        let (file, bytes) = self.bytes(&resolved, path.span)?;
        let read = if bytes.len() > JSON_BYTES_MAX {
            let message = format!("the file has {} bytes, over the limit of {JSON_BYTES_MAX}", bytes.len());
            Err(Problem { span: Span::default(), message })
        } else {
            list(bytes)
        };
        let known = match read {
            Ok(items) => self.bounded(Known::inside(plan::Value::List(items)), path.span),
            Err(Problem { span, message }) => {
                let id = self.files.add(file, bytes);
                let outer = self.findings.enter(id);
                let finding = Finding::new(Code::JsonFile, span, message);
                self.error(finding.help(format!("{} is a list of texts, numbers and booleans: `[\"a\", \"b\"]`", quoted(&resolved))));
                self.findings.enter(outer);
                None
            }
        };
        self.memo.json.insert(resolved, known.clone());
        known
    }
}

/// The list that a text from outside is, or what is wrong with it.
pub(super) fn list_of(text: &str) -> Result<Vec<plan::Value>, String> {
    list(text.as_bytes()).map_err(|problem| format!("{}, at its byte {}", problem.message.replace("the file", "it"), problem.span.start))
}

fn list(bytes: &[u8]) -> Result<Vec<plan::Value>, Problem> {
    let text = str::from_utf8(bytes).map_err(|error| {
        let start = error.valid_up_to();
        Problem { span: Span { start, end: start + 1 }, message: format!("the file is not UTF-8: byte {start} (from 0)") }
    })?;
    let body = text.strip_prefix('\u{feff}').unwrap_or(text);
    let start = text.len() - body.len();
    let begin = start + (body.len() - body.trim_start().len());
    if !body.trim_start().starts_with('[') {
        return Err(Problem { span: Span { start: begin, end: begin + 1 }, message: "the file is no list".to_owned() });
    }
    let items: Vec<&RawValue> = serde_json::from_str(body).map_err(|error| {
        let offset = start + Lines::of(body.as_bytes()).offset(error.line(), error.column());
        let full = error.to_string();
        let message = full.rsplit_once(" at line ").map_or(full.as_str(), |(message, _)| message);
        Problem { span: Span { start: offset, end: offset + 1 }, message: format!("the file is no JSON: {message}") }
    })?;
    items.into_iter().map(|item| self::item(item.get(), item.get().as_ptr().addr() - text.as_ptr().addr())).collect()
}

/// An item as it is written at `start`.
fn item(written: &str, start: usize) -> Result<plan::Value, Problem> {
    let problem = |message: &str| Problem { span: Span { start, end: start + written.len() }, message: message.to_owned() };
    match written.chars().next() {
        Some('"') => {
            let text: String = serde_json::from_str(written).map_err(|error| problem(&error.to_string()))?;
            if text.contains('\0') {
                return Err(problem("no text holds the character NUL"));
            }
            Ok(plan::Value::Text(text))
        }
        Some('t') => Ok(plan::Value::Boolean(true)),
        Some('f') => Ok(plan::Value::Boolean(false)),
        Some('[') => Err(problem("a list in a list")),
        Some('{') => Err(problem("an object in a list")),
        Some('n') => Err(problem("`null` is no value")),
        _ => plain_number(written).ok_or_else(|| problem("a number with an exponent, or one that is too large")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_keep_their_digits() {
        let values = list(br#" ["a", 3, 3.10, -1, true] "#).ok().unwrap();
        let decimal = plan::Value::Decimal { decimal: "3.10".to_owned() };
        let (three, minus) = (plan::Value::Integer(3), plan::Value::Integer(-1));
        assert_eq!(values, ["a".into(), three, decimal, minus, plan::Value::Boolean(true)]);
    }

    #[test]
    fn what_is_wrong_is_found_where_it_stands() {
        for (json, start) in [
            ("", 0),
            ("{}", 0),
            ("[\n1,\n]", 5),
            ("[1, null]", 4),
            ("[1, [2]]", 4),
            ("[1, {}]", 4),
            ("[1e3]", 1),
            ("[99999999999999999999]", 1),
            ("[\"\\u0000\"]", 1),
            ("[1] x", 4),
        ] {
            let problem = list(json.as_bytes()).err().unwrap();
            assert_eq!(problem.span.start, start, "{json}: {}", problem.message);
        }
        assert_eq!(list(b"[\"\xff\"]").err().unwrap().span.start, 2);
    }
}
