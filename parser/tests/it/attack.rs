//! Files that try to take much for little: each is planned or refused soon, and nothing grows with what a few letters stand for.

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    time::{Duration, Instant},
};

use model::{context::TriggerContext, diagnostic::Diagnostic, planning::LOCK_FILE};
use parser::{PlanInput, Planning, limits};

use crate::{codes, planned, refused};

/// Many times what a debug build needs; what these files cost before they were bounded is minutes, or all memory.
const SOON: Duration = Duration::from_secs(30);

fn times(count: usize, unit: impl Fn(usize) -> String) -> String {
    (0..count).fold(String::new(), |all, place| all + &unit(place))
}

/// The answer to a source with these files, of which no other is there.
fn answered(source: &str, given: &[(&str, String)]) -> Planning {
    let begin = Instant::now();
    let mut files: BTreeMap<String, Option<Vec<u8>>> = BTreeMap::from([(LOCK_FILE.to_owned(), None)]);
    files.extend(given.iter().map(|(path, text)| ((*path).to_owned(), Some(text.clone().into_bytes()))));
    let listing = BTreeMap::new();
    loop {
        let input = PlanInput {
            path: "Ottofile",
            source: source.as_bytes(),
            context: &TriggerContext::default(),
            files: &files,
            listing: Some(&listing),
            changed: None,
            libraries: &[stdlib::library()],
        };
        let planning = parser::plan(&input);
        assert!(begin.elapsed() < SOON, "it took {:?}", begin.elapsed());
        match planning {
            Planning::Needs(needs) => files.extend(needs.files.into_iter().map(|path| (path, None))),
            planning @ (Planning::Plan { .. } | Planning::Refused(_)) => return planning,
        }
    }
}

fn diagnostics(source: &str, given: &[(&str, String)]) -> Vec<Diagnostic> {
    match answered(source, given) {
        Planning::Refused(diagnostics) => diagnostics,
        Planning::Plan { .. } | Planning::Needs(_) => panic!("it is not refused"),
    }
}

#[test]
fn branches_without_a_stage_double_nothing() {
    let nothing = "each('a') { when { it == 'z' } } ";
    let source = format!("pipeline {{ stage 'a' {{ }} {} stage 'z' {{ }} }}", format!("parallel {{ {nothing}{nothing} }} ").repeat(64));
    let document = planned(&source);
    assert_eq!(document.plan().stages[1].needs.len(), 1);
    let beside = planned(&format!("pipeline {{ stage 'a' {{ }} parallel {{ {nothing} stage 'b' {{ }} }} stage 'z' {{ }} }}"));
    let needs: Vec<usize> = beside.plan().stages.iter().map(|stage| stage.needs.len()).collect();
    assert_eq!(needs, [0, 1, 1]);
}

#[test]
fn what_a_group_hands_on_is_counted_for_each_of_its_stages() {
    let stages = times(4_900, |place| format!("stage '{place}' {{ }} "));
    let notify = format!("notify {{ failure {{ {} }} }}", "echo 'x' ".repeat(10_000));
    assert_eq!(codes(&refused(format!("pipeline {{ stage 'g' {{ {notify} {stages} }} }}").as_bytes())), ["E0604"]);
    let mut groups = String::new();
    for depth in 0..60 {
        let _ok = write!(groups, "stage 'g{depth}' {{ needs = [{}] ", times(256, |place| format!("'n{place}',")));
    }
    let source = format!("pipeline {{ order = auto {groups} {stages} {} }}", "} ".repeat(60));
    assert_eq!(codes(&refused(source.as_bytes())), ["E0603"]);
}

#[test]
fn an_each_of_very_many_names_is_counted() {
    let names = times(50_000, |place| format!("a{place}: ['x'],"));
    assert_eq!(codes(&refused(format!("pipeline {{ each({names} b: ['y', 'z']) {{ stage 's' {{ }} }} }}").as_bytes())), ["E0302"]);
    let many = times(256, |place| format!("'{place}',"));
    assert_eq!(codes(&refused(format!("pipeline {{ each({names} b: [{many}]) {{ }} }}").as_bytes())), ["E0608"]);
    let long = "x".repeat(60_000);
    let left_out = format!("pipeline {{ each('{long}') {{ each({many}) {{ each({many}) {{ when {{ it == 'no' }} }} }} }} }}");
    assert_eq!(codes(&refused(left_out.as_bytes())), ["E0608"]);
}

#[test]
fn a_few_letters_stand_for_no_long_default() {
    let manifest = |name: &str, default: usize| {
        let default = "y".repeat(default);
        format!(
            "symbol: b\ndescription: x\nentrypoint: {{path: x}}\nparameters:\n  - {{name: {name}, type: string, default: '{default}'}}\n"
        )
    };
    let calls = |call: &str| format!("use './s' pipeline {{ steps {{ {} }} }}", call.repeat(5_000));
    assert_eq!(codes(&diagnostics(&calls("b "), &[("s/manifest.yml", manifest("p", 60_000))])), ["E0608"]);
    assert_eq!(codes(&diagnostics(&calls("b 'x' "), &[("s/manifest.yml", manifest(&"p".repeat(60_000), 1))])), ["E0608"]);
    let folder = format!("s/{}", "x".repeat(60_000));
    let source = calls("b ").replace("./s", &folder);
    assert_eq!(codes(&diagnostics(&source, &[(&format!("{folder}/manifest.yml"), manifest("p", 1))])), ["E0608"]);
}

#[test]
fn very_many_steps_made_of_steps_are_told_apart_soon() {
    let file = times(30_000, |place| format!("step 's{place}' {{ steps {{ a }} }}"));
    let begins = "use './s' pipeline { steps { ";
    assert!(matches!(answered(&format!("{begins} sh 'x' }} }}"), &[("s.otto", file)]), Planning::Plan { .. }));
    let few = times(2_000, |place| format!("step 's{place}' {{ steps {{ sh 'a' }} }}"));
    let unknown = times(50_000, |place| format!("zz{place} "));
    assert_eq!(diagnostics(&format!("{begins} {unknown} }} }}"), &[("s.otto", few)]).len(), limits::DIAGNOSTICS_MAX + 1);
}

#[test]
fn very_many_facts_of_a_condition_are_told_soon() {
    let conditions = times(20_000, |place| format!("concat('a{place}') == '' && "));
    let document = planned(&format!("pipeline {{ stage 'a' {{ when {{ {conditions} tag }} }} }}"));
    let skip = document.plan().stages[0].skipped.clone().unwrap();
    assert_eq!(skip.because.split(", ").count(), 20_001);
}

#[test]
fn places_on_one_long_line_are_found_soon() {
    let source = format!("pipeline {{ {} }}", times(4_990, |place| format!("stage 'ä{place}' {{ env {{ A = '{}' }} }} ", "ä".repeat(80))));
    let Planning::Plan { document, notes, .. } = answered(&source, &[]) else { panic!("it is refused") };
    let last = &document.plan().stages[4_989];
    let column = source.split("'ä4989'").next().unwrap().chars().count() + 1;
    assert_eq!((notes.places[&last.id].line, notes.places[&last.id].column), (1, column));
}

#[test]
fn a_file_of_json_is_bounded() {
    let json = format!("[{}1]", "1, ".repeat(400_000));
    assert_eq!(codes(&diagnostics("pipeline { each(json('m.json')) { stage 'a' { } } }", &[("m.json", json)])), ["E0720"]);
}

#[test]
fn no_step_on_an_outcome_gets_a_credential_that_no_stage_lists() {
    let git = "notify { failure { git url: 'https://example.org/a', key: 'deploy-key' } }";
    let source = |pipeline: &str| {
        let credentials = "credentials { deploy-key = vault('a/b#c') }";
        let environments = "environments { production { credentials = ['deploy-key'] } preprod { } }";
        format!("{credentials} {environments} pipeline {{ {pipeline} }}")
    };
    for (pipeline, code) in [
        (format!("{git} steps {{ sh 'x' }}"), "E0804"),
        (format!("stage 'a' {{ {git} steps {{ sh 'x' }} }}"), "E0804"),
        (format!("stage 'a' {{ environment -> production {git} steps {{ sh 'x' }} }}"), "E0804"),
        (format!("stage 'g' {{ {git} stage 'a' {{ steps {{ sh 'x' }} }} }}"), "E0804"),
        (format!("stage 'a' {{ environment -> preprod credentials = ['deploy-key'] {git} }}"), "E0805"),
        ("stage 'a' { notify { failure { echo vars.nothing } } }".to_owned(), "E0307"),
    ] {
        assert_eq!(codes(&refused(source(&pipeline).as_bytes())), [code], "{pipeline}");
    }
    let listed = format!("stage 'a' {{ environment -> production credentials = ['deploy-key'] {git} steps {{ sh 'x' }} }}");
    assert_eq!(planned(&source(&listed)).plan().credentials.len(), 1);
}

#[test]
fn a_manifest_hands_no_variable_to_code() {
    let manifest = "symbol: b\ndescription: x\nentrypoint: {path: x}\nparameters:\n  - {name: p, type: code, default: {variable: x}}\n";
    let found = diagnostics("use './s' pipeline { steps { b } }", &[("s/manifest.yml", manifest.to_owned())]);
    assert_eq!(codes(&found), ["E0703"]);
}

#[test]
fn patterns_are_held_against_as_many_paths_as_takes_a_second() {
    let paths: Vec<String> = (0..20_000).map(|place| format!("services/a{}/b{}/file-{place}.rs", place % 50, place % 97)).collect();
    let listing = paths.iter().map(|path| (path.clone(), "0".repeat(40))).collect();
    let changed = parser::Changed::Paths(paths.iter().rev().cloned().collect());
    let planning = |source: String| {
        let begin = Instant::now();
        let input = PlanInput {
            path: "Ottofile",
            source: source.as_bytes(),
            context: &TriggerContext::default(),
            files: &BTreeMap::from([(LOCK_FILE.to_owned(), None)]),
            listing: Some(&listing),
            changed: Some(&changed),
            libraries: &[stdlib::library()],
        };
        let planning = parser::plan(&input);
        assert!(begin.elapsed() < SOON, "it took {:?}", begin.elapsed());
        planning
    };
    let when = |condition: String| format!("pipeline {{ stage 'a' {{ when {{ {condition} tag }} }} }}");
    let variables = |unit: &dyn Fn(usize) -> String| format!("pipeline {{ stage 'a' {{ env {{ {} }} }} }}", times(20_000, unit));
    let digests = variables(&|place| format!("A{place} = files('**/*{}.rs', '**/*{}.rs') ", place % 900, place / 900));
    let Planning::Refused(diagnostics) = planning(digests) else { panic!("it is not refused") };
    assert_eq!(codes(&diagnostics)[0], "E0621");
    let folders = times(450, |place| format!("exists('**/none-{place}') || changed('services/a{place}/**x') || "));
    assert!(matches!(planning(when(folders)), Planning::Plan { .. }));
    // What is told does not depend on the order in which the paths are given.
    let Planning::Plan { document, .. } = planning(when("!changed('services/**') &&".to_owned())) else { panic!("it is refused") };
    let skip = document.plan().stages[0].skipped.clone().unwrap();
    assert!(skip.because.starts_with("services/a0/b0/file-0.rs changed"), "{}", skip.because);
}

#[test]
fn of_very_many_makers_the_last_one_is_found_soon() {
    let groups = |count: usize, order: &str| {
        let cache = |word: &str| times(40, |place| if word.is_empty() { format!("c{place} = ['x'] ") } else { format!("use c{place} ") });
        let stages = times(count, |place| format!("stage '{place}' {{ }} "));
        let (made, used) = (cache(""), cache("use"));
        format!("pipeline {{ {order} stage 'm' {{ cache {{ {made} }} {stages} }} stage 'u' {{ cache {{ {used} }} {stages} }} }}")
    };
    let document = planned(&groups(2_400, ""));
    let last = &document.plan().stages[2_399];
    assert!(document.plan().stages[2_400..].iter().all(|stage| stage.uses.iter().all(|used| used.from == last.id)));
    assert_eq!(refused(groups(2_400, "order = auto").as_bytes())[0].code, "E0309");
    for makers in [3, 64, 65, 200] {
        let beside = groups(makers, "").replacen("stage '0' {", "parallel { stage 'p' { } stage '0' {", 1).replacen(
            "} stage '1'",
            "} } stage '1'",
            1,
        );
        assert!(planned(&beside).plan().stages.len() > makers, "{makers}");
        let at_once = format!(
            "pipeline {{ parallel {{ {} }} stage 'u' {{ cache {{ use c }} }} }}",
            times(makers, |place| format!("stage '{place}' {{ cache {{ c = ['x'] }} }} "))
        );
        let found = refused(at_once.as_bytes());
        assert!(found[0].message.starts_with(&format!("{makers} stages make")), "{}", found[0].message);
        let near = format!(
            "pipeline {{ order = auto {} }}",
            times(makers, |place| format!(
                "stage 'g{place}' {{ stage 'm' {{ cache {{ c = ['x'] }} }} stage 'u' {{ cache {{ use c }} }} }} "
            ))
        );
        let plan = planned(&near);
        let pairs = plan.plan().stages.chunks(2);
        assert!(pairs.into_iter().all(|pair| pair[1].uses[0].from == pair[0].id), "{makers}");
    }
}
