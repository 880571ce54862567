//! Names: `it`, parameters, variables of the run, and the trigger's facts.

use model::{
    context::{EventKind, PullRequest},
    diagnostic::Span,
    plan,
};

use super::{
    Lowering,
    mention::Mentioned,
    value::{It, Known},
};
use crate::{
    diagnostic::{Code, Finding, excerpt, quoted},
    suggest::nearest,
};

/// The facts of the trigger.
pub(super) const FACTS: [&str; 8] = ["branch", "tag", "event", "commit", "pr.target", "pr.source", "pr.fork", "pr.number"];

impl Lowering<'_, '_> {
    /// The value of a name.
    pub(super) fn named(&mut self, name: &str, span: Span) -> Option<Known> {
        if let Some(fact) = self.fact(name) {
            return Some(fact);
        }
        match name.split_once('.') {
            None if name == "it" => self.it(span),
            Some(("it", key)) => self.it_named(key, span),
            Some(("params", key)) => self.parameter_named(name, key, span),
            Some(("vars", key)) if !key.contains('.') => self.variable(name, key, span),
            _ => self.unknown(name, span),
        }
    }

    /// The value of a fact of the trigger. Where there is no pull request, its texts and its number are empty.
    fn fact(&self, name: &str) -> Option<Known> {
        let context = self.input.context;
        let request = context.pull_request.as_ref();
        let text = |text: &str| plan::Value::Text(text.to_owned());
        let of_request = |part: fn(&PullRequest) -> &str| text(request.map(part).unwrap_or_default());
        let value = match name {
            // That of a pull request is `pr.source`, which must not pass for a branch of the repository.
            "branch" if context.event == EventKind::PullRequest => text(""),
            "branch" => text(&context.branch),
            "tag" => text(&context.tag),
            "commit" => text(&context.commit),
            "pr.target" => of_request(|request| &request.target),
            "pr.source" => of_request(|request| &request.source),
            "pr.number" => {
                let number = request.map(|request| i64::try_from(request.number).unwrap_or_default());
                number.map_or_else(|| text(""), plan::Value::Integer)
            }
            "pr.fork" => plan::Value::Boolean(request.is_some_and(|request| request.fork)),
            // A word of Otto, not of somebody outside.
            "event" => return Some(Known::inside(text(context.event.as_str()))),
            _ => return None,
        };
        Some(Known::outside(value, name))
    }

    fn it(&mut self, span: Span) -> Option<Known> {
        match &self.scope.it {
            Some(It::One(known)) => Some(known.clone()),
            Some(It::Named(names)) => {
                let names: Vec<String> = names.names().map(|name| quoted(&format!("it.{name}"))).collect();
                let finding = Finding::new(Code::UnknownVariable, span, "this `each` gives its values names");
                self.error(finding.help(format!("write {}", names.join(" or "))));
                None
            }
            None => self.no_it("it", span),
        }
    }

    fn it_named(&mut self, key: &str, span: Span) -> Option<Known> {
        let name = format!("it.{key}");
        match &self.scope.it {
            Some(It::Named(names)) => {
                if let Some(known) = names.get(key) {
                    return Some(known.clone());
                }
                let names: Vec<String> = names.names().map(|name| format!("it.{name}")).collect();
                let help = self.did_you_mean(&name, names.iter().map(String::as_str));
                self.error(Finding::new(Code::UnknownVariable, span, format!("this `each` has no {}", quoted(&name))).help(help));
                None
            }
            Some(It::One(_)) => {
                let message = format!("this `each` gives its values no names, so there is no {}", quoted(&name));
                let help = format!("write `it`, or give them a name: `each({}: […])`", excerpt(key));
                self.error(Finding::new(Code::UnknownVariable, span, message).help(help));
                None
            }
            None => self.no_it(&name, span),
        }
    }

    fn no_it<T>(&mut self, name: &str, span: Span) -> Option<T> {
        let finding = Finding::new(Code::UnknownVariable, span, format!("there is no {} here", quoted(name)));
        self.error(finding.label("not in an `each`").help("it is the value of the `each` around it: `each('a', 'b') { stage … }`"));
        None
    }

    fn parameter_named(&mut self, name: &str, key: &str, span: Span) -> Option<Known> {
        if let Some(known) = self.scope.parameters.get(key) {
            return Some(known.clone());
        }
        if self.scope.wrong.contains(key) {
            return None;
        }
        if self.findings.is_full() {
            self.error(Finding::new(Code::UnknownVariable, span, format!("there is no parameter {}", quoted(name))));
            return None;
        }
        let near = self.did_you_mean(key, self.scope.parameters.keys().chain(self.scope.wrong.iter()).map(String::as_str));
        let declare = format!("declare it: `parameters {{ {} {{ description = '…' }} }}`", excerpt(key));
        let help = if near.is_empty() { declare } else { near };
        self.error(Finding::new(Code::UnknownVariable, span, format!("there is no parameter {}", quoted(name))).help(help));
        None
    }

    /// `vars.x`: in the older spelling a parameter, else what a step captures or a person answers.
    fn variable(&mut self, name: &str, key: &str, span: Span) -> Option<Known> {
        if self.scope.older && (self.scope.parameters.contains_key(key) || self.scope.wrong.contains(key)) {
            return self.parameter_named(name, key, span);
        }
        self.mention(Mentioned::VariableUsed, key, span);
        Some(Known::outside(plan::Value::Variable { variable: key.to_owned() }, name))
    }

    /// The name as the canonical spelling has it.
    pub(super) fn canonical(&self, name: &str) -> String {
        match name.strip_prefix("vars.") {
            Some(key) if self.scope.older && self.scope.parameters.contains_key(key) => format!("params.{key}"),
            _ => name.to_owned(),
        }
    }

    fn unknown<T>(&mut self, name: &str, span: Span) -> Option<T> {
        if self.findings.is_full() {
            self.error(Finding::new(Code::UnknownVariable, span, format!("there is no variable {}", quoted(name))));
            return None;
        }
        let quote = format!("if it is a text, write it in quotes: '{}'", excerpt(name));
        let help = match name.split_once('.').unwrap_or((name, "")) {
            ("and", "") => "write `&&`".to_owned(),
            ("or", "") => "write `||`".to_owned(),
            ("not", "") => "write `!`".to_owned(),
            _ if self.scope.parameters.contains_key(name) => format!("did you mean `params.{name}`?\n{quote}"),
            _ if self.source.text.contains(&format!("into: '{name}'")) => format!("did you mean `vars.{name}`?\n{quote}"),
            ("env", key) if !key.is_empty() => {
                format!("a script finds the variables of its environment itself: \"${}\"", excerpt(key))
            }
            ("pr", _) => self.did_you_mean(name, FACTS.iter().filter(|fact| fact.starts_with("pr.")).copied()),
            ("params" | "vars", "") => format!("it has parts: `{name}.x`"),
            _ => {
                let names = self.names_here();
                match nearest(name, names.iter().map(String::as_str)).first() {
                    Some(_) => format!("{}\n{quote}", self.did_you_mean(name, names.iter().map(String::as_str))),
                    None => quote,
                }
            }
        };
        self.error(Finding::new(Code::UnknownVariable, span, format!("there is no variable {}", quoted(name))).help(help));
        None
    }

    /// The names that mean something in this place.
    fn names_here(&self) -> Vec<String> {
        let mut names: Vec<String> = FACTS.iter().map(|fact| (*fact).to_owned()).collect();
        names.extend(self.scope.parameters.keys().map(|key| format!("params.{key}")));
        match &self.scope.it {
            None => {}
            Some(It::One(_)) => names.push("it".to_owned()),
            Some(It::Named(parts)) => names.extend(parts.names().map(|key| format!("it.{key}"))),
        }
        names
    }
}

/// Whether it can be the name of a value, whether there is one or not.
pub(super) fn is_name(name: &str) -> bool {
    name == "it" || name.contains('.') || FACTS.contains(&name)
}
