//! Runs that come after others, on the services: newer ones of a branch, and those that run again; and runs that are ended by force.

use std::{
    fs,
    path::Path,
    process::{Command, Stdio},
};

use crate::house::{House, OTTO, until};

/// What a command prints that ends well.
fn otto(house: &House, folder: &Path, arguments: &[&str]) -> String {
    let mut command = Command::new(OTTO);
    command.args(arguments).current_dir(folder).envs(house.client_env()).stdin(Stdio::null());
    let output = command.output().unwrap();
    assert!(output.status.success(), "{arguments:?}: {output:?}");
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

/// A project's folder, and the file that its stages write to.
struct Project<'a> {
    house: &'a House,
    folder: tempfile::TempDir,
}

impl<'a> Project<'a> {
    /// `HERE` in the pipeline is a folder outside of the project.
    fn new(house: &'a House, pipeline: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("Ottofile"), pipeline.replace("HERE", &house.scratch().display().to_string())).unwrap();
        Self { house, folder }
    }

    /// Begins a run, and gives its id.
    fn begin(&self, arguments: &[&str]) -> String {
        self.otto(&[&["run", "--remote", "--detach"], arguments].concat())
    }

    fn otto(&self, arguments: &[&str]) -> String {
        otto(self.house, self.folder.path(), arguments)
    }

    fn wrote(&self) -> Vec<String> {
        fs::read_to_string(self.house.scratch().join("witness")).unwrap_or_default().lines().map(str::to_owned).collect()
    }

    async fn writes(&self, line: &str) {
        until(&format!("`{line}` to be written"), async || self.wrote().iter().any(|wrote| wrote == line)).await;
    }

    fn touch(&self, name: &str) {
        fs::write(self.house.scratch().join(name), "").unwrap();
    }

    async fn outcome(&self, run: &str) -> String {
        self.house.ended(run).await["status"]["outcome"].as_str().unwrap().to_owned()
    }
}

#[tokio::test]
async fn a_newer_run_of_a_branch_takes_the_place_of_the_older_one() {
    let house = House::start(3).await;
    let project = Project::new(
        &house,
        "pipeline { newer = cancel stage 'Long' { steps [ sh 'echo $OTTO_RUN >> HERE/witness; until [ -e HERE/end ]; do sleep 0.01; done' ] } }",
    );
    let older = project.begin(&["--branch", "main"]);
    let other = project.begin(&["--branch", "other"]);
    project.writes(&older).await;
    project.writes(&other).await;
    let newer = project.begin(&["--branch", "main"]);
    assert_eq!(project.outcome(&older).await, "aborted");
    project.writes(&newer).await;
    project.touch("end");
    assert_eq!((project.outcome(&newer).await, project.outcome(&other).await), ("success".to_owned(), "success".to_owned()));
    house.end().await;
}

#[tokio::test]
async fn what_failed_and_one_stage_are_run_again() {
    let house = House::start(1).await;
    let project = Project::new(
        &house,
        "pipeline {
            stage 'Good' { steps { sh 'echo good >> HERE/witness' sh 'echo found', into: 'x' } }
            stage 'Bad' { env { X = vars.x } steps [ sh 'echo bad $X >> HERE/witness; test -e HERE/mended' ] }
            stage 'Rest' { steps [ sh 'echo rest >> HERE/witness' ] }
        }",
    );
    let first = project.begin(&[]);
    assert_eq!(project.outcome(&first).await, "failure");
    project.touch("mended");
    let second = project.otto(&["rerun", "--failed", &first]);
    assert_eq!(project.outcome(&second).await, "success");
    assert_eq!(project.wrote(), ["good", "bad found", "bad found", "rest"]);
    let third = project.otto(&["rerun", "--stage", "Rest", &second]);
    assert_eq!(project.outcome(&third).await, "success");
    assert_eq!(project.wrote()[4..], ["rest"]);
    house.end().await;
}

#[tokio::test]
async fn a_run_is_ended_in_order_and_by_force() {
    let house = House::start(1).await;
    let pipeline = |name: &str| {
        format!(
            "pipeline {{ stage 'Long' {{
                steps [ sh 'trap \"\" TERM; echo {name} >> HERE/witness; while true; do sleep 0.1; done' ]
                notify {{ complete [ sh 'echo {name} is over >> HERE/witness' ] }}
            }} }}"
        )
    };
    for (name, flag, is_told) in [("ordered", &[][..], true), ("forced", &["--force"], false)] {
        let project = Project::new(&house, &pipeline(name));
        let run = project.begin(&[]);
        project.writes(name).await;
        project.otto(&[&["cancel", &run], flag].concat());
        assert_eq!(project.outcome(&run).await, "aborted");
        assert_eq!(project.wrote().contains(&format!("{name} is over")), is_told, "{name}");
    }
    house.end().await;
}
