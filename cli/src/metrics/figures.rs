//! What is counted. The table in `docs/service.md` says the same.

use postmerge::replica::{Forgotten, Retention, ScrubState, Status};
use postmerge_imap::Counts;

use super::Sources;
use super::exposition::{Kind, Page};
use crate::links::PeerLink;

/// What is known of a store that is served.
struct Account {
    id: String,
    store: String,
    status: Status,
    expunged: Forgotten,
    scrubs: ScrubState,
    peers: Vec<PeerLink>,
}

/// A figure of each account: its name, what it is, and its value.
type OfAccount = (&'static str, &'static str, fn(&Status) -> u64);

const OF_ACCOUNTS: [OfAccount; 7] = [
    ("postmerge_ready", "Whether the replica can show UIDs.", |status| status.ready.into()),
    ("postmerge_mailboxes", "Mailboxes.", |status| status.mailboxes),
    ("postmerge_messages", "Messages in all mailboxes.", |status| status.messages),
    ("postmerge_changes", "Changes in the account's history.", |status| status.changes),
    ("postmerge_waiting_changes", "Changes that follow ones which were lost to damage.", |status| {
        status.waiting_changes
    }),
    ("postmerge_owed_bodies", "Messages whose bodies have not arrived.", |status| status.owed_bodies),
    ("postmerge_owed_bytes", "Size of the bodies that have not arrived.", |status| status.owed_bytes),
];

/// The same of the bodies of expunged messages.
type OfExpunged = (&'static str, &'static str, fn(&Forgotten) -> u64);

const OF_EXPUNGED: [OfExpunged; 2] = [
    (
        "postmerge_expunged_bodies",
        "Expunged messages whose bodies are kept, as of the last look.",
        |expunged| expunged.kept_bodies,
    ),
    ("postmerge_expunged_bytes", "Size of the bodies of expunged messages.", |expunged| expunged.kept_bytes),
];

/// The same of scrubs.
type OfScrubs = (&'static str, Kind, &'static str, fn(&ScrubState) -> u64);

const OF_SCRUBS: [OfScrubs; 2] = [
    ("postmerge_damaged_bodies_total", Kind::Counter, "Bodies that scrubs found damaged.", |scrubs| {
        scrubs.damaged
    }),
    ("postmerge_unhealed_bodies", Kind::Gauge, "Of those, the ones that no peer has given back.", |scrubs| {
        scrubs.unhealed.len() as u64
    }),
];

/// A figure of each peer: its name, kind, what it is, and its value if there is one.
type OfPeer = (&'static str, Kind, &'static str, fn(&PeerLink) -> Option<i128>);

const OF_PEERS: [OfPeer; 9] = [
    ("postmerge_peer_connected", Kind::Gauge, "Whether there is a conversation with the peer.", |peer| {
        Some(peer.connected().into())
    }),
    ("postmerge_peer_in_sync", Kind::Gauge, "Whether both have the same now, bodies included.", |peer| {
        Some(peer.in_sync().into())
    }),
    (
        "postmerge_peer_last_contact_timestamp_seconds",
        Kind::Gauge,
        "When the peer was there last: now while it is connected.",
        |peer| peer.last_contact().map(i128::from),
    ),
    (
        "postmerge_peer_unacknowledged_changes",
        Kind::Gauge,
        "Changes that are here and that the peer has not acknowledged.",
        |peer| peer.contact.map(|contact| contact.unacknowledged.into()),
    ),
    (
        "postmerge_peer_missing_changes",
        Kind::Gauge,
        "Changes that the peer said it has and that are not here.",
        |peer| peer.contact.map(|contact| contact.missing.into()),
    ),
    (
        "postmerge_peer_verified_timestamp_seconds",
        Kind::Gauge,
        "When all that both have was compared last since the start.",
        |peer| peer.verified.map(|(at, _)| at.into()),
    ),
    ("postmerge_peer_differs", Kind::Gauge, "Whether the last comparison found a difference.", |peer| {
        peer.verified.map(|(_, same)| (!same).into())
    }),
    ("postmerge_peer_sent_bytes_total", Kind::Counter, "Bytes of UDP payload sent to the peer.", |peer| {
        Some(peer.traffic().sent.into())
    }),
    (
        "postmerge_peer_received_bytes_total",
        Kind::Counter,
        "Bytes of UDP payload received from the peer.",
        |peer| Some(peer.traffic().received.into()),
    ),
];

/// A figure of the IMAP server.
type OfImap = (&'static str, Kind, &'static str, fn(&Counts) -> u64);

const OF_IMAP: [OfImap; 4] = [
    ("postmerge_imap_connections", Kind::Gauge, "IMAP connections that are open.", |counts| counts.open),
    ("postmerge_imap_accepted_connections_total", Kind::Counter, "IMAP connections accepted.", |counts| {
        counts.accepted
    }),
    (
        "postmerge_imap_refused_connections_total",
        Kind::Counter,
        "IMAP connections sent away, as there were too many.",
        |counts| counts.refused,
    ),
    ("postmerge_imap_failed_logins_total", Kind::Counter, "IMAP logins that failed.", |counts| {
        counts.failed_logins
    }),
];

/// All figures of now. Changes nothing, and costs O(mailboxes + owed bodies).
pub(super) fn page(sources: &Sources) -> anyhow::Result<String> {
    let mut accounts = Vec::new();
    for (store, replica, node) in &sources.hosted {
        accounts.push(Account {
            id: replica.account().to_string(),
            store: store.display().to_string(),
            status: replica.status()?,
            // Who is waited for is in `status`.
            expunged: replica.forgetting(Retention::FOREVER)?,
            scrubs: replica.scrub_state()?,
            peers: PeerLink::all(replica, node.as_ref())?,
        });
    }
    let mut page = Page::default();
    let version = [("version", env!("CARGO_PKG_VERSION"))];
    page.figure("postmerge_build_info", Kind::Gauge, "The program; always 1.").sample(&version, 1);
    let mut info = page.figure("postmerge_replica_info", Kind::Gauge, "The replica of an account; always 1.");
    for account in &accounts {
        let (replica, role) = (account.status.replica.to_string(), account.status.role.to_string());
        let labels =
            [("account", &account.id), ("replica", &replica), ("role", &role), ("store", &account.store)];
        info.sample(&labels.map(|(label, value)| (label, value.as_str())), 1);
    }
    for (name, help, value) in OF_ACCOUNTS {
        let mut figure = page.figure(name, Kind::Gauge, help);
        for account in &accounts {
            figure.sample(&[("account", &account.id)], value(&account.status));
        }
    }
    for (name, help, value) in OF_EXPUNGED {
        let mut figure = page.figure(name, Kind::Gauge, help);
        for account in &accounts {
            figure.sample(&[("account", &account.id)], value(&account.expunged));
        }
    }
    for (name, kind, help, value) in OF_SCRUBS {
        let mut figure = page.figure(name, kind, help);
        for account in &accounts {
            figure.sample(&[("account", &account.id)], value(&account.scrubs));
        }
    }
    for (name, kind, help, value) in OF_PEERS {
        let mut figure = page.figure(name, kind, help);
        for (account, peer) in
            accounts.iter().flat_map(|account| account.peers.iter().map(move |peer| (account, peer)))
        {
            let replica = peer.member.replica.to_string();
            let labels = [
                ("account", account.id.as_str()),
                ("peer", peer.member.name.as_str()),
                ("replica", &replica),
            ];
            if let Some(value) = value(peer) {
                figure.sample(&labels, value);
            }
        }
    }
    if let Some(imap) = &sources.imap {
        let counts = imap.counts();
        for (name, kind, help, value) in OF_IMAP {
            page.figure(name, kind, help).sample(&[], value(&counts));
        }
    }
    Ok(page.into_text())
}
