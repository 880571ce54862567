//! What `otto run` does with stages in images: where no containers run they are refused, and where some do, an image may be known in the run only.
//! Where there is neither podman nor docker, the second says that it was skipped.

use std::{fs, os::unix::fs::symlink, path::Path, process::Command};

use agent::container::{ContainerOptions, probe};
use serde_json::Value;

use crate::house::OTTO;

/// An image of one static program, made without a registry.
const IMAGE: &str = "localhost/otto-test-variable:1";
/// Where Debian's static busybox is.
const BUSYBOX: [&str; 2] = ["/usr/bin/busybox", "/bin/busybox"];

fn otto(folder: &Path, client: Option<&str>, arguments: &[&str]) -> (i32, String) {
    let mut command = Command::new(OTTO);
    command.args(arguments).current_dir(folder);
    if let Some(client) = client {
        command.env("OTTO_CONTAINER_CLIENT", client);
    }
    let output = command.output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap() + &String::from_utf8(output.stderr).unwrap();
    (output.status.code().unwrap(), text)
}

#[test]
fn what_this_machine_cannot_do_is_refused_before_anything_starts() {
    let folder = tempfile::tempdir().unwrap();
    let pipeline = "pipeline {
      stage 'Small' { steps [ sh 'echo ran' ] }
      stage 'Huge' { runtime { cores = 60000 } steps [ sh 'echo ran' ] }
      stage 'Image' { runtime { docker { image = 'x' } } steps [ sh 'echo ran' ] }
    }";
    fs::write(folder.path().join("Ottofile"), pipeline).unwrap();
    let none = Some("/nowhere/podman");
    let (code, text) = otto(folder.path(), none, &["run"]);
    assert_eq!(code, 2, "{text}");
    let lacks = [
        "the stage `Huge` cannot run on this machine: wants cores of at least 60000, this machine has ",
        "the stage `Image` cannot run on this machine: it needs containers, and none run here: /nowhere/podman: it is not installed",
        "install podman or start docker, or say with OTTO_CONTAINER_CLIENT how it is called",
    ];
    assert!(lacks.iter().all(|lack| text.contains(lack)) && !text.contains("ran\n") && !text.contains("`Small`"), "{text}");
    let (code, text) = otto(folder.path(), none, &["run", "--stage", "Small"]);
    assert!(code == 0 && text.contains("ran\n"), "{text}");
    let (code, text) = otto(folder.path(), none, &["explain", "--here"]);
    assert!(code == 0 && text.contains("On this machine") && text.contains("cannot run    2 stages"), "{text}");
    let (_, text) = otto(folder.path(), none, &["explain", "--here", "--format", "json"]);
    let told: Value = serde_json::from_str(&text).unwrap();
    let lacking: Vec<&str> = told["here"]["lacks"].as_object().unwrap().keys().map(String::as_str).collect();
    assert_eq!((lacking, &told["demands"]["Image"]["docker_run"]), (vec!["Huge", "Image"], &Value::Bool(true)));
    let (_, text) = otto(folder.path(), none, &["explain"]);
    assert!(!text.contains("On this machine") && text.contains("docker_run"), "nothing is tried: {text}");
    let (code, text) = otto(folder.path(), none, &["agent", "doctor"]);
    assert!(code == 0 && text.contains("✘ containers") && text.contains("to get it: install podman"), "{text}");
}

#[tokio::test]
async fn an_image_that_is_known_in_the_run_only_is_run() {
    let runtime = match probe(&ContainerOptions::default()).await {
        Ok(runtime) => runtime,
        Err(why) => return println!("SKIPPED: no containers run here: {why}"),
    };
    let Some(busybox) = BUSYBOX.iter().find(|path| Path::new(path).exists()) else {
        return println!("SKIPPED: there is no static busybox to make an image of");
    };
    import(runtime.name().split(' ').next().unwrap(), busybox);
    let folder = tempfile::tempdir().unwrap();
    let pipeline = "pipeline {
      stage 'Choose' { steps [ sh 'echo NAME' into: 'image' ] }
      stage 'Use' { runtime { docker { image = vars.image } } steps [ sh 'cat /etc/image' ] }
    }";
    let run = |name: &str| {
        fs::write(folder.path().join("Ottofile"), pipeline.replace("NAME", name)).unwrap();
        otto(folder.path(), None, &["run"])
    };
    let (code, text) = run(IMAGE);
    assert!(code == 0 && text.contains("from the image"), "{text}");
    let (code, text) = run("--privileged");
    assert!(code == 1 && text.contains("`--privileged` is no reference to an image"), "{text}");
}

fn import(client: &str, busybox: &str) {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path();
    for path in ["bin", "etc", "proc", "dev", "sys", "tmp"] {
        fs::create_dir(root.join(path)).unwrap();
    }
    fs::copy(busybox, root.join("bin/busybox")).unwrap();
    for tool in ["sh", "cat", "echo", "test"] {
        symlink("busybox", root.join("bin").join(tool)).unwrap();
    }
    fs::write(root.join("etc/image"), "from the image\n").unwrap();
    let archive = tempfile::NamedTempFile::new().unwrap();
    let archive = archive.path().to_str().unwrap();
    assert!(Command::new("tar").args(["-C", root.to_str().unwrap(), "-cf", archive, "."]).status().unwrap().success());
    let imported = Command::new(client).args(["import", archive, IMAGE]).output().unwrap();
    assert!(imported.status.success(), "{}", String::from_utf8_lossy(&imported.stderr));
}
