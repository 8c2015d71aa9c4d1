//! containerd's filter language, for every service that lists or subscribes.
//!
//! A filter is a list of selectors joined by commas, all of which must hold; of a list of filters
//! one must hold, and an empty list holds always. A selector is a field path, alone (the field is
//! there) or with `==`, `!=` or `~=` and a value. Parts of the path are joined by dots and may be
//! quoted; values may be quoted, those of `~=` also between `|` or `/`. Space may stand before
//! a part, an operator or a value. Patterns are `regex-lite`'s: as RE2's, without Unicode classes.
//! How large and how many they may be is limited: a few characters with counts among them, such as
//! `(a{50}){50}`, could mean millions of steps for every object there is.

use std::borrow::Cow;
use std::fmt::{Display, Formatter};
use std::str::Chars;

use regex_lite::{Regex, RegexBuilder};
use tonic::Status;

use crate::status;

/// The most that one pattern may take when it is compiled, in bytes: enough for a hundred names.
const PATTERN_SIZE: usize = 128 << 10;
/// How many patterns a list may have.
const PATTERNS: usize = 32;

/// What a filter looks at.
pub trait Fields {
    /// The value of the field that `path` names, if the object has it.
    fn field(&self, path: &[String]) -> Option<Cow<'_, str>>;
}

/// Looks up the rest of a path in a map: its parts joined by dots are the key.
pub fn in_map<'a>(
    map: &'a std::collections::BTreeMap<String, String>,
    path: &[String],
) -> Option<Cow<'a, str>> {
    map.get(&path.join(".")).map(|value| value.as_str().into())
}

/// A list of filters, of which one must hold.
#[derive(Debug)]
pub struct Filters {
    filters: Vec<Vec<Selector>>,
    /// As the client wrote them.
    text: String,
}

impl Display for Filters {
    fn fmt(&self, f: &mut Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.text)
    }
}

#[derive(Debug)]
struct Selector {
    path: Vec<String>,
    test: Test,
}

#[derive(Debug)]
enum Test {
    Present,
    Equal(String),
    NotEqual(String),
    Matches(Regex),
    Never,
}

impl Filters {
    /// Reads filters as clients send them.
    ///
    /// # Errors
    /// `InvalidArgument` with the filter and what is wrong with it.
    pub fn parse<S: AsRef<str>>(texts: &[S]) -> Result<Self, Status> {
        let mut filters = Vec::new();
        let mut patterns = 0;
        for text in texts {
            let text = text.as_ref();
            let refused = |fault: String| status::invalid(format_args!("filter {text:?}: {fault}"));
            let selectors = Parser(text).filter().map_err(refused)?;
            patterns += selectors.iter().filter(|one| one.is_pattern()).count();
            if patterns > PATTERNS {
                return Err(refused(format!(
                    "more than {PATTERNS} patterns in one list"
                )));
            }
            filters.push(selectors);
        }
        let texts: Vec<&str> = texts.iter().map(AsRef::as_ref).collect();
        let text = texts.join(" or ");
        Ok(Self { filters, text })
    }

    /// Whether one of the filters holds for `object`.
    pub fn hold(&self, object: &impl Fields) -> bool {
        self.filters.is_empty()
            || self
                .filters
                .iter()
                .any(|filter| filter.iter().all(|selector| selector.holds(object)))
    }
}

impl Selector {
    fn is_pattern(&self) -> bool {
        matches!(self.test, Test::Matches(_))
    }

    fn holds(&self, object: &impl Fields) -> bool {
        let value = object.field(&self.path);
        match &self.test {
            Test::Present => value.is_some(),
            Test::Equal(wanted) => value.is_some_and(|value| value == wanted.as_str()),
            Test::NotEqual(unwanted) => value.is_none_or(|value| value != unwanted.as_str()),
            Test::Never => false,
            Test::Matches(pattern) => value.is_some_and(|value| pattern.is_match(&value)),
        }
    }
}

/// What is left of the text.
struct Parser<'a>(&'a str);

impl Parser<'_> {
    fn filter(mut self) -> Result<Vec<Selector>, String> {
        let mut selectors = Vec::new();
        if self.0.is_empty() {
            return Ok(selectors);
        }
        loop {
            selectors.push(self.selector()?);
            if self.0.is_empty() {
                return Ok(selectors);
            }
            self.0 = self
                .0
                .strip_prefix(',')
                .ok_or_else(|| format!("expected a comma before {:?}", self.0))?;
        }
    }

    fn skip_space(&mut self) {
        self.0 = self.0.trim_start();
    }

    fn selector(&mut self) -> Result<Selector, String> {
        let mut path = vec![self.part()?];
        while let Some(rest) = self.0.strip_prefix('.') {
            self.0 = rest;
            path.push(self.part()?);
        }
        if self.0.is_empty() || self.0.starts_with(',') {
            let test = Test::Present;
            return Ok(Selector { path, test });
        }
        self.skip_space();
        let operator = self.0.get(..2).unwrap_or_default().to_owned();
        if !["==", "!=", "~="].contains(&operator.as_str()) {
            return Err(format!("expected one of == != ~= at {:?}", self.0));
        }
        self.0 = &self.0[2..];
        let value = self.value(operator == "~=")?;
        let test = match operator.as_str() {
            "==" => Test::Equal(value),
            "!=" => Test::NotEqual(value),
            _ => pattern(&value)?,
        };
        Ok(Selector { path, test })
    }

    fn part(&mut self) -> Result<String, String> {
        self.skip_space();
        if self.0.starts_with('"') {
            return self.quoted('"');
        }
        let end = self
            .0
            .find(|c: char| !c.is_ascii_alphanumeric() && c != '_')
            .unwrap_or(self.0.len());
        if end == 0 {
            return Err(format!("expected a field at {:?}", self.0));
        }
        let (part, rest) = self.0.split_at(end);
        self.0 = rest;
        Ok(part.to_owned())
    }

    fn value(&mut self, pattern: bool) -> Result<String, String> {
        self.skip_space();
        match self.0.chars().next() {
            Some('"') => self.quoted('"'),
            Some(quote @ ('|' | '/')) if pattern => self.quoted(quote),
            None | Some('|' | '/' | ',' | '.' | '=' | '!' | '~') => {
                Err(format!("expected a value at {:?}", self.0))
            }
            Some(_) => {
                let ends = |c: char| c == ',' || c.is_whitespace() || c.is_control();
                let end = self.0.find(ends).unwrap_or(self.0.len());
                let (value, rest) = self.0.split_at(end);
                self.0 = rest;
                Ok(value.to_owned())
            }
        }
    }

    /// Text between two `quote`s, with the escapes of a Go string.
    fn quoted(&mut self, quote: char) -> Result<String, String> {
        let mut text = Vec::new();
        let mut rest = self.0[1..].chars();
        loop {
            let c = rest.next().ok_or_else(|| format!("no closing {quote}"))?;
            if c == quote {
                break;
            }
            if c == '\\' {
                escaped(&mut rest, quote, &mut text)?;
            } else {
                push(&mut text, c);
            }
        }
        self.0 = rest.as_str();
        Ok(String::from_utf8_lossy(&text).into_owned())
    }
}

/// As with containerd, a pattern that is none matches nothing. One that is too large is refused.
fn pattern(text: &str) -> Result<Test, String> {
    let compiled = RegexBuilder::new(text).size_limit(PATTERN_SIZE).build();
    match compiled {
        Ok(pattern) => Ok(Test::Matches(pattern)),
        Err(error) if error.to_string().contains("size limit") => {
            Err(format!("the pattern {text:?} is too large"))
        }
        Err(_) => Ok(Test::Never),
    }
}

fn push(text: &mut Vec<u8>, c: char) {
    text.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes());
}

/// Reads what stands after a backslash: a letter for a control character, `xHH` or three octal
/// digits for a byte, `uHHHH` or `UHHHHHHHH` for a character, or the quote.
fn escaped(rest: &mut Chars<'_>, quote: char, text: &mut Vec<u8>) -> Result<(), String> {
    let kind = rest.next().ok_or("nothing after a backslash")?;
    let (radix, digits, first) = match kind {
        'x' => (16, 2, None),
        'u' => (16, 4, None),
        'U' => (16, 8, None),
        '0'..='7' => (8, 2, kind.to_digit(8)),
        kind => {
            let c = match kind {
                'a' => '\u{7}',
                'b' => '\u{8}',
                'f' => '\u{c}',
                'n' => '\n',
                'r' => '\r',
                't' => '\t',
                'v' => '\u{b}',
                c if c == quote || c == '\\' => c,
                c => return Err(format!("no such escape: \\{c}")),
            };
            push(text, c);
            return Ok(());
        }
    };
    let illegal = || format!("bad number in the escape \\{kind}");
    let mut number = first.unwrap_or(0);
    for _ in 0..digits {
        let digit = rest
            .next()
            .and_then(|c| c.to_digit(radix))
            .ok_or_else(illegal)?;
        number = number
            .checked_mul(radix)
            .and_then(|number| number.checked_add(digit))
            .ok_or_else(illegal)?;
    }
    match kind {
        'u' | 'U' => push(text, char::from_u32(number).ok_or_else(illegal)?),
        _ => text.push(u8::try_from(number).map_err(|_| illegal())?),
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    struct Object(BTreeMap<String, String>);

    impl Fields for Object {
        fn field(&self, path: &[String]) -> Option<Cow<'_, str>> {
            match path[0].as_str() {
                "id" => Some("c1".into()),
                "topic" => Some("/tasks/exit".into()),
                "labels" => in_map(&self.0, &path[1..]),
                _ => None,
            }
        }
    }

    fn holds(filters: &[&str]) -> bool {
        let object = Object(BTreeMap::from([("a.b/c".to_owned(), "x y".to_owned())]));
        Filters::parse(filters).unwrap().hold(&object)
    }

    #[test]
    fn selectors_are_joined_by_and_filters_by_or() {
        assert!(holds(&[]) && holds(&[""]));
        assert!(holds(&["id==c1,topic~=|^/tasks/|"]));
        assert!(!holds(&["id==c1,id==c2"]));
        assert!(holds(&["id==c2", "id==c1"]));
        assert!(holds(&["id!=c2"]) && holds(&["nothing!=x"]) && !holds(&["nothing"]));
        assert!(holds(&[r#"labels."a.b/c"=="x y""#]));
        assert!(holds(&[r#"labels."a.b/c""#]) && holds(&["topic~=exit$"]));
        assert!(holds(&[r"topic~=/^\/tasks/"]));
    }

    #[test]
    fn broken_filters_are_refused() {
        for text in [
            "==x", "id==", "id=c1", "id==c1,", "a.", "\"a", "id~=|x", "id==|x|", "id==",
        ] {
            let refusal = Filters::parse(&[text]).unwrap_err();
            assert_eq!(refusal.code(), tonic::Code::InvalidArgument, "{text}");
        }
    }

    #[test]
    fn a_pattern_that_would_take_seconds_for_each_object_is_refused() {
        for text in [
            "topic~=|((a{0,50}){0,50}){0,10}c|",
            "topic~=|(a{0,100}b{0,100}){0,100}c|",
        ] {
            let refusal = Filters::parse(&[text]).unwrap_err();
            assert_eq!(refusal.code(), tonic::Code::InvalidArgument);
            assert!(refusal.message().contains("too large"), "{refusal}");
        }
        let names: Vec<String> = (0..100).map(|n| format!("container-{n:03}")).collect();
        assert!(!holds(&[&format!("id~=/^({})$/", names.join("|"))]));
        let many = vec!["id~=c"; PATTERNS + 1];
        assert!(holds(&many[1..]));
        assert!(
            Filters::parse(&many)
                .unwrap_err()
                .message()
                .contains("patterns")
        );
    }
}
