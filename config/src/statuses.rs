//! Where a forge is told how the runs of a commit go.

use std::path::PathBuf;

use serde::Deserialize;

use crate::project::{Fetch, ForgeKind, Source, Webhook};

/// Where a forge is told how the runs of a commit go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Statuses {
    /// Whose API it is.
    pub forge: ForgeKind,
    /// The API's address, without a slash at its end.
    pub api: String,
    /// The repository as the forge names it: names with slashes between them, of letters, digits, `.`, `_` and `-`.
    pub repository: String,
    /// The absolute path of a file with nothing but a token that may set statuses. It is read each time.
    pub token_file: PathBuf,
    /// Whether the API may have an address that is not of the public internet.
    pub private_network: bool,
}

/// The same as it is written.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct StatusesFile {
    forge: Option<ForgeKind>,
    api: Option<String>,
    repository: Option<String>,
    token_file: PathBuf,
    private_network: Option<bool>,
}

impl StatusesFile {
    /// What it means beside the rest of the project's file.
    pub(crate) fn resolve(self, webhook: Option<&Webhook>, source: &Source, fetch: &Fetch) -> Result<Statuses, (&'static str, String)> {
        let Self { forge, api, repository, token_file, private_network } = self;
        let unnamed = |path: &'static str, what: &str| (path, what.to_owned());
        let forge = forge.or_else(|| webhook.map(|webhook| webhook.forge));
        let forge = forge.ok_or_else(|| unnamed("statuses.forge", "name the forge, such as `github`"))?;
        if !token_file.is_absolute() {
            return Err(("statuses.token_file", format!("`{}` is no absolute path", token_file.display())));
        }
        let address = match source {
            Source::Remote(address) => address.split_once("://"),
            Source::Repository(_) => None,
        };
        let place = address.map(|(scheme, rest)| (scheme, rest.split_once('/').unwrap_or((rest, ""))));
        let private_network = private_network.unwrap_or(api.is_none() && place.is_some() && fetch.private_network);
        let api = match (api, place) {
            (Some(api), _) => api.trim_end_matches('/').to_owned(),
            (None, place) => default_api(forge, place.map(|(scheme, (host, _))| (scheme, host)))
                .ok_or_else(|| unnamed("statuses.api", "name the API's address"))?,
        };
        check_api(&api, private_network).map_err(|why| ("statuses.api", format!("`{api}` {why}")))?;
        let named = repository.or_else(|| webhook.and_then(|webhook| webhook.repository.clone()));
        let of_address = || place.map(|(_, (_, path))| path.trim_matches('/').trim_end_matches(".git").to_owned());
        let repository =
            named.or_else(of_address).ok_or_else(|| unnamed("statuses.repository", "name the repository, such as `octo/shop`"))?;
        if !is_repository(forge, &repository) {
            return Err(("statuses.repository", format!("`{repository}` is no repository of a forge: write it as `octo/shop`")));
        }
        Ok(Statuses { forge, api, repository, token_file, private_network })
    }
}

/// Where the API of a forge is, whose repositories have addresses on this host.
fn default_api(forge: ForgeKind, place: Option<(&str, &str)>) -> Option<String> {
    let origin = place.map(|(scheme, host)| format!("{scheme}://{host}"));
    match (forge, place, origin) {
        (ForgeKind::Github, None | Some((_, "github.com")), _) => Some("https://api.github.com".to_owned()),
        (ForgeKind::Github, Some(_), Some(origin)) => Some(format!("{origin}/api/v3")),
        (ForgeKind::Gitlab, None, _) => Some("https://gitlab.com/api/v4".to_owned()),
        (ForgeKind::Gitlab, Some(_), Some(origin)) => Some(format!("{origin}/api/v4")),
        (ForgeKind::Gitea | ForgeKind::Forgejo, Some(_), Some(origin)) => Some(format!("{origin}/api/v1")),
        (ForgeKind::Github | ForgeKind::Gitlab | ForgeKind::Gitea | ForgeKind::Forgejo, _, _) => None,
    }
}

fn check_api(api: &str, private_network: bool) -> Result<(), &'static str> {
    let (scheme, rest) = api.split_once("://").ok_or("is no https:// address")?;
    let host = rest.split('/').next().unwrap_or_default();
    match scheme {
        _ if host.is_empty() || api.contains(['?', '#']) || api.contains(char::is_whitespace) => Err("is no https:// address"),
        _ if host.contains('@') => Err("holds a user: name a file with the token instead"),
        "https" => Ok(()),
        "http" if private_network => Ok(()),
        "http" => Err("would carry the token in the clear; `private_network: true` of `statuses` allows it"),
        _ => Err("is no https:// address"),
    }
}

fn is_repository(forge: ForgeKind, name: &str) -> bool {
    let is_name = |part: &str| {
        !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte)) && part != "." && part != ".."
    };
    let parts = name.split('/').count();
    let depth = match forge {
        ForgeKind::Github | ForgeKind::Gitea | ForgeKind::Forgejo => parts == 2,
        // Groups have groups.
        ForgeKind::Gitlab => (2..=20).contains(&parts),
    };
    depth && name.split('/').all(is_name)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resolved(text: &str, address: Option<&str>) -> Result<Statuses, String> {
        let source = address.map_or_else(|| Source::Repository("/srv/shop.git".into()), |address| Source::Remote(address.to_owned()));
        let fetch = Fetch { private_network: false, bytes_max: 1, credentials_file: None, poll: None };
        serde_saphyr::from_str::<StatusesFile>(text)
            .unwrap()
            .resolve(None, &source, &fetch)
            .map_err(|(path, what)| format!("{path}: {what}"))
    }

    #[test]
    fn the_api_and_the_repository_follow_from_the_source_where_they_are_not_named() {
        for (forge, address, api, repository) in [
            ("github", Some("https://github.com/octo/shop.git"), "https://api.github.com", "octo/shop"),
            ("github", Some("https://git.test/octo/shop"), "https://git.test/api/v3", "octo/shop"),
            ("gitlab", Some("https://git.test/group/sub/shop.git"), "https://git.test/api/v4", "group/sub/shop"),
            ("forgejo", Some("https://git.test:3000/octo/shop.git/"), "https://git.test:3000/api/v1", "octo/shop"),
        ] {
            let statuses = resolved(&format!("{{ forge: {forge}, token_file: /t }}"), address).unwrap();
            assert_eq!((statuses.api.as_str(), statuses.repository.as_str()), (api, repository), "{address:?}");
        }
        let named = resolved("{ forge: gitea, token_file: /t, api: 'https://git.test/api/v1/', repository: a/b }", None).unwrap();
        assert_eq!((named.api.as_str(), named.repository.as_str(), named.private_network), ("https://git.test/api/v1", "a/b", false));
    }

    #[test]
    fn what_would_tell_somebody_else_or_in_the_clear_is_refused() {
        for (text, why) in [
            ("{ token_file: /t }", "name the forge"),
            ("{ forge: github, token_file: t, repository: a/b }", "no absolute path"),
            ("{ forge: gitea, token_file: /t, repository: a/b }", "statuses.api"),
            ("{ forge: github, token_file: /t }", "statuses.repository"),
            ("{ forge: github, token_file: /t, repository: a/b, api: 'http://git.test' }", "in the clear"),
            ("{ forge: github, token_file: /t, repository: a/b, api: 'https://ann@git.test' }", "holds a user"),
            ("{ forge: github, token_file: /t, repository: a/b, api: 'ftp://git.test' }", "no https"),
            ("{ forge: github, token_file: /t, repository: a/b, api: 'https://git.test/?x' }", "no https"),
            ("{ forge: github, token_file: /t, repository: a/../b }", "no repository"),
            ("{ forge: gitlab, token_file: /t, repository: 'a/b?c' }", "no repository"),
            ("{ forge: github, token_file: /t, repository: a/b/c }", "no repository"),
        ] {
            let refused = resolved(text, None).unwrap_err();
            assert!(refused.contains(why), "{text}: {refused}");
        }
    }
}
