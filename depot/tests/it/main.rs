//! The depot over real HTTP.
#[cfg(test)]
mod stories;
