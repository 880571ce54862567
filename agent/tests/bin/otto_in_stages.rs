//! The hidden commands of `otto` that run inside of stages, as `cli` has them.

use std::process::ExitCode;

fn main() -> ExitCode {
    match std::env::args().nth(1).as_deref() {
        Some(agent::STAGE_INIT) => agent::stage_init(),
        command => panic!("`otto` has no hidden command {command:?} for stages"),
    }
}
