//! What a push comes to.

use std::{
    collections::BTreeSet,
    fs,
    os::unix::fs::{PermissionsExt as _, symlink},
};

use futures_util::future::join_all;
use model::{
    RunId, TriggerId,
    context::EventKind,
    planning::{Listing, Text},
    trigger::Trust,
};

use crate::world::{World, wait_for};

#[tokio::test]
async fn a_push_is_a_trigger_with_the_commits_tree() {
    let world = World::with_forge().await;
    world.write("Ottofile", "stage build\n");
    world.write("src/main.c", "int main;\n");
    world.write("src.txt", "");
    world.write("tests/it.sh", "#!/bin/sh\n");
    fs::set_permissions(world.clone().join("tests/it.sh"), fs::Permissions::from_mode(0o755)).unwrap();
    world.write(".gitattributes", "tests export-ignore\n*.c eol=crlf\n");
    world.write(&format!("{}/{}", "d".repeat(150), "f".repeat(150)), "far");
    symlink("src/main.c", world.clone().join("link")).unwrap();
    let commit = world.commit();
    let lines = world.push(&["main"]).await;

    let triggers = world.triggers().await;
    let [trigger] = triggers.as_slice() else { panic!("{triggers:?}") };
    assert_eq!(lines, [format!("otto: run {} started (shop, main)", trigger.run())]);
    assert_eq!((trigger.project.as_str(), trigger.pipeline_path.as_str()), ("shop", "Ottofile"));
    assert_eq!(trigger.pipeline, Text::Inline("stage build\n".to_owned()));
    assert_eq!((trigger.context.event, trigger.context.branch.as_str()), (EventKind::Push, "main"));
    assert_eq!(trigger.context.commit, commit);
    let working_tree = forge::source::pack_working_tree(&world.clone()).unwrap();
    assert_eq!(trigger.source, Some(working_tree.store(&world.blobs).await.unwrap()), "a clean working tree is the same archive");
    assert!(world.deliveries("pending").is_empty());
    world.end().await;
}

#[tokio::test]
async fn a_pipeline_of_the_configuration_is_run_whatever_the_commit_has() {
    let world = World::new();
    world.add_project("shop", "pipeline:\n  inline: |\n    stage mine\nprotection: { trust: untrusted }\n");
    world.start().await;
    world.write("otto.lock", "{}\n");
    world.commit();
    world.push(&["main"]).await;
    let without = world.triggers().await.remove(0);
    assert_eq!((without.pipeline, without.pipeline_path.as_str()), (Text::Inline("stage mine\n".to_owned()), "shop.yml"));
    assert_eq!(without.lock, Some(Text::Inline("{}\n".to_owned())), "the lock file is the commit's");
    assert_eq!((without.claims.trust, without.claims.protected), (Trust::Untrusted, false), "nothing of the project is trusted");
    world.write("Ottofile", "stage theirs\n");
    world.commit();
    world.push(&["main"]).await;
    assert_eq!(world.triggers().await.remove(0).pipeline, Text::Inline("stage mine\n".to_owned()));
    world.end().await;
}

#[tokio::test]
async fn a_trigger_says_which_files_there_are_and_which_have_changed() {
    let world = World::with_forge().await;
    for path in ["Ottofile", "same", "changed", "gone"] {
        world.write(path, "one\n");
    }
    world.write("otto.lock", "{}\n");
    let first = world.commit();
    world.push(&["main"]).await;
    let new = world.triggers().await.remove(0);
    assert_eq!((new.changed, new.context.base.as_str()), (None, ""), "a new branch is compared with nothing");
    assert_eq!(new.lock, Some(Text::Inline("{}\n".to_owned())));

    world.write("changed", "two\n");
    world.write("added", "two\n");
    fs::remove_file(world.clone().join("gone")).unwrap();
    world.commit();
    world.push(&["main"]).await;
    let next = world.triggers().await.remove(0);
    assert_eq!(next.context.base, first);
    let changed: Vec<String> = serde_json::from_slice(&world.blobs.get(&next.changed.unwrap()).await.unwrap()).unwrap();
    assert_eq!(changed, ["added", "changed", "gone"]);
    let listing: Listing = serde_json::from_slice(&world.blobs.get(&next.listing.unwrap()).await.unwrap()).unwrap();
    assert_eq!(listing.keys().collect::<Vec<_>>(), ["Ottofile", "added", "changed", "otto.lock", "same"]);
    assert_eq!(listing["changed"], world.git(&world.clone(), &["rev-parse", "HEAD:changed"]));
    world.end().await;
}

#[tokio::test]
async fn a_push_while_the_forge_is_away_is_picked_up_when_it_starts() {
    let world = World::new();
    world.write("Ottofile", "");
    world.commit();
    let lines = world.push(&["main"]).await;
    assert!(lines.len() == 1 && lines[0].contains("not reachable") && lines[0].contains("picked up"), "{lines:?}");
    assert_eq!(world.deliveries("pending").len(), 1);
    let pending = world.repository().join("otto/pending");
    fs::write(pending.join("0corrupt.json"), "{").unwrap();
    fs::write(pending.join("0huge.json"), vec![b' '; forge::delivery::DELIVERY_BYTES_MAX + 1]).unwrap();
    let foreign = world.delivery("0foreign", "refs/heads/main", &"1".repeat(40));
    let foreign = serde_json::to_string(&foreign).unwrap().replace("shop.git", "else.git");
    fs::write(pending.join("0foreign.json"), foreign).unwrap();
    world.start().await;
    wait_for("the push is picked up", || world.deliveries("pending").is_empty()).await;
    let mut rejected = world.deliveries("rejected");
    rejected.sort();
    assert_eq!(rejected, ["0corrupt.json", "0foreign.json", "0huge.json"]);
    assert_eq!(world.triggers().await.len(), 1);
    world.end().await;
}

#[tokio::test]
async fn a_delivery_that_is_left_over_while_the_forge_runs_is_picked_up() {
    let world = World::with_forge().await;
    world.write("Ottofile", "");
    let commit = world.commit();
    world.push(&["main"]).await;
    let delivery = world.delivery("late", "refs/heads/main", &commit);
    fs::write(world.repository().join("otto/pending/late.json"), serde_json::to_vec(&delivery).unwrap()).unwrap();
    wait_for("the delivery is picked up", || world.deliveries("pending").is_empty()).await;
    let triggers = world.triggers().await;
    assert!(triggers.iter().any(|trigger| trigger.id == TriggerId::of("git", "shop refs/heads/main late")), "{triggers:?}");
    world.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_delivery_a_hundred_times_at_once_is_one_run() {
    let world = World::with_forge().await;
    world.write("Ottofile", "");
    let commit = world.commit();
    world.git(&world.clone(), &["push", "--quiet", world.repository().to_str().unwrap(), "main"]);
    let delivery = world.delivery("d1", "refs/heads/main", &commit);
    let answers = join_all((0..100).map(|_| world.deliver(&delivery))).await;
    let run = RunId::of(&TriggerId::of("git", "shop refs/heads/main d1"));
    assert!(answers.iter().all(|answer| answer.runs.len() == 1 && answer.runs[0].run == run));
    assert_eq!(world.triggers().await.len(), 1);
    assert_eq!(world.deliver(&delivery).await, answers[0], "and so later");
    world.end().await;
}

#[tokio::test]
async fn each_branch_and_each_project_of_the_repository_has_its_run() {
    let world = World::new();
    world.add_project("docs", "pipeline: docs/Ottofile\n");
    world.write("Ottofile", "");
    world.write("docs/Ottofile", "stage docs\n");
    world.commit();
    world.start().await;
    let lines = world.push(&["main", "main:refs/heads/other"]).await;
    assert_eq!(lines.len(), 4, "{lines:?}");
    let found = world.triggers().await.into_iter().map(|trigger| (trigger.context.branch, trigger.project.to_string(), trigger.pipeline));
    let mut found: Vec<_> = found.map(|(branch, project, _)| format!("{branch} {project}")).collect();
    found.sort();
    assert_eq!(found, ["main docs", "main shop", "other docs", "other shop"]);
    world.end().await;
}

#[tokio::test]
async fn a_branch_may_have_any_name_that_git_allows() {
    let world = World::with_forge().await;
    world.write("Ottofile", "");
    world.commit();
    let long = format!("{0}/{0}/{0}/{0}/{0}", "x".repeat(200));
    let too_long = format!("y/{long}/{}", "z".repeat(20));
    let names = ["--upload-pack=x", "-c", "ünïcode-ö", "a/b;touch%20x", "$(reboot)", "'quoted'", "\"double\"", &long, &too_long];
    let refs = names.map(|name| format!("main:refs/heads/{name}"));
    let lines = world.push(&refs.iter().map(String::as_str).collect::<Vec<_>>()).await;
    assert_eq!(lines.len(), refs.len(), "{lines:?}");
    assert!(lines.iter().any(|line| line.contains("too long")), "{lines:?}");
    let branches: BTreeSet<_> = world.triggers().await.into_iter().map(|trigger| trigger.context.branch).collect();
    let expected = names.into_iter().filter(|name| *name != too_long).map(ToOwned::to_owned).collect();
    assert_eq!(branches, expected);
    world.end().await;
}

#[tokio::test]
async fn tags_and_deletions_start_no_run_and_are_said() {
    let world = World::with_forge().await;
    world.write("Ottofile", "");
    world.commit();
    world.push(&["main:refs/heads/gone"]).await;
    assert_eq!(world.triggers().await.len(), 1);
    let lines = world.push(&["main:refs/tags/v1", ":refs/heads/gone"]).await;
    let said = |what: &str| lines.iter().any(|line| line == what);
    assert!(said("otto: refs/tags/v1 starts no run: it is no branch"), "{lines:?}");
    assert!(said("otto: refs/heads/gone starts no run: it was deleted"), "{lines:?}");
    world.end().await;
}

#[tokio::test]
async fn a_large_tree_and_a_large_pipeline_go_to_the_depot() {
    let world = World::with_forge().await;
    world.write("Ottofile", &"# a comment\n".repeat(20_000));
    world.write("large", &"x".repeat(9 * 1024 * 1024));
    world.commit();
    let lines = world.push(&["main"]).await;
    assert!(lines[0].contains("started"), "{lines:?}");
    let trigger = world.triggers().await.remove(0);
    let Text::Depot(pipeline) = trigger.pipeline else { panic!("it does not travel in the message") };
    assert_eq!(world.blobs.get(&pipeline).await.unwrap(), "# a comment\n".repeat(20_000));
    assert!(world.blobs.get(&trigger.source.unwrap()).await.unwrap().len() > 9 * 1024 * 1024);
    world.end().await;
}
