//! How much a pipeline file may ask for. Each is checked before the work is done, and its error says the limit.

/// Bytes of a source file. With the stack and time that a byte costs, this bounds what one request can take from the parser.
pub const SOURCE_BYTES_MAX: usize = 1024 * 1024;
/// Brackets within brackets. The grammar recurses; this depth fits into a thread's stack of 2 MiB, also in a debug build.
pub const NESTING_MAX: usize = 64;
/// Stages of a plan.
pub const STAGES_MAX: usize = 5_000;
/// Steps of a plan.
pub const STEPS_MAX: usize = 100_000;
/// Branches of one `each`: the product of its lists.
pub const EACH_BRANCHES_MAX: usize = 256;
/// Files that bring in files, one within the other.
pub const INCLUDE_DEPTH_MAX: usize = 16;
/// Bytes of source that `each`, `from` and steps made of steps write out. Stages and steps have limits of their own; this one bounds what
/// many branches of nothing, or of long settings, can cost.
pub const EXPANDED_BYTES_MAX: usize = 16 * 1024 * 1024;
/// Blocks of steps within blocks of steps, also through steps made of steps. Each is four brackets deep in the plan's JSON, of which
/// readers take 128.
pub const STEP_DEPTH_MAX: usize = 16;
/// How often one step can be tried.
pub const STEP_ATTEMPTS_MAX: u32 = 100;
/// Bytes of a step's manifest.
pub const MANIFEST_BYTES_MAX: usize = 64 * 1024;
/// Edges of a plan. Two `parallel` blocks of n stages, one after the other, make n² of them; an empty stage between makes it 2n.
pub const EDGES_MAX: usize = 100_000;
/// Bytes of a plan's canonical JSON: half of what the depot gives at once, as the estimate before the plan is made leaves out brackets and
/// the names of fields.
pub const PLAN_BYTES_MAX: usize = 32 * 1024 * 1024;
/// Brackets within brackets in a plan's JSON. Readers take 128, and a plan's stages travel within other messages.
pub const PLAN_DEPTH_MAX: usize = 96;
/// Bytes of one stage's name. Names stand in every path below them, so 64 groups within groups have paths of 16 KiB at most.
pub const STAGE_NAME_BYTES_MAX: usize = 256;
/// Bytes of a setting's text that stands on one line: a name, an image, an address, a question.
pub const SETTING_TEXT_BYTES_MAX: usize = 2048;
/// Texts in the list of a setting: credentials, labels, hosts, people.
pub const SETTING_TEXTS_MAX: usize = 256;
/// A duration in a setting, in milliseconds: a leap year.
pub const DURATION_MS_MAX: u64 = 366 * 24 * 60 * 60 * 1000;
/// How often a stage is started at most, if `retry` says so.
pub const RETRY_ATTEMPTS_MAX: i64 = 100;
/// Cores that a stage can ask for.
pub const CORES_MAX: i64 = 65_536;
/// Services beside one stage.
pub const SERVICES_MAX: usize = 32;
/// Paths of one cache.
pub const CACHE_PATHS_MAX: usize = 256;
/// Bytes of one label of a host name (RFC 1123, section 2.1).
pub const HOST_LABEL_BYTES_MAX: usize = 63;
/// Bytes of a host name (RFC 1123, section 2.1).
pub const HOST_BYTES_MAX: usize = 253;
/// How long something is waited for at least, in milliseconds.
pub const WAIT_MS_MIN: u64 = 1000;
/// The status that `poll` waits for if it does not say another.
pub const POLL_STATUS_DEFAULT: u16 = 200;
/// Between two questions of `poll`, in milliseconds, if it does not say so.
pub const POLL_EVERY_MS_DEFAULT: u64 = 10 * 1000;
/// Between two questions of `poll`, in milliseconds, at least: whoever is asked has other work.
pub const POLL_EVERY_MS_MIN: u64 = 1000;
/// How long `poll` asks, in milliseconds, if it does not say so.
pub const POLL_TIMEOUT_MS_DEFAULT: u64 = 60 * 60 * 1000;
/// Diagnostics of one file. A thousand say no more than these, and the answer must fit into a message of the bus.
pub const DIAGNOSTICS_MAX: usize = 64;
/// Syntax errors that are looked for: the block with one is left out, and the rest is read again.
pub const SYNTAX_ERRORS_MAX: usize = 8;
/// Tokens that are read again for it: a usual file at the limit is read again as often as is useful, one that is nothing but tokens twice.
pub const REREAD_TOKENS_MAX: usize = 2 * 1024 * 1024;
/// Bytes of a value that is made of others: what a step captures is as large at most, and no function makes more of it while planning.
pub const VALUE_BYTES_MAX: usize = 64 * 1024;
/// Bytes of a file that `json` reads: a value of [`VALUE_BYTES_MAX`], with room for blanks.
pub const JSON_BYTES_MAX: usize = 1024 * 1024;
/// Different patterns for paths in a plan. Each is held against every path of the commit, or against all that changed.
pub const PATH_PATTERNS_MAX: usize = 1_000;
/// Steps of holding patterns against paths, and bytes of paths that `files` reads: about a second of work. A pattern costs a few steps
/// for each path that begins as it does, and for one that also ends so, as much as both are long.
pub const PATH_STEPS_MAX: usize = 50_000_000;

/// Bytes of a text in JSON, with its quotes and a comma or colon.
pub(crate) fn json_bytes(text: &str) -> usize {
    let escaped = |byte: u8| match byte {
        0..0x20 => 6,
        b'"' | b'\\' => 2,
        _ => 1,
    };
    3 + text.bytes().map(escaped).sum::<usize>()
}

/// How deep the brackets of some JSON are nested.
pub(crate) fn json_depth(json: &[u8]) -> usize {
    let (mut depth, mut deepest) = (0_usize, 0);
    let (mut in_text, mut escaped) = (false, false);
    for byte in json {
        match byte {
            _ if escaped => escaped = false,
            b'\\' => escaped = in_text,
            b'"' => in_text = !in_text,
            b'{' | b'[' if !in_text => {
                depth += 1;
                deepest = deepest.max(depth);
            }
            b'}' | b']' if !in_text => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    deepest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn brackets_in_texts_are_not_counted() {
        for (json, depth) in [("1", 0), ("{}", 1), ("[[],[[]]]", 3), (r#"{"[[[": "\\"}"#, 1), (r#"["\"[[", []]"#, 2)] {
            assert_eq!(json_depth(json.as_bytes()), depth, "{json}");
        }
    }
}
