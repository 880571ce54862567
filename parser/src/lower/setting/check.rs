//! What is wrong with a stage's settings only once those of its groups are known.

use std::collections::{BTreeMap, BTreeSet};

use model::plan::Effect;

use super::Inherited;
use crate::diagnostic::{Code, Finding, Findings, quoted};

/// The environments that list a credential, by its name: it may be used in these only.
pub(in crate::lower) type CredentialPlaces = BTreeMap<String, BTreeSet<String>>;

impl Inherited<'_> {
    /// Refuses what does not fit together in a stage with steps.
    pub(in crate::lower) fn check(&self, places: &CredentialPlaces, findings: &mut Findings) {
        self.check_retry(findings);
        self.check_credentials(places, findings);
    }

    /// A `retry` that stands farther out than what makes the stage `once` is a default that does not fit; one beside it is a mistake.
    fn check_retry(&self, findings: &mut Findings) {
        if self.effect() == Effect::Safe {
            return;
        }
        for settings in self.chain() {
            if let Some(retry) = settings.retry.as_ref().filter(|retry| retry.kind.attempts > 1) {
                let finding = Finding::new(Code::OnceRetried, retry.span, "a stage that is `once` is never started again by itself");
                let help = if settings.effect == Some(Effect::Once) {
                    "leave `retry` out, or write `effect = safe` if starting it again does no harm"
                } else {
                    "a stage with an `environment` is `once`: leave `retry` out, or write `effect = safe` if starting it again does no harm"
                };
                let outer = findings.enter(settings.file);
                findings.add(finding.help(help));
                findings.enter(outer);
                return;
            }
            if settings.effect.is_some() || settings.deployment.is_some() {
                return;
            }
        }
    }

    fn check_credentials(&self, places: &CredentialPlaces, findings: &mut Findings) {
        let Some((file, names)) = self.credentials() else { return };
        let environment = self.environment();
        for name in names {
            let Some(allowed) = places.get(&name.kind) else { continue };
            if environment.is_some_and(|environment| allowed.contains(environment)) {
                continue;
            }
            let allowed: Vec<String> = allowed.iter().map(|environment| quoted(environment)).collect();
            let message = match environment {
                Some(environment) => format!("the credential {} may not be used in {}", quoted(&name.kind), quoted(environment)),
                None => format!("the credential {} may be used in an environment only", quoted(&name.kind)),
            };
            let finding = Finding::new(Code::CredentialElsewhere, name.span, message);
            let outer = findings.enter(file);
            findings
                .add(finding.help(format!("`environments` allows it in {}: use it in a stage that delivers there", allowed.join(", "))));
            findings.enter(outer);
        }
    }
}
