//! The events of all runs: each once, in the order of the stream, whatever happens in between.

use apispec::{RunEventView, SSE_EVENT, SSE_HERE};

use super::{rights::STRANGER, *};

const PATH: &str = "/v1/events/follow";

/// Follows without an end.
fn request(served: &Served) -> RequestBuilder {
    served.request(Method::GET, PATH).header("Accept", "text/event-stream")
}

/// The next message of the stream, and its id.
async fn next(followed: &mut Followed) -> (String, Option<RunEventView>) {
    let message = followed.message().await.expect("there is no end");
    let field = |name: &str| message.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_default().to_owned();
    let (name, id, data) = (field("event: "), field("id: "), field("data: "));
    match name.as_str() {
        SSE_HERE => (id, None),
        SSE_EVENT => (id, Some(serde_json::from_str(&data).unwrap())),
        other => panic!("{other}"),
    }
}

/// The places of so many events.
async fn places(followed: &mut Followed, count: usize) -> Vec<String> {
    let mut places = Vec::new();
    while places.len() < count {
        let (id, view) = next(followed).await;
        let view = view.expect("only the first message is another one");
        assert_eq!(id, view.event.id());
        places.push(id);
    }
    places
}

#[tokio::test]
async fn events_of_all_runs_come_in_the_order_of_the_stream_even_if_they_are_heard_in_another() {
    let served = Served::start();
    let mut all = Followed::new(request(&served).send().await.unwrap());
    assert_eq!(next(&mut all).await, ("0.999999999".to_owned(), None));
    let mut one = served.begin("one", &["Build"], 1);
    served.append(&mut one, 3, vec![awarded("Build")]);
    served.begin("two", &["Build"], 2);
    served.append(&mut one, 4, vec![finished("Build"), END]);
    assert_eq!(places(&mut all, 7).await, ["1.0", "1.1", "2.0", "2.1", "3.0", "4.0", "4.1"]);
}

/// The log of a run as it is stored, of which this process has heard nothing.
struct Log<'a> {
    served: &'a Served,
    run: RunId,
    tail: Tail,
}

impl Log<'_> {
    async fn store(&mut self, events: Vec<RunEvent>) {
        let (_, bytes) = encode(self.tail, "test", Timestamp(1), events);
        let sequence = self.served.orchestrator.bus.append(&self.run, self.tail.sequence, bytes.clone()).await.unwrap();
        self.tail = Tail { sequence, digest: Some(Digest::of(&bytes)) };
    }

    /// Of a run that is accepted, and whose stage is ready.
    async fn begin<'a>(served: &'a Served, delivery: &str) -> Log<'a> {
        let trigger = trigger(delivery);
        let planned = Planned::plan(Digest::of(b"no plan is looked at"));
        let mut log = Log { served, run: trigger.run(), tail: Tail::default() };
        let ready = RunEvent::StageReady { stage: StageId::of("Build"), attempt: 1 };
        log.store(vec![RunEvent::RunAccepted { trigger, planned }, ready]).await;
        log
    }
}

#[tokio::test]
async fn only_events_of_the_projects_that_are_asked_for_and_seen_are_told() {
    let served = super::rights::with_tokens();
    let _log = Log::begin(&served, "one").await;
    // Whoever does not say that it follows is told what there is.
    let told = async |token: &str, query: String| {
        let request = served.client.get(format!("{}{PATH}{query}", served.base)).bearer_auth(token).header("Last-Event-ID", "0.0");
        let mut followed = Followed::new(request.send().await.unwrap());
        let mut told = 0;
        while followed.message().await.is_some() {
            told += 1;
        }
        told - 1
    };
    let project = crate::core::tests::trigger().project;
    assert_eq!(told("view", String::new()).await, 2);
    assert_eq!(told("view", format!("?project={project}")).await, 2);
    assert_eq!(told("view", "?project=other".to_owned()).await, 0);
    assert_eq!(told(STRANGER, String::new()).await, 0);
    assert_eq!(told(STRANGER, format!("?project={project}")).await, 0);
}

#[tokio::test]
async fn who_connects_again_misses_nothing_and_gets_nothing_twice() {
    let served = Served::start();
    let mut log = Log::begin(&served, "one").await;
    log.store(vec![awarded("Build"), finished("Build")]).await;
    let from = |id: &'static str| request(&served).header("Last-Event-ID", id).send();
    let mut again = Followed::new(from("1.0").await.unwrap());
    assert_eq!(next(&mut again).await, ("1.0".to_owned(), None));
    assert_eq!(places(&mut again, 3).await, ["1.1", "2.0", "2.1"]);
    // What another orchestrator appends is not heard, and told all the same.
    log.store(vec![END]).await;
    assert_eq!(places(&mut again, 1).await, ["3.0"]);
    let mut last = Followed::new(from("3.0").await.unwrap());
    assert_eq!(next(&mut last).await.0, "3.0");
    // And what is heard after that.
    served.begin("two", &["Build"], 4);
    let both = ["4.0", "4.1"];
    assert_eq!((places(&mut again, 2).await, places(&mut last, 2).await), (both.map(str::to_owned).into(), both.map(str::to_owned).into()));
    check_problem(from("x").await.unwrap(), Code::InvalidHeader).await;
}

#[tokio::test]
async fn what_is_never_heard_is_read_however_much_else_is_heard_meanwhile() {
    let served = Served::start();
    let mut all = Followed::new(request(&served).send().await.unwrap());
    next(&mut all).await;
    // The first record is another orchestrator's; this one's own come one behind the other, as soon as they are heard by one who has that record.
    let _log = Log::begin(&served, "one").await;
    let mut other = Followed::new(request(&served).header("Last-Event-ID", "1.1").send().await.unwrap());
    next(&mut other).await;
    let mut told = std::pin::pin!(places(&mut all, 2));
    let mut sequence = 1;
    let places = loop {
        sequence += 1;
        served.begin(&sequence.to_string(), &["Build"], sequence);
        tokio::select! {
            places = &mut told => break places,
            heard = places(&mut other, 2) => assert_eq!(heard, [format!("{sequence}.0"), format!("{sequence}.1")]),
        }
    };
    assert_eq!(places, ["1.0", "1.1"]);
}
