//! The auctions as a pure state machine: an input and the time go in, what is to be said comes out.
//!
//! **Invariant:** no clock, no randomness, no IO, and everything has a bound: whatever agents send, the book does not grow beyond it.

mod auction;

pub mod book;
pub mod rank;
pub mod roster;
pub mod times;

pub use book::{Book, Effect, Input, Now};
pub use rank::rank;
