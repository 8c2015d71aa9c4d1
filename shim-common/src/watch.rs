//! Descriptors in the event loop: the one place that knows how tokio wants to be given them.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};

use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// Puts a nonblocking descriptor into the event loop of the current runtime.
///
/// # Errors
/// Those of epoll_ctl(2), such as a descriptor of a kind that cannot be waited for.
#[expect(
    deprecated,
    reason = "the replacement is unsafe for the sake of types whose descriptor can change; \
              every type given here owns one descriptor that never does"
)]
pub(crate) fn watch<T: AsRawFd>(inner: T, interest: Interest) -> io::Result<AsyncFd<T>> {
    AsyncFd::with_interest(inner, interest)
}

/// Returns when the process of `pidfd` has ended, whether it is a child of ours or not.
///
/// # Errors
/// The descriptor cannot be waited for.
pub async fn ended(pidfd: OwnedFd) -> io::Result<()> {
    watch(pidfd, Interest::READABLE)?.readable().await.map(drop)
}
