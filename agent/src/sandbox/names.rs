//! A name for the user of an attempt, which the machine does not know: `ssh`, `git` and others refuse to work for somebody who is nobody.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use super::view::bind;

/// What the user and its group are called.
const NAME: &str = "stage";

/// What stands in the machine's files, and what is added for the attempt.
fn entries(user: u32, folder: &Path, home: &Path) -> [(PathBuf, PathBuf, String); 2] {
    [
        ("/etc/passwd", "passwd", format!("{NAME}:x:{user}:{user}::{}:/bin/sh\n", home.display())),
        ("/etc/group", "group", format!("{NAME}:x:{user}:\n")),
    ]
    .map(|(file, own, line)| (file.into(), folder.join(own), line))
}

/// Gives the user a name in the files that this process and what it starts see. They are made in `folder`, which is still empty, and is so again.
pub(super) fn give(user: u32, folder: &Path, home: &Path) -> io::Result<()> {
    for (file, own, line) in entries(user, folder, home) {
        let mut text = match fs::read(&file) {
            // A machine without it looks its users up elsewhere.
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            text => text?,
        };
        if !text.ends_with(b"\n") && !text.is_empty() {
            text.push(b'\n');
        }
        text.extend_from_slice(line.as_bytes());
        fs::write(&own, text)?;
        bind(&own, &file)?;
        fs::remove_file(&own)?;
    }
    Ok(())
}
