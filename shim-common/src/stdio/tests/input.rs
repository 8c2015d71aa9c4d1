//! Input: clients may come early, late and again; the end comes with CloseIO.

use super::*;

/// Reads the container's standard input in a thread.
fn read_end(mut stdin: File) -> Peer<Vec<u8>> {
    peer(move || {
        let mut bytes = Vec::new();
        stdin.read_to_end(&mut bytes).unwrap();
        bytes
    })
}

#[test]
fn input_typed_before_the_start_arrives_and_ends_with_close_io() {
    on_one_thread(async {
        let client = Client::new();
        let mut io = opened(&client.request(true)).await;
        let mut typing = client.writer("stdin");
        typing.write_all(b"early ").unwrap();
        start(&mut io);
        let input = read_end(end(&mut io.child.stdin));
        drop(typing);
        // Another client later: the FIFO is still held.
        let mut typing = client.writer("stdin");
        typing.write_all(b"late").unwrap();
        io.relay.close_stdin();
        assert!(io.relay.describe().contains("stdin: closed"));
        until("the FIFO is taken", || {
            sys::pipe::unread_bytes(&typing).unwrap() == 0
        })
        .await;
        assert!(input.is_busy(), "a client still has it open");
        drop(typing);
        assert_eq!(input.done().await, b"early late");
    });
}

#[test]
fn close_io_without_any_client_is_the_end_of_input() {
    on_one_thread(async {
        let client = Client::new();
        let mut io = opened(&client.request(true)).await;
        start(&mut io);
        let input = read_end(end(&mut io.child.stdin));
        io.relay.close_stdin();
        assert_eq!(input.done().await, b"");
    });
}

#[test]
fn a_hundred_megabytes_of_input_arrive() {
    on_one_thread(async {
        let client = Client::new();
        let mut io = opened(&client.request(true)).await;
        start(&mut io);
        let input = read_end(end(&mut io.child.stdin));
        let typing = client.writer("stdin");
        io.relay.close_stdin();
        let bytes = pattern(100_000_000);
        assert!(write_all(typing, bytes.clone()).done().await);
        assert!(input.done().await == bytes, "bytes differ");
    });
}

#[test]
fn a_container_that_closes_its_input_closes_the_fifo() {
    on_one_thread(async {
        let client = Client::new();
        let mut io = opened(&client.request(true)).await;
        start(&mut io);
        let mut typing = client.writer("stdin");
        drop(end(&mut io.child.stdin));
        // Nothing was typed: the relay notices by itself, and lets go of the FIFO.
        until("the FIFO has no reader", || typing.write(b"x").is_err()).await;
        assert!(io.relay.describe().contains("stdin: closed"));
    });
}

#[test]
fn an_exit_closes_the_input_of_a_client_that_never_said_close_io() {
    on_one_thread(async {
        let client = Client::new();
        let mut io = opened(&client.request(true)).await;
        start(&mut io);
        // A process left behind keeps the pipe open, the client died: containerd #8856.
        let _left_behind = end(&mut io.child.stdin);
        let mut typing = client.writer("stdin");
        io.relay.process_exited();
        until("the FIFO has no reader", || typing.write(b"x").is_err()).await;
    });
}
