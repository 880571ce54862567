//! Trees that are packed and unpacked, and archives that somebody made to do harm.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking, in its helpers, too")]

mod crafted;
mod forged;
mod places;
mod removed;
mod trees;
