//! What a pipeline can say happens: small pipelines, run by the real `otto run`, and what is left of each.
//!
//! Every case has a file that its stages write to, `WITNESS` in the pipeline. What stands there at the end, and how the process ended, is
//! what a user would see.

use std::{
    fs,
    io::{Read as _, Write as _},
    net::TcpListener,
    path::Path,
    process::{Command, Output, Stdio},
    sync::mpsc::{self, RecvTimeoutError},
    thread,
    time::Duration,
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use crate::house::OTTO;

/// How long one run may take; the longest waits for two seconds of its own.
const RUN_DEADLINE: Duration = Duration::from_mins(2);

/// What came of a run.
pub(crate) struct Ran {
    code: Option<i32>,
    /// The lines of the witness file.
    wrote: Vec<String>,
    said: String,
}

impl Ran {
    #[track_caller]
    fn ended(&self, code: i32, wrote: &[&str]) -> &Self {
        assert_eq!((self.code, self.wrote.iter().map(String::as_str).collect::<Vec<_>>()), (Some(code), wrote.to_vec()), "{}", self.said);
        self
    }

    /// The same, where stages run at once: the lines in any order.
    #[track_caller]
    pub(crate) fn ended_with_any_order(&self, code: i32, wrote: &[&str]) -> &Self {
        let mut sorted: Vec<&str> = self.wrote.iter().map(String::as_str).collect();
        sorted.sort_unstable();
        assert_eq!((self.code, sorted), (Some(code), wrote.to_vec()), "{}", self.said);
        self
    }

    #[track_caller]
    fn said(&self, texts: &[&str]) -> &Self {
        for text in texts {
            assert!(self.said.contains(text), "`{text}` is missing:\n{}", self.said);
        }
        self
    }
}

/// A project's folder.
pub(crate) struct Project(tempfile::TempDir);

impl Project {
    pub(crate) fn new(pipeline: &str) -> Self {
        let project = Self(tempfile::tempdir().unwrap());
        fs::create_dir(project.folder()).unwrap();
        project.write("Ottofile", &pipeline.replace("WITNESS", &project.0.path().join("witness").display().to_string()));
        project
    }

    fn folder(&self) -> std::path::PathBuf {
        self.0.path().join("project")
    }

    pub(crate) fn write(&self, path: &str, text: &str) {
        let path = self.folder().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    fn run(&self, arguments: &[&str]) -> Ran {
        self.run_in(&[], arguments)
    }

    /// The same, with these variables.
    pub(crate) fn run_in(&self, environment: &[(&str, String)], arguments: &[&str]) -> Ran {
        let witness = self.0.path().join("witness");
        let _there_is_none_at_first = fs::remove_file(&witness);
        let output = otto(&self.folder(), environment, &[&["run"], arguments].concat());
        Ran {
            code: output.status.code(),
            wrote: fs::read_to_string(witness).unwrap_or_default().lines().map(str::to_owned).collect(),
            said: String::from_utf8(output.stdout).unwrap() + &String::from_utf8(output.stderr).unwrap(),
        }
    }
}

fn run(pipeline: &str, arguments: &[&str]) -> Ran {
    Project::new(pipeline).run(arguments)
}

/// A finished process, killed if it takes too long.
fn otto(folder: &Path, environment: &[(&str, String)], arguments: &[&str]) -> Output {
    let mut command = Command::new(OTTO);
    command.args(arguments).current_dir(folder).envs(environment.iter().map(|(name, value)| (name, value)));
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let (mut out, mut err) = (child.stdout.take().unwrap(), child.stderr.take().unwrap());
    let read = |pipe: &mut dyn std::io::Read| {
        let mut bytes = Vec::new();
        pipe.read_to_end(&mut bytes).unwrap();
        bytes
    };
    let process = Pid::from_raw(child.id().try_into().unwrap());
    thread::scope(|scope| {
        let stdout = scope.spawn(|| read(&mut out));
        let stderr = scope.spawn(|| read(&mut err));
        let (ended, end) = mpsc::channel::<()>();
        scope.spawn(move || {
            if end.recv_timeout(RUN_DEADLINE) == Err(RecvTimeoutError::Timeout) {
                kill(process, Signal::SIGKILL).unwrap();
            }
        });
        let status = child.wait().unwrap();
        drop(ended);
        Output { status, stdout: stdout.join().unwrap(), stderr: stderr.join().unwrap() }
    })
}

#[test]
fn stages_run_in_their_order_and_branches_at_once() {
    let pipeline = "pipeline {
        stage 'A' { steps [ sh 'echo a >> WITNESS' ] }
        stage 'Group' {
            stage 'B' { steps [ sh 'echo b >> WITNESS' ] }
            parallel {
                stage 'C' { steps [ sh 'echo c >> WITNESS; until grep -q d WITNESS; do sleep 0.01; done' ] }
                stage 'D' { steps [ sh 'echo d >> WITNESS; until grep -q c WITNESS; do sleep 0.01; done' ] }
            }
        }
        steps [ sh 'echo e >> WITNESS' ]
    }";
    let ran = run(pipeline, &["--jobs", "2"]);
    ran.ended_with_any_order(0, &["a", "b", "c", "d", "e"]);
    assert_eq!((&ran.wrote[..2], &ran.wrote[4]), (&["a".to_owned(), "b".to_owned()][..], &"e".to_owned()));
}

#[test]
fn the_first_failure_in_a_fanout_cancels_the_others() {
    let pipeline = "pipeline {
        fanout {
            stage 'Fails' { steps [ sh 'until grep -q slow WITNESS; do sleep 0.01; done; exit 1' ] }
            stage 'Slow' { steps [ sh 'echo slow >> WITNESS; sleep 100; echo never >> WITNESS' ] }
        }
        stage 'After' { steps [ sh 'echo after >> WITNESS' ] }
    }";
    run(pipeline, &["--jobs", "2"]).ended(1, &["slow"]).said(&["Slow"]);
}

#[test]
fn every_branch_of_a_parallel_runs_to_its_end() {
    let pipeline = "pipeline {
        parallel {
            stage 'Fails' { steps [ sh 'exit 1' ] }
            stage 'Slow' { steps [ sh 'sleep 0.3; echo slow >> WITNESS' ] }
        }
        stage 'After' { steps [ sh 'echo after >> WITNESS' ] }
    }";
    run(pipeline, &["--jobs", "2"]).ended(1, &["slow"]);
}

#[test]
fn each_combination_is_a_stage() {
    let pipeline = "pipeline {
        each(os: ['linux', 'mac'], jdk: ['8', '12']) {
            stage 'Test' {
                when { it.os != 'mac' }
                env { JDK = it.jdk }
                steps [ sh 'echo $JDK >> WITNESS' ]
            }
        }
    }";
    run(pipeline, &[]).ended_with_any_order(0, &["12", "8"]);
}

#[test]
fn in_automatic_order_a_stage_waits_for_what_it_uses() {
    let pipeline = "pipeline {
        order = auto
        stage 'Make' { cache { made = ['out/'] } steps [ sh 'sleep 0.2; mkdir out; echo made > out/file; echo make >> WITNESS' ] }
        stage 'Use' { cache { use made } steps [ sh 'cat out/file >> WITNESS' ] }
        stage 'Apart' { steps [ sh 'echo apart >> WITNESS' ] }
    }";
    let ran = run(pipeline, &["--jobs", "2"]);
    ran.ended(0, &["apart", "make", "made"]);
}

#[test]
fn a_stage_is_tried_again_after_the_reasons_that_it_names() {
    let flaky = "n=$(cat WITNESS 2>/dev/null | wc -l); echo try >> WITNESS; test $n -ge 2";
    let again = format!("pipeline {{ stage 'Flaky' {{ retry {{ attempts = 3 backoff = 1s on = ['failed'] }} steps [ sh '{flaky}' ] }} }}");
    run(&again, &[]).ended(0, &["try", "try", "try"]);
    let too_few = again.replace("attempts = 3", "attempts = 2");
    run(&too_few, &[]).ended(1, &["try", "try"]);
    let lost_only = again.replace("'failed'", "'lost'");
    run(&lost_only, &[]).ended(1, &["try"]);
}

#[test]
fn time_limits_end_steps_and_stages() {
    run("pipeline { stage 'A' { steps { sh 'sleep 100', timeout: 1s } } }", &[]).ended(1, &[]).said(&["timed out after 1s"]);
    run("pipeline { stage 'A' { timeout = 1s steps { sh 'sleep 100' } } }", &[]).ended(1, &[]).said(&["timed out after 1s"]);
}

#[test]
fn a_step_is_tried_again() {
    let pipeline = "pipeline { stage 'A' { steps { sh 'echo x >> WITNESS; test $(wc -l < WITNESS) -ge 3', retry: 3 } } }";
    run(pipeline, &[]).ended(0, &["x", "x", "x"]);
}

#[test]
fn a_failure_that_is_allowed_makes_the_run_unstable() {
    let pipeline = "pipeline {
        stage 'May fail' { allow_failure = true steps [ sh 'exit 1' ] }
        stage 'After' { steps [ sh 'echo after >> WITNESS' ] }
    }";
    run(pipeline, &[]).ended(3, &["after"]).said(&["unstable"]);
}

#[test]
fn what_was_done_is_undone_backwards() {
    let pipeline = "pipeline {
        stage 'A' { steps [ sh 'echo a >> WITNESS' ] rollback { steps [ sh 'echo undo a >> WITNESS' ] } }
        stage 'B' { steps [ sh 'echo b >> WITNESS' ] rollback { steps [ sh 'echo undo b >> WITNESS' ] } }
        stage 'C' { steps [ sh 'exit 1' ] rollback { steps [ sh 'echo undo c >> WITNESS' ] } }
    }";
    run(pipeline, &[]).ended(1, &["a", "b", "undo b", "undo a"]);
    let good = pipeline.replace("exit 1", "echo c >> WITNESS");
    run(&good, &[]).ended(0, &["a", "b", "c"]);
}

#[test]
fn outcomes_are_told() {
    let pipeline = "pipeline {
        stage 'A' {
            steps [ sh 'STEP' ]
            notify { success [ sh 'echo A good >> WITNESS' ] failure [ sh 'echo A bad >> WITNESS' ] complete [ sh 'echo A over >> WITNESS' ] }
        }
        notify { success [ sh 'echo good >> WITNESS' ] failure [ sh 'echo bad >> WITNESS' ] complete [ sh 'echo over >> WITNESS' ] }
    }";
    run(&pipeline.replace("STEP", "true"), &[]).ended(0, &["A good", "A over", "good", "over"]);
    run(&pipeline.replace("STEP", "false"), &[]).ended(1, &["A bad", "A over", "bad", "over"]);
}

#[test]
fn conditions_are_decided_in_the_plan_and_in_the_run() {
    let pipeline = "pipeline {
        stage 'Elsewhere' { when { branch == 'nowhere' } steps [ sh 'echo never >> WITNESS' ] }
        stage 'Look' { steps { sh 'echo yes', into: 'found' sh 'echo $VAR_FOUND >> WITNESS' } }
        stage 'Yes' { gates { enter { vars.found == 'yes' } } env { FOUND = vars.found } steps [ sh 'echo found $FOUND >> WITNESS' ] }
        stage 'No' { gates { enter { vars.found != 'yes' } } steps [ sh 'echo not found >> WITNESS' ] }
        stage 'After' { steps [ sh 'echo after >> WITNESS' ] }
    }";
    run(pipeline, &[]).ended(0, &["yes", "found yes", "after"]).said(&["branch == 'nowhere'", "skipped"]);
}

#[test]
fn a_variable_that_was_dropped_is_gone() {
    let pipeline = "pipeline { stage 'A' { steps {
        sh 'echo one', into: 'x'
        drop 'x'
        sh 'echo \"[$VAR_X]\" >> WITNESS'
    } } }";
    run(pipeline, &[]).ended(0, &["[]"]);
}

#[test]
fn people_are_asked_and_no_agent_is_held() {
    let pipeline = "pipeline {
        confirm 'Ship it?' { by = ['ops'] }
        prompt msg: 'Which colour?', into: 'color'
        stage 'Paint' { gates { enter { input 'Really?' } } env { COLOR = vars.color } steps [ sh 'echo $COLOR >> WITNESS' ] }
        pause
        stage 'End' { steps [ sh 'echo end >> WITNESS' ] }
    }";
    run(pipeline, &["--yes", "--answer", "color=red"]).ended(0, &["red", "end"]);
}

#[test]
fn time_and_addresses_are_waited_for() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let answers = thread::spawn(move || {
        for status in ["503 Service Unavailable", "200 OK"] {
            let (mut connection, _) = listener.accept().unwrap();
            let mut request = [0; 1024];
            assert!(connection.read(&mut request).unwrap() > 0);
            write!(connection, "HTTP/1.1 {status}\r\ncontent-length: 0\r\nconnection: close\r\n\r\n").unwrap();
        }
    });
    let pipeline = format!(
        "pipeline {{
            wait {{ time = 1s }}
            wait {{ poll {{ url = 'http://127.0.0.1:{port}/health' status = 200 every = 1s timeout = 1m }} }}
            stage 'A' {{ steps [ sh 'echo a >> WITNESS' ] }}
        }}"
    );
    run(&pipeline, &[]).ended(0, &["a"]);
    answers.join().unwrap();
}

#[test]
fn a_gate_that_is_not_answered_in_time_fails_the_stage() {
    let pipeline = "pipeline {
        stage 'A' { gates { enter { poll { url = 'http://127.0.0.1:1/' every = 1s timeout = 1s } } } steps [ sh 'echo never >> WITNESS' ] }
        stage 'B' { steps [ sh 'echo never >> WITNESS' ] }
    }";
    run(pipeline, &[]).ended(1, &[]);
}

#[test]
fn a_lock_is_held_by_one() {
    let script = "echo begin >> WITNESS; sleep 0.2; echo end >> WITNESS";
    let pipeline = format!(
        "pipeline {{ parallel {{
            stage 'A' {{ lock = 'db' steps [ sh '{script}' ] }}
            stage 'B' {{ lock = 'db' steps [ sh '{script}' ] }}
        }} }}"
    );
    run(&pipeline, &["--jobs", "2"]).ended(0, &["begin", "end", "begin", "end"]);
}

#[test]
fn an_environment_gives_its_settings() {
    let pipeline = "environments { preprod { settings { HOST = 'pre.example' TIER = 'b' } } }
    pipeline { stage 'A' { environment -> preprod env { TIER = 'a' } steps [ sh 'echo $HOST $TIER >> WITNESS' ] } }";
    run(pipeline, &[]).ended(0, &["pre.example a"]);
}

#[test]
fn folders_are_entered_and_messages_are_errors() {
    let pipeline = "pipeline { stage 'A' { steps {
        dir 'deep/er' [ sh 'pwd | sed s,.*/deep,deep, >> WITNESS' ]
        sleep 1s
        error 'that is enough'
        sh 'echo never >> WITNESS'
    } } }";
    run(pipeline, &[]).ended(1, &["deep/er"]).said(&["that is enough"]);
}

#[test]
fn artifacts_are_handed_on() {
    let pipeline = "pipeline {
        stage 'Make' { steps {
            sh 'mkdir -p out/sub; echo x > out/sub/file; chmod 751 out/sub/file; ln -s sub/file out/link'
            archive name: 'out', paths: ['out']
        } }
        stage 'Take' { checkout = false steps {
            unarchive name: 'out', path: 'got'
            sh 'stat -c %a got/out/sub/file >> WITNESS; readlink got/out/link >> WITNESS; cat got/out/link >> WITNESS'
        } }
    }";
    run(pipeline, &[]).ended(0, &["751", "sub/file", "x"]);
}

#[test]
fn a_failed_test_makes_the_stage_unstable() {
    let project = Project::new(
        "pipeline {
            stage 'Test' { steps [ junit 'reports/*.xml' ] }
            stage 'After' { steps [ sh 'echo after >> WITNESS' ] }
        }",
    );
    project.write(
        "reports/a.xml",
        "<testsuite name='s' tests='2' failures='1'><testcase classname='c' name='good'/><testcase classname='c' name='bad'><failure message='no'/></testcase></testsuite>",
    );
    project.run(&[]).ended(3, &["after"]).said(&["bad"]);
}

#[test]
fn a_cache_is_found_by_the_next_run() {
    let project = Project::new(
        "pipeline { stage 'A' {
            cache { deps = { paths = ['deps/'] key = files('lock') } }
            steps [ sh 'cat deps/old >> WITNESS || echo none >> WITNESS; mkdir -p deps; echo kept > deps/old' ]
        } }",
    );
    project.write("lock", "1");
    project.run(&[]).ended(0, &["none"]);
    project.run(&[]).ended(0, &["kept"]);
    project.write("lock", "2");
    project.run(&[]).ended(0, &["none"]);
}

#[test]
fn the_source_can_be_left_out_and_fetched_again() {
    let project = Project::new(
        "pipeline { stage 'A' { checkout = false steps {
            sh 'ls | wc -l >> WITNESS'
            checkout
            sh 'cat file >> WITNESS'
        } } }",
    );
    project.write("file", "content\n");
    project.run(&[]).ended(0, &["0", "content"]);
}

#[test]
fn another_pipeline_can_be_started() {
    let project = Project::new(
        "pipeline { stage 'A' { steps { trigger pipeline: '.otto/other.otto', parameters: ['who=you'], wait: true sh 'echo after >> WITNESS' } } }",
    );
    let witness = project.0.path().join("witness").display().to_string();
    let other = "parameters { who { type = string } } pipeline { stage 'O' { env { WHO = params.who } steps [ sh 'echo hello $WHO >> WITNESS' ] } }";
    project.write(".otto/other.otto", &other.replace("WITNESS", &witness));
    // Also where one stage runs at once, which is the one that waits.
    project.run(&["--jobs", "1"]).ended(0, &["hello you", "after"]);
}

#[test]
fn a_repository_is_cloned() {
    let project = Project::new("pipeline { stage 'A' { steps { git url: './origin', into: 'clone' sh 'cat clone/file >> WITNESS' } } }");
    project.write("origin/file", "cloned\n");
    let origin = project.folder().join("origin");
    for arguments in [&["init", "-q"][..], &["add", "-A"], &["-c", "user.name=a", "-c", "user.email=a@b", "commit", "-qm", "a"]] {
        assert!(Command::new("git").args(arguments).current_dir(&origin).status().unwrap().success());
    }
    // What is itself a repository is no part of the working tree's source: the stage makes its own.
    fs::rename(&origin, project.0.path().join("origin")).unwrap();
    let elsewhere = project.0.path().join("origin").display().to_string();
    let pipeline = fs::read_to_string(project.folder().join("Ottofile")).unwrap();
    let pipeline = pipeline.replace("git url: './origin'", &format!("sh 'cp -r {elsewhere} origin' git url: './origin'"));
    project.write("Ottofile", &pipeline);
    project.run(&[]).ended(0, &["cloned"]);
}

#[test]
fn an_exit_gate_waits_after_the_agent_was_released() {
    let pipeline = "pipeline {
        stage 'A' { gates { exit { input 'Does it run?' } } steps [ sh 'echo a >> WITNESS' ] }
        stage 'B' { steps [ sh 'echo b >> WITNESS' ] }
    }";
    run(pipeline, &["--yes"]).ended(0, &["a", "b"]);
}

#[test]
fn failed_stages_alone_run_again() {
    let project = Project::new(
        "pipeline {
            stage 'Good' { steps [ sh 'echo good >> WITNESS' ] }
            stage 'Bad' { steps [ sh 'echo bad >> WITNESS; test -e /nonexistent' ] }
            stage 'Rest' { steps [ sh 'echo rest >> WITNESS' ] }
        }",
    );
    project.run(&[]).ended(1, &["good", "bad"]);
    project.run(&["--from-failed"]).ended(1, &["bad"]);
}

#[test]
fn one_stage_is_run_with_what_it_needs() {
    let pipeline = "pipeline {
        order = auto
        stage 'A' { steps [ sh 'echo a >> WITNESS' ] }
        stage 'B' { needs = ['A'] steps [ sh 'echo b >> WITNESS' ] }
        stage 'C' { steps [ sh 'echo c >> WITNESS' ] }
    }";
    run(pipeline, &["--stage", "B"]).ended(0, &["a", "b"]);
}

#[test]
fn credentials_are_not_run_yet_and_that_is_said() {
    let pipeline = "credentials { key = vault('secret/data/team/key#key') }
    pipeline { stage 'A' { credentials = ['key'] steps [ sh 'echo never >> WITNESS' ] } }";
    run(pipeline, &[]).ended(2, &[]).said(&["E0903"]);
}
