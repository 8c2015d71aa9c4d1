//! The clone itself, and the few system calls between it and the new program.
//!
//! The child runs on a stack of its own in the parent's memory while the parent's thread is
//! suspended. It may therefore do nothing that would disturb the parent: no allocation, no lock,
//! no panic, only system calls. It shares the thread-local errno as well, which the suspended
//! thread does not read until it resumes; the parent's value is lost, as after any system call.

#![expect(unsafe_code, reason = "clone, execve and raw signal calls")]

use std::ffi::{CStr, CString, c_char, c_int, c_void};
use std::io;
use std::os::fd::{FromRawFd, OwnedFd, RawFd};
use std::ptr;
use std::sync::atomic::{AtomicI32, Ordering};

use super::Child;
use crate::errno::check;

/// What the child has to do, all of it prepared.
pub(super) struct Plan<'a> {
    pub(super) program: &'a CStr,
    pub(super) args: &'a [CString],
    pub(super) env: &'a [CString],
    pub(super) cwd: Option<&'a CStr>,
    /// (source, target), no source being a target.
    pub(super) moves: &'a [(RawFd, RawFd)],
    pub(super) parent_death_signal: Option<i32>,
    pub(super) new_process_group: bool,
    /// The limit of open descriptors, if it is not the parent's.
    pub(super) descriptor_limit: Option<libc::rlimit>,
}

/// Where it failed.
#[derive(Debug, Clone, Copy)]
pub(super) enum Stage {
    Stack,
    Clone,
    Descriptor(RawFd),
    ProcessGroup,
    ParentDeathSignal,
    WorkingDirectory,
    Exec,
}

/// Shared between the suspended parent and the child; lives on the parent's stack.
struct Shared<'a> {
    plan: &'a Plan<'a>,
    argv: *const *const c_char,
    envp: *const *const c_char,
    parent: libc::pid_t,
    /// 0 while nothing failed, else one of the codes below.
    stage: AtomicI32,
    /// The target number for `FAILED_DESCRIPTOR`.
    detail: AtomicI32,
    errno: AtomicI32,
}

const FAILED_DESCRIPTOR: i32 = 1;
const FAILED_GROUP: i32 = 2;
const FAILED_DEATH_SIGNAL: i32 = 3;
const FAILED_DIRECTORY: i32 = 4;
const FAILED_EXEC: i32 = 5;

/// The kernel's signal set: 64 signals in 8 bytes, on every architecture we build for.
type KernelSigset = u64;

/// close_range(2): mark instead of closing, so that the error report of a failed exec still works.
const CLOSE_RANGE_CLOEXEC: c_int = 4;

/// Bytes of the child's stack; it uses some hundred. Only touched pages cost memory.
const STACK_SIZE: usize = 64 * 1024;

/// A mapping for the child's stack with an inaccessible page below it. It is made anew for each
/// spawn: that takes a few microseconds, and an idle shim keeps no page for it.
struct Stack {
    base: *mut c_void,
    length: usize,
}

impl Stack {
    fn new() -> io::Result<Self> {
        let page = page_size();
        let length = STACK_SIZE + page;
        // SAFETY: a new anonymous mapping at an address of the kernel's choice.
        let base = unsafe {
            libc::mmap(
                ptr::null_mut(),
                length,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_STACK,
                -1,
                0,
            )
        };
        if base == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let stack = Self { base, length };
        // SAFETY: the first page of the mapping just made, which nobody uses.
        check(unsafe { libc::mprotect(stack.base, page, libc::PROT_NONE) })?;
        Ok(stack)
    }

    /// The end of the mapping: stacks grow down. Page-aligned, hence aligned for every ABI.
    fn top(&self) -> *mut c_void {
        // SAFETY: one past the end of the mapping is a valid pointer to make.
        unsafe { self.base.byte_add(self.length) }
    }
}

impl Drop for Stack {
    fn drop(&mut self) {
        // SAFETY: our own mapping, and no child runs on it any more. A failure would leak 64 kB
        // of address space, no more.
        unsafe { libc::munmap(self.base, self.length) };
    }
}

fn page_size() -> usize {
    // SAFETY: no preconditions.
    usize::try_from(unsafe { libc::sysconf(libc::_SC_PAGESIZE) }).unwrap_or(4096)
}

/// Makes the child and waits until it has executed the program or failed to.
pub(super) fn start(plan: &Plan<'_>) -> Result<Child, (Stage, io::Error)> {
    let argv = pointers(plan.args);
    let envp = pointers(plan.env);
    let shared = Shared {
        plan,
        argv: argv.as_ptr(),
        envp: envp.as_ptr(),
        // SAFETY: getpid has no preconditions.
        parent: unsafe { libc::getpid() },
        stage: AtomicI32::new(0),
        detail: AtomicI32::new(0),
        errno: AtomicI32::new(0),
    };
    let stack = Stack::new().map_err(|error| (Stage::Stack, error))?;
    let mut pidfd: RawFd = -1;
    let flags = libc::CLONE_VM | libc::CLONE_VFORK | libc::CLONE_PIDFD | libc::SIGCHLD;
    // No handler may run in the child: it would see and change the parent's memory. The child
    // starts with all signals blocked and opens its mask when all handlers are gone.
    let mask = set_mask(KernelSigset::MAX);
    // SAFETY: `stack` and `shared` (with all that it points to) live until the end of this
    // function, and CLONE_VFORK suspends this thread until the child has executed another
    // program or ended, so the child never outlives them. `child_main` fulfils what the module
    // text demands. CLONE_PIDFD stores through the pointer to `pidfd`.
    let result = check(unsafe {
        libc::clone(
            child_main,
            stack.top(),
            flags,
            (&raw const shared).cast_mut().cast(),
            &raw mut pidfd,
        )
    });
    set_mask(mask);
    drop(stack);
    let pid = result.map_err(|error| (Stage::Clone, error))?;
    // SAFETY: the kernel just gave us this descriptor and nobody else knows it.
    let pidfd = unsafe { OwnedFd::from_raw_fd(pidfd) };
    let stage = match shared.stage.load(Ordering::Relaxed) {
        0 => return Ok(Child { pid, pidfd }),
        FAILED_DESCRIPTOR => Stage::Descriptor(shared.detail.load(Ordering::Relaxed)),
        FAILED_GROUP => Stage::ProcessGroup,
        FAILED_DEATH_SIGNAL => Stage::ParentDeathSignal,
        FAILED_DIRECTORY => Stage::WorkingDirectory,
        _ => Stage::Exec,
    };
    // The failed child is gone already, or about to be: it is collected by pid, so that nobody
    // hears of a process that never was one. If the reaper of another thread was quicker, that
    // is as well (no such child).
    let _ = crate::wait::wait_pid(pid);
    Err((
        stage,
        io::Error::from_raw_os_error(shared.errno.load(Ordering::Relaxed)),
    ))
}

/// Pointers to the strings, with the null that ends the list.
fn pointers(strings: &[CString]) -> Vec<*const c_char> {
    strings
        .iter()
        .map(|string| string.as_ptr())
        .chain([ptr::null()])
        .collect()
}

/// Sets the calling thread's signal mask and returns the one before. The raw call, since the C
/// library keeps two signals of its own out of the set.
fn set_mask(mask: KernelSigset) -> KernelSigset {
    let mut before: KernelSigset = 0;
    // SAFETY: both sets are as large as the size says.
    unsafe {
        libc::syscall(
            libc::SYS_rt_sigprocmask,
            libc::SIG_SETMASK,
            &raw const mask,
            &raw mut before,
            size_of::<KernelSigset>(),
        );
    }
    before
}

/// The child's whole life before the program.
extern "C" fn child_main(argument: *mut c_void) -> c_int {
    // SAFETY: `start` passes a pointer to a `Shared` that outlives this child.
    let shared = unsafe { &*argument.cast::<Shared<'_>>() };
    let plan = shared.plan;
    default_signal_actions();
    if plan.new_process_group {
        // SAFETY: no pointers.
        let result = unsafe { libc::setpgid(0, 0) };
        shared.demand(result, FAILED_GROUP, 0);
    }
    if let Some(signal) = plan.parent_death_signal {
        // SAFETY: no pointers.
        let result = unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, signal, 0, 0, 0) };
        shared.demand(result, FAILED_DEATH_SIGNAL, 0);
        // A parent that was killed before the call above sends nothing any more.
        // SAFETY: no preconditions for both.
        unsafe {
            if libc::getppid() != shared.parent {
                libc::_exit(127);
            }
        }
    }
    for &(source, target) in plan.moves {
        // SAFETY: no pointers; the child's table of descriptors is its own.
        let result = unsafe { libc::dup2(source, target) };
        shared.demand(result, FAILED_DESCRIPTOR, target);
    }
    // Whatever our own parent left open without close-on-exec is not the program's either. A kernel
    // before 5.11 refuses, and the program inherits it as it does from everybody else.
    let first = plan
        .moves
        .iter()
        .fold(3, |first, &(_, target)| first.max(target + 1));
    // SAFETY: no pointers; the child's table of descriptors is its own.
    unsafe {
        libc::syscall(
            libc::SYS_close_range,
            first,
            c_int::MAX,
            CLOSE_RANGE_CLOEXEC,
        )
    };
    if let Some(limit) = &plan.descriptor_limit {
        // SAFETY: setrlimit reads a rlimit, which outlives the call; limits are the process's own.
        // Lowering its own soft limit is refused to nobody.
        unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &raw const *limit) };
    }
    if let Some(cwd) = plan.cwd {
        // SAFETY: a C string that outlives the call.
        let result = unsafe { libc::chdir(cwd.as_ptr()) };
        shared.demand(result, FAILED_DIRECTORY, 0);
    }
    set_mask(0);
    // SAFETY: C strings and null-terminated lists of them, all alive.
    let result = unsafe { libc::execve(plan.program.as_ptr(), shared.argv, shared.envp) };
    shared.demand(result, FAILED_EXEC, 0);
    127
}

impl Shared<'_> {
    /// Ends the child if `result` is -1, after leaving word for the parent.
    fn demand(&self, result: c_int, stage: i32, detail: i32) {
        if result != -1 {
            return;
        }
        // SAFETY: errno is the suspended parent thread's, valid and ours for the moment; _exit
        // runs no handlers and touches no memory.
        unsafe {
            self.errno
                .store(*libc::__errno_location(), Ordering::Relaxed);
            self.detail.store(detail, Ordering::Relaxed);
            self.stage.store(stage, Ordering::Relaxed);
            libc::_exit(127);
        }
    }
}

/// Gives every signal its default action. Handlers would be reset by execve, but must not run
/// before it; ignored signals would stay ignored. Raw calls, for all 64, since the C library
/// hides two; an all-zero action is `SIG_DFL` with no flags whatever the order of its fields.
fn default_signal_actions() {
    let default = [0_u64; 4];
    for signal in 1..=64 {
        if signal == libc::SIGKILL || signal == libc::SIGSTOP {
            continue;
        }
        // SAFETY: the kernel reads at most 32 bytes for an action; the child's table of actions
        // is its own, since CLONE_SIGHAND is not set.
        unsafe {
            libc::syscall(
                libc::SYS_rt_sigaction,
                signal,
                default.as_ptr(),
                ptr::null_mut::<c_void>(),
                size_of::<KernelSigset>(),
            );
        }
    }
}
