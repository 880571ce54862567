//! `roman 2026` prints `MMXXVI`; `roman MMXXVI` prints `2026`.

use std::process::ExitCode;

fn main() -> ExitCode {
    let Some(argument) = std::env::args().nth(1) else {
        eprintln!("usage: roman NUMBER | NUMERAL");
        return ExitCode::FAILURE;
    };
    let answer = match argument.parse() {
        Ok(number) => roman::write(number),
        Err(_) => roman::read(&argument).map(|number| number.to_string()),
    };
    match answer {
        Some(answer) => {
            println!("{answer}");
            ExitCode::SUCCESS
        }
        None => {
            eprintln!("{argument} is neither a number from 1 to {} nor a Roman numeral", roman::MAX);
            ExitCode::FAILURE
        }
    }
}
