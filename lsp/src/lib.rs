//! The language server: `otto lsp`.
//!
//! ```text
//! editor ─ stdio ─ server ─┬─ workspace ─ parser::plan ─ diagnostics
//!                          └─ cursor, index, words ─ hover, completion, definition, outline
//! ```
//!
//! What is right is said by the parser; what stands around a cursor is read from the words alone, as a file that is being written is seldom
//! complete (RFC 0006).
//!
//! **Invariant:** nothing outside of the editor's folder is read, nothing is written, and no message of an editor makes it panic.

mod answer;
mod cursor;
mod index;
mod reference;
mod server;
mod text;
mod words;
mod workspace;

pub use server::{Error, serve, stdio};
pub use words::all as words;
pub use workspace::{stand_ins, steps_of};
