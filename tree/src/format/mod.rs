//! The tar format, as far as trees need it: ustar, GNU's long names, and the records of pax.

pub(crate) mod read;
pub(crate) mod write;

/// Everything in an archive comes in blocks of this many bytes.
pub(crate) const BLOCK: usize = 512;
/// What the header of a long name has as its own name.
pub(crate) const LONG_LINK: &[u8] = b"././@LongLink";

/// Where the fields of a header are: first byte and the one after the last.
pub(crate) mod field {
    use std::ops::Range;

    pub(crate) const NAME: Range<usize> = 0..100;
    pub(crate) const MODE: Range<usize> = 100..108;
    pub(crate) const UID: Range<usize> = 108..116;
    pub(crate) const GID: Range<usize> = 116..124;
    pub(crate) const SIZE: Range<usize> = 124..136;
    pub(crate) const MTIME: Range<usize> = 136..148;
    pub(crate) const CHECKSUM: Range<usize> = 148..156;
    pub(crate) const KIND: usize = 156;
    pub(crate) const LINK: Range<usize> = 157..257;
    pub(crate) const MAGIC: Range<usize> = 257..265;
    pub(crate) const PREFIX: Range<usize> = 345..500;
}

/// The sum of a header's bytes, its own field counted as blanks.
pub(crate) fn checksum(header: &[u8; BLOCK]) -> u64 {
    let own = field::CHECKSUM;
    header.iter().enumerate().map(|(at, byte)| u64::from(if own.contains(&at) { b' ' } else { *byte })).sum()
}
