//! Lines of `cron`: five fields as in crontab(5), in UTC.

use std::ops::RangeInclusive;

const MONTHS: [&str; 12] = ["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"];
const WEEKDAYS: [&str; 7] = ["sun", "mon", "tue", "wed", "thu", "fri", "sat"];
/// Days of each month, in the longest year.
const DAYS: [u32; 12] = [31, 29, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31];

/// A field: its name, its range, and names for its values from the first.
struct Field {
    name: &'static str,
    range: RangeInclusive<u32>,
    names: &'static [&'static str],
}

const FIELDS: [Field; 5] = [
    Field { name: "minute", range: 0..=59, names: &[] },
    Field { name: "hour", range: 0..=23, names: &[] },
    Field { name: "day", range: 1..=31, names: &[] },
    Field { name: "month", range: 1..=12, names: &MONTHS },
    Field { name: "day of the week", range: 0..=7, names: &WEEKDAYS },
];

/// What is wrong with a line whose fields are separated by single blanks.
pub(super) fn check(line: &str) -> Result<(), String> {
    if line.starts_with('@') {
        return Err("it has no fields".to_owned());
    }
    let written: Vec<&str> = line.split(' ').filter(|field| !field.is_empty()).collect();
    let [_, _, day, month, weekday] = written.as_slice() else {
        return Err(format!("it has {} fields", written.len()));
    };
    for (field, text) in FIELDS.iter().zip(&written) {
        field.values(text)?;
    }
    // A day of the month that its months do not have; with a day of the week, either is enough.
    let (days, months) = (FIELDS[2].values(day)?, FIELDS[3].values(month)?);
    let longest = months.iter().filter_map(|month| DAYS.get(*month as usize - 1)).max();
    if *weekday == "*" && days.iter().min() > longest {
        return Err("the day never comes".to_owned());
    }
    Ok(())
}

impl Field {
    /// The values that a text stands for.
    fn values(&self, text: &str) -> Result<Vec<u32>, String> {
        let mut values = Vec::new();
        for part in text.split(',') {
            let (range, step) = part.split_once('/').map_or((part, None), |(range, step)| (range, Some(step)));
            let (first, last) = match range.split_once('-') {
                _ if range == "*" => (*self.range.start(), *self.range.end()),
                Some((first, last)) => (self.value(first)?, self.value(last)?),
                None if step.is_some() => (self.value(range)?, *self.range.end()),
                None => (self.value(range)?, self.value(range)?),
            };
            if first > last {
                return Err(format!("the {} `{range}` runs backwards", self.name));
            }
            let step = match step {
                None => 1,
                Some(step) => step
                    .parse()
                    .ok()
                    .filter(|step| (1..=*self.range.end()).contains(step))
                    .ok_or_else(|| format!("`/{step}` is no step of the {}", self.name))?,
            };
            values.extend((first..=last).step_by(step as usize));
        }
        Ok(values)
    }

    fn value(&self, text: &str) -> Result<u32, String> {
        let named = self.names.iter().position(|name| name.eq_ignore_ascii_case(text));
        if let Some(place) = named.and_then(|place| u32::try_from(place).ok()) {
            return Ok(self.range.start() + place);
        }
        let digits = !text.is_empty() && text.len() <= 2 && text.bytes().all(|byte| byte.is_ascii_digit());
        let number = if digits { text.parse().ok() } else { None };
        number
            .filter(|number| self.range.contains(number))
            .ok_or_else(|| format!("the {} `{text}` is not from {} to {}", self.name, self.range.start(), self.range.end()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_as_in_crontab() {
        for line in [
            "0 3 * * *",
            "*/5 * * * *",
            "0 0,12 1 */2 *",
            "15-45/10 9-17 * jan-mar mon-fri",
            "0 0 29 2 *",
            "0 0 31 2 7",
            "59 23 31 12 0",
            "5/10 * * * SUN",
        ] {
            assert_eq!(check(line), Ok(()), "{line}");
        }
    }

    #[test]
    fn what_is_no_time_is_refused() {
        for line in [
            "",
            "* * * *",
            "* * * * * *",
            "60 * * * *",
            "* 24 * * *",
            "* * 0 * *",
            "* * 32 * *",
            "* * * 13 *",
            "* * * * 8",
            "*/0 * * * *",
            "*/x * * * *",
            "5-1 * * * *",
            "a * * * *",
            "1, * * * *",
            "+1 * * * *",
            "0 0 31 2 *",
            "0 0 31 4,6 *",
            "@daily",
        ] {
            assert!(check(line).is_err(), "{line}");
        }
    }
}
