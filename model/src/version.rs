//! Versions of tools, and what is demanded of them: `3.8`, `~> 3.8`, `>= 3.8, < 3.12`.
//!
//! A version is its numbers; what stands behind them (`-rc1`) is not compared.

use std::cmp::Ordering;

/// Numbers of a version that are looked at.
const PARTS_MAX: usize = 8;

/// The numbers of a version; `None` where it begins with none.
fn parts(text: &str) -> Option<Vec<u64>> {
    let text = text.trim().trim_start_matches('v');
    let end = text.find(|letter: char| letter != '.' && !letter.is_ascii_digit()).unwrap_or(text.len());
    let numbers = text.get(..end)?.trim_end_matches('.');
    numbers.split('.').take(PARTS_MAX).map(|part| part.parse().ok()).collect()
}

fn compare(one: &[u64], other: &[u64]) -> Ordering {
    let at = |parts: &[u64], index: usize| parts.get(index).copied().unwrap_or_default();
    (0..PARTS_MAX).map(|index| at(one, index).cmp(&at(other, index))).find(|order| order.is_ne()).unwrap_or(Ordering::Equal)
}

/// Whether a version is what is demanded: all of a list with commas. Without an operator, the numbers that are demanded are those that it begins with;
/// `~> 3.8` is 3.8 and later ones before 4, `~> 3.8.1` is 3.8.1 and later ones before 3.9. What does not read as a demand is met by the very same
/// text.
pub fn meets(demand: &str, version: &str) -> bool {
    demand == version || parts(version).is_some_and(|version| demand.split(',').all(|one| meets_one(one.trim(), &version)))
}

fn meets_one(demand: &str, version: &[u64]) -> bool {
    let operators = ["~>", ">=", "<=", "!=", "==", ">", "<", "="];
    let operator = operators.into_iter().find(|operator| demand.starts_with(operator));
    let Some(wanted) = parts(demand.trim_start_matches(operator.unwrap_or_default())) else { return false };
    let order = compare(version, &wanted);
    let begins = || (0..wanted.len()).all(|index| version.get(index).copied().unwrap_or_default() == wanted[index]);
    match operator {
        Some("~>") => order.is_ge() && wanted.split_last().is_some_and(|(_, fixed)| version.starts_with(fixed)),
        Some(">=") => order.is_ge(),
        Some("<=") => order.is_le(),
        Some(">") => order.is_gt(),
        Some("<") => order.is_lt(),
        Some("!=") => !begins(),
        Some(_) | None => begins(),
    }
}

/// The first version in what a program prints of itself: two numbers with a dot at least.
pub fn find(text: &str) -> Option<String> {
    let is_part = |letter: char| letter == '.' || letter.is_ascii_digit();
    let words = text.split(|letter: char| !is_part(letter)).map(|word| word.trim_matches('.'));
    let mut versions = words.filter(|word| word.contains('.') && parts(word).is_some_and(|parts| parts.len() > 1));
    versions.next().map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_demand_is_met_by_the_versions_that_it_names() {
        for (demand, version, met) in [
            ("3.8", "3.8.1", true),
            ("3.8", "3.80", false),
            ("3", "3.11.2", true),
            ("=3.8", "3.8", true),
            ("~> 3.8", "3.11.2", true),
            ("~> 3.8", "3.7.9", false),
            ("~> 3.8", "4.0", false),
            ("~> 3.8.1", "3.8.9", true),
            ("~> 3.8.1", "3.9", false),
            ("~> 3", "4.1", true),
            (">= 1.10", "1.9.9", false),
            (">= 1.10", "1.10", true),
            ("> 1.10", "1.10.0", false),
            (">= 3.8, < 3.12", "3.11", true),
            (">= 3.8, < 3.12", "3.12", false),
            ("!= 2.0", "2.0.1", false),
            ("!= 2.0", "2.1", true),
            ("1.2", "1.2-rc1", true),
            ("v1.2", "1.2", true),
            ("latest", "latest", true),
            ("latest", "1.2", false),
            ("", "1.2", false),
            ("~>", "1.2", false),
            (">= 1.2", "unknown", false),
            ("1.99999999999999999999999", "1.2", false),
        ] {
            assert_eq!(meets(demand, version), met, "{demand} of {version}");
        }
    }

    #[test]
    fn a_version_is_found_in_what_programs_say() {
        for (text, found) in [
            ("git version 2.39.5", Some("2.39.5")),
            ("Python 3.11.2", Some("3.11.2")),
            ("cargo 1.95.0 (abc 2026-01-01)", Some("1.95.0")),
            ("go version go1.23.4 linux/amd64", Some("1.23.4")),
            ("openjdk version \"21.0.5\" 2024-10-15", Some("21.0.5")),
            ("v22.1.0", Some("22.1.0")),
            ("GNU Make 4.3", Some("4.3")),
            ("no version. at all", None),
            ("", None),
        ] {
            assert_eq!(find(text).as_deref(), found, "{text}");
        }
    }
}
