//! The storm's client that runs containers.

use std::sync::Arc;
use std::time::{Duration, Instant};

use core_api::Any;
use core_api::containers::{
    CreateContainerRequest, CreateContainerResponse, DeleteContainerRequest,
};
use core_api::tasks;
use tonic::Code;

use crate::Storm;
use crate::api::Peer;

impl Storm {
    /// A client that runs containers: each ends with a code of its own, and so does an exec in it.
    pub(crate) async fn runner(self: Arc<Self>, number: u32) {
        let mut peer = self.peer().await;
        let mut round = 0;
        while !self.is_over() {
            round += 1;
            let id = format!("t{number}-{round}");
            let code = 1 + round % 100;
            let script = format!("/bin/busybox sleep 0.{}; exit {code}", 1 + round % 5);
            let container = Some(self.record(&id, "", &["/bin/sh", "-c", &script]));
            let create = CreateContainerRequest { container };
            let (created, again) = self
                .ask::<_, CreateContainerResponse>(
                    &mut peer,
                    "containers.v1.Containers/Create",
                    create,
                )
                .await;
            match created {
                Err(status) if again && status.code() == Code::AlreadyExists => {}
                created => drop(created.unwrap()),
            }
            self.run_task(&mut peer, &id, code).await;
            let delete = DeleteContainerRequest { id: id.clone() };
            let (deleted, again) = self
                .ask::<_, ()>(&mut peer, "containers.v1.Containers/Delete", delete)
                .await;
            match deleted {
                Err(status) if again && status.code() == Code::NotFound => {}
                deleted => deleted.unwrap(),
            }
        }
    }

    async fn run_task(&self, peer: &mut Peer, id: &str, code: u32) {
        let create = tasks::CreateTaskRequest {
            container_id: id.to_owned(),
            ..Default::default()
        };
        let (created, cut) = self
            .ask::<_, tasks::CreateTaskResponse>(peer, "tasks.v1.Tasks/Create", create)
            .await;
        match created {
            Ok(_) => {}
            // The daemon died over an earlier try, which was carried out.
            Err(status) if cut && status.code() == Code::AlreadyExists => {}
            Err(status) => panic!("create {id}: {status:?}"),
        }
        let start = tasks::StartRequest {
            container_id: id.to_owned(),
            ..Default::default()
        };
        let (answer, again) = self
            .ask::<_, tasks::StartResponse>(peer, "tasks.v1.Tasks/Start", start)
            .await;
        let pid = match answer {
            Ok(answer) => answer.pid,
            // Cut off while it was created, the task was taken away; or it was started before.
            Err(status) if cut && status.code() == Code::NotFound => return,
            Err(_) if again => 0,
            Err(status) => panic!("start {id}: {status:?}"),
        };
        if pid != 0 {
            let process = (id.to_owned(), id.to_owned(), pid);
            self.started.lock().unwrap().insert(process, code);
        }
        self.run_exec(peer, id).await;
        // Acknowledged: it must be seen to end, with its code, whatever happens to the daemon.
        let get = tasks::GetRequest {
            container_id: id.to_owned(),
            exec_id: String::new(),
        };
        let deadline = Instant::now() + Duration::from_secs(60);
        loop {
            let (answer, _) = self
                .ask::<_, tasks::GetResponse>(peer, "tasks.v1.Tasks/Get", get.clone())
                .await;
            match answer {
                Ok(answer) => {
                    let process = answer.process.unwrap();
                    if process.status == 3 {
                        assert_eq!(process.exit_status, code, "{id}");
                        break;
                    }
                }
                // On a machine that is busy enough a shim takes its time.
                Err(status) if status.code() == Code::DeadlineExceeded => {}
                Err(status) if status.code() == Code::Unavailable => {}
                Err(status) => panic!("{id} is lost: {status:?}"),
            }
            assert!(Instant::now() < deadline, "{id} does not end");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        let delete = tasks::DeleteTaskRequest {
            container_id: id.to_owned(),
        };
        let (deleted, again) = self
            .ask::<_, tasks::DeleteResponse>(peer, "tasks.v1.Tasks/Delete", delete)
            .await;
        match deleted {
            Ok(deleted) => assert_eq!(deleted.exit_status, code, "{id}"),
            Err(status) if again && status.code() == Code::NotFound => {}
            Err(status) => panic!("delete {id}: {status:?}"),
        }
    }

    /// An exec that may well be cut off by the end of its container; its start, once
    /// acknowledged, has an end.
    async fn run_exec(&self, peer: &mut Peer, id: &str) {
        let process = serde_json::json!({
            "args": ["/bin/sh", "-c", "exit 42"], "cwd": "/", "user": {"uid": 0, "gid": 0}
        });
        let exec = tasks::ExecProcessRequest {
            container_id: id.to_owned(),
            exec_id: "e".into(),
            spec: Some(Any {
                type_url: "types.containerd.io/opencontainers/runtime-spec/1/Process".into(),
                value: process.to_string().into_bytes(),
            }),
            ..Default::default()
        };
        let (added, _) = self.ask::<_, ()>(peer, "tasks.v1.Tasks/Exec", exec).await;
        if added.is_err() {
            return;
        }
        let start = tasks::StartRequest {
            container_id: id.to_owned(),
            exec_id: "e".into(),
        };
        let (started, _) = self
            .ask::<_, tasks::StartResponse>(peer, "tasks.v1.Tasks/Start", start)
            .await;
        let Ok(started) = started else { return };
        let process = (id.to_owned(), "e".to_owned(), started.pid);
        self.started.lock().unwrap().insert(process, 42);
    }
}
