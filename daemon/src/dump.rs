//! What the daemon has in hand, written to its log on SIGUSR1: for whoever looks for the reason
//! why it does not do what it should.

use std::sync::Arc;

use tokio::task::JoinSet;

use crate::grpc::Services;
use crate::metrics::calls::Calls;
use crate::metrics::process;
use crate::shim::manager::Entry;

/// Writes everything. Shims are asked how their tasks are, all at once and for at most 2 s.
pub async fn dump(services: Services, calls: Arc<Calls>) {
    log::info!("=== BEGIN state dump ===");
    let usage = process::usage();
    log::info!(
        "process: {} kB resident, {} threads, {} descriptors",
        usage.resident >> 10,
        usage.threads,
        usage.descriptors
    );
    for (path, open) in calls.going_on() {
        log::info!("calls going on: {open} of {path}");
    }
    for (filters, waiting) in services.exchange.subscribers() {
        log::info!("subscriber: filters {filters:?}, {waiting} events wait for it");
    }
    let mut asked = JoinSet::new();
    for entry in services.manager.table() {
        asked.spawn(about(entry));
    }
    let mut lines = asked.join_all().await;
    lines.sort();
    for line in lines {
        log::info!("{line}");
    }
    log::info!("=== END state dump ===");
}

async fn about(entry: Entry) -> String {
    let name = format!("task {}/{}", entry.namespace, entry.id);
    let Some(task) = entry.task else {
        return format!("{name}: being created, found again or removed");
    };
    let shim = task.binary.display();
    match task.state("").await {
        Ok(state) => format!(
            "{name}: {:?}, pid {}, shim {shim}",
            state.status.enum_value_or_default(),
            state.pid
        ),
        Err(refusal) => format!("{name}: shim {shim} says: {}", refusal.message()),
    }
}
