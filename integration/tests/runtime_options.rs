//! The options of a Create in every form that daemons send them.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "helpers of tests")]

use std::fs;
use std::os::unix::fs::MetadataExt as _;

use protobuf::MessageField;
use protobuf::well_known_types::any::Any;
use wherry_integration::bundle::RUNC_OPTIONS;
use wherry_integration::prelude::*;

/// Type of what CRI sends for runtimes whose options it does not know.
const GENERIC: &str = "runtimeoptions.v1.Options";

/// Notes its arguments and goes on without the flag that needs a systemd.
const NOTING: &str = "echo \"$@\" >> $DIR/args; \
    for a in \"$@\"; do shift; [ \"$a\" = --systemd-cgroup ] || set -- \"$@\" \"$a\"; done; \
    exec $REAL \"$@\"";

/// One length-delimited field of a protobuf message.
fn field(number: u8, value: &[u8]) -> Vec<u8> {
    let mut bytes = vec![number << 3 | 2];
    let mut length = value.len();
    while length >= 0x80 {
        bytes.push(u8::try_from(length & 0x7f).unwrap() | 0x80);
        length >>= 7;
    }
    bytes.push(u8::try_from(length).unwrap());
    bytes.extend_from_slice(value);
    bytes
}

fn any(type_url: &str, value: Vec<u8>) -> MessageField<Any> {
    let mut any = Any::new();
    any.type_url = type_url.to_owned();
    any.value = value;
    MessageField::some(any)
}

fn toml(bed: &Bed) -> String {
    format!(
        "BinaryName = \"{}\"\nRoot = \"{}\"\nSystemdCgroup = true\nIoUid = 1234\nIoGid = 4321\n\
         SomethingNew = [1, 2]\n",
        bed.wrapper("noting", NOTING).display(),
        bed.runtime_root().display(),
    )
}

/// A container whose options come as `options` says runs with all that [`toml`] names.
fn all_are_used(options: impl Fn(&Bed) -> MessageField<Any>) {
    known_difference!("go", "1.6.20 knows runc's own options only");
    let bed = Bed::new();
    let (bundle, shim) = bed.shim("c1", &Spec::sleeper());
    let out = OutputFifo::read(&bed.fifo("out"));
    let mut request = bundle.create_with("", &out.path(), &bed.drain());
    request.options = options(&bed);
    shim.task
        .create(&request)
        .unwrap_or_else(|e| panic!("Create: {e}"));
    let args = fs::read_to_string(bed.path("args")).unwrap();
    let create = args.lines().find(|l| l.contains(" create ")).unwrap();
    assert!(create.contains("--systemd-cgroup"), "{create}");
    let root = bed.runtime_root().join(bed.namespace());
    assert!(
        create.contains(&format!("--root {}", root.display())),
        "{create}"
    );
    let pid = shim.task.start("c1", "").unwrap().pid;
    // runc gives the pipe to the process's user afterwards, but leaves it its group; crun does not.
    let stdout = fs::metadata(format!("/proc/{pid}/fd/1")).unwrap();
    let group = if target::runtime() == "crun" { 0 } else { 4321 };
    assert_eq!(stdout.gid(), group);
    let kept = fs::read_to_string(bundle.path.join("options.json")).unwrap();
    assert!(kept.contains("\"io_uid\":1234"), "{kept}");
    bed.finish(&bundle, &shim);
}

#[test]
fn generic_options_with_a_toml_body_are_used() {
    all_are_used(|bed| any(GENERIC, field(3, toml(bed).as_bytes())));
}

#[test]
fn generic_options_may_name_the_type_and_come_under_an_older_name() {
    all_are_used(|bed| {
        let mut value = field(1, RUNC_OPTIONS.as_bytes());
        value.extend(field(3, toml(bed).as_bytes()));
        any("cri.runtimeoptions.v1.Options", value)
    });
}

#[test]
fn generic_options_may_name_a_file() {
    all_are_used(|bed| {
        let path = bed.path("options.toml");
        fs::write(&path, toml(bed)).unwrap();
        any(GENERIC, field(2, path.display().to_string().as_bytes()))
    });
}

#[test]
fn options_of_a_foreign_type_are_refused_by_that_types_name() {
    known_difference!(
        "go",
        "Go panics on a type it can decode and takes it for its own"
    );
    let bed = Bed::new();
    let (bundle, shim) = bed.shim("c1", &Spec::sleeper());
    let inner = field(1, b"io.kata.Options");
    for (options, named) in [
        (
            any("example.com/other.v1.Options", Vec::new()),
            "other.v1.Options",
        ),
        (
            any("containerd.runhcs.v1.Options", vec![8, 1]),
            "containerd.runhcs.v1.Options",
        ),
        (any(GENERIC, inner), "io.kata.Options"),
    ] {
        let mut request = bundle.create();
        request.options = options;
        let error = shim.task.create(&request).unwrap_err();
        assert_eq!(error.code(), Some(Code::INVALID_ARGUMENT), "{error}");
        assert!(error.message().contains(named), "{error}");
    }
    bed.shut(&bundle, &shim);
    bed.remove(&bundle);
    bed.assert_clean();
}

#[test]
fn an_options_file_that_cannot_be_used_is_refused_by_its_path() {
    known_difference!("go", "1.6.20 knows runc's own options only");
    let bed = Bed::new();
    let (bundle, shim) = bed.shim("c1", &Spec::sleeper());
    let broken = bed.path("broken.toml");
    fs::write(&broken, "BinaryName = [").unwrap();
    let fifo = bed.fifo("options");
    wherry_integration::stdio::make_fifo(&fifo);
    let absent = bed.path("absent.toml");
    for path in [&broken, &fifo, &absent, &bed.dir().to_owned()] {
        let path = path.display().to_string();
        let mut request = bundle.create();
        request.options = any(GENERIC, field(2, path.as_bytes()));
        let error = shim.task.patience(SHORT).create(&request).unwrap_err();
        assert_eq!(error.code(), Some(Code::INVALID_ARGUMENT), "{error}");
        assert!(error.message().contains(&path), "{error}");
    }
    bed.shut(&bundle, &shim);
    bed.remove(&bundle);
    bed.assert_clean();
}
