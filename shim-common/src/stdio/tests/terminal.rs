//! Terminals: a real one, handed over through the console socket as a runtime does it.

use std::io::IoSlice;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net::UnixStream;

use nix::pty::openpty;
use nix::sys::socket::{ControlMessage, MsgFlags, sendmsg};
use sys::spawn::Spawn;

use super::*;

/// Plays the runtime: makes a terminal, sends its master to the socket, returns the slave.
fn hand_over(socket: PathBuf) -> OwnedFd {
    let pty = openpty(None, None).unwrap();
    let stream = UnixStream::connect(socket).unwrap();
    let master = [pty.master.as_raw_fd()];
    let name = [IoSlice::new(b"/dev/ptmx")];
    let rights = [ControlMessage::ScmRights(&master)];
    sendmsg::<()>(stream.as_raw_fd(), &name, &rights, MsgFlags::empty(), None).unwrap();
    pty.slave
}

pub(super) async fn with_terminal(client: &Client) -> (Opened, Receiver<()>, OwnedFd) {
    let request = Request {
        terminal: true,
        ..client.request(true)
    };
    let mut io = opened(&request).await;
    assert!(matches!(io.child.stdout, Stdio::Null));
    let told = start(&mut io);
    let console = io.console.take().unwrap();
    let (path, folder) = (
        console.path().to_path_buf(),
        client.folder.path().to_path_buf(),
    );
    assert!(path.starts_with(&folder));
    let runtime = peer(move || hand_over(path));
    let master = console.receive().await.unwrap();
    let slave = runtime.done().await;
    let left: Vec<_> = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| name.starts_with("pty"))
        .collect();
    assert!(left.is_empty(), "the socket's folder is left: {left:?}");
    io.relay.attach(master).unwrap();
    (io, told, slave)
}

/// The number that a description says before "in the FIFO".
fn in_fifo(description: &str) -> usize {
    let words: Vec<_> = description.split_ascii_whitespace().collect();
    let at = words
        .windows(3)
        .position(|three| three == ["in", "the", "FIFO"]);
    words[at.unwrap() - 1].parse().unwrap()
}

fn cat(slave: OwnedFd) -> sys::spawn::Child {
    let mut spawn = Spawn::new("/bin/cat");
    spawn.stdin = Stdio::Fd(slave.try_clone().unwrap());
    spawn.stdout = Stdio::Fd(slave);
    spawn.spawn().unwrap()
}

#[test]
fn a_session_echoes_and_ends_when_its_input_does() {
    on_one_thread(async {
        let client = Client::new();
        let (mut io, told, slave) = with_terminal(&client).await;
        let child = cat(slave);
        let output = client.read("stdout");
        let mut typing = client.writer("stdin");
        typing.write_all(b"hello\n").unwrap();
        until("it is echoed and answered", || {
            io.relay.describe().contains(" 14 bytes")
        })
        .await;
        // No CloseIO: a client that goes leaves the session as it is.
        drop(typing);
        client.writer("stdin").write_all(b"half a line").unwrap();
        until("it is echoed", || io.relay.describe().contains(" 25 bytes")).await;
        assert!(!has_ended(child.pid));
        io.relay.close_stdin();
        until("the program has seen the end", || has_ended(child.pid)).await;
        sys::wait::wait_pid(child.pid).unwrap();
        io.relay.process_exited();
        assert_eq!(
            output.done().await,
            b"hello\r\nhello\r\nhalf a linehalf a line"
        );
        drained(&io, &told).await;
    });
}

#[test]
fn a_terminal_closed_and_opened_again_goes_on() {
    on_one_thread(async {
        let client = Client::new();
        let (mut io, told, slave) = with_terminal(&client).await;
        let output = client.read("stdout");
        let name = nix::unistd::ttyname(&slave).unwrap();
        let mut first = File::from(slave);
        first.write_all(b"one ").unwrap();
        until("it is shown", || io.relay.describe().contains(" 4 bytes")).await;
        drop(first);
        assert!(!io.relay.is_drained(), "a hang-up is not the end");
        // systemd does so with /dev/console for each of its messages.
        for _ in 0..3 {
            let mut again = OpenOptions::new().write(true).open(&name).unwrap();
            again.write_all(b"more").unwrap();
        }
        until("all is shown", || io.relay.describe().contains(" 16 bytes")).await;
        io.relay.process_exited();
        assert_eq!(output.done().await, b"one moremoremore");
        drained(&io, &told).await;
    });
}

#[test]
fn the_last_output_of_a_process_arrives_although_others_have_the_terminal() {
    on_one_thread(async {
        let client = Client::new();
        let (mut io, told, slave) = with_terminal(&client).await;
        let mut left_behind = File::from(slave);
        // More than the FIFO takes while its reader is away.
        let bytes = b"0123456789".repeat(20_000);
        let last = left_behind.try_clone().unwrap();
        let writer = write_all(last, bytes.clone());
        until("the FIFO holds some", || {
            in_fifo(&io.relay.describe()) > 20_000
        })
        .await;
        let output = client.read("stdout");
        assert!(writer.done().await);
        io.relay.process_exited();
        assert!(output.done().await == bytes, "bytes differ");
        drained(&io, &told).await;
        // The master is closed, and so the terminal hung up.
        until("hung up", || left_behind.write(b"x").is_err()).await;
    });
}

#[test]
fn output_of_a_process_gone_before_its_master_came_arrives() {
    on_one_thread(async {
        let client = Client::new();
        let request = Request {
            terminal: true,
            ..client.request(true)
        };
        let mut io = opened(&request).await;
        let told = start(&mut io);
        let console = io.console.take().unwrap();
        let path = console.path().to_path_buf();
        let runtime = peer(move || File::from(hand_over(path)).write_all(b"short").unwrap());
        runtime.done().await;
        io.relay.process_exited();
        assert!(!io.relay.is_drained());
        io.relay.attach(console.receive().await.unwrap()).unwrap();
        assert_eq!(client.read("stdout").done().await, b"short");
        drained(&io, &told).await;
    });
}

#[test]
fn a_terminal_is_resized_and_without_one_nothing_fails() {
    on_one_thread(async {
        let client = Client::new();
        let (io, _told, slave) = with_terminal(&client).await;
        io.relay.resize(123, 45).unwrap();
        let size = nix::sys::termios::tcgetattr(&slave).map(|_| sys::tty::window_size(&slave));
        assert_eq!(size.unwrap().unwrap(), (123, 45));
        let other = Client::new();
        opened(&other.request(false))
            .await
            .relay
            .resize(1, 1)
            .unwrap();
    });
}

#[test]
fn a_terminal_needs_a_fifo_or_a_logger() {
    on_one_thread(async {
        let client = Client::new();
        for stdout in [String::new(), "file:///tmp/x".to_owned()] {
            let request = Request {
                stdout,
                terminal: true,
                ..client.bare()
            };
            assert!(open(&request).await.is_err());
        }
    });
}

#[test]
fn a_terminal_can_go_to_a_logger() {
    on_one_thread(async {
        let client = Client::new();
        let out = client.path("out");
        let script = format!("exec 5>&-; exec cat <&3 >{}", out.display());
        let script: String = script.bytes().map(|byte| format!("%{byte:02x}")).collect();
        let request = Request {
            stdout: format!("binary:///bin/sh?-c={script}"),
            terminal: true,
            ..client.bare()
        };
        let mut io = opened(&request).await;
        let told = start(&mut io);
        let console = io.console.take().unwrap();
        let path = console.path().to_path_buf();
        let runtime = peer(move || hand_over(path));
        io.relay.attach(console.receive().await.unwrap()).unwrap();
        File::from(runtime.done().await)
            .write_all(b"logged")
            .unwrap();
        io.relay.process_exited();
        drained(&io, &told).await;
        assert_eq!(std::fs::read(out).unwrap(), b"logged");
    });
}
