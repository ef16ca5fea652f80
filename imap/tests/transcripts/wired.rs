//! Sessions of one replica without sockets, as `run` wants them.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use postmerge::replica::Subscription;

use crate::talk::{Client, Home, home};

/// The longest that a failed login waits for its answer.
const PATIENCE: Duration = Duration::from_secs(8);

/// A new account and its sessions, which hear of every commit.
pub(crate) struct Sessions {
    clients: BTreeMap<usize, (Client, String)>,
    committed: Arc<AtomicBool>,
    _subscription: Subscription,
    home: Home,
}

impl Sessions {
    pub(crate) fn new() -> Sessions {
        let (home, committed) = (home(), Arc::new(AtomicBool::new(false)));
        let flag = committed.clone();
        let subscription = home.replica.subscribe(move |_| flag.store(true, Ordering::Relaxed));
        Sessions { clients: BTreeMap::new(), committed, _subscription: subscription, home }
    }

    pub(crate) fn exchange(&mut self, session: usize, bytes: &[u8]) -> Vec<u8> {
        let account = &self.home.account;
        let (client, heard) = self.clients.entry(session).or_insert_with(|| Client::connect(account));
        if !client.closed {
            heard.push_str(&client.say_bytes(bytes));
        }
        if self.committed.swap(false, Ordering::Relaxed) {
            self.clients.values_mut().for_each(|(client, heard)| heard.push_str(&client.changed()));
        }
        let (client, heard) = self.clients.get_mut(&session).expect("it was just there");
        if heard.is_empty() && bytes.is_empty() && !client.closed {
            heard.push_str(&client.wait(PATIENCE));
        }
        std::mem::take(heard).into_bytes()
    }
}
