//! Which orchestrators are there, and which partition is whose.
//!
//! Each tells every [`BEAT`] that it is there and whom it counts, its *view*. Of its view, every member computes the same owner of each partition.
//! An orchestrator
//!
//! - works on what is its own in its view, and ceases to **before** it tells a view in which that is another's;
//! - begins to work on a partition only when all of its view tell the same view;
//! - works on nothing when it has not heard *itself* for [`UNHEARD`]: the others may count it out, which they do after [`GONE`], twice that.
//!
//! **Invariant:** so, while clocks go at the same speed, two never work on one partition. Where that fails after all, as of a process that stood still
//! between its look at the clock and its append, the expected sequence of each log is left, and [`super::beside`] says what of that is enough.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use model::{
    Digest, ProjectName, RunId,
    protocol::orchestrator::{Here, Member},
};
use tokio::time::Instant;

/// A run is in the partition of its project: what runs mean to each other, locks and newer ones, ends there.
pub(super) type Partition = u8;

/// How often an orchestrator tells that it is there. Each beat wakes the bus and all orchestrators, however little there is to do.
pub(super) const BEAT: Duration = Duration::from_secs(1);
/// After which it works on nothing when it has not heard itself: three beats, as a machine under load is slow.
pub(super) const UNHEARD: Duration = Duration::from_secs(3);
/// After which another that was not heard does not count any more. With what taking over takes, it is below the 10 s in which runs go on.
pub(super) const GONE: Duration = Duration::from_secs(6);
/// Beats of its own that it has not heard yet and remembers.
const BEATS_MAX: usize = 64;
/// Others that are counted. A few are useful; a bus has no more.
const OTHERS_MAX: usize = 64;

/// The partition of a project's runs.
pub(super) fn partition(project: &ProjectName) -> Partition {
    Digest::of(project.as_str().as_bytes()).bytes()[0]
}

/// The partition in which a run itself is, whatever its project: for what is done to it alone, so that a team with one project has more than one
/// orchestrator at that.
pub(super) fn partition_of_run(run: &RunId) -> Partition {
    Digest::of(run.to_string().as_bytes()).bytes()[0]
}

/// The orchestrators, as one of them knows them.
#[derive(Debug)]
pub(super) struct Members {
    own: Member,
    /// Of the last beat.
    number: u64,
    /// When those beats were sent that it has not heard yet.
    beats: BTreeMap<u64, Instant>,
    /// When the newest of its beats was sent that it has heard.
    heard: Option<Instant>,
    /// Until when it listens, to know who is there, before it begins to work on anything.
    listens_until: Option<Instant>,
    others: BTreeMap<Member, Other>,
    /// Whom it counts and has told.
    view: BTreeSet<Member>,
}

#[derive(Debug)]
struct Other {
    heard: Instant,
    number: u64,
    view: BTreeSet<Member>,
    settled: bool,
}

impl Members {
    /// Of an orchestrator that starts: `alone` if nobody else listens, so that nobody is to be waited for.
    pub(super) fn new(own: Member, alone: bool, now: Instant) -> Self {
        let (listens_until, view) = ((!alone).then_some(now + GONE), BTreeSet::from([own.clone()]));
        Self { own, number: 0, beats: BTreeMap::new(), heard: None, listens_until, others: BTreeMap::new(), view }
    }

    pub(super) fn own(&self) -> &Member {
        &self.own
    }

    /// What it tells now.
    pub(super) fn beat(&mut self, now: Instant) -> Here {
        self.number += 1;
        self.beats.insert(self.number, now);
        if self.beats.len() > BEATS_MAX {
            self.beats.pop_first();
        }
        Here { member: self.own.clone(), number: self.number, view: self.view.clone(), settled: self.is_settled(now) }
    }

    /// Somebody is there; `true` if that was not known of it.
    pub(super) fn hear(&mut self, here: Here, now: Instant) -> bool {
        if here.member == self.own {
            let sent = self.beats.remove(&here.number);
            self.beats.retain(|number, _| *number > here.number);
            self.heard = self.heard.max(sent);
            return false;
        }
        if self.others.len() >= OTHERS_MAX && !self.others.contains_key(&here.member) {
            return false;
        }
        if self.others.get(&here.member).is_some_and(|other| other.number > here.number) {
            // It has said something else since.
            return false;
        }
        let other = Other { heard: now, number: here.number, view: here.view, settled: here.settled };
        self.others.insert(here.member, other).is_none()
    }

    /// It works on nothing any more, and said so.
    pub(super) fn left(&mut self, member: &Member) {
        self.others.remove(member);
    }

    /// Whether the others can hear it, as far as it knows: if not, it must decide nothing.
    pub(super) fn is_heard(&self, now: Instant) -> bool {
        self.heard.is_some_and(|sent| now < sent + UNHEARD)
    }

    /// It was not heard, and works on nothing: where there are others, it listens as long as one of them may work without being heard.
    pub(super) fn returns(&mut self, now: Instant) {
        self.listens_until = (!self.others.is_empty()).then_some(now + UNHEARD);
    }

    /// Whom it counts now, itself among them.
    pub(super) fn counted(&mut self, now: Instant) -> BTreeSet<Member> {
        self.others.retain(|_, other| now < other.heard + GONE);
        self.others.keys().chain([&self.own]).cloned().collect()
    }

    /// Its view is this from now on, and is told with the next beat.
    pub(super) fn adopt(&mut self, view: BTreeSet<Member>) {
        self.view = view;
    }

    /// Whom it counts and has told.
    pub(super) fn view(&self) -> &BTreeSet<Member> {
        &self.view
    }

    /// The partitions that are its own among these.
    pub(super) fn own_among(&self, view: &BTreeSet<Member>) -> BTreeSet<Partition> {
        (0..=Partition::MAX).filter(|partition| owner(*partition, view) == Some(&self.own)).collect()
    }

    /// Whether it may begin to work on what is its own: all agree upon who is there.
    pub(super) fn may_begin(&mut self, now: Instant) -> bool {
        let may = self.is_heard(now) && self.is_settled(now) && self.others.values().all(|other| other.view == self.view);
        if may {
            // From now on it has heard all that was to be heard.
            self.listens_until = None;
        }
        may
    }

    /// Whether it counts everybody: it has listened long enough, or somebody who has counts the same.
    fn is_settled(&self, now: Instant) -> bool {
        self.listens_until.is_none_or(|until| now >= until) || self.others.values().any(|other| other.settled && other.view == self.view)
    }
}

/// Whose the partition is among these: of each partition, that of the greatest hash, so that few change hands when one comes or goes.
fn owner(partition: Partition, among: &BTreeSet<Member>) -> Option<&Member> {
    among.iter().max_by_key(|member| *Digest::of(format!("{partition} {member}").as_bytes()).bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn member(number: u64) -> Member {
        Member::new("orchestrator", number)
    }

    /// Some orchestrators that hear each other at once, unless they are deaf.
    struct Play {
        now: Instant,
        all: Vec<(Members, BTreeSet<Partition>)>,
        deaf: BTreeSet<usize>,
    }

    impl Play {
        fn new() -> Self {
            Self { now: Instant::now(), all: Vec::new(), deaf: BTreeSet::new() }
        }

        fn join(&mut self) {
            let (number, alone) = (self.all.len(), self.all.is_empty());
            self.all.push((Members::new(member(u64::try_from(number).unwrap()), alone, self.now), BTreeSet::new()));
        }

        /// One beat of each, and what each makes of it. Who is deaf stands still.
        fn pass(&mut self, time: Duration) {
            self.now += time;
            let awake: Vec<usize> = (0..self.all.len()).filter(|at| !self.deaf.contains(at)).collect();
            for &at in &awake {
                let here = self.all[at].0.beat(self.now);
                for &other in &awake {
                    self.all[other].0.hear(here.clone(), self.now);
                }
            }
            for &at in &awake {
                let (members, owned) = &mut self.all[at];
                let counted = members.counted(self.now);
                let mine = members.own_among(&counted);
                owned.retain(|partition| mine.contains(partition));
                members.adopt(counted);
                if members.may_begin(self.now) {
                    *owned = mine;
                }
            }
            // Who stands still would look at the clock before it decides anything.
            let (now, all) = (self.now, &self.all);
            let works = |at: usize| if all[at].0.is_heard(now) { all[at].1.clone() } else { BTreeSet::new() };
            let total: usize = (0..all.len()).map(|at| works(at).len()).sum();
            let together: BTreeSet<Partition> = (0..all.len()).flat_map(works).collect();
            assert_eq!(total, together.len(), "two work on one partition");
        }

        fn owned(&self) -> Vec<usize> {
            self.all.iter().map(|(_, owned)| owned.len()).collect()
        }
    }

    #[test]
    fn one_that_is_alone_begins_when_it_hears_itself() {
        let mut play = Play::new();
        play.join();
        play.pass(Duration::ZERO);
        assert_eq!(play.owned(), [256]);
    }

    #[test]
    fn one_that_comes_gets_its_share_when_all_count_it_and_nothing_is_anybodys_twice() {
        let mut play = Play::new();
        play.join();
        play.pass(BEAT);
        for _ in 0..2 {
            play.join();
            for _ in 0..3 {
                play.pass(BEAT);
            }
        }
        let owned = play.owned();
        assert_eq!(owned.iter().sum::<usize>(), 256);
        assert!(owned.iter().all(|owned| (40..140).contains(owned)), "{owned:?}");
    }

    #[test]
    fn what_belongs_to_one_that_is_not_heard_is_taken_over_and_what_is_left_stays_where_it_is() {
        let mut play = Play::new();
        for _ in 0..3 {
            play.join();
            play.pass(BEAT);
            play.pass(BEAT);
            play.pass(BEAT);
        }
        let before = play.all[1].1.clone();
        play.deaf.insert(0);
        for _ in 1..GONE.as_secs() / BEAT.as_secs() {
            play.pass(BEAT);
            assert_eq!(play.all[1].1, before, "it may be working still");
        }
        for _ in 0..3 {
            play.pass(BEAT);
        }
        assert_eq!(play.all[1].1.len() + play.all[2].1.len(), 256);
        assert!(play.all[1].1.is_superset(&before));
        // It stood still, and does nothing before it has heard the others.
        play.deaf.clear();
        assert!(!play.all[0].0.is_heard(play.now));
        let now = play.now;
        play.all[0].0.returns(now);
        play.all[0].1.clear();
        for _ in 0..8 {
            play.pass(BEAT);
        }
        assert_eq!(play.owned().iter().sum::<usize>(), 256);
        assert!(!play.all[0].1.is_empty());
    }

    #[test]
    fn one_that_leaves_is_not_waited_for() {
        let mut play = Play::new();
        for _ in 0..2 {
            play.join();
            play.pass(BEAT);
            play.pass(BEAT);
            play.pass(BEAT);
        }
        play.deaf.insert(0);
        play.all[0].1.clear();
        play.all[1].0.left(&member(0));
        play.pass(Duration::ZERO);
        assert_eq!(play.owned(), [0, 256]);
    }
}
