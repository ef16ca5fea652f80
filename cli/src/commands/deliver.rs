use std::fmt;
use std::io::{BufRead, BufReader, Read};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use anyhow::Context as _;
use clap::Args;
use postmerge::mailbox::{Keyword, MailboxName, Uid};
use postmerge::replica::ReplicaError;
use postmerge::uid::AccountError;

use super::select;
use crate::context::{Code, Context};
use crate::failure::Usage;
use crate::paths::Setup;
use crate::{incoming, users};

/// Puts the message on standard input into a mailbox, for programs that hand over mail: its exit codes are those of
/// sysexits.h, 75 for what may do later.
#[derive(Args)]
pub(crate) struct Deliver {
    /// The mailbox; INBOX if it is not there [default: what follows a `+` in --user, else INBOX].
    mailbox: Option<String>,
    /// Makes the mailbox if it is not there.
    #[arg(long)]
    create: bool,
    /// A flag or keyword that the message gets: `seen`, `\Seen`, `$Forwarded`, `work`.
    #[arg(long = "flag", value_name = "FLAG", value_parser = select::keyword)]
    flags: Vec<Keyword>,
    /// Who sent it: put in front of the message as Return-Path, unless it starts with one.
    #[arg(short = 'f', long = "sender", value_name = "ADDRESS", allow_hyphen_values = true)]
    sender: Option<String>,
    /// Delivers to the replica of this user (`postmerge user list`), by name or address, instead of the one that --store names.
    #[arg(short = 'd', long = "user", value_name = "NAME", allow_hyphen_values = true)]
    user: Option<String>,
    /// Prints the result as JSON; nothing is printed otherwise.
    #[arg(long)]
    json: bool,
    /// Reads the message and says what would be done.
    #[arg(long)]
    dry_run: bool,
}

/// How the verb is written.
pub(crate) const VERB: &str = "deliver";
/// What another process may hold the store for: deliveries come in crowds, and one that is put off waits for minutes.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// EX_USAGE: the command line makes no sense.
pub(crate) const USAGE: Code = Code::sysexits(64);
/// EX_DATAERR: the message itself cannot be taken, now or later.
const DATA: Code = Code::sysexits(65);
/// EX_NOINPUT: standard input cannot be read at all.
const NO_INPUT: Code = Code::sysexits(66);
/// EX_NOUSER: there is no such user.
const NO_USER: Code = Code::sysexits(67);
/// EX_TEMPFAIL: it may do later. All that a person can mend is this, since all but this sends the mail back.
pub(crate) const LATER: Code = Code::sysexits(75);

/// A message that is not taken, for a reason that does not go away.
#[derive(Debug)]
struct Refused {
    what: String,
    code: Code,
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.what)
    }
}

impl std::error::Error for Refused {}

fn refused(code: Code, what: impl Into<String>) -> anyhow::Error {
    Refused { what: what.into(), code }.into()
}

/// The exit code of a failed delivery.
pub(crate) fn code(error: &anyhow::Error) -> Code {
    for cause in error.chain() {
        if let Some(refused) = cause.downcast_ref::<Refused>() {
            return refused.code;
        }
        if cause.is::<Usage>() {
            return USAGE;
        }
        if cause.downcast_ref().is_some_and(incoming::is_too_large) {
            return DATA;
        }
    }
    LATER
}

/// Runs a delivery to its end. Whatever becomes of it, the caller hears a code that it knows: mail servers send mail back
/// for any other, a panic's too.
pub(crate) fn guard(run: impl FnOnce() -> Code) -> Code {
    match catch_unwind(AssertUnwindSafe(run)) {
        Ok(code) if matches!(code.value(), 0 | 64..=78) => code,
        // A daemon of another version may not know the verb.
        Ok(_) | Err(_) => LATER,
    }
}

impl Deliver {
    /// The store it is for.
    pub(crate) fn setup(&self, setup: &Setup) -> anyhow::Result<Setup> {
        let Some(name) = &self.user else { return Ok(setup.clone()) };
        let list = setup.users.display();
        // Elsewhere no list is an empty list; here that would send back all mail of a machine whose disk is not there.
        std::fs::metadata(&setup.users).with_context(|| format!("cannot look at {list}"))?;
        let known = users::read(&setup.users)?;
        let found = incoming::find(&known, name);
        let (user, _) = found.ok_or_else(|| refused(NO_USER, format!("{list} has no user {name:?}")))?;
        Ok(setup.at(user.replica().to_owned()))
    }

    pub(crate) fn run(&self, cx: &mut Context<'_>) -> anyhow::Result<Code> {
        let mailbox = self.mailbox(cx)?;
        let mut input = BufReader::new(&mut cx.input);
        let front = self.front(&mut input)?;
        let mut message = front.as_slice().chain(input);
        if self.dry_run {
            let bytes = std::io::copy(&mut message, &mut std::io::sink())?;
            writeln!(cx.out, "would deliver a message of {bytes} bytes to mailbox {mailbox:?}")?;
            return Ok(Code::DONE);
        }
        let store = cx.setup.store.display().to_string();
        let mut add = || {
            let (body, _) = cx.replica.put_body(&mut message)?;
            incoming::add(&cx.replica, &mailbox, body, &self.flags.iter().cloned().collect())
        };
        let added = add().with_context(|| format!("cannot deliver to mailbox {mailbox:?} of {store}"));
        let (went, added) = added?;
        // From here on nothing may fail: the message would come again.
        if went != mailbox {
            let _ =
                writeln!(cx.err, "warning: {store} has no mailbox {mailbox:?}; the message went to {went:?}");
        }
        if self.json {
            let (uid, entry) = (added.uid.map(Uid::value), added.entry.to_string());
            let _ = cx.json(&serde_json::json!({"mailbox": went.as_str(), "uid": uid, "entry": entry}));
        }
        Ok(Code::DONE)
    }

    /// The mailbox that is meant. The name may come from an address, that is from anybody: one that is no name of a
    /// mailbox is no reason to send the mail back.
    fn mailbox(&self, cx: &mut Context<'_>) -> anyhow::Result<MailboxName> {
        let name = self.mailbox.as_deref().unwrap_or_default();
        if name.is_empty() {
            let Some(address) = &self.user else { return Ok(MailboxName::inbox()) };
            let known = users::read(&cx.setup.users)?;
            let named = incoming::find(&known, address).and_then(|(_, mailbox)| mailbox);
            return Ok(named.unwrap_or_else(MailboxName::inbox));
        }
        let name: MailboxName = match name.parse() {
            Ok(name) => name,
            Err(error) => {
                let _ = writeln!(cx.err, "warning: {error}; the message goes to INBOX");
                return Ok(MailboxName::inbox());
            }
        };
        if self.create && !self.dry_run {
            match cx.replica.create_mailbox(&name, None) {
                Ok(_) | Err(ReplicaError::Account(AccountError::Exists { .. })) => {}
                Err(error) => drop(writeln!(cx.err, "warning: cannot make mailbox {name:?}: {error}")),
            }
        }
        Ok(name)
    }

    /// The start of the message as it is to be: without an mbox's `From ` line, with the header that names the sender.
    fn front(&self, input: &mut impl BufRead) -> anyhow::Result<Vec<u8>> {
        let failed = |error| refused(NO_INPUT, format!("cannot read the message on standard input: {error}"));
        let mut line = first_line(input).map_err(failed)?;
        if line.starts_with(b"From ") {
            while !line.is_empty() && !line.ends_with(b"\n") {
                line = first_line(input).map_err(failed)?;
            }
            line = first_line(input).map_err(failed)?;
        }
        if line.is_empty() {
            return Err(refused(DATA, "there is no message: standard input is empty"));
        }
        let has_one =
            line.get(..RETURN_PATH.len()).is_some_and(|start| start.eq_ignore_ascii_case(RETURN_PATH));
        let sender = self.sender.as_ref().filter(|_| !has_one);
        let sender = sender.map(|sender| sender.trim_start_matches('<').trim_end_matches('>'));
        // Mail servers give line feeds, and the message should have one kind.
        let line_end = if line.ends_with(b"\r\n") { "\r\n" } else { "\n" };
        let header = sender.map(|sender| incoming::return_path(sender, line_end)).unwrap_or_default();
        Ok([header.as_bytes(), &line].concat())
    }
}

const RETURN_PATH: &[u8] = b"return-path:";
/// Bytes of a line that are held at once.
const PIECE: u64 = 4096;

/// The line that comes next, or the start of a long one; nothing at the end.
fn first_line(input: &mut impl BufRead) -> std::io::Result<Vec<u8>> {
    let mut line = Vec::new();
    input.take(PIECE).read_until(b'\n', &mut line)?;
    Ok(line)
}

#[cfg(test)]
mod tests {
    use std::io::{Error, ErrorKind};

    use postmerge::store::StoreError;

    use super::*;

    #[test]
    fn only_what_nobody_can_mend_sends_the_mail_back() {
        let io = |kind| StoreError::Io { action: "write", path: "/mail/x".into(), source: Error::from(kind) };
        let too_large = StoreError::TooLarge { what: "a body", size: 2, limit: 1 };
        for (error, wanted) in [
            (ReplicaError::Store(io(ErrorKind::StorageFull)), LATER),
            (ReplicaError::Store(io(ErrorKind::PermissionDenied)), LATER),
            (ReplicaError::Store(StoreError::Locked { path: "/mail/lock".into(), pid: None }), LATER),
            (ReplicaError::NoReplica { path: "/mail".into() }, LATER),
            (ReplicaError::NotJoined, LATER),
            (ReplicaError::Source { source: ErrorKind::UnexpectedEof.into() }, LATER),
            (ReplicaError::Store(too_large), DATA),
        ] {
            let error = anyhow::Error::from(error).context("cannot deliver");
            assert_eq!(code(&error), wanted, "{error:?}");
        }
        assert_eq!(code(&Usage("no".into()).into()), USAGE);
        assert_eq!(code(&refused(NO_USER, "nobody").context("so")), NO_USER);
    }

    #[test]
    fn the_caller_hears_a_code_that_it_knows() {
        for (code, wanted) in
            [(Code::DONE, Code::DONE), (DATA, DATA), (Code::USAGE, LATER), (Code::LOCKED, LATER)]
        {
            assert_eq!(guard(|| code), wanted);
        }
        assert_eq!(guard(|| panic!("a defect")), LATER);
    }

    fn front(sender: Option<&str>, message: &[u8]) -> Result<Vec<u8>, Code> {
        let (mailbox, user, sender) = (None, None, sender.map(str::to_owned));
        let verb =
            Deliver { mailbox, create: false, flags: Vec::new(), sender, user, json: false, dry_run: false };
        let mut input = BufReader::with_capacity(7, message);
        let mut whole = verb.front(&mut input).map_err(|error| code(&error))?;
        input.read_to_end(&mut whole).unwrap();
        Ok(whole)
    }

    /// The sender that is named, what is given, and what comes of it.
    type Case<'a> = (Option<&'a str>, &'a [u8], Result<&'a [u8], Code>);

    #[test]
    fn a_message_stays_as_it_is_but_for_its_envelope() {
        let long = [&b"From "[..], &[b'x'; 10_000], b"\nTo: a\n\nx\n"].concat();
        let cases: &[Case<'_>] = &[
            (None, b"To: a\n\n\0\r\xff", Ok(b"To: a\n\n\0\r\xff")),
            (None, b"From: a\n\nFrom b\n", Ok(b"From: a\n\nFrom b\n")),
            (None, b"From a@b Thu Jan  1 00:00:00 1970\nTo: a\n", Ok(b"To: a\n")),
            (None, b"From a@b\r\nTo: a\r\n", Ok(b"To: a\r\n")),
            (None, b"From a\nFrom b\n", Ok(b"From b\n")),
            (None, b">From a\nTo: a\n", Ok(b">From a\nTo: a\n")),
            (None, &long, Ok(b"To: a\n\nx\n")),
            (Some("a@b"), b"To: a\n", Ok(b"Return-Path: <a@b>\nTo: a\n")),
            (Some("<a@b>"), b"To: a\n", Ok(b"Return-Path: <a@b>\nTo: a\n")),
            (Some(""), b"From a\nTo: a\r\n", Ok(b"Return-Path: <>\r\nTo: a\r\n")),
            (Some("a@b"), b"RETURN-path: <c@d>\nTo: a\n", Ok(b"RETURN-path: <c@d>\nTo: a\n")),
            (Some("a@b"), b"x", Ok(b"Return-Path: <a@b>\nx")),
            (Some("a@b"), b"", Err(DATA)),
            (None, b"From a\n", Err(DATA)),
            (None, b"From a", Err(DATA)),
        ];
        for (sender, given, wanted) in cases.iter().copied() {
            assert_eq!(front(sender, given), wanted.map(<[u8]>::to_vec), "{}", given.escape_ascii());
        }
    }
}
