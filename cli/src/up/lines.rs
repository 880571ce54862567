//! What a process prints, line by line.

use tokio::io::{AsyncBufReadExt as _, AsyncRead, BufReader};

/// The most bytes of one line; a longer one is cut into several.
const LINE_BYTES_MAX: usize = 16 * 1024;

/// Reads lines, never more than a bounded one at a time.
#[derive(Debug)]
pub(super) struct Lines<R> {
    reader: BufReader<R>,
    begun: Vec<u8>,
}

impl<R: AsyncRead + Unpin> Lines<R> {
    pub(super) fn new(reader: R) -> Self {
        Self { reader: BufReader::new(reader), begun: Vec::new() }
    }

    /// The next line without its end; `None` at the end, or where reading fails. Cancel safe.
    pub(super) async fn next(&mut self) -> Option<String> {
        loop {
            let bytes = self.reader.fill_buf().await.unwrap_or_default();
            if bytes.is_empty() {
                return if self.begun.is_empty() { None } else { Some(self.take()) };
            }
            let room = LINE_BYTES_MAX - self.begun.len();
            let end = bytes.iter().take(room).position(|&byte| byte == b'\n');
            let line = &bytes[..end.unwrap_or(bytes.len().min(room))];
            self.begun.extend_from_slice(line);
            let consumed = line.len() + usize::from(end.is_some());
            self.reader.consume(consumed);
            if end.is_some() || self.begun.len() == LINE_BYTES_MAX {
                return Some(self.take());
            }
        }
    }

    fn take(&mut self) -> String {
        let bytes = std::mem::take(&mut self.begun);
        String::from_utf8_lossy(&bytes).trim_end_matches('\r').to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn lines(text: &[u8]) -> Vec<String> {
        let mut lines = Lines::new(text);
        let mut found = Vec::new();
        while let Some(line) = lines.next().await {
            found.push(line);
        }
        found
    }

    #[tokio::test]
    async fn lines_are_read_as_they_are_and_long_ones_in_pieces() {
        assert_eq!(lines(b"a\r\n\nb\xff\nc").await, ["a", "", "b\u{fffd}", "c"]);
        let long = lines(&vec![b'x'; LINE_BYTES_MAX + 3]).await;
        assert_eq!(long.iter().map(String::len).collect::<Vec<_>>(), [LINE_BYTES_MAX, 3]);
        assert!(lines(b"").await.is_empty());
    }
}
