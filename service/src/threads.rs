//! How many threads a role has for what.

use std::thread::available_parallelism;

/// The most threads that serve the requests of one role.
const REQUEST_THREADS_MAX: usize = 2;

/// Threads that serve the requests of a role over HTTP: half of this machine's cores, at most two. They only move bytes, and other threads do what is
/// asked; each of them wakes several times a second, also where nobody asks for anything.
pub fn request_threads() -> usize {
    available_parallelism().map_or(1, |cores| (cores.get() / 2).clamp(1, REQUEST_THREADS_MAX))
}
