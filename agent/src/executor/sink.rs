//! Where the output of one step goes: to the attempt's log, and into the variables that capture it.

use encoding_rs::{Decoder, Encoding};
use model::protocol::{log::Stream, step::VARIABLE_BYTES_MAX};
use tokio::sync::mpsc;

use super::output::{Output, OutputError};

/// Standard output on its way into a variable.
#[derive(Debug, Default)]
pub(crate) struct Capture {
    bytes: Vec<u8>,
    is_over: bool,
}

impl Capture {
    fn take(&mut self, bytes: &[u8]) {
        // One line break more than a variable has: it is removed.
        let room = (VARIABLE_BYTES_MAX + 2).saturating_sub(self.bytes.len());
        self.is_over |= bytes.len() > room;
        self.bytes.extend(bytes.iter().take(room));
    }

    /// The text, without its last line break.
    pub(crate) fn text(self) -> Result<String, String> {
        let mut bytes = self.bytes;
        if bytes.last() == Some(&b'\n') {
            bytes.pop();
            if bytes.last() == Some(&b'\r') {
                bytes.pop();
            }
        }
        if self.is_over || bytes.len() > VARIABLE_BYTES_MAX {
            return Err(format!("it said more than the {} KiB that a variable holds", VARIABLE_BYTES_MAX / 1024));
        }
        if bytes.contains(&0) {
            return Err("it said a zero byte, which a variable of an environment cannot hold".to_owned());
        }
        String::from_utf8(bytes).map_err(|_| "it said what is no UTF-8, which a variable cannot hold".to_owned())
    }
}

/// The output of one step.
#[derive(Debug)]
pub(crate) struct StepSink<'a> {
    output: &'a mut Output,
    number: u32,
    /// Of the step and of those that it stands in.
    captures: &'a mut [Capture],
    /// Of standard output and of standard error, where the step says another encoding than UTF-8.
    decoders: Option<[Decoder; 2]>,
    /// What the step says that it is doing.
    notes: Option<mpsc::Receiver<String>>,
}

impl<'a> StepSink<'a> {
    /// Of the step with this number.
    pub(crate) fn new(output: &'a mut Output, number: u32, captures: &'a mut [Capture]) -> Self {
        Self { output, number, captures, decoders: None, notes: None }
    }

    /// The streams are in this encoding; they are kept as UTF-8.
    #[must_use]
    pub(crate) fn decoding(self, encoding: Option<&'static Encoding>) -> Self {
        let decoders = encoding.map(|encoding| [encoding.new_decoder(), encoding.new_decoder()]);
        Self { decoders, ..self }
    }

    /// What comes here is said in lines of Otto's own.
    #[must_use]
    pub(crate) fn noting(self, notes: mpsc::Receiver<String>) -> Self {
        Self { notes: Some(notes), ..self }
    }

    /// Takes what a stream said.
    pub(crate) async fn write(&mut self, stream: Stream, bytes: &[u8]) -> Result<(), OutputError> {
        let decoder = match (&mut self.decoders, stream) {
            (None, _) | (Some(_), Stream::Otto) => None,
            (Some([out, _]), Stream::Out) => Some(out),
            (Some([_, err]), Stream::Err) => Some(err),
        };
        let decoded = decoder.map(|decoder| decode(decoder, bytes, false));
        self.pass(stream, decoded.as_deref().map_or(bytes, str::as_bytes)).await
    }

    /// A line of Otto's own.
    pub(crate) async fn say(&mut self, text: &str) -> Result<(), OutputError> {
        self.output.announce(self.number, text).await
    }

    /// The next note. Never returns where there is none. Cancel safe.
    pub(crate) async fn note(&mut self) -> String {
        if let Some(notes) = &mut self.notes
            && let Some(note) = notes.recv().await
        {
            return note;
        }
        std::future::pending().await
    }

    /// Nothing more comes.
    pub(crate) async fn end(mut self) -> Result<(), OutputError> {
        while let Some(Ok(note)) = self.notes.as_mut().map(mpsc::Receiver::try_recv) {
            self.say(&note).await?;
        }
        if let Some([mut out, mut err]) = self.decoders.take() {
            self.pass(Stream::Out, decode(&mut out, &[], true).as_bytes()).await?;
            self.pass(Stream::Err, decode(&mut err, &[], true).as_bytes()).await?;
        }
        Ok(())
    }

    async fn pass(&mut self, stream: Stream, bytes: &[u8]) -> Result<(), OutputError> {
        if stream == Stream::Out {
            for capture in &mut *self.captures {
                capture.take(bytes);
            }
        }
        self.output.write(self.number, stream, bytes).await
    }
}

fn decode(decoder: &mut Decoder, bytes: &[u8], last: bool) -> String {
    let length = decoder.max_utf8_buffer_length(bytes.len()).expect("what was read at once is far from the end of memory");
    let mut text = String::with_capacity(length);
    let (_, read, _) = decoder.decode_to_string(bytes, &mut text, last);
    debug_assert_eq!(read, bytes.len(), "the buffer was as large as it can need to be");
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn captured(parts: &[&[u8]]) -> Result<String, String> {
        let mut capture = Capture::default();
        for part in parts {
            capture.take(part);
        }
        capture.text()
    }

    #[test]
    fn a_variable_is_the_output_without_its_last_line_break() {
        assert_eq!(captured(&[b"a", b"b\n"]), Ok("ab".to_owned()));
        assert_eq!(captured(&[b"a\n\n"]), Ok("a\n".to_owned()));
        assert_eq!(captured(&[b"a\r\n"]), Ok("a".to_owned()));
        assert_eq!(captured(&[]), Ok(String::new()));
        let longest = [vec![b'x'; VARIABLE_BYTES_MAX], b"\n".to_vec()].concat();
        assert_eq!(captured(&[&longest]).unwrap().len(), VARIABLE_BYTES_MAX);
    }

    #[test]
    fn what_no_variable_holds_is_refused() {
        assert!(captured(&[&vec![b'x'; VARIABLE_BYTES_MAX + 1]]).unwrap_err().contains("64 KiB"));
        assert!(captured(&[&vec![b'x'; VARIABLE_BYTES_MAX], &[b'x'; 100]]).unwrap_err().contains("64 KiB"));
        assert!(captured(&[b"\xff"]).unwrap_err().contains("no UTF-8"));
        assert!(captured(&[b"a\0b"]).unwrap_err().contains("zero byte"));
    }

    #[test]
    fn a_character_may_come_in_two_parts() {
        let mut decoder = encoding_rs::SHIFT_JIS.new_decoder();
        let text = [decode(&mut decoder, b"\x83", false), decode(&mut decoder, b"\x65", false), decode(&mut decoder, b"", true)];
        assert_eq!(text.concat(), "テ");
    }
}
