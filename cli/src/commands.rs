//! The verbs, one file each.

mod append;
mod backup;
mod body;
mod check;
mod completions;
mod conflicts;
pub(crate) mod deliver;
mod demo;
mod export;
mod expunge;
mod flag;
mod forget;
pub(crate) mod gc;
mod import;
mod init;
mod invite;
mod join;
mod log;
mod mailbox;
mod mailboxes;
mod maildir;
mod man;
mod messages;
mod peers;
mod relocate;
mod resume;
mod role;
mod rotate;
mod scrub;
mod select;
mod serve;
mod status;
mod stdio;
mod sync;
mod tell;
mod undo;
mod user;
mod verify;
mod why;

use std::time::{Duration, Instant};

use clap::Subcommand;
use postmerge::replica::{Replica, ReplicaError};
use postmerge::store::StoreError;

use crate::bridge::Hub;
use crate::context::{Code, Context};
use crate::failure::Usage;
use crate::paths::Setup;
use crate::{control, endpoint, imap, progress};

#[derive(Subcommand)]
pub(crate) enum Command {
    Init(init::Init),
    Import(import::Import),
    Export(export::Export),
    Serve(serve::Serve),
    Invite(invite::Invite),
    Join(join::Join),
    Sync(sync::Sync),
    Maildir(maildir::Maildir),
    Resume(resume::Resume),
    Peers(peers::Peers),
    Role(role::Role),
    Rotate(rotate::Rotate),
    Forget(forget::Forget),
    Stdio(stdio::Stdio),
    Mailboxes(mailboxes::Mailboxes),
    Messages(messages::Messages),
    Append(append::Append),
    Deliver(deliver::Deliver),
    Body(body::Body),
    Flag(flag::Flag),
    Move(relocate::Move),
    Copy(relocate::Copy),
    Expunge(expunge::Expunge),
    Mailbox(mailbox::Mailbox),
    Status(status::Status),
    Log(log::Log),
    Why(why::Why),
    Conflicts(conflicts::Conflicts),
    Undo(undo::Undo),
    Check(check::Check),
    Scrub(scrub::Scrub),
    Verify(verify::Verify),
    Gc(gc::Gc),
    Backup(backup::Backup),
    User(user::User),
    Demo(demo::Demo),
    #[command(hide = true)]
    Completions(completions::Completions),
    #[command(hide = true)]
    Man(man::Man),
}

impl Command {
    /// Runs a verb that needs an open replica.
    pub(crate) fn run(&self, cx: &mut Context<'_>) -> anyhow::Result<Code> {
        match self {
            Command::Import(verb) => verb.run(cx),
            Command::Export(verb) => verb.run(cx),
            Command::Invite(verb) => verb.run(cx),
            Command::Sync(verb) => verb.run(cx),
            Command::Maildir(verb) => verb.run(cx),
            Command::Resume(verb) => verb.run(cx),
            Command::Peers(verb) => verb.run(cx),
            Command::Role(verb) => verb.run(cx),
            Command::Rotate(verb) => verb.run(cx),
            Command::Forget(verb) => verb.run(cx),
            Command::Stdio(verb) => verb.run(cx),
            Command::Mailboxes(verb) => verb.run(cx),
            Command::Messages(verb) => verb.run(cx),
            Command::Append(verb) => verb.run(cx),
            Command::Deliver(verb) => verb.run(cx),
            Command::Body(verb) => verb.run(cx),
            Command::Flag(verb) => verb.run(cx),
            Command::Move(verb) => verb.run(cx),
            Command::Copy(verb) => verb.run(cx),
            Command::Expunge(verb) => verb.run(cx),
            Command::Mailbox(verb) => verb.run(cx),
            Command::Status(verb) => verb.run(cx),
            Command::Log(verb) => verb.run(cx),
            Command::Why(verb) => verb.run(cx),
            Command::Conflicts(verb) => verb.run(cx),
            Command::Undo(verb) => verb.run(cx),
            Command::Scrub(verb) => verb.run(cx),
            Command::Gc(verb) => verb.run(cx),
            Command::Verify(verb) => verb.run(cx),
            Command::Backup(verb) => verb.run(cx),
            Command::Check(verb) => verb.run_inside(cx),
            Command::Init(_)
            | Command::Serve(_)
            | Command::Join(_)
            | Command::User(_)
            | Command::Demo(_)
            | Command::Completions(_)
            | Command::Man(_) => {
                anyhow::bail!("this command does not run inside another process")
            }
        }
    }

    /// Whether the verb can be run on a replica that is only read.
    fn only_shows(&self) -> bool {
        use Command::{Backup, Body, Check, Conflicts, Export, Log, Mailboxes, Messages, Peers, Status, Why};
        matches!(
            self,
            Mailboxes(_)
                | Messages(_)
                | Body(_)
                | Export(_)
                | Log(_)
                | Why(_)
                | Conflicts(_)
                | Status(_)
                | Peers(_)
                | Backup(_)
                | Check(_)
        )
    }

    /// Whether the verb stops in its own way on Ctrl-C.
    pub(crate) fn handles_signals(&self) -> bool {
        matches!(self, Command::Serve(_))
    }
}

/// Runs a verb that is about the program and not about any mail: it needs no home directory and no configuration.
pub(crate) fn about_itself(command: &Command) -> Option<anyhow::Result<Code>> {
    match command {
        Command::Completions(verb) => Some(verb.run()),
        Command::Man(verb) => Some(verb.run()),
        _ => None,
    }
}

/// Runs a verb: alone, inside the daemon that holds the store, or on the store.
pub(crate) fn run(command: &Command, setup: &Setup) -> anyhow::Result<Code> {
    if setup.read_only && !command.only_shows() {
        return Err(Usage("this command writes; leave out --read-only".into()).into());
    }
    match command {
        Command::Init(verb) => verb.run(setup),
        Command::Serve(verb) => verb.run(setup),
        Command::Join(verb) => verb.run(setup),
        Command::User(verb) => verb.run(setup),
        Command::Demo(verb) => verb.run(setup),
        Command::Deliver(verb) => on_replica(command, &verb.setup(setup)?, deliver::PATIENCE),
        Command::Check(verb) => match control::call(setup)? {
            Some(code) => Ok(code),
            None => verb.run_alone(setup),
        },
        _ => on_replica(command, setup, LOCK_PATIENCE),
    }
}

/// What another process's short command may hold the store for.
const LOCK_PATIENCE: Duration = Duration::from_secs(2);

fn on_replica(command: &Command, setup: &Setup, patience: Duration) -> anyhow::Result<Code> {
    let start = Instant::now();
    let replica = loop {
        if let Some(code) = control::call(setup)? {
            return Ok(code);
        }
        let opened = match setup.read_only {
            true => Replica::open_read_only(&setup.store),
            false => Replica::open(&setup.store, setup.state()),
        };
        match opened {
            Err(ReplicaError::Store(StoreError::Locked { .. })) if start.elapsed() < patience => {
                std::thread::sleep(Duration::from_millis(20));
            }
            opened => break opened?,
        }
    };
    if !setup.read_only {
        endpoint::take_next_key(&setup.store, &replica)?;
    }
    // An import comes before the first user.
    if matches!(command, Command::Import(_)) || imap::has_users(setup) {
        postmerge_imap::summarize_arrivals(&replica);
    }
    if replica.peers()?.is_empty() {
        let path = setup.store.clone();
        let what = "the join that was begun here did not come to its end; run it again";
        return Err(anyhow::Error::from(ReplicaError::NoReplica { path }).context(what));
    }
    let mut cx = local(setup, replica.clone());
    let result = command.run(&mut cx).and_then(|code| Ok(cx.out.flush().map(|()| code)?));
    match replica.close() {
        // What was delivered is durable, and would be delivered again.
        Err(error) if result.is_ok() && matches!(command, Command::Deliver(_)) => {
            tracing::warn!(store = %setup.store.display(), %error, "cannot close the store well");
        }
        closed => closed?,
    }
    result
}

/// A context in this very process.
pub(crate) fn local(setup: &Setup, replica: Replica) -> Context<'_> {
    let hub = Hub::new(replica.clone(), setup.store.clone(), &setup.config.now());
    Context {
        replica,
        setup,
        hub,
        serving: None,
        cwd: setup.cwd.clone(),
        out: Box::new(std::io::BufWriter::new(std::io::stdout())),
        err: Box::new(std::io::stderr()),
        input: Box::new(std::io::stdin()),
        progress: progress::paced(progress::on_terminal()),
    }
}
