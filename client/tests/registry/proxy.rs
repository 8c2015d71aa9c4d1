//! A proxy before a registry that sees what is asked for, and breaks it: cuts connections, holds
//! them up, changes a byte, wants tokens. A request each connection; loopback only.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex};
use std::thread;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

/// How long a connection is held up at most.
const HOLD_LIMIT: Duration = Duration::from_secs(60);

/// One request that came.
#[derive(Clone, Debug)]
pub struct Seen {
    pub method: String,
    pub path: String,
    /// Where its range begins, if it has one.
    pub from: Option<u64>,
    /// How many bytes of a body were answered.
    pub sent: u64,
    /// The status that was answered.
    pub status: u16,
    pub headers: String,
}

/// What is done to the answers for paths that end so.
#[derive(Clone, Debug, Default)]
pub struct Plan {
    pub path: String,
    /// The connection is cut after so many bytes of the body, so many times.
    pub cut: (u64, u32),
    /// After so many bytes the rest waits until [`Proxy::release`].
    pub hold: Option<u64>,
    /// The byte at this place is another.
    pub flip: Option<u64>,
    /// This status is answered, so many times.
    pub refuse: (u16, u32),
    /// Ranges are not known.
    pub no_ranges: bool,
}

/// How tokens are given.
#[derive(Clone, Debug)]
pub struct Tokens {
    /// `NAME:PASSWORD` that gets one.
    pub login: String,
    /// An identity token that gets one.
    pub identity: String,
    /// After so many requests a token is refused.
    pub life: u32,
}

#[derive(Default)]
struct State {
    seen: Vec<Seen>,
    plan: Plan,
    released: bool,
    held: u32,
    tokens: Option<Tokens>,
    given: u32,
    used: u32,
}

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

pub struct Proxy {
    pub port: u16,
    shared: Arc<Shared>,
}

impl Proxy {
    pub fn new(upstream: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let shared = Arc::<Shared>::default();
        let of_all = shared.clone();
        thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let shared = of_all.clone();
                // One that is left or killed is of no interest.
                thread::spawn(move || drop(serve(client, port, upstream, &shared)));
            }
        });
        Self { port, shared }
    }

    pub fn host(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    pub fn plan(&self, plan: Plan) {
        let mut state = self.shared.state.lock().unwrap();
        state.plan = plan;
        state.released = false;
        state.held = 0;
    }

    pub fn want_tokens(&self, tokens: Tokens) {
        let mut state = self.shared.state.lock().unwrap();
        state.tokens = Some(tokens);
        (state.given, state.used) = (0, 0);
    }

    /// How many connections wait to be released.
    pub fn held(&self) -> u32 {
        self.shared.state.lock().unwrap().held
    }

    pub fn release(&self) {
        self.shared.state.lock().unwrap().released = true;
        self.shared.changed.notify_all();
    }

    /// Everything that was seen, and forgets it.
    pub fn take_seen(&self) -> Vec<Seen> {
        std::mem::take(&mut self.shared.state.lock().unwrap().seen)
    }

    /// Everything that was seen so far.
    pub fn seen(&self) -> Vec<Seen> {
        self.shared.state.lock().unwrap().seen.clone()
    }

    /// Of what was seen: the GETs of paths that end so, whatever is asked of them.
    pub fn gets(&self, end: &str) -> Vec<Seen> {
        let state = self.shared.state.lock().unwrap();
        let mut seen = state.seen.clone();
        seen.retain(|seen| {
            let path = seen.path.split('?').next().unwrap_or_default();
            seen.method == "GET" && path.ends_with(end)
        });
        seen
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.release();
    }
}

fn head_of(stream: &mut TcpStream) -> std::io::Result<String> {
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") {
        if stream.read(&mut byte)? == 0 {
            return Err(ErrorKind::UnexpectedEof.into());
        }
        head.push(byte[0]);
    }
    Ok(String::from_utf8_lossy(&head).into_owned())
}

fn header(head: &str, name: &str) -> Option<String> {
    let mut lines = head.lines().skip(1).filter_map(|line| line.split_once(':'));
    let found = lines.find(|(key, _)| key.eq_ignore_ascii_case(name));
    found.map(|(_, value)| value.trim().to_owned())
}

fn answer(client: &mut TcpStream, status: u16, headers: &str, body: &str) -> std::io::Result<()> {
    let length = body.len();
    write!(
        client,
        "HTTP/1.1 {status} X\r\nConnection: close\r\nContent-Length: {length}\r\n{headers}\r\n{body}"
    )
}

fn serve(mut client: TcpStream, port: u16, upstream: u16, shared: &Shared) -> std::io::Result<()> {
    let mut head = head_of(&mut client)?;
    let mut words = head.split(' ');
    let method = words.next().unwrap_or_default().to_owned();
    let path = words.next().unwrap_or_default().to_owned();
    let from = header(&head, "range").and_then(|range| {
        let range = range.strip_prefix("bytes=")?.to_owned();
        range.split('-').next()?.parse().ok()
    });
    let place = path.split('?').next().unwrap_or_default().to_owned();
    let (number, plan, refusal) = {
        let mut state = shared.state.lock().unwrap();
        state.seen.push(Seen {
            method: method.clone(),
            path: path.clone(),
            from,
            sent: 0,
            status: 0,
            headers: head.clone(),
        });
        let number = state.seen.len() - 1;
        let meant = !state.plan.path.is_empty() && place.ends_with(&state.plan.path);
        let plan = if meant {
            state.plan.clone()
        } else {
            Plan::default()
        };
        let mut refusal = None;
        if plan.refuse.1 > 0 {
            state.plan.refuse.1 -= 1;
            refusal = Some(plan.refuse.0);
        }
        if plan.cut.1 > 0 {
            state.plan.cut.1 -= 1;
        }
        (number, plan, refusal)
    };
    let note = |status: u16, sent: u64| {
        let mut state = shared.state.lock().unwrap();
        if let Some(seen) = state.seen.get_mut(number) {
            (seen.status, seen.sent) = (status, sent);
        }
    };
    if let Some(status) = refusal {
        note(status, 0);
        return answer(&mut client, status, "Retry-After: 0\r\n", "busy");
    }
    if let Some((status, headers, body)) =
        by_token(&head, &method, &place, port, &mut client, shared)?
    {
        note(status, 0);
        return answer(&mut client, status, &headers, &body);
    }
    let lines: Vec<&str> = head
        .trim_end()
        .lines()
        .filter(|line| {
            let line = line.to_ascii_lowercase();
            !(line.starts_with("connection:")
                || line.starts_with("authorization:")
                || plan.no_ranges && line.starts_with("range:"))
        })
        .collect();
    head = lines.join("\r\n") + "\r\nConnection: close\r\n\r\n";
    let mut server = TcpStream::connect(("127.0.0.1", upstream))?;
    server.write_all(head.as_bytes())?;
    let length = header(&head, "content-length").and_then(|text| text.parse::<u64>().ok());
    if let Some(length) = length {
        let mut body = (&client).take(length);
        std::io::copy(&mut body, &mut server)?;
    }
    let answered = head_of(&mut server)?;
    let status = answered
        .split(' ')
        .nth(1)
        .and_then(|status| status.parse().ok());
    let status = status.unwrap_or_default();
    client.write_all(answered.as_bytes())?;
    let start = if status == 206 {
        from.unwrap_or_default()
    } else {
        0
    };
    let mut sent = 0;
    let mut chunk = [0; 8192];
    loop {
        note(status, sent);
        if plan.cut.1 > 0 && sent >= plan.cut.0 {
            return client.shutdown(Shutdown::Both);
        }
        if plan.hold.is_some_and(|hold| start + sent >= hold) {
            let mut state = shared.state.lock().unwrap();
            state.held += 1;
            let waited = shared
                .changed
                .wait_timeout_while(state, HOLD_LIMIT, |s| !s.released);
            let mut state = waited.unwrap().0;
            // It may have been released and counted anew.
            state.held = state.held.saturating_sub(1);
        }
        let length = server.read(&mut chunk)?;
        if length == 0 {
            return client.shutdown(Shutdown::Both);
        }
        if let Some(flip) = plan.flip
            && let Some(place) = flip.checked_sub(start + sent)
            && let Some(byte) = chunk[..length].get_mut(usize::try_from(place).unwrap())
        {
            *byte ^= 1;
        }
        client.write_all(&chunk[..length])?;
        sent += length as u64;
    }
}

type Told = Option<(u16, String, String)>;

/// What is answered in place of the registry, where tokens are wanted.
fn by_token(
    head: &str,
    method: &str,
    place: &str,
    port: u16,
    client: &mut TcpStream,
    shared: &Shared,
) -> std::io::Result<Told> {
    let mut body = String::new();
    if place == "/token" && method == "POST" {
        let length = header(head, "content-length").and_then(|text| text.parse().ok());
        (&*client)
            .take(length.unwrap_or(0))
            .read_to_string(&mut body)?;
    }
    let mut state = shared.state.lock().unwrap();
    let Some(tokens) = state.tokens.clone() else {
        return Ok(None);
    };
    let shown = header(head, "authorization").unwrap_or_default();
    if place == "/token" {
        let login = format!("Basic {}", STANDARD.encode(&tokens.login));
        let identity = format!("refresh_token={}", tokens.identity);
        let known = if method == "POST" {
            body.contains("grant_type=refresh_token") && body.split('&').any(|one| one == identity)
        } else {
            shown == login
        };
        if !known {
            let said = r#"{"errors":[{"code":"UNAUTHORIZED","message":"who are you"}]}"#;
            return Ok(Some((401, String::new(), said.to_owned())));
        }
        state.given += 1;
        state.used = 0;
        let text = format!(r#"{{"token":"token-{}"}}"#, state.given);
        return Ok(Some((
            200,
            "Content-Type: application/json\r\n".to_owned(),
            text,
        )));
    }
    if state.given > 0
        && shown == format!("Bearer token-{}", state.given)
        && state.used < tokens.life
    {
        state.used += 1;
        return Ok(None);
    }
    let repository = place.strip_prefix("/v2/").unwrap_or_default();
    let repository = repository.split("/blobs/").next().unwrap_or_default();
    let repository = repository.split("/manifests/").next().unwrap_or_default();
    let challenge = format!(
        "WWW-Authenticate: Bearer realm=\"http://127.0.0.1:{port}/token\",service=\"test\",\
         scope=\"repository:{repository}:pull\"\r\n"
    );
    Ok(Some((401, challenge, String::new())))
}
