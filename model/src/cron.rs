//! Lines of `cron`: five fields as in crontab(5), in UTC, and the minutes in which they are due.

use std::{ops::RangeInclusive, str::FromStr};

const MONTHS: [&str; 12] = ["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"];
const WEEKDAYS: [&str; 7] = ["sun", "mon", "tue", "wed", "thu", "fri", "sat"];
/// Days of each month, in the longest year.
const DAYS: [u32; 12] = [31, 29, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31];
/// Minutes of a day; in UTC all days have as many.
const DAY_MINUTES: u64 = 24 * 60;
/// How many days back is looked for a line that was due: more than the eight years that can lie between two 29ths of February.
const DAYS_BACK_MAX: u64 = 9 * 366;

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

/// The values of a field, one bit each; none is over 59.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Values(u64);

impl Values {
    fn has(self, value: u64) -> bool {
        value < 64 && self.0 >> value & 1 == 1
    }

    fn last_up_to(self, value: u64) -> Option<u64> {
        (0..=value).rev().find(|value| self.has(*value))
    }
}

/// When a line is due.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Schedule {
    minutes: Values,
    hours: Values,
    days: Values,
    months: Values,
    weekdays: Values,
    /// Whether a day needs to be one of the month's or one of the week's, and not both: as in crontab(5), if neither field begins with `*`.
    either_day: bool,
}

/// Why a text is no line of `cron`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct InvalidSchedule(String);

impl FromStr for Schedule {
    type Err = InvalidSchedule;

    /// Reads a line whose fields are separated by single blanks.
    fn from_str(line: &str) -> Result<Self, Self::Err> {
        if line.starts_with('@') {
            return Err(InvalidSchedule("it has no fields".to_owned()));
        }
        let written: Vec<&str> = line.split(' ').filter(|field| !field.is_empty()).collect();
        let [_, _, day, _, weekday] = written.as_slice() else {
            return Err(InvalidSchedule(format!("it has {} fields", written.len())));
        };
        let mut values = [Values(0); FIELDS.len()];
        for ((field, text), values) in FIELDS.iter().zip(&written).zip(&mut values) {
            *values = field.values(text)?;
        }
        let [minutes, hours, days, months, mut weekdays] = values;
        if weekdays.has(7) {
            weekdays.0 |= 1;
        }
        let either_day = !day.starts_with('*') && !weekday.starts_with('*');
        // A day of the month that its months do not have; with a day of the week, either is enough.
        let longest = (1..=12).zip(DAYS).filter(|(month, _)| months.has(*month)).map(|(_, days)| u64::from(days)).max();
        let first = (1..=31).find(|day| days.has(*day));
        if !either_day && first > longest {
            return Err(InvalidSchedule("the day never comes".to_owned()));
        }
        Ok(Self { minutes, hours, days, months, weekdays, either_day })
    }
}

impl Schedule {
    /// The last minute after `after` and up to `until` in which it is due. Minutes are counted from 1970-01-01T00:00Z.
    pub fn last_due(&self, after: u64, until: u64) -> Option<u64> {
        let (today, first) = (until / DAY_MINUTES, (after / DAY_MINUTES).max((until / DAY_MINUTES).saturating_sub(DAYS_BACK_MAX)));
        let last_of = |day: u64| {
            let last = if day == today { until % DAY_MINUTES } else { DAY_MINUTES - 1 };
            Some(day * DAY_MINUTES + self.last_of_day(last)?)
        };
        (first..=today).rev().filter(|day| self.has_day(*day)).find_map(last_of).filter(|due| *due > after)
    }

    /// The last minute of a day that is due, up to this one.
    fn last_of_day(&self, last: u64) -> Option<u64> {
        let (hour, minute) = (last / 60, last % 60);
        if let Some(minute) = self.minutes.last_up_to(minute).filter(|_| self.hours.has(hour)) {
            return Some(hour * 60 + minute);
        }
        Some(self.hours.last_up_to(hour.checked_sub(1)?)? * 60 + self.minutes.last_up_to(59)?)
    }

    fn has_day(&self, day: u64) -> bool {
        let (month, of_month) = civil(day);
        // 1970-01-01 was a Thursday.
        let (of_month, of_week) = (self.days.has(of_month), self.weekdays.has((day + 4) % 7));
        self.months.has(month) && if self.either_day { of_month || of_week } else { of_month && of_week }
    }
}

/// Month and day of a day that is counted from 1970-01-01, in the Gregorian calendar: H. Hinnant, `civil_from_days`.
fn civil(day: u64) -> (u64, u64) {
    // Days from 0000-03-01, of the 400 years that always have as many, of the year that begins in March.
    let of_era = (day + 719_468) % 146_097;
    let year = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year + year / 4 - year / 100);
    let month = (5 * of_year + 2) / 153;
    let of_month = of_year - (153 * month + 2) / 5 + 1;
    (if month < 10 { month + 3 } else { month - 9 }, of_month)
}

impl Field {
    /// The values that a text stands for.
    fn values(&self, text: &str) -> Result<Values, InvalidSchedule> {
        let mut values = Values(0);
        for part in text.split(',') {
            let (range, step) = part.split_once('/').map_or((part, None), |(range, step)| (range, Some(step)));
            let (first, last) = match range.split_once('-') {
                _ if range == "*" => (*self.range.start(), *self.range.end()),
                Some((first, last)) => (self.value(first)?, self.value(last)?),
                None if step.is_some() => (self.value(range)?, *self.range.end()),
                None => (self.value(range)?, self.value(range)?),
            };
            if first > last {
                return Err(InvalidSchedule(format!("the {} `{range}` runs backwards", self.name)));
            }
            let step = match step {
                None => 1,
                Some(step) => step
                    .parse()
                    .ok()
                    .filter(|step| (1..=*self.range.end()).contains(step))
                    .ok_or_else(|| InvalidSchedule(format!("`/{step}` is no step of the {}", self.name)))?,
            };
            values.0 |= (first..=last).step_by(step as usize).map(|value| 1 << value).sum::<u64>();
        }
        Ok(values)
    }

    fn value(&self, text: &str) -> Result<u32, InvalidSchedule> {
        let named = self.names.iter().position(|name| name.eq_ignore_ascii_case(text));
        if let Some(place) = named.and_then(|place| u32::try_from(place).ok()) {
            return Ok(self.range.start() + place);
        }
        let digits = !text.is_empty() && text.len() <= 2 && text.bytes().all(|byte| byte.is_ascii_digit());
        let number = if digits { text.parse().ok() } else { None };
        number.filter(|number| self.range.contains(number)).ok_or_else(|| {
            InvalidSchedule(format!("the {} `{text}` is not from {} to {}", self.name, self.range.start(), self.range.end()))
        })
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
            assert!(line.parse::<Schedule>().is_ok(), "{line}");
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
            "0 0 31 2 */2",
            "0 0 31 4,6 *",
            "@daily",
        ] {
            assert!(line.parse::<Schedule>().is_err(), "{line}");
        }
    }

    /// Minutes from 1970 to a time of a day that `date -u -d … +%s` has told.
    fn at(day: u64, hour: u64, minute: u64) -> u64 {
        day * DAY_MINUTES + hour * 60 + minute
    }

    /// 2026-11-21, a Saturday.
    const SATURDAY: u64 = 1_795_219_200 / 86_400;

    #[test]
    fn the_last_minute_that_was_due_is_found() {
        let now = at(SATURDAY, 19, 26);
        for (line, expected) in [
            ("* * * * *", now),
            ("26 19 * * *", now),
            ("27 19 * * *", at(SATURDAY - 1, 19, 27)),
            ("0 3 * * *", at(SATURDAY, 3, 0)),
            ("*/15 9-17 * * *", at(SATURDAY, 17, 45)),
            ("59 19 * * *", at(SATURDAY - 1, 19, 59)),
            ("30 * * * *", at(SATURDAY, 18, 30)),
            ("0 0 * * sun", at(SATURDAY - 6, 0, 0)),
            ("0 0 * * 7", at(SATURDAY - 6, 0, 0)),
            ("0 0 1 * *", at(SATURDAY - 20, 0, 0)),
            // Either day: the 1st, or a Friday.
            ("0 0 1 * fri", at(SATURDAY - 1, 0, 0)),
            // Both, as one begins with a star: the last Friday with an odd number.
            ("0 0 */2 * fri", at(SATURDAY - 8, 0, 0)),
            ("0 12 31 12 *", at(SATURDAY - 325, 12, 0)),
            // 2024-02-29.
            ("0 0 29 2 *", at(19_782, 0, 0)),
        ] {
            let schedule: Schedule = line.parse().unwrap();
            assert_eq!(schedule.last_due(0, now), Some(expected), "{line}");
            assert_eq!(schedule.last_due(expected - 1, now), Some(expected), "{line}");
            assert_eq!(schedule.last_due(expected, now), None, "{line}: what was due is not due again");
        }
    }

    #[test]
    fn a_line_is_due_in_every_minute_of_its_own_and_in_no_other() {
        // Every minute of two weeks around the end of a leap February, against the fields one by one.
        let schedule: Schedule = "*/7 1,13 28-31,1 feb,mar *".parse().unwrap();
        let first = at(19_774, 0, 0);
        for minute in first..first + 14 * DAY_MINUTES {
            let (day, of_day) = (minute / DAY_MINUTES, minute % DAY_MINUTES);
            let days = [19_781, 19_782, 19_783];
            let due = days.contains(&day) && [1, 13].contains(&(of_day / 60)) && of_day % 60 % 7 == 0;
            assert_eq!(schedule.last_due(minute - 1, minute).is_some(), due, "day {day}, minute {of_day}");
        }
        assert_eq!(schedule.last_due(5, 4), None, "a clock that was put back");
    }
}
