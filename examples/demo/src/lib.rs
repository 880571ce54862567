//! Roman numerals from 1 to 3999.

/// The largest number that Roman numerals write without further signs.
pub const MAX: u16 = 3999;

/// What each sign, or pair of signs, stands for, the largest first.
const SIGNS: [(u16, &str); 13] = [
    (1000, "M"),
    (900, "CM"),
    (500, "D"),
    (400, "CD"),
    (100, "C"),
    (90, "XC"),
    (50, "L"),
    (40, "XL"),
    (10, "X"),
    (9, "IX"),
    (5, "V"),
    (4, "IV"),
    (1, "I"),
];

/// Writes a number; `None` for 0 and for what is over [`MAX`].
///
/// ```
/// assert_eq!(roman::write(14).as_deref(), Some("XIV"));
/// ```
pub fn write(number: u16) -> Option<String> {
    if number == 0 || number > MAX {
        return None;
    }
    let mut rest = number;
    let mut text = String::new();
    for (value, sign) in SIGNS {
        while rest >= value {
            text.push_str(sign);
            rest -= value;
        }
    }
    Some(text)
}

/// Reads a number; `None` for what is not written the way [`write()`] writes it.
pub fn read(text: &str) -> Option<u16> {
    let mut rest = text;
    let mut number: u16 = 0;
    for (value, sign) in SIGNS {
        while let Some(shorter) = rest.strip_prefix(sign) {
            number = number.checked_add(value)?;
            rest = shorter;
        }
    }
    let read = rest.is_empty() && write(number).as_deref() == Some(text);
    read.then_some(number)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_years_are_written_as_everybody_writes_them() {
        for (number, text) in [(1, "I"), (4, "IV"), (1969, "MCMLXIX"), (2026, "MMXXVI"), (MAX, "MMMCMXCIX")] {
            assert_eq!(write(number).as_deref(), Some(text));
        }
        assert_eq!((write(0), write(MAX + 1)), (None, None));
    }

    #[test]
    fn every_number_reads_back() {
        for number in 1..=MAX {
            assert_eq!(read(&write(number).unwrap()), Some(number));
        }
    }

    #[test]
    fn what_is_no_numeral_is_refused() {
        for text in ["", "IIII", "IM", "VX", "MMMM", "X I", "x"] {
            assert_eq!(read(text), None, "{text}");
        }
    }
}
