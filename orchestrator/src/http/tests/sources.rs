//! Sources are brought through the API, and named by runs.

use apispec::SourceCreated;
use futures_util::StreamExt as _;

use super::*;
use crate::http::sources::UPLOADS_MAX;

#[tokio::test]
async fn what_is_brought_lies_in_the_depot_and_a_run_may_name_it() {
    let served = Served::start();
    let mut triggers = served.orchestrator.bus.triggers().await.unwrap();
    let bytes = Bytes::from(vec![7; 300_000]);
    let digest = Digest::of(&bytes);
    let create = json!({ "pipeline": "pipeline {}", "source": digest, "listing": digest, "changed": digest });
    let ask = || served.request(Method::POST, "/v1/runs").json(&create).send();
    check_problem(ask().await.unwrap(), Code::UnknownSource).await;
    for _again in 0..2 {
        let response = served.request(Method::POST, "/v1/sources").body(bytes.clone()).send().await.unwrap();
        assert_eq!(response.status(), StatusCode::CREATED);
        assert_eq!(response.json::<SourceCreated>().await.unwrap(), SourceCreated { digest });
    }
    assert_eq!(served.orchestrator.blobs.get(&digest).await.unwrap(), bytes);
    assert_eq!(ask().await.unwrap().status(), StatusCode::CREATED);
    let trigger = triggers.next().await.unwrap().trigger.unwrap();
    assert_eq!([trigger.source, trigger.listing, trigger.changed], [Some(digest); 3]);
    assert_eq!(trigger.claims.trust, model::trigger::Trust::Untrusted);
}

#[tokio::test]
async fn only_so_many_are_brought_at_once_and_each_makes_room_for_another() {
    let served = Served::start();
    let mut sent = tokio::task::JoinSet::new();
    // One too many, none of which comes to its end.
    let senders: Vec<_> = (0..=UPLOADS_MAX)
        .map(|_| {
            let (sender, pieces) = mpsc::channel::<Result<Bytes, std::io::Error>>(1);
            sender.try_send(Ok(Bytes::from_static(b"the beginning"))).unwrap();
            let body = futures_util::stream::unfold(pieces, |mut pieces| async move { pieces.recv().await.map(|piece| (piece, pieces)) });
            sent.spawn(served.request(Method::POST, "/v1/sources").body(reqwest::Body::wrap_stream(body)).send());
            sender
        })
        .collect();
    let refused = sent.join_next().await.unwrap().unwrap().unwrap();
    check_problem(refused, Code::TooManyUploads).await;
    // Whoever goes away in the midst of it leaves nothing.
    drop((sent, senders));
    let seen = async {
        while served.request(Method::POST, "/v1/sources").body("one more").send().await.unwrap().status() != StatusCode::CREATED {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(DEADLINE, seen).await.expect("there is room again");
}

#[tokio::test]
async fn one_token_brings_at_most_half_of_them() {
    let served = rights::with_tokens();
    let bring =
        |token: &str, body: reqwest::Body| served.client.post(format!("{}/v1/sources", served.base)).bearer_auth(token).body(body).send();
    let mut begun = tokio::task::JoinSet::new();
    for _ in 0..=UPLOADS_MAX / 2 {
        let body = futures_util::stream::once(async { Ok::<_, std::io::Error>("the beginning") }).chain(futures_util::stream::pending());
        begun.spawn(bring("run", reqwest::Body::wrap_stream(body)));
    }
    let refused = begun.join_next().await.unwrap().unwrap().unwrap();
    check_problem(refused, Code::TooManyUploads).await;
    assert_eq!(bring(rights::STRANGER, "all of it".into()).await.unwrap().status(), StatusCode::CREATED);
}

#[tokio::test]
async fn a_token_of_one_project_names_what_it_has_brought_and_nothing_else() {
    let served = rights::with_tokens();
    let bytes = Bytes::from_static(b"the tree of another project");
    let digest = Digest::of(&bytes);
    let ask = |path: &str, token: &str| {
        let create = json!({ "project": "other", "pipeline": "pipeline {}", "source": digest });
        served.client.post(format!("{}{path}", served.base)).bearer_auth(token).json(&create).send()
    };
    let bring = |token: &str| {
        let request = served.client.post(format!("{}/v1/sources", served.base)).bearer_auth(token);
        request.body(bytes.clone()).send()
    };
    assert_eq!(bring("run").await.unwrap().status(), StatusCode::CREATED);
    for path in ["/v1/runs", "/v1/plans"] {
        check_problem(ask(path, rights::STRANGER).await.unwrap(), Code::UnknownSource).await;
    }
    assert_eq!(ask("/v1/runs", "admin").await.unwrap().status(), StatusCode::CREATED, "it is for all projects");
    assert_eq!(bring(rights::STRANGER).await.unwrap().status(), StatusCode::CREATED);
    assert_eq!(ask("/v1/runs", rights::STRANGER).await.unwrap().status(), StatusCode::CREATED);
}
