//! Conditions: decided while planning, but for those in which a variable of the run stands.
//!
//! Every part is looked at, so that every mistake in it is told; what decides is the truth of the parts. Numbers, booleans and texts are
//! compared as they are written: `3` is `'3'`, `true` is `'true'`, and `3.10` is not `3.1`.

mod spelling;
mod verdict;

use model::{
    diagnostic::Span,
    plan::{self, Skip},
};

use self::verdict::{Joined, Truth, Verdict, all, any, decided, each_once, in_run};
use super::{Lowering, fact::is_name, function::QUESTIONS, value::Known};
use crate::{
    Changed,
    diagnostic::{Code, Finding, excerpt, quoted},
    suggest::did_you_mean,
    syntax::{Condition, ConditionKind, Entry, Item, ItemKind, Name, Spanned, Tail, Value, ValueKind},
};

/// What is known of a condition while planning.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Decision {
    /// It holds.
    Holds,
    /// It does not hold.
    Fails {
        /// The condition, and the facts that make it false.
        skip: Skip,
        /// Whether nothing but `it` was asked for: then it leaves a combination of `each` out of the plan.
        about_it: bool,
    },
    /// A variable stands in it: the run decides.
    InRun(plan::Condition),
}

/// One side of a comparison.
struct Side {
    known: Known,
    /// The name, if it is one, or the function: what a fact is told of.
    name: Option<String>,
    span: Span,
}

impl Lowering<'_, '_> {
    /// Decides a condition; `None` if something in it is wrong, which is told, or has to be asked for.
    pub(super) fn decide(&mut self, condition: &Condition) -> Option<Decision> {
        self.verdict(condition).map(Verdict::decision)
    }

    /// Decides conditions that must all hold, as in `when { … }`. What stands in no comparison is a mistake that is told.
    pub(super) fn decide_all<'t>(&mut self, items: impl IntoIterator<Item = &'t Item>) -> Option<Decision> {
        let verdicts: Vec<Option<Verdict>> = items.into_iter().map(|item| self.verdict_of_item(item)).collect();
        let verdicts = verdicts.into_iter().collect::<Option<Vec<Verdict>>>()?;
        Some(all(verdicts).decision())
    }

    fn verdict_of_item(&mut self, item: &Item) -> Option<Verdict> {
        let ItemKind::Entry(entry) = &item.kind else { return self.verdict(&item.clone().into_condition()) };
        let name = excerpt(&entry.name.kind);
        let is_name = is_name(&entry.name.kind);
        let help = match &entry.tail {
            // `branch 'main'` is a comparison as other languages have it; any other call is a function, or should be one.
            Tail::Call(call) if call.block.is_none() && (call.arguments.is_empty() || !is_name) => {
                return self.verdict(&item.clone().into_condition());
            }
            Tail::Assign(_) => format!("two values are compared with `==`: `{name} == '…'`"),
            Tail::Arrow(_) => format!("write `{name} == '…'`"),
            Tail::Call(_) => format!("write `{name} == '…'`, `{name} in ['…']` or `{name} matches '…'`"),
        };
        self.error(Finding::new(Code::NotACondition, item.span, "this is no condition").help(help));
        None
    }

    fn verdict(&mut self, condition: &Condition) -> Option<Verdict> {
        match &condition.kind {
            ConditionKind::Value(kind) => self.presence(kind, condition.span),
            ConditionKind::Equal { left, negated, right } => self.equal(left, right, *negated),
            ConditionKind::In { value, among } => self.among(value, among),
            ConditionKind::Matches { value, pattern } => self.matches(value, pattern),
            ConditionKind::Not(inner) => {
                let inner = self.verdict(inner)?;
                let simple = inner.joined == Joined::No;
                let spelled = if simple { format!("!{}", inner.spelled) } else { format!("!({})", inner.spelled) };
                Some(Verdict { truth: inner.truth.not(), spelled, joined: Joined::No, ..inner })
            }
            ConditionKind::All(parts) => self.verdicts(parts).map(all),
            ConditionKind::Any(parts) => self.verdicts(parts).map(any),
        }
    }

    /// Every part, so that each mistake is told.
    fn verdicts(&mut self, parts: &[Condition]) -> Option<Vec<Verdict>> {
        let verdicts: Vec<Option<Verdict>> = parts.iter().map(|part| self.verdict(part)).collect();
        verdicts.into_iter().collect()
    }

    /// A value that is a condition by itself.
    fn presence(&mut self, kind: &ValueKind, span: Span) -> Option<Verdict> {
        if let ValueKind::Call(entry) = kind
            && QUESTIONS.contains(&entry.name.kind.as_str())
        {
            return self.question(entry);
        }
        if let ValueKind::Name(name) = kind
            && QUESTIONS.contains(&name.as_str())
        {
            let name = Name { kind: name.clone(), span };
            return self.wrong_arguments(&name, &format!("`{}` of nothing", name.kind), &format!("{}('docs/**')", name.kind));
        }
        if let ValueKind::Name(name) = kind
            && let Some((held, text)) = self.presence_of_fact(name)
        {
            let fact = if held { text.map_or_else(|| format!("there is a {name}"), |text| is(name, &text)) } else { none_of(name) };
            return Some(decided(held, name.clone(), vec![fact]));
        }
        let value = Value { kind: kind.clone(), span };
        let side = self.side(&value)?;
        match &side.known.value {
            plan::Value::Boolean(held) => {
                let facts = side.name.iter().map(|name| format!("{name} is {held}")).collect();
                let verdict = decided(*held, self.spelled(&value), facts);
                Some(Verdict { about_it: side.is_about_it(), about_else: side.is_about_else(), ..verdict })
            }
            plan::Value::Variable { .. } => {
                let condition = plan::Condition::Is(side.known.value.clone());
                Some(in_run(condition, self.spelled(&value)))
            }
            plan::Value::Integer(_)
            | plan::Value::Text(_)
            | plan::Value::Decimal { .. }
            | plan::Value::Call { .. }
            | plan::Value::Steps { .. }
            | plan::Value::List(_) => {
                let message = format!("this is {}, and a condition is true or false", side.known.described());
                let spelled = excerpt(&self.spelled(&value));
                let help = if spelled == "event" {
                    "compare it: `event == 'push'`".to_owned()
                } else if side.name.is_some() {
                    format!("compare it: `{spelled} == '…'`")
                } else {
                    format!("compare something with it: `branch == {spelled}`")
                };
                self.error(Finding::new(Code::NotACondition, span, message).help(help));
                None
            }
        }
    }

    /// Whether there is the branch, the tag or the pull request, with its text.
    fn presence_of_fact(&self, name: &str) -> Option<(bool, Option<String>)> {
        let context = self.input.context;
        let of_text = |text: &String| Some((!text.is_empty(), Some(text.clone())));
        match name {
            "branch" => of_text(&context.branch),
            "tag" => of_text(&context.tag),
            "pr" => Some((context.pull_request.is_some(), None)),
            _ => None,
        }
    }

    fn side(&mut self, value: &Value) -> Option<Side> {
        let named = matches!(value.kind, ValueKind::Name(_) | ValueKind::Call(_));
        let name = named.then(|| self.spelled(value));
        self.known(value).map(|known| Side { known, name, span: value.span })
    }

    /// A side that is no list.
    fn flat_side(&mut self, value: &Value) -> Option<Side> {
        let side = self.side(value)?;
        if matches!(side.known.value, plan::Value::List(_)) {
            let finding = Finding::new(Code::Comparison, value.span, "a list is compared with nothing").label("this is a list");
            self.error(finding.help("whether something is in a list: `branch in ['a', 'b']`"));
            return None;
        }
        Some(side)
    }

    fn equal(&mut self, left: &Value, right: &Value, negated: bool) -> Option<Verdict> {
        let (left_side, right_side) = (self.flat_side(left), self.flat_side(right));
        let (left_side, right_side) = (left_side?, right_side?);
        self.comparable(&left_side, &right_side)?;
        let spelled = format!("{} {} {}", self.spelled(left), if negated { "!=" } else { "==" }, self.spelled(right));
        let truth = match (same(&left_side.known, &right_side.known), negated) {
            (Some(same), negated) => Truth::Known(same != negated),
            (None, negated) => {
                let equal = Truth::InRun(plan::Condition::Equal(left_side.known.value.clone(), right_side.known.value.clone()));
                if negated { equal.not() } else { equal }
            }
        };
        Some(compared(truth, spelled, &[&left_side, &right_side]))
    }

    fn among(&mut self, value: &Value, among: &Spanned<Vec<Item>>) -> Option<Verdict> {
        let side = self.flat_side(value);
        let values: Vec<Value> = among.kind.iter().map(|item| item.clone().into_value()).collect();
        let others: Vec<Option<Side>> = values.iter().map(|value| self.flat_side(value)).collect();
        let others = others.into_iter().collect::<Option<Vec<Side>>>()?;
        let side = side?;
        for other in &others {
            self.comparable(&side, other)?;
        }
        if others.is_empty() {
            let finding = Finding::new(Code::Comparison, among.span, "nothing is in an empty list");
            self.error(finding.help("write what it may be: `branch in ['main', 'next']`"));
            return None;
        }
        let texts: Vec<String> = values.iter().map(|value| self.spelled(value)).collect();
        let spelled = format!("{} in [{}]", self.spelled(value), texts.join(", "));
        let answers: Vec<Option<bool>> = others.iter().map(|other| same(&side.known, &other.known)).collect();
        let truth = if answers.contains(&Some(true)) {
            Truth::Known(true)
        } else if answers.contains(&None) {
            // What is known to differ is left out.
            let open = others.iter().zip(&answers).filter(|(_, answer)| answer.is_none()).map(|(other, _)| other.known.value.clone());
            Truth::InRun(plan::Condition::In(side.known.value.clone(), open.collect()))
        } else {
            Truth::Known(false)
        };
        let sides: Vec<&Side> = std::iter::once(&side).chain(&others).collect();
        Some(compared(truth, spelled, &sides))
    }

    fn matches(&mut self, value: &Value, pattern: &Name) -> Option<Verdict> {
        let side = self.flat_side(value);
        let glob = self.glob(pattern)?;
        let side = side?;
        let spelled = format!("{} matches {}", self.spelled(value), spelling::text(&pattern.kind));
        let truth = match side.known.as_text() {
            Some(text) => Truth::Known(glob.matches(&text)),
            None => Truth::InRun(plan::Condition::Matches(side.known.value.clone(), pattern.kind.clone())),
        };
        Some(compared(truth, spelled, &[&side]))
    }

    /// Refuses comparisons that are never true: of `event` with a word that is no event, of a boolean with another text.
    fn comparable(&mut self, left: &Side, right: &Side) -> Option<()> {
        for (one, other) in [(left, right), (right, left)] {
            let Some(text) = other.known.as_text().filter(|_| other.name.is_none()) else { continue };
            let events = model::context::EventKind::ALL.map(model::context::EventKind::as_str);
            if one.name.as_deref() == Some("event") && !events.contains(&text.as_str()) {
                let finding = Finding::new(Code::Comparison, other.span, format!("there is no event {}", quoted(&text)));
                self.error(finding.help(did_you_mean(&text, events)));
                return None;
            }
            if matches!(one.known.value, plan::Value::Boolean(_)) && one.name.is_some() && !["true", "false"].contains(&text.as_str()) {
                let name = one.name.as_deref().unwrap_or_default();
                let message = format!("{} is `true` or `false`, and never {}", quoted(name), quoted(&text));
                self.error(Finding::new(Code::Comparison, other.span, message).help(format!("write `{name}` or `!{name}`")));
                return None;
            }
        }
        Some(())
    }

    /// `changed('docs/**')` and `exists('Cargo.toml')`: whether one of the patterns matches a path.
    fn question(&mut self, entry: &Entry) -> Option<Verdict> {
        let question = if entry.name.kind == "changed" { "changed" } else { "exists" };
        let values = self.function_values(entry)?;
        if values.is_empty() {
            let usage = if question == "changed" { "changed('docs/**')" } else { "exists('Cargo.toml')" };
            return self.wrong_arguments(&entry.name, &format!("`{question}` of nothing"), usage);
        }
        let what = format!("a path of `{question}`");
        let texts: Vec<Option<Name>> = values.iter().map(|value| self.text(value, &what)).collect();
        let texts = texts.into_iter().collect::<Option<Vec<Name>>>()?;
        let patterns = self.path_patterns(&texts)?;
        let written: Vec<String> = texts.iter().map(|text| spelling::text(&text.kind)).collect();
        let spelled = format!("{question}({})", written.join(", "));
        if question == "changed" && self.input.changed == Some(&Changed::Unknown) {
            return Some(decided(true, spelled, vec!["it is not known what changed".to_owned()]));
        }
        let mut first = None;
        for pattern in &patterns {
            self.look_up(question, pattern, entry.name.span)?;
            first = first.or_else(|| self.memo.first.get(&(question, pattern.text.clone())).cloned().flatten());
        }
        let listed = super::glob::listed(&patterns);
        let fact = match (question, &first) {
            ("changed", Some(path)) => format!("{} changed", excerpt(path)),
            ("changed", None) => format!("nothing under {listed} changed"),
            (_, Some(path)) => format!("there is {}", excerpt(path)),
            (_, None) => format!("there is no {listed}"),
        };
        Some(decided(first.is_some(), spelled, vec![fact]))
    }

    /// Looks for the first path that matches; `None` if the paths have to be asked for.
    fn look_up(&mut self, question: &'static str, pattern: &super::glob::PathPattern, span: Span) -> Option<()> {
        let key = (question, pattern.text.clone());
        if self.memo.first.contains_key(&key) {
            return Some(());
        }
        let paths = if question == "changed" { self.changed_paths()? } else { self.listed_paths()? };
        let first = self.matching(pattern, &paths, 1, span)?.first().map(|path| (*path).to_owned());
        self.memo.first.insert(key, first);
        Some(())
    }
}

impl Side {
    fn is_about_it(&self) -> bool {
        self.name.as_ref().is_some_and(|name| name == "it" || name.starts_with("it."))
    }

    /// Whether it can differ without `it`; a literal cannot.
    fn is_about_else(&self) -> bool {
        self.name.is_some() && !self.is_about_it()
    }

    /// `branch is 'topic'`.
    fn fact(&self) -> Option<String> {
        let (name, text) = (self.name.as_ref()?, self.known.as_text()?);
        let is_text = self.known.value.as_text().is_some();
        Some(match text.as_str() {
            "" if matches!(name.as_str(), "branch" | "tag") => none_of(name),
            "" if name.starts_with("pr.") => none_of("pr"),
            text if is_text => is(name, text),
            text => format!("{name} is {text}"),
        })
    }
}

/// Whether two values are written the same; `None` if one is known in the run only.
fn same(left: &Known, right: &Known) -> Option<bool> {
    match (&left.value, &right.value) {
        (plan::Value::Integer(left), plan::Value::Integer(right)) => Some(left == right),
        _ => left.as_text().zip(right.as_text()).map(|(left, right)| left == right),
    }
}

fn is(name: &str, text: &str) -> String {
    format!("{name} is {}", spelling::text(&excerpt(text)))
}

fn none_of(name: &str) -> String {
    format!("there is no {}", if name == "pr" { "pull request" } else { name })
}

fn compared(truth: Truth, spelled: String, sides: &[&Side]) -> Verdict {
    let facts = each_once(sides.iter().filter_map(|side| side.fact()));
    let about_it = sides.iter().any(|side| side.is_about_it());
    let about_else = sides.iter().any(|side| side.is_about_else());
    Verdict { truth, spelled, joined: Joined::Compared, facts, about_it, about_else }
}
