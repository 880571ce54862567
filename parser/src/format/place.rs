//! Which of the spellings of a place is the canonical one.

use crate::syntax::{Argument, Block, Call, Entry, Item, ItemKind, Tail, Value, ValueKind};

/// What stands in a block, as far as its spelling depends on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    /// The top level.
    File,
    /// What a `blueprint` is made of.
    Blueprint,
    /// Stages, and the settings beside them.
    Body,
    /// As [`Place::Body`], in a stage: it has a name, and `when` for its gates.
    Stage,
    /// As [`Place::Stage`], in `rollback`, which has no name.
    Undo,
    /// As [`Place::Body`], in `each`, which has gates, too.
    Each,
    Steps,
    /// Blocks of steps: `notify`, and a step that is made of steps.
    StepBlocks,
    /// `gates`.
    Gates,
    /// `when`, `enter` and `exit`.
    Conditions,
    /// `triggers` and `use`: each thing says something on its own.
    Phrases,
    /// Keys with values.
    Settings,
    /// Values in a list or in parentheses.
    Values,
}

/// Settings of pipelines and stages, whose older spelling has no `=`.
const BODY_SETTINGS: [&str; 11] =
    ["name", "needs", "timeout", "retry", "environment", "lock", "effect", "allow_failure", "checkout", "credentials", "newer"];
/// Functions that can be an argument without parentheses around it, as in `otto.pest`.
const FUNCTIONS: [&str; 5] = ["concat", "format", "join", "files", "json"];
/// What else looks like a function.
const PREDICATES: [&str; 3] = ["changed", "exists", "vault"];

impl Place {
    /// What stands in the block of `name` here.
    pub(super) fn inside(self, name: &str) -> Self {
        match self {
            Self::File | Self::Blueprint | Self::Body | Self::Stage | Self::Undo | Self::Each => match name {
                "pipeline" | "plan" | "stages" | "parallel" | "fanout" => Self::Body,
                "rollback" => Self::Undo,
                "each" => Self::Each,
                "stage" => Self::Stage,
                "blueprint" => Self::Blueprint,
                "steps" => Self::Steps,
                "notify" | "step" => Self::StepBlocks,
                "gates" => Self::Gates,
                "when" => Self::Conditions,
                "triggers" | "use" => Self::Phrases,
                _ => Self::Settings,
            },
            Self::StepBlocks if name == "parameters" => Self::Settings,
            Self::Steps | Self::StepBlocks => Self::Steps,
            Self::Gates => Self::Conditions,
            Self::Conditions | Self::Phrases | Self::Settings | Self::Values => Self::Settings,
        }
    }

    /// Whether this many things may stay on one line, if they fit. Each stage, step and condition has a line of its own.
    pub(super) fn is_short(self, count: usize) -> bool {
        match self {
            Self::File | Self::Blueprint | Self::Body | Self::Each => false,
            Self::Stage | Self::Undo | Self::Steps | Self::StepBlocks | Self::Gates | Self::Conditions => count == 1,
            Self::Phrases | Self::Settings | Self::Values => true,
        }
    }

    /// Whether `name value` is an older spelling of `name = value` here.
    pub(super) fn is_setting(self, name: &str) -> bool {
        match self {
            Self::Settings => !matches!(name, "from" | "use"),
            Self::Body | Self::Stage | Self::Undo | Self::Each => BODY_SETTINGS.contains(&name),
            Self::File
            | Self::Blueprint
            | Self::Steps
            | Self::StepBlocks
            | Self::Gates
            | Self::Conditions
            | Self::Phrases
            | Self::Values => false,
        }
    }

    /// Whether the arguments of `name` stand in parentheses here.
    pub(super) fn has_parentheses(self, name: &str) -> bool {
        match self {
            Self::Steps => name == "when",
            Self::File | Self::Blueprint | Self::Body | Self::Stage | Self::Undo | Self::Each => name == "each",
            // A comma behind an argument would go on with the arguments.
            Self::Values => true,
            Self::StepBlocks | Self::Gates | Self::Conditions | Self::Phrases | Self::Settings => {
                FUNCTIONS.contains(&name) || PREDICATES.contains(&name)
            }
        }
    }
}

/// Whether a name followed by `(` is an argument of what stands before it.
pub(super) fn is_function(name: &str) -> bool {
    FUNCTIONS.contains(&name)
}

/// Whether a name as an argument is read as a variable, and not as the beginning of the next entry.
pub(super) fn is_variable(name: &str) -> bool {
    name == "it" || name.contains('.')
}

/// Whether an argument can stand without parentheses around all of them.
pub(super) fn is_bare(argument: &Argument) -> bool {
    match &argument.keyword {
        Some(_) => !matches!(&argument.value.kind, ValueKind::Condition(_)),
        None => is_bare_value(&argument.value),
    }
}

/// Whether a value can be an argument without parentheses and without a keyword.
pub(super) fn is_bare_value(value: &Value) -> bool {
    match &value.kind {
        ValueKind::Text(_)
        | ValueKind::Integer(_)
        | ValueKind::Decimal(_)
        | ValueKind::Duration(_)
        | ValueKind::Size(_)
        | ValueKind::Boolean(_)
        | ValueKind::List(_) => true,
        ValueKind::Name(name) => is_variable(name),
        ValueKind::Call(entry) => FUNCTIONS.contains(&entry.name.kind.as_str()) && is_function_call(entry),
        ValueKind::Block(_) | ValueKind::Condition(_) | ValueKind::Wrong => false,
    }
}

/// Whether it is a name with arguments alone.
pub(super) fn is_function_call(entry: &Entry) -> bool {
    matches!(&entry.tail, Tail::Call(Call { block: None, .. }))
}

/// Whether these are steps, not values: calls one after the other, at least one with an argument or a block.
pub(super) fn are_steps(items: &[Item]) -> bool {
    let has_more = |call: &Call| !call.arguments.is_empty() || call.block.is_some();
    let call_of = |item: &Item| match &item.kind {
        ItemKind::Entry(Entry { name, tail: Tail::Call(call) }) => {
            (!is_variable(&name.kind) && !FUNCTIONS.contains(&name.kind.as_str())).then(|| has_more(call))
        }
        ItemKind::Entry(_) | ItemKind::Value(_) | ItemKind::Condition(_) => None,
    };
    items.iter().all(|item| call_of(item).is_some()) && items.iter().any(|item| call_of(item) == Some(true))
}

/// The only argument of an entry that has neither a keyword nor a block.
pub(super) fn only_argument(entry: &Entry) -> Option<&Value> {
    match &entry.tail {
        Tail::Call(Call { arguments, block: None }) => match arguments.as_slice() {
            [Argument { keyword: None, value }] => Some(value),
            _ => None,
        },
        Tail::Call(_) | Tail::Assign(_) | Tail::Arrow(_) => None,
    }
}

/// The block of an entry that has nothing else.
pub(super) fn only_block(entry: &Entry) -> Option<&Block> {
    match &entry.tail {
        Tail::Call(Call { arguments, block }) if arguments.is_empty() => block.as_ref(),
        Tail::Call(_) | Tail::Assign(_) | Tail::Arrow(_) => None,
    }
}

/// The one entry of this name; `None` if there is none, or there are several.
pub(super) fn only_entry<'t>(items: &'t [Item], name: &str) -> Option<(&'t Item, &'t Entry)> {
    let mut named = items.iter().filter_map(|item| match &item.kind {
        ItemKind::Entry(entry) if entry.name.kind == name => Some((item, entry)),
        ItemKind::Entry(_) | ItemKind::Value(_) | ItemKind::Condition(_) => None,
    });
    let first = named.next();
    if named.next().is_some() { None } else { first }
}

/// Whether there is an entry of this name.
pub(super) fn has_entry(items: &[Item], name: &str) -> bool {
    items.iter().any(|item| matches!(&item.kind, ItemKind::Entry(entry) if entry.name.kind == name))
}

/// Where the name of a stage stands in its block: the setting and its value.
pub(super) fn name_setting(call: &Call) -> Option<(&Item, &Value)> {
    let block = call.block.as_ref().filter(|_| call.arguments.is_empty())?;
    let (item, entry) = only_entry(&block.kind, "name")?;
    let value = match &entry.tail {
        Tail::Assign(value) => value,
        Tail::Call(_) => only_argument(entry)?,
        Tail::Arrow(_) => return None,
    };
    is_bare_value(value).then_some((item, value))
}
