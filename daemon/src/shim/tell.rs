//! What the world is told of tasks: the events that shims forward, and those that the daemon must
//! publish in a shim's place, each exit once.

use std::sync::{MutexGuard, PoisonError};
use std::time::Duration;

use core_api::events_service::Envelope;
use protobuf::{EnumOrUnknown, Message};
use task_api::events::{TaskDelete, TaskEvent, TaskExit, TaskOOM, topic};
use task_api::task::{StateResponse, Status as TaskStatus};
use tonic::{Code, Status};

use super::ledger::{Ledger, Teller, Told};
use super::manager::Manager;
use super::task::{Exit, Task};
use crate::bundle::Bundle;
use crate::convert;

/// How long a shim is given to tell by itself what no daemon was there for: no shim pauses longer
/// than 5 s between two tries.
const REPLAY_LIMIT: Duration = Duration::from_secs(7);
/// The pause before a shim that did not answer is asked again how its processes are.
const ASK_PAUSE: Duration = Duration::from_secs(5);
/// The code of an exec that ended with its container, by SIGKILL.
const KILLED: u32 = 137;

/// A process that has ended without anybody having been told; the exec's id is empty for the
/// first process.
type Untold = (String, Exit);

impl Manager {
    fn telling(&self) -> MutexGuard<'_, ()> {
        self.telling.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Hands out an event that a shim forwards, and takes note of it. An exit that the daemon has
    /// told in the shim's place is not told again.
    ///
    /// # Errors
    /// `InvalidArgument` for an event that cannot be one.
    pub fn forward(&self, envelope: Envelope) -> Result<(), Status> {
        match envelope.topic.as_str() {
            topic::EXIT => self.forward_exit(envelope),
            topic::OOM => {
                let key = message::<TaskOOM>(&envelope)
                    .map(|event| (envelope.namespace.clone(), event.container_id));
                self.exchange.forward(envelope)?;
                if let Some(task) = key.and_then(|key| self.live(&key)) {
                    tokio::spawn(async move { note_oom(&task).await });
                }
                Ok(())
            }
            _ => self.exchange.forward(envelope),
        }
    }

    fn forward_exit(&self, envelope: Envelope) -> Result<(), Status> {
        let Some(event) = message::<TaskExit>(&envelope) else {
            return self.exchange.forward(envelope);
        };
        let key = (envelope.namespace.clone(), event.container_id.clone());
        let Some(bundle) = self.bundle_of(&key) else {
            return self.exchange.forward(envelope);
        };
        let process = if event.id == event.container_id {
            ""
        } else {
            event.id.as_str()
        };
        let ledger = Ledger(&bundle);
        let _telling = self.telling();
        if ledger
            .told(process)
            .is_some_and(|told| told.says(event.pid))
        {
            return Ok(());
        }
        self.exchange.forward(envelope)?;
        // Noted after it was handed out: killed in between, the daemon is told again, and tells.
        let told = Told {
            exit: Exit {
                pid: event.pid,
                status: event.exit_status,
                at: convert::timestamp(event.exited_at),
            },
            by: Teller::Shim,
        };
        ledger.tell(process, &told);
        Ok(())
    }

    /// Tells an exit in the place of a shim, unless it has been told. Answers what was told of it,
    /// now or before.
    fn tell_exit(&self, bundle: &Bundle, process: &str, exit: Exit) -> Exit {
        let _telling = self.telling();
        let ledger = Ledger(bundle);
        if let Some(told) = ledger.told(process) {
            return told.exit;
        }
        let id = if process.is_empty() {
            &bundle.id
        } else {
            process
        };
        log::info!(
            "task {}/{}: the exit of {id} is told in its shim's place",
            bundle.namespace,
            bundle.id
        );
        let event = TaskExit {
            container_id: bundle.id.clone(),
            id: id.to_owned(),
            pid: exit.pid,
            exit_status: exit.status,
            exited_at: convert::timestamp_to_shim(exit.at),
            ..TaskExit::default()
        };
        self.exchange
            .publish_task(&bundle.namespace, &TaskEvent::Exit(event));
        let told = Told {
            exit,
            by: Teller::Daemon,
        };
        ledger.tell(process, &told);
        told.exit
    }

    /// Tells the end of everything of a task whose shim is gone: the exits that were not told, and
    /// the deletion. Answers the exit of the first process: as it was told before, or `exit`.
    pub(super) fn tell_end(&self, bundle: &Bundle, exit: Exit) -> Exit {
        for (exec, told) in Ledger(bundle).execs() {
            if told.is_none() {
                let killed = Exit {
                    pid: 0,
                    status: KILLED,
                    at: exit.at,
                };
                self.tell_exit(bundle, &exec, killed);
            }
        }
        let exit = self.tell_exit(bundle, "", exit);
        let event = TaskDelete {
            container_id: bundle.id.clone(),
            pid: exit.pid,
            exit_status: exit.status,
            exited_at: convert::timestamp_to_shim(exit.at),
            ..TaskDelete::default()
        };
        self.exchange
            .publish_task(&bundle.namespace, &TaskEvent::Delete(event));
        exit
    }

    /// Tells what happened to a task while no daemon was there, unless its shim does so itself.
    pub(super) async fn replay(&self, task: &Task) {
        let missed = loop {
            match self.missed(task).await {
                Ok(missed) => break missed,
                Err(refusal) if refusal.code() == Code::DeadlineExceeded => {
                    tokio::time::sleep(ASK_PAUSE).await;
                }
                Err(refusal) => {
                    log::warn!("task {}: {}", task.id(), refusal.message());
                    return;
                }
            }
        };
        if missed.exits.is_empty() && missed.oom_kills.is_none() {
            return;
        }
        tokio::time::sleep(REPLAY_LIMIT).await;
        if task.is_deleted() {
            return;
        }
        if let Some(count) = missed.oom_kills
            && task.ledger().oom_kills() < Some(count)
        {
            log::info!("task {}: an OOM is told in its shim's place", task.id());
            let event = TaskOOM {
                container_id: task.id().to_owned(),
                ..TaskOOM::default()
            };
            self.exchange
                .publish_task(&task.bundle.namespace, &TaskEvent::Oom(event));
            task.ledger().set_oom_kills(count);
        }
        for (process, exit) in missed.exits {
            self.tell_exit(&task.bundle, &process, exit);
        }
    }

    /// What has happened to a task and was not told: exits of execs, then of the first process.
    async fn missed(&self, task: &Task) -> Result<Missed, Status> {
        let ledger = task.ledger();
        let mut exits = Vec::new();
        for (exec, told) in ledger.execs() {
            if told.is_some() {
                continue;
            }
            match task.state(&exec).await {
                Ok(state) => exits.extend(ended(exec, &state)),
                // Deleted: that was after its end, which who deleted it had seen.
                Err(refusal) if refusal.code() == Code::NotFound => ledger.end_exec(&exec),
                Err(refusal) => return Err(refusal),
            }
        }
        exits.sort_by_key(|(_, exit)| exit.at.map(|at| (at.seconds, at.nanos)));
        if ledger.told("").is_none() {
            exits.extend(ended(String::new(), &task.state("").await?));
        }
        // Who has no cgroup any more, or no figures, has no kills that could be told.
        let counted = task.oom_kills().await.ok().flatten().unwrap_or(0);
        let oom_kills = match ledger.oom_kills() {
            Some(told) => (counted > told).then_some(counted),
            None => {
                // The daemon before us was another one, and told of its own.
                ledger.set_oom_kills(counted);
                None
            }
        };
        Ok(Missed { exits, oom_kills })
    }
}

/// What happened while no daemon was there.
struct Missed {
    exits: Vec<Untold>,
    /// How many OOM kills there have been, if that is more than were told of.
    oom_kills: Option<u64>,
}

fn ended(process: String, state: &StateResponse) -> Option<Untold> {
    let exit = Exit {
        pid: state.pid,
        status: state.exit_status,
        at: convert::timestamp(state.exited_at.clone()),
    };
    (state.status == EnumOrUnknown::new(TaskStatus::STOPPED)).then_some((process, exit))
}

/// Notes, after an OOM was told of, how many kills that covers.
async fn note_oom(task: &Task) {
    if let Ok(Some(count)) = task.oom_kills().await {
        task.ledger().set_oom_kills(count);
    }
}

fn message<M: Message>(envelope: &Envelope) -> Option<M> {
    M::parse_from_bytes(&envelope.event.as_ref()?.value).ok()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use core_api::Any;
    use tokio_stream::StreamExt;

    use super::super::process::Surroundings;
    use super::*;
    use crate::config::Config;
    use crate::exchange::Exchange;
    use crate::filter::Filters;

    fn exit(id: &str, pid: u32) -> Envelope {
        let event = TaskExit {
            container_id: "c".into(),
            id: id.into(),
            pid,
            exit_status: 9,
            ..TaskExit::default()
        };
        Envelope {
            timestamp: Some(std::time::SystemTime::now().into()),
            namespace: "ns".into(),
            topic: topic::EXIT.into(),
            event: Some(Any {
                type_url: "containerd.events.TaskExit".into(),
                value: event.write_to_bytes().unwrap(),
            }),
        }
    }

    #[tokio::test]
    async fn an_exit_is_told_by_the_shim_or_for_it_and_never_by_both() {
        let dir = tempfile::tempdir().unwrap();
        let config = Config {
            root: dir.path().join("root"),
            state: dir.path().join("state"),
            ..Config::default()
        };
        let surroundings = Surroundings::new(&config).unwrap();
        let exchange = Arc::new(Exchange::default());
        let manager = Manager::new(&config, surroundings, exchange.clone());
        let bundle = Bundle::create(&config.root, &config.state, "ns", "c", b"{}").unwrap();
        let (_loading, found) = tokio::sync::watch::channel(());
        manager.set_loading(&bundle, found);
        let ledger = Ledger(&bundle);
        let mut events = exchange.subscribe(Filters::parse::<&str>(&[]).unwrap());
        let ended = |pid| Exit {
            pid,
            status: 9,
            at: None,
        };

        // The shim first: the daemon says nothing more, and a shim that was not heard may repeat.
        ledger.begin_exec("e1");
        manager.forward(exit("e1", 5)).unwrap();
        assert_eq!(ledger.told("e1").unwrap().by, Teller::Shim);
        manager.tell_exit(&bundle, "e1", ended(5));
        manager.forward(exit("e1", 5)).unwrap();
        // The daemon first: what the shim says afterwards is no news.
        ledger.begin_exec("e2");
        manager.tell_exit(&bundle, "e2", ended(6));
        assert_eq!(ledger.told("e2").unwrap().by, Teller::Daemon);
        manager.forward(exit("e2", 6)).unwrap();
        // A new exec of the same id is another process.
        ledger.begin_exec("e2");
        manager.forward(exit("e2", 7)).unwrap();
        // The end of everything: what was told is not told again.
        ledger.begin_exec("e3");
        manager.forward(exit("c", 3)).unwrap();
        assert_eq!(manager.tell_end(&bundle, ended(99)).pid, 3);

        let mut seen = Vec::new();
        while let Ok(Some(event)) =
            tokio::time::timeout(Duration::from_millis(20), events.next()).await
        {
            let event = event.unwrap();
            let told: TaskExit = message(&event).unwrap();
            // A deletion has the container, pid and code in other fields.
            let what = if event.topic == topic::EXIT {
                (told.id, told.pid, told.exit_status)
            } else {
                (event.topic, 0, 0)
            };
            seen.push(what);
        }
        let wanted = [
            ("e1", 5, 9),
            ("e1", 5, 9),
            ("e2", 6, 9),
            ("e2", 7, 9),
            ("c", 3, 9),
            ("e3", 0, KILLED),
            (topic::DELETE, 0, 0),
        ];
        assert_eq!(
            seen,
            wanted.map(|(id, pid, code)| (id.to_owned(), pid, code))
        );
    }
}
