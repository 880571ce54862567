//! The examples of `GRAMMAR.md` are what they say.

use std::path::Path;

use parser::Planning;

use crate::fixture::Fixture;

#[test]
fn every_example_of_the_page_is_what_it_says() {
    let page = include_str!("../../GRAMMAR.md");
    let mut counts = (0, 0);
    for block in page.split("```").skip(1).step_by(2) {
        let (kind, source) = block.split_once('\n').unwrap();
        let fixture = Fixture::of(source.as_bytes(), Path::new("none"));
        match (kind, fixture.plan("Ottofile", source.as_bytes())) {
            ("text", _) => {}
            ("otto", Planning::Plan { .. }) => counts.0 += 1,
            ("refused", Planning::Refused(_)) => counts.1 += 1,
            (kind, planning) => panic!("marked {kind}:\n{source}\n{planning:#?}"),
        }
    }
    assert!(counts.0 >= 4 && counts.1 >= 4, "{counts:?}");
}
