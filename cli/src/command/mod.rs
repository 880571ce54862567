//! Commands that ask the API, or look at a pipeline file. Each is its arguments and what is printed; standard output is data, standard
//! error is talk.

pub mod cancel;
pub mod check;
pub mod explain;
pub mod follow;
pub mod log;
pub mod lsp;
pub mod runs;
pub mod show;

mod pipeline;
mod terminal;
mod text;

pub use pipeline::{PIPELINE_FILE, complain, plan_file, plan_source, read};
pub use terminal::{Terminal, Unheard};
