//! "Did you mean …?"

/// Characters of a name for which suggestions are looked up; what is longer is no slip of the finger.
const NAME_CHARACTERS_MAX: usize = 40;
/// Candidates that are all named where none is near; more would bury the message.
const LISTED_MAX: usize = 10;
/// Candidates that are looked at, so that a mistake among very many names does not take long.
const CANDIDATES_MAX: usize = 1_000;
/// Names that are suggested at once.
const SUGGESTIONS_MAX: usize = 3;

/// The candidates that are nearest to `name`, the nearest first; among equals in the order of the alphabet.
pub(crate) fn nearest<'a>(name: &str, candidates: impl IntoIterator<Item = &'a str>) -> Vec<&'a str> {
    let name: Vec<char> = name.to_lowercase().chars().collect();
    if name.len() > NAME_CHARACTERS_MAX {
        return Vec::new();
    }
    let mut near: Vec<(usize, &str)> = candidates
        .into_iter()
        .take(CANDIDATES_MAX)
        .filter_map(|candidate| {
            let other: Vec<char> = candidate.to_lowercase().chars().collect();
            let allowed = name.len().max(other.len()).div_ceil(3);
            let distance = if other.len() > NAME_CHARACTERS_MAX { usize::MAX } else { distance(&name, &other) };
            (distance <= allowed).then_some((distance, candidate))
        })
        .collect();
    near.sort_unstable();
    near.dedup();
    near.into_iter().take(SUGGESTIONS_MAX).map(|(_, candidate)| candidate).collect()
}

/// A sentence with the nearest candidates; all of them where none is near and they are few.
pub(crate) fn did_you_mean<'a>(name: &str, candidates: impl IntoIterator<Item = &'a str> + Clone) -> String {
    let near = nearest(name, candidates.clone());
    if !near.is_empty() {
        return format!("did you mean {}?", either(&near));
    }
    let mut all: Vec<&str> = candidates.into_iter().take(CANDIDATES_MAX).collect();
    if all.len() == CANDIDATES_MAX {
        return String::new();
    }
    all.sort_unstable();
    all.dedup();
    if all.len() > LISTED_MAX {
        return String::new();
    }
    let named = all.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ");
    match all.len() {
        1 => format!("there is {named}"),
        0 => String::new(),
        _ => format!("there are {named}"),
    }
}

fn either(names: &[&str]) -> String {
    names.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(" or ")
}

/// How many characters must be added, left out, replaced or swapped with their neighbour (optimal string alignment).
fn distance(left: &[char], right: &[char]) -> usize {
    let mut before_last = Vec::new();
    let mut last: Vec<usize> = (0..=right.len()).collect();
    for (row, character) in left.iter().enumerate() {
        let mut current = vec![row + 1];
        for (column, other) in right.iter().enumerate() {
            let replaced = last[column] + usize::from(character != other);
            let mut best = replaced.min(last[column + 1] + 1).min(current[column] + 1);
            if row > 0 && column > 0 && *character == right[column - 1] && left[row - 1] == *other {
                best = best.min(before_last[column - 1] + 1);
            }
            current.push(best);
        }
        before_last = std::mem::replace(&mut last, current);
    }
    last[right.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slips_are_found_and_other_words_are_not() {
        let known = ["sh", "echo", "stage", "steps", "timeout"];
        for (name, expected) in [("ehco", "echo"), ("stgae", "stage"), ("Stage", "stage"), ("timeoutt", "timeout"), ("ssh", "sh")] {
            assert_eq!(nearest(name, known).first(), Some(&expected), "{name}");
        }
        assert!(nearest("kubernetes", known).is_empty());
        assert!(nearest(&"x".repeat(1000), known).is_empty());
    }

    #[test]
    fn the_sentence_names_all_where_none_is_near() {
        assert_eq!(did_you_mean("ehco", ["sh", "echo"]), "did you mean `echo`?");
        assert_eq!(did_you_mean("kubernetes", ["sh", "echo"]), "there are `echo`, `sh`");
        assert_eq!(did_you_mean("x", []), "");
    }
}
