//! status
#![allow(missing_docs)]
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    pub code: i32,
    pub message: String,
}
impl std::fmt::Display for Refusal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.message)
    }
}
macro_rules! c { ($($n:ident $c:expr;)*) => { impl Refusal { $(pub fn $n(m: impl Into<String>) -> Self { Self { code: $c, message: m.into() } })* } } }
c! { unknown 2; not_found 5; already_exists 6; failed_precondition 9; aborted 10; invalid_argument 3; internal 13; unavailable 14; }
