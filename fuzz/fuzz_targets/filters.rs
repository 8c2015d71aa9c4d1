//! The filter language: whatever a client sends is read, or refused, in time that grows with its
//! length, and can be matched.
#![no_main]

use std::borrow::Cow;
use std::collections::BTreeMap;

use libfuzzer_sys::fuzz_target;
use parts::filter::{Fields, Filters, in_map};

struct Object(BTreeMap<String, String>);

impl Fields for Object {
    fn field(&self, path: &[String]) -> Option<Cow<'_, str>> {
        match path.first()?.as_str() {
            "id" => Some("container".into()),
            "topic" => Some("/tasks/exit".into()),
            "labels" => in_map(&self.0, &path[1..]),
            _ => None,
        }
    }
}

fuzz_target!(|text: &str| {
    let labels = [("a.b/c", "x y"), ("long", &"ab".repeat(2000))];
    let labels = labels.map(|(key, value)| (key.to_owned(), value.to_owned()));
    let object = Object(BTreeMap::from(labels));
    // Clients send several; here they are lines.
    let texts: Vec<&str> = text.lines().collect();
    if let Ok(filters) = Filters::parse(&texts) {
        filters.hold(&object);
    }
});
