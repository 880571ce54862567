//! The program `otto`.

use std::process::ExitCode;

fn main() -> ExitCode {
    cli::otto::main()
}
