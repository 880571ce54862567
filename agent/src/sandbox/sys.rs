//! The calls of the system that no crate makes safe. Each says why it is sound; there is no other unsafe code in Otto.
//!
//! All but [`receive`] are for the processes that hold stages ([`super::nursery`], [`super::init`]), which have one thread.

#![expect(
    unsafe_code,
    reason = "fork, clone, close_range, TIOCNOTTY, mounts, capset and received descriptors have no safe form; each call says why it is sound"
)]

use std::{
    ffi::CString,
    fs,
    io::{self, IoSliceMut},
    mem,
    os::{
        fd::{AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd},
        unix::{ffi::OsStrExt as _, fs::MetadataExt as _},
    },
    path::Path,
    ptr,
};

use nix::{
    errno::Errno,
    libc,
    sched::CloneFlags,
    sys::{
        signal::{Signal, kill},
        socket::{ControlMessageOwned, MsgFlags, recvmsg},
        wait::{WaitStatus, waitpid},
    },
    unistd::{ForkResult, Pid, fork},
};

/// The most descriptors that one message brings.
pub(super) const DESCRIPTORS_MAX: usize = 4;
/// Capabilities that the kernel may know: it numbers them from 0 and has 41 today; a number that it does not know is refused.
const CAPABILITIES_MAX: libc::c_ulong = 64;
/// `_LINUX_CAPABILITY_VERSION_3` of `linux/capability.h`: two sets of three words.
const CAPABILITY_VERSION: u32 = 0x2008_0522;

/// Links of a folder without folders: its own name and `.`. Each folder in it has one more (`..`).
const LINKS_MIN: u64 = 2;
/// Bytes of the stack of a process that only waits.
const WAITING_STACK_BYTES: usize = 16 * 1024;

/// A stack, aligned as every architecture wants it.
#[repr(align(16))]
struct Stack([u8; WAITING_STACK_BYTES]);

/// A child that goes on as its parent would find the locks of the parent's other threads, held for ever.
fn be_alone() -> io::Result<()> {
    let threads = fs::metadata("/proc/self/task")?.nlink() - LINKS_MIN;
    assert_eq!(threads, 1, "only a process of one thread may fork and go on");
    Ok(())
}

/// Forks this process. `None` in the child.
pub(super) fn fork_alone() -> io::Result<Option<Pid>> {
    be_alone()?;
    // SAFETY: there is no other thread whose locks or half-made changes the child could inherit, so the child is as free as its parent.
    match unsafe { fork() }? {
        ForkResult::Parent { child } => Ok(Some(child)),
        ForkResult::Child => Ok(None),
    }
}

/// Forks this process into namespaces of its own, which a child of a process that had unshared them would be in, too: that costs a process
/// more. `None` in the child.
pub(super) fn fork_into(namespaces: CloneFlags) -> io::Result<Option<Pid>> {
    const NOTHING: libc::c_ulong = 0;
    be_alone()?;
    let flags = libc::c_ulong::from((namespaces.bits() | libc::SIGCHLD).cast_unsigned());
    // SAFETY: as in `fork_alone`. Without a stack the child goes on with a copy of this one, as after a fork, and nothing is written
    // anywhere. What the C library does beside that in `fork` is for other threads, and for its own note of the thread's number, which
    // nobody asks for that has no locks of POSIX.
    let child = Errno::result(unsafe { libc::syscall(libc::SYS_clone, flags, NOTHING, NOTHING, NOTHING, NOTHING) })?;
    let child = i32::try_from(child).map_err(io::Error::other)?;
    Ok((child != 0).then(|| Pid::from_raw(child)))
}

/// Gives up the terminal that this process has from its session, if it has one: `/dev/tty` is nothing to it then, and to what it starts.
pub(super) fn leave_terminal() -> io::Result<()> {
    // Where there is none, it cannot be opened.
    let Ok(terminal) = fs::File::options().read(true).write(true).open("/dev/tty") else { return Ok(()) };
    // SAFETY: it takes no argument, and the descriptor is open.
    Errno::result(unsafe { libc::ioctl(terminal.as_raw_fd(), libc::TIOCNOTTY) })?;
    Ok(())
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

/// What a child does that is there to be looked at: nothing, until it is killed. It has no memory of its own but its stack, so it touches nothing else: no
/// closure, no lock, and nothing of the thread that made it, as functions of the C library may.
extern "C" fn wait_to_be_killed(_nothing: *mut libc::c_void) -> libc::c_int {
    const NOTHING: libc::c_ulong = 0;
    loop {
        // SAFETY: without descriptors, without a time and without a mask, nothing is read or written.
        unsafe { libc::syscall(libc::SYS_ppoll, NOTHING, NOTHING, NOTHING, NOTHING, NOTHING) };
    }
}

/// A user namespace, in which `from` of a disk is `into` of the machine: for [`mount_mapped`].
pub(super) fn map_user(from: u32, into: u32) -> io::Result<OwnedFd> {
    let mut stack = Box::new(Stack([0; WAITING_STACK_BYTES]));
    let top = stack.0.as_mut_ptr_range().end.cast();
    // A child that only lends its namespace. It shares the memory, of which a copy would cost more than all the rest.
    let flags = CloneFlags::CLONE_NEWUSER | CloneFlags::CLONE_VM;
    // SAFETY: the child has a stack of its own, which is there until it has ended, and touches nothing else of the memory.
    let child = unsafe { libc::clone(wait_to_be_killed, top, flags.bits() | libc::SIGCHLD, ptr::null_mut()) };
    let child =
        Pid::from_raw(Errno::result(child).map_err(|error| io::Error::other(format!("the system makes no user namespace: {error}")))?);
    let map = || -> io::Result<OwnedFd> {
        for file in ["uid_map", "gid_map"] {
            fs::write(format!("/proc/{child}/{file}"), format!("{from} {into} 1"))?;
        }
        Ok(fs::File::open(format!("/proc/{child}/ns/user"))?.into())
    };
    let mapped = map();
    let killed = kill(child, Signal::SIGKILL);
    let ended = waitpid(child, None);
    if !matches!(ended, Ok(WaitStatus::Signaled(_, Signal::SIGKILL, _))) {
        // Whatever it does, it has its stack.
        mem::forget(stack);
        return Err(io::Error::other(format!("who lends a user namespace did not end as it must: {killed:?}, {ended:?}")));
    }
    mapped
}

/// Mounts what is at `path` also at `at`, with the users of a namespace of [`map_user`].
pub(super) fn mount_mapped(path: &Path, at: &Path, users: &OwnedFd) -> io::Result<()> {
    let [path, at] = [path, at].map(|path| CString::new(path.as_os_str().as_bytes()));
    let (path, at) = (path?, at?);
    let flags = libc::OPEN_TREE_CLONE | libc::O_CLOEXEC.cast_unsigned();
    // SAFETY: the path ends with NUL and outlives the call.
    let tree = Errno::result(unsafe { libc::syscall(libc::SYS_open_tree, libc::AT_FDCWD, path.as_ptr(), flags) })?;
    let tree = i32::try_from(tree).map_err(io::Error::other)?;
    // SAFETY: the kernel has just made this descriptor for this process, and nobody else knows it.
    let tree = unsafe { OwnedFd::from_raw_fd(tree) };
    let attributes = libc::mount_attr {
        attr_set: libc::MOUNT_ATTR_IDMAP,
        attr_clr: 0,
        propagation: 0,
        userns_fd: u64::try_from(users.as_raw_fd()).map_err(io::Error::other)?,
    };
    let (raw, empty) = (tree.as_raw_fd(), c"".as_ptr());
    // SAFETY: the attributes are of the size that is said and outlive the call; the kernel only reads them.
    let mapped = unsafe {
        libc::syscall(libc::SYS_mount_setattr, raw, empty, libc::AT_EMPTY_PATH, &raw const attributes, size_of::<libc::mount_attr>())
    };
    Errno::result(mapped)?;
    // SAFETY: both paths end with NUL and outlive the call.
    let moved = unsafe { libc::syscall(libc::SYS_move_mount, raw, empty, libc::AT_FDCWD, at.as_ptr(), libc::MOVE_MOUNT_F_EMPTY_PATH) };
    Errno::result(moved)?;
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

#[cfg(test)]
mod tests {
    use nix::unistd::Uid;

    use super::*;

    /// Often enough that one of the children is still on its way when this process goes on, and one that is killed while it is.
    const TIMES: usize = 500;

    #[test]
    fn who_lends_a_user_namespace_waits_until_it_is_killed() {
        if !Uid::effective().is_root() {
            return;
        }
        for _ in 0..TIMES {
            map_user(0, 1000).unwrap();
        }
    }
}
