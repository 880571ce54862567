//! How large something is once it is written.

use std::io;

use serde::Serialize;

/// How many bytes a value has as JSON.
pub(super) fn written(value: &impl Serialize) -> usize {
    struct Count(usize);
    impl io::Write for Count {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0 += bytes.len();
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    let mut count = Count(0);
    serde_json::to_writer(&mut count, value).expect("what is written here has text keys only, and counting does not fail");
    count.0
}
