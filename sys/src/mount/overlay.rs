//! Overlay mounts past the limits of mount(2): more lower layers than fit a page of options, and
//! lower layers with mapped owners.
//!
//! Each has a way for recent kernels, a file system context that takes the layers one by one
//! (`lowerdir+`, Linux 6.8; by descriptor, 6.15 for detached mounts), and a way for older ones,
//! mount(2) with layer names relative to a working directory. That working directory belongs to
//! a thread of its own, which ends with the call: the process keeps its own.

use std::fs;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use nix::fcntl::{AT_FDCWD, OFlag, openat};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, unshare};
use nix::sys::stat::Mode;

use super::api::{self, Context, STRING_LIMIT};
use super::at::{Place, fd_path};
use super::error::{At, Failure, Step};
use super::filesystem::{self, fits_a_page, too_long};
use super::layers::{Layer, common_folder, join_layers, parse_layers, split, unescape};
use super::options::Options;

/// Room for one mount(2) and the paths it takes.
const THREAD_STACK: usize = 128 * 1024;

/// Mounts an overlay whose layers are as they are on disk.
pub(super) fn mount_on(
    source: &Path,
    place: &Place,
    options: &Options,
) -> Result<OwnedFd, Failure> {
    if fits_a_page(&options.data_string()) {
        return filesystem::mount_on(source, "overlay", place, options);
    }
    match by_context(source, place, options, None) {
        Err(failure) if is_unsupported(&failure) => {
            match by_common_folder(source, place, options) {
                Err(last) if last.step == Step::Options => by_descriptors(source, place, options),
                other => other,
            }
            .map_err(|last| last.or_detail(failure.detail))
        }
        other => other,
    }
}

/// What a kernel says that lacks the calls or the options, or cannot take a layer in the form
/// given: at once, or, like overlays before 6.5, which read their options late, and those before
/// 6.15, which want attached layers, only when the superblock is made. Any other errno speaks of
/// the layers themselves, and mount(2) would say it again.
fn is_unsupported(failure: &Failure) -> bool {
    matches!(failure.step, Step::Context | Step::Mount)
        && matches!(
            failure.errno(),
            Some(libc::ENOSYS | libc::EPERM | libc::EINVAL | libc::EBADF | libc::EOPNOTSUPP)
        )
}

/// Mounts an overlay whose lower layers appear with owners mapped by `userns`. The upper layer
/// belongs to the mapped owners already: containerd changes its owner.
pub(super) fn mount_mapped(
    source: &Path,
    place: &Place,
    options: &Options,
    userns: BorrowedFd<'_>,
) -> Result<OwnedFd, Failure> {
    let trees = mapped_layers(options, userns)?;
    match by_context(source, place, options, Some(&trees)) {
        Err(failure) if is_unsupported(&failure) => {
            by_temporary_tree(source, place, options, &trees)
                .map_err(|last| last.or_detail(failure.detail))
        }
        other => other,
    }
}

/// A detached copy with mapped owners of each lower layer, in order.
pub(super) fn mapped_layers(
    options: &Options,
    userns: BorrowedFd<'_>,
) -> Result<Vec<OwnedFd>, Failure> {
    let (_, layers) = split(options)
        .ok_or_else(|| Failure::refused(Step::Options, "an overlay without lowerdir"))?;
    layers
        .iter()
        .map(|layer| {
            let path = layer.path();
            let naming = |error: io::Error| Failure {
                step: Step::IdMap,
                detail: format!("layer {}", path.display()),
                error,
            };
            let tree = api::clone_tree(&path, false).map_err(naming)?;
            api::map_ids(tree.as_fd(), userns, false).map_err(naming)?;
            // Lower layers are never written to; should the host fail us midway, a stray copy
            // must not offer a way to the layer's files either.
            api::restrict(tree.as_fd(), MsFlags::MS_RDONLY).map_err(naming)?;
            Ok(tree)
        })
        .collect()
}

/// By fsopen(2). `trees` stand for the lower layers where given.
pub(super) fn by_context(
    source: &Path,
    place: &Place,
    options: &Options,
    trees: Option<&[OwnedFd]>,
) -> Result<OwnedFd, Failure> {
    let (others, layers) = split(options).ok_or_else(too_long)?;
    let context = Context::open("overlay").at(Step::Context)?;
    let refused = |failure: Failure| failure.with_detail(context.messages().unwrap_or_default());
    let configured = (|| {
        context.set_string("source", &source.to_string_lossy())?;
        for (flag, name) in [
            (MsFlags::MS_RDONLY, "ro"),
            (MsFlags::MS_SYNCHRONOUS, "sync"),
            (MsFlags::MS_DIRSYNC, "dirsync"),
            (MsFlags::MS_MANDLOCK, "mand"),
        ] {
            if options.flags.contains(flag) {
                context.set_flag(name)?;
            }
        }
        for (layer, tree) in layers.iter().zip(trees.unwrap_or_default()) {
            context.set_fd(layer.key(), tree.as_fd())?;
        }
        Ok::<_, io::Error>(())
    })();
    configured.at(Step::Context).map_err(refused)?;
    let data = options.data.iter().map(String::as_str);
    let data = data.filter(|option| trees.is_none() || others.contains(option));
    configure(&context, data).map_err(|refusal| {
        let said = context.messages().unwrap_or(refusal.what);
        Failure::new(Step::Context, refusal.error).with_detail(said)
    })?;
    context.create().at(Step::Mount).map_err(refused)?;
    let detached = context
        .mount(options.flags)
        .at(Step::Mount)
        .map_err(refused)?;
    api::attach(detached.as_fd(), place.fd()).at(Step::Attach)?;
    Ok(detached)
}

/// An option that a context did not take.
pub(super) struct Refusal {
    /// Names the option or layer.
    pub(super) what: String,
    pub(super) error: io::Error,
}

/// Passes options as mount(2) has them in its data to a context, layers one by one.
pub(super) fn configure<'a>(
    context: &Context,
    data: impl Iterator<Item = &'a str>,
) -> Result<(), Refusal> {
    for option in data {
        if let Some(layers) = option.strip_prefix("lowerdir=") {
            for layer in parse_layers(layers) {
                set_path(context, layer.key(), &layer.escaped).map_err(|error| {
                    let what = format!("lower layer {:?}: {error}", layer.path());
                    Refusal { what, error }
                })?;
            }
        } else {
            set_option(context, option).map_err(|error| {
                let what = format!("option {option:?}: {error}");
                Refusal { what, error }
            })?;
        }
    }
    Ok(())
}

fn set_option(context: &Context, option: &str) -> io::Result<()> {
    match option.split_once('=') {
        Some((key @ ("upperdir" | "workdir"), path)) => set_path(context, key, path),
        Some((key, value)) => {
            // Security labels come in quotes, which mount(2) takes off itself.
            let bare = value
                .strip_prefix('"')
                .and_then(|value| value.strip_suffix('"'));
            context.set_string(key, bare.unwrap_or(value))
        }
        None => context.set_flag(option),
    }
}

/// A folder as an option: by name, or by descriptor where the name is too long for fsconfig(2)
/// or holds a backslash, about which kernels differ.
fn set_path(context: &Context, key: &str, escaped: &str) -> io::Result<()> {
    if escaped.len() < STRING_LIMIT && !escaped.contains('\\') {
        return context.set_string(key, escaped);
    }
    let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
    let folder = openat(AT_FDCWD, unescape(escaped).as_str(), flags, Mode::empty())?;
    context
        .set_fd(key, folder.as_fd())
        .or_else(|_| context.set_string(key, &fd_path(folder.as_fd()).to_string_lossy()))
}

/// By mount(2), with the layers named relative to the folder they have in common.
pub(super) fn by_common_folder(
    source: &Path,
    place: &Place,
    options: &Options,
) -> Result<OwnedFd, Failure> {
    let (others, layers) = split(options).ok_or_else(too_long)?;
    let common = common_folder(&layers).ok_or_else(too_long)?;
    // Any other path that is relative would come to mean something else.
    if others.iter().any(|option| is_relative_path_option(option)) {
        return Err(too_long());
    }
    let layers: Vec<_> = layers
        .into_iter()
        .map(|layer| Layer {
            escaped: layer.escaped[common.len()..].to_owned(),
            ..layer
        })
        .collect();
    mount_from(
        Path::new(&unescape(&common)),
        source,
        place,
        options,
        &others,
        &layers,
    )
}

/// By mount(2), with the layers named by their descriptors' numbers in /proc/self/fd. Short
/// whatever the layers are called, but the mount table then says nothing about them.
pub(super) fn by_descriptors(
    source: &Path,
    place: &Place,
    options: &Options,
) -> Result<OwnedFd, Failure> {
    let (others, mut layers) = split(options).ok_or_else(too_long)?;
    if others.iter().any(|option| is_relative_path_option(option)) {
        return Err(too_long());
    }
    let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
    let mut folders = Vec::with_capacity(layers.len());
    for layer in &mut layers {
        let path = layer.path();
        let folder = openat(AT_FDCWD, &path, flags, Mode::empty())
            .at(Step::Mount)
            .map_err(|failure| failure.with_detail(format!("lower layer {path:?}")))?;
        layer.escaped = folder.as_raw_fd().to_string();
        folders.push(folder);
    }
    let folder = Path::new("/proc/self/fd");
    mount_from(folder, source, place, options, &others, &layers)
}

/// By mount(2), with the mapped layers attached for its duration to a temporary folder.
pub(super) fn by_temporary_tree(
    source: &Path,
    place: &Place,
    options: &Options,
    trees: &[OwnedFd],
) -> Result<OwnedFd, Failure> {
    let (others, mut layers) = split(options).ok_or_else(too_long)?;
    if others.iter().any(|option| is_relative_path_option(option)) {
        return Err(Failure::refused(
            Step::Options,
            "upperdir and workdir must be absolute",
        ));
    }
    let temporary = TemporaryTree::new().at(Step::IdMap)?;
    for (index, (layer, tree)) in layers.iter_mut().zip(trees).enumerate() {
        layer.escaped = index.to_string();
        temporary
            .attach(&layer.escaped, tree.as_fd())
            .at(Step::IdMap)?;
    }
    mount_from(&temporary.path, source, place, options, &others, &layers)
}

/// mount(2) from a working directory of its own.
fn mount_from(
    folder: &Path,
    source: &Path,
    place: &Place,
    options: &Options,
    others: &[&str],
    layers: &[Layer],
) -> Result<OwnedFd, Failure> {
    let mut data = format!("lowerdir={}", join_layers(layers));
    for option in others {
        data.push(',');
        data.push_str(option);
    }
    if !fits_a_page(&data) {
        return Err(too_long());
    }
    let target = place.path();
    let mounted = std::thread::scope(|scope| {
        let work = || {
            // Everything that the calls below change ends with this thread, which must therefore
            // not be the caller's: its working directory is that of the whole process.
            unshare(CloneFlags::CLONE_FS)?;
            nix::unistd::chdir(folder)?;
            mount(
                Some(source),
                &target,
                Some("overlay"),
                options.flags,
                Some(data.as_str()),
            )
        };
        std::thread::Builder::new()
            .name("wherry-mount".to_owned())
            .stack_size(THREAD_STACK)
            .spawn_scoped(scope, work)?
            .join()
            .map_err(|_| io::Error::other("the mounting thread panicked"))?
            .map_err(io::Error::from)
    });
    mounted.at(Step::Mount)?;
    place.mounted().at(Step::Target)
}

/// A small private tmpfs on a folder of ours; gone with its mounts when dropped.
struct TemporaryTree {
    path: PathBuf,
}

impl TemporaryTree {
    fn new() -> io::Result<Self> {
        let path = nix::unistd::mkdtemp("/run/wherry-layers-XXXXXX")
            .or_else(|_| nix::unistd::mkdtemp("/tmp/wherry-layers-XXXXXX"))?;
        let tree = Self { path };
        let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
        mount(
            Some("wherry"),
            &tree.path,
            Some("tmpfs"),
            flags,
            Some("size=1m,mode=0700"),
        )?;
        // The layers attached here must not spread to other mount namespaces.
        mount(
            None::<&str>,
            &tree.path,
            None::<&str>,
            MsFlags::MS_PRIVATE,
            None::<&str>,
        )?;
        Ok(tree)
    }

    fn attach(&self, name: &str, layer: BorrowedFd<'_>) -> io::Result<()> {
        let path = self.path.join(name);
        fs::create_dir(&path)?;
        let folder = super::at::open_folder(&path)?;
        api::attach(layer, folder.as_fd())
    }
}

impl Drop for TemporaryTree {
    fn drop(&mut self) {
        // Detaching takes the layers along; the overlay has its own private copies of them.
        let _ = umount2(&self.path, MntFlags::MNT_DETACH | MntFlags::UMOUNT_NOFOLLOW);
        // Never recursive: should anything still be mounted here, its files are not ours.
        let _ = fs::remove_dir(&self.path);
    }
}

fn is_relative_path_option(option: &str) -> bool {
    ["upperdir=", "workdir="]
        .iter()
        .filter_map(|key| option.strip_prefix(key))
        .any(|path| !path.starts_with('/'))
}
