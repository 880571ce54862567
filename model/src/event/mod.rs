//! Events: what happened, in the past tense. A run's log is made of [`run::RunEvent`]s and of nothing else.

#[cfg(test)]
mod golden;
pub mod run;
