//! What is typed while a run asks. The terminal gives each key as it comes and shows none: the line is drawn with the tree.

use std::{
    io::{self, Read as _},
    thread,
};

use rustix::{
    process::getpgrp,
    termios::{LocalModes, OptionalActions, Termios, tcgetattr, tcgetpgrp, tcsetattr},
};
use tokio::sync::mpsc;

/// Keys that wait to be looked at.
const KEYS_MAX: usize = 1_024;
/// Bytes that are read at once: what somebody types, or pastes.
const READ_BYTES: usize = 256;
/// Bytes of a typed line.
const LINE_BYTES_MAX: usize = 4_096;

/// The keyboard of a terminal.
#[derive(Debug)]
pub(super) struct Keyboard {
    /// How the terminal was before, while it is set for typing.
    before: Option<Termios>,
    typed: Option<mpsc::Receiver<u8>>,
    line: Vec<u8>,
}

impl Keyboard {
    pub(super) fn new() -> Self {
        Self { before: None, typed: None, line: Vec::new() }
    }

    /// Begins to listen, or goes on. A process in the background must not: the terminal would stop it.
    pub(super) fn listen(&mut self) -> io::Result<()> {
        let stdin = io::stdin();
        if tcgetpgrp(&stdin).is_ok_and(|group| group != getpgrp()) {
            return Ok(());
        }
        let mut modes = tcgetattr(&stdin)?;
        let wanted = LocalModes::ICANON | LocalModes::ECHO;
        if modes.local_modes.intersects(wanted) {
            self.before.get_or_insert_with(|| modes.clone());
            modes.local_modes.remove(wanted);
            tcsetattr(&stdin, OptionalActions::Now, &modes)?;
        }
        if self.typed.is_none() {
            let (sender, typed) = mpsc::channel(KEYS_MAX);
            // It reads until the process ends: nothing can wake it.
            thread::Builder::new().name("keys".to_owned()).spawn(move || {
                let mut bytes = [0; READ_BYTES];
                while let Ok(count @ 1..) = io::stdin().read(&mut bytes) {
                    if !bytes.iter().take(count).all(|byte| sender.blocking_send(*byte).is_ok()) {
                        return;
                    }
                }
            })?;
            self.typed = Some(typed);
        }
        Ok(())
    }

    /// Gives the terminal back as it was.
    pub(super) fn rest(&mut self) {
        self.line.clear();
        if let Some(before) = self.before.take() {
            // Nothing can be done where this fails.
            let _not_restored = tcsetattr(io::stdin(), OptionalActions::Now, &before);
        }
    }

    /// What stands in the line.
    pub(super) fn line(&self) -> String {
        String::from_utf8_lossy(&self.line).into_owned()
    }

    /// The line when Enter ends it, and nothing at any other key; waits for ever when nobody types. Cancel safe.
    pub(super) async fn typed(&mut self) -> Option<String> {
        let Some(typed) = &mut self.typed else { return std::future::pending().await };
        let Some(byte) = typed.recv().await else {
            self.typed = None;
            return None;
        };
        self.key(byte)
    }

    fn key(&mut self, byte: u8) -> Option<String> {
        match byte {
            b'\n' | b'\r' => {
                let line = self.line();
                self.line.clear();
                return Some(line);
            }
            // Backspace takes a whole character.
            0x08 | 0x7f => {
                let text = self.line();
                let mut characters = text.chars();
                characters.next_back();
                self.line = characters.as_str().as_bytes().to_vec();
            }
            // Ctrl-U takes the line.
            0x15 => self.line.clear(),
            byte if byte >= 0x20 && self.line.len() < LINE_BYTES_MAX => self.line.push(byte),
            _ => {}
        }
        None
    }
}

impl Drop for Keyboard {
    fn drop(&mut self) {
        self.rest();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_can_be_mended_before_it_ends() {
        let mut keyboard = Keyboard::new();
        for byte in "nö\x7f\x7fyesü\x7f".bytes() {
            assert_eq!(keyboard.key(byte), None);
        }
        assert_eq!(keyboard.line(), "yes");
        assert_eq!(keyboard.key(b'\r').as_deref(), Some("yes"));
        for byte in "no\x15\x1b".bytes() {
            assert_eq!(keyboard.key(byte), None);
        }
        assert_eq!(keyboard.line(), "");
    }
}
