//! What Linux says of a process, in a file of `/proc` (`man 5 proc`).

use std::{fs::File, io::Read as _};

/// Bytes that are read of it, all at once: the system has no size for such a file, and who reads it whole asks for a few bytes at a time, of
/// every process of the machine. What is looked for stands before them.
const BYTES_MAX: usize = 1024;

/// The beginning of a file of a process; nothing if the process is gone.
pub(crate) fn beginning(pid: i32, file: &str) -> String {
    let mut bytes = [0; BYTES_MAX];
    let read = File::open(format!("/proc/{pid}/{file}")).and_then(|mut file| file.read(&mut bytes)).unwrap_or(0);
    String::from_utf8_lossy(bytes.get(..read).unwrap_or_default()).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_says_who_it_is_and_one_that_is_gone_nothing() {
        let own = nix::unistd::getpid().as_raw();
        assert!(beginning(own, "stat").starts_with(&format!("{own} (")));
        assert!(beginning(own, "status").contains("\nUid:\t"));
        assert_eq!(beginning(i32::MAX, "stat"), "");
    }
}
