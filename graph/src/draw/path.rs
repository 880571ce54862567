//! A part of a line between two columns, or from the end of a row to the beginning of the next.

use super::push;

/// Radius of the corners of a line that goes on in the next row.
const CORNER: i64 = 6;

/// A part of a line.
#[derive(Debug, Clone, Copy)]
pub(super) enum Path {
    /// Level to `bend`, then a curve to (`x2 - …`): from the right side of one thing to the left side of another.
    Curve {
        start: (i64, i64),
        /// Where the column ends in which it begins, and where the one begins in which it ends.
        bend: (i64, i64),
        end: (i64, i64),
    },
    /// To the right of a row, below it, to the left of the next one, and there to its end.
    Turn {
        start: (i64, i64),
        /// Right of the row, below it, left of the next one.
        corners: (i64, i64, i64),
        end: (i64, i64),
    },
}

impl Path {
    /// The same, further right and down.
    pub(super) fn moved(self, right: i64, down: i64) -> Self {
        let moved = |(x, y): (i64, i64)| (x + right, y + down);
        match self {
            Self::Curve { start, bend: (left, stop), end } => {
                Self::Curve { start: moved(start), bend: (left + right, stop + right), end: moved(end) }
            }
            Self::Turn { start, corners: (x1, y, x2), end } => {
                Self::Turn { start: moved(start), corners: (x1 + right, y + down, x2 + right), end: moved(end) }
            }
        }
    }

    /// In SVG's language of paths.
    pub(super) fn write(&self, data: &mut String) {
        match *self {
            Self::Curve { start: (x1, y1), bend: (left, right), end: (x2, y2) } => {
                let middle = i64::midpoint(left, right);
                push(data, format_args!("M{x1} {y1}"));
                if y1 == y2 {
                    push(data, format_args!("H{x2}"));
                } else {
                    push(data, format_args!("H{left}C{middle} {y1} {middle} {y2} {right} {y2}H{x2}"));
                }
            }
            Self::Turn { start: (x1, y1), corners: (out, below, back), end: (x2, y2) } => {
                push(data, format_args!("M{x1} {y1}H{}q{CORNER} 0 {CORNER} {CORNER}", out - CORNER));
                push(data, format_args!("V{}q0 {CORNER} -{CORNER} {CORNER}", below - CORNER));
                push(data, format_args!("H{}q-{CORNER} 0 -{CORNER} {CORNER}", back + CORNER));
                push(data, format_args!("V{}q0 {CORNER} {CORNER} {CORNER}H{x2}", y2 - CORNER));
            }
        }
    }
}
