//! Orchestrators side by side on one bus. Each run is worked on by one of them, its owner; the others follow its log, so that each can answer for all
//! runs, and go on with any at once.
//!
//! ```text
//! owner ── append ──▶ log ──▶ the others read it, as soon as it is told that there is something
//!   ▲                                  │
//!   └── triggers and commands ◀────────┘ that reached another one, said again until the log shows what came of them
//! ```
//!
//! What keeps a log whole is the expected sequence of its end, whoever appends. Two logs have a meaning together only where a lock is: it is granted
//! by an append to the log of the stage that waits for it. So who takes over a partition appends an **empty record** to each log in which a stage waits
//! for a lock, and grants none before these are stored. What an earlier owner still has on its way to such a log loses, and is nothing.
//!
//! A *first* record that an earlier owner still has on its way loses against nothing. So where there are others, a run of a series begins in two records: the
//! first one says that it was accepted. When all records up to that are known, its place is: behind an older run that `newer = wait` puts it in a row
//! with, it is held, and else it begins.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use eventbus::{Bus, BusError, StoredRecord, Subject, Subscription, TriggerDelivery};
use model::{
    Digest, ProjectName, RunId,
    event::run::RunEvent,
    protocol::{
        agent::Lease,
        orchestrator::{Asked, Here, Member, Told},
    },
    trigger::Trigger,
};
use serde::Serialize;
use tokio::time::{Instant, timeout};
use tracing::{debug, info, warn};

use super::{
    Done, Engine, Pending,
    intake::TakenIn,
    log::{self, Decoded, Tail},
    members::{BEAT, Members, Partition, partition},
    open::{OpenRun, WorkedOn},
    recovery::Reading,
    series::Key,
};
use crate::{
    core::{Input, stage::Status},
    runs::Appended,
};

/// How long it takes at most to learn that nobody listens: the server says so by itself.
const NOBODY_DEADLINE: Duration = Duration::from_secs(1);
/// Before the others' records are read though nobody told of any: what tells of them may be lost.
const FOLLOW_PAUSE: Duration = Duration::from_secs(1);
/// Before a trigger is passed on again.
const PASS_ON_PAUSE: Duration = Duration::from_secs(2);
/// How long an orchestrator that ends tries to say so.
const LEAVE_DEADLINE: Duration = Duration::from_millis(500);

/// An orchestrator that has, or may get, others beside it.
pub(super) struct Beside {
    members: Members,
    /// What is its own by whom it counts.
    own: BTreeSet<Partition>,
    /// What it works on.
    owned: BTreeSet<Partition>,
    /// What is its own, and not worked on before the log was read up to its end.
    beginning: Option<Beginning>,
    /// Whether there was ever somebody else, so that there may be records that it has not appended.
    follows: bool,
    /// Up to where all records are known.
    cursor: u64,
    /// How often they were read; `true` while it is being done.
    reading: (u64, bool),
    /// They are to be read again after that.
    read_again: bool,
    read_at: Instant,
    beat_at: Instant,
    /// Runs of which more was stored while their log was read.
    behind: BTreeMap<RunId, u64>,
    /// Runs that wait for a lock, and for their first record of this owner.
    unfenced: BTreeSet<RunId>,
    /// Runs of this owner that have not begun, as it is not known yet which older ones there are.
    unplaced: BTreeMap<RunId, Place>,
    /// Runs that others have begun, and whose logs are being read.
    arriving: BTreeMap<RunId, (u64, Key)>,
    /// Triggers of others' runs.
    passed_on: BTreeMap<RunId, PassedOn>,
}

/// Where a run stands in its series.
struct Place {
    key: Key,
    /// The sequence of its first record.
    first: u64,
    /// Another run, whose first record was on its way, perhaps before this one.
    beside: Option<RunId>,
}

/// Partitions that are worked on after this reading.
struct Beginning {
    partitions: BTreeSet<Partition>,
    reading: u64,
}

/// A trigger that another orchestrator is to take in.
struct PassedOn {
    delivery: TriggerDelivery,
    trigger: Trigger,
    said: Instant,
}

/// What came of reading the others' records.
pub(super) type Followed = Result<(Vec<StoredRecord>, u64), BusError>;

/// What orchestrators say to each other.
pub(super) struct BesideEars {
    told: Subscription,
    asked: Subscription,
}

/// Something that another orchestrator said, or this one itself.
pub(super) enum BesideHeard {
    Told(eventbus::Message),
    Asked(eventbus::Message),
}

impl BesideEars {
    /// Listens, and knows whether somebody did before.
    pub(super) async fn open(bus: &Bus) -> Result<(Self, bool), BusError> {
        let told = bus.subscribe(Subject::orchestrators_told()).await?;
        let who = bus.request::<_, ()>(&Subject::orchestrators_asked(), &Asked::WhoIsThere, NOBODY_DEADLINE).await;
        let alone = matches!(who, Err(BusError::NoResponder { .. }));
        Ok((Self { told, asked: bus.subscribe(Subject::orchestrators_asked()).await? }, alone))
    }

    /// The next thing that arrives. Cancel safe.
    pub(super) async fn next(&mut self) -> Option<BesideHeard> {
        tokio::select! {
            told = self.told.next() => told.map(BesideHeard::Told),
            asked = self.asked.next() => asked.map(BesideHeard::Asked),
        }
    }
}

impl Beside {
    pub(super) fn new(own: Member, alone: bool) -> Self {
        let now = Instant::now();
        info!(member = %own, alone, "orchestrators may work side by side");
        let members = Members::new(own, alone, now);
        Self {
            own: members.own_among(members.view()),
            members,
            owned: BTreeSet::new(),
            beginning: None,
            follows: !alone,
            cursor: 0,
            reading: (0, false),
            read_again: false,
            read_at: now,
            beat_at: now,
            behind: BTreeMap::new(),
            unfenced: BTreeSet::new(),
            unplaced: BTreeMap::new(),
            arriving: BTreeMap::new(),
            passed_on: BTreeMap::new(),
        }
    }

    /// Whether it works on the runs of the project.
    pub(super) fn owns(&self, project: &ProjectName) -> bool {
        self.owned.contains(&partition(project))
    }

    /// All records up to this one are known.
    pub(super) fn knows(&mut self, sequence: u64) {
        self.cursor = self.cursor.max(sequence);
    }

    /// When there is something to do next.
    pub(super) fn beat_at(&self) -> Instant {
        self.beat_at
    }

    /// Triggers that wait for another orchestrator.
    pub(super) fn passed_on(&self) -> usize {
        self.passed_on.len()
    }
}

impl Engine {
    /// Whether the runs of the project are this engine's to work on.
    pub(super) fn owns(&self, project: &ProjectName) -> bool {
        self.beside.as_ref().is_none_or(|beside| beside.owns(project))
    }

    /// Whether nobody else may have begun to work on what is this engine's.
    pub(super) fn may_decide(&self) -> bool {
        self.beside.as_ref().is_none_or(|beside| beside.members.is_heard(Instant::now()))
    }

    /// Whether no lock of the project is granted yet, as it may be that an earlier owner grants one.
    pub(super) fn projects_unfenced(&self) -> BTreeSet<ProjectName> {
        let unfenced = self.beside.iter().flat_map(|beside| &beside.unfenced);
        unfenced.filter_map(|run| Some(self.open.get(run)?.run.trigger.project.clone())).collect()
    }

    /// Whether the run waits for its first record of this owner.
    pub(super) fn is_unfenced(&self, run: &RunId) -> bool {
        self.beside.as_ref().is_some_and(|beside| beside.unfenced.contains(run))
    }

    /// Whether a run begins in two records, as others may have begun one before it that is not known here.
    pub(super) fn begins_in_two(&self) -> bool {
        self.beside.as_ref().is_some_and(|beside| beside.follows)
    }

    /// Whether it is not known yet which older runs the run may have to wait for.
    pub(super) fn is_unplaced(&self, run: &RunId) -> bool {
        self.beside.as_ref().is_some_and(|beside| beside.unplaced.contains_key(run))
    }

    /// Goes on with a run of this owner: at once, or as soon as its place among the others is known.
    pub(super) fn begin_in_turn(&mut self, run: &RunId) {
        match self.place_of(run).zip(self.beside.as_mut()) {
            Some((place, beside)) => {
                beside.unplaced.insert(run.clone(), place);
                self.begin_placed();
            }
            None => self.opened(run),
        }
    }

    fn place_of(&self, run: &RunId) -> Option<Place> {
        let open = self.open.get(run).filter(|open| self.beside.is_some() && open.run.may_be_held())?;
        let (key, first) = Key::of(&open.run.trigger).zip(self.runs.first_sequence(run))?;
        let beside = self.series.beginning(&key).filter(|beginning| *beginning != run).cloned();
        Some(Place { key, first, beside })
    }

    /// Begins the runs whose place is known by now.
    pub(super) fn begin_placed(&mut self) {
        let (Some(beside), series) = (&mut self.beside, &self.series) else { return };
        let (cursor, arriving) = (beside.cursor, &beside.arriving);
        let is_placed = |place: &Place| {
            let may_be_older = |(first, key): &(u64, Key)| *first < place.first && *key == place.key;
            let is_beside = place.beside.as_ref().is_some_and(|beside| series.beginning(&place.key) == Some(beside));
            cursor >= place.first && !is_beside && !arriving.values().any(may_be_older)
        };
        let placed: Vec<(RunId, Place)> = beside.unplaced.extract_if(.., |_, place| is_placed(place)).collect();
        let is_behind = beside.unplaced.values().any(|place| place.first > cursor);
        if is_behind {
            self.follow();
        }
        for (run, place) in placed {
            if !self.open.get(&run).is_some_and(OpenRun::is_own) {
                continue;
            }
            if let Some(older) = self.series.older_than(&place.key, place.first) {
                self.input(&run, Input::Held(older));
            }
            self.opened(&run);
        }
    }

    /// The log of a run is read that another has begun.
    pub(super) fn arrives(&mut self, run: &RunId, first: u64, trigger: &Trigger) {
        if let Some((beside, key)) = self.beside.as_mut().zip(Key::of(trigger)) {
            beside.arriving.insert(run.clone(), (first, key));
        }
    }

    /// It is read now, if another has begun it: this one does not.
    pub(super) fn read_arriving(&mut self, run: &RunId) {
        if self.beside.as_ref().is_some_and(|beside| beside.arriving.contains_key(run)) {
            self.reload(run.clone(), None);
        }
    }

    /// It was read, or cannot be, or is its own.
    pub(super) fn arrived(&mut self, run: &RunId) {
        if let Some(beside) = &mut self.beside {
            beside.arriving.remove(run);
        }
    }

    /// Tells that it is there, looks who else is, and does again what was lost.
    pub(super) fn beat(&mut self) {
        let now = Instant::now();
        let Some(beside) = &mut self.beside else { return };
        if !beside.members.is_heard(now) && (!beside.owned.is_empty() || beside.beginning.is_some()) {
            warn!("the other orchestrators cannot hear this one, so it decides nothing");
            beside.members.returns(now);
            beside.follows = true;
            beside.beginning = None;
            let all = std::mem::take(&mut beside.owned);
            self.runs.leaving().owns(&beside.owned);
            self.cease(&all);
        }
        self.rearrange();
        self.tell_of_itself();
        let Some(beside) = &self.beside else { return };
        if now >= beside.read_at + FOLLOW_PAUSE {
            self.follow();
        }
        self.pass_on_again(now);
        let unfenced: Vec<RunId> = self.beside.iter().flat_map(|beside| beside.unfenced.iter().cloned()).collect();
        for run in unfenced {
            self.fence(&run);
        }
    }

    fn tell_of_itself(&mut self) {
        let now = Instant::now();
        let Some(beside) = &mut self.beside else { return };
        beside.beat_at = now + BEAT;
        let here = beside.members.beat(now);
        self.tell(Subject::orchestrators_told(), Told::Here(here));
    }

    /// Says it, not behind what waits for the bus: it counts when it is said.
    fn tell<T: Serialize + Send + Sync + 'static>(&self, subject: Subject, said: T) {
        let bus = self.bus.clone();
        self.work.push(Box::pin(async move {
            if let Err(error) = bus.publish(&subject, &said).await {
                debug!(error = service::supervisor::chain(&error), "the other orchestrators are not told");
            }
            Done::Told
        }));
    }

    /// Tells the others of a record, so that they read it.
    pub(super) fn tell_appended(&mut self, sequence: u64) {
        let Some(beside) = &mut self.beside else { return };
        if !beside.follows {
            // Nobody is there: all records are its own.
            beside.knows(sequence);
        }
        if beside.members.view().len() > 1 {
            self.tell(Subject::orchestrators_told(), Told::Appended { sequence });
        }
    }

    /// It ends: what it works on is the others' at once.
    pub(super) async fn leave(self) {
        let (bus, Some(beside)) = (self.bus, self.beside) else { return };
        let leaving = Told::Leaving { member: beside.members.own().clone() };
        // If they do not hear it, they notice.
        let _said = timeout(LEAVE_DEADLINE, bus.publish(&Subject::orchestrators_told(), &leaving)).await;
    }

    pub(super) fn hear_beside(&mut self, heard: BesideHeard) {
        match heard {
            BesideHeard::Told(message) => match message.read::<Told>() {
                Ok(Told::Here(here)) => self.hear_here(here),
                Ok(Told::Leaving { member }) => {
                    if let Some(beside) = &mut self.beside {
                        beside.members.left(&member);
                    }
                    self.rearrange();
                }
                Ok(Told::Appended { .. }) => self.follow(),
                Err(error) => warn!(error = service::supervisor::chain(&error), "an orchestrator said what cannot be read"),
            },
            BesideHeard::Asked(message) => match message.read::<Asked>() {
                Ok(asked) => self.asked(asked),
                Err(error) => warn!(error = service::supervisor::chain(&error), "an orchestrator asks what cannot be read"),
            },
        }
    }

    fn hear_here(&mut self, here: Here) {
        let Some(beside) = &mut self.beside else { return };
        let member = here.member.clone();
        let is_new = beside.members.hear(here, Instant::now());
        if is_new {
            info!(%member, "another orchestrator is there");
            beside.follows = true;
        }
        self.rearrange();
        if is_new {
            // It is to know at once who is there.
            self.tell_of_itself();
        }
    }

    /// What reached an orchestrator that does not work on the run.
    fn asked(&mut self, asked: Asked) {
        match asked {
            Asked::WhoIsThere => {}
            Asked::Trigger { trigger } => {
                if self.owns(&trigger.project) && self.takes_in() {
                    self.take_in(TriggerDelivery::passed_on(*trigger));
                }
            }
            Asked::Cancel { run, by, reason, force } => self.input_of_own(&run, |_| Some(Input::Cancel { by, reason, force })),
            Asked::Answered { run, stage, wait, answer, by } => {
                self.input_of_own(&run, |open| Some(Input::Answered { at: open.run.shape.find(&stage)?, wait, answer, by }));
            }
        }
    }

    fn input_of_own(&mut self, run: &RunId, input: impl FnOnce(&OpenRun) -> Option<Input>) {
        if let Some(input) = self.open.get(run).filter(|open| open.is_own()).and_then(input) {
            self.input(run, input);
        }
    }

    /// Gives a command to the run's owner.
    pub(super) fn input_or_ask(&mut self, run: &RunId, input: Input) {
        let Some(open) = self.open.get(run).filter(|open| !open.is_own()) else { return self.input(run, input) };
        let asked = match input {
            Input::Cancel { by, reason, force } => Some(Asked::Cancel { run: run.clone(), by, reason, force }),
            Input::Answered { at, wait, answer, by } if at < open.run.stages.len() => {
                Some(Asked::Answered { run: run.clone(), stage: open.run.shape.stage(at).id.clone(), wait, answer, by })
            }
            // Nobody commands these.
            Input::Answered { .. }
            | Input::Report { .. }
            | Input::Proposed(_)
            | Input::LeaseLapsed(_)
            | Input::AgentRevoked(_)
            | Input::NotTakenUp(_)
            | Input::LockGranted(_)
            | Input::Held(_)
            | Input::Released
            | Input::TimePassed => None,
        };
        if let Some(asked) = asked {
            self.tell(Subject::orchestrators_asked(), asked);
        }
    }

    /// Gives a trigger to the owner of its run.
    pub(super) fn pass_on(&mut self, delivery: TriggerDelivery, trigger: Trigger) {
        self.tell(Subject::orchestrators_asked(), Asked::Trigger { trigger: Box::new(trigger.clone()) });
        let Some(beside) = &mut self.beside else { return };
        beside.passed_on.insert(trigger.run(), PassedOn { delivery, trigger, said: Instant::now() });
    }

    /// Triggers whose runs have begun are done with; what nobody took up is said again.
    fn pass_on_again(&mut self, now: Instant) {
        let Some(beside) = &mut self.beside else { return };
        for (run, PassedOn { delivery, trigger, said }) in std::mem::take(&mut beside.passed_on) {
            let is_known = self.runs.get(&run).is_some() || self.damaged.contains(&run);
            if is_known {
                self.dismiss(delivery);
            } else if self.owns(&trigger.project) {
                self.take_in(delivery);
            } else if now >= said + PASS_ON_PAUSE {
                self.pass_on(delivery, trigger);
            } else if let Some(beside) = &mut self.beside {
                beside.passed_on.insert(run, PassedOn { delivery, trigger, said });
            }
        }
    }

    /// Makes of who is there what is to be worked on here.
    fn rearrange(&mut self) {
        let now = Instant::now();
        let Some(beside) = &mut self.beside else { return };
        let counted = beside.members.counted(now);
        if counted != *beside.members.view() {
            info!(members = counted.len(), "the orchestrators that are there are others than before");
            let own = beside.members.own_among(&counted);
            let lost: BTreeSet<Partition> = beside.owned.difference(&own).copied().collect();
            beside.owned.retain(|partition| own.contains(partition));
            beside.own = own;
            beside.beginning = None;
            self.runs.leaving().owns(&beside.owned);
            // In this order: what is told to be another's is not worked on.
            self.cease(&lost);
            if let Some(beside) = &mut self.beside {
                beside.members.adopt(counted);
            }
            self.tell_of_itself();
        }
        let Some(beside) = &mut self.beside else { return };
        if beside.owned.len() == beside.own.len() || beside.beginning.is_some() || !beside.members.may_begin(now) {
            return;
        }
        let partitions = beside.own.difference(&beside.owned).copied().collect();
        beside.beginning = Some(Beginning { partitions, reading: beside.reading.0 + 1 });
        if beside.follows {
            self.follow();
        } else {
            self.begin_partitions();
        }
    }

    /// The runs of these partitions are others': what is soft about them is forgotten.
    fn cease(&mut self, partitions: &BTreeSet<Partition>) {
        let of_these = |open: &OpenRun| open.is_own() && partitions.contains(&partition(&open.run.trigger.project));
        let ceased: Vec<RunId> = self.open.iter().filter(|(_, open)| of_these(open)).map(|(run, _)| run.clone()).collect();
        for run in &ceased {
            let Some(open) = self.open.get_mut(run) else { continue };
            open.follow_only();
            let state = open.run.clone();
            self.leases.forget(run);
            self.agenda.set(run, None);
            self.stirred.remove(run);
            if let Some(beside) = &mut self.beside {
                beside.unfenced.remove(run);
                beside.unplaced.remove(run);
            }
            // What was granted here and is not in the log was not granted.
            self.locks.forget(run);
            if let Some(snapshot) = self.runs.get(run) {
                snapshot.records.iter().for_each(|appended| self.locks.follow(&state, appended));
            }
        }
        self.series.forget_words(|project| partitions.contains(&partition(project)));
    }

    /// The log was read to its end: what is its own is worked on from now on.
    fn begin_partitions(&mut self) {
        let Some(beside) = &mut self.beside else { return };
        let Some(Beginning { partitions, .. }) = beside.beginning.take() else { return };
        beside.owned.extend(&partitions);
        self.runs.leaving().owns(&beside.owned);
        info!(partitions = partitions.len(), all = beside.owned.len(), "works on these from now on");
        // What is not folded yet may hold a lock.
        self.unread.extend(self.reloading.iter().cloned());
        let of_these = |open: &OpenRun| partitions.contains(&partition(&open.run.trigger.project));
        let begun: Vec<RunId> = self.open.iter().filter(|(_, open)| of_these(open)).map(|(run, _)| run.clone()).collect();
        for run in begun {
            self.own(&run);
        }
        self.settle_others();
        self.pass_on_again(Instant::now());
    }

    /// Works on an open run that another orchestrator worked on before.
    pub(super) fn own(&mut self, run: &RunId) {
        let Some(open) = self.open.get_mut(run) else { return };
        open.worked_on = WorkedOn::Here;
        let state = open.run.clone();
        let waits_for_a_lock = state.stages.iter().any(|stage| matches!(stage.status, Status::Queued { .. }));
        if let Some(beside) = self.beside.as_mut().filter(|_| waits_for_a_lock) {
            beside.unfenced.insert(run.clone());
        }
        self.see(&state);
        self.fence(run);
        self.begin_in_turn(run);
    }

    /// Appends an empty record to a log that has none of this owner yet: what an earlier owner still appends loses.
    fn fence(&mut self, run: &RunId) {
        if !self.is_unfenced(run) || !self.may_decide() {
            return;
        }
        let Some(open) = self.open.get(run).filter(|open| open.is_own()) else {
            self.fenced(run);
            return;
        };
        if !open.busy && !open.reloading {
            self.append(run, Vec::new(), Vec::new(), Vec::new());
        }
    }

    /// The log has a record of this owner, or needs none.
    pub(super) fn fenced(&mut self, run: &RunId) {
        if let Some(beside) = &mut self.beside {
            beside.unfenced.remove(run);
        }
    }

    /// Reads what others have appended, if there ever was another.
    pub(super) fn follow(&mut self) {
        let Some(beside) = self.beside.as_mut().filter(|beside| beside.follows) else { return };
        if beside.reading.1 {
            beside.read_again = true;
            return;
        }
        beside.reading = (beside.reading.0 + 1, true);
        beside.read_again = false;
        beside.read_at = Instant::now();
        let (bus, cursor) = (self.bus.clone(), beside.cursor);
        self.work.push(Box::pin(async move { Done::Followed(bus.run_logs_after(cursor).await) }));
    }

    pub(super) fn followed(&mut self, followed: Followed) {
        let Some(beside) = &mut self.beside else { return };
        beside.reading.1 = false;
        let (records, end) = match followed {
            Ok(followed) => followed,
            Err(error) => {
                // Again with the next pause.
                debug!(error = service::supervisor::chain(&error), "the records of others cannot be read now");
                return;
            }
        };
        let known = records.last().map_or(end, |last| last.sequence);
        beside.knows(known);
        let is_all = known >= end;
        let begins = is_all && beside.beginning.as_ref().is_some_and(|beginning| beginning.reading <= beside.reading.0);
        let again = !is_all || beside.read_again || (beside.beginning.is_some() && !begins);
        for stored in &records {
            self.take_stored(stored);
        }
        if begins {
            self.begin_partitions();
        }
        self.settle_others();
        self.begin_placed();
        self.pass_on_again(Instant::now());
        if again {
            self.follow();
        }
    }

    /// A record that is stored: perhaps known, perhaps another's.
    fn take_stored(&mut self, stored: &StoredRecord) {
        let run = &stored.run;
        if self.damaged.contains(run) {
            return;
        }
        let Some(open) = self.open.get_mut(run) else { return self.take_stored_of_unknown(stored) };
        if stored.sequence <= open.tail.sequence {
            return;
        }
        if open.reloading {
            self.note_behind(stored);
            return;
        }
        let digest = Digest::of(&stored.bytes);
        if open.busy {
            // Its own, whose acknowledgement is on its way; or that append finds another's there, and the log is read again.
            return;
        }
        match log::decode(stored) {
            Ok(Decoded::Record(record)) if record.previous == open.tail.digest => {
                let appended = Appended { run: run.clone(), sequence: stored.sequence, record };
                self.stored(appended, digest, Vec::new());
            }
            Ok(Decoded::Record(_) | Decoded::Archived(_)) | Err(_) => {
                open.reloading = true;
                self.reload(run.clone(), None);
            }
        }
    }

    fn take_stored_of_unknown(&mut self, stored: &StoredRecord) {
        let run = &stored.run;
        let decoded = log::decode(stored);
        if let Ok(Decoded::Archived(_)) = decoded {
            // It says nothing new of the run.
            self.runs.leaving().is_away(run);
        } else if self.reloading.contains(run) {
            self.note_behind(stored);
        } else if let Some(snapshot) = self.runs.get(run) {
            if snapshot.records.last().is_none_or(|last| last.sequence < stored.sequence) {
                self.reload(run.clone(), None);
            }
        } else if let Ok(Decoded::Record(record)) = decoded
            && record.previous.is_none()
        {
            if let Some(RunEvent::RunAccepted { trigger, .. }) = record.events.first() {
                self.arrives(run, stored.sequence, trigger);
            }
            // Else it is its own, whose acknowledgement is on its way; or another's, which is found when this one would begin it.
            if self.intake.contains(run) || !self.reloading.insert(run.clone()) {
                return;
            }
            let (plans, stored) = (self.plans.clone(), stored.clone());
            self.work.push(Box::pin(async move {
                let mut reading = Reading::default();
                reading.take(&stored);
                let outcome = reading.finish(&stored.run, &plans).await;
                Done::Reloaded { run: stored.run, asker: None, outcome }
            }));
        }
    }

    fn note_behind(&mut self, stored: &StoredRecord) {
        if let Some(beside) = &mut self.beside {
            beside.behind.insert(stored.run.clone(), stored.sequence);
        }
    }

    /// A log was read: once more, if more was stored meanwhile.
    pub(super) fn catch_up(&mut self, run: &RunId, tail: Tail) {
        let behind = self.beside.as_mut().and_then(|beside| beside.behind.remove(run));
        if behind.is_some_and(|sequence| sequence > tail.sequence) {
            if let Some(open) = self.open.get_mut(run) {
                open.reloading = true;
            }
            self.reload(run.clone(), None);
        }
    }

    /// A record of this engine was stored of a run that is not its own any more.
    pub(super) fn stored_late(&mut self, run: &RunId, pending: Pending, sequence: u64) {
        let Some(open) = self.open.get_mut(run).filter(|open| !open.reloading && sequence > open.tail.sequence) else { return };
        if pending.record.previous == open.tail.digest {
            let appended = Appended { run: run.clone(), sequence, record: pending.record };
            self.stored(appended, pending.digest, Vec::new());
        } else {
            open.reloading = true;
            self.reload(run.clone(), None);
        }
    }

    /// Whether the lease is of an attempt that another orchestrator's run has under way.
    pub(super) fn is_held_elsewhere(&self, lease: &Lease) -> bool {
        let open = self.open.get(&lease.attempt.run).filter(|open| !open.is_own());
        open.is_some_and(|open| open.run.holds(lease))
    }

    /// Whether the run's owner, and so whether what is prepared begins here; if not, the trigger is passed on.
    pub(super) fn is_passed_on(&mut self, delivery: TriggerDelivery, trigger: &Trigger) -> Option<TriggerDelivery> {
        if self.owns(&trigger.project) && self.may_decide() {
            return Some(delivery);
        }
        let trigger = trigger.clone();
        self.taken_in(delivery, TakenIn::Others(Box::new(trigger)));
        None
    }
}
