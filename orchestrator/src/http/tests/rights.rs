//! Every route, asked with no token, with a wrong one, and with each role.

use std::{collections::BTreeSet, fs};

use apispec::TokenView;
use config::Token;
use model::access::Role;
use utoipa::openapi::path::Operation;

use super::*;
use crate::http::rights::{RIGHTS, Right, right};

/// A token that is for another project than the runs of these tests.
pub(super) const STRANGER: &str = "stranger";

/// A token of each role, whose text is the role's name, and a stranger's, who may do everything in another project.
pub(super) fn with_tokens() -> Served {
    Served::start_with(|folder| {
        let token = |name: &str, role, projects: Option<&str>| Token {
            name: format!("a-{name}").parse().unwrap(),
            digest: Digest::of(name.as_bytes()),
            role,
            projects: projects.map(|project| BTreeSet::from([project.parse().unwrap()])),
        };
        let roles = Role::ALL.map(|role| token(role.as_str(), role, None));
        let all = roles.into_iter().chain([token(STRANGER, Role::Admin, Some("other"))]);
        let text = all.fold(String::new(), |text, token| config::token::with_token(&text, &token).unwrap());
        fs::write(folder.join("tokens.yml"), text).unwrap();
    })
}

/// A request of this route that its handler can read, about the run.
fn request(served: &Served, method: &str, path: &str, run: &RunId) -> RequestBuilder {
    let path = path.replace("{run}", run.as_str()).replace("{secret}", "x").replace("{name}", "production");
    let path = path.replace("{project}", crate::core::tests::trigger().project.as_str());
    let request = served.client.request(method.parse().unwrap(), format!("{}{path}", served.base));
    match (method, path.rsplit('/').next().unwrap()) {
        ("POST", "runs") if path.starts_with("/v1/projects/") => request.json(&json!({})),
        ("POST", "runs") => request.json(&json!({ "pipeline": "pipeline {}" })),
        ("POST", "rerun") => request.json(&json!({})),
        ("POST", "answer") => request.json(&json!({ "answer": { "kind": "resume" } })),
        (_, "output") => request.query(&[("stage", "Build")]),
        (_, "artifact") => request.query(&[("name", "bin")]),
        _ => request,
    }
}

#[test]
fn every_route_of_the_document_says_what_it_asks() {
    let document = openapi();
    let mut said: BTreeSet<(&str, String)> = BTreeSet::new();
    for (path, item) in &document.paths.paths {
        let operations: [(&str, &Option<Operation>); 5] =
            [("GET", &item.get), ("POST", &item.post), ("PUT", &item.put), ("DELETE", &item.delete), ("PATCH", &item.patch)];
        for (method, operation) in operations.into_iter().filter_map(|(method, operation)| Some((method, operation.as_ref()?))) {
            said.insert((method, path.clone()));
            let right = right(method, path).unwrap_or_else(|| panic!("{method} {path} is not in the table"));
            // Without a word about it, an operation asks for the token.
            assert_eq!(operation.security.is_some(), right == Right::Open, "{method} {path}");
        }
    }
    let table: BTreeSet<_> = RIGHTS.iter().map(|(method, path, _)| (*method, (*path).to_owned())).collect();
    assert_eq!(table, said);
    assert_eq!(table.len(), RIGHTS.len(), "no route stands there twice");
}

#[tokio::test]
async fn every_route_is_open_to_its_role_and_to_those_above_it() {
    let served = with_tokens();
    let run = served.begin("one", &["Build"], 1).id;
    for (method, path, right) in RIGHTS {
        let ask = || request(&served, method, path, &run);
        let Right::Of(needed) = right else {
            let status = ask().send().await.unwrap().status();
            assert!(![StatusCode::UNAUTHORIZED, StatusCode::FORBIDDEN].contains(&status), "{method} {path}: {status}");
            continue;
        };
        check_problem(ask().send().await.unwrap(), Code::Unauthorized).await;
        check_problem(ask().bearer_auth("wrong").send().await.unwrap(), Code::Unauthorized).await;
        for role in Role::ALL {
            let response = ask().bearer_auth(role.as_str()).send().await.unwrap();
            if role < *needed {
                check_problem(response, Code::Forbidden).await;
            } else {
                let status = response.status();
                assert!(![StatusCode::UNAUTHORIZED, StatusCode::FORBIDDEN].contains(&status), "{method} {path} {role}: {status}");
            }
        }
        if path.contains("{run}") {
            check_problem(ask().bearer_auth(STRANGER).send().await.unwrap(), Code::UnknownRun).await;
        }
    }
}

#[tokio::test]
async fn a_token_sees_its_projects_alone() {
    let served = with_tokens();
    let run = served.begin("one", &["Build"], 1);
    let get = |path: &str| served.client.get(format!("{}{path}", served.base)).bearer_auth(STRANGER).send();
    let list: RunList = get("/v1/runs").await.unwrap().json().await.unwrap();
    assert_eq!(list.runs, []);
    check_problem(get(&format!("/v1/runs/{}", run.id)).await.unwrap(), Code::UnknownRun).await;
    let create = served.client.post(format!("{}/v1/runs", served.base)).bearer_auth(STRANGER).json(&json!({ "pipeline": "" }));
    check_problem(create.send().await.unwrap(), Code::Forbidden).await;
    let token: TokenView = get("/v1/token").await.unwrap().json().await.unwrap();
    assert_eq!((token.name.as_str(), token.role, token.projects.unwrap().len()), ("a-stranger", Role::Admin, 1));
}

#[tokio::test]
async fn who_created_a_run_stands_in_its_trigger_and_keys_are_each_tokens_own() {
    let served = with_tokens();
    let mut triggers = served.orchestrator.bus.triggers().await.unwrap();
    let mut runs = BTreeSet::new();
    for (token, name) in [("run", "a-run"), (TOKEN, "admin"), ("admin", "a-admin")] {
        let request = served.client.post(format!("{}/v1/runs", served.base)).bearer_auth(token).header("Idempotency-Key", "k");
        let created: RunCreated = request.json(&json!({ "pipeline": "" })).send().await.unwrap().json().await.unwrap();
        let delivered = triggers.next().await.unwrap().trigger.unwrap();
        assert_eq!((delivered.run(), delivered.claims.actor.as_deref()), (created.run.clone(), Some(name)));
        assert_eq!(delivered.claims.trust, model::trigger::Trust::Untrusted);
        runs.insert(created.run);
    }
    assert_eq!(runs.len(), 3);
}

#[tokio::test]
async fn one_key_a_hundred_times_at_once_is_one_run_and_one_trigger() {
    let served = Served::start();
    let mut triggers = served.orchestrator.bus.triggers().await.unwrap();
    let ask = |key: &'static str, pipeline: usize| {
        let request = served.request(Method::POST, "/v1/runs").header("Idempotency-Key", key);
        async move { request.json(&json!({ "pipeline": pipeline.to_string() })).send().await.unwrap().json::<RunCreated>().await.unwrap().run }
    };
    let runs: BTreeSet<RunId> = futures_util::future::join_all((0..100).map(|at| ask("one", at))).await.into_iter().collect();
    assert_eq!(runs.len(), 1);
    let next = ask("next", 0).await;
    let mut stored = Vec::new();
    while !stored.contains(&next) {
        stored.push(triggers.next().await.unwrap().trigger.unwrap().run());
    }
    stored.dedup();
    assert_eq!(stored, [runs.into_iter().next().unwrap(), next]);
}

#[tokio::test]
async fn a_token_is_made_and_taken_away_without_a_restart() {
    let served = Served::start();
    let status = || async { served.client.get(format!("{}/v1/runs", served.base)).bearer_auth("new").send().await.unwrap().status() };
    assert_eq!(status().await, StatusCode::UNAUTHORIZED);
    let becomes = |wanted: StatusCode| async move {
        let seen = async {
            while status().await != wanted {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(DEADLINE, seen).await.unwrap_or_else(|_| panic!("it never was {wanted}"));
    };
    let token = Token { name: "new".parse().unwrap(), digest: Digest::of(b"new"), role: Role::View, projects: None };
    fs::write(served.tokens_file(), config::token::with_token("", &token).unwrap()).unwrap();
    becomes(StatusCode::OK).await;
    let follow = served.client.get(format!("{}/v1/events/follow", served.base)).bearer_auth("new");
    let followed = follow.header("Accept", "text/event-stream").send().await.unwrap();
    fs::remove_file(served.tokens_file()).unwrap();
    becomes(StatusCode::UNAUTHORIZED).await;
    let told = tokio::time::timeout(DEADLINE, followed.text()).await.expect("what it followed ends").unwrap();
    assert!(told.starts_with("event: here"), "{told}");
}
