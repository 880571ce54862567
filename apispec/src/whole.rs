//! Whole numbers inside JSON.

use std::fmt;

use serde::{
    Deserializer,
    de::{Error, Unexpected, Visitor},
};

/// The largest whole number of which a float has every smaller one, too.
const FLOAT_MAX: f64 = 9_007_199_254_740_992.0;

/// Reads a number, or `null`: to JSON, and to its schemas, `920.0` is the whole number 920.
pub(crate) fn optional<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<u64>, D::Error> {
    deserializer.deserialize_any(Whole)
}

struct Whole;

impl Visitor<'_> for Whole {
    type Value = Option<u64>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a whole number from 0")
    }

    fn visit_unit<E: Error>(self) -> Result<Self::Value, E> {
        Ok(None)
    }

    fn visit_u64<E: Error>(self, number: u64) -> Result<Self::Value, E> {
        Ok(Some(number))
    }

    fn visit_f64<E: Error>(self, number: f64) -> Result<Self::Value, E> {
        if number.fract() != 0.0 || !(0.0..=FLOAT_MAX).contains(&number) {
            return Err(E::invalid_value(Unexpected::Float(number), &self));
        }
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "it is whole, and in the range of both")]
        Ok(Some(number as u64))
    }
}

#[cfg(test)]
mod tests {
    fn read(text: &str) -> Result<Option<u64>, ()> {
        super::optional(&mut serde_json::Deserializer::from_str(text)).map_err(drop)
    }

    #[test]
    fn a_whole_number_may_be_written_as_a_float() {
        for (text, number) in [("0", 0), ("920", 920), ("920.0", 920), ("9.2e2", 920), ("18446744073709551615", u64::MAX)] {
            assert_eq!(read(text), Ok(Some(number)), "{text}");
        }
        assert_eq!(read("null"), Ok(None));
        for text in ["-1", "-1.0", "1.5", "1e300", "\"1\"", "true", "[]"] {
            assert_eq!(read(text), Err(()), "{text}");
        }
    }
}
