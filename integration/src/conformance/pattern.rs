//! Names of tests with `*` for any text, as the manifests use them.

/// Whether `name` is what `pattern` says, in which each `*` stands for any text, none included.
pub fn matches(pattern: &str, name: &str) -> bool {
    let mut parts = pattern.split('*');
    let first = parts.next().unwrap_or_default();
    let Some(mut rest) = name.strip_prefix(first) else {
        return false;
    };
    let mut parts = parts.peekable();
    if parts.peek().is_none() {
        return rest.is_empty();
    }
    while let Some(part) = parts.next() {
        if parts.peek().is_none() {
            return rest.ends_with(part);
        }
        let Some(at) = rest.find(part) else {
            return false;
        };
        rest = &rest[at + part.len()..];
    }
    true
}

#[cfg(test)]
mod tests {
    use super::matches;

    #[test]
    fn a_star_is_any_text() {
        assert!(matches("start::a_b", "start::a_b"));
        assert!(!matches("start::a", "start::a_b"));
        assert!(matches("start::*", "start::a_b"));
        assert!(matches("*::row6_*", "complaints::row6_waits"));
        assert!(!matches("*::row6_*", "complaints::row16_waits"));
        assert!(matches("state::*::kill_*d", "state::init::kill_created"));
        assert!(!matches("state::*::kill_*d", "state::init::kill_running"));
    }
}
