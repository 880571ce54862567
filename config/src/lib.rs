//! What an installation's administrator says, in files that no commit changes: the projects, and what protects them.
//!
//! **Invariant:** whatever protects is read here and nowhere else. A pipeline file may narrow it; nothing of a commit widens it.

pub mod project;
pub mod statuses;
pub mod token;
pub mod trust;

pub use project::{ForgeKind, Project, load};
pub use statuses::Statuses;
pub use token::{Token, load_tokens};
