//! What a pipeline can say happens on the services as it does under `otto run`: the same pipelines, run both ways by the real program.

use crate::{flow::Project, house::House};

/// A pipeline, and what comes of it wherever it runs.
struct Story {
    pipeline: &'static str,
    arguments: &'static [&'static str],
    /// More files of the project.
    files: &'static [(&'static str, &'static str)],
    code: i32,
    /// The lines of the witness, sorted.
    wrote: &'static [&'static str],
}

impl Story {
    const PLAIN: Self = Self { pipeline: "", arguments: &[], files: &[], code: 0, wrote: &[] };
}

const STORIES: [Story; 6] = [
    Story {
        pipeline: "pipeline {
            stage 'Look' { steps { sh 'echo one', into: 'x' sh 'echo look >> WITNESS' } }
            stage 'Group' {
                env { OF = 'group' }
                parallel {
                    stage 'B' { env { X = vars.x } steps [ sh 'echo b $X $OF >> WITNESS' ] }
                    each('c', 'd') { stage 'Each' { when { it != 'd' } env { IT = it } steps [ sh 'echo $IT >> WITNESS' ] } }
                }
                wait { time = 1s }
            }
            stage 'No' { gates { enter { vars.x != 'one' } } steps [ sh 'echo never >> WITNESS' ] }
            stage 'Flaky' {
                retry { attempts = 2 backoff = 1s on = ['failed'] }
                steps [ sh 'echo try $OTTO_ATTEMPT >> WITNESS; test $OTTO_ATTEMPT = 2' ]
            }
            prompt msg: 'Which?', into: 'colour'
            confirm 'Paint it?'
            stage 'Paint' { lock = 'wall' env { COLOUR = vars.colour } steps [ sh 'echo $COLOUR >> WITNESS' ] }
            notify { success [ sh 'echo good >> WITNESS' ] failure [ sh 'echo bad >> WITNESS' ] complete [ sh 'echo over >> WITNESS' ] }
        }",
        arguments: &["--yes", "--answer", "colour=red"],
        wrote: &["b one group", "c", "good", "look", "over", "red", "try 1", "try 2"],
        ..Story::PLAIN
    },
    Story {
        pipeline: "pipeline {
            stage 'A' {
                steps [ sh 'echo a >> WITNESS' ]
                notify { success [ sh 'echo a is well >> WITNESS' ] }
                rollback { steps [ sh 'echo undo a >> WITNESS' ] }
            }
            fanout {
                stage 'Fails' { steps [ sh 'until grep -q slow WITNESS; do sleep 0.01; done; exit 1' ] }
                stage 'Slow' { steps [ sh 'echo slow >> WITNESS; sleep 600; echo never >> WITNESS' ] }
            }
            stage 'After' { steps [ sh 'echo never >> WITNESS' ] }
            notify { success [ sh 'echo good >> WITNESS' ] failure [ sh 'echo bad >> WITNESS' ] complete [ sh 'echo over >> WITNESS' ] }
        }",
        code: 1,
        wrote: &["a", "a is well", "bad", "over", "slow", "undo a"],
        ..Story::PLAIN
    },
    Story {
        pipeline: "pipeline {
            order = auto
            stage 'Make' {
                cache { made = ['out/'] }
                steps {
                    sh 'mkdir -p out/sub; echo made > out/sub/file; chmod 751 out/sub/file; ln -s sub/file out/link'
                    archive name: 'kept', paths: ['out']
                    junit 'reports/*.xml'
                }
            }
            stage 'Use' {
                cache { use made }
                needs = ['Make']
                steps {
                    sh 'cat out/link >> WITNESS'
                    unarchive name: 'kept', path: 'got'
                    sh 'stat -c %a got/out/sub/file >> WITNESS'
                    dir 'deep/er' [ sh 'basename $PWD >> WITNESS' ]
                }
            }
        }",
        files: &[(
            "reports/a.xml",
            "<testsuite name='s' tests='1' failures='1'><testcase classname='c' name='bad'><failure message='no'/></testcase></testsuite>",
        )],
        code: 3,
        wrote: &["751", "er", "made"],
        ..Story::PLAIN
    },
    Story {
        pipeline: "pipeline {
            stage 'May fail' { allow_failure = true steps { sh 'sleep 600', timeout: 1s } }
            stage 'After' { steps [ sh 'echo after >> WITNESS' ] }
        }",
        code: 3,
        wrote: &["after"],
        ..Story::PLAIN
    },
    Story {
        pipeline: "pipeline {
            stage 'Long' { steps [ sh 'sleep 600' ] }
            stage 'Next' { steps [ sh 'echo never >> WITNESS' ] }
            notify { failure [ sh 'echo bad >> WITNESS' ] }
        }",
        arguments: &["--timeout", "2s"],
        code: 1,
        wrote: &["bad"],
        ..Story::PLAIN
    },
    Story {
        pipeline: "pipeline {
            stage 'Ship' { gates { enter { input 'Really?' } } steps [ sh 'echo never >> WITNESS' ] }
            notify { failure [ sh 'echo bad >> WITNESS' ] }
        }",
        arguments: &["--answer", "Ship=no"],
        code: 1,
        wrote: &["bad"],
        ..Story::PLAIN
    },
];

#[tokio::test]
async fn what_a_pipeline_says_happens_here_as_on_the_services() {
    // In a fanout two run at once, on a machine of one core, too.
    let house = House::start(2).await;
    let here: &[(&str, String)] = &[];
    for story in STORIES {
        for (place, environment) in [(&["--jobs", "2"][..], here), (&["--remote"][..], &house.client_env()[..])] {
            let project = Project::new(story.pipeline);
            for (path, text) in story.files {
                project.write(path, text);
            }
            let ran = project.run_in(environment, &[place, story.arguments].concat());
            ran.ended_with_any_order(story.code, story.wrote);
        }
    }
    house.end().await;
}
