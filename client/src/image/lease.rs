//! Leases: what a command makes is kept by one until records keep it. One that a killed command
//! leaves behind expires after a day.

use std::time::{Duration, SystemTime};

use core_api::Timestamp;
use core_api::leases::{AddResourceRequest, CreateRequest, DeleteRequest, Resource};
use tonic::Code;

use crate::connection::Connection;
use crate::error::{Context, Error, Result};
use crate::{output, random};

/// How long a lease that nobody ends keeps its things.
const LIFE: Duration = Duration::from_secs(24 * 3600);

/// How long the daemon may take to end it: somebody may be waiting for us to go.
const CLOSE_LIMIT: Duration = Duration::from_secs(10);

/// The label that says when a thing goes.
pub(crate) const EXPIRES: &str = "containerd.io/gc.expire";

/// A lease of this command's.
#[derive(Debug)]
pub(crate) struct Lease {
    id: String,
    leased: Connection,
}

impl Lease {
    /// Makes one.
    ///
    /// # Errors
    /// The daemon's refusal.
    pub(crate) async fn open(connection: &Connection) -> Result<Self> {
        let id = format!("wherry-{}", random::id()?);
        let expires = Timestamp::from(SystemTime::now() + LIFE);
        let request = CreateRequest {
            id: id.clone(),
            labels: [(EXPIRES.to_owned(), expires.to_string())].into(),
        };
        let created = connection.leases().create(request).await;
        created.about("cannot make a lease")?;
        let leased = connection.under(&id)?;
        Ok(Self { id, leased })
    }

    /// The connection whose calls are kept by it.
    pub(crate) fn connection(&self) -> &Connection {
        &self.leased
    }

    /// Keeps something that is there already. `kind` is `content` or `snapshots/NAME`; a thing
    /// that is not there is not refused.
    ///
    /// # Errors
    /// The daemon's refusal.
    pub(crate) async fn hold(&self, kind: &str, id: &str) -> Result<()> {
        let request = AddResourceRequest {
            id: self.id.clone(),
            resource: Some(Resource {
                id: id.to_owned(),
                r#type: kind.to_owned(),
            }),
        };
        let added = self.leased.leases().add_resource(request).await;
        match added {
            Err(status) if status.code() == Code::AlreadyExists => Ok(()),
            added => added.map(drop).about(format!("cannot keep {id}")),
        }
    }

    /// Ends it.
    ///
    /// # Errors
    /// The daemon's refusal; its end comes by itself then.
    pub(crate) async fn close(self) -> Result<()> {
        let request = DeleteRequest {
            id: self.id.clone(),
            sync: false,
        };
        let mut leases = self.leased.leases();
        let deleted = tokio::time::timeout(CLOSE_LIMIT, leases.delete(request)).await;
        let deleted = deleted.unwrap_or_else(|_| {
            let text = "the daemon does not answer; it ends by itself within a day";
            Err(tonic::Status::deadline_exceeded(text))
        });
        match deleted
            .map(drop)
            .about(format!("cannot end the lease {}", self.id))
        {
            Err(error) if error.is_not_found() => Ok(()),
            deleted => deleted,
        }
    }
}

/// Carries out work under a lease, which ends with it, however it ends.
///
/// # Errors
/// Those of the work, or the daemon's refusal of a lease.
pub(crate) async fn under_lease<T>(
    connection: &Connection,
    work: impl AsyncFnOnce(&Lease) -> Result<T>,
) -> Result<T> {
    let lease = Lease::open(connection).await?;
    let done = work(&lease).await;
    // It would expire all the same, and what was done is done.
    if let Err(error) = lease.close().await
        && done.is_ok()
    {
        output::complain(&error as &Error);
    }
    done
}
