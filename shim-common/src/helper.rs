//! Short-lived threads for what may block: mounts, plain files, cgroup statistics.
//!
//! The main thread of a shim never blocks (DESIGN rule 1), and an idle shim has no other thread:
//! so each such job gets a thread for itself, and its result is an input like any other. The
//! thread inherits the blocked signals of the main thread, which keeps signals out of it.

use std::fmt;
use std::future::{Future, poll_fn};
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::pin;
use std::task::Poll;
use std::thread;

use tokio::sync::oneshot;

/// Name of a helper thread, as `ps -L` shows it.
pub const THREAD_NAME: &str = "wherry-helper";

/// Room for path buffers and shallow calls; helpers do not recurse.
const STACK_SIZE: usize = 128 * 1024;

/// Why a job gave no result.
#[derive(Debug)]
pub enum HelperError {
    /// No thread could be had: too many tasks, or no memory.
    Spawn(io::Error),
    /// The job panicked; the panic is in the log.
    Panicked,
}

impl fmt::Display for HelperError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Spawn(error) => write!(f, "start a helper thread: {error}"),
            Self::Panicked => f.write_str("the shim failed in what it did; its log says where"),
        }
    }
}

impl std::error::Error for HelperError {}

/// Starts `work` on a thread of its own, at once and whether or not the future is polled, and
/// gives a future of its result. A dropped future does not stop the work.
///
/// # Errors
/// The future yields [`HelperError`] when the thread could not be started or the work panicked.
pub fn run<T, F>(work: F) -> impl Future<Output = Result<T, HelperError>> + Send + use<T, F>
where
    T: Send + 'static,
    F: FnOnce() -> T + Send + 'static,
{
    let (done, result) = oneshot::channel();
    let started = thread::Builder::new()
        .name(THREAD_NAME.to_owned())
        .stack_size(STACK_SIZE)
        .spawn(move || {
            // A panic drops nothing that others see half done: the work owns all it uses.
            let outcome = catch_unwind(AssertUnwindSafe(work)).map_err(|_| HelperError::Panicked);
            // Nobody may be waiting any more; then the result is of no use to anybody.
            let _ = done.send(outcome);
        });
    async move {
        started.map_err(HelperError::Spawn)?;
        result.await.unwrap_or(Err(HelperError::Panicked))
    }
}

/// What `work` gives, or the error that it panicked: for futures of the main thread whose end
/// somebody waits for.
///
/// # Errors
/// [`HelperError::Panicked`].
pub async fn contain<T>(work: impl Future<Output = T>) -> Result<T, HelperError> {
    let mut work = pin!(work);
    poll_fn(|context| {
        // It is not polled again, so that nothing half done is seen.
        catch_unwind(AssertUnwindSafe(|| work.as_mut().poll(context)))
            .map_or(Poll::Ready(Err(HelperError::Panicked)), |poll| poll.map(Ok))
    })
    .await
}

#[cfg(test)]
mod tests {
    use super::*;

    fn block_on<T>(future: impl Future<Output = T>) -> T {
        tokio::runtime::Builder::new_current_thread()
            .build()
            .unwrap()
            .block_on(future)
    }

    #[test]
    fn the_result_comes_from_another_thread() {
        let here = thread::current().id();
        let (there, name) = block_on(run(|| {
            (
                thread::current().id(),
                thread::current().name().map(str::to_owned),
            )
        }))
        .unwrap();
        assert_ne!(here, there);
        assert_eq!(name.as_deref(), Some(THREAD_NAME));
    }

    #[test]
    fn a_panic_stays_in_the_helper() {
        let result = block_on(run(|| -> u8 { panic!("expected by the test") }));
        assert!(matches!(result, Err(HelperError::Panicked)));
    }

    #[test]
    fn a_panic_stays_in_the_future() {
        let result = block_on(contain(async {
            tokio::task::yield_now().await;
            panic!("expected by the test")
        }));
        assert!(matches!(result, Err::<(), _>(HelperError::Panicked)));
        assert_eq!(block_on(contain(async { 7 })).unwrap(), 7);
    }

    #[test]
    fn the_main_thread_answers_while_a_helper_blocks() {
        let (release, held) = std::sync::mpsc::channel::<()>();
        block_on(async {
            let blocked = run(move || held.recv());
            let quick = run(|| 7).await.unwrap();
            assert_eq!(quick, 7);
            release.send(()).unwrap();
            blocked.await.unwrap().unwrap();
        });
    }
}
