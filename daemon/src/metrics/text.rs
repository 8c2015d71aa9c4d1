//! Prometheus' text format: families of samples, each with its help and type once.

use std::fmt::{Display, Write};

/// The text as it grows.
#[derive(Debug, Default)]
pub struct Text(String);

/// A family of which samples are being written.
#[derive(Debug)]
pub struct Family<'a> {
    text: &'a mut String,
    name: &'a str,
}

impl Text {
    /// Begins the family `name`, of type `kind` (`counter`, `gauge` or `histogram`).
    pub fn family<'a>(&'a mut self, name: &'a str, kind: &str, help: &str) -> Family<'a> {
        // Writing to a String does not fail, here and below.
        let _ = writeln!(self.0, "# HELP {name} {help}\n# TYPE {name} {kind}");
        Family {
            text: &mut self.0,
            name,
        }
    }

    /// The whole text.
    pub fn into_string(self) -> String {
        self.0
    }
}

impl Family<'_> {
    /// Writes a sample.
    pub fn sample(&mut self, labels: &[(&str, &str)], value: impl Display) {
        self.sample_of("", labels, value);
    }

    /// Writes a sample of a histogram: `_bucket`, `_sum` or `_count`.
    pub fn sample_of(&mut self, suffix: &str, labels: &[(&str, &str)], value: impl Display) {
        let _ = write!(self.text, "{}{suffix}", self.name);
        for (at, (label, value)) in labels.iter().enumerate() {
            let before = if at == 0 { '{' } else { ',' };
            let _ = write!(self.text, "{before}{label}=\"");
            for c in value.chars() {
                match c {
                    '\\' => self.text.push_str("\\\\"),
                    '"' => self.text.push_str("\\\""),
                    '\n' => self.text.push_str("\\n"),
                    c => self.text.push(c),
                }
            }
            self.text.push('"');
        }
        let end = if labels.is_empty() { "" } else { "}" };
        let _ = writeln!(self.text, "{end} {value}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_quoted() {
        let mut text = Text::default();
        let mut family = text.family("a_total", "counter", "What it counts.");
        family.sample(&[], 1);
        family.sample(&[("x", "a\"b\\c\nd"), ("y", "")], 2.5);
        let wanted = "# HELP a_total What it counts.\n# TYPE a_total counter\na_total 1\n\
            a_total{x=\"a\\\"b\\\\c\\nd\",y=\"\"} 2.5\n";
        assert_eq!(text.into_string(), wanted);
    }
}
