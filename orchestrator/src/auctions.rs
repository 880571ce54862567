//! The last auctions, as the auctioneer told of them: soft, and forgotten with the process. What became an award is in the run's log.

use std::{
    collections::VecDeque,
    sync::{Arc, RwLock},
};

use model::{ProjectName, protocol::auction::Proposal};

/// Auctions that are remembered. The largest has 64 offers and 64 refusals, some 30 KiB; most have a few.
pub const AUCTIONS_MAX: usize = 500;

/// An auction that has closed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Auction {
    /// The project of the run.
    pub project: ProjectName,
    /// What the auctioneer told.
    pub proposal: Proposal,
}

/// The last [`AUCTIONS_MAX`] auctions. Clones are the same.
#[derive(Debug, Clone, Default)]
pub struct Auctions(Arc<RwLock<VecDeque<Arc<Auction>>>>);

impl Auctions {
    /// The newest that are `wanted`, at most `limit`.
    pub fn list(&self, limit: usize, wanted: impl Fn(&Auction) -> bool) -> Vec<Arc<Auction>> {
        let known = self.0.read().expect("no holder of this lock panics");
        known.iter().rev().filter(|auction| wanted(auction)).take(limit).cloned().collect()
    }

    /// Remembers an auction. One that is told twice is remembered once, as it was told last.
    pub(crate) fn remember(&self, auction: Auction) {
        let mut known = self.0.write().expect("no holder of this lock panics");
        let same = known.iter().rposition(|known| known.proposal.auction == auction.proposal.auction);
        if let Some(at) = same {
            known.remove(at);
        } else if known.len() >= AUCTIONS_MAX {
            known.pop_front();
        }
        known.push_back(Arc::new(auction));
    }
}

#[cfg(test)]
mod tests {
    use model::{AttemptId, AuctionId, RunId, StageId, Timestamp, TriggerId};

    use super::*;

    fn auction(number: u64) -> Auction {
        let attempt = AttemptId { run: RunId::of(&TriggerId::of("t", "1")), stage: StageId::of("a"), attempt: 1 };
        let auction = AuctionId::of(&attempt, u32::try_from(number).unwrap());
        let proposal = Proposal { auction, attempt, offers: vec![], declined: vec![], unmet: vec![], closed_at: Timestamp(number) };
        Auction { project: "demo".parse().unwrap(), proposal }
    }

    #[test]
    fn the_last_ones_are_remembered_each_once() {
        let auctions = Auctions::default();
        for number in 0..AUCTIONS_MAX as u64 + 3 {
            auctions.remember(auction(number));
            auctions.remember(auction(number));
        }
        let times = |limit| auctions.list(limit, |_| true).iter().map(|auction| auction.proposal.closed_at.0).collect::<Vec<_>>();
        assert_eq!(times(2), [AUCTIONS_MAX as u64 + 2, AUCTIONS_MAX as u64 + 1]);
        assert_eq!(times(usize::MAX).last(), Some(&3));
        assert_eq!(auctions.list(9, |auction| auction.proposal.closed_at.0 == 7).len(), 1);
    }
}
