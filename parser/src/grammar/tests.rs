//! The tree of every spelling, in a notation without choice: calls have parentheses, conditions too.

use std::fmt::Write as _;

use super::*;
use crate::{diagnostic::Files, scan};

/// The tree of a source, one line for each thing; `None` if it is refused.
fn shape(source: &str) -> Option<String> {
    let mut files = Files::default();
    let file = files.add("f", source.as_bytes());
    let mut findings = Findings::default();
    let tokens = scan::scan(source, &files.get(file).lines, &mut findings)?;
    let tree = parse(source, tokens, &mut findings);
    if findings.has_errors() {
        return None;
    }
    let mut shown = String::new();
    lines(&mut shown, &tree?.items, 0);
    Some(shown.trim_end().to_owned())
}

/// The tree of a source on one line.
fn line(source: &str) -> String {
    let shape = shape(source).unwrap_or_else(|| "refused".to_owned());
    shape.lines().map(str::trim).collect::<Vec<_>>().join(" ")
}

fn lines(shown: &mut String, items: &[Item], depth: usize) {
    for item in items {
        writeln!(shown, "{}{}", "  ".repeat(depth), of_item(item, depth)).unwrap();
    }
}

fn of_block(items: &[Item], depth: usize) -> String {
    let mut shown = "{\n".to_owned();
    lines(&mut shown, items, depth + 1);
    shown + &"  ".repeat(depth) + "}"
}

fn of_item(item: &Item, depth: usize) -> String {
    match &item.kind {
        ItemKind::Entry(entry) => of_entry(entry, depth),
        ItemKind::Value(kind) => of_value(kind, depth),
        ItemKind::Condition(condition) => of_condition(condition, depth),
    }
}

fn of_entry(entry: &Entry, depth: usize) -> String {
    let name = &entry.name.kind;
    match &entry.tail {
        Tail::Assign(value) => format!("{name} = {}", of_value(&value.kind, depth)),
        Tail::Arrow(to) => format!("{name} -> {}", to.kind),
        Tail::Call(Call { arguments, block }) => {
            let argument = |Argument { keyword, value }: &Argument| {
                let keyword = keyword.as_ref().map_or_else(String::new, |keyword| format!("{}: ", keyword.kind));
                keyword + &of_value(&value.kind, depth)
            };
            let arguments = arguments.iter().map(argument).collect::<Vec<_>>().join(", ");
            let block = block.as_ref().map_or_else(String::new, |block| " ".to_owned() + &of_block(&block.kind, depth));
            format!("{name}({arguments}){block}")
        }
    }
}

fn of_value(kind: &ValueKind, depth: usize) -> String {
    match kind {
        ValueKind::Text(text) => format!("{text:?}"),
        ValueKind::Integer(number) => number.to_string(),
        ValueKind::Decimal(digits) => format!("decimal {digits}"),
        ValueKind::Duration(ms) => format!("{ms}ms"),
        ValueKind::Size(bytes) => format!("{bytes}B"),
        ValueKind::Boolean(value) => value.to_string(),
        ValueKind::List(items) => {
            let items: Vec<String> = items.iter().map(|item| of_item(item, depth)).collect();
            format!("[{}]", items.join(", "))
        }
        ValueKind::Block(block) => of_block(&block.kind, depth),
        ValueKind::Name(name) => name.clone(),
        ValueKind::Call(entry) => of_entry(entry, depth),
        ValueKind::Condition(condition) => of_condition(condition, depth),
        ValueKind::Wrong => "wrong".to_owned(),
    }
}

fn of_condition(condition: &Condition, depth: usize) -> String {
    let all = |parts: &[Condition], join: &str| parts.iter().map(|part| of_condition(part, depth)).collect::<Vec<_>>().join(join);
    match &condition.kind {
        ConditionKind::Value(kind) => format!("({})", of_value(kind, depth)),
        ConditionKind::Equal { left, negated, right } => {
            let operator = if *negated { "!=" } else { "==" };
            format!("({} {operator} {})", of_value(&left.kind, depth), of_value(&right.kind, depth))
        }
        ConditionKind::In { value, among } => {
            let among: Vec<String> = among.kind.iter().map(|item| of_item(item, depth)).collect();
            format!("({} in [{}])", of_value(&value.kind, depth), among.join(", "))
        }
        ConditionKind::Matches { value, pattern } => format!("({} matches {:?})", of_value(&value.kind, depth), pattern.kind),
        ConditionKind::Not(inner) => format!("!{}", of_condition(inner, depth)),
        ConditionKind::All(parts) => format!("({})", all(parts, " && ")),
        ConditionKind::Any(parts) => format!("({})", all(parts, " || ")),
    }
}

#[test]
fn every_construct_has_its_tree() {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("test_data/syntax");
    let mut settings = insta::Settings::clone_current();
    settings.set_snapshot_path(&folder);
    settings.set_prepend_module_to_snapshot(false);
    settings.set_omit_expression(true);
    let source = std::fs::read_to_string(folder.join("everything.otto")).unwrap();
    settings.bind(|| insta::assert_snapshot!("everything", shape(&source).unwrap()));
    // Windows' line ends and a byte order mark change nothing.
    assert_eq!(shape(&("\u{feff}".to_owned() + &source.replace('\n', "\r\n"))), shape(&source));
}

#[test]
fn conditions_bind_as_everywhere() {
    for (written, tree) in [
        ("a && b || c && d", "(((a) && (b)) || ((c) && (d)))"),
        ("a && (b || c)", "((a) && ((b) || (c)))"),
        ("(a || b) && c", "(((a) || (b)) && (c))"),
        ("a || b || c", "((a) || (b) || (c))"),
        ("!a && b", "(!(a) && (b))"),
        ("!(a && b)", "!((a) && (b))"),
        ("!!a", "(a)"),
        ("! changed('x')", "!(changed(\"x\"))"),
        ("!changed('docs/**', 'x') && tag", "(!(changed(\"docs/**\", \"x\")) && (tag))"),
        // Negation is of the whole comparison.
        ("!a == b", "!(a == b)"),
        ("!branch in ['x']", "!(branch in [\"x\"])"),
        ("branch=='main'&&!tag", "((branch == \"main\") && !(tag))"),
        ("'main' == branch", "(\"main\" == branch)"),
        ("it.os != params.os", "(it.os != params.os)"),
        ("branch in ['a' b, 'c']", "(branch in [\"a\", b(), \"c\"])"),
        ("branch in []", "(branch in [])"),
        ("branch matches 'release/*'", "(branch matches \"release/*\")"),
        ("branch matches \"x\" && a", "((branch matches \"x\") && (a))"),
        ("params.n == 3.10", "(params.n == decimal 3.10)"),
        ("params.n == -1 && params.d != 10m", "((params.n == -1) && (params.d != 600000ms))"),
        ("params.yes == true", "(params.yes == true)"),
        ("params.list == ['a']", "(params.list == [\"a\"])"),
        ("concat(a, 'b') == format('{}', c)", "(concat(a, \"b\") == format(\"{}\", c))"),
        ("event == push", "(event == push)"),
        ("((a))", "(a)"),
        ("(a) == b", "(a == b)"),
        ("a == b == c", "refused"),
        ("a &&", "refused"),
        ("&& a", "refused"),
        ("a matches b", "a() matches() b()"),
        ("a === b", "refused"),
        ("a & b", "refused"),
    ] {
        let expected = if tree == "refused" { tree.to_owned() } else { format!("when() {{ {tree} }}") };
        assert_eq!(line(&format!("when {{ {written} }}")), expected, "{written}");
    }
}

#[test]
fn each_line_of_a_block_of_conditions_is_one() {
    assert_eq!(
        line("a { tag\nvars.y == 'z'\nit\nit.x\n!b\nchanged('x')\n}"),
        "a() { tag() (vars.y == \"z\") it() it.x() !(b) changed(\"x\") }"
    );
    assert_eq!(line("a { it.os\nit.jdk in ['8'] }"), "a() { it.os() (it.jdk in [\"8\"]) }");
    assert_eq!(line("when(branch == 'main') { sh 'x' }"), "when((branch == \"main\")) { sh(\"x\") }");
    assert_eq!(line("when(a && !b, c) { }"), "when(((a) && !(b)), c) { }");
}

#[test]
fn arguments_end_where_a_name_begins() {
    for (written, tree) in [
        ("sh 'a' checkout echo 'b'", "sh(\"a\") checkout() echo(\"b\")"),
        ("sh 'a', 'b' 'c'", "sh(\"a\", \"b\", \"c\")"),
        ("sh 'a',\n'b'", "sh(\"a\", \"b\")"),
        ("sh script: 'a', label: b echo 'c'", "sh(script: \"a\", label: b) echo(\"c\")"),
        ("sh script:'a'label:b", "sh(script: \"a\", label: b)"),
        ("sh(script: 'a', label: b)", "sh(script: \"a\", label: b)"),
        ("sh('a' 'b')", "sh(\"a\", \"b\")"),
        ("sh()", "sh()"),
        ("sh(a, it, params.x)", "sh(a, it, params.x)"),
        ("echo it echo params.x echo vars.y", "echo(it) echo(params.x) echo(vars.y)"),
        ("echo it.os, 'x' true 3", "echo(it.os, \"x\", true, 3)"),
        ("echo concat('a', b) sh 'x'", "echo(concat(\"a\", b)) sh(\"x\")"),
        ("echo message: join(['a'], ', ') sh 'x'", "echo(message: join([\"a\"], \", \")) sh(\"x\")"),
        ("dir 'deploy' [ sh './ship.sh' ]", "dir(\"deploy\", [sh(\"./ship.sh\")])"),
        ("dir('deploy') [ sh './ship.sh' ]", "dir(\"deploy\", [sh(\"./ship.sh\")])"),
        ("dir('deploy') { sh './ship.sh' }", "dir(\"deploy\") { sh(\"./ship.sh\") }"),
        ("dir 'deploy' { sh 'x' } sh 'y'", "dir(\"deploy\") { sh(\"x\") } sh(\"y\")"),
        ("dir path: 'deploy', steps: [ checkout sh 'x' ]", "dir(path: \"deploy\", steps: [checkout(), sh(\"x\")])"),
        ("http headers: { Accept = 'x' } sh 'y'", "http(headers: { Accept = \"x\" }) sh(\"y\")"),
        ("x [ a b ]", "x([a(), b()])"),
        ("x [ a, b, ]", "x([a(), b()])"),
        ("[ 'a' b(c) ]", "[\"a\", b(c)]"),
        ("git url: 'x', branch: 'main', into: '.'", "git(url: \"x\", branch: \"main\", into: \".\")"),
        ("from blueprint: 'x', a: '1', deploy: false", "from(blueprint: \"x\", a: \"1\", deploy: false)"),
        ("each(os: ['linux'], jdk: ['8', '12']) { }", "each(os: [\"linux\"], jdk: [\"8\", \"12\"]) { }"),
        ("each(json('m.json')) { }", "each(json(\"m.json\")) { }"),
        ("use stdlib use { stdlib './a' 'b' }", "use(stdlib) use() { stdlib(\"./a\", \"b\") }"),
        ("description 'x' default true type boolean", "description(\"x\") default(true) type(boolean)"),
        ("type = choice type choice default = 'a'", "type = choice type(choice) default = \"a\""),
        ("effect = once timeout = 5m label = it", "effect = once timeout = 300000ms label = it"),
        ("a = b(c) d = e", "a = b(c) d = e"),
        ("environment->preprod environment -> x-y.z", "environment -> preprod environment -> x-y.z"),
        ("name\n=\n'x'\nb\n=\nc\n->\nd", "refused"),
        ("name\n=\n'x'", "name = \"x\""),
        ("a\n->\nd", "a -> d"),
        ("stage\n'x'\n{\n}", "stage(\"x\") { }"),
        ("wait { time = 10m } pause wait{webhook{}}", "wait() { time = 600000ms } pause() wait() { webhook() { } }"),
        ("sh 'a', echo 'b'", "refused"),
        ("sh a: b: c", "refused"),
        ("a = = b", "refused"),
        ("a-b a_b _c a-1", "a-b() a_b() _c() a-1()"),
        ("a- b", "refused"),
        ("a -b", "refused"),
        ("a -1", "a(-1)"),
    ] {
        assert_eq!(line(written), tree, "{written}");
    }
}

#[test]
fn keywords_may_be_names() {
    let words = [
        "stage",
        "steps",
        "pipeline",
        "in_",
        "matching",
        "iteration",
        "its",
        "trueish",
        "false-alarm",
        "format",
        "join",
        "json",
        "files",
        "user",
    ];
    for word in words {
        assert_eq!(line(&format!("{word} 'x' {word} = {word} {word} {{ }}")), format!("{word}(\"x\") {word} = {word} {word}() {{ }}"));
        assert_eq!(line(&format!("a {word}: 'x'")), format!("a({word}: \"x\")"));
    }
}

#[test]
fn numbers_end_where_no_name_begins() {
    for wrong in ["3x", "3_", "3-a", "10ms", "1.2.3", "3Mb", "1.x", "0x10", "1e3"] {
        assert_eq!(line(&format!("a = {wrong}")), "refused", "{wrong}");
        assert_eq!(line(&format!("a {wrong}")), "refused", "{wrong}");
    }
    assert_eq!(line("a 3 b 3s c = 1.5 d = 2G"), "a(3) b(3000ms) c = decimal 1.5 d = 2147483648B");
    assert_eq!(line("a 3'x'"), "a(3, \"x\")");
}
