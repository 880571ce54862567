//! The calls of the system that no crate makes safe. Each says why it is sound; there is no other unsafe code in Otto.
//!
//! All but [`receive`] are for the processes that hold stages ([`super::nursery`], [`super::init`]), which have one thread.

#![expect(
    unsafe_code,
    reason = "fork, close_range, mount_setattr, capset and received descriptors have no safe form; each call says why it is sound"
)]

use std::{
    ffi::CString,
    fs,
    io::{self, IoSliceMut},
    os::{
        fd::{AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd},
        unix::ffi::OsStrExt as _,
    },
    path::Path,
};

use nix::{
    errno::Errno,
    libc,
    sys::socket::{ControlMessageOwned, MsgFlags, recvmsg},
    unistd::{ForkResult, Pid, fork},
};

/// The most descriptors that one message brings.
pub(super) const DESCRIPTORS_MAX: usize = 4;
/// Capabilities that the kernel may know: it numbers them from 0 and has 41 today; a number that it does not know is refused.
const CAPABILITIES_MAX: libc::c_ulong = 64;
/// `_LINUX_CAPABILITY_VERSION_3` of `linux/capability.h`: two sets of three words.
const CAPABILITY_VERSION: u32 = 0x2008_0522;

/// Forks this process. `None` in the child.
pub(super) fn fork_alone() -> io::Result<Option<Pid>> {
    let threads = fs::read_dir("/proc/self/task")?.count();
    assert_eq!(threads, 1, "only a process of one thread may fork and go on");
    // SAFETY: there is no other thread whose locks or half-made changes the child could inherit, so the child is as free as its parent.
    match unsafe { fork() }? {
        ForkResult::Parent { child } => Ok(Some(child)),
        ForkResult::Child => Ok(None),
    }
}

/// Closes whatever this process was started with beside its standard streams and `kept`. To be called before it has opened anything else.
pub(super) fn close_inherited(kept: BorrowedFd<'_>) {
    const FIRST: libc::c_uint = 3;
    let kept = libc::c_uint::try_from(kept.as_raw_fd()).expect("an open descriptor has no negative number");
    for (first, last) in [(FIRST, kept.saturating_sub(1)), (kept.saturating_add(1).max(FIRST), libc::c_uint::MAX)] {
        if first <= last {
            // SAFETY: only numbers are passed, and nothing in this process has a descriptor yet that would be closed behind its back.
            let _kernel_before_5_9 = unsafe { libc::syscall(libc::SYS_close_range, first, last, 0) };
        }
    }
}

/// How far a change of mounts reaches.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reach {
    /// The one mount.
    One,
    /// And all below it.
    Deep,
}

/// Makes what is mounted at `path` read-only, or writable.
pub(super) fn set_read_only(path: &Path, reach: Reach, read_only: bool) -> io::Result<()> {
    let path = CString::new(path.as_os_str().as_bytes())?;
    let flag = libc::MOUNT_ATTR_RDONLY;
    let attributes = libc::mount_attr {
        attr_set: if read_only { flag } else { 0 },
        attr_clr: if read_only { 0 } else { flag },
        propagation: 0,
        userns_fd: 0,
    };
    let flags = if reach == Reach::Deep { libc::AT_RECURSIVE } else { 0 };
    // SAFETY: the path ends with NUL and the attributes are of the size that is said; both outlive the call, and the kernel only reads them.
    let result = unsafe {
        libc::syscall(libc::SYS_mount_setattr, libc::AT_FDCWD, path.as_ptr(), flags, &raw const attributes, size_of::<libc::mount_attr>())
    };
    Errno::result(result)?;
    Ok(())
}

/// Gives up every capability, for this process and all that it starts: not even the superuser of a file gets one again.
pub(super) fn drop_capabilities() -> io::Result<()> {
    for capability in 0..CAPABILITIES_MAX {
        // SAFETY: only numbers are passed.
        let result = unsafe { libc::prctl(libc::PR_CAPBSET_DROP, capability, 0, 0, 0) };
        match Errno::result(result) {
            Ok(_) => {}
            // The kernel knows no further ones; and who may not even do this has none to give up.
            Err(Errno::EINVAL | Errno::EPERM) => break,
            Err(error) => return Err(error.into()),
        }
    }
    let header = [CAPABILITY_VERSION, 0];
    let sets = [0_u32; 6];
    // SAFETY: header and sets have the layout of version 3 (`man 2 capset`); both outlive the call.
    let result = unsafe { libc::syscall(libc::SYS_capset, header.as_ptr(), sets.as_ptr()) };
    Errno::result(result)?;
    Ok(())
}

/// Receives bytes and the descriptors that come with them; 0 bytes are the end.
pub(super) fn receive(socket: BorrowedFd<'_>, buffer: &mut [u8]) -> io::Result<(usize, Vec<OwnedFd>)> {
    let mut space = nix::cmsg_space!([std::os::fd::RawFd; DESCRIPTORS_MAX]);
    let mut slices = [IoSliceMut::new(buffer)];
    let message = recvmsg::<()>(socket.as_raw_fd(), &mut slices, Some(&mut space), MsgFlags::MSG_CMSG_CLOEXEC)?;
    let mut descriptors = Vec::new();
    for control in message.cmsgs()? {
        if let ControlMessageOwned::ScmRights(received) = control {
            // SAFETY: the kernel has just made these descriptors for this process, and nobody else knows them.
            descriptors.extend(received.into_iter().map(|descriptor| unsafe { OwnedFd::from_raw_fd(descriptor) }));
        }
    }
    Ok((message.bytes, descriptors))
}
