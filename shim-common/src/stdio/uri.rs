//! What a stdio value of a request means: nothing, a path, a file to append to, or a logger.
//!
//! The scheme decides (shim-contract section 2): none or `fifo` is a path, `file` a file that is
//! made when missing, `binary` and `binary-v2` a program that is started and fed.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;

use super::StdioError;

/// Where one output stream of a process goes.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Target {
    /// Nowhere: the value was empty.
    Null,
    /// A FIFO, or a file or device that exists: the path as it came.
    Path(PathBuf),
    /// A file, made with its folders when missing.
    File(PathBuf),
    /// A program that reads the streams.
    Binary(Binary),
}

/// A logger program, as `binary://PROGRAM?key=value` asks for it.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Binary {
    /// The program, an absolute path.
    pub(super) program: PathBuf,
    /// Keys and values in the order of the URI; Go's order is random, so no logger can rely on
    /// another one. Of a repeated key the first value counts, as in Go.
    pub(super) args: Vec<OsString>,
    /// Whether the logger must send a byte when ready (`binary-v2`); otherwise the end of its
    /// ready pipe says so too.
    pub(super) needs_byte: bool,
}

/// Reads one stdio value.
pub(super) fn parse(value: &str) -> Result<Target, StdioError> {
    if value.is_empty() {
        return Ok(Target::Null);
    }
    let Some((scheme, rest)) = split_scheme(value) else {
        return Ok(Target::Path(value.into()));
    };
    let lower = scheme.to_ascii_lowercase();
    match lower.as_str() {
        "fifo" => Ok(Target::Path(path_of(value, rest)?)),
        "file" => Ok(Target::File(path_of(value, rest)?)),
        "binary" | "binary-v2" => Ok(Target::Binary(Binary {
            program: path_of(value, rest)?,
            args: arguments(rest),
            needs_byte: lower == "binary-v2",
        })),
        _ => Err(StdioError::UnknownScheme(scheme.to_owned())),
    }
}

/// The scheme of a URI and what follows its colon, by RFC 3986 section 3.1.
fn split_scheme(value: &str) -> Option<(&str, &str)> {
    let (scheme, rest) = value.split_once(':')?;
    let mut bytes = scheme.bytes();
    let first = bytes.next()?;
    let valid = first.is_ascii_alphabetic()
        && bytes.all(|b| b.is_ascii_alphanumeric() || matches!(b, b'+' | b'-' | b'.'));
    valid.then_some((scheme, rest))
}

/// The absolute path of a URI, decoded; what stands before it (a host) is not looked at.
fn path_of(value: &str, rest: &str) -> Result<PathBuf, StdioError> {
    let rest = rest.split(['?', '#']).next().unwrap_or_default();
    let path = match rest.strip_prefix("//") {
        Some(authority) => authority.find('/').map(|at| &authority[at..]),
        None => rest.starts_with('/').then_some(rest),
    };
    match path {
        Some(path) if path.len() > 1 => Ok(PathBuf::from(decode(path, false))),
        _ => Err(StdioError::Uri {
            uri: value.to_owned(),
            what: "it names no absolute path",
        }),
    }
}

fn arguments(rest: &str) -> Vec<OsString> {
    let query = rest.split('#').next().unwrap_or_default();
    let Some((_, query)) = query.split_once('?') else {
        return Vec::new();
    };
    let mut pairs: Vec<(OsString, OsString)> = Vec::new();
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        let key = decode(key, true);
        if !pairs.iter().any(|(known, _)| *known == key) {
            pairs.push((key, decode(value, true)));
        }
    }
    pairs.into_iter().flat_map(|(k, v)| [k, v]).collect()
}

/// Undoes percent-encoding; in a query `+` is a space. What is no valid escape stays as it is.
fn decode(text: &str, query: bool) -> OsString {
    let hex = |byte: u8| {
        char::from(byte)
            .to_digit(16)
            .and_then(|d| u8::try_from(d).ok())
    };
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while let Some(&byte) = bytes.get(at) {
        let escape = match (byte, bytes.get(at + 1), bytes.get(at + 2)) {
            (b'%', Some(&high), Some(&low)) => hex(high).zip(hex(low)),
            _ => None,
        };
        match (escape, byte) {
            (Some((high, low)), _) => {
                out.push(high << 4 | low);
                at += 2;
            }
            (None, b'+') if query => out.push(b' '),
            (None, other) => out.push(other),
        }
        at += 1;
    }
    OsString::from_vec(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn binary(program: &str, args: &[&str], needs_byte: bool) -> Target {
        Target::Binary(Binary {
            program: program.into(),
            args: args.iter().map(Into::into).collect(),
            needs_byte,
        })
    }

    #[test]
    fn every_scheme_is_told_from_a_path() {
        let cases = [
            ("", Target::Null),
            ("/run/c/stdout", Target::Path("/run/c/stdout".into())),
            ("/run/50%/a:b", Target::Path("/run/50%/a:b".into())),
            ("fifo:///run/x", Target::Path("/run/x".into())),
            ("file:///var/log/a%20b", Target::File("/var/log/a b".into())),
            ("binary:///bin/log", binary("/bin/log", &[], false)),
            (
                "binary:///bin/log?b=1&a=x%2Fy+z&b=2&flag",
                binary("/bin/log", &["b", "1", "a", "x/y z", "flag", ""], false),
            ),
            (
                "binary-v2:///bin/log?k=%zz",
                binary("/bin/log", &["k", "%zz"], true),
            ),
        ];
        for (value, expected) in cases {
            assert_eq!(parse(value).unwrap(), expected, "{value}");
        }
    }

    #[test]
    fn the_text_for_an_unknown_scheme_is_the_one_clients_match() {
        let error = parse("npipe:////./pipe/x").unwrap_err();
        assert_eq!(error.to_string(), "unknown STDIO scheme npipe");
    }

    #[test]
    fn a_uri_without_a_path_is_refused_by_name() {
        for value in [
            "binary://",
            "file://host",
            "binary://logger?x=y",
            "file:rel",
        ] {
            let error = parse(value).unwrap_err().to_string();
            assert!(error.contains(value), "{error}");
        }
    }
}
