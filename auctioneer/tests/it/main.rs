//! The auctioneer as others see it: on the memory bus, with agents that the tests play.

#[cfg(test)]
mod rogue;
#[cfg(test)]
mod stories;
