//! `each`: its body is read once for every combination of its values.

use std::{collections::BTreeMap, rc::Rc};

use model::{diagnostic::Span, plan, planning::LeftOut};

use super::{
    Lowering,
    declare::Node,
    value::{It, Known, Named, Scope},
    word::Place,
};
use crate::{
    diagnostic::{Code, Finding, quoted},
    limits::EACH_BRANCHES_MAX,
    syntax::{Argument, Block, Call, Entry, Name, Tail, Value, ValueKind},
};

/// How `each` is written.
const HELP: &str = "write `each('a', 'b') { stage … }` or `each(os: ['linux', 'mac'], jdk: ['8', '12']) { stage … }`";

/// Its values in a message.
const WHAT: &str = "what `each` goes over";

/// Bytes of a value in a branch, besides its text.
const VALUE_BYTES: usize = 64;

/// What `each` goes over.
enum Values {
    /// `it`.
    One(Vec<Known>),
    /// `it.os`, in the order in which the names are written.
    Named(Vec<(String, Vec<Known>)>),
}

/// One branch: what `it` is, and how the branch is told from the others.
struct Combination {
    it: It,
    label: String,
}

impl Values {
    /// How many branches they make; `None` if that is beyond any number.
    fn product(&self) -> Option<usize> {
        match self {
            Self::One(values) => Some(values.len()),
            Self::Named(lists) => lists.iter().try_fold(1usize, |product, (_, values)| product.checked_mul(values.len())),
        }
    }

    /// The combinations, the last list's values changing fastest.
    fn combinations(self) -> Vec<Combination> {
        match self {
            Self::One(values) => values.into_iter().map(|value| Combination { label: label(&value), it: It::One(value) }).collect(),
            Self::Named(lists) => {
                let product = lists.iter().map(|(_, values)| values.len()).product();
                (0..product).map(|place| combination(&lists, place)).collect()
            }
        }
    }

    /// How many values each branch has.
    fn names(&self) -> usize {
        match self {
            Self::One(_) => 1,
            Self::Named(lists) => lists.len(),
        }
    }
}

/// The combination at a place in their order.
fn combination(lists: &[(String, Vec<Known>)], place: usize) -> Combination {
    let mut row = Vec::with_capacity(lists.len());
    let mut left = place;
    for (name, values) in lists.iter().rev() {
        row.extend(values.get(left % values.len()).map(|value| (name, value)));
        left /= values.len();
    }
    let label = row.iter().rev().map(|(_, value)| label(value)).collect::<Vec<_>>().join(", ");
    let values: BTreeMap<String, Known> = row.into_iter().map(|(name, value)| (name.clone(), value.clone())).collect();
    Combination { it: It::Named(Rc::new(Named { values, around: None })), label }
}

fn label(value: &Known) -> String {
    value.as_text().unwrap_or_default()
}

impl Lowering<'_, '_> {
    /// The branches of an `each`, which run at once.
    pub(super) fn each(&mut self, entry: &Entry) -> Option<Node> {
        let Tail::Call(Call { arguments, block: Some(block) }) = &entry.tail else {
            self.error(Finding::new(Code::Shape, entry.name.span, "`each` needs values and a block").help(HELP));
            return None;
        };
        let values = self.values_of(&entry.name, arguments)?;
        let branches = self.branches(&entry.name, &values)?;
        if branches == 0 {
            let finding = Finding::new(Code::NothingToDo, entry.name.span, "this `each` has no value, so it does nothing");
            self.error(finding.help("leave it out, or give it values"));
        }
        let branch_bytes = block.span.end - block.span.start + values.names() * VALUE_BYTES;
        if !self.expanded(branches.saturating_mul(branch_bytes), entry.name.span) {
            return None;
        }
        let nodes = values.combinations().into_iter().filter_map(|combination| self.branch(block, combination)).collect();
        Some(Node::Parallel(nodes))
    }

    /// How many branches there are, unless they are too many.
    fn branches(&mut self, name: &Name, values: &Values) -> Option<usize> {
        let product = values.product();
        if let Some(branches) = product.filter(|branches| *branches <= EACH_BRANCHES_MAX) {
            return Some(branches);
        }
        let counts = match values {
            Values::One(_) => String::new(),
            Values::Named(lists) => {
                let counts: Vec<String> = lists.iter().map(|(_, values)| values.len().to_string()).collect();
                if counts.len() > 1 { format!(" ({})", counts.join(" × ")) } else { String::new() }
            }
        };
        let product = product.map_or_else(|| "uncountably many".to_owned(), |product| product.to_string());
        let message = format!("this `each` has {product} branches{counts}, over the limit of {EACH_BRANCHES_MAX}");
        self.error(Finding::new(Code::TooManyBranches, name.span, message).help("split it, or shorten its lists"));
        None
    }

    fn values_of(&mut self, name: &Name, arguments: &[Argument]) -> Option<Values> {
        let positional = arguments.iter().filter(|argument| argument.keyword.is_none()).count();
        if arguments.is_empty() {
            self.error(Finding::new(Code::Shape, name.span, "`each` needs values").help(HELP));
            return None;
        }
        if positional == arguments.len() {
            let mut values = Vec::new();
            let mut sound = true;
            for argument in arguments {
                match self.items_of(&argument.value) {
                    Some(items) => values.extend(items),
                    None => sound = false,
                }
            }
            return sound.then_some(Values::One(values));
        }
        if positional != 0 {
            self.error(Finding::new(Code::Shape, name.span, "`each` takes values with names or without, not both").help(HELP));
            return None;
        }
        let mut seen: BTreeMap<&str, Span> = BTreeMap::new();
        let mut lists = Vec::new();
        let mut sound = true;
        for (keyword, value) in arguments.iter().filter_map(|argument| Some((argument.keyword.as_ref()?, &argument.value))) {
            if let Some(first) = seen.insert(&keyword.kind, keyword.span) {
                self.doubled(&quoted(&keyword.kind), keyword.span, first);
                sound = false;
            }
            match self.list_of(keyword, value) {
                Some(items) => lists.push((keyword.kind.clone(), items)),
                None => sound = false,
            }
        }
        sound.then_some(Values::Named(lists))
    }

    /// The items of a list with a name.
    fn list_of(&mut self, name: &Name, value: &Value) -> Option<Vec<Known>> {
        let known = self.planned(value, WHAT)?;
        if matches!(known.value, plan::Value::List(_)) {
            return self.items_among(known, value);
        }
        let finding = Finding::new(Code::SettingValue, value.span, format!("{} of `each` is a list", quoted(&name.kind)));
        self.error(finding.label(format!("this is {}", known.described())).help(HELP));
        None
    }

    /// The items of a list, or the one value.
    fn items_of(&mut self, value: &Value) -> Option<Vec<Known>> {
        let known = self.planned(value, WHAT)?;
        self.items_among(known, value)
    }

    fn items_among(&mut self, known: Known, value: &Value) -> Option<Vec<Known>> {
        let items = match known.value {
            plan::Value::List(items) => {
                let outside = known.outside;
                items.into_iter().map(|value| Known { outside: outside.clone(), ..Known::inside(value) }).collect()
            }
            plan::Value::Boolean(_)
            | plan::Value::Integer(_)
            | plan::Value::Text(_)
            | plan::Value::Decimal { .. }
            | plan::Value::Variable { .. }
            | plan::Value::Call { .. }
            | plan::Value::Steps { .. } => vec![known],
        };
        if items.iter().all(|item: &Known| item.as_text().is_some()) {
            return Some(items);
        }
        let finding = Finding::new(Code::Shape, value.span, "`each` goes over texts, numbers, `true` and `false`");
        self.error(finding.help(HELP));
        None
    }

    /// One branch; `None` if it is left out, or has nothing in it.
    fn branch(&mut self, block: &Block, combination: Combination) -> Option<Node> {
        let Combination { mut it, label } = combination;
        if let (It::Named(named), Some(It::Named(around))) = (&mut it, &self.scope.it)
            && let Some(named) = Rc::get_mut(named)
        {
            named.around = Some(Rc::clone(around));
        }
        let scope = Scope { it: Some(it), ..self.scope.clone() };
        self.suffixes.push(label);
        let node = self.with_scope(scope, |this| this.branch_body(block));
        self.suffixes.pop();
        node
    }

    fn branch_body(&mut self, block: &Block) -> Option<Node> {
        let body = self.body(&block.kind, Place::Each);
        let gates = &body.settings.gates;
        let waits = !gates.enter.is_empty() || !gates.exit.is_empty();
        if gates.skip.is_some() || !gates.conditions.is_empty() || waits {
            let span = body.seen.get("when").or_else(|| body.seen.get("gates")).copied().unwrap_or(block.span);
            let finding = Finding::new(Code::Shape, span, "a condition of `each` itself asks for `it` and nothing else");
            self.error(finding.help("it leaves combinations out of the plan; conditions and waits of the stages stand in the stages"));
        }
        if let Some(skip) = body.settings.gates.left_out {
            let path = self.path_here(&format!("each{}", self.suffix(0)));
            self.left_out(LeftOut { path, condition: skip.condition }, block.span);
            return None;
        }
        let mut nodes = self.children(&body.children);
        match nodes.len() {
            0 => None,
            1 => nodes.pop(),
            _ => Some(Node::Sequence(nodes)),
        }
    }

    /// ` (linux, 8)`, what tells a branch from the others; `own` of the values stand in the name already.
    pub(super) fn suffix(&self, own: usize) -> String {
        let told = &self.suffixes[..self.suffixes.len().saturating_sub(own)];
        if told.is_empty() { String::new() } else { format!(" ({})", told.join(", ")) }
    }
}

/// Whether a value is made of `it`.
pub(super) fn mentions_it(value: &Value) -> bool {
    let is_it = |name: &str| name == "it" || name.starts_with("it.");
    match &value.kind {
        ValueKind::Name(name) => is_it(name),
        ValueKind::Call(call) => match &call.tail {
            Tail::Call(call) => call.arguments.iter().any(|argument| mentions_it(&argument.value)),
            Tail::Assign(_) | Tail::Arrow(_) => false,
        },
        ValueKind::List(items) => items.iter().any(|item| mentions_it(&item.clone().into_value())),
        ValueKind::Text(_)
        | ValueKind::Integer(_)
        | ValueKind::Decimal(_)
        | ValueKind::Duration(_)
        | ValueKind::Size(_)
        | ValueKind::Boolean(_)
        | ValueKind::Condition(_)
        | ValueKind::Block(_)
        | ValueKind::Wrong => false,
    }
}
