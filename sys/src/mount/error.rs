//! What a failed mount or unmount says: which mount, onto what, at which step, with which errno,
//! and, where the kernel gave one, its own sentence.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

/// The step of mounting or unmounting that failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// Reading the mount options.
    Options,
    /// Opening or creating the root file system's folder or the target below it.
    Target,
    /// Binding the source file to a loop device.
    LoopDevice,
    /// Making the user namespace that carries an id mapping.
    UserNamespace,
    /// Copying the source's mount tree for a bind mount or a mapped layer.
    CloneTree,
    /// Applying an id mapping to a mount.
    IdMap,
    /// Handing the options to a file system context (fsopen(2), fsconfig(2)).
    Context,
    /// Creating the superblock and attaching it.
    Mount,
    /// Attaching a detached mount to the target (move_mount(2)).
    Attach,
    /// Setting flags (`ro`, `nosuid`, ...) of a bind mount, or remounting.
    Remount,
    /// Changing the propagation type.
    Propagation,
    /// Reading the mount table.
    MountTable,
    /// Unmounting.
    Unmount,
}

impl Step {
    fn describe(self) -> &'static str {
        match self {
            Self::Options => "read the options",
            Self::Target => "open the target",
            Self::LoopDevice => "set up a loop device",
            Self::UserNamespace => "make a user namespace for the id mapping",
            Self::CloneTree => "copy the mount tree of the source",
            Self::IdMap => "apply the id mapping",
            Self::Context => "pass the options to the file system",
            Self::Mount => "mount",
            Self::Attach => "attach the mount",
            Self::Remount => "set the mount flags",
            Self::Propagation => "set the propagation",
            Self::MountTable => "read the mount table",
            Self::Unmount => "unmount",
        }
    }
}

/// A mount or unmount that failed. Its text names file system type, source, target, step, the
/// system's error and the detail when there is one; everything stands in the text,
/// so there is no further [`std::error::Error::source`].
#[derive(Debug)]
pub struct MountError {
    /// File system type (`overlay`, `bind`, ...); empty when unmounting.
    pub fstype: String,
    /// Source as the request named it; empty when unmounting.
    pub source: String,
    /// Absolute path of the target as the caller named it, before symlinks are resolved.
    pub target: PathBuf,
    /// What was being done.
    pub step: Step,
    /// The system's error, or `InvalidInput` for a request that makes no sense.
    pub error: io::Error,
    /// What more is known: the kernel's own words, as fsopen(2) contexts keep them, or the overlay
    /// layer concerned. Often empty.
    pub detail: String,
}

impl MountError {
    /// The class of the error, for the mapping to a status code.
    #[must_use]
    pub fn kind(&self) -> io::ErrorKind {
        self.error.kind()
    }

    /// The errno, or none when the request itself was refused before any system call.
    #[must_use]
    pub fn errno(&self) -> Option<i32> {
        self.error.raw_os_error()
    }

    pub(super) fn unmounting(target: &Path, step: Step, error: io::Error) -> Self {
        Self {
            fstype: String::new(),
            source: String::new(),
            target: target.to_owned(),
            step,
            error,
            detail: String::new(),
        }
    }
}

impl fmt::Display for MountError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.fstype.is_empty() && self.source.is_empty() {
            write!(f, "unmount {:?}: ", self.target)?;
        } else {
            write!(
                f,
                "mount {:?} (type {:?}) on {:?}: ",
                self.source, self.fstype, self.target
            )?;
        }
        write!(f, "cannot {}: {}", self.step.describe(), self.error)?;
        if !self.detail.is_empty() {
            write!(f, " ({})", self.detail)?;
        }
        Ok(())
    }
}

impl std::error::Error for MountError {}

/// A failed step before the mount it belongs to is named.
#[derive(Debug)]
pub(super) struct Failure {
    pub(super) step: Step,
    pub(super) error: io::Error,
    pub(super) detail: String,
}

impl Failure {
    pub(super) fn new(step: Step, error: impl Into<io::Error>) -> Self {
        Self {
            step,
            error: error.into(),
            detail: String::new(),
        }
    }

    pub(super) fn refused(step: Step, why: &str) -> Self {
        Self::new(step, io::Error::new(io::ErrorKind::InvalidInput, why))
    }

    pub(super) fn with_detail(mut self, detail: String) -> Self {
        self.detail = detail;
        self
    }

    /// Keeps its own detail and takes `detail` only for want of one.
    pub(super) fn or_detail(self, detail: String) -> Self {
        if self.detail.is_empty() {
            self.with_detail(detail)
        } else {
            self
        }
    }

    pub(super) fn errno(&self) -> Option<i32> {
        self.error.raw_os_error()
    }
}

/// Names the step on the way up: `call().at(Step::Mount)?`.
pub(super) trait At<T> {
    fn at(self, step: Step) -> Result<T, Failure>;
}

impl<T, E: Into<io::Error>> At<T> for Result<T, E> {
    fn at(self, step: Step) -> Result<T, Failure> {
        self.map_err(|error| Failure::new(step, error))
    }
}
