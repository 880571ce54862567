//! Reads one report, as Surefire, pytest, gtest and jest write them. A report may be from anybody: it is read as it comes, what is kept of
//! it is bounded, and it cannot name anything outside of itself.
//!
//! Tests are counted one by one; what a suite says of itself is passed over.

use std::io::{self, BufRead};

use model::event::run::{TestFailure, TestReport};
use quick_xml::{
    Reader, XmlVersion,
    escape::resolve_xml_entity,
    events::{BytesRef, BytesStart, Event},
};

/// The largest report. Most of one is what tests have printed, which is passed over.
const REPORT_BYTES_MAX: u64 = 64 * 1024 * 1024;
/// Elements in elements.
const DEPTH_MAX: usize = 64;
/// The longest test's time, in seconds: what is longer is a mistake of the report.
const SECONDS_MAX: f64 = 1e9;

/// Why a file is no report.
#[derive(Debug, thiserror::Error)]
pub(in super::super) enum ReportError {
    /// It cannot be read.
    #[error(transparent)]
    Disk(#[from] io::Error),
    /// It is no XML.
    #[error("it is no XML: {0}")]
    Xml(#[from] quick_xml::Error),
    /// It ends too early.
    #[error("it ends in the middle, or has more than {REPORT_BYTES_MAX} bytes")]
    Torn,
    /// It is another document.
    #[error("it begins with `<{0}>`, not with `<testsuites>` or `<testsuite>`")]
    Root(String),
    /// It defines something.
    #[error("it has a document type definition (`<!DOCTYPE`), which is refused")]
    DocumentType,
    /// It names something that XML does not define.
    #[error("it has an entity `&{0};`, which is refused")]
    Entity(String),
    /// It is too deep.
    #[error("it has elements in elements, more than {DEPTH_MAX} deep")]
    Depth,
}

/// A test that is being read.
#[derive(Debug, Default)]
struct Case {
    suite: String,
    name: String,
    duration_ms: u64,
    is_skipped: bool,
    /// What the first failure says.
    failure: Option<String>,
}

#[derive(Debug, Default)]
struct State {
    report: TestReport,
    depth: usize,
    /// How deep the suites around stand, and their names; the innermost last.
    suites: Vec<(usize, String)>,
    /// The test, and how deep it stands.
    case: Option<(usize, Case)>,
    /// How deep the failure stands whose text is read.
    failure: Option<usize>,
}

/// Reads a report.
pub(super) fn read(input: impl BufRead) -> Result<TestReport, ReportError> {
    let mut reader = Reader::from_reader(io::BufReader::new(input.take(REPORT_BYTES_MAX)));
    reader.config_mut().expand_empty_elements = true;
    let mut state = State::default();
    let mut buffer = Vec::new();
    let mut begun = false;
    loop {
        buffer.clear();
        match reader.read_event_into(&mut buffer)? {
            Event::Start(element) => {
                begun = true;
                state.start(&element)?;
            }
            Event::End(_) => state.end(),
            Event::Text(text) => state.text(&text.xml10_content()),
            Event::CData(text) => state.text(&text.xml10_content()),
            Event::GeneralRef(reference) => state.reference(&reference)?,
            Event::DocType(_) => return Err(ReportError::DocumentType),
            Event::Eof if begun && state.depth == 0 => return Ok(state.report),
            Event::Eof => return Err(ReportError::Torn),
            Event::Empty(_) | Event::Comment(_) | Event::Decl(_) | Event::PI(_) => {}
        }
    }
}

impl State {
    fn start(&mut self, element: &BytesStart<'_>) -> Result<(), ReportError> {
        self.depth += 1;
        if self.depth > DEPTH_MAX {
            return Err(ReportError::Depth);
        }
        let name = element.local_name();
        let name: &str = name.as_ref();
        if self.depth == 1 && !["testsuites", "testsuite"].contains(&name) {
            return Err(ReportError::Root(cut(name.to_owned())));
        }
        match (name, &mut self.case) {
            ("testsuite", None) => self.suites.push((self.depth, attribute(element, "name")?.unwrap_or_default())),
            ("testcase", None) => self.case = Some((self.depth, self.begun(element)?)),
            ("skipped" | "disabled", Some((_, case))) => case.is_skipped = true,
            ("failure" | "error", Some((_, case))) => {
                if case.failure.is_none() {
                    self.failure = Some(self.depth);
                }
                let message = attribute(element, "message")?.filter(|message| !message.is_empty());
                case.failure.get_or_insert(message.map_or_else(String::new, |message| message + "\n"));
            }
            _ => {}
        }
        Ok(())
    }

    fn begun(&self, element: &BytesStart<'_>) -> Result<Case, ReportError> {
        let class = attribute(element, "classname")?.filter(|class| !class.is_empty());
        let time = attribute(element, "time")?.unwrap_or_default();
        // Surefire writes `1,234.5`.
        let seconds: f64 = time.replace(',', "").trim().parse().unwrap_or(0.0);
        let ms = (seconds.clamp(0.0, SECONDS_MAX) * 1000.0).round();
        Ok(Case {
            suite: class.or_else(|| self.suites.last().map(|(_, name)| name.clone())).unwrap_or_default(),
            name: attribute(element, "name")?.unwrap_or_default(),
            #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "it was clamped, and NaN is 0")]
            duration_ms: ms as u64,
            // gtest's way to say that a test is disabled.
            is_skipped: attribute(element, "status")?.is_some_and(|status| status == "notrun"),
            failure: None,
        })
    }

    fn end(&mut self) {
        if self.failure == Some(self.depth) {
            self.failure = None;
        }
        match self.case.take() {
            Some((depth, case)) if depth == self.depth => self.count(case),
            Some(case) => self.case = Some(case),
            None => {
                self.suites.pop_if(|(depth, _)| *depth == self.depth);
            }
        }
        self.depth = self.depth.saturating_sub(1);
    }

    fn count(&mut self, case: Case) {
        let Case { suite, name, duration_ms, is_skipped, failure } = case;
        self.report.duration_ms = self.report.duration_ms.saturating_add(duration_ms);
        match failure {
            Some(message) => {
                self.report.failed += 1;
                if self.report.failures.len() < TestReport::FAILURES_MAX {
                    self.report.failures.push(TestFailure { suite, name, message: cut(message.trim().to_owned()) });
                }
            }
            None if is_skipped => self.report.skipped += 1,
            None => self.report.passed += 1,
        }
    }

    /// What is said in a failure follows its message.
    fn text(&mut self, text: &str) {
        let (Some(depth), Some((_, Case { failure: Some(message), .. }))) = (self.failure, &mut self.case) else { return };
        if depth == self.depth && message.len() < TestFailure::MESSAGE_BYTES_MAX {
            message.push_str(text.get(..text.floor_char_boundary(TestFailure::MESSAGE_BYTES_MAX)).unwrap_or_default());
        }
    }

    fn reference(&mut self, reference: &BytesRef<'_>) -> Result<(), ReportError> {
        if let Some(character) = reference.resolve_char_ref()? {
            self.text(character.encode_utf8(&mut [0; 4]));
            return Ok(());
        }
        let name = reference.xml10_content();
        let text = resolve_xml_entity(&name).ok_or_else(|| ReportError::Entity(cut(name.to_string())))?;
        self.text(text);
        Ok(())
    }
}

/// An attribute's text, cut to what is kept of a message.
fn attribute(element: &BytesStart<'_>, name: &str) -> Result<Option<String>, ReportError> {
    for attribute in element.attributes() {
        let attribute = attribute.map_err(quick_xml::Error::from)?;
        if attribute.key.local_name().as_ref() == name {
            return Ok(Some(cut(attribute.normalized_value(XmlVersion::Implicit1_0)?.into_owned())));
        }
    }
    Ok(None)
}

fn cut(mut text: String) -> String {
    text.truncate(text.floor_char_boundary(TestFailure::MESSAGE_BYTES_MAX));
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(text: &str) -> Result<TestReport, ReportError> {
        read(text.as_bytes())
    }

    fn counts(report: &TestReport) -> (u64, u64, u64, u64) {
        (report.passed, report.failed, report.skipped, report.duration_ms)
    }

    #[test]
    fn every_dialect_is_read() {
        for (text, expected, suite, name, message) in [
            (
                include_str!("../../../test_data/junit/surefire.xml"),
                (2, 2, 1, 1_240_250),
                "com.example.ShopTest",
                "refunds",
                "expected: <1> but was: <2>\norg.opentest4j.AssertionFailedError: expected: <1> but was: <2>\n\tat com.example.ShopTest.refunds(ShopTest.java:12)",
            ),
            (
                include_str!("../../../test_data/junit/pytest.xml"),
                (1, 2, 1, 12),
                "tests.test_shop",
                "test_refund[eur]",
                "assert 1 == 2\ndef test_refund():\n>       assert 1 == 2\nE       assert 1 == 2",
            ),
            (
                include_str!("../../../test_data/junit/gtest.xml"),
                (1, 1, 1, 3),
                "ShopTest",
                "Refunds",
                "shop.cc:7\nExpected equality\nshop.cc:7\nExpected equality",
            ),
            (
                include_str!("../../../test_data/junit/jest.xml"),
                (1, 1, 0, 8),
                "shop refunds",
                "shop refunds",
                "Error: expect(1).toBe(2) & more",
            ),
        ] {
            let report = report(text).unwrap();
            assert_eq!(counts(&report), expected, "{suite}");
            let failure = &report.failures[0];
            assert_eq!((failure.suite.as_str(), failure.name.as_str(), failure.message.as_str()), (suite, name, message));
        }
    }

    #[test]
    fn a_report_names_nothing_outside_of_itself() {
        let bomb = "<!DOCTYPE lolz [<!ENTITY a \"ha\"><!ENTITY b \"&a;&a;&a;\">]><testsuite><testcase name='&b;'/></testsuite>";
        assert!(matches!(report(bomb), Err(ReportError::DocumentType)));
        let outside = "<?xml version='1.0'?><!DOCTYPE x SYSTEM \"file:///etc/passwd\"><testsuite/>";
        assert!(matches!(report(outside), Err(ReportError::DocumentType)));
        let entity = "<testsuite><testcase name='a'><failure>&xxe;</failure></testcase></testsuite>";
        assert!(matches!(report(entity), Err(ReportError::Entity(name)) if name == "xxe"));
        assert!(report("<testsuite><testcase name='&xxe;'/></testsuite>").is_err());
    }

    #[test]
    fn what_is_no_report_is_refused() {
        for text in ["", "no xml", "<html></html>", "<testsuite>", "<testsuite><testcase name='a'></testsuite>", "<testsuite", "<a/>"] {
            assert!(report(text).is_err(), "{text}");
        }
        let deep = format!("<testsuite>{}{}</testsuite>", "<x>".repeat(100), "</x>".repeat(100));
        assert!(matches!(report(&deep), Err(ReportError::Depth)));
        assert_eq!(counts(&report("<testsuites/>").unwrap()), (0, 0, 0, 0));
    }

    #[test]
    fn what_is_kept_is_bounded() {
        let failure = format!("<testcase name='{0}' time='1e400'><failure message='{0}'>{0}</failure></testcase>", "ü".repeat(5_000));
        let report = report(&format!("<testsuite>{}</testsuite>", failure.repeat(200))).unwrap();
        assert_eq!((report.failed, report.failures.len()), (200, 100));
        assert!(report.failures.iter().all(|failure| failure.name.len() <= 1_000 && failure.message.len() <= 1_000));
    }

    #[test]
    fn times_that_are_none_are_nothing() {
        for time in ["", "NaN", "-5", "x", "1.5.2"] {
            let report = report(&format!("<testsuite><testcase name='a' time='{time}'/></testsuite>")).unwrap();
            assert_eq!(report.duration_ms, 0, "{time}");
        }
    }
}
