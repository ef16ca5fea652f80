use std::path::{Path, PathBuf};
use std::time::SystemTime;

use anyhow::Context as _;
use clap::Args;
use postmerge::member::{Member, Ticket};
use postmerge::net::{Node, NodeError};
use postmerge::replica::{LinkError, LinkEvent, Replica, ReplicaError};
use postmerge::store::StoreError;
use postmerge::sync::{Refusal, SessionError};

use super::import::{self, How};
use crate::context::Code;
use crate::failure::{Failure, Usage, advice_on};
use crate::paths::Setup;
use crate::progress::{self, Sink, Step};
use crate::text::{a, count, date, size};
use crate::{control, endpoint, imap};

/// Joins an account with a ticket, and does the first sync. If it is cut off, run it again.
#[derive(Args)]
pub(crate) struct Join {
    /// The ticket; `-` reads it from standard input.
    ticket: String,
    /// Takes the bodies from a Maildir that holds the same mail, and adds what only it holds. A Maildir of mbsync or OfflineIMAP
    /// does too.
    #[arg(long, value_name = "MAILDIR")]
    adopt: Option<PathBuf>,
    /// Pairs and learns what there is; bodies come with the first sync.
    #[arg(long)]
    no_sync: bool,
    /// Uses the endpoint of the replica in another directory of this machine, so that one `serve` can host both.
    #[arg(long, value_name = "DIR")]
    share_endpoint: Option<PathBuf>,
    /// What peers call this replica [default: the host name].
    #[arg(long)]
    name: Option<String>,
    /// Says what would be done.
    #[arg(long)]
    dry_run: bool,
}

impl Join {
    pub(crate) fn run(&self, setup: &Setup) -> anyhow::Result<Code> {
        let ticket = self.ticket()?;
        let name = setup.name(self.name.as_deref())?;
        let adopt = self.adopt.as_ref().map(|path| setup.cwd.join(path));
        if let Some(root) = &adopt {
            // Before the ticket is spent.
            postmerge::maildir::scan(root)?;
        }
        if self.dry_run {
            ticket.check(now()).map_err(ReplicaError::from)?;
            println!(
                "would join account {} as {} called {name}, inviter {} at {}, in {}; the ticket is good until {} UTC",
                ticket.account,
                ticket.role,
                ticket.inviter,
                ticket.addresses.join(", "),
                setup.store.display(),
                date(ticket.expires_at as i64)
            );
            return Ok(Code::DONE);
        }
        if let Some(parent) = setup.store.parent() {
            std::fs::create_dir_all(parent)?;
        }
        let fresh = !setup.store.join("STORE").exists();
        let replica = Replica::prepare_join(&setup.store, setup.state(), &ticket);
        let replica = replica.map_err(|error| occupied(error, setup))?;
        if imap::has_users(setup) {
            postmerge_imap::summarize_arrivals(&replica);
        }
        let key = endpoint::read_or_make_key(&setup.store, self.share_endpoint.as_deref())?;
        let node = Node::new(replica.clone(), endpoint::unlisted(&key, &setup.runtime)?);
        let bodies = adopt.is_none() && !self.no_sync;
        let mut sink = progress::paced(progress::on_terminal());
        let mut meter = Meter::default();
        let mut progress = |event: &LinkEvent| meter.take(event, &mut sink);
        if let Err(error) = setup.runtime.block_on(node.join(&ticket, name, bodies, &mut progress)) {
            sink(Step::End);
            if fresh && is_final(&error) {
                // Nobody let this replica in and nobody ever will; what was made for it is in the way.
                drop((node, replica));
                std::fs::remove_dir_all(&setup.store)?;
            }
            return Err(error).context("cannot join");
        }
        let mut code = Code::DONE;
        if let Some(root) = adopt {
            let mut sync = |sink: &mut Sink| match self.no_sync {
                true => true,
                false => sync(setup, &node, &ticket, sink),
            };
            code = adopt_from(&replica, &root, &mut sync, &mut sink)?;
        }
        sink(Step::End);
        let (account, status) = (replica.account(), replica.status()?);
        eprintln!("joined account {account} as replica {}, {}", status.replica, a(status.role));
        if status.owed_bodies > 0 {
            let owed = count(status.owed_bodies, "message");
            eprintln!("the bodies of {owed} have not arrived yet; `postmerge sync` fetches them");
            code = if self.no_sync { code } else { Code::PARTLY };
        }
        replica.close()?;
        Ok(code)
    }

    fn ticket(&self) -> anyhow::Result<Ticket> {
        let mut text = self.ticket.clone();
        if text == "-" {
            text = std::io::read_to_string(std::io::stdin())?;
        }
        if text.trim().is_empty() {
            return Err(Usage("the ticket is empty".into()).into());
        }
        Ok(text.parse::<Ticket>()?)
    }
}

/// Takes from a Maildir what it has, has the rest fetched, and adds what only the Maildir has: where a program altered files,
/// that can be told from the bodies alone.
fn adopt_from(
    replica: &Replica,
    root: &Path,
    sync: &mut dyn FnMut(&mut Sink) -> bool,
    sink: &mut Sink,
) -> anyhow::Result<Code> {
    let how = How { again: false, dry_run: false };
    let first = import::tree(replica, root, None, how, None, sink)?;
    first.complain();
    eprintln!("took the bodies of {} from {}", count(first.sum(|row| row.bodies), "message"), root.display());
    let owed = || replica.status().map(|status| (status.owed_bodies, status.owed_bytes));
    let before = owed()?;
    let mut all = sync(sink);
    let after = owed()?;
    let fetched = (before.0.saturating_sub(after.0), before.1.saturating_sub(after.1));
    if fetched.0 > 0 {
        eprintln!("fetched the bodies of {}, {}", count(fetched.0, "message"), size(fetched.1));
    }
    let mut new = first.sum(|row| row.imported);
    let (mut altered, mut undecided) = (first.sum(|row| row.altered), 0);
    let left = first.undecided_mailboxes();
    if !left.is_empty() {
        let second = import::tree(replica, root, None, how, Some(&left), sink)?;
        let late = second.sum(|row| row.imported);
        (new, altered, undecided) = (new + late, altered + second.sum(|row| row.altered), second.undecided());
        if late > 0 {
            all &= sync(sink);
        }
    }
    if new > 0 {
        eprintln!("added {} that only {} held", count(new, "message"), root.display());
    }
    if altered > 0 {
        eprintln!(
            "{} of known messages were altered by another program, and stay as they are",
            count(altered, "file")
        );
    }
    if undecided > 0 {
        let files = count(undecided, "file");
        eprintln!("{files} may be messages whose bodies have not arrived, and were not added");
    }
    eprintln!("`postmerge maildir attach {}` keeps it in step from now on", root.display());
    Ok(Code::partly_if(!all || undecided > 0 || first.skipped_some()))
}

/// Syncs with every peer. Whether the inviter was among those that answered.
fn sync(setup: &Setup, node: &Node, ticket: &Ticket, sink: &mut Sink) -> bool {
    let (mut met, mut meter) = (true, Meter::default());
    let mut progress = |_: &Member, event: &LinkEvent| meter.take(event, sink);
    let all = setup.runtime.block_on(node.sync(&mut progress));
    for done in all {
        let Err(error) = done.result else { continue };
        sink(Step::End);
        // It has joined and has taken what was here; any peer that answers passes that on.
        let error = anyhow::Error::from(error).context(format!("cannot sync with {}", done.member.name));
        Failure::of(&error, "join").print(&mut std::io::stderr());
        met &= done.member.replica != ticket.inviter;
    }
    sink(Step::End);
    met
}

/// Seconds since 1970.
fn now() -> u64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    since.map_or(0, |since| since.as_secs())
}

/// Says what is in the way.
fn occupied(error: ReplicaError, setup: &Setup) -> anyhow::Error {
    let there = format!("there is a replica in {} already", setup.store.display());
    let hint = "--store DIR names another directory for the new replica";
    match &error {
        ReplicaError::Store(StoreError::Locked { .. }) if control::answers(setup) => {
            advice_on(error, format!("{there}, and it is being served"), hint)
        }
        ReplicaError::Store(StoreError::Locked { .. } | StoreError::NotEmpty { .. })
            if setup.store.join("STORE").exists() =>
        {
            advice_on(error, there, hint)
        }
        _ => error.into(),
    }
}

/// Whether the ticket was refused, so that trying again is of no use.
fn is_final(error: &NodeError) -> bool {
    let NodeError::Link(LinkError::Session(SessionError::Refused { refusal, .. })) = error else {
        return false;
    };
    use Refusal::{TicketAltered, TicketExpired, TicketUnknown, TicketUsed};
    matches!(refusal, TicketUsed | TicketExpired | TicketAltered | TicketUnknown)
}

/// Makes bars of what a conversation tells: the total is what was owed when bodies began to come.
#[derive(Default)]
pub(super) struct Meter {
    total: Option<(u64, u64)>,
}

impl Meter {
    pub(super) fn take(&mut self, event: &LinkEvent, sink: &mut Sink) {
        let LinkEvent::Bodies { count, bytes, left, left_bytes } = *event else { return };
        let before = (left + count, left_bytes + bytes);
        let total = match self.total {
            Some(total) if total.0 >= before.0 && total.1 >= before.1 => total,
            _ => {
                self.total = Some(before);
                sink(Step::Start { what: "fetching".into(), messages: Some(before.0), bytes: before.1 });
                before
            }
        };
        sink(Step::At { messages: total.0 - left, bytes: total.1 - left_bytes });
    }
}
