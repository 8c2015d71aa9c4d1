//! Whole files, of every version.

use std::path::{Path, PathBuf};

use proptest::prelude::*;

use super::*;

fn load_in(folder: &Path, text: &str) -> Result<(Config, Vec<Problem>), Vec<Problem>> {
    let file = folder.join("config.toml");
    std::fs::write(&file, text).unwrap();
    let mut config = Config::default();
    let problems = config.read(&file)?;
    Ok((config, problems))
}

fn load(text: &str) -> Result<(Config, Vec<Problem>), Vec<Problem>> {
    load_in(tempfile::tempdir().unwrap().path(), text)
}

fn texts(problems: &[Problem]) -> String {
    let lines: Vec<String> = problems.iter().map(Problem::to_string).collect();
    lines.join("\n")
}

#[test]
fn every_version_means_the_same() {
    let body = "root = '/r'\n[grpc]\naddress = '/a'\ngid = 7\n[debug]\nlevel = 'debug'\n\
        [ttrpc]\nuid = 3\n[metrics]\naddress = '1:2'\n";
    let (first, problems) = load(body).unwrap();
    assert_eq!(problems, []);
    assert_eq!((first.address.as_path(), first.gid), (Path::new("/a"), 7));
    for version in 2..=3 {
        let text = format!("version = {version}\n{body}");
        assert_eq!(load(&text).unwrap().0, first);
    }
    let fourth = "version = 4\nroot = '/r'\n[plugins.'io.containerd.server.v1.grpc']\n\
        address = '/a'\ngid = 7\n[plugins.'io.containerd.server.v1.debug']\nlevel = 'debug'\n\
        [plugins.'io.containerd.server.v1.ttrpc']\nuid = 3\n\
        [plugins.'io.containerd.server.v1.metrics']\naddress = '1:2'\n";
    assert_eq!(load(fourth).unwrap(), (first.clone(), vec![]));
    assert_eq!(load(&first.dump()).unwrap(), (first, vec![]));
}

#[test]
fn what_is_dumped_is_read_as_the_same() {
    let text = "version = 3\nroot = '/r'\nstate = '/s'\ntemp = '/t'\noom_score = -9\n\
        disabled_plugins = ['io.containerd.grpc.v1.cri']\n[grpc]\nmax_recv_message_size = 5\n\
        [cgroup]\npath = '/c'\n[debug]\nformat = 'json'\n[metrics]\ngrpc_histogram = true\n\
        [timeouts]\n'io.containerd.timeout.shim.load' = '1m30s'\n\
        [plugins.'io.containerd.gc.v1.scheduler']\npause_threshold = 0.5\nstartup_delay = '7ms'\n\
        [plugins.'io.containerd.metadata.v1.bolt']\ncontent_sharing_policy = 'isolated'\n\
        [plugins.'io.containerd.runtime.v2.task']\nsched_core = true\nplatforms = ['linux/arm']\n\
        [plugins.'io.containerd.snapshotter.v1.native']\nroot_path = '/n'\n\
        [plugins.'io.containerd.cri.v1.runtime'.containerd]\ndefault_runtime_name = 'x'\n\
        [plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.x]\n\
        runtime_type = 'io.containerd.x.v1'\nruntime_path = '/bin/x'\n\
        [plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.x.options]\n\
        Text = 'a \"quoted\" \\ one'\n[plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.\
        x.options.Deep]\nList = [1, 2]\n";
    let (config, problems) = load(text).unwrap();
    // What is kept and has no effect yet.
    let said = texts(&problems);
    assert!(said.contains("linux/arm"), "{said}");
    assert_eq!(problems.len(), 1, "{said}");
    assert_eq!(config.content_sharing_policy, "isolated");
    assert_eq!(config.timeouts.load.as_secs(), 90);
    assert_eq!(config.snapshotter_roots["native"], Path::new("/n"));
    let runtime = &config.cri.named["x"];
    assert_eq!(runtime.runtime_path, Path::new("/bin/x"));
    assert_eq!(runtime.options["Deep"]["List"][1].as_integer(), Some(2));
    assert_ne!(config, Config::default());
    assert_eq!(load(&config.dump()).unwrap().0, config);
    let default = Config::default();
    assert_eq!(load(&default.dump()).unwrap(), (default, vec![]));
}

/// The keys of a file that is written as containerd writes it, with their lines.
fn keys_of(text: &str) -> Vec<(usize, String)> {
    let keys = text.lines().enumerate().filter_map(|(at, line)| {
        let (key, _) = line.trim().split_once(" = ")?;
        Some((at + 1, key.trim_matches('"').to_owned()))
    });
    keys.collect()
}

#[test]
fn a_file_of_containerd_1_2_loads_with_every_key_accounted_for() {
    let text = include_str!("testdata/1.2.4.toml");
    let (config, problems) = load(text).unwrap();
    let in_force = [
        "root",
        "state",
        "oom_score",
        "address",
        "uid",
        "gid",
        "max_recv_message_size",
        "max_send_message_size",
        "level",
        "grpc_histogram",
        "path",
        "no_prometheus",
        "default",
        "runtime",
        "runtime_root",
        "shim_debug",
        "pause_threshold",
        "deletion_threshold",
        "mutation_threshold",
        "schedule_delay",
        "startup_delay",
    ];
    for (line, key) in keys_of(text) {
        let problem = problems.iter().find(|problem| problem.line == line);
        match problem {
            Some(problem) => {
                assert!(problem.text.contains(&key), "{line} {key}: {problem}");
                assert!(!problem.text.contains("no such key"), "{problem}");
                assert!(!problem.is_error && !problem.remedy.is_empty());
            }
            None => assert!(in_force.contains(&key.as_str()), "{line} {key}"),
        }
    }
    assert_eq!(config.legacy_runtime, "runc");
    assert_eq!(config.cri.default_runtime, "default");
    let default = &config.cri.named["default"];
    assert_eq!(default.runtime_type, "io.containerd.runc.v2");
    assert_eq!(default.options["BinaryName"].as_str(), Some("runc"));
    assert!(!config.cri.named.contains_key("untrusted"));
}

#[test]
fn a_broken_file_is_refused_with_every_line() {
    for (text, line, about) in [
        ("root = '/r'\n[grpc\n", 2, ""),
        ("\n\noom_score = 'x'\n", 3, "oom_score"),
        ("oom_score = 1001\n", 1, "-1000 to 1000"),
        ("[grpc]\nuid = -1\n", 2, "grpc.uid"),
        ("[grpc]\naddress = 'relative'\n", 2, "absolute"),
        ("version = 9\n", 1, "version"),
        ("root = 'relative'\n", 1, "root"),
        ("root = '/r'\nstate = '/r'\n", 2, "same folder"),
        ("root = '/r'\nroot = '/s'\n", 2, ""),
        ("[root]\nx = 1\n", 2, "root: is no table"),
        ("[root]\n", 1, "root"),
        ("\ngrpc = 5\n", 2, "grpc: must be a table"),
        ("[debug]\nlevel = 'loud'\n", 2, "one of trace"),
        ("[debug]\nformat = 'xml'\n", 2, "text, json"),
        ("imports = 'x'\n", 1, "imports"),
        ("imports = ['/none/such.toml']\n", 1, "/none/such.toml"),
        ("imports = ['/etc']\n", 1, "not a file"),
        ("imports = ['[']\n", 1, "bracket"),
        ("disabled_plugins = [1]\n", 1, "list of texts"),
        (
            "version = 2\n[plugins.linux]\nruntime = 'runc'\n",
            3,
            "short name",
        ),
        (
            "[plugins.scheduler]\nschedule_delay = '5'\n",
            2,
            "span of time",
        ),
        ("[plugins.scheduler]\npause_threshold = 0.9\n", 2, "0.5"),
        (
            "[timeouts]\n'io.containerd.timeout.shim.load' = 'x'\n",
            2,
            "span",
        ),
        (
            "[plugins.cri.containerd.runtimes.r]\nruntime_type = 'io.containerd.runc.v2'\n\
             [plugins.cri.containerd.runtimes.r.options]\nBinaryName = 1\n",
            4,
            "BinaryName: must be a text",
        ),
    ] {
        let problems = load(text).unwrap_err();
        let error = problems.iter().find(|problem| problem.is_error).unwrap();
        assert_eq!(error.line, line, "{text}: {error}");
        assert!(error.text.contains(about), "{error}");
    }
    let two = load("oom_score = 'x'\n[grpc]\ngid = 'y'\nuid = 0\n").unwrap_err();
    assert_eq!(two.iter().map(|p| p.line).collect::<Vec<_>>(), [1, 3]);
    let mut config = Config::default();
    config.read(Path::new("/nonexistent")).unwrap_err();
    assert_eq!(config, Config::default());
}

#[test]
fn nothing_of_a_refused_file_is_in_force() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("f");
    std::fs::write(&file, "root = '/other'\noom_score = 'x'\n").unwrap();
    let mut config = Config::default();
    config.read(&file).unwrap_err();
    assert_eq!(config, Config::default());
}

#[test]
fn a_word_that_is_nearly_a_key_is_taken_for_it() {
    let (_, problems) = load("[grpc]\nadress = '/a'\n[unheard]\nof = 1\n").unwrap();
    assert!(problems[0].remedy.contains("grpc.address"), "{problems:?}");
    assert!(problems[1].text.contains("unheard.of: no such key"));
}

/// A folder with a main file and drop-ins.
fn folder(files: &[(&str, &str)]) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    for (name, text) in files {
        let path = dir.path().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }
    dir
}

#[test]
fn drop_ins_go_before_what_imports_them() {
    let dir = folder(&[
        (
            "conf.d/10.toml",
            "oom_score = 5\ndisabled_plugins = ['io.containerd.b.v1.b', 'io.containerd.a.v1.a']\n\
             [plugins.'io.containerd.gc.v1.scheduler']\nmutation_threshold = 9\n",
        ),
        (
            "conf.d/20.toml",
            "version = 3\noom_score = 6\nimports = ['../last.toml']\n",
        ),
        (
            "last.toml",
            "version = 1\n[grpc]\ngid = 4\n[plugins.scheduler]\nstartup_delay='1s'\n",
        ),
    ]);
    let main = "version = 2\nimports = ['conf.d/*.toml', 'conf.d/10.toml', 'config.toml']\n\
        oom_score = 3\ndisabled_plugins = ['io.containerd.a.v1.a']\n\
        [plugins.'io.containerd.gc.v1.scheduler']\ndeletion_threshold = 8\n";
    let (config, problems) = load_in(dir.path(), main).unwrap();
    assert_eq!(texts(&problems), "");
    assert_eq!((config.oom_score, config.gid), (6, 4));
    assert_eq!(
        config.disabled_plugins,
        ["io.containerd.a.v1.a", "io.containerd.b.v1.b"]
    );
    assert_eq!(
        (config.gc.deletion_threshold, config.gc.mutation_threshold),
        (8, 9)
    );
    let imports: Vec<PathBuf> = ["conf.d/10.toml", "conf.d/20.toml", "conf.d/../last.toml"]
        .map(|name| dir.path().join(name))
        .into();
    assert_eq!(config.imports, imports.map_to_strings());
}

#[test]
fn a_problem_in_a_drop_in_has_its_file_and_line() {
    let dir = folder(&[("a.toml", "\noom_score = 'x'\n"), ("b.toml", "\n\n[\n")]);
    let problems = load_in(dir.path(), "imports = ['?.toml']\n").unwrap_err();
    let at = |p: &Problem| (p.file.file_name().unwrap().to_owned(), p.line);
    // What is not TOML is found before anything is looked at.
    assert_eq!(
        problems.iter().map(at).collect::<Vec<_>>(),
        [("b.toml".into(), 3)]
    );
    std::fs::write(dir.path().join("b.toml"), "").unwrap();
    let problems = load_in(dir.path(), "imports = ['?.toml']\n").unwrap_err();
    assert_eq!(
        problems.iter().map(at).collect::<Vec<_>>(),
        [("a.toml".into(), 2)]
    );
}

#[test]
fn a_file_is_migrated_with_every_key_it_has() {
    let dir = folder(&[("old.toml", include_str!("testdata/1.2.4.toml"))]);
    let text = migrate(&dir.path().join("old.toml")).unwrap();
    let (_, problems) = load(&text).unwrap();
    assert!(
        !texts(&problems).contains("outdated"),
        "{}",
        texts(&problems)
    );
    let (old, _) = load(include_str!("testdata/1.2.4.toml")).unwrap();
    assert_eq!(load(&text).unwrap().0, old);
    for kept in [
        "sandbox_image = \"k8s.gcr.io/pause:3.1\"",
        "version = 2",
        "registry-1.docker.io",
    ] {
        assert!(text.contains(kept), "{kept}: {text}");
    }
    let fourth = "version = 4\nimports = ['none']\n[plugins.'io.containerd.server.v1.grpc-tcp']\n\
        address = ':1'\n[plugins.'io.containerd.cri.v1.images'.pinned_images]\nsandbox = 's'\n";
    std::fs::write(dir.path().join("new.toml"), fourth).unwrap();
    let text = migrate(&dir.path().join("new.toml")).unwrap();
    for kept in [
        "tcp_address = \":1\"",
        "sandbox_image = \"s\"",
        "imports = [\"none\"]",
    ] {
        assert!(text.contains(kept), "{kept}: {text}");
    }
}

trait MapToStrings {
    fn map_to_strings(self) -> Vec<String>;
}

impl MapToStrings for Vec<PathBuf> {
    fn map_to_strings(self) -> Vec<String> {
        let text = |path: PathBuf| path.display().to_string();
        self.into_iter().map(text).collect()
    }
}

/// A valid file with something in it changed, left out, doubled or put in.
fn mutated() -> impl Strategy<Value = Vec<u8>> {
    let originals = prop_oneof![
        Just(include_str!("testdata/1.2.4.toml").to_owned()),
        Just(Config::default().dump()),
    ];
    let pieces = prop_oneof![
        Just(b"[".to_vec()),
        Just(b"= ".to_vec()),
        Just(b"\n[plugins]\n".to_vec()),
        Just(b"\nversion = 2\n".to_vec()),
        Just(b"''".to_vec()),
        Just(b"-99999999999".to_vec()),
        Just(b"{a = [{b = 1}]}".to_vec()),
        Just(b"1e400".to_vec()),
        Just("\u{fffd}\0".as_bytes().to_vec()),
        proptest::collection::vec(any::<u8>(), 0..8),
    ];
    let edit = (any::<proptest::sample::Index>(), 0..40_usize, pieces);
    (originals, proptest::collection::vec(edit, 1..6)).prop_map(|(original, edits)| {
        let mut bytes = original.into_bytes();
        for (at, length, piece) in edits {
            let start = at.index(bytes.len() + 1);
            let end = (start + length).min(bytes.len());
            bytes.splice(start..end, piece);
        }
        bytes
    })
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 400,
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    /// Any file is read or refused with lines that it has; and what is read is dumped as the same.
    #[test]
    fn no_file_is_too_broken(bytes in mutated()) {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("f");
        std::fs::write(&file, &bytes).unwrap();
        let mut config = Config::default();
        let lines = 2 + bytes.iter().filter(|byte| **byte == b'\n').count();
        match config.read(&file) {
            Err(problems) => {
                prop_assert!(problems.iter().any(|problem| problem.is_error));
                prop_assert!(problems.iter().all(|p| (1..=lines).contains(&p.line)));
                prop_assert_eq!(config, Config::default());
            }
            Ok(_) => {
                config.imports.clear();
                let again = dir.path().join("g");
                std::fs::write(&again, config.dump()).unwrap();
                let mut read = Config::default();
                prop_assert!(read.read(&again).is_ok());
                prop_assert_eq!(read, config);
            }
        }
        let _ = migrate(&file);
    }
}
