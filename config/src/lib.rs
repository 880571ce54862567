//! What an installation's administrator says, in files that no commit changes: the settings of the roles, the projects, and what
//! protects them.
//!
//! **Invariant:** whatever protects is read here and nowhere else. A pipeline file may narrow it; nothing of a commit widens it.

pub mod file;
pub mod project;
pub mod statuses;
pub mod token;
pub mod trust;

mod yaml;

pub use file::{CONFIG_FILE, ConfigFile, PROJECTS_FOLDER};
pub use project::{ForgeKind, Pipeline, Project, load};
pub use statuses::Statuses;
pub use token::{Token, load_tokens};
