//! The files of one upload.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::time::SystemTime;

use core_api::Timestamp;
use sha2::{Digest as _, Sha256};
use tonic::Status;

use super::Progress;
use crate::content::blobs::private_folder;
use crate::content::told;

/// How much is read at once when the hash of an upload is taken again, in bytes.
const READ_SIZE: usize = 1 << 20;

/// The namespace and the progress of the upload in `folder`; `None` where there is none of ours.
pub(super) fn progress(folder: &Path) -> Result<Option<(String, Progress)>, Status> {
    let text = |name: &str| fs::read_to_string(folder.join(name));
    let (Ok(namespace), Ok(reference)) = (text("namespace"), text("ref")) else {
        return Ok(None);
    };
    let data = folder.join("data");
    let found = match fs::metadata(&data) {
        Ok(found) => found,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(told(&data, &error)),
    };
    let updated = found.modified().map_err(|error| told(&data, &error))?;
    let started = text("startedat")
        .ok()
        .and_then(|text| text.parse::<Timestamp>().ok())
        .and_then(|time| SystemTime::try_from(time).ok());
    let progress = Progress {
        reference,
        offset: found.len(),
        total: text("total")
            .ok()
            .and_then(|text| text.trim().parse().ok())
            .unwrap_or(0),
        started: started.unwrap_or(updated),
        updated,
    };
    Ok(Some((namespace, progress)))
}

/// Removes an upload. The file that marks it as ours goes last, so that what is left by a daemon
/// that is killed now is found and removed by the next.
pub(super) fn remove(folder: &Path) -> Result<(), Status> {
    for name in [
        "data",
        "total",
        "updatedat",
        "startedat",
        "ref",
        "namespace",
    ] {
        let path = folder.join(name);
        sys::fs::remove_if_exists(&path).map_err(|error| told(&path, &error))?;
    }
    match fs::remove_dir_all(folder) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(told(folder, &error)),
        _ => Ok(()),
    }
}

/// Adds all of a file to a hash.
pub(in crate::content) fn hash_file(path: &Path, hash: &mut Sha256) -> Result<(), Status> {
    let mut read = || -> io::Result<()> {
        let mut file = File::open(path)?;
        let mut buffer = vec![0; READ_SIZE];
        loop {
            match file.read(&mut buffer)? {
                0 => return Ok(()),
                count => hash.update(&buffer[..count]),
            }
        }
    };
    read().map_err(|error| told(path, &error))
}

/// Makes the folder of a new upload.
pub(super) fn begin(
    folder: &Path,
    namespace: &str,
    reference: &str,
    total: u64,
) -> Result<Progress, Status> {
    // What a daemon that was killed while making it has left.
    if folder.exists() {
        remove(folder)?;
    }
    private_folder(folder)?;
    let now = SystemTime::now();
    let put = |name: &str, bytes: &[u8]| {
        let path = folder.join(name);
        let mut options = OpenOptions::new();
        options.write(true).create_new(true).mode(0o600);
        let written = options
            .open(&path)
            .and_then(|mut file| file.write_all(bytes));
        written.map_err(|error| told(&path, &error))
    };
    let time = Timestamp::from(now).to_string();
    let made = put("namespace", namespace.as_bytes())
        .and_then(|()| put("ref", reference.as_bytes()))
        .and_then(|()| put("startedat", time.as_bytes()))
        .and_then(|()| put("updatedat", time.as_bytes()))
        .and_then(|()| match total {
            0 => Ok(()),
            total => put("total", total.to_string().as_bytes()),
        })
        .and_then(|()| put("data", b""));
    if let Err(error) = made {
        let _ = remove(folder);
        return Err(error);
    }
    Ok(Progress {
        reference: reference.to_owned(),
        offset: 0,
        total,
        started: now,
        updated: now,
    })
}
