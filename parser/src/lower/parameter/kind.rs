//! The types of parameters, and how values become of them.

use model::plan;

use crate::{
    lower::{
        json,
        value::{Known, plain_number},
    },
    suggest::did_you_mean,
};

/// The type of a parameter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    String,
    Boolean,
    Number,
    Choice,
    List,
}

impl Kind {
    pub(super) const ALL: [Self; 5] = [Self::String, Self::Boolean, Self::Number, Self::Choice, Self::List];

    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::String => "string",
            Self::Boolean => "boolean",
            Self::Number => "number",
            Self::Choice => "choice",
            Self::List => "list",
        }
    }

    pub(super) fn described(self) -> &'static str {
        match self {
            Self::String => "a text",
            Self::Boolean => "`true` or `false`",
            Self::Number => "a number",
            Self::Choice => "a choice",
            Self::List => "a list",
        }
    }

    /// The type that a default says where nothing else does.
    pub(super) fn of_default(known: &Known) -> Self {
        if known.unit().is_some() {
            return Self::String;
        }
        match &known.value {
            plan::Value::Boolean(_) => Self::Boolean,
            plan::Value::Integer(_) | plan::Value::Decimal { .. } => Self::Number,
            plan::Value::List(_) => Self::List,
            plan::Value::Text(_) | plan::Value::Variable { .. } | plan::Value::Call { .. } | plan::Value::Steps { .. } => Self::String,
        }
    }

    /// The value that a text from outside means.
    pub(super) fn read(self, text: &str, options: &[String]) -> Result<plan::Value, String> {
        if text.contains('\0') {
            return Err("no text holds the character NUL".to_owned());
        }
        match self {
            Self::String => Ok(plan::Value::from(text)),
            Self::Choice => chosen(text, options),
            Self::Boolean => match text {
                "true" => Ok(plan::Value::Boolean(true)),
                "false" => Ok(plan::Value::Boolean(false)),
                _ => Err("it is neither `true` nor `false`".to_owned()),
            },
            Self::Number => plain_number(text).ok_or_else(|| "it is no number".to_owned()),
            Self::List if text.starts_with('[') => json::list_of(text).map(plan::Value::List),
            Self::List if text.trim().is_empty() => Ok(plan::Value::List(Vec::new())),
            Self::List => Ok(plan::Value::List(text.split(',').map(|item| plan::Value::from(item.trim())).collect())),
        }
    }

    /// A value of a file as this type.
    pub(super) fn of(self, known: Known, options: &[String]) -> Result<Known, String> {
        let described = known.described();
        let wrong = || Err(format!("it is {}, and this is {described}", self.described()));
        let value = match (self, &known.value) {
            (Self::Number, _) if known.unit().is_some() => None,
            (Self::String, plan::Value::Variable { .. } | plan::Value::Call { .. })
            | (Self::Boolean, plan::Value::Boolean(_))
            | (Self::Number, plan::Value::Integer(_) | plan::Value::Decimal { .. })
            | (Self::List, plan::Value::List(_)) => return Ok(known),
            (Self::List, _) => return wrong(),
            (Self::String, _) => known.as_text().map(plan::Value::Text),
            (Self::Boolean | Self::Number, plan::Value::Text(text)) => {
                return self.read(text, options).map(|value| Known { value, ..known });
            }
            (Self::Boolean | Self::Number, _) => None,
            (Self::Choice, _) => match known.as_text() {
                Some(text) => Some(chosen(&text, options)?),
                None => None,
            },
        };
        match value {
            Some(value) => Ok(Known { value, outside: known.outside, written: None }),
            None => wrong(),
        }
    }
}

fn chosen(text: &str, options: &[String]) -> Result<plan::Value, String> {
    if options.iter().any(|option| option == text) {
        return Ok(plan::Value::from(text));
    }
    let near = did_you_mean(text, options.iter().map(String::as_str));
    Err(format!("it is not among the options; {near}").trim_end_matches("; ").to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_from_outside_becomes_what_the_type_says() {
        let list = |items: &[&str]| plan::Value::List(items.iter().map(|item| plan::Value::from(*item)).collect());
        for (kind, text, value) in [
            (Kind::String, "true", Some(plan::Value::from("true"))),
            (Kind::Boolean, "true", Some(plan::Value::Boolean(true))),
            (Kind::Boolean, "yes", None),
            (Kind::Number, "3", Some(plan::Value::Integer(3))),
            (Kind::Number, "3.10", Some(plan::Value::Decimal { decimal: "3.10".to_owned() })),
            (Kind::Number, "10m", None),
            (Kind::Number, "three", None),
            (Kind::Number, "", None),
            (Kind::Choice, "b", Some(plan::Value::from("b"))),
            (Kind::Choice, "c", None),
            (Kind::List, "a, b", Some(list(&["a", "b"]))),
            (Kind::List, "[\"a,b\"]", Some(list(&["a,b"]))),
            (Kind::List, "[", None),
            (Kind::List, "", Some(list(&[]))),
            (Kind::String, "\0", None),
        ] {
            assert_eq!(kind.read(text, &["a".to_owned(), "b".to_owned()]).ok(), value, "{kind:?} {text:?}");
        }
    }

    #[test]
    fn a_value_of_a_file_is_converted_where_it_is_the_same_in_writing() {
        let number = plan::Value::Decimal { decimal: "2.60".to_owned() };
        assert_eq!(Kind::String.of(Known::inside(number.clone()), &[]).unwrap().value, "2.60".into());
        assert_eq!(Kind::Number.of(Known::inside("2.60".into()), &[]).unwrap().value, number);
        assert_eq!(Kind::Boolean.of(Known::inside("true".into()), &[]).unwrap().value, plan::Value::Boolean(true));
        assert!(Kind::List.of(Known::inside("a".into()), &[]).is_err());
        let variable = || plan::Value::Variable { variable: "x".to_owned() };
        assert!(Kind::String.of(Known::inside(variable()), &[]).is_ok());
        assert!(Kind::Number.of(Known::inside(variable()), &[]).is_err());
    }

    #[test]
    fn what_came_from_outside_still_does() {
        let outside = Known::outside("7".into(), "branch");
        assert_eq!(Kind::Number.of(outside.clone(), &[]).unwrap().outside.as_deref(), Some("branch"));
        assert_eq!(Kind::Choice.of(outside, &["7".to_owned()]).unwrap().outside.as_deref(), Some("branch"));
    }
}
