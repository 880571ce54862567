//! Events: what happened, in the past tense. A run's log is made of [`run::RunEvent`]s and of nothing else. Once it lies in the depot,
//! [`archive::ArchivedLog`] stands for it.

pub mod archive;
#[cfg(test)]
mod golden;
pub mod run;
