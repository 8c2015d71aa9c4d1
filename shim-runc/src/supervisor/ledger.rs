//! Whose exit is it? Maps pids to owners, and keeps the exits of pids nobody owns yet only
//! while a run of the runtime is in flight that may still name one of them (DESIGN rule 3).

use std::collections::HashMap;

use shim_common::reaper::ExitNotice;

use super::Key;
use crate::container::{Step, Target};

/// What a pid of ours is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Owner {
    /// A run of the runtime.
    Run(Key, Step),
    /// A process of a container.
    Process(Key, Target),
}

/// Pids, their owners, and early exits.
#[derive(Default)]
pub(super) struct Ledger {
    owners: HashMap<i32, Owner>,
    early: HashMap<i32, ExitNotice>,
    /// Runs in flight that will name the pid of a process (create, restore, exec).
    naming: usize,
}

impl Ledger {
    /// Notes who owns `pid`. A pid cannot be taken twice before its exit was noticed.
    pub(super) fn own(&mut self, pid: i32, owner: Owner) {
        self.naming += usize::from(names_a_pid(&owner));
        self.owners.insert(pid, owner);
    }

    /// The exit of a child: its owner, who is forgotten. An exit that nobody owns is kept if a
    /// run in flight may still name its pid.
    ///
    /// The run itself counts until [`Ledger::named`] is called for it, since its own exit
    /// comes before its pid file is read.
    pub(super) fn exited(&mut self, notice: &ExitNotice) -> Option<Owner> {
        let owner = self.owners.remove(&notice.pid);
        if owner.is_none() && self.naming > 0 {
            self.early.insert(notice.pid, *notice);
        }
        owner
    }

    /// A run that could name a pid is over, and its pid, if any, is taken up.
    pub(super) fn named(&mut self) {
        self.naming = self.naming.saturating_sub(1);
        if self.naming == 0 {
            self.early.clear();
        }
    }

    /// The exit of `pid` if it came before anybody knew whose it is.
    pub(super) fn take_early(&mut self, pid: i32) -> Option<ExitNotice> {
        self.early.remove(&pid)
    }

    /// Forgets what belongs to a container that is over.
    pub(super) fn forget(&mut self, key: Key) {
        self.owners.retain(|_, owner| match owner {
            Owner::Process(other, _) => *other != key,
            Owner::Run(..) => true,
        });
    }

    /// How many pids are owned and how many early exits are kept, for the dump.
    pub(super) fn sizes(&self) -> (usize, usize) {
        (self.owners.len(), self.early.len())
    }
}

/// Whether the owner is a run whose end brings the pid of a process.
pub(super) fn names_a_pid(owner: &Owner) -> bool {
    matches!(
        owner,
        Owner::Run(_, Step::Create | Step::Restore | Step::Exec(_))
    )
}
