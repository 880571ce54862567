//! The server as an editor sees it: the protocol, spoken in this process.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod editor;
mod grammar;

use editor::Editor;
use serde_json::json;

const PIPELINE: &str = "\
parameters { target { description = 'Where to' type = choice options = ['preprod'] } }
environments { preprod { protected = true } }
credentials { deploy-key = vault('a#b') }
pipeline {
  stage 'Build' {
    cache { assets = ['public/'] }
    steps [ sh 'make' ]
  }
  stage 'Deploy' {
    stage 'Ship' {
      needs = ['Build']
      environment -> preprod
      credentials = ['deploy-key']
      cache { use assets }
      env { TARGET = params.target }
      steps [ sh 'make ship' ]
    }
  }
}
";

#[test]
fn a_right_file_has_no_diagnostics_and_a_wrong_one_has_them_where_they_are() {
    let mut editor = Editor::new(&[]);
    editor.open("Ottofile", "pipeline { steps [ sh 'ä😀' ] }\n");
    assert_eq!(editor.diagnostics("Ottofile"), Vec::<(String, String)>::new());
    editor.change("Ottofile", 2, "pipeline { steps [ sh 'ä😀' shh 'x' ] }\n");
    let found = editor.diagnostics("Ottofile");
    // The step after the string: ä is one unit, the face two.
    assert_eq!(found, [("E0401".to_owned(), "0:28-0:31".to_owned())]);
    editor.change("Ottofile", 3, "pipeline { steps [ sh 'x' ] }\n");
    assert!(editor.diagnostics("Ottofile").is_empty());
}

#[test]
fn what_a_person_types_meanwhile_is_looked_at_once() {
    let mut editor = Editor::new(&[]);
    editor.open("Ottofile", "pipeline {");
    for version in 2..50 {
        editor.change("Ottofile", version, "pipeline {");
    }
    editor.change("Ottofile", 50, "pipeline { }");
    let published = editor.published("Ottofile");
    assert_eq!(published.get("version"), Some(&json!(50)));
}

#[test]
fn files_that_are_named_are_read_from_the_folder_only() {
    let mut editor = Editor::new(&[("rubygem.blueprint", "blueprint { plan { stage 'Gem' { steps [ shh 'x' ] } } }")]);
    editor.open("Ottofile", "pipeline { from 'rubygem' }\n");
    let published = editor.published("Ottofile");
    let text = published.to_string();
    assert!(text.contains("rubygem.blueprint:1:"), "{text}");
    editor.change("Ottofile", 2, "pipeline { from '../../etc/passwd' }\n");
    assert!(!editor.diagnostics("Ottofile").is_empty());
}

#[test]
fn hovering_shows_what_things_are() {
    let mut editor = Editor::new(&[]);
    editor.open("Ottofile", PIPELINE);
    for (line, word, expected) in [
        (6, "sh", "script"),
        (6, "steps", "Steps without a stage"),
        (10, "needs", "waits for"),
        (10, "Build'", "**stage** `Build`"),
        (11, "environment", "Where it deploys"),
        (11, "preprod", "**environment** `preprod`"),
        (12, "deploy-key", "**credential** `deploy-key`"),
        (13, "assets", "**cache** `assets`"),
        (14, "params.target", "Where to"),
        (2, "vault", "secret"),
    ] {
        let hover = editor.at("textDocument/hover", "Ottofile", PIPELINE, line, word);
        assert!(hover.to_string().contains(expected), "{word}: {hover}");
    }
    assert!(editor.at("textDocument/hover", "Ottofile", PIPELINE, 15, "make ship").is_null());
}

#[test]
fn completion_knows_the_block() {
    let mut editor = Editor::new(&[]);
    for (source, expected, missing) in [
        ("pipe|", "pipeline", "stage"),
        ("pipeline { sta| }", "stage", "pipeline"),
        ("pipeline { stage 'a' { ti| } }", "timeout", "pipeline"),
        ("pipeline { stage 'a' { steps [ s| ] } }", "sh", "timeout"),
        ("pipeline { stage 'a' { steps [ sh 'x' la| ] } }", "label:", "timeout"),
        ("pipeline { stage 'Build' { } stage 'b' { needs = ['|'] } }", "Build", "sh"),
        ("environments { preprod { } } pipeline { stage 'b' { environment -> | } }", "preprod", "sh"),
        ("credentials { k = vault('a#b') } pipeline { stage 'b' { credentials = ['|'] } }", "k", "sh"),
        ("parameters { x { type = string } } pipeline { stage 'b' { env { A = params.| } } }", "params.x", "sh"),
        ("pipeline { stage 'a' { gates { enter { br| } } } }", "branch", "sh"),
        ("parameters { x { type = | } }", "choice", "sh"),
        ("triggers { pu| }", "push", "sh"),
        ("pipeline { stage 'a' { runtime { | } } }", "docker", "sh"),
        ("pipeline { notify { fail| } }", "failure", "sh"),
    ] {
        editor.open("Ottofile", &source.replace('|', ""));
        let labels = editor.complete("Ottofile", source);
        assert!(labels.iter().any(|label| label == expected), "{source}: {labels:?}");
        assert!(!labels.iter().any(|label| label == missing), "{source}: {labels:?}");
    }
    editor.open("Ottofile", "pipeline { // st");
    assert!(editor.complete("Ottofile", "pipeline { // st|").is_empty());
}

#[test]
fn definitions_are_found() {
    let mut editor =
        Editor::new(&[("lib/gem.blueprint", "blueprint { plan { } }"), ("steps/greet.otto", "step 'greet' { steps [ sh 'x' ] }")]);
    editor.open("Ottofile", PIPELINE);
    for (line, word, expected) in
        [(10, "Build'", 4), (11, "preprod", 1), (12, "deploy-key", 2), (13, "assets", 5), (14, "params.target", 0)]
    {
        let definition = editor.at("textDocument/definition", "Ottofile", PIPELINE, line, word);
        assert_eq!(definition.pointer("/range/start/line"), Some(&json!(expected)), "{word}: {definition}");
    }
    let source = "use { './steps/greet' }\npipeline { from './lib/gem' steps [ greet ] }\n";
    editor.open("Ottofile", source);
    let definition = editor.at("textDocument/definition", "Ottofile", source, 1, "./lib/gem");
    assert!(definition.to_string().contains("lib/gem.blueprint"), "{definition}");
    let definition = editor.at("textDocument/definition", "Ottofile", source, 0, "./steps/greet");
    assert!(definition.to_string().contains("steps/greet.otto"), "{definition}");
    assert!(editor.complete("Ottofile", "use { './steps/greet' }\npipeline { from './lib/gem' steps [ gr|").contains(&"greet".to_owned()));
}

#[test]
fn the_outline_is_a_tree() {
    let mut editor = Editor::new(&[]);
    editor.open("Ottofile", PIPELINE);
    let outline = editor.ask("textDocument/documentSymbol", json!({ "textDocument": { "uri": editor.uri("Ottofile") } }));
    let names = |value: &serde_json::Value| -> Vec<String> {
        value.as_array().unwrap().iter().map(|symbol| symbol["name"].as_str().unwrap().to_owned()).collect()
    };
    assert_eq!(names(&outline), ["parameters", "environments", "credentials", "pipeline"]);
    assert_eq!(names(&outline[3]["children"]), ["Build", "Deploy"]);
    assert_eq!(names(&outline[3]["children"][1]["children"]), ["Ship"]);
}

#[test]
fn a_file_is_formatted_as_a_whole() {
    let mut editor = Editor::new(&[]);
    editor.open("Ottofile", "pipeline{stages{stage{name='a'steps{sh'x'}}}} // end");
    let ask = json!({ "textDocument": { "uri": editor.uri("Ottofile") }, "options": { "tabSize": 2, "insertSpaces": true } });
    let edits = editor.ask("textDocument/formatting", ask.clone());
    assert_eq!(edits[0]["newText"], json!("pipeline {\n  stage 'a' { steps [ sh 'x' ] }\n} // end\n"));
    editor.change("Ottofile", 2, "pipeline {");
    assert_eq!(editor.ask("textDocument/formatting", ask), json!([]), "a broken file is left alone");
}

#[test]
fn what_is_unknown_or_wrong_is_answered() {
    let mut editor = Editor::new(&[]);
    assert_eq!(editor.fails("textDocument/rename", json!({})), -32601);
    assert_eq!(editor.fails("textDocument/hover", json!({ "position": 1 })), -32602);
    let nowhere = json!({ "textDocument": { "uri": "file:///nowhere" }, "position": { "line": 9, "character": 9 } });
    assert!(editor.ask("textDocument/hover", nowhere).is_null());
}
