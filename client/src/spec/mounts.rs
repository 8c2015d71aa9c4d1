//! What is mounted in a container: containerd's defaults and what the command line names.

use std::path::{Path, PathBuf};

use oci_spec::OciSpecError;
use oci_spec::runtime::{Mount, MountBuilder};

use super::Network;

/// A mount that the command line names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct BindMount {
    kind: String,
    source: PathBuf,
    target: PathBuf,
    options: Vec<String>,
}

/// Type, source, target and options of what every container has.
const DEFAULT: [(&str, &str, &str, &[&str]); 7] = [
    ("proc", "proc", "/proc", &["nosuid", "noexec", "nodev"]),
    (
        "tmpfs",
        "tmpfs",
        "/dev",
        &["nosuid", "strictatime", "mode=755", "size=65536k"],
    ),
    (
        "devpts",
        "devpts",
        "/dev/pts",
        &[
            "nosuid",
            "noexec",
            "newinstance",
            "ptmxmode=0666",
            "mode=0620",
            "gid=5",
        ],
    ),
    (
        "tmpfs",
        "shm",
        "/dev/shm",
        &["nosuid", "noexec", "nodev", "mode=1777", "size=65536k"],
    ),
    (
        "mqueue",
        "mqueue",
        "/dev/mqueue",
        &["nosuid", "noexec", "nodev"],
    ),
    (
        "sysfs",
        "sysfs",
        "/sys",
        &["nosuid", "noexec", "nodev", "ro"],
    ),
    (
        "tmpfs",
        "tmpfs",
        "/run",
        &["nosuid", "strictatime", "mode=755", "size=65536k"],
    ),
];

/// The files that make the host's network usable by name.
const NAMES: [&str; 2] = ["/etc/hosts", "/etc/resolv.conf"];

/// All mounts of a container, in order.
pub(super) fn all(network: Network, said: Vec<BindMount>) -> Result<Vec<Mount>, OciSpecError> {
    let defaults = DEFAULT.map(|(kind, source, target, options)| {
        let options = options.iter().map(|&option| option.to_owned()).collect();
        (kind.to_owned(), source.into(), target.into(), options)
    });
    let names = NAMES.into_iter().filter(|file| {
        let is_told = said.iter().any(|mount| mount.target == Path::new(file));
        network == Network::Host && !is_told && Path::new(file).exists()
    });
    let names: Vec<_> = names
        .map(|file| {
            let options = vec!["rbind".to_owned(), "ro".to_owned()];
            ("bind".to_owned(), file.into(), file.into(), options)
        })
        .collect();
    let said = said.into_iter();
    let said = said.map(|mount| (mount.kind, mount.source, mount.target, mount.options));
    let every = defaults.into_iter().chain(names).chain(said);
    let made = every.map(
        |(kind, source, target, options): (String, PathBuf, PathBuf, Vec<String>)| {
            MountBuilder::default()
                .typ(kind)
                .source(source)
                .destination(target)
                .options(options)
                .build()
        },
    );
    made.collect()
}

/// Reads `type=bind,src=/a,dst=/b,options=rbind:ro`, as ctr does.
///
/// # Errors
/// A text that names the part.
pub(crate) fn parse_mount(text: &str) -> Result<BindMount, String> {
    let (mut kind, mut source, mut target) = (String::new(), PathBuf::new(), PathBuf::new());
    let mut options = Vec::new();
    for part in text.split(',') {
        match part.split_once('=') {
            Some(("type", value)) => value.clone_into(&mut kind),
            Some(("src" | "source", value)) => source = value.into(),
            Some(("dst" | "destination" | "target", value)) => target = value.into(),
            Some(("options", value)) => options.extend(value.split(':').map(str::to_owned)),
            _ if part == "ro" || part == "readonly" => options.push("ro".to_owned()),
            _ => {
                return Err(format!(
                    "{part:?} is none of type=, src=, dst=, options= and ro"
                ));
            }
        }
    }
    if kind.is_empty() {
        kind = "bind".to_owned();
    }
    if kind == "bind" {
        source = bind_source(&source)?;
        if !options.iter().any(|option| option.ends_with("bind")) {
            options.insert(0, "rbind".to_owned());
        }
    } else if source.as_os_str().is_empty() {
        source.push(&kind);
    }
    let target = absolute(target)?;
    Ok(BindMount {
        kind,
        source,
        target,
        options,
    })
}

/// Reads `SOURCE:TARGET[:ro]`, as Docker does with paths.
///
/// # Errors
/// A text that says what is wanted.
pub(crate) fn parse_volume(text: &str) -> Result<BindMount, String> {
    let parts: Vec<&str> = text.split(':').collect();
    let (source, target, mode) = match parts.as_slice() {
        [source, target] => (source, target, None),
        [source, target, mode @ ("ro" | "rw")] => (source, target, Some(*mode)),
        _ => return Err("SOURCE:TARGET or SOURCE:TARGET:ro is wanted".to_owned()),
    };
    let mut options = vec!["rbind".to_owned()];
    options.extend(mode.map(str::to_owned));
    Ok(BindMount {
        kind: "bind".to_owned(),
        source: bind_source(Path::new(source))?,
        target: absolute(PathBuf::from(target))?,
        options,
    })
}

/// The source as an absolute path, for the daemon works in another folder.
fn bind_source(source: &Path) -> Result<PathBuf, String> {
    if source.as_os_str().is_empty() {
        return Err("a source is missing (src=PATH)".to_owned());
    }
    let whole = std::path::absolute(source).map_err(|error| error.to_string())?;
    match whole.try_exists() {
        Ok(true) => Ok(whole),
        Ok(false) => Err(format!("{}: there is no such file", whole.display())),
        Err(error) => Err(format!("{}: {error}", whole.display())),
    }
}

fn absolute(target: PathBuf) -> Result<PathBuf, String> {
    if target.is_absolute() {
        Ok(target)
    } else if target.as_os_str().is_empty() {
        Err("a target is missing (dst=PATH)".to_owned())
    } else {
        Err(format!("{}: a target must start with /", target.display()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mounts_are_read_as_ctr_and_docker_write_them() {
        let wanted = BindMount {
            kind: "bind".into(),
            source: "/etc".into(),
            target: "/x".into(),
            options: vec!["rbind".into(), "ro".into()],
        };
        let long = parse_mount("type=bind,src=/etc,dst=/x,options=rbind:ro");
        assert_eq!(long.as_ref(), Ok(&wanted));
        assert_eq!(parse_mount("src=/etc,target=/x,ro").as_ref(), Ok(&wanted));
        assert_eq!(parse_volume("/etc:/x:ro").as_ref(), Ok(&wanted));
        let tmpfs = parse_mount("type=tmpfs,dst=/t,options=size=64k").unwrap();
        assert_eq!(tmpfs.source, Path::new("tmpfs"));
        assert_eq!(tmpfs.options, ["size=64k"]);
        for text in [
            "",
            "src=/etc",
            "dst=/x",
            "src=/nowhere,dst=/x",
            "src=/etc,dst=x",
            "y=z",
        ] {
            parse_mount(text).unwrap_err();
        }
        for text in [
            "",
            "/etc",
            "/etc:x",
            ":/x",
            "/nowhere:/x",
            "/etc:/x:no",
            "/etc:/x:ro:z",
        ] {
            parse_volume(text).unwrap_err();
        }
    }
}
