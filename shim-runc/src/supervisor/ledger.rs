//! Whose exit is it? Maps pids to owners, and keeps the exits of pids nobody owns yet only
//! while a run of the runtime is in flight that may still name one of them (DESIGN rule 3).

use std::collections::{BTreeMap, HashMap};

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
    /// Exits that nobody owned, with the moment (a count of runs begun) at which they came.
    early: HashMap<i32, (u64, ExitNotice)>,
    /// Runs in flight that will name the pid of a process, and when each began.
    naming: BTreeMap<(Key, Step), u64>,
    begun: u64,
}

impl Ledger {
    /// Notes who owns `pid`. A pid cannot be taken twice before its exit was noticed.
    pub(super) fn own(&mut self, pid: i32, owner: Owner) {
        if let Owner::Run(key, step) = &owner
            && names_a_pid(step)
        {
            self.begun += 1;
            self.naming.insert((*key, step.clone()), self.begun);
        }
        self.owners.insert(pid, owner);
    }

    /// The exit of a child: its owner, who is forgotten. An exit that nobody owns is kept if a
    /// run in flight may still name its pid.
    ///
    /// The run itself counts until [`Ledger::named`] is called for it, since its own exit comes
    /// before its pid file is read.
    pub(super) fn exited(&mut self, notice: &ExitNotice) -> Option<Owner> {
        let owner = self.owners.remove(&notice.pid);
        if owner.is_none() && !self.naming.is_empty() {
            self.early.insert(notice.pid, (self.begun, *notice));
        }
        owner
    }

    /// A run that could name a pid is over, and its pid, if any, is taken up. Exits from before
    /// the oldest such run that is still in flight are forgotten.
    pub(super) fn named(&mut self, key: Key, step: &Step) {
        self.naming.remove(&(key, step.clone()));
        match self.naming.values().min() {
            Some(oldest) => self.early.retain(|_, (came, _)| *came >= *oldest),
            None => self.early.clear(),
        }
    }

    /// The exit of `pid` if it came before anybody knew whose it is.
    pub(super) fn take_early(&mut self, pid: i32) -> Option<ExitNotice> {
        self.early.remove(&pid).map(|(_, notice)| notice)
    }

    /// The pid of a process of ours that nobody has collected.
    pub(super) fn pid_of(&self, key: Key, target: &Target) -> Option<i32> {
        let owned = Owner::Process(key, target.clone());
        let mut owners = self.owners.iter();
        owners.find_map(|(pid, owner)| (*owner == owned).then_some(*pid))
    }

    /// Forgets what belongs to a container that is over.
    pub(super) fn forget(&mut self, key: Key) {
        self.owners.retain(|_, owner| match owner {
            Owner::Process(other, _) => *other != key,
            Owner::Run(..) => true,
        });
        self.naming.retain(|(other, _), _| *other != key);
    }

    /// How many pids are owned and how many early exits are kept, for the dump.
    pub(super) fn sizes(&self) -> (usize, usize) {
        (self.owners.len(), self.early.len())
    }
}

/// Whether the end of this run brings the pid of a process.
fn names_a_pid(step: &Step) -> bool {
    matches!(step, Step::Create | Step::Restore | Step::Exec(_))
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use super::*;

    fn notice(pid: i32) -> ExitNotice {
        ExitNotice {
            pid,
            status: 0,
            exited_at: SystemTime::UNIX_EPOCH,
        }
    }

    #[test]
    fn an_early_exit_is_kept_only_while_a_run_may_name_it() {
        let mut ledger = Ledger::default();
        assert_eq!(ledger.exited(&notice(5)), None);
        assert!(ledger.take_early(5).is_none(), "no run was in flight");

        ledger.own(10, Owner::Run(1, Step::Create));
        ledger.exited(&notice(5));
        assert_eq!(
            ledger.exited(&notice(10)),
            Some(Owner::Run(1, Step::Create))
        );
        assert!(ledger.take_early(5).is_some());
        ledger.exited(&notice(6));
        ledger.named(1, &Step::Create);
        assert!(ledger.take_early(6).is_none());
    }

    #[test]
    fn orphans_do_not_pile_up_while_runs_overlap_for_ever() {
        let mut ledger = Ledger::default();
        for round in 0..1000_u64 {
            let step = Step::Exec(round.to_string());
            ledger.own(100_000, Owner::Run(1, step));
            // An orphan in every round, and always one run in flight.
            ledger.exited(&notice(i32::try_from(round).unwrap() + 2));
            ledger.exited(&notice(100_000));
            if round > 0 {
                ledger.named(1, &Step::Exec((round - 1).to_string()));
            }
        }
        assert!(ledger.sizes().1 < 4, "{:?}", ledger.sizes());
    }

    #[test]
    fn a_start_names_no_pid() {
        let mut ledger = Ledger::default();
        ledger.own(10, Owner::Run(1, Step::Start));
        ledger.exited(&notice(5));
        assert!(ledger.take_early(5).is_none());
    }
}
