//! The processes in which plans are made: what their limits do, and that nothing is left of them.

use std::{collections::BTreeSet, fs};

use blob::{Blobs, DiskStore, Durability};
use model::{
    context::TriggerContext,
    planning::{PlanReply, PlanRequest, Text, TriggersReply, TriggersRequest},
};
use parser_service::{FELL_OVER, Isolation, Makers, OVER_LIMIT, answer, answer_triggers};

use crate::house::OTTO;

const SOURCE: &str = "pipeline { stage 'Build' { steps { sh 'make' } } }";

struct Role {
    makers: Makers,
    blobs: Blobs,
    _folder: tempfile::TempDir,
}

impl Role {
    fn new(isolation: Isolation) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let blobs = Blobs::Disk(DiskStore::open(folder.path(), Durability::None).unwrap());
        Self { makers: Makers::new(isolation, vec![stdlib::library()]), blobs, _folder: folder }
    }

    fn of_processes(arguments: &[&str]) -> Self {
        let arguments = ["plan-worker"].iter().chain(arguments).map(ToString::to_string).collect();
        Self::new(Isolation::Processes { program: OTTO.into(), arguments })
    }

    async fn ask(&self, source: &str) -> PlanReply {
        let (path, source) = ("Ottofile".to_owned(), Text::Inline(source.to_owned()));
        // The lock file, which there is not.
        let files = [("otto.lock".to_owned(), None)].into();
        let request = PlanRequest { path, source, context: TriggerContext::default(), files, listing: None, changed: None };
        answer(&request, &self.blobs, &self.makers).await
    }

    async fn ask_triggers(&self, source: &str) -> TriggersReply {
        let request = TriggersRequest { path: "Ottofile".to_owned(), source: Text::Inline(source.to_owned()) };
        answer_triggers(&request, &self.blobs, &self.makers).await
    }
}

/// The processes that make plans for this one, and were started with these arguments.
fn workers(arguments: &str) -> BTreeSet<String> {
    let wanted = format!("{OTTO} plan-worker {arguments}");
    let of_thread = |thread: fs::DirEntry| fs::read_to_string(thread.path().join("children")).unwrap_or_default();
    let children: Vec<String> = fs::read_dir("/proc/self/task").unwrap().map(|thread| of_thread(thread.unwrap())).collect();
    let command = |child: &str| fs::read_to_string(format!("/proc/{child}/cmdline")).unwrap_or_default().replace('\0', " ");
    let children = children.iter().flat_map(|children| children.split_whitespace());
    children.filter(|child| command(child).trim() == wanted.trim()).map(str::to_owned).collect()
}

#[tokio::test]
async fn a_process_makes_the_same_plan_and_stays_for_the_next() {
    let (apart, here) = (Role::of_processes(&[]), Role::new(Isolation::None));
    let expected = here.ask(SOURCE).await;
    assert!(matches!(expected, PlanReply::Planned { .. }), "{expected:?}");
    assert_eq!(apart.ask(SOURCE).await, expected);
    let refused = "pipeline { steps { ehco 'a' } }";
    assert_eq!(apart.ask(refused).await, here.ask(refused).await);
    let changed = "pipeline { stage 'A' { when { changed('a') && exists('b') } steps [ sh 'a' ] } }";
    assert_eq!(apart.ask(changed).await, here.ask(changed).await);
    for source in ["triggers { cron '0 3 * * *' }", "triggers { cron 'daily' }"] {
        assert_eq!(apart.ask_triggers(source).await, here.ask_triggers(source).await);
    }
    let before = workers("");
    assert_eq!(before.len(), 1);
    for _ in 0..50 {
        assert_eq!(apart.ask(SOURCE).await, expected);
    }
    assert_eq!(workers(""), before, "one process has made them all");
}

#[tokio::test]
async fn a_plan_over_a_limit_of_time_or_memory_is_refused_and_names_it() {
    for (misbehave, limit) in [("compute", "3 s of processor time"), ("swell", "1024 MiB of memory")] {
        let role = Role::of_processes(&["--misbehave", misbehave]);
        let mut reply = role.ask(SOURCE).await;
        // Where the machine has no time for it, it runs out of that first, and is asked again, as the orchestrator does.
        for _ in 0..30 {
            if !matches!(reply, PlanReply::Unavailable { .. }) {
                break;
            }
            reply = role.ask(SOURCE).await;
        }
        let PlanReply::Refused { diagnostics } = reply else { panic!("{misbehave}: {reply:?}") };
        assert_eq!(diagnostics[0].code, OVER_LIMIT);
        assert!(diagnostics[0].message.contains(limit), "{}", diagnostics[0].message);
    }
}

#[tokio::test]
async fn a_file_that_the_parser_falls_over_is_refused_and_not_tried_for_ever() {
    let PlanReply::Refused { diagnostics } = Role::of_processes(&["--misbehave", "panic"]).ask(SOURCE).await else { panic!("no refusal") };
    assert_eq!(diagnostics[0].code, FELL_OVER);
}

#[tokio::test]
async fn a_process_that_says_nothing_is_given_up_and_killed() {
    let role = Role::of_processes(&["--misbehave", "sleep"]);
    let reply = role.ask(SOURCE).await;
    assert!(matches!(&reply, PlanReply::Unavailable { message } if message.contains("within 9 s")), "{reply:?}");
    assert_eq!(workers("--misbehave sleep"), BTreeSet::new());
}
