//! `otto explain-error`: the page of an error code.

use std::process::ExitCode;

use anyhow::bail;
use clap::Args;

use super::Terminal;

/// The pages, by their codes in the order of the alphabet.
const PAGES: &[(&str, &str)] = include!(concat!(env!("OUT_DIR"), "/error_pages.rs"));

/// Explain an error code, with an example and how it is mended
#[derive(Debug, Args)]
pub struct ExplainErrorArgs {
    /// The code, such as E0401; without one, all of them with their titles
    code: Option<String>,
}

/// Prints the page.
pub fn run(args: &ExplainErrorArgs) -> anyhow::Result<ExitCode> {
    let text = match &args.code {
        Some(code) => page(code)?.to_owned(),
        None => PAGES.iter().map(|(_, page)| page.lines().next().unwrap_or_default().trim_start_matches("# ").to_owned() + "\n").collect(),
    };
    Terminal::stdout().print(&text)?;
    Ok(ExitCode::SUCCESS)
}

fn page(code: &str) -> anyhow::Result<&'static str> {
    let wanted = code.trim().to_uppercase();
    if let Ok(at) = PAGES.binary_search_by(|(code, _)| (*code).cmp(&wanted)) {
        return Ok(PAGES[at].1);
    }
    let nearest = PAGES.iter().map(|(code, _)| *code).min_by_key(|code| differences(code, &wanted));
    match nearest.filter(|nearest| differences(nearest, &wanted) <= 1) {
        Some(nearest) => bail!("there is no code {wanted}; did you mean {nearest}? `otto explain-error` lists all"),
        None => bail!("there is no code {wanted}; `otto explain-error` lists all"),
    }
}

/// In how many places two codes differ.
fn differences(first: &str, second: &str) -> usize {
    first.chars().zip(second.chars()).filter(|(first, second)| first != second).count() + first.len().abs_diff(second.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_code_has_a_page_that_begins_with_it() {
        let codes = parser::Code::ALL
            .iter()
            .map(|code| code.as_str())
            .chain(orchestrator::engine::CODES.iter().copied())
            .chain([parser_service::OVER_LIMIT, parser_service::FELL_OVER]);
        for code in codes {
            let page = page(code).unwrap();
            assert!(page.starts_with(&format!("# {code}: ")), "{page}");
        }
    }

    #[test]
    fn a_code_is_found_however_it_is_written() {
        assert!(page("e0401").unwrap().starts_with("# E0401"));
        let error = page("E0O01").unwrap_err().to_string();
        assert!(error.contains("did you mean E0"), "{error}");
        assert!(page("nonsense").unwrap_err().to_string().contains("lists all"));
    }
}
