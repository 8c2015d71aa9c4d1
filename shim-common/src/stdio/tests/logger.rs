//! Loggers: ready or not, alive or dead.

use super::*;
use crate::stdio::uri::{Target, parse};

fn encoded(script: &str) -> String {
    script.bytes().map(|byte| format!("%{byte:02x}")).collect()
}

fn shell(scheme: &str, script: &str) -> String {
    format!("{scheme}:///bin/sh?-c={}", encoded(script))
}

#[test]
fn a_logger_gets_both_streams_its_names_and_the_end_of_file() {
    on_one_thread(async {
        let client = Client::new();
        let (out, err) = (client.path("out"), client.path("err"));
        let script = format!(
            "printf r >&5; exec 5>&-; cat <&3 >{} & cat <&4 >{}; wait; env >>{0}",
            out.display(),
            err.display(),
        );
        let request = Request {
            stdout: shell("binary-v2", &script),
            ..client.bare()
        };
        let mut io = opened(&request).await;
        let told = start(&mut io);
        end(&mut io.child.stdout).write_all(b"to out\n").unwrap();
        end(&mut io.child.stderr).write_all(b"to err\n").unwrap();
        // No write end stays in the shim: the logger ends by itself, and that is drained.
        io.relay.process_exited();
        drained(&io, &told).await;
        let text = std::fs::read_to_string(out).unwrap();
        assert!(text.starts_with("to out\n"), "{text}");
        let mut names: Vec<_> = text
            .lines()
            .skip(1)
            .filter(|l| !l.starts_with("PWD="))
            .collect();
        names.sort_unstable();
        assert_eq!(names, ["CONTAINER_ID=c1", "CONTAINER_NAMESPACE=ns"]);
        assert_eq!(std::fs::read(err).unwrap(), b"to err\n");
    });
}

#[test]
fn the_end_of_the_ready_pipe_is_enough_for_the_first_protocol_only() {
    on_one_thread(async {
        let client = Client::new();
        let script = "exec 5>&-; exec cat <&3 >/dev/null";
        let request = |scheme| Request {
            stdout: shell(scheme, script),
            ..client.bare()
        };
        drop(opened(&request("binary")).await);
        let Err(error) = open(&request("binary-v2")).await else {
            panic!("opened");
        };
        let text = error.to_string();
        assert!(
            text.contains("/bin/sh") && text.contains("ready pipe"),
            "{text}"
        );
    });
}

#[test]
fn a_logger_that_is_never_ready_is_killed_and_named() {
    on_one_thread(async {
        let client = Client::new();
        let pid = client.path("pid");
        let script = format!("echo $$ >{}; exec sleep 1000", pid.display());
        let Ok(Target::Binary(binary)) = parse(&shell("binary", &script)) else {
            panic!("no logger");
        };
        let (out, _out) = sys::pipe::pipe().unwrap();
        let (err, _err) = sys::pipe::pipe().unwrap();
        let limit = Duration::from_secs(1);
        let started = crate::stdio::binary::start_within(limit, binary, "c", "n", out, err).await;
        let Err(error) = started else {
            panic!("ready");
        };
        assert_eq!(error.to_string(), "logger /bin/sh: is not ready after 1 s");
        let pid = std::fs::read_to_string(pid)
            .unwrap()
            .trim()
            .parse()
            .unwrap();
        until("it is dead", || has_ended(pid)).await;
    });
}

#[test]
fn a_logger_that_dies_is_noticed_and_said() {
    keep_log();
    on_one_thread(async {
        let client = Client::new();
        let request = Request {
            stdout: shell("binary", "exec 5>&-; read x <&3"),
            container_id: "dying-logger".to_owned(),
            ..client.bare()
        };
        let mut io = opened(&request).await;
        start(&mut io);
        let mut stdout = end(&mut io.child.stdout);
        stdout.write_all(b"die\n").unwrap();
        until("its death is said", || {
            logged("of dying-logger has ended while its container runs")
        })
        .await;
        assert!(stdout.write_all(b"x").is_err(), "nobody pretends to log");
    });
}

#[test]
fn a_logger_that_ignores_the_end_is_told_by_a_signal() {
    on_one_thread(async {
        let client = Client::new();
        let pid = client.path("pid");
        let script = format!("echo $$ >{}; exec 5>&-; exec sleep 1000", pid.display());
        let request = Request {
            stdout: shell("binary", &script),
            ..client.bare()
        };
        let mut io = opened(&request).await;
        start(&mut io);
        drop(io.child);
        let pid = std::fs::read_to_string(pid)
            .unwrap()
            .trim()
            .parse()
            .unwrap();
        assert!(!has_ended(pid));
        io.relay.shut();
        until("it has ended", || has_ended(pid)).await;
    });
}

#[test]
fn a_logger_that_is_not_there_is_named() {
    on_one_thread(async {
        let client = Client::new();
        let request = Request {
            stdout: "binary:///nonexistent/logger".to_owned(),
            ..client.bare()
        };
        let Err(error) = open(&request).await else {
            panic!("opened");
        };
        assert!(error.to_string().contains("/nonexistent/logger"), "{error}");
    });
}
