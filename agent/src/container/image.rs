//! The smallest image: one program that does nothing, successfully. No registry is asked to find out whether containers run here.

use tar::{Builder, Header};

/// The image's reference.
pub(super) const NAME: &str = "localhost/otto-probe:1";
/// The program's path in it.
pub(super) const PROGRAM: &str = "/true";
/// Where a program of one segment is loaded.
const BASE: u64 = 0x40_0000;
/// Bytes of the headers of an ELF file (elf(5)): its own, and that of its one segment.
const HEADERS: u64 = 64 + 56;

/// `exit(0)` of this machine, and its number in an ELF file.
fn code() -> Option<(&'static [u8], u16)> {
    match std::env::consts::ARCH {
        // xor edi, edi; mov eax, 60; syscall
        "x86_64" => Some((&[0x31, 0xff, 0xb8, 0x3c, 0, 0, 0, 0x0f, 0x05], 62)),
        // mov x0, #0; mov x8, #93; svc #0
        "aarch64" => Some((&[0, 0, 0x80, 0xd2, 0xa8, 0x0b, 0x80, 0xd2, 1, 0, 0, 0xd4], 183)),
        _ => None,
    }
}

/// The image as a tar archive.
pub(super) fn archive() -> Option<Vec<u8>> {
    let program = program()?;
    let mut header = Header::new_gnu();
    header.set_size(program.len() as u64);
    header.set_mode(0o755);
    let mut builder = Builder::new(Vec::new());
    builder.append_data(&mut header, PROGRAM.trim_start_matches('/'), program.as_slice()).ok()?;
    builder.into_inner().ok()
}

fn program() -> Option<Vec<u8>> {
    let (code, machine) = code()?;
    let length = HEADERS + code.len() as u64;
    let mut file = b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0".to_vec();
    let halves = |numbers: &[u16]| numbers.iter().flat_map(|number| number.to_le_bytes()).collect::<Vec<_>>();
    let words = |numbers: &[u32]| numbers.iter().flat_map(|number| number.to_le_bytes()).collect::<Vec<_>>();
    let longs = |numbers: &[u64]| numbers.iter().flat_map(|number| number.to_le_bytes()).collect::<Vec<_>>();
    file.extend(halves(&[2, machine]));
    file.extend(words(&[1]));
    // Entry, program headers, no section headers.
    file.extend(longs(&[BASE + HEADERS, 64, 0]));
    file.extend(words(&[0]));
    file.extend(halves(&[64, 56, 1, 0, 0, 0]));
    // One segment, loaded to be read and executed.
    file.extend(words(&[1, 5]));
    file.extend(longs(&[0, BASE, BASE, length, length, 0x1000]));
    file.extend(code);
    Some(file)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn the_program_does_nothing_successfully() {
        let Some(program) = program() else { return };
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("true");
        std::fs::write(&path, program).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
        let status = loop {
            match std::process::Command::new(&path).status() {
                // Another test starts a process just now, which has the file open for writing for an instant.
                Err(error) if error.kind() == std::io::ErrorKind::ExecutableFileBusy => {}
                result => break result.unwrap(),
            }
        };
        assert!(status.success(), "{status}");
    }
}
