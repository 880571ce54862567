//! `docs/settings.md`, made from the table.

use std::{fmt::Write as _, fs, path::Path};

use super::{ALL, EVERY, Kind, Setting};

/// Set, the test writes the document.
const UPDATE: &str = "UPDATE_SPEC";

const HEAD: &str = "\
<!-- Made by `cargo xtask generate` from service/src/env.rs: do not edit. -->

# Settings

What the services can be told, and where. A value is the default, else that of the file, else that of the variable: what is said later in this sentence goes
before what is said earlier. An empty variable says nothing.

## The file

`otto.yml`. It is the one that `--config FILE` names, of `otto up` and of `otto serve`; else the one of `OTTO_CONFIG`; else, of `otto up`, `otto.yml` beside the Procfile that
`--procfile` names, or in the data folder (`--data`, else `up` in Otto's home); and of a role that is started by itself, `otto.yml` in the folder of `OTTO_DATA`, if it is there.

```yaml
public_url: https://otto.example.org   # at the top: of every role that has the setting
log: info
orchestrator:                          # a section: of this role only, and before what is at the top
  runs_kept: 5000
agent:
  slots: 4
  container_client: [podman, --runtime, runc]
```

A key is the variable's name in lower case without `OTTO_`, and in the section of a role also without the role's name: `OTTO_AGENT_SLOTS` is `agent_slots` at the top, and
`slots` in `agent`. A relative path begins at the file's folder. Several values are a list, or one text as in the variable. The projects are in the folder `projects.d` beside
the file, if there is one and `projects` names no other. A secret never stands in the file: what is secret has a file of its own, which is named.

What is wrong (an unknown key, a value that does not read, a project that cannot be) is said all at once, each with its line and column or its variable, and the process ends with
code 64. `otto config check` says it without starting anything, and `otto config show` shows each setting with its value and where that comes from; with the names of roles, as `otto
serve ROLE` would have them in this environment, else as `otto up` would. Passwords in addresses are not shown.

`otto up` chooses ports, folders and keys itself (marked *wired* below): the file must not name those, and their variables are not handed on. All other variables of the table are.

";

fn document() -> String {
    let mut text = HEAD.to_owned();
    for role in EVERY {
        let mine = ALL.iter().filter(|setting| setting.roles.contains(role));
        table(&mut text, &format!("`{role}`"), "key in the section", mine, |setting| setting.key_of(role));
    }
    let others = ALL.iter().filter(|setting| setting.roles.is_empty());
    table(&mut text, "Commands, and every process", "", others, |_| String::new());
    text.truncate(text.trim_end().len());
    text + "\n"
}

fn table<'a>(text: &mut String, title: &str, key: &str, settings: impl Iterator<Item = &'a Setting>, key_of: impl Fn(&Setting) -> String) {
    let mut line = |line: String| writeln!(text, "{line}").unwrap();
    line(format!("## {title}\n"));
    line(if key.is_empty() { "| variable | |\n|---|---|".to_owned() } else { format!("| {key} | variable | |\n|---|---|---|") });
    for setting in settings {
        let several = match setting.kind {
            Kind::List(' ') => " Several, with spaces between them.",
            Kind::Text | Kind::Path | Kind::List(_) | Kind::Secret => "",
        };
        let wired = if setting.wired && !setting.roles.is_empty() { " *Wired.*" } else { "" };
        let about = format!("{}{several}{wired}", setting.about()).replace('|', "\\|");
        let variable = setting.variable;
        line(if key.is_empty() {
            format!("| `{variable}` | {about} |")
        } else {
            format!("| `{}` | `{variable}` | {about} |", key_of(setting))
        });
    }
    line(String::new());
}

#[test]
fn the_documented_settings_are_fresh() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/settings.md");
    let wanted = document();
    if std::env::var_os(UPDATE).is_some() {
        fs::write(&path, &wanted).unwrap();
    }
    let committed = fs::read_to_string(&path).unwrap_or_default();
    assert!(committed == wanted, "docs/settings.md is not what the table says; `cargo xtask generate` writes it");
}
