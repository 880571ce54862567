//! Writes headers. The same entry gives the same bytes on every machine.

use std::ops::Range;

use super::{BLOCK, LONG_LINK, checksum, field};

/// What GNU tar writes there; the fields after it are then no part of the name.
const MAGIC: &[u8; 8] = b"ustar  \0";
/// The largest number that the octal digits of a size or a time hold; what is larger is written in binary.
const OCTAL_MAX: u64 = 0o777_7777_7777;

/// One entry's header.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Entry<'a> {
    pub(crate) kind: u8,
    pub(crate) path: &'a [u8],
    pub(crate) link: &'a [u8],
    pub(crate) mode: u32,
    pub(crate) size: u64,
    pub(crate) mtime: u64,
}

impl Entry<'_> {
    /// Appends the header, and before it those of names that do not fit into it.
    pub(crate) fn write(&self, to: &mut Vec<u8>) {
        for (kind, name) in [(b'L', self.path), (b'K', self.link)] {
            if name.len() > field::NAME.len() {
                let long = Entry { kind, path: LONG_LINK, link: b"", mode: 0o644, size: name.len() as u64 + 1, mtime: 0 };
                long.header(to);
                to.extend_from_slice(name);
                // At least one zero ends it.
                to.resize(to.len() + (name.len() + 1).next_multiple_of(BLOCK) - name.len(), 0);
            }
        }
        self.header(to);
    }

    fn header(&self, to: &mut Vec<u8>) {
        let mut header = [0; BLOCK];
        text(&mut header[field::NAME], self.path);
        text(&mut header[field::LINK], self.link);
        number(&mut header, field::MODE, u64::from(self.mode));
        number(&mut header, field::UID, 0);
        number(&mut header, field::GID, 0);
        number(&mut header, field::SIZE, self.size);
        number(&mut header, field::MTIME, self.mtime);
        header[field::KIND] = self.kind;
        header[field::MAGIC].copy_from_slice(MAGIC);
        let digits = format!("{:06o}\0 ", checksum(&header));
        header[field::CHECKSUM].copy_from_slice(digits.as_bytes());
        to.extend_from_slice(&header);
    }
}

/// As much of a name as fits.
fn text(field: &mut [u8], bytes: &[u8]) {
    let length = bytes.len().min(field.len());
    field[..length].copy_from_slice(&bytes[..length]);
}

fn number(header: &mut [u8; BLOCK], field: Range<usize>, value: u64) {
    let field = &mut header[field];
    if value > OCTAL_MAX {
        let at = field.len() - 8;
        field[at..].copy_from_slice(&value.to_be_bytes());
        field[0] = 0x80;
        return;
    }
    let digits = format!("{value:0width$o}\0", width = field.len() - 1);
    field.copy_from_slice(digits.as_bytes());
}
