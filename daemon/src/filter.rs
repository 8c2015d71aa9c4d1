//! containerd's filter language, for every service that lists or subscribes.
//!
//! A filter is a list of selectors joined by commas, all of which must hold; of a list of filters
//! one must hold, and an empty list holds always. A selector is a field path, alone (the field is
//! there) or with `==`, `!=` or `~=` and a value. Parts of the path are joined by dots and may be
//! quoted; values may be quoted, those of `~=` also between `|` or `/`.

use std::borrow::Cow;

use regex_lite::Regex;
use tonic::Status;

use crate::status;

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
pub struct Filters(Vec<Vec<Selector>>);

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
}

impl Filters {
    /// Reads filters as clients send them.
    ///
    /// # Errors
    /// `InvalidArgument` with the filter and what is wrong with it.
    pub fn parse<S: AsRef<str>>(texts: &[S]) -> Result<Self, Status> {
        let mut filters = Vec::new();
        for text in texts {
            let text = text.as_ref();
            let selectors = Parser(text)
                .filter()
                .map_err(|fault| status::invalid(format_args!("filter {text:?}: {fault}")))?;
            filters.push(selectors);
        }
        Ok(Self(filters))
    }

    /// Whether one of the filters holds for `object`.
    pub fn hold(&self, object: &impl Fields) -> bool {
        self.0.is_empty()
            || self
                .0
                .iter()
                .any(|filter| filter.iter().all(|selector| selector.holds(object)))
    }
}

impl Selector {
    fn holds(&self, object: &impl Fields) -> bool {
        let value = object.field(&self.path);
        match &self.test {
            Test::Present => value.is_some(),
            Test::Equal(wanted) => value.is_some_and(|value| value == wanted.as_str()),
            Test::NotEqual(unwanted) => value.is_none_or(|value| value != unwanted.as_str()),
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

    fn selector(&mut self) -> Result<Selector, String> {
        let mut path = vec![self.part()?];
        while let Some(rest) = self.0.strip_prefix('.') {
            self.0 = rest;
            path.push(self.part()?);
        }
        let Some(operator) = self.0.get(..2).filter(|o| ["==", "!=", "~="].contains(o)) else {
            let test = Test::Present;
            return Ok(Selector { path, test });
        };
        let operator = operator.to_owned();
        self.0 = &self.0[2..];
        let value = self.value(operator == "~=")?;
        let test = match operator.as_str() {
            "==" => Test::Equal(value),
            "!=" => Test::NotEqual(value),
            _ => Test::Matches(Regex::new(&value).map_err(|error| error.to_string())?),
        };
        Ok(Selector { path, test })
    }

    fn part(&mut self) -> Result<String, String> {
        if self.0.starts_with('"') {
            return self.quoted('"');
        }
        let end = self
            .0
            .find(|c: char| !c.is_ascii_alphanumeric() && c != '_')
            .unwrap_or(self.0.len());
        if end == 0
            || !self
                .0
                .starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
        {
            return Err(format!("expected a field at {:?}", self.0));
        }
        let (part, rest) = self.0.split_at(end);
        self.0 = rest;
        Ok(part.to_owned())
    }

    fn value(&mut self, pattern: bool) -> Result<String, String> {
        match self.0.chars().next() {
            Some('"') => self.quoted('"'),
            Some(quote @ ('|' | '/')) if pattern => self.quoted(quote),
            _ => {
                let end = self.0.find([',', ' ', '"']).unwrap_or(self.0.len());
                let (value, rest) = self.0.split_at(end);
                if value.is_empty() {
                    return Err("expected a value".to_owned());
                }
                self.0 = rest;
                Ok(value.to_owned())
            }
        }
    }

    /// Text between two `quote`s. A backslash takes the character after it as it is; between `|`
    /// or `/` only where that character is the quote, for there it belongs to the pattern.
    fn quoted(&mut self, quote: char) -> Result<String, String> {
        let mut text = String::new();
        let mut rest = self.0[1..].char_indices();
        while let Some((at, c)) = rest.next() {
            if c == quote {
                self.0 = &self.0[1 + at + c.len_utf8()..];
                return Ok(text);
            }
            if c != '\\' {
                text.push(c);
                continue;
            }
            match rest.next() {
                Some((_, escaped)) if escaped == quote || (quote == '"' && escaped == '\\') => {
                    text.push(escaped);
                }
                Some((_, 'n')) if quote == '"' => text.push('\n'),
                Some((_, 't')) if quote == '"' => text.push('\t'),
                Some((_, escaped)) => {
                    text.push('\\');
                    text.push(escaped);
                }
                None => break,
            }
        }
        Err(format!("no closing {quote}"))
    }
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
            "==x", "id==", "id=c1", "id==c1,", "a.", "\"a", "id~=|x", "id~=(", "id==",
        ] {
            let refusal = Filters::parse(&[text]).unwrap_err();
            assert_eq!(refusal.code(), tonic::Code::InvalidArgument, "{text}");
        }
    }
}
