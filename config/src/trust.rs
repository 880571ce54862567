//! What protects a project, and what follows from it for a trigger.

use std::{collections::BTreeMap, fmt};

use model::{
    context::{EventKind, TriggerContext},
    glob::{Glob, GlobError},
    trigger::{Claims, Trust},
};
use serde::{Deserialize, Deserializer};

/// A pattern of branches or tags.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RefPattern {
    text: String,
    glob: Glob,
}

impl RefPattern {
    pub(crate) fn new(text: &str) -> Result<Self, GlobError> {
        Ok(Self { text: text.to_owned(), glob: Glob::new(text)? })
    }

    /// Whether the branch or tag is meant; no pattern means the empty text.
    pub fn matches(&self, name: &str) -> bool {
        !name.is_empty() && self.glob.matches(name)
    }
}

impl fmt::Display for RefPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl<'de> Deserialize<'de> for RefPattern {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Self::new(&text).map_err(|error| serde::de::Error::custom(format!("`{text}`: {error}")))
    }
}

/// Which branches and tags.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Refs {
    /// Branches, such as `main` or `release/*`.
    #[serde(default)]
    pub branches: Vec<RefPattern>,
    /// Tags, such as `v*`.
    #[serde(default)]
    pub tags: Vec<RefPattern>,
}

impl Refs {
    /// Whether what was pushed is one of them. A pull request is none: its commits are on no branch of the project yet.
    pub fn matches(&self, context: &TriggerContext) -> bool {
        let is = |patterns: &[RefPattern], name: &str| patterns.iter().any(|pattern| pattern.matches(name));
        context.pull_request.is_none() && (is(&self.branches, &context.branch) || is(&self.tags, &context.tag))
    }

    /// Whether the branch is one of them.
    pub fn has_branch(&self, name: &str) -> bool {
        self.branches.iter().any(|pattern| pattern.matches(name))
    }
}

/// What is done with a pull request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PullRequests {
    /// Nothing.
    Ignore,
    /// A run without secrets, on agents for untrusted work, with a cache of its own; one from a fork by the pipeline of its base.
    Run,
}

/// What protects a project.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Protection {
    /// Whether its code is trusted at all. Nothing of a project that is not is: its runs deliver nothing, and have caches of their own.
    pub trust: Trust,
    /// Who can push there is trusted with the project: by default its `main` and `master`.
    pub protected: Refs,
    /// Pull requests from branches of the project itself.
    pub pull_requests: PullRequests,
    /// Pull requests from other repositories.
    pub forks: PullRequests,
    /// What is delivered to, by name, and who may. An environment of the pipeline file that is not here is open to every trusted run.
    pub environments: BTreeMap<String, Environment>,
}

impl Default for Protection {
    fn default() -> Self {
        let pattern = |text: &str| RefPattern { text: text.to_owned(), glob: Glob::new(text).expect("it has no special characters") };
        Self {
            trust: Trust::Trusted,
            protected: Refs { branches: vec![pattern("main"), pattern("master")], tags: Vec::new() },
            pull_requests: PullRequests::Run,
            forks: PullRequests::Ignore,
            environments: BTreeMap::new(),
        }
    }
}

/// What protects an environment.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Environment {
    /// What may be delivered to it; without one, what is protected.
    pub from: Option<Refs>,
    /// The people, by the names of their API tokens, one of whom must approve each delivery; nobody need if there is none.
    pub approvers: Vec<String>,
}

impl Protection {
    /// What is true of a trigger whose context a forge has verified. `actor` is who caused it, as the forge knows them.
    pub fn claims(&self, context: &TriggerContext, actor: Option<String>) -> Claims {
        let trust = match context.event {
            EventKind::PullRequest => Trust::Untrusted,
            EventKind::Push | EventKind::Tag | EventKind::MergeQueue | EventKind::Cron | EventKind::Manual => Trust::Trusted,
        };
        // The least of what they say.
        let trust = if context.pull_request.is_some() { Trust::Untrusted } else { trust.max(self.trust) };
        Claims { trust, protected: trust == Trust::Trusted && self.protected.matches(context), actor }
    }

    /// Why a run of these claims may not deliver to the environment, if it may not.
    pub fn refuses_delivery(&self, environment: &str, context: &TriggerContext, claims: &Claims) -> Option<String> {
        if claims.trust == Trust::Untrusted {
            return Some(format!("an untrusted run delivers nothing, and so nothing to `{environment}`"));
        }
        let protected = self.environments.get(environment)?;
        let is_allowed = protected.from.as_ref().map_or(claims.protected, |from| from.matches(context));
        (!is_allowed).then(|| {
            let name = [&context.branch, &context.tag].into_iter().find(|name| !name.is_empty()).map_or("no branch", String::as_str);
            format!("the project's configuration lets `{name}` not be delivered to `{environment}`")
        })
    }
}

#[cfg(test)]
mod tests {
    use model::context::PullRequest;

    use super::*;

    fn protection(yaml: &str) -> Protection {
        serde_saphyr::from_str(yaml).unwrap()
    }

    fn push(branch: &str) -> TriggerContext {
        TriggerContext { event: EventKind::Push, branch: branch.to_owned(), ..TriggerContext::default() }
    }

    #[test]
    fn what_protects_is_said_by_the_configuration() {
        let protection = protection("protected: { branches: [main, 'release/*'], tags: ['v*'] }");
        for (context, protected) in [
            (push("main"), true),
            (push("release/1"), true),
            (push("feature"), false),
            (push("main/x"), false),
            (TriggerContext { event: EventKind::Tag, tag: "v1".to_owned(), ..TriggerContext::default() }, true),
            (TriggerContext { event: EventKind::Tag, tag: "x1".to_owned(), ..TriggerContext::default() }, false),
        ] {
            let claims = protection.claims(&context, None);
            assert_eq!((claims.protected, claims.trust), (protected, Trust::Trusted), "{context:?}");
        }
    }

    #[test]
    fn a_pull_request_is_untrusted_whatever_its_branches_are_called() {
        let pull_request = Some(PullRequest { number: 1, target: "main".into(), source: "main".into(), fork: true });
        for event in EventKind::ALL {
            let context = TriggerContext { event, branch: "main".into(), pull_request: pull_request.clone(), ..TriggerContext::default() };
            let claims = Protection::default().claims(&context, None);
            assert_eq!((claims.trust, claims.protected), (Trust::Untrusted, false), "{event:?}");
            assert!(Protection::default().refuses_delivery("production", &context, &claims).is_some());
        }
    }

    #[test]
    fn nothing_of_a_project_that_is_not_trusted_is() {
        let claims = protection("trust: untrusted").claims(&push("main"), None);
        assert_eq!((claims.trust, claims.protected), (Trust::Untrusted, false));
        assert!(serde_saphyr::from_str::<Protection>("trust: yes").is_err());
    }

    #[test]
    fn an_environment_takes_only_what_may_be_delivered_to_it() {
        let protection = protection("environments: { production: {}, preprod: { from: { branches: ['*'] } } }");
        let refused = |environment: &str, branch: &str| {
            let context = push(branch);
            protection.refuses_delivery(environment, &context, &protection.claims(&context, None)).is_some()
        };
        assert_eq!([refused("production", "main"), refused("production", "feature")], [false, true]);
        assert_eq!([refused("preprod", "feature"), refused("preprod", "a/b"), refused("sandbox", "a/b")], [false, true, false]);
    }

    #[test]
    fn a_wrong_pattern_is_named() {
        let error = serde_saphyr::from_str::<Protection>("protected: { branches: ['re[lease'] }").unwrap_err().to_string();
        assert!(error.contains("re[lease"), "{error}");
    }
}
