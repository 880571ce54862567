//! The root of the command line.

use std::{path::PathBuf, process::ExitCode, thread::available_parallelism};

use clap::{Parser, Subcommand, ValueEnum};
use parser_service::worker::{self, Misbehaviour};

use crate::{
    command::{
        Terminal, agent as agent_command, agents, answer, artifacts, cancel, check, complain, config, events, explain, explain_error, fmt,
        fsck, lock, log, login, lsp, projects, rerun, runs, show, start, token, waits, why,
    },
    demo, hook, repo, run, serve, step, up,
};

/// Deliver software: say all that will happen before anything happens, and run each stage where that is done best
#[derive(Debug, Parser)]
#[command(name = "otto", version, max_term_width = 100)]
pub struct Otto {
    #[command(subcommand)]
    command: Command,
}

/// The hidden command that makes plans.
pub(crate) const PLAN_WORKER: &str = "plan-worker";

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Misbehave {
    Compute,
    Swell,
    Sleep,
    Panic,
}

impl From<Misbehave> for Misbehaviour {
    fn from(misbehave: Misbehave) -> Self {
        match misbehave {
            Misbehave::Compute => Self::Compute,
            Misbehave::Swell => Self::Swell,
            Misbehave::Sleep => Self::Sleep,
            Misbehave::Panic => Self::Panic,
        }
    }
}

/// In the order in which a newcomer meets them.
#[derive(Debug, Subcommand)]
enum Command {
    Demo(demo::DemoArgs),
    Run(run::RunArgs),
    Check(check::CheckArgs),
    Explain(explain::ExplainArgs),
    Fmt(fmt::FmtArgs),
    Lock(lock::LockArgs),
    Step(step::StepArgs),
    ExplainError(explain_error::ExplainErrorArgs),
    Up(up::UpArgs),
    Config(config::ConfigArgs),
    Login(login::LoginArgs),
    Projects(projects::ProjectsArgs),
    Agents(agents::AgentsArgs),
    Start(start::StartArgs),
    Runs(runs::RunsArgs),
    Show(show::ShowArgs),
    Why(why::WhyArgs),
    Log(log::LogArgs),
    Artifacts(artifacts::ArtifactsArgs),
    Events(events::EventsArgs),
    Waits(waits::WaitsArgs),
    Approve(answer::ApproveArgs),
    Answer(answer::AnswerArgs),
    Resume(answer::ResumeArgs),
    Rerun(rerun::RerunArgs),
    Cancel(cancel::CancelArgs),
    Token(token::TokenArgs),
    Hook(hook::HookArgs),
    Repo(repo::RepoArgs),
    Serve(serve::ServeArgs),
    Agent(agent_command::AgentArgs),
    Fsck(fsck::FsckArgs),
    /// Serve an editor: errors, completion, documentation and formatting over standard input and output
    Lsp,
    /// Print the API's OpenAPI document
    Openapi,
    /// Make plans, under limits, for the parser that started this process
    #[command(hide = true)]
    PlanWorker {
        /// What to do instead, to see what the limits do
        #[arg(long, hide = true, value_enum)]
        misbehave: Option<Misbehave>,
    },
    /// Run the program of a standard step, for the agent that started this process
    #[command(hide = true)]
    StepExec {
        /// The step
        symbol: String,
        /// The file that says what it is to do
        invocation: PathBuf,
    },
}

/// Reads the arguments of this process and does what they say.
pub fn main() -> ExitCode {
    // Not a command that is read with the others: it is to be ready at once, and forks while the process has one thread.
    if std::env::args_os().nth(1).is_some_and(|command| command == agent::STAGE_INIT) {
        return agent::stage_init();
    }
    let otto = Otto::parse();
    // Before there is any other thread: its limits allow none, and a step needs none.
    if let Command::PlanWorker { misbehave } = otto.command {
        let worked = worker::work(&[stdlib::library()], misbehave.map(Into::into));
        return worked.map_or_else(|error| fail(&error.into()), |()| ExitCode::SUCCESS);
    }
    if let Command::StepExec { symbol, invocation } = &otto.command {
        return ExitCode::from(stdlib::program::run(symbol, invocation));
    }
    let nursery = match otto.command.nursery() {
        Ok(nursery) => nursery,
        Err(code) => return code,
    };
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    let is_run = matches!(otto.command, Command::Run(_));
    if is_run {
        builder.worker_threads(run_threads());
    }
    let runtime = match builder.enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return fail(&error.into()),
    };
    let code = runtime.block_on(otto.command.run(nursery)).unwrap_or_else(|error| fail(&error));
    if is_run {
        // All tasks were ended by their supervisor; the threads need not be waited for, one after the other.
        runtime.shutdown_background();
    }
    code
}

/// Threads for the roles of `otto run`, beside the one that shows the run: half the cores are for the stages. Each costs a short run a
/// thirtieth of its time, and more than a few have nothing to do.
fn run_threads() -> usize {
    const RUN_THREADS_MAX: usize = 4;
    available_parallelism().map_or(1, |cores| (cores.get() / 2).clamp(1, RUN_THREADS_MAX))
}

impl Command {
    /// Forks what a command holds its stages with, where they are of the person whose environment this is. Without it, it is started later.
    /// The error is the forked process's, which has nothing else to do.
    fn nursery(&self) -> Result<Option<agent::Nursery>, ExitCode> {
        if matches!(self, Self::Run(args) if !args.is_remote()) { Ok(agent::fork_nursery()?.ok()) } else { Ok(None) }
    }

    async fn run(self, nursery: Option<agent::Nursery>) -> anyhow::Result<ExitCode> {
        match self {
            Self::Demo(args) => demo::run(args).await,
            Self::Run(args) => run::run(args, nursery).await,
            Self::Check(args) => check::run(&args),
            Self::Explain(args) => explain::run(&args).await,
            Self::Fmt(args) => fmt::run(&args),
            Self::Lock(args) => lock::run(&args),
            Self::Step(args) => step::run(args),
            Self::ExplainError(args) => explain_error::run(&args),
            Self::Up(args) => up::run(args).await,
            Self::Config(args) => config::run(&args),
            Self::Start(args) => start::run(args).await,
            Self::Artifacts(args) => artifacts::run(args).await,
            Self::Runs(args) => runs::run(args).await,
            Self::Show(args) => show::run(args).await,
            Self::Why(args) => why::run(args).await,
            Self::Login(args) => login::run(args).await,
            Self::Projects(args) => projects::run(args).await,
            Self::Agents(args) => agents::run(args).await,
            Self::Log(args) => log::run(args).await,
            Self::Events(args) => events::run(args).await,
            Self::Waits(args) => waits::run(args).await,
            Self::Approve(args) => answer::approve(args).await,
            Self::Answer(args) => answer::answer(args).await,
            Self::Resume(args) => answer::resume(args).await,
            Self::Rerun(args) => rerun::run(args).await,
            Self::Cancel(args) => cancel::run(args).await,
            Self::Token(args) => token::run(args),
            Self::Hook(args) => hook::run(args).await,
            Self::Repo(args) => repo::run(args),
            Self::Serve(args) => Ok(Box::pin(serve::run(args)).await),
            Self::Agent(args) => agent_command::run(args).await,
            Self::Fsck(args) => fsck::run(args).await,
            Self::Lsp => lsp::run(),
            Self::Openapi => openapi(),
            Self::PlanWorker { .. } | Self::StepExec { .. } => unreachable!("it is done before the runtime starts"),
        }
    }
}

fn openapi() -> anyhow::Result<ExitCode> {
    let document = serde_json::to_string_pretty(&orchestrator::http::openapi())?;
    Terminal::stdout().print(&format!("{document}\n"))?;
    Ok(ExitCode::SUCCESS)
}

fn fail(error: &anyhow::Error) -> ExitCode {
    complain(error);
    ExitCode::FAILURE
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_arguments_are_consistent() {
        Otto::command().debug_assert();
    }
}
