//! Layers that are being unpacked, so that whoever asks for one that is under way waits for it
//! (ADR 0013).
//!
//! A flight lasts from the beginning of an Apply until its snapshot is committed or removed, or the
//! Apply fails, or its client goes away. A client that applies and never commits ends it after
//! [`LINGER`]. Nothing of this is stored: a daemon that starts anew knows of no flights, and then
//! layers that are under way are unpacked by each who asks.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::watch;

use crate::store::snapshots::{Extraction, Unpacked};

/// How long others wait for the commit of a layer that is unpacked.
const LINGER: Duration = if cfg!(test) {
    Duration::from_millis(50)
} else {
    Duration::from_secs(5)
};

/// A layer on its parent: what is the same for all who unpack it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Layer {
    namespace: String,
    snapshotter: String,
    parent: String,
    chain: String,
    blob: String,
}

/// A snapshot on disk: snapshotter and number.
type Place = (String, u64);

/// All flights; clones share them.
#[derive(Debug, Clone, Default)]
pub struct Flights(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
    serial: AtomicU64,
}

#[derive(Debug, Default)]
struct State {
    under_way: HashMap<Layer, Flight>,
    landed: HashMap<Place, Landed>,
}

#[derive(Debug)]
struct Flight {
    place: Place,
    /// Nothing is ever sent: it is closed at the end.
    end: watch::Receiver<()>,
}

/// Who asks for a layer has to do this.
#[derive(Debug)]
pub enum Turn {
    /// Unpack it; others wait until this is dropped.
    Lead(Lead),
    /// Wait for the end of another's flight, and ask again.
    Follow(watch::Receiver<()>),
    /// Unpack it, though it was unpacked onto this very snapshot before, or is being so.
    Again,
}

/// The right to be the one who unpacks a layer.
#[derive(Debug)]
pub struct Lead {
    flights: Flights,
    layer: Layer,
    place: Place,
    _end: watch::Sender<()>,
}

impl Drop for Lead {
    fn drop(&mut self) {
        self.flights.locked().under_way.remove(&self.layer);
    }
}

/// A layer that is unpacked onto a snapshot that is not committed yet.
#[derive(Debug)]
pub struct Landed {
    /// The key that the snapshot is to be committed under.
    pub chain: String,
    /// What was unpacked.
    pub unpacked: Unpacked,
    /// Tells this landing from an earlier one at the same place.
    serial: u64,
    lead: Option<Lead>,
}

impl Flights {
    fn locked(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Asks to unpack the layer in `blob` onto `extraction`.
    pub fn join(&self, extraction: &Extraction, blob: &str) -> Turn {
        let scope = &extraction.scope;
        let layer = Layer {
            namespace: scope.namespace.clone(),
            snapshotter: scope.snapshotter.clone(),
            parent: extraction.record.parent.clone(),
            chain: extraction.chain.clone(),
            blob: blob.to_owned(),
        };
        let place = (scope.snapshotter.clone(), extraction.record.number);
        let mut state = self.locked();
        if let Some(flight) = state.under_way.get(&layer) {
            if flight.place == place {
                return Turn::Again;
            }
            return Turn::Follow(flight.end.clone());
        }
        let (sender, end) = watch::channel(());
        let flight = Flight {
            place: place.clone(),
            end,
        };
        state.under_way.insert(layer.clone(), flight);
        Turn::Lead(Lead {
            flights: self.clone(),
            layer,
            place,
            _end: sender,
        })
    }

    /// The layer of `lead` is unpacked; the flight goes on until its snapshot is taken.
    pub fn land(&self, lead: Lead, unpacked: Unpacked) {
        let serial = self.0.serial.fetch_add(1, Ordering::Relaxed);
        let place = lead.place.clone();
        let landed = Landed {
            chain: lead.layer.chain.clone(),
            unpacked,
            serial,
            lead: Some(lead),
        };
        let before = self.locked().landed.insert(place.clone(), landed);
        drop(before);
        let flights = self.clone();
        tokio::spawn(async move {
            tokio::time::sleep(LINGER).await;
            let mut state = flights.locked();
            let landed = state.landed.get_mut(&place);
            let lead = landed
                .filter(|landed| landed.serial == serial)
                .and_then(|landed| landed.lead.take());
            drop(state);
            if let Some(lead) = lead {
                log::debug!("nobody commits {} of {LINGER:?}", lead.layer.chain);
            }
        });
    }

    /// What was unpacked onto a snapshot that is now to be committed, or is gone. The flight ends
    /// when the answer is dropped.
    pub fn take(&self, snapshotter: &str, number: u64) -> Option<Landed> {
        self.locked()
            .landed
            .remove(&(snapshotter.to_owned(), number))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::snapshots::{Record, Scope};

    fn extraction(number: u64, chain: &str) -> Extraction {
        Extraction {
            scope: Scope {
                namespace: "ns".to_owned(),
                snapshotter: "overlayfs".to_owned(),
                lease: None,
            },
            key: format!("extract-{number} {chain}"),
            chain: chain.to_owned(),
            record: Record {
                number,
                ..Record::default()
            },
        }
    }

    fn lead(turn: Turn) -> Lead {
        match turn {
            Turn::Lead(lead) => lead,
            other => panic!("{other:?}"),
        }
    }

    fn follow(turn: Turn) -> watch::Receiver<()> {
        match turn {
            Turn::Follow(end) => end,
            other => panic!("{other:?}"),
        }
    }

    #[tokio::test]
    async fn one_leads_and_the_others_follow_until_its_snapshot_is_taken() {
        let flights = Flights::default();
        let first = lead(flights.join(&extraction(1, "c"), "b"));
        assert!(matches!(
            flights.join(&extraction(1, "c"), "b"),
            Turn::Again
        ));
        let mut second = follow(flights.join(&extraction(2, "c"), "b"));
        // Another layer, or the same in another blob, is another matter.
        drop(lead(flights.join(&extraction(3, "d"), "b")));
        drop(lead(flights.join(&extraction(3, "c"), "x")));
        let unpacked = Unpacked {
            blob: "b".to_owned(),
            ..Unpacked::default()
        };
        flights.land(first, unpacked.clone());
        second.has_changed().unwrap();
        let landed = flights.take("overlayfs", 1).unwrap();
        assert_eq!(landed.unpacked, unpacked);
        assert!(flights.take("overlayfs", 1).is_none());
        let mut third = follow(flights.join(&extraction(4, "c"), "b"));
        drop(landed);
        second.changed().await.unwrap_err();
        third.changed().await.unwrap_err();
        drop(lead(flights.join(&extraction(2, "c"), "b")));
    }

    #[tokio::test]
    async fn who_does_not_commit_is_not_waited_for_for_ever() {
        let flights = Flights::default();
        let first = lead(flights.join(&extraction(1, "c"), "b"));
        flights.land(first, Unpacked::default());
        let mut second = follow(flights.join(&extraction(2, "c"), "b"));
        second.changed().await.unwrap_err();
        let second = lead(flights.join(&extraction(2, "c"), "b"));
        // What was unpacked is known all the same.
        assert!(flights.take("overlayfs", 1).is_some());
        drop(second);
        // Nor is one whose client went away, or whose layer was broken.
        let third = lead(flights.join(&extraction(3, "c"), "b"));
        let mut fourth = follow(flights.join(&extraction(4, "c"), "b"));
        drop(third);
        fourth.changed().await.unwrap_err();
    }
}
