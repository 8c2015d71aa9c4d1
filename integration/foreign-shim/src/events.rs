//! Events on their way to the daemon: one thread sends them in the order in which they happened.

use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, Mutex};
use std::thread::{JoinHandle, spawn};

use containerd_shim::event::Event;
use containerd_shim::publisher::RemotePublisher;
use containerd_shim::{Context, warn};

/// The queue's end for those who have events, and the thread that sends them.
type Sending = (Sender<Box<dyn Event + Send>>, JoinHandle<()>);

/// The queue and its thread, once there is a daemon to publish to; clones share them.
#[derive(Clone, Default)]
pub struct Events {
    sending: Arc<Mutex<Option<Sending>>>,
}

impl Events {
    /// Starts the thread that sends. An event that the daemon does not take is logged and lost:
    /// the crate's publisher neither connects again nor tries twice.
    pub fn publish_to(&self, publisher: RemotePublisher, namespace: &str) {
        let (queue, events) = channel::<Box<dyn Event + Send>>();
        let namespace = namespace.to_owned();
        let thread = spawn(move || {
            for event in events {
                let topic = event.topic();
                let sent = publisher.publish(Context::default(), &topic, &namespace, event);
                if let Err(error) = sent {
                    warn!("{topic}: {error}");
                }
            }
        });
        *self.sending.lock().unwrap() = Some((queue, thread));
    }

    /// Puts an event at the end of the queue.
    pub fn send(&self, event: impl Event + Send + 'static) {
        if let Some((queue, _)) = &*self.sending.lock().unwrap() {
            // The thread ends only after the queue does.
            let _ = queue.send(Box::new(event));
        }
    }

    /// Waits until everything in the queue was sent; nothing is taken after that.
    pub fn flush(&self) {
        let sending = self.sending.lock().unwrap().take();
        if let Some((queue, thread)) = sending {
            drop(queue);
            let _ = thread.join();
        }
    }
}
