//! `env { K = 'v' }`, and what else gives variables of the environment.

use std::collections::BTreeMap;

use model::plan;

use super::{From, Lowering};
use crate::{
    diagnostic::{Code, Finding, quoted},
    syntax::{Entry, Item, Name, Value, ValueKind},
};

/// Variables of which shells, loaders, interpreters and build tools run the value, or what it names (bash(1), ld.so(8), git(1), and the
/// manuals of the others): text from outside in them is code.
const CODE_VARIABLES: [&str; 45] = [
    "BASHOPTS",
    "BASH_ENV",
    "CARGO_BUILD_RUSTC",
    "CARGO_BUILD_RUSTC_WRAPPER",
    "CC",
    "CXX",
    "DYLD_INSERT_LIBRARIES",
    "DYLD_LIBRARY_PATH",
    "EDITOR",
    "ENV",
    "GIT_ASKPASS",
    "GIT_CONFIG_COUNT",
    "GIT_CONFIG_GLOBAL",
    "GIT_CONFIG_PARAMETERS",
    "GIT_CONFIG_SYSTEM",
    "GIT_EDITOR",
    "GIT_EXEC_PATH",
    "GIT_EXTERNAL_DIFF",
    "GIT_PAGER",
    "GIT_SSH",
    "GIT_SSH_COMMAND",
    "IFS",
    "JAVA_TOOL_OPTIONS",
    "JDK_JAVA_OPTIONS",
    "LD_AUDIT",
    "LD_LIBRARY_PATH",
    "LD_PRELOAD",
    "MAKEFILES",
    "MAKEFLAGS",
    "NODE_OPTIONS",
    "PAGER",
    "PATH",
    "PERL5LIB",
    "PERL5OPT",
    "PROMPT_COMMAND",
    "PS4",
    "PYTHONPATH",
    "PYTHONSTARTUP",
    "RUBYLIB",
    "RUBYOPT",
    "RUSTC_WRAPPER",
    "RUSTFLAGS",
    "SHELL",
    "SHELLOPTS",
    "VISUAL",
];

impl Lowering<'_, '_> {
    /// `env { K = 'v' }`, with what is copied into it.
    pub(super) fn environment(&mut self, entry: &Entry, from: &mut Vec<From>) -> BTreeMap<String, plan::Value> {
        let mut environment = BTreeMap::new();
        let Some(block) = self.block(entry) else { return environment };
        self.with_copies("env", block, from, |lowering, layer| {
            environment.extend(lowering.variables(layer.items, "in `env`"));
        });
        environment
    }

    /// Variables of the environment, by name.
    pub(in crate::lower) fn variables(&mut self, items: &[Item], within: &str) -> BTreeMap<String, plan::Value> {
        let mut variables = BTreeMap::new();
        for entry in self.entries(items, within) {
            let Name { kind: name, span } = &entry.name;
            if name.contains(['-', '.']) {
                let message = format!("{} cannot be the name of a variable", quoted(name));
                self.error(Finding::new(Code::VariableName, *span, message).help("use letters, digits and `_`"));
                continue;
            }
            if let Some(value) = self.value_of(entry).and_then(|value| self.variable_value(name, value)) {
                variables.insert(name.clone(), value);
            }
        }
        variables
    }

    /// A text; a number or a boolean stands for the text as it is written.
    fn variable_value(&mut self, name: &str, value: &Value) -> Option<plan::Value> {
        let text = "a variable of the environment";
        match &value.kind {
            ValueKind::Integer(_) | ValueKind::Decimal(_) | ValueKind::Boolean(_) => {
                let written = self.source.text.get(value.span.start..value.span.end)?;
                return Some(plan::Value::Text(written.trim().to_owned()));
            }
            ValueKind::Duration(_) | ValueKind::Size(_) => {
                return self.wrong_value(value, "a variable of the environment is a text", "write it in quotes");
            }
            ValueKind::Text(_)
            | ValueKind::List(_)
            | ValueKind::Block(_)
            | ValueKind::Name(_)
            | ValueKind::Call(_)
            | ValueKind::Condition(_)
            | ValueKind::Wrong => {}
        }
        let known = self.text_value(value, text)?;
        if CODE_VARIABLES.contains(&name) {
            self.no_outside(&known, value.span, &format!("the variable {}", quoted(name)))?;
        }
        Some(known.value)
    }
}
