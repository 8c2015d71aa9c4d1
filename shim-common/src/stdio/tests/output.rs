//! Output through FIFOs: no byte lost whenever the reader comes, goes or dawdles.

use super::*;

#[test]
fn a_reader_that_comes_after_the_end_gets_all_bytes_and_the_end_of_file() {
    on_one_thread(async {
        let client = Client::new();
        let mut io = opened(&client.request(false)).await;
        let told = start(&mut io);
        let bytes = pattern(50_000);
        end(&mut io.child.stdout).write_all(&bytes).unwrap();
        drop(end(&mut io.child.stderr));
        drained(&io, &told).await;
        let text = io.relay.describe();
        assert_eq!(text.matches("awaiting a reader").count(), 2, "{text}");
        assert_eq!(client.read("stdout").done().await, bytes);
        assert_eq!(client.read("stderr").done().await, b"");
    });
}

#[test]
fn a_late_reader_gets_more_than_the_pipes_hold() {
    on_one_thread(async {
        let client = Client::new();
        let mut io = opened(&client.request(false)).await;
        let told = start(&mut io);
        drop(end(&mut io.child.stderr));
        let bytes = pattern(1_000_000);
        let writer = write_all(end(&mut io.child.stdout), bytes.clone());
        until("both pipes are full", || {
            io.relay
                .describe()
                .contains("65536 in the pipe, 65536 in the FIFO")
        })
        .await;
        assert!(writer.is_busy() && !io.relay.is_drained());
        assert_eq!(client.read("stdout").done().await, bytes);
        assert!(writer.done().await);
        drained(&io, &told).await;
    });
}

#[test]
fn a_slow_reader_gets_a_hundred_megabytes_unharmed() {
    on_one_thread(async {
        const TOTAL: usize = 100_000_000;
        let client = Client::new();
        let mut io = opened(&client.request(false)).await;
        let told = start(&mut io);
        drop(end(&mut io.child.stderr));
        let mut stdout = end(&mut io.child.stdout);
        let writer = peer(move || {
            let block = pattern(1 << 20);
            let mut left = TOTAL;
            while left > 0 {
                // Odd sizes, so that buffers are split and merged.
                let now = left.min((left * 7919) % (block.len() - 1) + 1);
                stdout.write_all(&block[..now]).unwrap();
                left -= now;
            }
        });
        let path = client.path("stdout");
        let reader = peer(move || {
            let mut file = File::open(path).unwrap();
            let block = pattern(1 << 20);
            let (mut left, mut seen) = (TOTAL, vec![0; 1 << 20]);
            while left > 0 {
                let now = left.min((left * 7919) % (block.len() - 1) + 1);
                for chunk in seen[..now].chunks_mut(3001) {
                    file.read_exact(chunk).unwrap();
                    thread::yield_now();
                }
                assert!(seen[..now] == block[..now], "differs {left} before the end");
                left -= now;
            }
            file.read(&mut seen).unwrap()
        });
        writer.done().await;
        assert_eq!(reader.done().await, 0);
        drained(&io, &told).await;
    });
}

#[test]
fn an_absent_reader_blocks_its_writer_and_nobody_else() {
    on_one_thread(async {
        let client = Client::new();
        let mut io = opened(&client.request(false)).await;
        let told = start(&mut io);
        let blocked = write_all(end(&mut io.child.stdout), pattern(300_000));
        let bytes = pattern(3_000_000);
        let flowing = write_all(end(&mut io.child.stderr), bytes.clone());
        assert_eq!(client.read("stderr").done().await, bytes);
        assert!(flowing.done().await);
        assert!(blocked.is_busy() && !io.relay.is_drained());
        assert_eq!(client.read("stdout").done().await.len(), 300_000);
        drained(&io, &told).await;
    });
}

#[test]
fn a_reader_that_restarts_misses_nothing() {
    on_one_thread(async {
        let client = Client::new();
        let mut io = opened(&client.request(false)).await;
        let told = start(&mut io);
        drop(end(&mut io.child.stderr));
        let bytes = pattern(2_000_000);
        let writer = write_all(end(&mut io.child.stdout), bytes.clone());
        let mut seen = Vec::new();
        for _ in 0..10 {
            let path = client.path("stdout");
            let part = peer(move || {
                let mut part = vec![0; 100_001];
                File::open(path).unwrap().read_exact(&mut part).unwrap();
                part
            });
            seen.extend(part.done().await);
        }
        seen.extend(client.read("stdout").done().await);
        assert!(seen == bytes, "bytes differ");
        assert!(writer.done().await);
        drained(&io, &told).await;
    });
}

#[test]
fn streams_do_not_mix_and_the_runtime_sees_plain_pipes() {
    on_one_thread(async {
        let client = Client::new();
        let mut io = opened(&client.request(false)).await;
        let (mut stdout, mut stderr) = (end(&mut io.child.stdout), end(&mut io.child.stderr));
        assert!(matches!(io.child.stdin, Stdio::Null));
        let told = start(&mut io);
        let (out, err) = (client.read("stdout"), client.read("stderr"));
        for _ in 0..1000 {
            stdout.write_all(b"out").unwrap();
            stderr.write_all(b"err").unwrap();
        }
        drop((stdout, stderr));
        assert_eq!(out.done().await, b"out".repeat(1000));
        assert_eq!(err.done().await, b"err".repeat(1000));
        drained(&io, &told).await;
    });
}

#[test]
fn nothing_asked_for_is_dev_null_and_drained_at_once() {
    on_one_thread(async {
        let client = Client::new();
        let mut io = opened(&client.bare()).await;
        assert!(matches!(
            (&io.child.stdin, &io.child.stdout, &io.child.stderr),
            (Stdio::Null, Stdio::Null, Stdio::Null)
        ));
        let told = start(&mut io);
        drained(&io, &told).await;
        // Go fails on one empty stream; here it is /dev/null.
        let request = Request {
            stderr: client.fifo("only-err"),
            ..client.bare()
        };
        let mut io = opened(&request).await;
        assert!(matches!(io.child.stdout, Stdio::Null));
        let told = start(&mut io);
        end(&mut io.child.stderr).write_all(b"x").unwrap();
        assert_eq!(client.read("only-err").done().await, b"x");
        drained(&io, &told).await;
    });
}

#[test]
fn after_delete_a_stream_lives_as_long_as_its_reader() {
    on_one_thread(async {
        let client = Client::new();
        let mut io = opened(&client.request(false)).await;
        let told = start(&mut io);
        // Stdout: nobody reads; a process left behind keeps writing. Stderr: a reader lives.
        let lost = write_all(end(&mut io.child.stdout), pattern(1_000_000));
        let mut left_behind = end(&mut io.child.stderr);
        let path = client.path("stderr");
        let mut reader = peer(move || File::open(path).unwrap()).done().await;
        io.relay.release_readers();
        assert!(!lost.done().await, "its writer gets EPIPE");
        left_behind.write_all(b"still").unwrap();
        let mut seen = [0; 5];
        let reader = peer(move || {
            reader.read_exact(&mut seen).unwrap();
            assert_eq!(&seen, b"still");
            reader
        })
        .done()
        .await;
        assert!(!io.relay.is_drained());
        drop(reader);
        // The writer is silent and still there: the reader's going alone ends the stream.
        drained(&io, &told).await;
        assert!(left_behind.write_all(b"x").is_err());
    });
}

#[test]
fn bytes_without_a_reader_are_dropped_only_at_delete() {
    on_one_thread(async {
        let client = Client::new();
        let mut io = opened(&client.request(false)).await;
        let told = start(&mut io);
        end(&mut io.child.stdout).write_all(b"unread").unwrap();
        drop(end(&mut io.child.stderr));
        drained(&io, &told).await;
        io.relay.release_readers();
        until("both are closed", || {
            io.relay.describe().matches("done").count() == 2
        })
        .await;
    });
}

#[test]
fn a_path_that_is_not_there_is_named_in_the_error() {
    on_one_thread(async {
        let client = Client::new();
        let request = Request {
            stdout: "/nonexistent/stdout".to_owned(),
            ..client.bare()
        };
        let Err(error) = open(&request).await else {
            panic!("opened");
        };
        assert!(error.to_string().contains("/nonexistent/stdout"), "{error}");
    });
}

#[test]
fn pipes_belong_to_the_containers_user() {
    use std::os::unix::fs::MetadataExt;
    on_one_thread(async {
        let client = Client::new();
        let request = Request {
            uid: 1234,
            gid: 4321,
            ..client.request(true)
        };
        let mut io = opened(&request).await;
        let child = &mut io.child;
        for stream in [&mut child.stdin, &mut child.stdout, &mut child.stderr] {
            let metadata = end(stream).metadata().unwrap();
            assert_eq!((metadata.uid(), metadata.gid()), (1234, 4321));
        }
    });
}

#[test]
fn a_busy_stream_has_large_pipes_and_gives_them_back() {
    on_one_thread(async {
        let client = Client::new();
        let mut io = opened(&client.request(false)).await;
        start(&mut io);
        let mut stdout = end(&mut io.child.stdout);
        let own = stdout.try_clone().unwrap();
        let size = || sys::pipe::pipe_capacity(&own).unwrap();
        assert_eq!(size(), 65536);
        let path = client.path("stdout");
        let reader =
            peer(move || std::io::copy(&mut File::open(path).unwrap(), &mut std::io::sink()));
        let writer = peer(move || {
            stdout.write_all(&pattern(20_000_000)).unwrap();
            stdout
        });
        let stdout = writer.done().await;
        assert_eq!(size(), 262_144);
        // Quiet for some seconds, and the room is back within the user's quota of pipe pages.
        until("the pipe is small again", || size() == 65536).await;
        drop((stdout, own));
        assert_eq!(reader.done().await.unwrap(), 20_000_000);
    });
}
