//! `otto projects`: what the server delivers, and what protects it.

use std::process::ExitCode;

use apispec::{ProjectList, ProjectView, RefsView, SourceView};
use clap::Args;

use super::{
    Terminal,
    text::{self, printable},
};
use crate::client::Client;

/// List the projects of the server, with where they come from and what protects them
#[derive(Debug, Args)]
pub struct ProjectsArgs {
    /// Print what the API answers
    #[arg(long)]
    json: bool,
}

/// Lists them.
pub async fn run(args: ProjectsArgs) -> anyhow::Result<ExitCode> {
    let list = Client::from_environment()?.projects().await?;
    let text = if args.json { format!("{}\n", serde_json::to_string_pretty(&list)?) } else { table(&list) };
    Terminal::stdout().print(&text)?;
    Ok(ExitCode::SUCCESS)
}

fn table(list: &ProjectList) -> String {
    let title = ["PROJECT", "TITLE", "SOURCE", "PROTECTED", "FORKS", "ENVIRONMENTS"].map(str::to_owned).to_vec();
    let row = |project: &ProjectView| {
        let source = match &project.source {
            SourceView::Repository { path } => path,
            SourceView::Remote { url } => url,
        };
        let environments: Vec<String> =
            project.protection.environments.iter().map(|(name, rule)| approved(name, &rule.approvers)).collect();
        vec![
            project.name.to_string(),
            printable(&text::or_dash(project.title.as_deref().unwrap_or_default()), false),
            printable(source, false),
            protected(project),
            if project.protection.forks { "run" } else { "ignored" }.to_owned(),
            printable(&text::or_dash(&environments.join(", ")), false),
        ]
    };
    let rows: Vec<Vec<String>> = std::iter::once(title).chain(list.projects.iter().map(row)).collect();
    text::table(&rows)
}

fn protected(project: &ProjectView) -> String {
    let protection = &project.protection;
    if protection.trusted {
        printable(&text::or_dash(&refs(&protection.protected)), false)
    } else {
        "nothing: it is not trusted".to_owned()
    }
}

fn approved(name: &str, approvers: &[String]) -> String {
    if approvers.is_empty() { name.to_owned() } else { format!("{name} (asks {})", approvers.join(" or ")) }
}

fn refs(refs: &RefsView) -> String {
    let tags = refs.tags.iter().map(|tag| format!("tag {tag}"));
    refs.branches.iter().cloned().chain(tags).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use apispec::{EnvironmentRule, ProtectionView};

    use super::*;

    #[test]
    fn a_project_stands_in_a_line_with_what_protects_it() {
        let rule = EnvironmentRule { from: None, approvers: vec!["ann".to_owned(), "bob".to_owned()] };
        let project = ProjectView {
            name: "shop".parse().unwrap(),
            title: Some("The shop".to_owned()),
            description: None,
            source: SourceView::Remote { url: "https://git.example/shop".to_owned() },
            pipeline: "Ottofile".to_owned(),
            inline: None,
            refs: None,
            protection: ProtectionView {
                trusted: true,
                protected: RefsView { branches: vec!["main".to_owned()], tags: vec!["v*".to_owned()] },
                pull_requests: true,
                forks: false,
                environments: [("preprod".to_owned(), EnvironmentRule::default()), ("production".to_owned(), rule)].into(),
            },
        };
        let mut guest = project.clone();
        guest.protection.trusted = false;
        let text = table(&ProjectList { projects: vec![project, guest] });
        assert!(text.lines().nth(2).unwrap().contains("nothing: it is not trusted"), "{text}");
        let line = text.lines().nth(1).unwrap();
        for part in ["shop", "The shop", "https://git.example/shop", "main, tag v*", "ignored", "preprod, production (asks ann or bob)"] {
            assert!(line.contains(part), "{part}: {text}");
        }
    }
}
