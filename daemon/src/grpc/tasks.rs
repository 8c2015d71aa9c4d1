//! Tasks: `containerd.services.tasks.v1`. Most calls go to the shim as they are; creating and
//! deleting are the manager's.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::SystemTime;

use core_api::tasks::tasks_server::Tasks;
use core_api::tasks::{
    CheckpointTaskRequest, CheckpointTaskResponse, CloseIoRequest, CreateTaskRequest,
    CreateTaskResponse, DeleteProcessRequest, DeleteResponse, DeleteTaskRequest,
    ExecProcessRequest, GetRequest, GetResponse, KillRequest, ListPidsRequest, ListPidsResponse,
    ListTasksRequest, ListTasksResponse, MetricsRequest, MetricsResponse, PauseTaskRequest,
    ResizePtyRequest, ResumeTaskRequest, StartRequest, StartResponse, UpdateTaskRequest,
    WaitRequest, WaitResponse,
};
use core_api::types::Metric;
use protobuf::Message;
use task_api::options::{CHECKPOINT_OPTIONS, CheckpointOptions, type_name};
use task_api::task;
use tokio::task::JoinSet;
use tonic::{Request, Response, Status};

use super::{Services, namespace};
use crate::filter::{Fields, Filters};
use crate::shim::task::{STATE_LIMIT, Task};
use crate::{convert, ids, status};

/// What filters over metrics may ask of a task.
struct Listed<'a> {
    namespace: &'a str,
    id: &'a str,
}

impl Fields for Listed<'_> {
    fn field(&self, path: &[String]) -> Option<Cow<'_, str>> {
        match path {
            [name] if name == "id" => Some(self.id.into()),
            [name] if name == "namespace" => Some(self.namespace.into()),
            _ => None,
        }
    }
}

impl Services {
    async fn task<T>(&self, request: &Request<T>, id: &str) -> Result<Arc<Task>, Status> {
        self.manager.get(&namespace(request)?, id).await
    }

    /// Passes a call without an answer on to the shim.
    async fn pass<T>(
        &self,
        request: &Request<T>,
        id: &str,
        method: &str,
        message: &impl Message,
    ) -> Result<Response<()>, Status> {
        let task = self.task(request, id).await?;
        task.call::<_, task::Empty>(method, message, None).await?;
        Ok(Response::new(()))
    }
}

/// Asks every task at once; who does not answer in time delays nobody and is left out.
async fn of_all<T: Send + 'static, F>(tasks: Vec<Arc<Task>>, ask: impl Fn(Arc<Task>) -> F) -> Vec<T>
where
    F: Future<Output = Result<T, Status>> + Send + 'static,
{
    let mut asked = JoinSet::new();
    for (at, task) in tasks.into_iter().enumerate() {
        let name = task.id().to_owned();
        let answer = ask(task);
        asked.spawn(async move {
            let answer = answer.await.inspect_err(|refusal| {
                log::warn!("task {name}: {}", refusal.message());
            });
            (at, answer.ok())
        });
    }
    let mut found = asked.join_all().await;
    found.sort_by_key(|(at, _)| *at);
    found.into_iter().filter_map(|(_, answer)| answer).collect()
}

#[tonic::async_trait]
impl Tasks for Services {
    async fn create(
        &self,
        request: Request<CreateTaskRequest>,
    ) -> Result<Response<CreateTaskResponse>, Status> {
        let namespace = namespace(&request)?;
        let request = request.into_inner();
        let container = self.store.container(&namespace, &request.container_id)?;
        if request.checkpoint.is_some() {
            return Err(status::unimplemented(
                "restore from an image of the content store",
            ));
        }
        let container_id = container.id.clone();
        let pid = self.manager.create(namespace, container, request).await?;
        Ok(Response::new(CreateTaskResponse { container_id, pid }))
    }

    async fn start(
        &self,
        request: Request<StartRequest>,
    ) -> Result<Response<StartResponse>, Status> {
        let asked = request.get_ref();
        let task = self.task(&request, &asked.container_id).await?;
        let pid = task.start(&asked.exec_id).await?;
        Ok(Response::new(StartResponse { pid }))
    }

    async fn delete(
        &self,
        request: Request<DeleteTaskRequest>,
    ) -> Result<Response<DeleteResponse>, Status> {
        let id = request.get_ref().container_id.clone();
        let task = self.task(&request, &id).await?;
        let exit = self.manager.delete(task).await?;
        // As with containerd, only of other processes is the id told.
        Ok(Response::new(DeleteResponse {
            id: String::new(),
            pid: exit.pid,
            exit_status: exit.status,
            exited_at: exit.at,
        }))
    }

    async fn delete_process(
        &self,
        request: Request<DeleteProcessRequest>,
    ) -> Result<Response<DeleteResponse>, Status> {
        let asked = request.get_ref();
        let task = self.task(&request, &asked.container_id).await?;
        if asked.exec_id.is_empty() {
            return Err(status::invalid("exec id must be set"));
        }
        let exit = task.delete_exec(&asked.exec_id).await?;
        Ok(Response::new(DeleteResponse {
            id: asked.exec_id.clone(),
            pid: exit.pid,
            exit_status: exit.status,
            exited_at: exit.at,
        }))
    }

    async fn get(&self, request: Request<GetRequest>) -> Result<Response<GetResponse>, Status> {
        let asked = request.get_ref();
        let task = self.task(&request, &asked.container_id).await?;
        let state = task.state(&asked.exec_id).await?;
        let id = match asked.exec_id.as_str() {
            "" => task.id(),
            exec => exec,
        };
        let process = Some(convert::process(id, state));
        Ok(Response::new(GetResponse { process }))
    }

    async fn list(
        &self,
        request: Request<ListTasksRequest>,
    ) -> Result<Response<ListTasksResponse>, Status> {
        let tasks = self.manager.list(&namespace(&request)?, |_| true).await;
        let tasks = of_all(tasks, |task| async move {
            let state = task.state_for_list().await?;
            Ok(convert::process(task.id(), state))
        })
        .await;
        Ok(Response::new(ListTasksResponse { tasks }))
    }

    async fn kill(&self, request: Request<KillRequest>) -> Result<Response<()>, Status> {
        let asked = request.get_ref();
        let message = task::KillRequest {
            id: asked.container_id.clone(),
            exec_id: asked.exec_id.clone(),
            signal: asked.signal,
            all: asked.all,
            ..Default::default()
        };
        self.pass(&request, &asked.container_id, "Kill", &message)
            .await
    }

    async fn exec(&self, request: Request<ExecProcessRequest>) -> Result<Response<()>, Status> {
        let asked = request.get_ref();
        if asked.exec_id.is_empty() {
            return Err(status::invalid("exec id cannot be empty"));
        }
        self.task(&request, &asked.container_id).await?;
        ids::check(&asked.exec_id)?;
        let message = task::ExecProcessRequest {
            id: asked.container_id.clone(),
            exec_id: asked.exec_id.clone(),
            terminal: asked.terminal,
            stdin: asked.stdin.clone(),
            stdout: asked.stdout.clone(),
            stderr: asked.stderr.clone(),
            spec: convert::any_to_shim(asked.spec.clone()),
            ..Default::default()
        };
        self.pass(&request, &asked.container_id, "Exec", &message)
            .await
    }

    async fn resize_pty(&self, request: Request<ResizePtyRequest>) -> Result<Response<()>, Status> {
        let asked = request.get_ref();
        let message = task::ResizePtyRequest {
            id: asked.container_id.clone(),
            exec_id: asked.exec_id.clone(),
            width: asked.width,
            height: asked.height,
            ..Default::default()
        };
        self.pass(&request, &asked.container_id, "ResizePty", &message)
            .await
    }

    async fn close_io(&self, request: Request<CloseIoRequest>) -> Result<Response<()>, Status> {
        let asked = request.get_ref();
        let message = task::CloseIORequest {
            id: asked.container_id.clone(),
            exec_id: asked.exec_id.clone(),
            stdin: asked.stdin,
            ..Default::default()
        };
        self.pass(&request, &asked.container_id, "CloseIO", &message)
            .await
    }

    async fn pause(&self, request: Request<PauseTaskRequest>) -> Result<Response<()>, Status> {
        let id = &request.get_ref().container_id;
        let message = task::PauseRequest {
            id: id.clone(),
            ..Default::default()
        };
        self.pass(&request, id, "Pause", &message).await
    }

    async fn resume(&self, request: Request<ResumeTaskRequest>) -> Result<Response<()>, Status> {
        let id = &request.get_ref().container_id;
        let message = task::ResumeRequest {
            id: id.clone(),
            ..Default::default()
        };
        self.pass(&request, id, "Resume", &message).await
    }

    async fn list_pids(
        &self,
        request: Request<ListPidsRequest>,
    ) -> Result<Response<ListPidsResponse>, Status> {
        let id = &request.get_ref().container_id;
        let task = self.task(&request, id).await?;
        let message = task::PidsRequest {
            id: id.clone(),
            ..Default::default()
        };
        let answer: task::PidsResponse = task.call("Pids", &message, None).await?;
        let processes = answer
            .processes
            .into_iter()
            .map(convert::process_info)
            .collect();
        Ok(Response::new(ListPidsResponse { processes }))
    }

    async fn checkpoint(
        &self,
        request: Request<CheckpointTaskRequest>,
    ) -> Result<Response<CheckpointTaskResponse>, Status> {
        let asked = request.get_ref();
        let options = asked.options.clone();
        let path = options
            .as_ref()
            .filter(|any| type_name(&any.type_url) == CHECKPOINT_OPTIONS)
            .and_then(|any| CheckpointOptions::parse_from_bytes(&any.value).ok())
            .map(|options| options.image_path)
            .unwrap_or_default();
        self.task(&request, &asked.container_id).await?;
        if path.is_empty() {
            return Err(status::unimplemented("checkpoint into the content store"));
        }
        let message = task::CheckpointTaskRequest {
            id: asked.container_id.clone(),
            path,
            options: convert::any_to_shim(options),
            ..Default::default()
        };
        self.pass(&request, &asked.container_id, "Checkpoint", &message)
            .await?;
        Ok(Response::new(CheckpointTaskResponse::default()))
    }

    async fn update(&self, request: Request<UpdateTaskRequest>) -> Result<Response<()>, Status> {
        let asked = request.get_ref();
        let message = task::UpdateTaskRequest {
            id: asked.container_id.clone(),
            resources: convert::any_to_shim(asked.resources.clone()),
            annotations: asked.annotations.clone().into_iter().collect(),
            ..Default::default()
        };
        self.pass(&request, &asked.container_id, "Update", &message)
            .await
    }

    async fn metrics(
        &self,
        request: Request<MetricsRequest>,
    ) -> Result<Response<MetricsResponse>, Status> {
        let filters = Filters::parse(&request.get_ref().filters)?;
        let namespace = namespace(&request)?;
        let wanted = |id: &str| {
            filters.hold(&Listed {
                namespace: &namespace,
                id,
            })
        };
        let tasks = self.manager.list(&namespace, wanted).await;
        let metrics = of_all(tasks, |task| async move {
            let id = task.id().to_owned();
            let message = task::StatsRequest {
                id: id.clone(),
                ..Default::default()
            };
            let answer: task::StatsResponse =
                task.call("Stats", &message, Some(STATE_LIMIT)).await?;
            let timestamp = Some(SystemTime::now().into());
            Ok(Metric {
                timestamp,
                id,
                data: convert::any(answer.stats),
            })
        })
        .await;
        Ok(Response::new(MetricsResponse { metrics }))
    }

    async fn wait(&self, request: Request<WaitRequest>) -> Result<Response<WaitResponse>, Status> {
        let asked = request.get_ref();
        let task = self.task(&request, &asked.container_id).await?;
        let exit = task.wait(&asked.exec_id).await?;
        Ok(Response::new(WaitResponse {
            exit_status: exit.status,
            exited_at: exit.at,
        }))
    }
}
