//! The pipe to `otto up`: it closes when that is gone, also where it was killed and could tell nobody.

use std::{
    io,
    os::fd::{AsFd as _, OwnedFd},
};

use tokio::{io::AsyncReadExt as _, net::unix::pipe};

/// The value of the setting: which pipe.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ParentPipe {
    Stdin,
}

impl std::str::FromStr for ParentPipe {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text == "stdin" { Ok(Self::Stdin) } else { Err("expected `stdin`, or nothing") }
    }
}

/// The reading end of the pipe.
#[derive(Debug)]
pub(super) struct Parent(pipe::Receiver);

impl Parent {
    pub(super) fn open(pipe: ParentPipe) -> io::Result<Self> {
        let ParentPipe::Stdin = pipe;
        let stdin: OwnedFd = io::stdin().as_fd().try_clone_to_owned()?;
        Ok(Self(pipe::Receiver::from_owned_fd(stdin)?))
    }

    /// Returns when the parent is gone. Cancel safe.
    pub(super) async fn gone(&mut self) {
        let mut nothing = [0; 64];
        // Nobody writes into the pipe; what is read all the same means nothing.
        while self.0.read(&mut nothing).await.is_ok_and(|bytes| bytes > 0) {}
    }
}
