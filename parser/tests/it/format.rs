//! `format`: canonical, stable, with every comment, and with the plan of the source.

use std::{
    fs,
    path::{Path, PathBuf},
};

use parser::{Planning, format};
use proptest::{prelude::*, sample::select};

use crate::{codes, fixture::Fixture};

fn formatted(source: &str) -> String {
    format(source).unwrap_or_else(|diagnostics| panic!("{source}\n{diagnostics:#?}"))
}

/// A source becomes this, and this stays.
fn becomes(source: &str, expected: &str) {
    let once = formatted(source);
    assert_eq!(once, expected, "{source}");
    assert_eq!(formatted(&once), once, "again");
}

/// Words of all comments, in the order of the alphabet.
#[expect(clippy::string_slice, clippy::manual_strip, reason = "all that is cut at is ASCII")]
fn comments(source: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut rest = source;
    while let Some(start) = rest.find(['\'', '"', '/']) {
        rest = &rest[start..];
        let closed = |opening: usize, closing: &str| rest[opening..].find(closing).map_or(rest.len(), |end| opening + end + closing.len());
        let length = if rest.starts_with("//") {
            rest.find('\n').unwrap_or(rest.len())
        } else if rest.starts_with("/*") {
            closed(2, "*/")
        } else if rest.starts_with("\"\"\"") {
            closed(3, "\"\"\"")
        } else if rest.starts_with('"') {
            let mut escaped = false;
            let end = rest[1..].find(|character| {
                let ends = character == '"' && !escaped;
                escaped = character == '\\' && !escaped;
                ends
            });
            end.map_or(rest.len(), |end| end + 2)
        } else if rest.starts_with('\'') {
            closed(1, "'")
        } else {
            1
        };
        if rest.starts_with("//") || rest.starts_with("/*") {
            found.push(rest[..length].split_whitespace().collect::<Vec<_>>().join(" "));
        }
        rest = &rest[length..];
    }
    found.sort();
    found
}

/// What must hold of every source that can be formatted.
fn holds(source: &str) -> Result<(), TestCaseError> {
    holds_in(&Fixture::default(), "Ottofile", source)
}

fn holds_in(fixture: &Fixture, path: &str, source: &str) -> Result<(), TestCaseError> {
    let Ok(once) = format(source) else { return Ok(()) };
    prop_assert_eq!(format(&once), Ok(once.clone()), "formatted again");
    prop_assert_eq!(comments(source), comments(&once), "comments");
    match (fixture.plan(path, source.as_bytes()), fixture.plan(path, once.as_bytes())) {
        (Planning::Plan { document: before, .. }, Planning::Plan { document: after, .. }) => {
            prop_assert_eq!(before.digest(), after.digest(), "the plan of\n{}\nbecame that of\n{}", source, once);
        }
        (Planning::Plan { .. }, after) => prop_assert!(false, "{}\nbecame\n{}\n{:?}", source, once, after),
        (Planning::Refused(_) | Planning::Needs(_), _) => {}
    }
    Ok(())
}

/// Every pipeline and blueprint file of these folders, with what stands around it.
fn sources() -> Vec<(Fixture, String, String)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut sources = Vec::new();
    let mut folders: Vec<PathBuf> = ["test_data", "../examples"].map(|folder| root.join(folder)).to_vec();
    while let Some(folder) = folders.pop() {
        for path in fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path()) {
            let name = path.file_name().unwrap().to_str().unwrap().to_owned();
            let is_source = [".otto", ".blueprint"].iter().any(|ending| name.ends_with(ending)) || name == "Ottofile";
            if path.is_dir() {
                folders.push(path);
            } else if let (true, Ok(source)) = (is_source, fs::read_to_string(&path)) {
                let around = if name == "Ottofile" { folder.clone() } else { path.with_extension("") };
                let fixture = Fixture::of(source.as_bytes(), &around);
                sources.push((fixture, name, source));
            }
        }
    }
    assert!(sources.len() > 30);
    sources
}

#[test]
fn every_source_of_the_corpus_keeps_its_plan_and_its_comments() {
    let mut plans = 0;
    for (fixture, path, source) in sources() {
        plans += usize::from(matches!(fixture.plan(&path, source.as_bytes()), Planning::Plan { .. }));
        holds_in(&fixture, &path, &source).unwrap_or_else(|error| panic!("{path}: {error}"));
        // A line end is LF, also in a fixture's files.
        holds(&source.replace('\n', "\r\n")).unwrap_or_else(|error| panic!("{path}: {error}"));
    }
    assert!(plans > 30, "{plans}");
}

#[test]
fn formatted_blueprints_give_the_plan_that_they_gave() {
    let mut formatted = 0;
    for (mut fixture, path, source) in sources() {
        let Planning::Plan { document: before, .. } = fixture.plan(&path, source.as_bytes()) else { continue };
        // What is locked is locked as it is written.
        if fixture.files.contains_key("otto.lock") {
            continue;
        }
        for bytes in fixture.files.iter_mut().filter(|(name, _)| name.ends_with(".blueprint")).filter_map(|(_, bytes)| bytes.as_mut()) {
            *bytes = format(str::from_utf8(bytes).unwrap()).unwrap().into_bytes();
            formatted += 1;
        }
        let Planning::Plan { document: after, .. } = fixture.plan(&path, source.as_bytes()) else { panic!("{path}") };
        assert_eq!(before.digest(), after.digest(), "{path}");
    }
    assert!(formatted > 0);
}

#[test]
fn old_spellings_become_the_canonical_one() {
    becomes("pipeline{stages{stage{name='a'steps{sh'x'}}}}", "pipeline {\n  stage 'a' { steps [ sh 'x' ] }\n}\n");
    becomes("pipeline { stage('A b') { timeout 10m } }", "pipeline {\n  stage 'A b' { timeout = 10m }\n}\n");
    becomes("pipeline { stage { name\n=\n'a' } }", "pipeline {\n  stage 'a' {}\n}\n");
    becomes(
        "vars { x { description 'd' default true type boolean } }",
        "parameters { x { description = 'd' default = true type = boolean } }\n",
    );
    becomes("pipeline { steps [ sh 'a' sh('b') ] }", "pipeline {\n  steps [\n    sh 'a'\n    sh 'b'\n  ]\n}\n");
    becomes("pipeline { steps { dir('d') { sh 'a' } } }", "pipeline {\n  steps [ dir 'd' [ sh 'a' ] ]\n}\n");
    becomes("pipeline { steps { when ( tag ) { sh 'a' } } }", "pipeline {\n  steps [ when(tag) { sh 'a' } ]\n}\n");
}

#[test]
fn conditions_stand_under_gates() {
    becomes(
        "pipeline { stage 'a' { when { branch == 'main' } } }",
        "pipeline {\n  stage 'a' { gates { enter { branch == 'main' } } }\n}\n",
    );
    let expected = "pipeline {\n  stage 'a' {\n    // why\n    gates {\n      enter {\n        (tag) // t\n        (branch == 'x' || branch == 'y') && tag\n      }\n      exit { input 'ok?' }\n    }\n  }\n}\n";
    becomes(
        "pipeline { stage 'a' {\n// why\nwhen { tag // t\n } gates { enter { (branch == 'x' || branch == 'y') && tag } exit { input 'ok?' } } } }",
        expected,
    );
    becomes(
        "pipeline { each('a', 'b') { when { it != 'a' } stage 'c' {} } rollback { steps [ sh 'x' ] when { tag } } }",
        "pipeline {\n  each('a', 'b') {\n    gates { enter { it != 'a' } }\n    stage 'c' {}\n  }\n  rollback {\n    steps [ sh 'x' ]\n    gates { enter { tag } }\n  }\n}\n",
    );
    // What `from` copies for `when` is not what it copies for gates.
    becomes("pipeline { stage 'a' { when { from 'b' } } }", "pipeline {\n  stage 'a' { when { from 'b' } }\n}\n");
}

#[test]
fn a_blueprint_says_plan_and_params() {
    becomes(
        "blueprint { vars { x { default '1' } } stages { stage 'a' { env { X = vars.x Y = vars.other } } } }",
        "blueprint {\n  parameters { x { default = '1' } }\n  plan {\n    stage 'a' { env { X = params.x Y = vars.other } }\n  }\n}\n",
    );
}

#[test]
fn strings_keep_what_they_say() {
    becomes("a { x = \"it's\" y = \"a\\n\" z = \"b c\" w = 'd''e' }", "a { x = \"it's\" y = \"a\\n\" z = 'b c' w = 'd''e' }\n");
    becomes("a { x = \"\"\"\n        b\n          c\n\n   \"\"\" }", "a {\n  x = \"\"\"\n    b\n      c\n\n  \"\"\"\n}\n");
    becomes("a { x = \"\"\"b\n  c\"\"\" }", "a {\n  x = \"\"\"b\n  c\"\"\"\n}\n");
    becomes("\u{feff}a = 'b\r\nc'\r\n", "a = 'b\nc'\n");
}

#[test]
fn comments_stay_where_they_belong() {
    let source = "\
// head

use { // open
  stdlib // beside
  // last
}
/* a
 * b */
pipeline {
  steps [
    git url: 'a', // first
      // second
      branch: 'b'
    x [
      'a', // a
      // b
      'b',
    ] // after
  ]
  stage 'e' { // nothing
  }
}
// end
";
    becomes(source, source);
    becomes("a = /* b */ 'c'", "/* b */\na = 'c'\n");
    becomes("// only\n", "// only\n");
    becomes("", "");
}

#[test]
fn lines_are_broken_at_100_columns() {
    let long = "'aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa'";
    becomes(&format!("a {{ b = [{long} {long}] }}"), &format!("a {{ b = [{long}, {long}] }}\n"));
    becomes(&format!("a {{ b = [{long} {long} {long}] }}"), &format!("a {{\n  b = [\n    {long},\n    {long},\n    {long},\n  ]\n}}\n"));
    becomes(
        &format!("pipeline {{ stage 'a' {{ when {{ branch == {long} && branch == {long} }} }} }}"),
        &format!(
            "pipeline {{\n  stage 'a' {{\n    gates {{\n      enter {{\n        branch == {long}\n          && branch == {long}\n      }}\n    }}\n  }}\n}}\n"
        ),
    );
}

#[test]
fn blank_lines_are_kept_once_and_not_at_the_ends() {
    becomes("\n\na {\n\n\n  b = 1\n\n\n\n  c = 2\n\n}\n\n\n\nd = 3\n\n", "a {\n  b = 1\n\n  c = 2\n}\n\nd = 3\n");
}

#[test]
fn errors_of_syntax_are_given_back() {
    assert_eq!(codes(&format("pipeline {\n  a = \n}").unwrap_err()), ["E0109"]);
    assert_eq!(codes(&format("a = 'b").unwrap_err()), ["E0104"]);
    assert_eq!(codes(&format("a = 1x").unwrap_err()), ["E0108"]);
}

#[test]
fn time_grows_with_the_source() {
    for source in [
        "pipeline { ".to_owned() + &"stage 'a' { when { tag } steps { sh 'x' } } ".repeat(2_000) + "}",
        format!("a = [{}]", "'b' /* c */ ".repeat(10_000)),
        format!("a {}'b'", "'c', ".repeat(20_000)),
        format!("{}{}", "a { b = [1 2 3] ".repeat(60), "}".repeat(60)),
        format!("a {{ {} tag }}", "tag && ".repeat(20_000)),
        format!("a = '{}'", "b\n".repeat(100_000)),
    ] {
        holds(&source).unwrap();
    }
}

/// A small piece of a source.
fn token() -> impl Strategy<Value = &'static str> {
    select(vec![
        "{",
        "}",
        "{",
        "}",
        "[",
        "]",
        "(",
        ")",
        " = ",
        "->",
        ": ",
        ",",
        " ",
        "\n",
        "\n\n",
        "'a'",
        "\"b\"",
        "\"it's\"",
        "\"\"\"\n  c\n\"\"\"",
        "3",
        "10m",
        "true",
        "pipeline ",
        "stage ",
        "stages ",
        "steps ",
        "name ",
        "when ",
        "gates ",
        "enter ",
        "exit ",
        "parallel ",
        "each ",
        "sh ",
        "echo ",
        "dir ",
        "it",
        "it.os",
        "params.x",
        "vars.x",
        "tag ",
        "branch ",
        "==",
        "!=",
        " in ",
        " matches ",
        "&&",
        "||",
        "!",
        "concat",
        "changed",
        "use ",
        "type ",
        "from ",
        "env ",
        "vars ",
        "blueprint ",
        "timeout ",
        "// c\n",
        "/* d */",
        "/* e\n * f */",
    ])
}

/// A source that is often one.
fn soup() -> impl Strategy<Value = String> {
    let body = prop::collection::vec(token(), 0..24).prop_map(|tokens| tokens.concat()).boxed();
    let statement = select(vec![
        "stage 'a' { steps { sh 'x' } } ",
        "stage { name = 'b' // n\n }",
        "when { tag && (branch == 'x' || tag) } ",
        "gates { enter { (tag) } } ",
        "name 'c' ",
        "steps { sh 'a' echo \"b\" } ",
        "// c\n",
        "/* d */ ",
        "stages { stage 'e' {} } ",
        "timeout 10m ",
        "env { A 'b' } ",
        "\n\n",
        "parallel { stage('f') { } stages { stage 'g' { } } } ",
        "steps [ sh 'h' /* i */ ] ",
        "needs ['a' // j\n 'b'] ",
        "effect = once ",
        "each('x', 'y') { when { it != 'x' } stage 'k' { steps { sh 'l' } } } ",
        "rollback { when { tag } gates { enter { branch == 'x' } } steps { sh 'm' } } ",
        "confirm('n') { by ['o'] } ",
        "notify { success { echo 'p' } failure [ echo 'q' ] } ",
        "retry { attempts 3 on ['lost'] } ",
        "cache { r ['s/'] // t\n } ",
        "runtime { docker { image 'u' } } ",
        "fanout { stage { name 'v' steps [ sh('w'), sh \"x\" ] } } ",
        "when { tag // c\n (branch == 'a') /* d */ } ",
        "steps { when(tag) { sh 'y' } dir('z') { checkout } } ",
    ]);
    let block = prop::collection::vec(prop_oneof![8 => statement.prop_map(str::to_owned), 1 => body.clone()], 0..8).boxed();
    prop_oneof![
        1 => body,
        3 => block.clone().prop_map(|parts| format!("pipeline {{ {} }}", parts.concat())),
        3 => block.prop_map(|parts| format!("pipeline {{ stage 'z' {{ {} }} }}", parts.concat())),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 500, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn whatever_is_formatted_keeps_its_plan_its_comments_and_its_form(source in soup()) {
        holds(&source)?;
        // What has a plan is never left as it is because it could not be spelled.
        if let Planning::Plan { .. } = Fixture::default().plan("Ottofile", source.as_bytes()) {
            let once = formatted(&source);
            prop_assert!(!["stages {", "when {", "name 'c'"].iter().any(|old| once.contains(old)), "{}\nbecame\n{}", source, once);
        }
    }

    #[test]
    fn no_bytes_make_it_panic(source in ".{0,200}") {
        holds(&source)?;
    }
}
