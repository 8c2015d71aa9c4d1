//! Carrying out what the rules said, effect by effect, in their order.

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use shim_common::cgroup::{Cgroup, OomChange, Version};
use shim_common::helper;
use shim_common::stdio::{self, Opened, StdioError};
use task_api::status::Refusal;

use super::host::{Ends, NumberedRelay};
use super::runs::kill_group;
use super::{Key, Message, Supervisor, prepare};
use crate::container::{
    CallId, Container, Effect, Event, Exit, Facts, Input, Reply, Target, Timer,
};
use crate::service::Answer;

impl Supervisor {
    pub(super) fn carry_out(&mut self, key: Key, effects: Vec<Effect>) {
        let mut failure = None;
        for effect in effects {
            // One that fails must not cost those behind it: a reply would never be given.
            let one = catch_unwind(AssertUnwindSafe(|| self.carry_out_one(key, effect)));
            failure = one.err().or(failure);
        }
        if let Some(panic) = failure {
            resume_unwind(panic);
        }
    }

    fn carry_out_one(&mut self, key: Key, effect: Effect) {
        match effect {
            Effect::Reply(call, result) => self.answer(call, result.map(Answer::Rules)),
            Effect::Publish(event) => self.publish(key, event),
            Effect::Prepare => self.prepare(key),
            Effect::KeepExec { id, io, spec } => {
                if let Some(entry) = self.containers.get_mut(&key) {
                    entry.host.keep_exec(id, io, spec);
                }
            }
            Effect::OpenStdio(target) => self.open_stdio(key, target),
            Effect::Run(run) => self.start_run(key, &run),
            Effect::KillRun(step) => self.kill_run(key, &step),
            Effect::Signal {
                call,
                target,
                signal,
            } => self.send_signal(key, call, &target, signal),
            Effect::ReadPids(call) => self.read_pids(key, call),
            Effect::ReadStats(call) => self.read_stats(key, call),
            Effect::CloseStdin(target) => {
                if let Some(numbered) = self.relay(key, &target) {
                    numbered.relay.close_stdin();
                }
            }
            Effect::Resize {
                call,
                target,
                width,
                height,
            } => {
                let result = match self.relay(key, &target) {
                    Some(numbered) => numbered.relay.resize(width, height),
                    None => Ok(()),
                };
                let result = result
                    .map(|()| Answer::Rules(Reply::Empty))
                    .map_err(|error| Refusal::unknown(format!("resize the terminal: {error}")));
                self.answer(call, result);
            }
            Effect::WatchOom => {
                // The largest operation of all is over.
                self.untidy += super::TIDY_EVERY;
                self.watch_oom(key);
            }
            Effect::Unmount => self.unmount(key),
            Effect::Arm(timer) => {
                let after = limit(&timer);
                self.arm(key, timer, after);
            }
            Effect::Disarm(timer) => {
                if let Some(entry) = self.containers.get_mut(&key) {
                    entry.host.disarm(&timer);
                }
            }
            Effect::Release(target) => {
                self.untidy += 1;
                let released = self
                    .containers
                    .get_mut(&key)
                    .and_then(|entry| entry.host.release(&target));
                if let Some(numbered) = released {
                    self.let_linger(numbered);
                }
            }
            Effect::Forget(tombstone) => self.forget(key, tombstone),
            Effect::Log(text) => log::warn!("{text}"),
        }
    }

    fn relay(&mut self, key: Key, target: &Target) -> Option<&mut NumberedRelay> {
        self.containers.get_mut(&key)?.host.relays.get_mut(target)
    }

    fn publish(&mut self, key: Key, event: Event) {
        let Some(entry) = self.containers.get_mut(&key) else {
            return;
        };
        let event = entry.host.event(event);
        match event.to_any() {
            Ok(any) => self.publisher.publish(event.topic(), any),
            Err(error) => log::error!("encode event {}: {error}", event.topic()),
        }
    }

    /// Starts the helper of Create.
    fn prepare(&mut self, key: Key) {
        let Some(entry) = self.containers.get_mut(&key) else {
            return;
        };
        let work = entry.host.preparation();
        let known = entry.host.runtime.kind.pid_is_the_container();
        self.in_helper(
            key,
            move || prepare::prepare(work),
            move |result| {
                Input::Prepared(
                    result
                        .unwrap_or_else(|panic| Err(Refusal::internal(panic)))
                        .map(|prepared| Facts {
                            private_pid_namespace: prepared.private_pid_namespace,
                            runtime_is_known: known,
                            mounted: prepared.mounted,
                        }),
                )
            },
        );
    }

    fn unmount(&mut self, key: Key) {
        let Some(entry) = self.containers.get(&key) else {
            return;
        };
        let rootfs = entry.host.rootfs();
        self.in_helper(
            key,
            move || prepare::unmount(&rootfs),
            |result| Input::Unmounted(result.unwrap_or_else(Err)),
        );
    }

    /// Runs what may block in a thread of its own; its end comes back as an input.
    pub(super) fn in_helper<T: Send + 'static>(
        &self,
        key: Key,
        work: impl FnOnce() -> T + Send + 'static,
        done: impl FnOnce(Result<T, String>) -> Input + 'static,
    ) {
        let sender = self.sender.clone();
        tokio::task::spawn_local(async move {
            let result = helper::run(work).await.map_err(|error| error.to_string());
            let _ = sender.send(Message::Input(key, done(result)));
        });
    }

    fn open_stdio(&mut self, key: Key, target: Target) {
        let Some(entry) = self.containers.get(&key) else {
            return;
        };
        let request = entry.host.stdio_request(&target);
        let sender = self.sender.clone();
        tokio::task::spawn_local(async move {
            let opened = helper::contain(stdio::open(&request)).await;
            let result =
                opened.unwrap_or_else(|panic| Err(StdioError::Pipe(std::io::Error::other(panic))));
            let _ = sender.send(Message::StdioOpened(key, target, result.map(Box::new)));
        });
    }

    pub(super) fn stdio_opened(
        &mut self,
        key: Key,
        target: Target,
        result: Result<Box<Opened>, StdioError>,
    ) {
        let Some(entry) = self.containers.get_mut(&key) else {
            if let Ok(opened) = result {
                opened.relay.shut();
            }
            return;
        };
        let result = match result {
            Ok(opened) => {
                let Opened {
                    child,
                    console,
                    mut relay,
                } = *opened;
                let number = self.next_relay;
                self.next_relay += 1;
                let sender = self.sender.clone();
                relay.start(move || {
                    let _ = sender.send(Message::Drained(number));
                });
                self.relay_owners.insert(number, (key, target.clone()));
                entry
                    .host
                    .ends
                    .insert(target.clone(), Ends { child, console });
                entry
                    .host
                    .relays
                    .insert(target.clone(), NumberedRelay { number, relay });
                Ok(())
            }
            Err(error) => Err(Refusal::unknown(error.to_string())),
        };
        self.input(key, Input::StdioOpened(target, result));
    }

    /// A relay has delivered everything.
    pub(super) fn drained(&mut self, number: u64) {
        if let Some(relay) = self.lingering.remove(&number) {
            relay.shut();
        } else if let Some((key, target)) = self.relay_owners.remove(&number) {
            self.input(key, Input::Drained(target));
        }
    }

    /// The process of this relay is deleted; the relay goes on until everything is delivered or
    /// nobody is left to read it (DESIGN rule 8).
    fn let_linger(&mut self, numbered: NumberedRelay) {
        let NumberedRelay { number, mut relay } = numbered;
        self.relay_owners.remove(&number);
        if relay.is_drained() {
            relay.shut();
        } else {
            relay.release_readers();
            self.lingering.insert(number, relay);
        }
    }

    fn send_signal(&mut self, key: Key, call: CallId, target: &Target, signal: i32) {
        let Some(entry) = self.containers.get(&key) else {
            return;
        };
        let sent = entry.host.signal(target, signal).or_else(|error| {
            // There was no descriptor left to hold the process by: its number is as good until
            // it is collected.
            match self.ledger.pid_of(key, target) {
                Some(pid) if error.kind() == std::io::ErrorKind::NotFound => {
                    sys::pidfd::kill(pid, signal)
                }
                _ => Err(error),
            }
        });
        let result = match sent {
            Ok(()) => Ok(Answer::Rules(Reply::Empty)),
            Err(error) if sys::pidfd::is_gone(&error) => {
                Err(Refusal::not_found("process already finished"))
            }
            Err(error) => Err(Refusal::unknown(format!(
                "unknown error after kill: {error}"
            ))),
        };
        self.answer(call, result);
    }

    fn read_pids(&mut self, key: Key, call: CallId) {
        let rules = self.containers.get(&key).map(|entry| &entry.rules);
        let execs = rules.map(Container::exec_pids).unwrap_or_default();
        // A daemon that was started anew takes a shim without pids for a leaked one and deletes its
        // container, exit status and all (containerd from 1.7 on). So those that we know ourselves
        // are told where there is no cgroup of the container's own to ask, and where the container
        // has ended and waits for its Delete: then it is the pid that its init had.
        let init = rules.and_then(Container::init_pid);
        let known: Vec<i32> = init
            .into_iter()
            .chain(execs.iter().map(|(_, pid)| *pid))
            .collect();
        let Some(cgroup) = self.cgroup(key) else {
            return self.answer_pids(key, call, known);
        };
        self.answer_from_helper(call, move || match cgroup.processes() {
            Ok(pids) if !pids.is_empty() => Ok(Answer::Pids(annotate(pids, &execs))),
            Ok(_) => Ok(Answer::Pids(annotate(known, &execs))),
            Err(error) => {
                log::debug!("read the pids: {error}");
                Ok(Answer::Pids(annotate(known, &execs)))
            }
        });
    }

    pub(super) fn answer_pids(&mut self, key: Key, call: CallId, pids: Vec<i32>) {
        let execs = self
            .containers
            .get(&key)
            .map(|entry| entry.rules.exec_pids());
        self.answer(
            call,
            Ok(Answer::Pids(annotate(pids, &execs.unwrap_or_default()))),
        );
    }

    fn read_stats(&mut self, key: Key, call: CallId) {
        let Some(cgroup) = self.cgroup(key) else {
            return self.answer(call, Err(Refusal::not_found("cgroup does not exist")));
        };
        self.answer_from_helper(call, move || match cgroup.stats() {
            Ok(stats) => Ok(Answer::Stats(stats)),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                Err(Refusal::not_found("cgroup does not exist"))
            }
            Err(error) => Err(Refusal::unknown(format!("read the metrics: {error}"))),
        });
    }

    fn cgroup(&self, key: Key) -> Option<Arc<Cgroup>> {
        self.containers.get(&key)?.host.cgroup.clone()
    }

    fn answer_from_helper(
        &self,
        call: CallId,
        work: impl FnOnce() -> Result<Answer, Refusal> + Send + 'static,
    ) {
        let sender = self.sender.clone();
        tokio::task::spawn_local(async move {
            let result = helper::run(work).await;
            let result = result.unwrap_or_else(|error| Err(Refusal::internal(error.to_string())));
            let _ = sender.send(Message::Answered(call, result));
        });
    }

    /// Watches the cgroup's OOM counter; each growth comes as one input.
    fn watch_oom(&mut self, key: Key) {
        let Some(cgroup) = self.cgroup(key) else {
            return;
        };
        if cgroup.version() == Version::V2 {
            // Writing to cgroup.subtree_control waits for a lock that the whole machine shares.
            let cgroup = Arc::clone(&cgroup);
            tokio::task::spawn_local(async move {
                match helper::run(move || cgroup.enable_controllers()).await {
                    Ok(Ok(())) => {}
                    Ok(Err(error)) => log::debug!("enable cgroup controllers: {error}"),
                    Err(error) => log::warn!("enable cgroup controllers: {error}"),
                }
            });
        }
        let mut watch = match cgroup.watch_oom() {
            Ok(watch) => watch,
            Err(error) => {
                log::warn!("watch for OOM: {error}");
                return;
            }
        };
        let Some(entry) = self.containers.get_mut(&key) else {
            return;
        };
        let sender = self.sender.clone();
        let watched = Rc::clone(&entry.host.watched_ooms);
        let task = tokio::task::spawn_local(async move {
            while let OomChange::Grew(kills) = watch.changed().await {
                watched.set(kills);
                let _ = sender.send(Message::OomCounter(key));
            }
        });
        entry.host.watch_oom(task.abort_handle());
    }

    /// The container is over: what belonged to it goes.
    fn forget(&mut self, key: Key, tombstone: Option<(i32, Exit)>) {
        let Some(entry) = self.containers.remove(&key) else {
            return;
        };
        // A call of the runtime names the container by its id: one that is still under way would
        // meet the next container of this id.
        for running in entry.host.runs.values() {
            kill_group(running);
        }
        self.ledger.forget(key);
        self.relay_owners.retain(|_, (owner, _)| *owner != key);
        let id = entry.host.id.clone();
        self.ids.remove(&id);
        if let Some((pid, exit)) = tombstone {
            if self.tombstones.len() == super::TOMBSTONES {
                self.tombstones.pop_front();
            }
            self.tombstones.push_back((id, pid, exit));
        }
        self.container_forgotten();
    }
}

/// How long each timer runs (DESIGN rules 5 and 8).
fn limit(timer: &Timer) -> Duration {
    Duration::from_secs(match timer {
        Timer::StopRuns | Timer::Drain(_) => 5,
        Timer::PublishAnyway | Timer::StopDelete => 10,
        Timer::AwaitExit => 2,
    })
}

fn annotate(pids: Vec<i32>, execs: &[(String, i32)]) -> Vec<(i32, Option<String>)> {
    let exec_of = |pid| {
        execs
            .iter()
            .find(|(_, other)| *other == pid)
            .map(|(id, _)| id.clone())
    };
    pids.into_iter().map(|pid| (pid, exec_of(pid))).collect()
}
