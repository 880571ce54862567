//! Limits: each says what it is, at its border; nothing takes more than linear time, on refused input, too.

use std::time::{Duration, Instant};

use parser::{Planning, limits};

use crate::{codes, planned, planning, refused};

/// Many times what a debug build needs on a slow machine; quadratic or exponential time needs far more.
const SOON: Duration = Duration::from_secs(30);

fn soon(what: &str, source: &str) -> Planning {
    let begin = Instant::now();
    let planning = planning(source.as_bytes());
    assert!(begin.elapsed() < SOON, "{what} took {:?}", begin.elapsed());
    planning
}

fn of_size(unit: &str, bytes: usize) -> String {
    unit.repeat(bytes / unit.len())
}

#[test]
fn a_file_over_the_limit_is_not_read() {
    let source = " ".repeat(limits::SOURCE_BYTES_MAX + 1);
    let diagnostics = refused(source.as_bytes());
    assert_eq!(codes(&diagnostics), ["E0102"]);
    assert!(diagnostics[0].message.contains("1048576"), "{}", diagnostics[0].message);
    assert_eq!(diagnostics[0], parser::too_large("Ottofile", source.len() as u64));
    assert_eq!(codes(&refused(&source.as_bytes()[1..])), ["E0201"]);
}

#[test]
fn a_megabyte_of_nested_rubbish_is_refused_before_the_grammar() {
    for unit in ["{", "[", "(", "a{", "a [", "a(", "a = [", "\"\"\"{", "/*{", "stage 'x' {"] {
        let begin = Instant::now();
        let diagnostics = refused(of_size(unit, limits::SOURCE_BYTES_MAX).as_bytes());
        assert!(diagnostics.iter().any(|diagnostic| ["E0103", "E0104"].contains(&diagnostic.code.as_str())), "{unit}");
        assert!(begin.elapsed() < SOON, "{unit} took {:?}", begin.elapsed());
    }
}

#[test]
fn nesting_up_to_the_limit_is_read_on_the_stack_of_a_thread() {
    let groups = limits::NESTING_MAX - 2;
    let source = |groups: usize| format!("pipeline {{ {} steps {{ sh 'x' }} {} }}", "stage 'g' { ".repeat(groups), "} ".repeat(groups));
    assert_eq!(planned(&source(groups)).plan().stages.len(), 1);
    assert_eq!(codes(&refused(source(groups + 1).as_bytes())), ["E0103"]);
    let calls = format!("pipeline {{ steps {{ echo({} {} }} }}", "f(a, ".repeat(groups - 1), ")".repeat(groups));
    assert_eq!(codes(&refused(calls.as_bytes())), ["E0421"]);
    let lists = limits::NESTING_MAX - 2;
    let nested = format!("pipeline {{ steps {{ echo {}{} }} }}", "[".repeat(lists), "]".repeat(lists));
    assert_eq!(codes(&refused(nested.as_bytes())), ["E0422"]);
}

#[test]
fn a_mistake_deep_inside_takes_no_longer_than_one_outside() {
    let depth = limits::NESTING_MAX - 4;
    for (open, close) in [
        ("a{", "}"),
        ("a[", "]"),
        ("a(", ")"),
        ("a=[", "]"),
        ("a 'x', [", "]"),
        ("a b:[", "]"),
        ("a(b:[", "])"),
        ("a = {", "}"),
        ("a b: {", "}"),
        ("a(b: {", "})"),
        ("it.x == {", "}"),
        ("it.x {", "}"),
        ("a it.x [", "]"),
        ("[", "]"),
        ("(", ")"),
        ("!(", ")"),
        ("a == f(", ")"),
        ("a in [", "]"),
        ("x && (", ")"),
        ("a format(", ")"),
        ("a(x) [", "]"),
        ("a(x) {", "}"),
        ("a 'x' {", "}"),
        ("a = f(", ")"),
        ("use {", "}"),
        ("type [", "]"),
    ] {
        let depth = depth / open.chars().filter(|character| "([{".contains(*character)).count();
        for wrong in ["=", "-> ->", ":", ", ,", "a = = b", "a b: :", "!", "a &&"] {
            let source = format!("pipeline {{ {} {wrong} {} }}", open.repeat(depth), close.repeat(depth));
            assert!(matches!(soon(&source, &source), Planning::Refused(_)), "{source}");
        }
    }
}

#[test]
fn long_files_take_linear_time() {
    for unit in [
        "a",
        "a ",
        "a\n",
        "'' ",
        "''",
        "// x\n",
        "/* */",
        "a = 1 ",
        "a 'b' ",
        "a, ",
        "1 ",
        "a.b ",
        "a: ",
        "- ",
        "a-",
        "= ",
        "\"\\\\\"",
        "a{}",
        "[] ",
        "()",
        "! ",
        "a && ",
        "a == ",
        "a in [] ",
        "a('b') ",
        "it ",
        "a\u{2028}",
        "\u{1F600}",
        "stage 'x' {} ",
        "use a ",
        "}",
    ] {
        // Quadratic time shows at an eighth of the limit, too: 10^10 steps of something.
        let bytes = limits::SOURCE_BYTES_MAX / 8;
        soon(unit, &of_size(unit, bytes));
        soon(unit, &format!("pipeline {{ steps {{ {} }} }}", of_size(unit, bytes)));
    }
}

#[test]
fn a_name_of_a_megabyte_is_not_repeated_in_messages() {
    let name = of_size("x", limits::SOURCE_BYTES_MAX - 64);
    for source in [
        format!("{name} {{ }}"),
        format!("use {name}"),
        format!("pipeline {{ {name} }}"),
        format!("pipeline {{ stage {name} {{ }} }}"),
        format!("pipeline {{ env {{ {name} }} }}"),
        format!("pipeline {{ steps {{ {name} }} }}"),
        format!("pipeline {{ steps {{ echo message: {name} }} }}"),
        format!("pipeline {{ steps {{ echo {name}: 'a' }} }}"),
        format!("pipeline {{ stage '{name}' {{ }} }}"),
        format!("pipeline {{ timeout = 1{name} }}"),
        format!("pipeline {{ = {name} }}"),
    ] {
        for diagnostic in refused(source.as_bytes()) {
            assert!(diagnostic.message.len() + diagnostic.help.len() + diagnostic.label.len() < 1000, "{}", diagnostic.code);
            assert!(parser::render(&diagnostic, source.as_bytes(), false).len() < 20_000, "{}", diagnostic.code);
        }
    }
}

#[test]
fn stages_and_steps_have_limits() {
    let stages = |count: usize| {
        let stages: Vec<String> = (0..count).map(|stage| format!("stage '{stage}' {{}}")).collect();
        format!("pipeline {{ {} }}", stages.join("\n"))
    };
    assert_eq!(planned(&stages(limits::STAGES_MAX)).plan().stages.len(), limits::STAGES_MAX);
    assert_eq!(codes(&refused(stages(limits::STAGES_MAX + 100).as_bytes())), ["E0601"]);

    let steps = |count: usize| format!("pipeline {{ steps {{ {} }} }}", "sh'' ".repeat(count));
    assert_eq!(planned(&steps(limits::STEPS_MAX)).plan().stages[0].steps.len(), limits::STEPS_MAX);
    assert_eq!(codes(&refused(steps(limits::STEPS_MAX + 100).as_bytes())), ["E0602"]);
}

#[test]
fn edges_have_a_limit_and_an_empty_stage_keeps_below_it() {
    let parallel = |name: &str, count: usize| {
        let stages: Vec<String> = (0..count).map(|stage| format!("stage '{name}{stage}' {{}}")).collect();
        format!("parallel {{ {} }}", stages.join("\n"))
    };
    let two = |between: &str| format!("pipeline {{ {} {between} {} }}", parallel("a", 400), parallel("b", 400));
    assert_eq!(codes(&refused(two("").as_bytes())), ["E0603"]);
    assert_eq!(planned(&two("stage 'Both' { }")).plan().stages.len(), 801);
}

#[test]
fn a_plan_has_a_size() {
    let stages: Vec<String> = (0..1000).map(|stage| format!("stage '{stage}' {{}}")).collect();
    let source = |bytes: usize| format!("pipeline {{ env {{ A = '{}' }} {} }}", "x".repeat(bytes), stages.join("\n"));
    assert!(planned(&source(10_000)).bytes().len() > 10_000_000);
    assert_eq!(codes(&refused(source(100_000).as_bytes())), ["E0604"]);
}

#[test]
fn a_file_full_of_mistakes_shows_the_first_of_them() {
    let diagnostics = refused(format!("pipeline {{ steps {{ {} }} }}", "ehco ".repeat(50_000)).as_bytes());
    assert_eq!(diagnostics.len(), limits::DIAGNOSTICS_MAX + 1);
    assert_eq!(diagnostics.last().unwrap().code, "E0605");
    let json: usize = diagnostics.iter().map(|diagnostic| diagnostic.message.len() + diagnostic.help.len() + diagnostic.label.len()).sum();
    assert!(json < 64 * 1024);
}
