//! `environments { … }` at the top level: where stages deliver to. It narrows what the project's configuration on the server allows, and
//! never widens it.

use std::{collections::BTreeMap, rc::Rc};

use model::plan::Deployment;

use super::{
    Lowering,
    setting::{CredentialPlaces, Keys},
};
use crate::{
    diagnostic::{Code, Finding, quoted},
    syntax::{Block, Entry, Name},
};

const ENVIRONMENT: Keys = Keys { within: "in an environment", names: &["settings", "credentials", "protected"] };

/// An environment as the file declares it.
#[derive(Debug)]
pub(super) struct Environment {
    /// What stages that deliver here say of it; shared, since the settings may be long.
    pub(super) deployment: Rc<Deployment>,
    /// The credentials that may be used here, and elsewhere only where they are listed, too.
    pub(super) credentials: Vec<Name>,
}

impl Lowering<'_, '_> {
    /// `environments { preprod { settings { HOSTNAME = '…' } } production { credentials = ['deploy-key'] protected = true } }`, after
    /// [`Lowering::declare_credentials`].
    pub(super) fn declare_environments(&mut self, block: &Block) {
        for entry in self.entries(&block.kind, "in `environments`") {
            let name = &entry.name;
            if name.kind.contains('.') {
                let finding = Finding::new(Code::SettingValue, name.span, format!("{} cannot name an environment", quoted(&name.kind)));
                self.error(finding.help("use letters, digits, `_` and `-`"));
                continue;
            }
            let environment = self.environment_of(entry);
            self.environments.insert(name.kind.clone(), environment);
        }
    }

    /// What is wrong with it is told, and left out: the environment is declared nevertheless.
    fn environment_of(&mut self, entry: &Entry) -> Environment {
        let mut deployment = Deployment { environment: entry.name.kind.clone(), protected: false, settings: BTreeMap::new() };
        let mut credentials = Vec::new();
        if let Some(block) = Self::block_of(entry) {
            let keys = self.keyed(&block.kind, &ENVIRONMENT);
            if let Some(block) = keys.get("settings").and_then(|entry| self.block(entry)) {
                deployment.settings = self.variables(&block.kind, "in `settings`");
            }
            if let Some(value) = keys.get("credentials").and_then(|entry| self.value_of(entry)) {
                credentials = self.credential_names(value).unwrap_or_default();
            }
            if let Some(entry) = keys.get("protected") {
                deployment.protected = self.flag(entry).unwrap_or_default();
            }
        } else {
            let message = format!("the environment {} takes a block", quoted(&entry.name.kind));
            let help = format!("write `{} {{ settings {{ HOSTNAME = '…' }} }}`", entry.name.kind);
            self.error(Finding::new(Code::Shape, entry.name.span, message).help(help));
        }
        Environment { deployment: Rc::new(deployment), credentials }
    }

    /// Where each credential that an environment lists may be used.
    pub(super) fn credential_places(&self) -> CredentialPlaces {
        let mut places = CredentialPlaces::new();
        for (name, environment) in &self.environments {
            for credential in &environment.credentials {
                places.entry(credential.kind.clone()).or_default().insert(name.clone());
            }
        }
        places
    }
}
