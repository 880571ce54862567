//! The pages of the language against the parser: every sample of `docs/language.md` and `test_data/conformance.md` is what it says.
//!
//! | block | what holds |
//! |---|---|
//! | ```` ```otto ```` | it has a plan; a comment `<!-- expect … -->` after it says what the plan has |
//! | ```` ```same ```` | its plan has the digest of the `otto` block before it |
//! | ```` ```warned W0101 ```` | it has a plan and this warning |
//! | ```` ```refused E0801 ```` | it is refused, with errors whose codes begin like this (none: any) |
//! | ```` ```blueprint PATH ````, ```` ```library PATH ```` | a file of the commit for all samples of the page |
//!
//! Lines of an expectation: `PLACE = JSON`, `missing PLACE`, `present PLACE`, `count PLACE = N`, `paths = […]`, `left out = […]`, `after[STAGE] = STAGE REASON, …`,
//! `triggered`, `not triggered`. A place is a path of keys into the plan's JSON; `stages[Build]` is the stage with that path.

use std::{collections::BTreeMap, path::Path};

use model::{plan::PlanDocument, planning::PlanNotes};
use parser::{Planning, render};
use serde_json::Value;

use crate::fixture::Fixture;

/// One block of a page, with the expectation after it.
struct Sample {
    line: usize,
    kind: String,
    arguments: Vec<String>,
    source: String,
    expectations: Vec<String>,
}

fn samples(page: &str) -> Vec<Sample> {
    let mut samples: Vec<Sample> = Vec::new();
    let mut lines = page.lines().enumerate();
    while let Some((at, line)) = lines.next() {
        if let Some(head) = line.strip_prefix("```") {
            let mut words = head.split_whitespace().map(str::to_owned);
            let kind = words.next().unwrap_or_default();
            let source: Vec<&str> = lines.by_ref().map(|(_, line)| line).take_while(|line| *line != "```").collect();
            samples.push(Sample {
                line: at + 1,
                kind,
                arguments: words.collect(),
                source: source.iter().flat_map(|line| [line, "\n"]).collect(),
                expectations: vec![],
            });
        } else if line == "<!-- expect" {
            let expectations = lines.by_ref().map(|(_, line)| line.to_owned()).take_while(|line| line != "-->");
            samples.last_mut().unwrap().expectations = expectations.collect();
        }
    }
    samples
}

#[test]
fn every_sample_of_the_users_page_is_what_it_says() {
    check("docs/language.md", include_str!("../../../docs/language.md"), 5);
}

#[test]
fn every_sentence_of_the_language_holds() {
    check("parser/test_data/conformance.md", include_str!("../../test_data/conformance.md"), 5);
}

#[test]
fn the_sample_of_the_first_screen_is_right() {
    check("README.md", include_str!("../../../README.md"), 0);
}

fn plan(source: &str, files: &BTreeMap<String, Vec<u8>>) -> Planning {
    let mut fixture = Fixture::of(source.as_bytes(), Path::new("none"));
    for (path, bytes) in files {
        fixture.add_file(path, bytes);
    }
    fixture.plan("Ottofile", source.as_bytes())
}

fn check(page: &str, text: &str, refused_min: usize) {
    let mut files = BTreeMap::new();
    let mut last = None;
    let mut faults = Vec::new();
    let mut refused = 0;
    for sample in samples(text) {
        let fault = |what: String| format!("{page}:{}: {what}\n{}", sample.line, sample.source);
        match sample.kind.as_str() {
            "blueprint" | "library" => drop(files.insert(sample.arguments[0].clone(), sample.source.into_bytes())),
            "refused" => {
                refused += 1;
                faults.extend(refusal(&sample, &files).map(fault));
            }
            "otto" | "warned" | "same" => match plan(&sample.source, &files) {
                Planning::Plan { document, notes, warnings } => {
                    let codes: Vec<&str> = warnings.iter().map(|warning| warning.code.as_str()).collect();
                    if sample.kind == "warned" && !sample.arguments.iter().all(|code| codes.contains(&code.as_str())) {
                        faults.push(fault(format!("warned of {codes:?}")));
                    }
                    if sample.kind != "warned" && !codes.is_empty() {
                        faults.push(fault(format!("warned of {codes:?}")));
                    }
                    if sample.kind == "same" && last != Some(document.digest()) {
                        faults.push(fault("another plan than the sample before".to_owned()));
                    }
                    last = Some(document.digest());
                    let plan = Shown::new(&document, &notes);
                    faults.extend(sample.expectations.iter().filter_map(|line| plan.contradicts(line)).map(fault));
                }
                Planning::Refused(diagnostics) => {
                    let told: String = diagnostics.iter().map(|diagnostic| render(diagnostic, sample.source.as_bytes(), false)).collect();
                    faults.push(fault(format!("refused\n{told}")));
                }
                Planning::Needs(needs) => faults.push(fault(format!("needs {needs:?}"))),
            },
            "" | "text" | "sh" => {}
            kind => faults.push(fault(format!("a block of the kind {kind}"))),
        }
    }
    assert!(refused >= refused_min, "{page} has samples of both kinds");
    assert!(faults.is_empty(), "{} faults:\n\n{}", faults.len(), faults.join("\n\n"));
}

fn refusal(sample: &Sample, files: &BTreeMap<String, Vec<u8>>) -> Option<String> {
    match plan(&sample.source, files) {
        Planning::Refused(diagnostics) => {
            let codes: Vec<&str> = diagnostics.iter().map(|diagnostic| diagnostic.code.as_str()).collect();
            let told = |wanted: &String| codes.iter().any(|code| code.starts_with(wanted.as_str()));
            (!sample.arguments.iter().all(told)).then(|| format!("refused with {codes:?}"))
        }
        Planning::Plan { .. } => Some("not refused".to_owned()),
        Planning::Needs(needs) => Some(format!("needs {needs:?}")),
    }
}

/// A plan as the expectations see it.
struct Shown {
    plan: Value,
    left_out: Vec<String>,
    not_triggered: Option<String>,
}

impl Shown {
    fn new(document: &PlanDocument, notes: &PlanNotes) -> Self {
        Self {
            plan: serde_json::from_slice(document.bytes()).unwrap(),
            left_out: notes.left_out.iter().map(|left| left.path.clone()).collect(),
            not_triggered: notes.not_triggered.clone(),
        }
    }

    fn stages(&self) -> &[Value] {
        self.plan["stages"].as_array().unwrap()
    }

    /// What is at a place; `None` if there is nothing.
    fn at(&self, place: &str) -> Option<&Value> {
        let mut value = &self.plan;
        let mut rest = place;
        while !rest.is_empty() {
            rest = rest.trim_start_matches('.');
            if let Some(inside) = rest.strip_prefix('[') {
                let (key, after) = inside.split_once(']').unwrap();
                rest = after;
                value = match key.parse::<usize>() {
                    Ok(index) => value.get(index)?,
                    Err(_) => value.as_array()?.iter().find(|item| item["path"] == key)?,
                };
                continue;
            }
            // A key may have dots: the longest that there is.
            let object = value.as_object()?;
            let key = object
                .keys()
                .filter(|key| rest.strip_prefix(key.as_str()).is_some_and(|after| after.is_empty() || after.starts_with(['.', '['])));
            let key = key.max_by_key(|key| key.len())?;
            rest = rest.get(key.len()..).unwrap_or_default();
            value = &object[key];
        }
        Some(value)
    }

    /// What is wrong with a line of an expectation.
    fn contradicts(&self, line: &str) -> Option<String> {
        let json = |text: &str| serde_json::from_str::<Value>(text).unwrap_or_else(|error| panic!("{line}: {error}"));
        if line == "triggered" || line == "not triggered" {
            return ((line == "triggered") != self.not_triggered.is_none()).then(|| format!("{line}: {:?}", self.not_triggered));
        }
        if let Some(place) = line.strip_prefix("missing ") {
            return self.at(place).map(|value| format!("{line}: {value}"));
        }
        if let Some(place) = line.strip_prefix("present ") {
            return self.at(place).is_none().then(|| line.to_owned());
        }
        let (place, wanted) = line.split_once(" =").unwrap_or_else(|| panic!("no expectation: {line}"));
        let wanted = wanted.trim();
        let (found, wanted) = if let Some(place) = place.strip_prefix("count ") {
            (Value::from(self.at(place).and_then(Value::as_array).map_or(0, Vec::len)), json(wanted))
        } else if let Some(path) = place.strip_prefix("after[").and_then(|rest| rest.strip_suffix(']')) {
            (Value::from(self.after(path)), Value::from(wanted))
        } else if place == "paths" {
            (self.stages().iter().map(|stage| stage["path"].clone()).collect(), json(wanted))
        } else if place == "left out" {
            (self.left_out.iter().map(|path| Value::from(path.as_str())).collect(), json(wanted))
        } else {
            (self.at(place).cloned().unwrap_or_default(), json(wanted))
        };
        (found != wanted).then(|| format!("{line}\nbut it is {found}"))
    }

    /// What a stage waits for, in the order of the paths.
    fn after(&self, path: &str) -> String {
        let Some(stage) = self.stages().iter().find(|stage| stage["path"] == path) else { return format!("no stage {path}") };
        let path_of = |id: &Value| self.stages().iter().find(|stage| stage["id"] == *id).map(|stage| stage["path"].as_str().unwrap());
        let mut needs: Vec<String> = stage["needs"]
            .as_array()
            .unwrap()
            .iter()
            .map(|need| format!("{} {}", path_of(&need["stage"]).unwrap(), need["reason"]))
            .collect();
        needs.sort();
        needs.join(", ")
    }
}
