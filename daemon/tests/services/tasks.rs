//! Tasks, side by side: every call on a task that is not there, and on one through its life.

use core_api::containers::{Container, CreateContainerRequest, CreateContainerResponse, container};
use core_api::tasks::{
    CheckpointTaskRequest, CheckpointTaskResponse, CloseIoRequest, CreateTaskRequest,
    CreateTaskResponse, DeleteProcessRequest, DeleteResponse, DeleteTaskRequest,
    ExecProcessRequest, GetRequest, GetResponse, KillRequest, ListPidsRequest, ListPidsResponse,
    ListTasksRequest, ListTasksResponse, MetricsRequest, MetricsResponse, PauseTaskRequest,
    ResizePtyRequest, ResumeTaskRequest, StartRequest, StartResponse, UpdateTaskRequest,
    WaitRequest, WaitResponse,
};
use core_api::{Any, types};
use regex_lite::Regex;

use crate::api::told;
use crate::{Pair, Talk, Who, odd_any};

/// Notes an answer with every pid of more than one digit as `PID`.
macro_rules! ask {
    ($talk:expr, $step:expr, $method:literal, $answer:ty, $message:expr) => {{
        let method = concat!("tasks.v1.Tasks/", $method);
        let answer = $talk.peer.call::<_, $answer>(method, $message).await;
        let pids = Regex::new(r"pid: \d{2,}").unwrap();
        let text = pids.replace_all(&told(&answer), "pid: PID").into_owned();
        $talk.note(&format!("{} ({method})", $step), &text);
        answer
    }};
}

fn json(text: String) -> Option<Any> {
    Some(Any {
        type_url: "types.containerd.io/opencontainers/runtime-spec/1/Spec".into(),
        value: text.into_bytes(),
    })
}

/// A process that sleeps until it is killed.
fn process(command: &str) -> String {
    format!(
        r#"{{"user":{{"uid":0,"gid":0}},"args":["/bin/busybox",{command}],"env":["PATH=/bin"],"cwd":"/"}}"#
    )
}

fn spec(root: &str, cgroup: &str) -> String {
    format!(
        r#"{{"ociVersion":"1.0.2","process":{},"root":{{"path":{root:?}}},
        "mounts":[{{"destination":"/proc","type":"proc","source":"proc"}}],
        "linux":{{"cgroupsPath":"/{cgroup}/t","namespaces":
        [{{"type":"pid"}},{{"type":"mount"}},{{"type":"ipc"}},{{"type":"uts"}}]}}}}"#,
        process("\"sleep\",\"1000\"")
    )
}

/// Every call on container `id`, process `exec`.
async fn everything(talk: &mut Talk, step: &str, id: &str, exec: &str) {
    let container_id = id.to_owned();
    let exec_id = exec.to_owned();
    let start = StartRequest {
        container_id: container_id.clone(),
        exec_id: exec_id.clone(),
    };
    let _ = ask!(talk, step, "Start", StartResponse, start);
    let get = GetRequest {
        container_id: container_id.clone(),
        exec_id: exec_id.clone(),
    };
    let _ = ask!(talk, step, "Get", GetResponse, get);
    let resize = ResizePtyRequest {
        container_id: container_id.clone(),
        exec_id: exec_id.clone(),
        width: 80,
        height: 25,
    };
    let _ = ask!(talk, step, "ResizePty", (), resize);
    let close = CloseIoRequest {
        container_id: container_id.clone(),
        exec_id: exec_id.clone(),
        stdin: true,
    };
    let _ = ask!(talk, step, "CloseIO", (), close);
    let kill = KillRequest {
        container_id: container_id.clone(),
        exec_id: exec_id.clone(),
        signal: 9,
        all: false,
    };
    let _ = ask!(talk, step, "Kill", (), kill);
    let wait = WaitRequest {
        container_id: container_id.clone(),
        exec_id: exec_id.clone(),
    };
    let _ = ask!(talk, step, "Wait", WaitResponse, wait);
    if step == "running" {
        // containerd deletes the first process so, and then has a task without one; we refuse.
        return;
    }
    let delete = DeleteProcessRequest {
        container_id,
        exec_id,
    };
    let _ = ask!(talk, step, "DeleteProcess", DeleteResponse, delete);
}

/// Every call on a task as a whole that does not end it.
async fn whole(talk: &mut Talk, step: &str, id: &str) {
    let container_id = id.to_owned();
    let pause = PauseTaskRequest {
        container_id: container_id.clone(),
    };
    let _ = ask!(talk, step, "Pause", (), pause.clone());
    let _ = ask!(talk, format!("{step}, again"), "Pause", (), pause);
    let resume = ResumeTaskRequest {
        container_id: container_id.clone(),
    };
    let _ = ask!(talk, step, "Resume", (), resume.clone());
    let _ = ask!(talk, format!("{step}, again"), "Resume", (), resume);
    let pids = ListPidsRequest {
        container_id: container_id.clone(),
    };
    let _ = ask!(talk, step, "ListPids", ListPidsResponse, pids);
    // An update without resources is not asked of both: the Go shim dies of it.
    let mut update = UpdateTaskRequest {
        container_id: container_id.clone(),
        resources: Some(odd_any()),
        annotations: [].into(),
    };
    let _ = ask!(talk, format!("{step}, odd"), "Update", (), update.clone());
    update.resources = Some(Any {
        type_url: "types.containerd.io/opencontainers/runtime-spec/1/LinuxResources".into(),
        value: br#"{"pids":{"limit":50}}"#.into(),
    });
    let _ = ask!(talk, step, "Update", (), update);
    let mut exec = ExecProcessRequest {
        container_id: container_id.clone(),
        exec_id: String::new(),
        spec: json(process("\"true\"")),
        ..ExecProcessRequest::default()
    };
    let _ = ask!(talk, format!("{step}, nameless"), "Exec", (), exec.clone());
    exec.exec_id = "a b".into();
    let _ = ask!(talk, format!("{step}, bad name"), "Exec", (), exec.clone());
    exec.exec_id = "x".repeat(77);
    let _ = ask!(talk, format!("{step}, long name"), "Exec", (), exec);
}

async fn make(talk: &mut Talk, root: &str) {
    let namespace = talk.peer.namespace.clone().unwrap();
    let container = Container {
        id: "t1".into(),
        runtime: Some(container::Runtime {
            name: "io.containerd.runc.v2".into(),
            options: None,
        }),
        spec: json(spec(root, &namespace)),
        ..Container::default()
    };
    let message = CreateContainerRequest {
        container: Some(container),
    };
    let made = talk
        .peer
        .call::<_, CreateContainerResponse>("containers.v1.Containers/Create", message)
        .await;
    talk.note("record", &made.is_ok().to_string());
}

fn create(id: &str) -> CreateTaskRequest {
    CreateTaskRequest {
        container_id: id.into(),
        ..CreateTaskRequest::default()
    }
}

async fn listed(talk: &mut Talk, step: &str) {
    for filter in ["", "id==t1", "=="] {
        let filter = filter.to_owned();
        let step = format!("{step} {filter:?}");
        let _ = ask!(
            talk,
            step,
            "List",
            ListTasksResponse,
            ListTasksRequest { filter }
        );
    }
    for filters in [&[] as &[&str], &["id==t1"], &["id==none"], &["=="]] {
        let message = MetricsRequest {
            filters: filters.iter().map(|filter| (*filter).to_owned()).collect(),
        };
        let answer = talk
            .peer
            .call::<_, MetricsResponse>("tasks.v1.Tasks/Metrics", message)
            .await;
        let kinds = answer.map(|answer| {
            let kind = |metric: types::Metric| {
                (
                    metric.id,
                    metric.timestamp.is_some(),
                    metric.data.map(|any| any.type_url),
                )
            };
            answer.metrics.into_iter().map(kind).collect::<Vec<_>>()
        });
        talk.note(&format!("{step} metrics {filters:?}"), &told(&kinds));
    }
}

async fn conversation(talk: &mut Talk, root: &str) {
    let here = talk.peer.clone();
    talk.peer = here.nowhere();
    everything(talk, "nowhere", "t1", "").await;
    whole(talk, "nowhere", "t1").await;
    listed(talk, "nowhere").await;
    talk.peer = here.of("a/b");
    everything(talk, "bad namespace", "t1", "").await;
    talk.peer = here;
    listed(talk, "nothing").await;
    everything(talk, "unknown", "t1", "").await;
    everything(talk, "unknown exec", "t1", "e1").await;
    whole(talk, "unknown", "t1").await;
    let _ = ask!(
        talk,
        "no record",
        "Create",
        CreateTaskResponse,
        create("t1")
    );
    let _ = ask!(talk, "no id", "Create", CreateTaskResponse, create(""));
    let delete = DeleteTaskRequest {
        container_id: "t1".into(),
    };
    let _ = ask!(talk, "unknown", "Delete", DeleteResponse, delete.clone());

    make(talk, root).await;
    everything(talk, "not created", "t1", "").await;
    let path = CreateTaskRequest {
        runtime_path: "/no/such/shim".into(),
        ..create("t1")
    };
    let _ = ask!(talk, "no such shim", "Create", CreateTaskResponse, path);
    let options = CreateTaskRequest {
        options: Some(odd_any()),
        ..create("t1")
    };
    let _ = ask!(talk, "odd options", "Create", CreateTaskResponse, options);
    let _ = ask!(talk, "create", "Create", CreateTaskResponse, create("t1"));
    let _ = ask!(talk, "again", "Create", CreateTaskResponse, create("t1"));
    let start = StartRequest {
        container_id: "t1".into(),
        exec_id: String::new(),
    };
    listed(talk, "created").await;
    let _ = ask!(talk, "start", "Start", StartResponse, start.clone());
    let _ = ask!(talk, "again", "Start", StartResponse, start);
    listed(talk, "running").await;
    whole(talk, "running", "t1").await;
    everything(talk, "exec that is not there", "t1", "e1").await;
    let _ = ask!(talk, "running", "Delete", DeleteResponse, delete.clone());

    let exec = ExecProcessRequest {
        container_id: "t1".into(),
        exec_id: "e1".into(),
        spec: json(process("\"sleep\",\"1000\"")),
        ..ExecProcessRequest::default()
    };
    let odd = ExecProcessRequest {
        spec: Some(odd_any()),
        ..exec.clone()
    };
    let _ = ask!(talk, "odd spec", "Exec", (), odd);
    let _ = ask!(talk, "exec", "Exec", (), exec.clone());
    let _ = ask!(talk, "again", "Exec", (), exec.clone());
    let e1 = DeleteProcessRequest {
        container_id: "t1".into(),
        exec_id: "e1".into(),
    };
    everything(talk, "exec", "t1", "e1").await;
    let _ = ask!(talk, "again", "DeleteProcess", DeleteResponse, e1);

    everything(talk, "running", "t1", "").await;
    listed(talk, "stopped").await;
    let _ = ask!(talk, "stopped", "Exec", (), exec);
    let checkpoint = CheckpointTaskRequest {
        container_id: "none".into(),
        ..CheckpointTaskRequest::default()
    };
    let _ = ask!(
        talk,
        "unknown",
        "Checkpoint",
        CheckpointTaskResponse,
        checkpoint
    );
    let _ = ask!(talk, "stopped", "Delete", DeleteResponse, delete.clone());
    let _ = ask!(talk, "again", "Delete", DeleteResponse, delete);
    listed(talk, "deleted").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn tasks_answer_as_containerds() {
    let pair = Pair::new();
    let root = pair.ours.rootfs();
    let mut talks = Vec::new();
    for who in [Who::Ours, Who::Containerd] {
        let mut talk = pair.talk(who).await;
        conversation(&mut talk, &root).await;
        talks.push(talk);
    }
    let code = "containerd loses the code of this refusal on the way";
    crate::compare(
        &talks[0],
        &talks[1],
        &[
            ("nowhere metrics*", code),
            ("nothing metrics [\"==\"]", code),
            ("created metrics [\"==\"]", code),
            ("running metrics [\"==\"]", code),
            ("stopped metrics [\"==\"]", code),
            ("deleted metrics [\"==\"]", code),
            (
                "odd spec (tasks.v1.Tasks/Exec)",
                "our shim has a code for it, the Go shim none",
            ),
            (
                "again (tasks.v1.Tasks/DeleteProcess)",
                "our shim remembers for who asks twice",
            ),
            ("no such shim (tasks.v1.Tasks/Create)", code),
            ("odd options (tasks.v1.Tasks/Create)", code),
        ],
    );
}
