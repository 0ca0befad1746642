use std::collections::BTreeMap;

use proptest::prelude::*;
use serde::Deserialize;

use super::*;

#[derive(Debug, Deserialize, PartialEq)]
#[serde(rename_all = "camelCase")]
struct Ship {
    name: Spanned<String>,
    mast_count: u8,
    #[serde(default)]
    cargo: List<Crate>,
    rig: Option<Rig>,
    at: Option<[f64; 2]>,
    #[serde(default)]
    log: BTreeMap<String, i32>,
}

#[derive(Debug, Deserialize, PartialEq)]
struct Crate {
    of: String,
    weight: u32,
}

#[derive(Debug, Deserialize, PartialEq)]
enum Rig {
    Square,
    Lateen,
}

fn check(text: &str, expected: &[&str]) {
    let result: Result<Ship, _> = read_one("ship.yaml", text, Fields::Known);
    let found: Vec<_> = result.unwrap_err().iter().map(crate::diagnostic::Diagnostic::headline).collect();
    assert_eq!(found, expected, "for:\n{text}");
}

#[test]
fn yaml_and_json_read_alike() {
    let yaml =
        "name: Pinta\nmastCount: 3\ncargo:\n- {of: salt, weight: 7}\nrig: Square\nat: [1, 2.5]\nlog: {'1492': -3}\n";
    let json = "{\n\t\"name\": \"Pinta\",\n\t\"mastCount\": 3, \"cargo\": [{\"of\": \"salt\", \"weight\": 7}],\n\
                \"rig\": \"Square\", \"at\": [1, 2.5], \"log\": {\"1492\": -3}}";
    let from_yaml: Ship = read_one("a", yaml, Fields::Known).unwrap();
    let from_json: Ship = read_one("a", json, Fields::Known).unwrap();
    assert_eq!(from_yaml.name.span, Span { line: 1, column: 7, length: 5 });
    assert_eq!(
        (from_yaml.cargo, from_yaml.rig, from_yaml.at, from_yaml.log),
        (from_json.cargo, from_json.rig, from_json.at, from_json.log)
    );
}

#[test]
fn every_mistake_has_its_place_and_what_was_expected() {
    check(
        "name: Pinta\nmastCount: 300\n",
        &["ship.yaml:2:12: `mastCount`: found the number 300; expected a whole number from 0 to 255"],
    );
    check("name: 5\nmastCount: 3\n", &["ship.yaml:1:7: `name`: found the number 5; expected text: put it in quotes"]);
    check("name: Pinta\n", &["ship.yaml:1:1: the field `mastCount` is missing"]);
    check(
        "name: Pinta\nmastCount: 3\nrig: Latin\n",
        &["ship.yaml:3:6: `rig`: unknown value `Latin`; expected `Square` or `Lateen`; did you mean `Lateen`?"],
    );
    check("name: Pinta\nmastCount: 3\nat: [1]\n", &["ship.yaml:3:5: `at`: found a list of 1; expected a list of 2"]);
    check(
        "name: Pinta\nmastCount: 3\nname: Nina\n",
        &["ship.yaml:3:1: duplicate mapping key `name` is not allowed here"],
    );
    check("name: [Pinta\n", &["ship.yaml:1:7: unclosed bracket '['"]);
    check(
        "- a\n",
        &[
            "ship.yaml:1:1: found a list; expected a mapping with the fields `name`, `mastCount`, `cargo`, `rig`, `at` or `log`",
        ],
    );
    check("", &["ship.yaml: the file is empty; expected one document"]);
    check("name: a\n---\nname: b\n", &["ship.yaml:3:1: a second document; expected only one in this file"]);
}

#[test]
fn all_mistakes_are_told_at_once() {
    let text =
        "name: Pinta\nmastcount: 3\ncargo:\n- {of: salt, wieght: 7}\n- {of: 3, weight: 2}\n- {of: rum, weight: x}\n";
    check(
        text,
        &[
            "ship.yaml:2:1: unknown field `mastcount`; expected `name`, `mastCount`, `cargo`, `rig`, `at` or `log`; \
         did you mean `mastCount`?",
            "ship.yaml:4:3: the field `weight` is missing",
            "ship.yaml:4:14: unknown field `wieght`; expected `of` or `weight`; did you mean `weight`?",
            "ship.yaml:5:8: `of`: found the number 3; expected text: put it in quotes",
            "ship.yaml:6:21: `weight`: found the text `x`; expected a whole number from 0 to 4294967295",
        ],
    );
}

#[test]
fn lenient_reading_ignores_unknown_fields_and_nulls() {
    let text = "name: Pinta\nmastCount: 3\ncargo: null\nowner: {a: [1, 2]}\n";
    let ship: Ship = read_one("a", text, Fields::Any).unwrap();
    assert_eq!(ship.cargo, List::default());
}

#[test]
fn the_items_of_a_list_are_documents_with_places_of_their_own() {
    let text = "kind: List\nitems:\n- {kind: A}\n- {kind: B}\n---\nkind: C\n";
    let documents: Vec<_> = parse("a", text).unwrap().into_iter().flat_map(Document::items).collect();
    let found: Vec<_> = documents.iter().map(|document| (document.kind().unwrap(), document.span().line)).collect();
    assert_eq!(found, [("A", 3), ("B", 4), ("C", 6)]);
}

#[test]
fn hostile_text_is_refused() {
    let mut laughs = "a0: &a0 [ha, ha, ha, ha, ha, ha, ha, ha, ha, ha]\n".to_owned();
    for level in 1..12 {
        let items = vec![format!("*a{}", level - 1); 10].join(", ");
        laughs.push_str(&format!("a{level}: &a{level} [{items}]\n"));
    }
    let deep_flow = "[".repeat(100_000);
    let deep_block: String = (0..1000).map(|depth| format!("{}a:\n", " ".repeat(depth))).collect();
    let recursive = "a: &a [*a]\n".to_owned();
    let huge = "x".repeat(MAX_BYTES + 1);
    for text in [laughs, deep_flow, deep_block, recursive, huge] {
        let refused = parse("hostile", &text).unwrap_err().to_string();
        assert!(refused.len() < 1000, "{refused}");
    }
}

#[test]
fn a_long_line_is_cut_and_control_characters_are_replaced() {
    let text = format!("{{\"name\": \"{}\", \"\\u001b[31mred\": 1, \"mastCount\": 3}}", "x".repeat(5000));
    let refused = read_one::<Ship>("a", &text, Fields::Known).unwrap_err().to_string();
    assert!(refused.starts_with("a:1:5014: unknown field `\u{fffd}[31mred`"), "{refused}");
    assert!(refused.len() < 600 && !refused.contains('\u{1b}'), "{refused}");
}

#[test]
fn mistakes_without_end_are_counted_not_kept() {
    let text = format!("{{{}}}", (0..5000).map(|n| format!("k{n}: 1")).collect::<Vec<_>>().join(", "));
    let refused = read_one::<Ship>("a", &text, Fields::Known).unwrap_err();
    assert_eq!(refused.count(), 5001);
    assert!(refused.to_string().ends_with("a: and 4981 more"), "{refused}");
}

proptest! {
    #[test]
    fn no_text_panics(text in "\\PC{0,200}") {
        let _ = read_one::<Ship>("fuzz", &text, Fields::Known).map_err(|refused| refused.to_string());
    }

    #[test]
    fn no_yaml_like_text_panics(text in "([ \\n\\t]|name|cargo|: |- |\\[|\\]|\\{|\\}|&a|\\*a|'|\"|#|!|<<|\\||>|---|é|0x|1e9|~|,){0,60}") {
        let _ = read_one::<Ship>("fuzz", &text, Fields::Known).map_err(|refused| refused.to_string());
        let _ = read_one::<Ship>("fuzz", &text, Fields::Any).map_err(|refused| refused.to_string());
    }
}
