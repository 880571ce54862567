//! Auctions among ten thousand agents: what one costs, whether the right agent is found, and what asking all would have found.
//!
//! The auctioneer, the bus and the roll are real; the agents are played ([`crate::agents`]), each with its own key and connection. The questions come from the
//! bench with the orchestrator's key, and are about runs that no orchestrator knows.

use std::{
    fs,
    path::Path,
    process::Command,
    time::{Duration, Instant},
};

use anyhow::{Context as _, ensure};
use auctioneer::core::{rank::cost, times::Times};
use eventbus::{
    Bus, Subject, Subscription,
    nats::{Identity, Keys, NatsOptions, connect},
    subject::Role,
};
use model::{
    AgentClass, AttemptId, AuctionId, RunId, StageId, TriggerId,
    plan::{Requirements, Value},
    protocol::{
        auction::{AuctionRequest, Experience, Proposal, Ran, Routine},
        enrolment::AgentTrust,
    },
};

use tempfile::TempDir;

use crate::{
    agents::{self, Agents, Cast, RARE},
    installation, processes,
    services::{Plan, Services, data_in},
    stats::{Figures, Samples, ms},
};

/// Agents of the small fleet and of the large one.
const FEW: usize = 10;
const MANY: usize = 10_000;
/// The one that alone has what some stages demand.
const ONLY: usize = 6_789;
/// Slots of each: what is kept for an offer is kept for 2 s, and more auctions than usual are held in that time.
const SLOTS: u32 = 4_096;
/// Auctions of each kind.
const AUCTIONS: usize = 400;
/// An auction that takes longer was not heard.
const DEADLINE: Duration = Duration::from_secs(10);
/// How long a fleet is left alone that has just connected, and how long it is then looked at without an auction.
const SETTLE: Duration = Duration::from_secs(6);
const LOOK: Duration = Duration::from_secs(10);

/// The table of `docs/benchmarks.md`.
pub(crate) async fn measure(otto: &Path) -> anyhow::Result<String> {
    let mut figures = Figures::new();
    let folder = installation()?;
    let keys = enrol(&folder)?;
    let services = Services::start_in(folder, otto, &Plan { agents: FEW, are_played: true, environment: &[] }).await?;
    let mut house = House::enter(&services, &keys).await?;
    let cast = |numbers| Cast { data: services.data(), numbers, slots: SLOTS, stage_ms: 0, differ: true, rare: Some(ONLY) };
    let few = Agents::start(&cast((1, FEW)))?;
    let small = house.look(&services).await?;
    let more = Agents::start(&cast((FEW + 1, MANY)))?;
    let large = house.look(&services).await?;

    let ratio = |large: Duration, small: Duration| format!("{:.2} ×", large.as_secs_f64() / small.as_secs_f64());
    for (count, look) in [(FEW, &small), (MANY, &large)] {
        let measured = format!("p50 {} ms, p99 {} ms", ms(look.took.p50()), ms(look.took.p99()));
        figures.add(&format!("an auction among {count} agents, from the question to the proposal"), "", &measured);
        figures.add(
            &format!("of {count} agents, the auctioneer's time of a processor, for each auction"),
            "",
            &format!("{} ms", ms(look.each)),
        );
        let share = format!("{:.1} % of a core", look.idle * 100.0);
        figures.add(&format!("of {count} agents, the auctioneer without auctions: it hears that they are there"), "", &share);
    }
    figures.add("the auction among the many against that among the few", "1.2 ×", &ratio(large.took.p50(), small.took.p50()));
    figures.add("the same, the auctioneer's time of a processor", "", &ratio(large.each, small.each));
    let found = house.only().await?;
    figures.add(&format!("auctions for what one of {MANY} has, that found it"), "all", &format!("{found} of {AUCTIONS}"));
    let (mean, worst) = house.against_all().await?;
    figures.add("what was chosen costs, against asking all", "1.1 ×", &format!("on average {mean:.3} ×, at worst {worst:.3} ×"));
    drop((few, more));
    services.end().await?;
    Ok(figures.to_string())
}

/// Makes the keys of an `otto up` in this folder, and enrols all agents: aside in memory, as each record is synced to the disk.
fn enrol(folder: &TempDir) -> anyhow::Result<Keys> {
    let aside = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir())?;
    let keys = Keys::open(&aside.path().join("bus"))?;
    for number in 1..=MANY {
        keys.enrol(&agents::name(number), &AgentClass::default(), AgentTrust::Any)?;
    }
    let folder = data_in(folder).join("keys");
    fs::create_dir_all(&folder)?;
    let status = Command::new("cp").arg("-a").arg(aside.path().join("bus")).arg(&folder).status()?;
    ensure!(status.success(), "the keys cannot be copied");
    Ok(Keys::open(&folder.join("bus"))?)
}

/// What auctions cost.
struct Look {
    took: Samples,
    /// The auctioneer's time of a processor for each, beyond what it needs without one.
    each: Duration,
    /// Its share of a core without one.
    idle: f64,
}

/// The orchestrator's end of the bus.
struct House {
    bus: Bus,
    proposals: Subscription,
    held: usize,
}

impl House {
    async fn enter(services: &Services, keys: &Keys) -> anyhow::Result<Self> {
        let role = Role::Orchestrator;
        let credentials = fs::read_to_string(keys.service_credentials_file(role))?;
        let urls = vec![agents::bus_url(&services.data())?];
        let bus = connect(&NatsOptions { urls, credentials, identity: Identity::Service(role) }).await?;
        let proposals = bus.subscribe(Subject::proposed()).await?;
        Ok(Self { bus, proposals, held: 0 })
    }

    /// Holds an auction, for a stage that nobody knows.
    async fn hold(&mut self, requires: Requirements, routine: Option<Routine>) -> anyhow::Result<(Proposal, Duration)> {
        self.held += 1;
        let run = RunId::of(&TriggerId::of("bench", &self.held.to_string()));
        let attempt = AttemptId { run, stage: StageId::of("build"), attempt: 1 };
        let auction = AuctionId::of(&attempt, 1);
        let request = AuctionRequest { requires, routine, ..AuctionRequest::new(auction.clone(), attempt) };
        let begun = Instant::now();
        self.bus.publish(&Subject::for_auction(), &request).await?;
        loop {
            let message = tokio::time::timeout(DEADLINE, self.proposals.next()).await.context("an auction has no end")?;
            let proposal: Proposal = message.context("the bus is closed")?.read()?;
            if proposal.auction == auction {
                return Ok((proposal, begun.elapsed()));
            }
        }
    }

    /// Looks at the fleet that is there, with auctions and without.
    async fn look(&mut self, services: &Services) -> anyhow::Result<Look> {
        tokio::time::sleep(SETTLE).await;
        let spent = || anyhow::Ok(*processes::processor_times(services)?.get("auctioneer").context("there is an auctioneer")?);
        let (before, begun) = (spent()?, Instant::now());
        tokio::time::sleep(LOOK).await;
        let idle = spent()?.saturating_sub(before).as_secs_f64() / begun.elapsed().as_secs_f64();
        // The first of a kind looks through the fleet.
        self.hold(Requirements::new(), None).await?;
        let (before, begun, mut took) = (spent()?, Instant::now(), Samples::default());
        for _ in 0..AUCTIONS {
            let (proposal, after) = self.hold(Requirements::new(), None).await?;
            ensure!(!proposal.offers.is_empty(), "an auction had no offer: {:?}", proposal.declined);
            took.push(after);
        }
        let beyond = spent()?.saturating_sub(before).saturating_sub(begun.elapsed().mul_f64(idle));
        Ok(Look { took, each: beyond / u32::try_from(AUCTIONS)?, idle })
    }

    /// Auctions for what only one agent has; how many it won.
    async fn only(&mut self) -> anyhow::Result<usize> {
        let mut found = 0;
        for _ in 0..AUCTIONS {
            let (proposal, _) = self.hold([(RARE.to_owned(), Value::Boolean(true))].into(), None).await?;
            found += usize::from(proposal.offers.first().is_some_and(|best| best.agent == agents::name(ONLY)));
        }
        Ok(found)
    }

    /// Auctions of a stage that comes back, each won attempt taking as long as its agent takes. What the winner costs by all that is known against
    /// the cheapest of all agents with a free slot, on average and at worst.
    async fn against_all(&mut self) -> anyhow::Result<(f64, f64)> {
        let routine = Routine { project: "bench".parse()?, pipeline: "Ottofile".to_owned(), stage: "build".to_owned() };
        let free: Vec<usize> = (1..=MANY).filter(|number| !agents::is_full(*number)).collect();
        let mut times = Times::default();
        let (mut sum, mut worst) = (0.0, 0.0_f64);
        for _ in 0..AUCTIONS {
            let (proposal, _) = self.hold(Requirements::new(), Some(routine.clone())).await?;
            let winner = &proposal.offers.first().context("an auction had no offer")?.agent;
            let number: usize = winner.as_str().trim_start_matches("agent-").parse()?;
            let costs = |number: usize| cost(agents::price(number), times.expected_ms(Some(&routine), &agents::name(number)));
            let best = free.iter().map(|number| costs(*number)).min().context("some have a slot free")?;
            #[expect(clippy::cast_precision_loss, reason = "a price for some seconds")]
            let ratio = costs(number) as f64 / best as f64;
            sum += ratio;
            worst = worst.max(ratio);
            let ran = Ran { routine: routine.clone(), agent: winner.clone(), took_ms: Some(agents::took_ms(number)) };
            times.learn(&ran);
            self.bus.publish(&Subject::ran(), &Experience { ran: vec![ran] }).await?;
        }
        #[expect(clippy::cast_precision_loss, reason = "some hundred")]
        let mean = sum / AUCTIONS as f64;
        Ok((mean, worst))
    }
}
