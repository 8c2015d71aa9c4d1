//! How `wherry` behaves towards people: help, errors, colours, terminals.
#![allow(
    clippy::disallowed_methods,
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "tests run programs, and end where something is not as it must be"
)]

mod common;

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::UnixListener;
use std::process::Stdio;

use common::{Bed, Engine, Terminal, run, wait, wherry};

const COMMANDS: [&str; 8] = [
    "run", "ps", "exec", "kill", "rm", "inspect", "events", "version",
];

#[test]
fn every_command_explains_itself() {
    let help = run(wherry().arg("--help")).ok();
    assert!(help.contains("CONTAINERD_ADDRESS") && help.contains("Exit codes"));
    assert!(!help.contains('\x1b'), "colour into a pipe");
    for command in COMMANDS {
        assert!(help.contains(&format!("  {command} ")), "{command}: {help}");
        let own = run(wherry().args([command, "--help"])).ok();
        assert!(own.contains("Usage: wherry"), "{own}");
    }
    assert_eq!(
        run(wherry().arg("--version")).ok(),
        format!("wherry {}\n", env!("CARGO_PKG_VERSION"))
    );
}

#[test]
fn shells_can_complete_it() {
    for shell in ["bash", "zsh", "fish"] {
        let script = run(wherry().args(["completion", shell])).ok();
        assert!(
            script.contains("--rootfs") || script.contains("rootfs"),
            "{shell}"
        );
    }
    let dir = tempfile::tempdir().unwrap();
    let script = dir.path().join("wherry");
    std::fs::write(&script, run(wherry().args(["completion", "bash"])).ok()).unwrap();
    let mut bash = std::process::Command::new("bash");
    run(bash.arg("-n").arg(&script)).ok();
}

#[test]
fn mistakes_are_answered_with_what_was_meant() {
    let said = run(wherry().arg("evnts")).failed(2);
    assert!(said.contains("similar"), "{said}");
    let said = run(wherry().args(["run", "--rotfs", "/", "sh"])).failed(125);
    assert!(said.contains("--rootfs"), "{said}");
    let said = run(wherry().args(["run", "--rm"])).failed(125);
    assert!(said.contains("an image is missing"), "{said}");
    let said = run(wherry().args(["run", "--rootfs", "/"])).failed(125);
    assert!(said.contains("a command is missing"), "{said}");
    let said = run(wherry().args(["run", "--rootfs", "/nowhere", "sh"])).failed(125);
    assert!(said.contains("/nowhere: No such file"), "{said}");
    let said = run(wherry().args(["kill", "-s", "KLL", "x"])).failed(2);
    assert!(said.contains("no such signal"), "{said}");
}

#[test]
fn an_unreachable_daemon_is_named_with_the_reason() {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("s.sock");
    let name = socket.to_str().unwrap().to_owned();
    let said = run(wherry().args(["-a", &name, "ps"])).failed(1);
    assert!(said.contains(&format!(
        "cannot connect to {name}: there is no such socket"
    )));
    assert!(said.contains("is wherryd running?"), "{said}");
    // A socket that a daemon left.
    drop(UnixListener::bind(&socket).unwrap());
    let said = run(wherry().env("CONTAINERD_ADDRESS", &name).arg("ps")).failed(1);
    assert!(said.contains("no daemon listens there"), "{said}");
    let said = run(wherry().args(["-a", &name, "run", "--rootfs", "/", "sh"])).failed(125);
    assert!(said.contains("no daemon listens there"), "{said}");
    let version = run(wherry().args(["-a", &name, "version"]));
    assert!(version.stdout.starts_with("client:"), "{version:?}");
    version.failed(1);
}

#[test]
fn no_words_make_it_panic() {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("none");
    let address = socket.as_os_str();
    let words = [
        "",
        "-",
        "--",
        "-a",
        "a=b",
        "=",
        ":",
        "::",
        ",",
        "ä\u{7f}",
        "0",
        "-1",
        "18446744073709551616",
        "/",
        "\n",
        "%s",
        "--format",
        "json",
        "--rootfs",
        "--memory=9t",
        "--cpus=nan",
        "--mount=,",
        "-v:",
        "-u",
        "--user=:",
        "--env==",
        "--label==",
        "--net",
        "--name=",
        "-it",
        "--log=x",
    ];
    for command in COMMANDS.iter().chain(&["", "nothing"]) {
        for word in words {
            let mut line = wherry();
            line.arg("-a")
                .arg(address)
                .arg(command)
                .arg(word)
                .args(["x", "y"]);
            let ran = run(&mut line);
            assert!(
                matches!(ran.code, Some(0 | 1 | 2 | 125)),
                "{line:?}: {ran:?}"
            );
            assert!(!ran.stderr.contains("panicked"), "{line:?}: {ran:?}");
        }
    }
    for (flag, value) in [
        ("-a", "\0"),
        ("-a", "unix://"),
        ("-a", "tcp://x"),
        ("-n", ""),
        ("-n", "\n"),
    ] {
        if value.contains('\0') {
            continue;
        }
        let ran = run(wherry().args([flag, value, "ps"]));
        assert!(!ran.failed(1).is_empty());
    }
    let bytes = OsStr::from_bytes(b"\xff\xfe");
    for flag in ["--rootfs", "--name", "--cwd"] {
        let ran = run(wherry().args(["run", flag]).arg(bytes).args(["x", "y"]));
        ran.failed(125);
    }
}

#[test]
fn a_closed_stdout_is_no_failure() {
    let bed = Bed::new(Engine::Wherryd);
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let mut child = bed.command();
    child.args(["version"]).stdin(Stdio::null()).stdout(writer);
    child.stderr(Stdio::piped());
    let mut child = child.spawn().unwrap();
    let status = wait(&mut child).unwrap();
    let said = std::io::read_to_string(child.stderr.take().unwrap()).unwrap();
    assert_eq!((status.code(), said.as_str()), (Some(0), ""));
}

#[test]
fn colour_is_for_terminals_and_those_who_want_it() {
    let bed = Bed::new(Engine::Wherryd);
    bed.run(&["-d", "--name", "c", "sleep", "1000"]).ok();
    let shown = |plain: bool| {
        let mut command = bed.command();
        command.arg("ps");
        if plain {
            command.env("NO_COLOR", "1");
        }
        let (terminal, mut child) = Terminal::start(&command, 200, 50);
        terminal.expect("running");
        assert_eq!(wait(&mut child).unwrap().code(), Some(0));
        terminal.seen()
    };
    assert!(shown(false).contains("\x1b[32mrunning\x1b[0m"));
    assert!(!shown(true).contains('\x1b'));
}

fn a_terminal_is_passed_through(engine: Engine) {
    let bed = Bed::new(engine);
    let command = bed.run_command(&["--rm", "-it", "--name", "t", "sh"]);
    let (mut terminal, mut child) = Terminal::start(&command, 91, 37);
    terminal.expect("# ");
    // The answer differs from what is echoed of the question.
    terminal.type_in("stty size | tr ' ' x\r");
    terminal.expect("37x91");
    terminal.resize(102, 41);
    // The size travels by a signal and a call, and may be a moment behind the keys.
    let mut asked = 0;
    common::eventually("the new size is seen", || {
        asked += 1;
        terminal.type_in(&format!("echo {asked}:$((1)):$(stty size | tr ' ' x)\r"));
        terminal.expect(&format!("{asked}:1:"));
        terminal.seen().contains("41x102")
    });
    // Keys that our terminal would act on go to the container: ^C does not end us.
    terminal.type_in("echo go-$((1)); sleep 1000\r");
    terminal.expect("go-1");
    terminal.type_in("\x03");
    terminal.type_in("tty=yes; [ -t 0 ] && echo is-$tty; exit 5\r");
    terminal.expect("is-yes");
    assert_eq!(wait(&mut child).unwrap().code(), Some(5));
    assert!(bed.all().is_empty());
}

#[test]
fn a_terminal_is_passed_through_by_wherryd() {
    a_terminal_is_passed_through(Engine::Wherryd);
}

#[test]
fn a_terminal_is_passed_through_by_containerd() {
    a_terminal_is_passed_through(Engine::Containerd);
}

#[test]
fn a_terminal_is_set_back() {
    let bed = Bed::new(Engine::Wherryd);
    bed.run(&["-d", "--name", "c", "sleep", "1000"]).ok();
    let wherry = bed.command();
    let program = wherry.get_program().to_str().unwrap().to_owned();
    let address = bed.address().display().to_string();
    let script = format!(
        "before=$(stty -g); {program} -a {address} -n {} exec -it c sh -c 'echo hi; exit 3'; \
         echo code $?; [ \"$before\" = \"$(stty -g)\" ] && echo same-$((40 + 2))",
        bed.namespace
    );
    let mut shell = std::process::Command::new("sh");
    shell.args(["-c", &script]);
    let (terminal, mut child) = Terminal::start(&shell, 80, 25);
    terminal.expect("code 3");
    terminal.expect("same-42");
    // Raw from the start: what the container's terminal made two bytes of is not made three.
    assert!(
        terminal.seen().starts_with("hi\r\n"),
        "{:?}",
        terminal.seen()
    );
    wait(&mut child).unwrap();
}
