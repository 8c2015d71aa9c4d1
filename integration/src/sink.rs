//! The event sink: containerd's ttrpc Events service as a shim meets it, with all its moods.

use std::net::Shutdown;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex};
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use containerd_shim_protos::shim::events::ForwardRequest;
use protobuf::Message as _;
use ttrpc::Code;

use crate::events::{Event, Payload};
use crate::wire::{Frame, Request, Response, TYPE_RESPONSE};

/// How the sink treats the next event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mood {
    /// Takes and records it.
    Take,
    /// Answers this class of error and records it as refused.
    Refuse(Code),
    /// Answers this class of error to events on this topic only, and takes the others.
    RefuseTopic(&'static str, Code),
    /// Reads it, never answers, records it as swallowed.
    Hang,
    /// Records it but drops the connection instead of an answer: the shim cannot know.
    TakeAndDrop,
}

#[derive(Debug)]
struct State {
    mood: Mood,
    taken: Vec<Event>,
    refused: Vec<Event>,
    connections: Vec<UnixStream>,
    open: bool,
    /// How often it has gone away: a connection of an earlier life takes nothing any more, even if
    /// its thread has read an event and comes to it late.
    lives: usize,
}

type Shared = Arc<(Mutex<State>, Condvar)>;

/// The sink on its socket; what it took stays readable while it is away.
#[derive(Debug)]
pub struct EventSink {
    path: PathBuf,
    shared: Shared,
}

impl EventSink {
    /// Listens on `path`, the value for `TTRPC_ADDRESS`.
    pub fn listen(path: &Path) -> Self {
        let state = State {
            mood: Mood::Take,
            taken: Vec::new(),
            refused: Vec::new(),
            connections: Vec::new(),
            open: false,
            lives: 0,
        };
        let sink = Self {
            path: path.to_owned(),
            shared: Arc::new((Mutex::new(state), Condvar::new())),
        };
        sink.come_back();
        sink
    }

    /// The socket's path.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Treats events like this from now on.
    pub fn set_mood(&self, mood: Mood) {
        self.shared.0.lock().unwrap().mood = mood;
    }

    /// Stops listening, removes the socket and ends all connections: containerd was killed.
    pub fn go_away(&self) {
        let mut state = self.shared.0.lock().unwrap();
        state.open = false;
        state.lives += 1;
        for connection in state.connections.drain(..) {
            let _ = connection.shutdown(Shutdown::Both);
        }
        drop(state);
        // A last connection ends the accept that is still waiting; it finds the sink closed.
        let _ = UnixStream::connect(&self.path);
        let _ = std::fs::remove_file(&self.path);
    }

    /// Listens again on the same path.
    pub fn come_back(&self) {
        let listener = UnixListener::bind(&self.path)
            .unwrap_or_else(|e| panic!("bind event sink {}: {e}", self.path.display()));
        self.shared.0.lock().unwrap().open = true;
        let shared = Arc::clone(&self.shared);
        thread::Builder::new()
            .name("sink".to_owned())
            .spawn(move || accept(&listener, &shared))
            .expect("a thread for the sink");
    }

    /// Everything taken so far, in order.
    pub fn events(&self) -> Vec<Event> {
        self.shared.0.lock().unwrap().taken.clone()
    }

    /// Everything refused, swallowed or dropped so far, in order.
    pub fn refused(&self) -> Vec<Event> {
        self.shared.0.lock().unwrap().refused.clone()
    }

    /// [`Event::brief`] of everything taken so far.
    pub fn briefs(&self) -> Vec<String> {
        self.events().iter().map(Event::brief).collect()
    }

    /// The briefs of one container.
    pub fn briefs_of(&self, container: &str) -> Vec<String> {
        self.events()
            .iter()
            .filter(|e| e.payload.container() == container)
            .map(Event::brief)
            .collect()
    }

    /// Waits for the first event that `wanted` likes and returns it; panics with the list.
    #[track_caller]
    pub fn wait_for(
        &self,
        deadline: Duration,
        what: &str,
        wanted: impl Fn(&Event) -> bool,
    ) -> Event {
        let end = Instant::now() + deadline;
        let mut state = self.shared.0.lock().unwrap();
        loop {
            if let Some(found) = state.taken.iter().find(|e| wanted(e)) {
                return found.clone();
            }
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                let seen: Vec<_> = state.taken.iter().map(Event::brief).collect();
                drop(state);
                panic!("no event within {deadline:?}: {what}; seen {seen:?}");
            }
            state = self.shared.1.wait_timeout(state, left).unwrap().0;
        }
    }

    /// Waits for an event with this brief.
    #[track_caller]
    pub fn wait_brief(&self, brief: &str) -> Event {
        self.wait_for(crate::wait::LONG, brief, |e| e.brief() == brief)
    }

    /// The place of the first event with this brief, waiting for it.
    #[track_caller]
    pub fn position(&self, brief: &str) -> usize {
        self.wait_brief(brief);
        self.briefs()
            .iter()
            .position(|b| b == brief)
            .expect("just seen")
    }
}

impl Drop for EventSink {
    fn drop(&mut self) {
        self.go_away();
    }
}

fn accept(listener: &UnixListener, shared: &Shared) {
    while let Ok((connection, _)) = listener.accept() {
        let mut state = shared.0.lock().unwrap();
        if !state.open {
            return;
        }
        if let Ok(handle) = connection.try_clone() {
            state.connections.push(handle);
        }
        let life = state.lives;
        drop(state);
        let shared = Arc::clone(shared);
        thread::spawn(move || serve(connection, life, &shared));
    }
}

/// Answers one connection until it ends, or the life of the sink that took it.
fn serve(mut connection: UnixStream, life: usize, shared: &Shared) {
    while let Ok(frame) = Frame::read(&mut connection) {
        let arrived = Instant::now();
        let Ok(request) = Request::parse_from_bytes(&frame.payload) else {
            break;
        };
        let event = decode(&request, arrived);
        // Held until the answer is out, so that whoever has seen the event in the list, and then
        // takes the sink away, cannot come between the event and its answer.
        let mut state = shared.0.lock().unwrap();
        if state.lives != life {
            break;
        }
        let mood = match (state.mood, &event) {
            (Mood::RefuseTopic(topic, code), Some(event)) if event.topic == topic => {
                Mood::Refuse(code)
            }
            (Mood::RefuseTopic(..), _) => Mood::Take,
            (mood, _) => mood,
        };
        let code = match (&event, mood) {
            (None, _) => Code::UNIMPLEMENTED,
            (_, Mood::Refuse(code)) => code,
            (_, _) => Code::OK,
        };
        if let Some(event) = event {
            match mood {
                Mood::Take | Mood::RefuseTopic(..) => state.taken.push(event),
                Mood::Refuse(_) | Mood::Hang | Mood::TakeAndDrop => state.refused.push(event),
            }
            shared.1.notify_all();
        }
        match mood {
            Mood::Hang => continue,
            Mood::TakeAndDrop => break,
            Mood::Take | Mood::Refuse(_) | Mood::RefuseTopic(..) => {}
        }
        let mut response = Response::new();
        let status = response.status.mut_or_insert_default();
        status.code = code.into();
        if code != Code::OK {
            status.message = "the sink is told to refuse".to_owned();
        }
        let answer = Frame {
            stream: frame.stream,
            kind: TYPE_RESPONSE,
            flags: 0,
            payload: response.write_to_bytes().expect("responses encode"),
        };
        let written = answer.write(&mut connection);
        drop(state);
        if written.is_err() {
            break;
        }
    }
    let _ = connection.shutdown(Shutdown::Both);
}

fn decode(request: &Request, arrived: Instant) -> Option<Event> {
    if request.service != "containerd.services.events.ttrpc.v1.Events"
        || request.method != "Forward"
    {
        return None;
    }
    let forward = ForwardRequest::parse_from_bytes(&request.payload).ok()?;
    let envelope = forward.envelope.into_option()?;
    let any = envelope.event.clone().unwrap_or_default();
    Some(Event {
        payload: Payload::decode(&envelope.topic, &any),
        topic: envelope.topic.clone(),
        namespace: envelope.namespace.clone(),
        arrived,
        stamped: envelope.timestamp.as_ref().and_then(|t| {
            let seconds = u64::try_from(t.seconds).ok()?;
            let nanos = u32::try_from(t.nanos).ok()?;
            Some(SystemTime::UNIX_EPOCH + Duration::new(seconds, nanos))
        }),
        type_url: any.type_url,
        bytes: any.value,
    })
}
