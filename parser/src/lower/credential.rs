//! `credentials { … }` at the top level: references to secrets, and where they may go. A value is refused, and never repeated in a message.

use std::collections::{BTreeMap, BTreeSet};

use model::{
    diagnostic::Span,
    plan::{Credential, Stage},
};

use super::{Lowering, setting::Keys};
use crate::{
    diagnostic::{Code, Finding, quoted},
    limits::{HOST_BYTES_MAX, HOST_LABEL_BYTES_MAX, SETTING_TEXT_BYTES_MAX},
    suggest::did_you_mean,
    syntax::{Block, Call, Entry, Name, Tail, Value, ValueKind},
};

const CREDENTIAL: Keys = Keys { within: "in a credential", names: &["ref", "hosts", "expose"] };
const FORM: &str = "write where the value lies: `deploy-key = vault('secret/data/team/deploy#key')`";

impl Lowering<'_, '_> {
    /// `credentials { deploy-key = vault('…#key') other = { ref = vault('…#key') hosts = ['example.org'] expose = true } }`.
    pub(super) fn declare_credentials(&mut self, block: &Block) {
        for entry in self.entries(&block.kind, "in `credentials`") {
            let name = &entry.name;
            if name.kind.contains('.') {
                let finding = Finding::new(Code::SettingValue, name.span, format!("{} cannot name a credential", quoted(&name.kind)));
                self.error(finding.help("use letters, digits, `_` and `-`"));
                continue;
            }
            // A wrong one is declared nevertheless: its uses are not wrong because of it.
            let credential = self.credential_of(entry);
            let nowhere = || Credential { vault: String::new(), key: String::new(), hosts: Vec::new(), expose: false };
            self.declared_credentials.insert(name.kind.clone(), credential.unwrap_or_else(nowhere));
        }
    }

    fn credential_of(&mut self, entry: &Entry) -> Option<Credential> {
        let Some(block) = Self::block_of(entry) else {
            let Tail::Assign(value) = &entry.tail else {
                let span = Span { start: entry.name.span.start, end: entry_end(entry) };
                return self.no_reference(&entry.name, span);
            };
            let (vault, key) = self.reference_of(value, &entry.name)?;
            return Some(Credential { vault, key, hosts: Vec::new(), expose: false });
        };
        let keys = self.keyed(&block.kind, &CREDENTIAL);
        let Some(reference) = keys.get("ref") else {
            self.missing_key(
                &entry.name,
                block,
                &CREDENTIAL,
                "ref",
                "write `{ ref = vault('secret/data/team/deploy#key') hosts = ['example.org'] }`",
            );
            return None;
        };
        let Tail::Assign(value) = &reference.tail else {
            return self.no_reference(&entry.name, Span { start: reference.name.span.start, end: entry_end(reference) });
        };
        let reference = self.reference_of(value, &entry.name);
        let hosts = keys.get("hosts").and_then(|entry| self.value_of(entry)).map(|value| self.hosts(value));
        let expose = keys.get("expose").and_then(|entry| self.flag(entry)).unwrap_or_default();
        let (vault, key) = reference?;
        Some(Credential { vault, key, hosts: hosts.unwrap_or(Some(Vec::new()))?, expose })
    }

    /// `vault('secret/data/team/deploy#key')`: the path and the field.
    fn reference_of(&mut self, value: &Value, name: &Name) -> Option<(String, String)> {
        let ValueKind::Call(call) = &value.kind else {
            return if value.kind == ValueKind::Wrong { None } else { self.no_reference(name, value.span) };
        };
        let Entry { name: function, tail: Tail::Call(Call { arguments, block: None }) } = call.as_ref() else {
            return self.no_reference(name, value.span);
        };
        let [argument] = arguments.as_slice() else { return self.no_reference(name, value.span) };
        let (true, None, ValueKind::Text(text)) = (function.kind == "vault", &argument.keyword, &argument.value.kind) else {
            return self.no_reference(name, value.span);
        };
        match text.split_once('#') {
            Some((path, key)) if is_vault_path(path) && is_vault_name(key) && text.len() <= SETTING_TEXT_BYTES_MAX => {
                Some((path.to_owned(), key.to_owned()))
            }
            _ => {
                // Somebody may have written the value into the call.
                let finding = Finding::new(Code::CredentialReference, argument.value.span, "this is no path and field of a secret");
                self.error(finding.help("write the secret's path, `#` and its field: `vault('secret/data/team/deploy#key')`"));
                None
            }
        }
    }

    fn no_reference<T>(&mut self, name: &Name, span: Span) -> Option<T> {
        let message = format!("the credential {} must be a reference, and no value may stand here", quoted(&name.kind));
        let finding = Finding::new(Code::CredentialValue, span, message).label("only `vault('…#…')` may stand here");
        let help = "if it was a secret, change it: what was once in a repository is known";
        self.error(finding.help(format!("{FORM}\n{help}")));
        None
    }

    /// `['example.org', '*.example.org']`; `None` if one is wrong, which is told.
    fn hosts(&mut self, value: &Value) -> Option<Vec<String>> {
        let hosts = self.lines_of_text(value, "a host")?;
        let mut sound = true;
        if hosts.is_empty() {
            return self.wrong_value(value, "the credential could be sent nowhere", "leave `hosts` out, or name one");
        }
        for host in &hosts {
            if !is_host_pattern(&host.kind) {
                sound = false;
                let finding = Finding::new(Code::HostName, host.span, format!("{} is no name of a host", quoted(&host.kind)));
                self.error(finding.help("write `example.org`, or `*.example.org` for all below it: no protocol, port or path"));
            }
        }
        sound.then(|| hosts.into_iter().map(|host| host.kind.to_ascii_lowercase()).collect())
    }

    /// Names of credentials that are declared, each once, and chosen by nothing from outside.
    pub(super) fn credential_names(&mut self, value: &Value) -> Option<Vec<Name>> {
        if let Some(outside) = self.known(value)?.outside {
            let message = format!("{} comes from outside, and must not choose a credential", quoted(&outside));
            return self.wrong_value(value, message, "write the names: `credentials = ['deploy-key']`");
        }
        let names = self.lines_of_text(value, "the name of a credential")?;
        let mut sound = true;
        for name in &names {
            if !self.declared_credentials.contains_key(&name.kind) {
                sound = false;
                self.unknown_credential(name);
            }
        }
        sound.then_some(names)
    }

    /// Says that no credential of this name is declared.
    pub(super) fn unknown_credential(&mut self, name: &Name) {
        let near = if self.findings.is_full() {
            String::new()
        } else {
            did_you_mean(&name.kind, self.declared_credentials.keys().map(String::as_str))
        };
        let help = match near {
            near if near.is_empty() => "declare it at the top level: `credentials { name = vault('…#…') }`".to_owned(),
            near => format!("{near}\ncredentials are declared at the top level, in `credentials {{ … }}`"),
        };
        let message = format!("there is no credential {}", quoted(&name.kind));
        self.error(Finding::new(Code::CredentialUnknown, name.span, message).help(help));
    }

    /// The declared credentials that a stage may use.
    pub(super) fn used_credentials(&self, stages: &[Stage]) -> BTreeMap<String, Credential> {
        let used: BTreeSet<&String> = stages.iter().flat_map(|stage| &stage.credentials).collect();
        used.into_iter().filter_map(|name| Some((name.clone(), self.declared_credentials.get(name)?.clone()))).collect()
    }
}

/// The end of what belongs to an entry.
fn entry_end(entry: &Entry) -> usize {
    match &entry.tail {
        Tail::Assign(value) => value.span.end,
        Tail::Arrow(name) => name.span.end,
        Tail::Call(Call { arguments, block }) => {
            let arguments = arguments.last().map_or(entry.name.span.end, |argument| argument.value.span.end);
            block.as_ref().map_or(arguments, |block| block.span.end)
        }
    }
}

fn is_vault_name(name: &str) -> bool {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'.');
    !name.is_empty() && name.bytes().all(is_plain) && name != "." && name != ".."
}

fn is_vault_path(path: &str) -> bool {
    path.contains('/') && path.split('/').all(is_vault_name)
}

/// A host name (RFC 1123, section 2.1), or `*.` and one.
fn is_host_pattern(pattern: &str) -> bool {
    let host = pattern.strip_prefix("*.").unwrap_or(pattern);
    let is_label = |label: &str| {
        let sound = !label.is_empty() && label.len() <= HOST_LABEL_BYTES_MAX && !label.starts_with('-') && !label.ends_with('-');
        sound && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
    };
    host.len() <= HOST_BYTES_MAX && host.split('.').all(is_label) && (host.len() == pattern.len() || host.contains('.'))
}
