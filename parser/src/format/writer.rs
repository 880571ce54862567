//! The text that is being written: its indentation, its column, and attempts to write something on one line.

/// Columns of a line, where it can be broken.
pub(super) const COLUMNS_MAX: usize = 100;
/// Blanks of one level of indentation.
const INDENTATION: usize = 2;

/// The text so far.
#[derive(Debug, Default)]
pub(super) struct Writer {
    text: String,
    /// Characters of the last line.
    column: usize,
    /// Levels of indentation of the next line.
    level: usize,
    /// Within an attempt to write on one line.
    attempt: Option<Attempt>,
}

#[derive(Debug, Clone, Copy)]
struct Attempt {
    /// The column that must not be passed.
    limit: usize,
    failed: bool,
}

impl Writer {
    /// What is written.
    pub(super) fn finish(self) -> String {
        self.text
    }

    /// Where the next byte will stand.
    pub(super) fn place(&self) -> usize {
        self.text.len()
    }

    /// Writes a piece. In an attempt, one that is too long or has a line break makes it fail.
    pub(super) fn push(&mut self, piece: &str) {
        let last = piece.rfind('\n').map(|end| end + 1);
        if let Some(attempt) = &mut self.attempt {
            // Four bytes are the longest character: what has more bytes than that is too long without counting.
            let too_long = piece.len() > 4 * COLUMNS_MAX || self.column + piece.chars().count() > attempt.limit;
            attempt.failed = attempt.failed || last.is_some() || too_long;
            if attempt.failed {
                return;
            }
        }
        let ending = last.map_or(piece, |start| piece.get(start..).unwrap_or_default());
        self.column = if last.is_some() { 0 } else { self.column } + ending.chars().count();
        self.text.push_str(piece);
    }

    /// Begins a line with its indentation.
    pub(super) fn line(&mut self) {
        if self.text.is_empty() {
            return;
        }
        self.push("\n");
        self.push(&" ".repeat(INDENTATION * self.level));
    }

    /// Leaves a line blank; what follows begins another one.
    pub(super) fn blank(&mut self) {
        if !self.text.is_empty() {
            self.push("\n");
        }
    }

    /// Goes a level in.
    pub(super) fn indent(&mut self) {
        self.level += 1;
    }

    /// Goes a level out.
    pub(super) fn outdent(&mut self) {
        self.level -= 1;
    }

    /// The blanks that a line of this level begins with, and those of the next level.
    pub(super) fn indentation(&self) -> (String, String) {
        (" ".repeat(INDENTATION * self.level), " ".repeat(INDENTATION * (self.level + 1)))
    }

    /// Whether it is all to stand on this line.
    pub(super) fn is_attempt(&self) -> bool {
        self.attempt.is_some()
    }

    /// Whether an attempt has failed: what is written is thrown away.
    pub(super) fn has_failed(&self) -> bool {
        self.attempt.is_some_and(|attempt| attempt.failed)
    }

    /// Makes the attempt fail.
    pub(super) fn fail(&mut self) {
        if let Some(attempt) = &mut self.attempt {
            attempt.failed = true;
        }
    }

    /// Begins an attempt: from here to its end, everything has to fit on this line with `reserved` characters after it.
    pub(super) fn begin(&mut self, reserved: usize) -> Mark {
        let mark = Mark { length: self.text.len(), column: self.column, level: self.level, attempt: self.attempt };
        let limit = COLUMNS_MAX.saturating_sub(reserved);
        let limit = self.attempt.map_or(limit, |outer| outer.limit.min(limit));
        self.attempt = Some(Attempt { limit, failed: self.has_failed() });
        mark
    }

    /// Ends an attempt. Where it failed, its text is taken back.
    pub(super) fn end(&mut self, mark: Mark) -> bool {
        let failed = self.has_failed();
        self.attempt = mark.attempt;
        if failed {
            self.text.truncate(mark.length);
            self.column = mark.column;
            self.level = mark.level;
        }
        !failed
    }

    /// Puts lines of this level before what was written since `place`, which began a line.
    pub(super) fn insert_lines(&mut self, place: usize, lines: &[String]) {
        let (indentation, _) = self.indentation();
        let mut inserted = String::new();
        for line in lines {
            inserted.push_str(line);
            inserted.push('\n');
            inserted.push_str(&indentation);
        }
        self.text.insert_str(place, &inserted);
    }
}

/// Where an attempt began.
#[derive(Debug, Clone, Copy)]
pub(super) struct Mark {
    length: usize,
    column: usize,
    level: usize,
    attempt: Option<Attempt>,
}
