//! `services { db { image = 'postgres:16' } }`: containers beside a stage.

use std::collections::BTreeMap;

use model::{diagnostic::Span, plan::Service};

use super::{Lowering, read::Keys};
use crate::{
    diagnostic::{Code, Finding, quoted},
    limits::{HOST_LABEL_BYTES_MAX, SERVICES_MAX},
    syntax::{Entry, Name},
};

const SERVICE: Keys = Keys { within: "in a service", names: &["image", "env", "port", "ready"] };
const FORM: &str = "write `services { db { image = 'postgres:16' port = 5432 } }`";

impl Lowering<'_, '_> {
    /// `services { … }`, in the order in which they are written.
    pub(super) fn services(&mut self, entry: &Entry) -> Option<Vec<Service>> {
        let block = self.block(entry)?;
        let entries = self.entries(&block.kind, "in `services`");
        if let Some(one_too_many) = entries.get(SERVICES_MAX) {
            let message = format!("a stage has at most {SERVICES_MAX} services");
            self.error(Finding::new(Code::SettingValue, one_too_many.name.span, message).label("one too many"));
            return None;
        }
        let mut hosts: BTreeMap<String, Span> = BTreeMap::new();
        let mut services = Vec::new();
        for entry in entries {
            if !self.is_host(&entry.name) {
                continue;
            }
            if let Some(first) = hosts.insert(entry.name.kind.to_ascii_lowercase(), entry.name.span) {
                self.doubled(&format!("the host {}", quoted(&entry.name.kind)), entry.name.span, first);
            }
            services.extend(self.service(entry));
        }
        Some(services)
    }

    /// RFC 1123, section 2.1: letters, digits and `-` inside.
    fn is_host(&mut self, name: &Name) -> bool {
        let host = name.kind.as_str();
        let problem = if host.len() > HOST_LABEL_BYTES_MAX {
            format!("the name of a host has at most {HOST_LABEL_BYTES_MAX} letters")
        } else if !host.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-') || host.ends_with('-') {
            format!("{} cannot be the name of a host", quoted(host))
        } else if host.eq_ignore_ascii_case("localhost") {
            "`localhost` is the stage's own host".to_owned()
        } else {
            return true;
        };
        let help = "the steps reach a service under its name: letters, digits, and `-` between them (RFC 1123)";
        self.error(Finding::new(Code::HostName, name.span, problem).help(help));
        false
    }

    fn service(&mut self, entry: &Entry) -> Option<Service> {
        let Some(block) = Self::block_of(entry) else {
            let finding = Finding::new(Code::Shape, entry.name.span, "a service takes a block");
            self.error(finding.help(FORM));
            return None;
        };
        let keys = self.keyed(&block.kind, &SERVICE);
        let Some(image) = keys.get("image") else {
            self.missing_key(&entry.name, block, &SERVICE, "image", FORM);
            return None;
        };
        let image = self.image(image);
        let environment = keys.get("env").and_then(|entry| self.block(entry)).map(|block| self.variables(&block.kind, "in `env`"));
        let port = keys.get("port").and_then(|entry| self.value_of(entry));
        let port =
            port.and_then(|value| self.number_within(value, "`port`", 1..=i64::from(u16::MAX))).and_then(|port| u16::try_from(port).ok());
        let ready = keys.get("ready").and_then(|entry| self.value_of(entry)).and_then(|value| self.code(value, "`ready`"));
        Some(Service { name: entry.name.kind.clone(), image: image?, environment: environment.unwrap_or_default(), port, ready })
    }
}
