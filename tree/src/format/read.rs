//! Reads an archive entry by entry. Nothing that it says of itself is believed: memory is taken for bytes that have come, not for those that
//! are announced, and what two readers might read differently is refused.

use std::io::{self, Read};

use super::{BLOCK, checksum, field};
use crate::{limits::PATH_BYTES_MAX, name::EntryName};

/// Bytes that are read at once.
const READ_BYTES: usize = 256 * 1024;
/// Bytes of the records that stand before an entry: two paths, and what else a program notes about a file.
const RECORDS_BYTES_MAX: u64 = 64 * 1024;
/// Bytes of zeros after the end of an archive: what tapes were filled with.
const AFTER_END_BYTES_MAX: u64 = 1024 * 1024;

/// Why reading stopped.
#[derive(Debug)]
pub(crate) enum ReadError {
    Io(io::Error),
    Malformed(&'static str),
    Refused(EntryName, &'static str),
}

impl From<io::Error> for ReadError {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

/// What an entry is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    File,
    Folder,
    Link,
}

/// An entry as the archive says it.
#[derive(Debug)]
pub(crate) struct Head {
    pub(crate) kind: Kind,
    pub(crate) path: Vec<u8>,
    pub(crate) link: Vec<u8>,
    pub(crate) mode: u32,
    pub(crate) mtime: u64,
    pub(crate) size: u64,
}

/// What records before an entry say of it.
#[derive(Debug, Default)]
struct Records {
    path: Option<Vec<u8>>,
    link: Option<Vec<u8>>,
    size: Option<u64>,
    mtime: Option<u64>,
}

/// An archive that is read from its beginning to its end.
pub(crate) struct Reader<R> {
    input: R,
    buffer: Box<[u8]>,
    start: usize,
    end: usize,
    /// Bytes of the entry that were not read yet, and those that fill its last block.
    left: u64,
    padding: u64,
}

impl<R: Read> Reader<R> {
    pub(crate) fn new(input: R) -> Self {
        Self { input, buffer: vec![0; READ_BYTES].into(), start: 0, end: 0, left: 0, padding: 0 }
    }

    /// The next entry; `None` after the last one. What was not read of the one before is passed over.
    pub(crate) fn next(&mut self) -> Result<Option<Head>, ReadError> {
        let mut records = Records::default();
        loop {
            self.skip_rest()?;
            let header = self.block()?;
            if header.iter().all(|byte| *byte == 0) {
                self.nothing_follows()?;
                return Ok(None);
            }
            if octal(&header[field::CHECKSUM])? != checksum(&header) {
                return Err(ReadError::Malformed("the checksum of a header is wrong"));
            }
            let size = number(&header[field::SIZE])?;
            match header[field::KIND] {
                b'L' => records.path = Some(self.long_name(size)?),
                b'K' => records.link = Some(self.long_name(size)?),
                b'x' => self.records(size, &mut records)?,
                b'g' => {
                    let mut of_all = Records::default();
                    self.records(size, &mut of_all)?;
                    if of_all.path.is_some() || of_all.link.is_some() || of_all.size.is_some() {
                        return Err(ReadError::Malformed("a global header names files"));
                    }
                }
                kind => return self.head(&header, kind, records, size).map(Some),
            }
        }
    }

    fn head(&mut self, header: &[u8; BLOCK], kind: u8, records: Records, size: u64) -> Result<Head, ReadError> {
        let path = records.path.unwrap_or_else(|| path(header));
        let refused = |what| ReadError::Refused(EntryName::new(&path), what);
        let kind = match kind {
            b'0' | 0 | b'7' if path.ends_with(b"/") => Kind::Folder,
            b'0' | 0 | b'7' => Kind::File,
            b'1' => return Err(refused("is a hard link")),
            b'2' => Kind::Link,
            b'3' | b'4' => return Err(refused("is a device")),
            b'5' => Kind::Folder,
            b'6' => return Err(refused("is a pipe")),
            b'S' => return Err(refused("is a file with holes, which is not read")),
            _ => return Err(refused("is neither a file, a folder, nor a symbolic link")),
        };
        let size = records.size.unwrap_or(size);
        if kind != Kind::File && size != 0 {
            return Err(refused("has content although it is no file"));
        }
        self.expect(size)?;
        let mode = u32::try_from(number(&header[field::MODE])? & 0o777).expect("nine bits");
        let mtime = match records.mtime {
            Some(mtime) => mtime,
            // A time before 1970 is written in another way, and is none here.
            None => number(&header[field::MTIME]).unwrap_or(0),
        };
        Ok(Head { kind, link: records.link.unwrap_or_else(|| until_zero(&header[field::LINK]).to_vec()), path, mode, mtime, size })
    }

    /// More of the entry's content; empty at its end.
    pub(crate) fn content(&mut self) -> Result<&[u8], ReadError> {
        if self.left == 0 {
            return Ok(&[]);
        }
        let available = self.fill()?;
        let length = available.min(usize::try_from(self.left).unwrap_or(usize::MAX));
        self.left -= length as u64;
        let start = self.start;
        self.start += length;
        Ok(&self.buffer[start..start + length])
    }

    /// Bytes that are there, at least one.
    fn fill(&mut self) -> Result<usize, ReadError> {
        if self.fill_or_end()? == 0 {
            return Err(ReadError::Malformed("it ends early"));
        }
        Ok(self.end - self.start)
    }

    fn fill_or_end(&mut self) -> Result<usize, ReadError> {
        while self.start == self.end {
            match self.input.read(&mut self.buffer) {
                Ok(0) => return Ok(0),
                Ok(length) => (self.start, self.end) = (0, length),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(self.end - self.start)
    }

    fn expect(&mut self, size: u64) -> Result<(), ReadError> {
        let whole = size.checked_next_multiple_of(BLOCK as u64).ok_or(ReadError::Malformed("a size is no size"))?;
        (self.left, self.padding) = (size, whole - size);
        Ok(())
    }

    fn skip_rest(&mut self) -> Result<(), ReadError> {
        self.left += std::mem::take(&mut self.padding);
        while self.left > 0 {
            self.content()?;
        }
        Ok(())
    }

    fn block(&mut self) -> Result<[u8; BLOCK], ReadError> {
        let mut block = [0; BLOCK];
        let mut length = 0;
        while length < BLOCK {
            let some = self.fill()?.min(BLOCK - length);
            block[length..length + some].copy_from_slice(&self.buffer[self.start..self.start + some]);
            self.start += some;
            length += some;
        }
        Ok(block)
    }

    /// A small content as a whole.
    fn whole(&mut self, size: u64) -> Result<Vec<u8>, ReadError> {
        if size > RECORDS_BYTES_MAX {
            return Err(ReadError::Malformed("what is noted about an entry is too long"));
        }
        self.expect(size)?;
        let mut bytes = Vec::new();
        while self.left > 0 {
            bytes.extend_from_slice(self.content()?);
        }
        self.skip_rest()?;
        Ok(bytes)
    }

    fn long_name(&mut self, size: u64) -> Result<Vec<u8>, ReadError> {
        let name = until_zero(&self.whole(size)?).to_vec();
        if name.len() > PATH_BYTES_MAX { Err(ReadError::Malformed("a name is too long")) } else { Ok(name) }
    }

    /// Records of pax (POSIX.1-2001): `<length> <key>=<value>\n`.
    fn records(&mut self, size: u64, records: &mut Records) -> Result<(), ReadError> {
        let malformed = || ReadError::Malformed("a record is malformed");
        let bytes = self.whole(size)?;
        let mut rest = bytes.as_slice();
        while !rest.is_empty() {
            let blank = rest.iter().position(|byte| *byte == b' ').ok_or_else(malformed)?;
            let length: usize = std::str::from_utf8(&rest[..blank]).ok().and_then(|text| text.parse().ok()).ok_or_else(malformed)?;
            let (record, after) = rest.split_at_checked(length).ok_or_else(malformed)?;
            let record = record.get(blank + 1..).and_then(|record| record.strip_suffix(b"\n")).ok_or_else(malformed)?;
            let equals = record.iter().position(|byte| *byte == b'=').ok_or_else(malformed)?;
            let (key, value) = (&record[..equals], &record[equals + 1..]);
            let decimal = || std::str::from_utf8(value).ok().and_then(|text| text.split('.').next()?.parse::<u64>().ok());
            match key {
                b"path" => records.path = Some(value.to_vec()),
                b"linkpath" => records.link = Some(value.to_vec()),
                b"size" => records.size = Some(decimal().ok_or_else(malformed)?),
                b"mtime" => records.mtime = decimal(),
                key if key.starts_with(b"GNU.sparse") => return Err(ReadError::Malformed("a file has holes, which is not read")),
                _ => {}
            }
            rest = after;
        }
        Ok(())
    }

    /// After the end there are zeros only: what somebody hides there, others might read.
    fn nothing_follows(&mut self) -> Result<(), ReadError> {
        let mut zeros = 0;
        loop {
            let length = self.fill_or_end()?;
            if length == 0 {
                return Ok(());
            }
            zeros += length as u64;
            if zeros > AFTER_END_BYTES_MAX || self.buffer[self.start..self.end].iter().any(|byte| *byte != 0) {
                return Err(ReadError::Malformed("something follows its end"));
            }
            self.start = self.end;
        }
    }
}

fn path(header: &[u8; BLOCK]) -> Vec<u8> {
    let name = until_zero(&header[field::NAME]);
    let prefix = until_zero(&header[field::PREFIX]);
    if prefix.is_empty() || !header[field::MAGIC].starts_with(b"ustar\0") {
        return name.to_vec();
    }
    [prefix, name].join(&b'/')
}

fn until_zero(field: &[u8]) -> &[u8] {
    field.split(|byte| *byte == 0).next().unwrap_or_default()
}

/// Octal digits, or a binary number after a byte with the highest bit.
fn number(field: &[u8]) -> Result<u64, ReadError> {
    let wrong = ReadError::Malformed("a number of a header is wrong");
    match field {
        [0x80, rest @ ..] => {
            let (high, low) = rest.split_at(rest.len().saturating_sub(8));
            if high.iter().any(|byte| *byte != 0) {
                return Err(wrong);
            }
            Ok(low.iter().fold(0, |number, byte| number << 8 | u64::from(*byte)))
        }
        digits => octal(digits),
    }
}

fn octal(field: &[u8]) -> Result<u64, ReadError> {
    let digits = until_zero(field).trim_ascii();
    digits.iter().try_fold(0_u64, |number, digit| match digit {
        b'0'..=b'7' => Ok(number << 3 | u64::from(digit - b'0')),
        _ => Err(ReadError::Malformed("a number of a header is wrong")),
    })
}
