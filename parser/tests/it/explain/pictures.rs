//! Pictures of plans.

use insta::assert_snapshot;
use model::{
    StageId,
    plan::{Need, NeedReason, Plan, PlanDocument, Stage},
};
use parser::explain::{Explained, diff, dot, explain, svg};
use proptest::prelude::*;

use super::plans::{deploy, fanned, matrix, sixty, small, with};

/// As strict as a reader of XML has to be: one root, tags that close in their order, quoted attributes, known entities.
fn check_xml(document: &str) {
    let mut open: Vec<&str> = Vec::new();
    let mut roots = 0;
    let mut rest = document;
    while let Some((text, tag)) = rest.split_once('<') {
        check_characters(text);
        let (tag, after) = tag.split_once('>').unwrap();
        rest = after;
        if let Some(name) = tag.strip_prefix('/') {
            assert_eq!(open.pop(), Some(name));
            continue;
        }
        let (tag, closed) = tag.strip_suffix('/').map_or((tag, false), |tag| (tag, true));
        let (name, attributes) = tag.split_once(' ').unwrap_or((tag, ""));
        let mut attributes = attributes.trim();
        while let Some((name, value)) = attributes.split_once("=\"") {
            assert!(name.chars().all(|character| character.is_ascii_alphabetic() || character == '-'), "{tag}");
            let (value, after) = value.split_once('"').unwrap();
            check_characters(value);
            attributes = after.trim_start();
        }
        assert_eq!(attributes, "", "{tag}");
        roots += usize::from(open.is_empty());
        if !closed {
            open.push(name);
        }
    }
    check_characters(rest);
    assert_eq!((open.len(), roots), (0, 1));
}

fn check_characters(text: &str) {
    assert!(!text.contains(|character: char| character == '>' || (character != '\n' && character.is_control())), "{text:?}");
    for (place, _) in text.match_indices('&') {
        let entity = text.get(place..).unwrap();
        assert!(["&amp;", "&lt;", "&gt;", "&quot;"].iter().any(|known| entity.starts_with(known)), "{text:?}");
    }
}

/// The size that a picture says it has.
fn size(svg: &str) -> (i64, i64) {
    let mut numbers = svg.split("viewBox=\"0 0 ").nth(1).unwrap().split(['"', ' ']).map(|number| number.parse().unwrap());
    (numbers.next().unwrap(), numbers.next().unwrap())
}

#[test]
fn a_small_plan_has_a_small_picture() {
    assert_snapshot!(svg(&small(), None));
}

#[test]
fn everything_that_a_stage_may_be_has_a_shape_of_its_own() {
    let svg = svg(&deploy(), None);
    check_xml(&svg);
    for class in ["work", "wait", "delivery", "undo", "faded", "m"] {
        assert!(svg.contains(&format!("class=\"{class}\"")), "{class}\n{svg}");
    }
    assert!(svg.contains("→ production, protected · fanout") && svg.contains("skipped, because branch == 'docs' is false"), "{svg}");
    assert_snapshot!("everything_in_dot", dot(&deploy(), None));
}

#[test]
fn sixty_stages_fit_the_width_of_a_page() {
    for plan in [matrix(), fanned(), deploy(), sixty()] {
        let svg = svg(&plan, None);
        check_xml(&svg);
        let (width, height) = size(&svg);
        assert!(width <= 1_200 && height <= 2_400, "{width} {height}");
    }
    assert!(sixty().stages.len() >= 60);
}

/// No stage lies on another, by the text of the picture.
fn check_boxes(svg: &str) {
    let attribute =
        |tag: &str, name: &str| -> i64 { tag.split(&format!(" {name}=\"")).nth(1).unwrap().split('"').next().unwrap().parse().unwrap() };
    let rects = svg.split("<rect class=\"").skip(1).filter(|tag| !tag.starts_with("g\""));
    let boxes: Vec<[i64; 4]> = rects.map(|tag| ["x", "y", "width", "height"].map(|name| attribute(tag, name))).collect();
    let (right, bottom) = size(svg);
    for (place, [x, y, width, height]) in boxes.iter().enumerate() {
        assert!(*x >= 0 && *y >= 0 && x + width <= right && y + height <= bottom, "{x} {y} is outside");
        for [left, top, wide, high] in &boxes[..place] {
            assert!(x + width <= *left || left + wide <= *x || y + height <= *top || top + high <= *y, "{x} {y} and {left} {top}");
        }
    }
}

#[test]
fn no_box_lies_on_another() {
    for plan in [small(), deploy(), matrix(), fanned(), sixty()] {
        check_boxes(&svg(&plan, None));
    }
}

proptest! {
    // Each case draws, writes and compares: a quarter of the usual number finds what there is to find in a second.
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn any_graph_has_a_picture_and_words(
        groups in prop::collection::vec(prop::collection::vec("[ab/]", 0..3), 1..24),
        edges in prop::collection::vec((0usize..24, 0usize..24, 0usize..3), 0..60),
    ) {
        let name = |place: usize| [groups[place].clone(), vec![format!("stage {place}")]].concat().join("/");
        let reasons = [NeedReason::Order, NeedReason::Needs, NeedReason::Rollback];
        let stages = (0..groups.len()).map(|place| {
            let needs = edges.iter().filter(|(first, second, _)| *second == place && first < second);
            let need = |(first, _, reason): &(usize, usize, usize)| Need { stage: StageId::of(&name(*first)), reason: reasons[*reason].clone() };
            Stage { needs: needs.map(need).collect(), ..Stage::new(&name(place)) }
        });
        let plan = Plan::new(stages.collect());
        let svg = svg(&plan, None);
        check_xml(&svg);
        check_boxes(&svg);
        prop_assert_eq!(svg.matches("class=\"work\"").count(), groups.len());
        prop_assert_eq!(dot(&plan, None).matches(" [label=").count(), groups.len());
        let (document, other) = (PlanDocument::new(plan), PlanDocument::new(small()));
        let text = explain(&Explained::new("Ottofile", &document));
        let all = (0..groups.len()).all(|place| text.contains(&format!("stage {place}")));
        prop_assert!(all, "{}", text);
        prop_assert!(diff(&document, &other, true).contains(" is new"));
    }
}

#[test]
fn five_thousand_stages_have_a_picture_in_any_shape() {
    let name = |place: usize| format!("Group {}/Stage <{place}> & \"more\"", place / 50);
    let chain = |place: usize| place.checked_sub(1).into_iter().collect::<Vec<_>>();
    let shapes: [&dyn Fn(usize) -> Vec<usize>; 4] =
        [&chain, &|_| vec![], &|place| if place == 4_999 { (0..4_999).collect() } else { vec![] }, &|place| {
            let mut needs = chain(place);
            needs.extend((place > 7).then(|| place * 7 % (place - 1)));
            needs
        }];
    for needs in shapes {
        let stages = (0..5_000).map(|place| {
            let need = |before| Need { stage: StageId::of(&name(before)), reason: NeedReason::Order };
            Stage { needs: needs(place).into_iter().map(need).collect(), ..with(&name(place), &[], vec![]) }
        });
        let plan = Plan::new(stages.collect());
        let svg = svg(&plan, None);
        check_xml(&svg);
        assert!(svg.matches("class=\"work\"").count() == 5_000 && size(&svg).0 < 3_000, "{:?}", size(&svg));
    }
}
