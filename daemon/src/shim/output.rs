//! What a shim's binary prints before it ends, in bounded time and memory: it may hang, talk for
//! ever, or leave its output open in a process it has started.

use std::io;
use std::process::{ExitStatus, Output};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::process::Child;
use tokio::time::{Instant, timeout_at};

/// The most that is kept of each stream, in bytes; who prints more is cut off.
const SPACE: u64 = 64 << 10;
/// How much of it an error quotes, in characters.
const QUOTE: usize = 2000;

/// Waits for the end of `child`, which leads a process group of its own, and of its output.
///
/// # Errors
/// `TimedOut` after `limit`, with what it has printed; it is killed then, with all that it has
/// started in its group.
pub async fn of(mut child: Child, limit: Duration) -> io::Result<Output> {
    let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
    let (mut said, mut complained) = (Vec::new(), Vec::new());
    let deadline = Instant::now() + limit;
    let ended = timeout_at(deadline, async {
        tokio::join!(read(stdout, &mut said), read(stderr, &mut complained));
        child.wait().await
    });
    match ended.await {
        Ok(status) => Ok(Output {
            status: status?,
            stdout: said,
            stderr: complained,
        }),
        Err(_) => {
            kill(&mut child).await;
            let text = format!(
                "took longer than {limit:?}, and was killed: {}",
                quote(&said, &complained)
            );
            Err(io::Error::new(io::ErrorKind::TimedOut, text))
        }
    }
}

/// What a program has printed, for an error about it.
pub fn quote(stdout: &[u8], stderr: &[u8]) -> String {
    let said = [stdout, stderr].concat();
    let said = String::from_utf8_lossy(&said);
    match said.trim() {
        "" => "it said nothing".to_owned(),
        said => said.chars().take(QUOTE).collect(),
    }
}

async fn read(from: Option<impl AsyncRead + Unpin>, into: &mut Vec<u8>) {
    if let Some(from) = from {
        // Dropped when there is enough: who goes on writing is told by SIGPIPE.
        let _ = from.take(SPACE).read_to_end(into).await;
    }
}

async fn kill(child: &mut Child) -> Option<ExitStatus> {
    // Not collected yet, so the number is still its own.
    if let Some(pid) = child.id().and_then(|pid| i32::try_from(pid).ok()) {
        let _ = sys::pidfd::kill_group(pid, libc::SIGKILL);
    }
    child.kill().await.ok()?;
    child.wait().await.ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Stdio;
    use tokio::process::Command;

    fn sh(script: &str) -> Child {
        let mut command = Command::new("sh");
        command.args(["-c", script]).process_group(0);
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        command.spawn().unwrap()
    }

    #[tokio::test]
    async fn output_is_bounded_in_time_and_space() {
        let limit = Duration::from_secs(20);
        let ended = of(sh("echo out; echo err >&2; exit 3"), limit)
            .await
            .unwrap();
        assert_eq!(ended.status.code(), Some(3));
        assert_eq!(
            (&ended.stdout[..], &ended.stderr[..]),
            (&b"out\n"[..], &b"err\n"[..])
        );
        let endless = of(sh("yes"), limit).await.unwrap();
        assert_eq!(endless.stdout.len(), usize::try_from(SPACE).unwrap());
        assert!(!endless.status.success(), "{}", endless.status);

        let dir = tempfile::tempdir().unwrap();
        let note = dir.path().join("pid");
        let script = format!(
            "echo wait a bit; sleep 1000 & echo $! > {}; wait",
            note.display()
        );
        let error = of(sh(&script), Duration::from_millis(500))
            .await
            .unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        assert!(error.to_string().ends_with("wait a bit"), "{error}");
        // Its own children are killed with it; init or a subreaper has them a moment as zombies.
        let pid = std::fs::read_to_string(note).unwrap();
        let stat = || std::fs::read_to_string(format!("/proc/{}/stat", pid.trim()));
        let deadline = Instant::now() + limit;
        while stat().is_ok_and(|stat| !stat.contains(") Z ")) {
            assert!(Instant::now() < deadline, "it lives on");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}
