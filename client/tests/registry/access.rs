//! Who is let in, by which host, and what is said where nobody is.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use crate::common::{Bed, Engine, Ran, run};
use crate::proxy::{Plan, Proxy, Tokens};
use crate::server::{Layout, Server, free_port, hosts_dir};

fn bed() -> Bed {
    Bed::new(Engine::Wherryd)
}

/// A pull with an environment of the test's own for Docker's configuration.
#[track_caller]
fn pull(bed: &Bed, docker: &Path, arguments: &[&str]) -> Ran {
    let mut command = bed.command();
    command.env("DOCKER_CONFIG", docker).env("HOME", docker);
    let mut path = docker.as_os_str().to_owned();
    path.push(":/usr/bin:/bin");
    command.env("PATH", path);
    run(command.args(["pull", "--no-unpack"]).args(arguments))
}

/// What went wrong, where no message has a password.
#[track_caller]
fn failed(ran: Ran) -> String {
    let said = ran.failed(1);
    assert!(
        !said.contains("secret") && !said.contains("wrong!"),
        "{said}"
    );
    said
}

#[test]
fn a_password_opens_a_registry() {
    let (bed, server, layout) = (bed(), Server::with_password(), Layout::new(1000));
    let host = server.host();
    let from = format!("oci:{}:app", layout.path().display());
    let to = format!("docker://{host}/app:1");
    let mut skopeo = Command::new("skopeo");
    skopeo.args(["copy", "--insecure-policy", "--dest-tls-verify=false"]);
    run(skopeo.args(["--dest-creds", "who:secret"]).args([from, to])).ok();
    let name = format!("{host}/app:1");
    let docker = tempfile::tempdir().unwrap();
    let config = docker.path().join("config.json");

    let said = failed(pull(&bed, docker.path(), &[&name]));
    assert!(
        said.contains(&format!("{host} wants to know who asks")),
        "{said}"
    );
    assert!(said.contains("docker login"), "{said}");
    let said = failed(pull(&bed, docker.path(), &["--user", "who:wrong!", &name]));
    assert!(said.contains(&format!("{host} does not let who")), "{said}");
    let said = failed(pull(&bed, docker.path(), &["--user", "who", &name]));
    assert!(said.contains("--user who:PASSWORD"), "{said}");
    pull(&bed, docker.path(), &["--user", "who:secret", &name]).ok();

    // Docker's file.
    let login = |password: &str| {
        let auth = STANDARD.encode(format!("who:{password}"));
        let text = format!(r#"{{"auths": {{"{host}": {{"auth": "{auth}"}}}}}}"#);
        fs::write(&config, text).unwrap();
    };
    login("wrong!");
    assert!(failed(pull(&bed, docker.path(), &[&name])).contains("does not let who"));
    login("secret");
    pull(&bed, docker.path(), &[&name]).ok();
    fs::write(&config, "{\"auths\": \"secret\"}").unwrap();
    let said = failed(pull(&bed, docker.path(), &[&name]));
    assert!(said.contains("config.json:1:"), "{said}");

    // A helper program, which is asked for this registry.
    fs::write(
        &config,
        format!(r#"{{"credHelpers": {{"{host}": "mine"}}}}"#),
    )
    .unwrap();
    let said = failed(pull(&bed, docker.path(), &[&name]));
    assert!(
        said.contains("docker-credential-mine gives no credentials"),
        "{said}"
    );
    let helper = |script: &str| {
        let file = docker.path().join("docker-credential-mine");
        fs::write(&file, format!("#!/bin/sh\n{script}\n")).unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(0o755)).unwrap();
    };
    let answer = r#"echo '{"ServerURL":"x","Username":"who","Secret":"secret"}'"#;
    helper(&format!("test \"$1 $(cat)\" = 'get {host}' && {answer}"));
    pull(&bed, docker.path(), &[&name]).ok();
    helper("echo 'credentials not found in native keychain'; exit 1");
    let said = failed(pull(&bed, docker.path(), &[&name]));
    assert!(!said.contains("docker-credential"), "{said}");
    helper("echo 'the store is locked' >&2; echo secret; exit 1");
    let said = failed(pull(&bed, docker.path(), &[&name]));
    assert!(said.contains("the store is locked"), "{said}");

    // What was pulled is pushed likewise.
    let push = |user: &str| {
        let copy = format!("{host}/copy:1");
        let mut command = bed.command();
        run(command
            .args(["push", "-u", user, &name, &copy])
            .env("DOCKER_CONFIG", docker.path()))
    };
    push("who:secret").ok();
    assert!(failed(push("who:wrong!")).contains("does not let who"));
}

#[test]
fn tokens_are_fetched_and_renewed() {
    let (bed, server, layout) = (bed(), Server::new(), Layout::new(100_000));
    server.fill(&layout, "app", "app:1");
    let proxy = Proxy::new(server.port);
    let tokens = |life| Tokens {
        login: "who:secret".to_owned(),
        identity: "identity-1".to_owned(),
        life,
    };
    let name = format!("{}/app:1", proxy.host());
    let docker = tempfile::tempdir().unwrap();
    let config = docker.path().join("config.json");

    proxy.want_tokens(tokens(100));
    let said = failed(pull(&bed, docker.path(), &[&name]));
    assert!(
        said.contains("wants to know who asks") && said.contains("who are you"),
        "{said}"
    );
    let said = failed(pull(&bed, docker.path(), &["-u", "who:wrong!", &name]));
    assert!(said.contains("does not let who"), "{said}");
    proxy.take_seen();
    // Each token serves once: all requests, also those at the same time, find a new one.
    proxy.want_tokens(tokens(1));
    pull(
        &bed,
        docker.path(),
        &["--parallel", "1", "-u", "who:secret", &name],
    )
    .ok();
    let seen = proxy.take_seen();
    let given = seen
        .iter()
        .filter(|seen| seen.path.starts_with("/token"))
        .count();
    assert!(given >= 4, "{seen:?}");
    let asked = seen
        .iter()
        .find(|seen| seen.path.starts_with("/token"))
        .unwrap();
    assert!(asked.path.contains("service=test"), "{asked:?}");
    assert!(
        asked.path.contains("scope=repository%3Aapp%3Apull"),
        "{asked:?}"
    );
    // The password goes to where tokens are made, and nowhere else.
    let basic = |seen: &&crate::proxy::Seen| seen.headers.to_lowercase().contains(": basic ");
    assert!(
        seen.iter()
            .filter(basic)
            .all(|seen| seen.path.starts_with("/token")),
        "{seen:?}"
    );

    bed.wherry(&["rm", "-f", "nothing"]);
    proxy.want_tokens(tokens(100));
    let host = proxy.host();
    fs::write(
        &config,
        format!(r#"{{"auths": {{"{host}": {{"identitytoken": "identity-1"}}}}}}"#),
    )
    .unwrap();
    pull(&bed, docker.path(), &[&name]).ok();
    let seen = proxy.take_seen();
    assert!(
        seen.iter()
            .any(|seen| seen.method == "POST" && seen.path == "/token"),
        "{seen:?}"
    );
    fs::write(
        &config,
        format!(r#"{{"auths": {{"{host}": {{"identitytoken": "other"}}}}}}"#),
    )
    .unwrap();
    let said = failed(pull(&bed, docker.path(), &[&name]));
    assert!(said.contains("the bearer of the identity token"), "{said}");
}

#[test]
fn mirrors_are_asked_before_the_server() {
    let (bed, server, layout) = (bed(), Server::new(), Layout::new(100_000));
    let digest = server.fill(&layout, "app", "team/app:1");
    let (mirror, nobody) = (Proxy::new(server.port), free_port());
    // The registry of the name is not there at all; nor is the first mirror.
    let dir = tempfile::tempdir().unwrap();
    let hosts = hosts_dir(
        dir.path(),
        "registry.example",
        &format!(
            "server = \"http://127.0.0.1:{nobody}\"\nnews = true\n\
             [host.\"http://127.0.0.1:{}\"]\ncapabilities = [\"pull\", \"resolve\"]\n\
             [host.\"http://{}\"]\ncapabilities = [\"pull\", \"resolve\"]\n\
             header.x-team = \"boats\"\n",
            free_port(),
            mirror.host(),
        ),
    );
    let name = "registry.example/team/app:1";
    let ran = bed.wherry(&["pull", "--hosts-dir", &hosts, name]);
    assert!(
        ran.stderr
            .contains("hosts.toml: news is not known and has no effect"),
        "{ran:?}"
    );
    assert_eq!(ran.ok(), format!("{name}@{digest}\n"));
    let seen = mirror.take_seen();
    assert!(seen.len() >= 5, "{seen:?}");
    for one in &seen {
        assert!(one.path.ends_with("?ns=registry.example"), "{one:?}");
        assert!(one.headers.contains("x-team: boats"), "{one:?}");
    }
    // A mirror that may not be pushed to is not.
    let said = bed.wherry(&["push", "--hosts-dir", &hosts, name]).failed(1);
    assert!(
        said.contains(&format!("127.0.0.1:{nobody}: Connection refused")),
        "{said}"
    );
    assert!(mirror.take_seen().is_empty());

    // A mirror that lacks it, and the server that has it.
    let (lacking, itself) = (Server::new(), Proxy::new(server.port));
    let hosts = hosts_dir(
        dir.path(),
        "_default",
        &format!(
            "[host.\"http://{}\"]\ncapabilities = [\"pull\", \"resolve\"]\n",
            lacking.host()
        ),
    );
    let other = format!("{}/team/app:1", itself.host());
    let ran = bed.wherry(&["pull", "--hosts-dir", &hosts, &other]);
    assert_eq!(ran.ok(), format!("{other}@{digest}\n"));
    assert!(
        itself
            .take_seen()
            .iter()
            .all(|seen| !seen.path.contains("ns="))
    );
    let said = bed.wherry(&[
        "pull",
        "--hosts-dir",
        &hosts,
        &format!("{}/no:1", itself.host()),
    ]);
    let said = said.failed(1);
    for host in [lacking.host(), itself.host()] {
        assert!(said.contains(&format!("{host} does not have it")), "{said}");
    }

    // A mirror that breaks off: the server sends the rest.
    let breaking = Proxy::new(server.port);
    let layer = server.large_layer("team/app:1");
    breaking.plan(Plan {
        path: layer.clone(),
        cut: (500_000, 99),
        ..Plan::default()
    });
    let hosts = hosts_dir(
        dir.path(),
        &itself.host(),
        &format!("[host.\"http://{}\"]\n", breaking.host()),
    );
    let fresh = Bed::new(Engine::Wherryd);
    let ran = fresh.wherry(&["pull", "--hosts-dir", &hosts, &other]);
    assert_eq!(ran.ok(), format!("{other}@{digest}\n"));
    let rest = itself.gets(&layer);
    assert_eq!(rest.len(), 1, "{rest:?}");
    assert_eq!(
        (breaking.gets(&layer).len(), rest[0].status),
        (1, 206),
        "{rest:?}"
    );

    let hosts = hosts_dir(
        dir.path(),
        "bad.example",
        "[host.\"http://x\"]\nskip_verify = \"no\"\n",
    );
    let said = bed
        .wherry(&["pull", "--hosts-dir", &hosts, "bad.example/app"])
        .failed(1);
    let file = format!("{hosts}/bad.example/hosts.toml");
    assert!(
        said.contains(&format!(
            "{file}: host.\"http://x\".skip_verify is true or false"
        )),
        "{said}"
    );
}

#[test]
fn what_is_not_there_is_said() {
    let (bed, server, layout) = (bed(), Server::new(), Layout::new(1000));
    let digest = server.fill(&layout, "app", "app:1");
    let host = server.host();
    let pull = |name: &str| bed.wherry(&["pull", name]).failed(1);
    let said = pull(&format!("{host}/app:2"));
    assert!(
        said.contains(&format!("{host}/app:2: {host} does not have it")),
        "{said}"
    );
    let (_, digits) = digest.split_once(':').unwrap();
    let other = format!(
        "sha256:{}",
        digits.replace(|c: char| c.is_ascii_digit(), "f")
    );
    let said = pull(&format!("{host}/app@{other}"));
    assert!(
        said.contains(&other) && said.contains("does not have it"),
        "{said}"
    );
    let nobody = free_port();
    let said = pull(&format!("127.0.0.1:{nobody}/app:1"));
    assert!(said.contains("Connection refused"), "{said}");
    let said = pull("no name");
    assert!(
        said.contains("\"no name\" is no name of an image"),
        "{said}"
    );
    bed.wherry(&["pull", "--parallel", "0", "x"]).failed(2);
    bed.wherry(&["pull", "--platform", "linux", "x"]).failed(2);

    // A host that is busy is asked again; one that is broken is not believed.
    let proxy = Proxy::new(server.port);
    proxy.plan(Plan {
        path: "/manifests/1".to_owned(),
        refuse: (503, 2),
        ..Plan::default()
    });
    let name = format!("{}/app:1", proxy.host());
    bed.wherry(&["pull", &name]).ok();
    proxy.plan(Plan {
        path: "/manifests/1".to_owned(),
        refuse: (500, 99),
        ..Plan::default()
    });
    let said = pull(&name);
    assert!(said.contains("answers 500"), "{said}");
    let index = "application/vnd.oci.image.index.v1+json";
    server.put("odd", "1", index, r#"{"schemaVersion":2,"manifests":[]}"#);
    let said = pull(&format!("{host}/odd:1"));
    assert!(said.contains("holds nothing for linux/"), "{said}");
}

#[test]
fn certificates_are_checked() {
    let (bed, layout) = (bed(), Layout::new(1000));
    let dir = tempfile::tempdir().unwrap();
    let openssl = |line: &str| {
        let mut command = Command::new("openssl");
        run(command.args(line.split(' ')).current_dir(dir.path())).ok();
    };
    fs::write(dir.path().join("san"), "subjectAltName=IP:127.0.0.1\n").unwrap();
    for ca in ["ca", "other-ca"] {
        openssl(&format!(
            "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 \
             -subj /CN={ca} -keyout {ca}.key -out {ca}.crt"
        ));
    }
    for leaf in ["server", "client"] {
        openssl(&format!(
            "req -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -subj /CN={leaf} \
             -keyout {leaf}.key -out {leaf}.csr"
        ));
        openssl(&format!(
            "x509 -req -in {leaf}.csr -CA ca.crt -CAkey ca.key -CAcreateserial -days 2 \
             -extfile san -out {leaf}.crt"
        ));
    }
    let path = |file: &str| dir.path().join(file).to_str().unwrap().to_owned();
    let tls = format!(
        "  tls: {{certificate: {}, key: {}, clientcas: [{}]}}",
        path("server.crt"),
        path("server.key"),
        path("ca.crt")
    );
    let server = Server::with("", &tls);
    let host = server.host();
    let from = format!("oci:{}:app", layout.path().display());
    let mut skopeo = Command::new("skopeo");
    skopeo.args([
        "copy",
        "--insecure-policy",
        "--dest-tls-verify=false",
        "--dest-cert-dir",
    ]);
    fs::create_dir(path("certs")).unwrap();
    fs::copy(path("client.crt"), path("certs/client.cert")).unwrap();
    fs::copy(path("client.key"), path("certs/client.key")).unwrap();
    run(skopeo.args([&path("certs"), &from, &format!("docker://{host}/app:1")])).ok();

    let name = format!("{host}/app:1");
    let pull = |more: &str| {
        let text = format!("server = \"https://{host}\"\n{more}");
        let hosts = hosts_dir(dir.path(), &host, &text);
        bed.wherry(&["pull", "--no-unpack", "--hosts-dir", &hosts, &name])
    };
    let client = format!(
        "client = [[\"{}\", \"{}\"]]\n",
        path("client.crt"),
        path("client.key")
    );
    let (ca, other) = (path("ca.crt"), path("other-ca.crt"));
    let said = pull(&client).failed(1);
    assert!(said.contains("certificate"), "{said}");
    let said = pull(&format!("{client}ca = \"{other}\"\n")).failed(1);
    assert!(said.contains("certificate"), "{said}");
    let said = pull(&format!("ca = \"{ca}\"\n")).failed(1);
    assert!(said.to_lowercase().contains("certificate"), "{said}");
    pull(&format!("{client}ca = \"{ca}\"\n")).ok();
    pull(&format!("{client}skip_verify = true\n")).ok();
    let said = pull("ca = \"missing.pem\"\n").failed(1);
    assert!(
        said.contains(&format!("{host}/missing.pem: No such file")),
        "{said}"
    );
    let said = pull(&format!("client = \"{ca}\"\n")).failed(1);
    assert!(
        said.contains(&format!("{ca}: it does not hold a certificate and its key")),
        "{said}"
    );
}
