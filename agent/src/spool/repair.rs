//! Makes output and index agree again after a kill between the two.

use std::{
    fs::OpenOptions,
    io::{self, BufRead as _, BufReader, Seek as _, SeekFrom, Write as _},
    path::Path,
};

use model::{
    Timestamp,
    protocol::log::{LogMark, Stream},
};

/// Bytes that no mark names get one of their own; a torn mark, and marks without bytes, are cut off.
pub(super) fn repair(output: &Path, index: &Path) -> io::Result<()> {
    let mut reader = BufReader::new(OpenOptions::new().read(true).write(true).create(true).truncate(false).open(index)?);
    let length = OpenOptions::new().write(true).create(true).truncate(false).open(output)?.metadata()?.len();
    let mut last = LogMark { offset: 0, length: 0, step: 0, stream: Stream::Out, at: Timestamp(0) };
    let mut good = 0;
    let mut line = Vec::new();
    while reader.read_until(b'\n', &mut line)? > 0 {
        let Some(mark) = complete(&line).filter(|mark| mark.offset == end(&last) && end(mark) <= length) else { break };
        last = mark;
        good += line.len() as u64;
        line.clear();
    }
    let mut index = reader.into_inner();
    index.set_len(good)?;
    let rest = length - end(&last);
    if rest > 0 {
        let rest = u32::try_from(rest).map_err(io::Error::other)?;
        let mark = LogMark { offset: end(&last), length: rest, ..last };
        let mut line = serde_json::to_vec(&mark).map_err(io::Error::other)?;
        line.push(b'\n');
        index.seek(SeekFrom::End(0))?;
        index.write_all(&line)?;
    }
    Ok(())
}

fn complete(line: &[u8]) -> Option<LogMark> {
    serde_json::from_slice(line.strip_suffix(b"\n")?).ok()
}

fn end(mark: &LogMark) -> u64 {
    mark.offset + u64::from(mark.length)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn repaired(output: &str, index: &str) -> String {
        let folder = tempfile::tempdir().unwrap();
        let (out, idx) = (folder.path().join("output"), folder.path().join("index"));
        fs::write(&out, output).unwrap();
        fs::write(&idx, index).unwrap();
        repair(&out, &idx).unwrap();
        fs::read_to_string(&idx).unwrap()
    }

    fn mark(offset: u64, length: u32) -> String {
        format!("{{\"offset\":{offset},\"length\":{length},\"step\":1,\"stream\":\"err\",\"at\":5}}\n")
    }

    #[test]
    fn every_byte_has_a_mark_and_every_mark_its_bytes() {
        let whole = mark(0, 3) + &mark(3, 2);
        assert_eq!(repaired("abcde", &whole), whole);
        assert_eq!(repaired("abcde", &mark(0, 3)), whole, "a mark was not written");
        assert_eq!(repaired("abcde", &(mark(0, 3) + "{\"offset\":3,\"len")), whole, "a mark was torn");
        assert_eq!(repaired("abcde", &whole.replace("\"at\":5}\n{", "\"at\":5}\nx{")), whole, "a mark was damaged");
        assert_eq!(repaired("abc", &whole), mark(0, 3), "bytes were lost");
        assert_eq!(repaired("", ""), "");
    }
}
