//! Counts of gRPC calls, under the names that Go's gRPC servers have for them.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use core_api::{CALLS, Call, Kind};
use tonic::Code;

use super::text::Text;

/// The codes of gRPC by their numbers, as labels.
const CODES: [&str; 17] = [
    "OK",
    "Canceled",
    "Unknown",
    "InvalidArgument",
    "DeadlineExceeded",
    "NotFound",
    "AlreadyExists",
    "PermissionDenied",
    "ResourceExhausted",
    "FailedPrecondition",
    "Aborted",
    "OutOfRange",
    "Unimplemented",
    "Internal",
    "Unavailable",
    "DataLoss",
    "Unauthenticated",
];

/// The upper bounds of the histogram's buckets, in seconds: those of Prometheus' libraries.
const BOUNDS: [f64; 11] = [
    0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0,
];

/// Every call of the API, counted.
#[derive(Debug)]
pub struct Calls {
    counts: Vec<Counts>,
    by_path: HashMap<&'static str, usize>,
    histogram: bool,
}

/// One of the counts of a call.
type Count = fn(&Counts) -> &AtomicU64;

#[derive(Debug)]
struct Counts {
    call: Call,
    started: AtomicU64,
    open: AtomicU64,
    received: AtomicU64,
    sent: AtomicU64,
    handled: [AtomicU64; CODES.len()],
    buckets: [AtomicU64; BOUNDS.len()],
    micros: AtomicU64,
}

/// A call that goes on. One that is dropped without an end was canceled by its client.
#[derive(Debug)]
pub struct Open {
    calls: Arc<Calls>,
    at: usize,
    since: Instant,
    ended: bool,
}

impl Calls {
    /// Counts from nothing; with a histogram of durations if that is wanted.
    pub fn new(histogram: bool) -> Self {
        let count = |call: &Call| Counts {
            call: *call,
            started: AtomicU64::default(),
            open: AtomicU64::default(),
            received: AtomicU64::default(),
            sent: AtomicU64::default(),
            handled: Default::default(),
            buckets: Default::default(),
            micros: AtomicU64::default(),
        };
        let by_path = CALLS.iter().enumerate().map(|(at, call)| (call.path, at));
        Self {
            counts: CALLS.iter().map(count).collect(),
            by_path: by_path.collect(),
            histogram,
        }
    }

    /// A call of `path` begins; `None` for what is no call of the API.
    pub fn open(self: &Arc<Self>, path: &str) -> Option<Open> {
        let at = *self.by_path.get(path)?;
        let counts = &self.counts[at];
        counts.started.fetch_add(1, Ordering::Relaxed);
        counts.open.fetch_add(1, Ordering::Relaxed);
        Some(Open {
            calls: self.clone(),
            at,
            since: Instant::now(),
            ended: false,
        })
    }

    /// The calls that go on, and how many of each.
    pub fn going_on(&self) -> Vec<(&'static str, u64)> {
        let open = |counts: &Counts| (counts.call.path, counts.open.load(Ordering::Relaxed));
        let all = self.counts.iter().map(open);
        all.filter(|(_, open)| *open > 0).collect()
    }

    /// Writes all counts.
    pub fn write(&self, text: &mut Text) {
        let plain: [(&str, &str, Count); 3] = [
            ("grpc_server_started_total", "Calls begun.", |c| &c.started),
            (
                "grpc_server_msg_received_total",
                "Messages received.",
                |c| &c.received,
            ),
            ("grpc_server_msg_sent_total", "Messages sent.", |c| &c.sent),
        ];
        for (name, help, count) in plain {
            let mut family = text.family(name, "counter", help);
            for counts in &self.counts {
                let value = count(counts).load(Ordering::Relaxed);
                family.sample(&counts.labels(), value);
            }
        }
        let mut family = text.family("grpc_server_handled_total", "counter", "Calls ended.");
        for counts in &self.counts {
            for (code, count) in CODES.iter().zip(&counts.handled) {
                let count = count.load(Ordering::Relaxed);
                // Most codes are never seen: only what has happened is told.
                if count > 0 {
                    let [kind, service, method] = counts.labels();
                    family.sample(&[("grpc_code", code), method, service, kind], count);
                }
            }
        }
        if self.histogram {
            self.write_histogram(text);
        }
    }

    fn write_histogram(&self, text: &mut Text) {
        let name = "grpc_server_handling_seconds";
        let mut family = text.family(name, "histogram", "How long calls took.");
        for counts in &self.counts {
            let ended: u64 = counts
                .handled
                .iter()
                .map(|n| n.load(Ordering::Relaxed))
                .sum();
            if ended == 0 {
                continue;
            }
            let [kind, service, method] = counts.labels();
            let mut below = 0;
            for (bound, bucket) in BOUNDS.iter().zip(&counts.buckets) {
                below += bucket.load(Ordering::Relaxed);
                let bound = bound.to_string();
                family.sample_of("_bucket", &[method, service, kind, ("le", &bound)], below);
            }
            // A call may end while this is written; the last bucket and the count are one figure.
            let ended = ended.max(below);
            family.sample_of("_bucket", &[method, service, kind, ("le", "+Inf")], ended);
            let micros = counts.micros.load(Ordering::Relaxed);
            let seconds = format!("{}.{:06}", micros / 1_000_000, micros % 1_000_000);
            family.sample_of("_sum", &[method, service, kind], seconds);
            family.sample_of("_count", &[method, service, kind], ended);
        }
    }
}

impl Counts {
    fn labels(&self) -> [(&'static str, &'static str); 3] {
        let path = self.call.path.trim_start_matches('/');
        let (service, method) = path.split_once('/').unwrap_or((path, ""));
        let kind = match self.call.kind {
            Kind::Unary => "unary",
            Kind::ServerStream => "server_stream",
            Kind::ClientStream => "client_stream",
            Kind::BidiStream => "bidi_stream",
        };
        [
            ("grpc_type", kind),
            ("grpc_service", service),
            ("grpc_method", method),
        ]
    }
}

impl Open {
    fn counts(&self) -> &Counts {
        &self.calls.counts[self.at]
    }

    /// Who sends how many messages in this call.
    pub fn kind(&self) -> Kind {
        self.counts().call.kind
    }

    /// Messages came from the client.
    pub fn received(&self, messages: u64) {
        self.counts()
            .received
            .fetch_add(messages, Ordering::Relaxed);
    }

    /// Messages went to the client.
    pub fn sent(&self, messages: u64) {
        self.counts().sent.fetch_add(messages, Ordering::Relaxed);
    }

    /// The call has ended; only the first end counts.
    pub fn end(&mut self, code: Code) {
        if std::mem::replace(&mut self.ended, true) {
            return;
        }
        let counts = self.counts();
        counts.open.fetch_sub(1, Ordering::Relaxed);
        let number = usize::try_from(i32::from(code)).unwrap_or(2);
        counts.handled[number].fetch_add(1, Ordering::Relaxed);
        let taken = self.since.elapsed();
        let micros = u64::try_from(taken.as_micros()).unwrap_or(u64::MAX);
        counts.micros.fetch_add(micros, Ordering::Relaxed);
        let seconds = taken.as_secs_f64();
        if let Some(bucket) = BOUNDS.iter().position(|bound| seconds <= *bound) {
            counts.buckets[bucket].fetch_add(1, Ordering::Relaxed);
        }
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.end(Code::Cancelled);
    }
}
