//! What can go wrong with a registry, so that what is tried again is told from what is not.

use std::error::Error as _;
use std::fmt;
use std::time::Duration;

use reqwest::StatusCode;

/// A request that did not bring what was asked for.
#[derive(Debug)]
pub(crate) struct Fault {
    /// The host that was asked.
    pub(crate) host: String,
    /// How it went wrong.
    pub(crate) why: Why,
}

/// How a request went wrong.
#[derive(Debug)]
pub(crate) enum Why {
    /// The host wants to know who asks, or does not let them.
    Unauthorized {
        /// What it, or whoever makes its tokens, said.
        said: String,
        /// The credentials that were shown, if any.
        as_whom: Option<String>,
    },
    /// The thing is not there.
    NotFound,
    /// Another answer than was hoped for.
    Refused {
        /// The status.
        status: StatusCode,
        /// What the host said with it.
        said: String,
        /// How long to wait before asking again, where it says so.
        after: Option<Duration>,
    },
    /// No answer, or half of one.
    Lost(String),
    /// An answer that follows no protocol.
    Nonsense(String),
}

impl Fault {
    pub(crate) fn new(host: impl Into<String>, why: Why) -> Self {
        let host = host.into();
        Self { host, why }
    }

    /// An error of the transport. Its address is left out: that of a redirect may carry a signature.
    pub(crate) fn lost(host: &str, error: reqwest::Error) -> Self {
        Self::new(host, Why::Lost(causes(&error.without_url())))
    }

    pub(crate) fn nonsense(host: &str, what: impl Into<String>) -> Self {
        Self::new(host, Why::Nonsense(what.into()))
    }

    /// Whether the same request may do better a little later.
    pub(crate) fn is_passing(&self) -> bool {
        match &self.why {
            Why::Lost(_) => true,
            Why::Refused { status, .. } => {
                status.is_server_error() && *status != StatusCode::NOT_IMPLEMENTED
                    || *status == StatusCode::TOO_MANY_REQUESTS
                    || *status == StatusCode::REQUEST_TIMEOUT
            }
            _ => false,
        }
    }

    /// How long the host asks to be left alone.
    pub(crate) fn after(&self) -> Option<Duration> {
        match &self.why {
            Why::Refused { after, .. } => *after,
            _ => None,
        }
    }

    pub(crate) fn is_not_found(&self) -> bool {
        matches!(self.why, Why::NotFound)
    }
}

/// The last of an error's causes: the layers above it only say that something went wrong.
fn causes(error: &reqwest::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text = cause.to_string();
        source = cause.source();
    }
    if error.is_timeout() {
        "no answer in time".to_owned()
    } else {
        text
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let host = &self.host;
        match &self.why {
            Why::Unauthorized { said, as_whom } => {
                match as_whom {
                    None => write!(
                        f,
                        "{host} wants to know who asks, or has no such image; there are no \
                         credentials for it (docker login {host}, or --user NAME:PASSWORD)"
                    )?,
                    Some(whom) => write!(
                        f,
                        "{host} does not let {whom} do this: wrong password, or no right to it \
                         (docker login {host}, or --user NAME:PASSWORD)"
                    )?,
                }
                if said.is_empty() {
                    return Ok(());
                }
                write!(f, "; it says: {said}")
            }
            Why::NotFound => write!(f, "{host} does not have it"),
            Why::Refused { status, said, .. } if said.is_empty() => {
                write!(f, "{host} answers {status}")
            }
            Why::Refused { status, said, .. } => write!(f, "{host} answers {status}: {said}"),
            Why::Lost(why) => write!(f, "{host}: {why}"),
            Why::Nonsense(what) => write!(f, "{host}: {what}"),
        }
    }
}
