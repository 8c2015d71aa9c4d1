//! What was measured: the day and the versions of everything that took part. No machine is named.

use std::process::Command;

use crate::target;

/// Today, as year-month-day in UTC.
pub fn date() -> String {
    said("date", &["-u", "+%F"]).trim().to_owned()
}

/// Name and version of each part that is here.
pub fn all() -> Vec<(String, String)> {
    let shim = target::shim_binary().display().to_string();
    let daemon = target::daemon_binary().display().to_string();
    [
        ("Linux", "uname", &["-r"][..]),
        ("Wherry's shim", &shim, &["-v"]),
        ("wherryd", &daemon, &["--version"]),
        ("containerd and its Go shims", "containerd", &["--version"]),
        ("docker-registry", "docker-registry", &["--version"]),
        ("runc", "runc", &["--version"]),
        ("crun", "crun", &["--version"]),
    ]
    .iter()
    .filter_map(|(name, program, args)| Some(((*name).to_owned(), version(&said(program, args))?)))
    .collect()
}

/// The first word that looks like a version: digits with points, as of `1.8.1` or `6.1.0-13`.
fn version(text: &str) -> Option<String> {
    let looks = |word: &&str| word.contains('.') && word.starts_with(|c: char| c.is_ascii_digit());
    let mut words = text.split(|c: char| c.is_whitespace() || c == ',');
    let found = words.find_map(|word| Some(word.trim_start_matches('v')).filter(looks))?;
    // What follows the number of a kernel may name the machine it was built for.
    let end = found.find(|c: char| !c.is_ascii_digit() && c != '.');
    Some(found[..end.unwrap_or(found.len())].to_owned())
}

fn said(program: &str, args: &[&str]) -> String {
    let output = Command::new(program).args(args).output();
    output.map_or_else(
        |_| String::new(),
        |output| String::from_utf8_lossy(&output.stdout).into_owned(),
    )
}

#[cfg(test)]
mod tests {
    use super::version;

    #[test]
    fn a_version_is_found_in_what_programs_say() {
        let runc = "runc version 1.1.5+ds1\ncommit: 1.1.5+ds1-1\nspec: 1.0.2-dev";
        assert_eq!(version(runc).as_deref(), Some("1.1.5"));
        let containerd = "containerd github.com/containerd/containerd 1.6.20~ds1 1.6.20~ds1-1";
        assert_eq!(version(containerd).as_deref(), Some("1.6.20"));
        assert_eq!(version("  Version:  v0.1.0\n").as_deref(), Some("0.1.0"));
        assert_eq!(version("6.1.0-13-cloud").as_deref(), Some("6.1.0"));
        assert_eq!(version("nothing here"), None);
    }
}
