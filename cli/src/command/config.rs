//! `otto config`: what the settings come to, and what is wrong with them, without starting anything.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
    process::ExitCode,
};

use clap::{Args, Subcommand, ValueEnum as _};
use config::{ConfigFile, Pipeline, Project};
use model::{
    context::TriggerContext,
    diagnostic::{Diagnostic, Severity},
};
use parser::{PlanInput, Planning};
use service::{
    env::{self, Setting},
    settings::{EXIT_SETTINGS, Origin, Settings, Wrong, WrongSettings},
};

use super::{
    Terminal, complain,
    text::{self, printable},
};
use crate::{
    config_file, home, provision,
    serve::{Effective, Role, look},
};

/// Look at the settings of the services: default, then `otto.yml`, then `OTTO_*`
#[derive(Debug, Args)]
pub struct ConfigArgs {
    #[command(subcommand)]
    command: ConfigCommand,
}

#[derive(Debug, Subcommand)]
enum ConfigCommand {
    /// Say everything that is wrong with the settings and the projects, each with its place; exit code 64 if something is
    Check(OfArgs),
    /// Show each setting with its value and where that comes from
    Show(OfArgs),
}

#[derive(Debug, Args)]
struct OfArgs {
    /// As `otto serve ROLE` would have them in this environment [default: those of all roles, as `otto up` would]
    #[arg(value_enum)]
    roles: Vec<Role>,
    /// The file [default: that of `OTTO_CONFIG`, else `otto.yml` in the folder of `otto up`]
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// The folder of `otto up` [default: `up` in Otto's home]
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
}

/// Does what `otto config` is told.
pub fn run(args: &ConfigArgs) -> anyhow::Result<ExitCode> {
    let (ConfigCommand::Check(of) | ConfigCommand::Show(of)) = &args.command;
    let data = of.data.clone().map_or_else(home::up_folder, Ok)?;
    let file = config_file::find(of.config.as_deref(), &[&data]);
    let mut terminal = Terminal::stdout();
    match &args.command {
        ConfigCommand::Show(of) => terminal.print(&show(&of.roles, file.as_ref()))?,
        ConfigCommand::Check(of) => {
            let mut wrong = if of.roles.is_empty() { wrong_of_up(file.as_ref()) } else { wrong_of(&of.roles, file.as_ref()) };
            wrong.extend(wrong_of_projects(&of.roles, file.as_ref(), &data));
            if !wrong.is_empty() {
                complain(&WrongSettings(wrong).into());
                return Ok(ExitCode::from(EXIT_SETTINGS));
            }
            let of = file.map_or_else(|| "the environment; there is no file".to_owned(), |file| file.path().display().to_string());
            terminal.print(&format!("Nothing is wrong with the settings of {of}.\n"))?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// What is wrong with the settings of these roles in this environment.
fn wrong_of(roles: &[Role], file: Option<&ConfigFile>) -> Vec<Wrong> {
    once(roles.iter().flat_map(|role| look(*role, Settings::from_environment(), file).1))
}

/// What is wrong with what `otto up` would be told by the file and this environment. What it sets itself is not missing.
pub(crate) fn wrong_of_up(file: Option<&ConfigFile>) -> Vec<Wrong> {
    let wired = file.map(ConfigFile::wired).unwrap_or_default();
    let roles = Role::value_variants().iter().flat_map(|role| look(*role, passed_on(), file).1);
    once(wired.into_iter().chain(roles.filter(|wrong| !wrong.is_missing)))
}

/// What is wrong with projects that no setting tells of, those of `otto up`, and with the pipelines that stand in the configuration itself: a run
/// of such a project would be refused.
fn wrong_of_projects(roles: &[Role], file: Option<&ConfigFile>, data: &Path) -> Vec<Wrong> {
    let is_up = roles.is_empty();
    if !is_up && !roles.iter().any(|role| matches!(role, Role::Forge | Role::Orchestrator)) {
        return Vec::new();
    }
    let environment = if is_up { passed_on() } else { Settings::from_environment() };
    let (effective, _) = look(Role::Forge, environment, file);
    let named = effective.into_iter().find(|effective| effective.name == env::PROJECTS).map(|effective| effective.value);
    let named = named.filter(|value| !value.is_empty()).map(PathBuf::from);
    let of_up = Some(data.join(provision::PROJECTS_FOLDER)).filter(|folder| is_up && folder.exists());
    let Some(folder) = named.clone().or(of_up) else { return Vec::new() };
    match config::load(&folder) {
        Ok(projects) => projects.iter().flat_map(|project| wrong_of_pipeline(&folder, project)).collect(),
        Err(wrong) if named.is_none() => vec![Wrong { is_missing: false, what: format!("{}: {wrong}", folder.display()) }],
        // It was said of the setting.
        Err(_) => Vec::new(),
    }
}

fn wrong_of_pipeline(folder: &Path, project: &Project) -> Vec<Wrong> {
    let Pipeline::Inline(text) = &project.pipeline else { return Vec::new() };
    let (context, libraries) = (TriggerContext::default(), [stdlib::library()]);
    let planning = parser::plan(&PlanInput {
        path: &project.pipeline_path(),
        source: text.as_bytes(),
        context: &context,
        // The lock file, which it has no place for.
        files: &BTreeMap::from([(model::planning::LOCK_FILE.to_owned(), None)]),
        listing: None,
        changed: None,
        libraries: &libraries,
    });
    // What it asks of a commit's files is known when there is a commit.
    let Planning::Refused(diagnostics) = planning else { return Vec::new() };
    let is_wrong =
        |diagnostic: &&Diagnostic| diagnostic.severity == Severity::Error && diagnostic.code != parser::Code::MissingParameter.as_str();
    let said = |diagnostic: &Diagnostic| {
        let Diagnostic { line, column, code, message, .. } = diagnostic;
        let path = folder.join(format!("{}.yml", project.name));
        let what =
            format!("{}: pipeline.inline: line {line}, column {column}: {message} ({code}; `otto explain-error {code}`)", path.display());
        Wrong { is_missing: false, what }
    };
    diagnostics.iter().filter(is_wrong).map(said).collect()
}

/// Each once: what is wrong with the file is wrong for every role.
fn once(wrong: impl Iterator<Item = Wrong>) -> Vec<Wrong> {
    let mut said = BTreeSet::new();
    wrong.filter(|wrong| said.insert(wrong.what.clone())).collect()
}

/// What `otto up` hands on of its environment.
fn passed_on() -> Settings {
    let variables = std::env::vars_os().filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)));
    Settings::new(variables.filter(|(name, _)| env::is_passed_on(name)))
}

fn show(roles: &[Role], file: Option<&ConfigFile>) -> String {
    let (is_up, roles) = if roles.is_empty() { (true, Role::value_variants()) } else { (false, roles) };
    let mut shown = String::new();
    for role in roles {
        let environment = if is_up { passed_on() } else { Settings::from_environment() };
        let (effective, _) = look(*role, environment, file);
        let rows = effective.iter().filter_map(|effective| row(*role, effective, is_up));
        let title = [format!("{}:", role.name()), "VALUE".to_owned(), "FROM".to_owned()].to_vec();
        let rows: Vec<Vec<String>> = std::iter::once(title).chain(rows).collect();
        shown += &text::table(&rows);
    }
    shown
}

fn row(role: Role, effective: &Effective, is_up: bool) -> Option<Vec<String>> {
    let setting = Setting::of(effective.name).filter(|setting| setting.roles.contains(&role.name()))?;
    let from = match &effective.origin {
        Some(Origin::Variable) => setting.variable.to_owned(),
        Some(Origin::File { place, .. }) => place.to_string(),
        None if is_up && setting.wired => "set by otto up".to_owned(),
        None if effective.value.is_empty() => "not set".to_owned(),
        None => "default".to_owned(),
    };
    Some(vec![format!("  {}", setting.key_of(role.name())), printable(&text::or_dash(&effective.value), false), printable(&from, false)])
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn file(text: &str) -> (tempfile::TempDir, ConfigFile) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("otto.yml");
        fs::write(&path, text).unwrap();
        let file = ConfigFile::read(&path);
        (folder, file)
    }

    #[test]
    fn everything_that_is_wrong_is_said_once_also_of_projects() {
        let (folder, file) =
            file("lsten: x\nrun_kept: 3\norchestrator:\n  runs_kept: many\n  listen: '127.0.0.1:1'\nagent: { slots: 0 }\n");
        fs::create_dir(folder.path().join("projects.d")).unwrap();
        fs::write(folder.path().join("projects.d/shop.yml"), "source: { url: shop.git }\n").unwrap();
        let said: Vec<String> = wrong_of_up(Some(&file)).into_iter().map(|wrong| wrong.what).collect();
        let expected = [
            "otto.yml:5:11: orchestrator.listen: `otto up` sets it itself",
            "otto.yml:1:1: there is no setting `lsten` at the top: did you mean `listen`?",
            "otto.yml:2:1: there is no setting `run_kept` at the top: did you mean `runs_kept`?",
            "otto.yml:4:14: orchestrator.runs_kept=many: invalid digit",
            "projects.d: ",
            "otto.yml:6:17: agent.slots=0: ",
        ];
        for expected in expected {
            assert_eq!(said.iter().filter(|said| said.contains(expected)).count(), 1, "{expected}: {said:#?}");
        }
        let of_projects = said.iter().find(|said| said.contains("shop.yml")).unwrap();
        assert!(of_projects.contains("no absolute path"), "{of_projects}");
        assert!(wrong_of(&[Role::Forge], Some(&file)).iter().any(|wrong| wrong.is_missing && wrong.what.contains("OTTO_BUS_URLS")));
    }

    #[test]
    fn a_pipeline_in_the_configuration_is_checked_with_its_place() {
        let (folder, file) = file("orchestrator:\n  runs_kept: 3\n");
        let up = folder.path().join("up");
        let write = |of: &Path, name: &str, inline: &str| {
            fs::create_dir_all(of).unwrap();
            fs::write(of.join(name), format!("source: {{ url: 'https://git.example/shop' }}\npipeline:\n  inline: |\n    {inline}\n"))
                .unwrap();
        };
        write(&up.join(provision::PROJECTS_FOLDER), "wrong.yml", "pipeline { stage 'A' { steps { shh 'x' } } }");
        write(
            &up.join(provision::PROJECTS_FOLDER),
            "right.yml",
            "parameters { target { type = string } }\n    pipeline { stage 'A' { steps { sh 'x' } } }",
        );
        let said = wrong_of_projects(&[], None, &up);
        let [Wrong { what, .. }] = said.as_slice() else { panic!("{said:#?}") };
        assert!(what.contains("wrong.yml: pipeline.inline: line 1, column 32: ") && what.contains("`shh`"), "{what}");
        // Beside `otto.yml`, they are those that count.
        write(&folder.path().join("projects.d"), "shop.yml", "pipeline {");
        let said = wrong_of_projects(&[], Some(&file), &up);
        assert!(!said.is_empty() && said.iter().all(|wrong| wrong.what.contains("projects.d/shop.yml: pipeline.inline: ")), "{said:#?}");
        assert_eq!(wrong_of_projects(&[Role::Agent], Some(&file), &up), []);
    }

    #[test]
    fn each_value_is_shown_with_where_it_comes_from_and_without_a_password() {
        let (_folder, file) = file("depot_public_url: https://ann:s3cret@depot.test\nagent: { slots: 3 }\n");
        let shown = show(&[Role::Agent, Role::Eventbus], Some(&file));
        let line = |key: &str| {
            let line = shown.lines().map(str::trim).find(|line| line.starts_with(key));
            line.unwrap_or_else(|| panic!("{key}: {shown}"))
        };
        assert!(line("slots").contains(" 3 ") && line("slots").ends_with("otto.yml:2:17"), "{shown}");
        assert!(line("users").contains("auto") && line("users").ends_with("default"), "{shown}");
        assert!(line("depot_public_url").contains("https://***@depot.test") && !shown.contains("s3cret"), "{shown}");
        assert!(show(&[], Some(&file)).lines().any(|line| line.contains("listen") && line.ends_with("set by otto up")));
    }
}
