//! One client's session, without a socket: bytes in, bytes and events out.
//!
//! The pump, in this order until nothing is left to do, then wait for bytes, a commit or the time:
//!
//! 1. [`Session::poll_send`] gives bytes for the client.
//! 2. [`Session::poll_event`] gives what only the connection can do: TLS, compression, opening an account, closing.
//! 3. While [`Session::has_work`], [`Session::work`] takes one step. It reads and writes the replica's disk, so it belongs
//!    where blocking is allowed. A step ends when about [`OUTPUT`] bytes wait for the client.
//! 4. [`Session::receive`] takes the client's bytes while [`Session::wants_input`]; [`Session::changed`] says that the
//!    replica committed; [`Session::handle_timeout`] is due at [`Session::poll_timeout`].
//!
//! What stays true: sequence numbers mean what this client was told ([`crate::view`]); what is shown was durable before; a
//! command that fails changes nothing and is answered; whatever bytes come in, memory stays within the limits.

mod append;
mod catenate;
mod copy;
mod done;
mod fetch;
mod idle;
mod limits;
mod list;
mod login;
mod mailboxes;
mod resync;
mod search;
mod select;
mod selected;
mod store;

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use postmerge::replica::Replica;

use self::append::AppendRun;
use self::done::{Done, Failed};
use self::fetch::FetchRun;
pub use self::limits::SessionLimits;
use self::resync::ResyncRun;
use self::search::SearchRun;
use self::selected::Selected;
use self::store::StoreRun;
use crate::account::Account;
use crate::auth::{Attempts, Authenticator, Channel, Sasl, ServerNonce, User};
use crate::grammar::{
    AppendItem, Code, Command, CommandBody, Condition, Item, Limits, Numbering, Reader, Responses, Secret,
    Tag,
};

/// Output after which a step ends: enough to keep a network busy and to pay for the change of threads that a step is, little
/// enough for a thousand slow clients.
pub const OUTPUT: usize = 128 * 1024;
/// RFC 9051, section 5.4: a client may be silent for 30 minutes at least.
const AUTOLOGOUT: Duration = Duration::from_secs(31 * 60);
/// Routers forget connections that are silent for some minutes, and their clients would hear nothing any more.
const REMINDER: Duration = Duration::from_secs(120);
/// Who has not logged in this long after the greeting only holds a connection, however much it says. People type passwords
/// into the program beforehand.
const LOGIN_TIMEOUT: Duration = Duration::from_secs(120);

/// What all sessions of a server share.
pub struct Settings {
    /// Who may log in.
    pub authenticator: Authenticator,
    /// Draws the random part of a SCRAM exchange.
    pub nonce: fn() -> ServerNonce,
    /// Tells the time, in seconds since 1970, for OLDER and YOUNGER (RFC 5032).
    pub time: fn() -> i64,
    /// What a session may cost.
    pub limits: SessionLimits,
}

/// What the connection has to do for the session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SessionEvent {
    /// Start TLS now; then call [`Session::secured`].
    StartTls,
    /// Everything from here on is compressed, both ways, beginning with these bytes, which were received already.
    Compress {
        /// To be inflated first.
        input: Vec<u8>,
    },
    /// Open the account of this user, who has proven to be that; then call [`Session::opened`].
    Open {
        /// The user.
        user: User,
    },
    /// Close the connection: everything has been said.
    Close,
}

/// What came of opening an account.
pub enum Opened {
    /// Here it is.
    Account(Account),
    /// It cannot be used now, for this reason, which goes to the log and not to the client.
    Refused(String),
}

/// What the client has enabled (RFC 5161).
#[derive(Clone, Copy, Debug, Default)]
struct Enabled {
    condstore: bool,
    qresync: bool,
    rev2: bool,
    utf8: bool,
    uid_only: bool,
}

enum State {
    NotAuthenticated,
    Authenticated(Account),
    Selected(Account, Box<Selected>),
}

/// What is under way between two steps.
enum Running {
    /// The account is being opened.
    Opening(Tag),
    Authenticate(Tag, Sasl),
    Idle(Tag),
    Append(Box<AppendRun>),
    Fetch(Box<FetchRun>),
    Search(Box<SearchRun>),
    Resync(Box<ResyncRun>),
    Store(Box<StoreRun>),
}

/// One client's session.
pub struct Session {
    settings: Arc<Settings>,
    channel: Channel,
    can_start_tls: bool,
    compressed: bool,
    reader: Reader,
    /// What was read and not acted on.
    next: Option<Item>,
    out: Responses,
    events: VecDeque<SessionEvent>,
    state: State,
    enabled: Enabled,
    running: Option<Running>,
    attempts: Attempts,
    /// Nothing is done or said before this.
    not_before: Option<Instant>,
    /// When the session began.
    begun: Instant,
    /// When the client was last heard, or last answered.
    heard: Instant,
    /// When something was said last to a client in IDLE.
    said: Instant,
    /// Whether the replica committed since a waiting client was last told.
    stale: bool,
    /// Lines that were no commands.
    nonsense: u32,
    /// BYE was said.
    ended: bool,
}

impl Session {
    /// A session that has to greet its client, over such a channel; `can_start_tls` says whether the channel could be put
    /// under TLS.
    pub fn new(settings: Arc<Settings>, channel: Channel, can_start_tls: bool, now: Instant) -> Session {
        let mut session = Session {
            settings,
            channel,
            can_start_tls,
            compressed: false,
            reader: Reader::new(Limits::BEFORE_LOGIN),
            next: None,
            out: Responses::new(),
            events: VecDeque::new(),
            state: State::NotAuthenticated,
            enabled: Enabled::default(),
            running: None,
            attempts: Attempts::new(),
            not_before: None,
            begun: now,
            heard: now,
            said: now,
            stale: false,
            nonsense: 0,
            ended: false,
        };
        session.greet();
        session
    }

    /// Takes bytes from the client.
    pub fn receive(&mut self, bytes: &[u8], now: Instant) {
        self.heard = now;
        if !self.ended {
            self.reader.push(bytes);
            self.look();
        }
    }

    /// Whether more bytes are of use now. While a command runs, what the client sends waits in the network's buffers.
    pub fn wants_input(&self) -> bool {
        !self.ended && self.next.is_none() && self.not_before.is_none() && !self.has_work()
    }

    /// Bytes for the client.
    pub fn poll_send(&mut self) -> Option<Vec<u8>> {
        let ready = self.not_before.is_none() && !self.out.is_empty();
        ready.then(|| self.out.take())
    }

    /// What the connection has to do. Ask only after [`Session::poll_send`] gave all: TLS starts after the last plain byte.
    pub fn poll_event(&mut self) -> Option<SessionEvent> {
        if self.not_before.is_some() { None } else { self.events.pop_front() }
    }

    /// Whether [`Session::work`] would do something.
    pub fn has_work(&self) -> bool {
        if self.ended || self.not_before.is_some() || !self.events.is_empty() {
            return false;
        }
        match &self.running {
            None | Some(Running::Append(_) | Running::Authenticate(..)) => self.next.is_some(),
            Some(Running::Opening(_)) => false,
            Some(Running::Idle(_)) => self.next.is_some() || self.stale,
            Some(Running::Fetch(run)) => run.has_work(self.stale),
            Some(Running::Search(_) | Running::Resync(_) | Running::Store(_)) => true,
        }
    }

    /// When [`Session::handle_timeout`] is due.
    pub fn poll_timeout(&self) -> Option<Instant> {
        if self.ended && self.not_before.is_none() {
            return None;
        }
        let silence = match self.state {
            State::NotAuthenticated => self.begun + LOGIN_TIMEOUT,
            _ => self.heard + AUTOLOGOUT,
        };
        [Some(silence), self.not_before, self.patience(), self.reminder()].into_iter().flatten().min()
    }

    /// When a client in IDLE is told that the connection lives.
    fn reminder(&self) -> Option<Instant> {
        matches!(self.running, Some(Running::Idle(_))).then(|| self.said + REMINDER)
    }

    /// Until when a body is awaited.
    fn patience(&self) -> Option<Instant> {
        match &self.running {
            Some(Running::Fetch(run)) => run.deadline(),
            _ => None,
        }
    }

    /// The time at [`Session::poll_timeout`] has come.
    pub fn handle_timeout(&mut self, now: Instant) {
        if self.not_before.is_some_and(|at| at <= now) {
            self.not_before = None;
        } else if self.patience().is_some_and(|at| at <= now) {
            if let Some(Running::Fetch(run)) = &mut self.running {
                run.give_up();
            }
        } else if self.reminder().is_some_and(|at| at <= now) && self.heard + AUTOLOGOUT > now {
            self.said = now;
            self.out.status(None, Condition::Ok, None, "still here");
        } else if self.poll_timeout().is_some_and(|at| at <= now) {
            self.bye(Code::Unavailable, "nothing was heard for too long");
        }
    }

    /// How many logins failed here.
    pub fn failed_logins(&self) -> u32 {
        self.attempts.failures()
    }

    /// Tells of failed logins from the same address on other connections.
    pub fn suspect(&mut self, elsewhere: u32) {
        self.attempts.suspect(elsewhere);
    }

    /// The replica has committed, or a body has come: a client in IDLE is told, one that waits for a body may have it.
    pub fn changed(&mut self) {
        self.stale = true;
    }

    /// The server stops.
    pub fn stop(&mut self) {
        self.not_before = None;
        self.bye(Code::Unavailable, "the server is stopping");
    }

    /// TLS has started.
    pub fn secured(&mut self, channel: Channel) {
        self.channel = channel;
        self.can_start_tls = false;
        self.look();
    }

    fn bye(&mut self, code: Code<'_>, text: &str) {
        if !self.ended {
            self.out.status(None, Condition::Bye, Some(code), text);
            self.end();
        }
    }

    fn end(&mut self) {
        self.ended = true;
        self.running = None;
        self.events.push_back(SessionEvent::Close);
    }

    /// Reads on, unless there is something to act on first.
    fn look(&mut self) {
        if self.next.is_none() && !self.ended {
            self.next = self.reader.poll();
        }
    }

    /// Takes one step. Costs at most the reading of about [`OUTPUT`] bytes, or one commit of the replica.
    pub fn work(&mut self, now: Instant) {
        match self.running.take() {
            Some(running) => self.go_on(running, now),
            None => match self.next.take() {
                Some(item) => self.start(item, now),
                None => return,
            },
        }
        if !self.out.is_empty() {
            self.said = now;
            // A download that takes hours is no silence.
            if !matches!(self.running, Some(Running::Idle(_))) {
                self.heard = now;
            }
        }
        // What follows STARTTLS and COMPRESS is not for this reader to look at.
        if self.events.is_empty() {
            self.look();
        }
    }

    fn go_on(&mut self, running: Running, now: Instant) {
        match running {
            Running::Opening(tag) => self.running = Some(Running::Opening(tag)),
            Running::Authenticate(tag, sasl) => match self.next.take() {
                Some(Item::Line(line)) => {
                    let done = self.respond(tag.clone(), sasl, line.as_bytes(), now);
                    self.finish(&tag, Kind::Other, Ok(done));
                }
                other => self.interrupted(&tag, other),
            },
            Running::Idle(tag) => {
                let line = match self.next.take() {
                    None => None,
                    Some(Item::Line(line)) => Some(line),
                    other => return self.interrupted(&tag, other),
                };
                let done = self.idle_on(tag.clone(), line.as_ref().map(Secret::as_bytes));
                self.finish(&tag, Kind::Other, done);
            }
            Running::Append(run) => match self.next.take() {
                Some(Item::Append(item)) => self.append_item(run, item),
                Some(Item::Continue) => {
                    self.running = Some(Running::Append(run));
                    self.out.continuation("go on");
                }
                other => self.interrupted(&run.tag.clone(), other),
            },
            Running::Fetch(run) => {
                let kind = Kind::of(run.numbering);
                let (tag, done) = self.fetch_on(run, now);
                self.finish(&tag, kind, done);
            }
            Running::Search(run) => {
                let kind = Kind::of(run.numbering);
                let (tag, done) = self.search_on(run);
                self.finish(&tag, kind, done);
            }
            Running::Store(run) => {
                let kind = Kind::of(run.numbering);
                let (tag, done) = self.store_on(run);
                self.finish(&tag, kind, done);
            }
            Running::Resync(run) => {
                let (tag, done) = self.resync_on(run);
                self.finish(&tag, Kind::Numbers, done);
            }
        }
    }

    /// A command that takes several lines got something else.
    fn interrupted(&mut self, tag: &Tag, item: Option<Item>) {
        match item {
            Some(Item::Bad(error)) => self.out.bad(&error),
            Some(Item::Overrun) => self.bye(Code::Limit, "too much was sent at once"),
            _ => self.out.status(Some(tag), Condition::Bad, None, "that does not belong here"),
        }
    }

    fn start(&mut self, item: Item, now: Instant) {
        match item {
            Item::Command(Command { tag, body }) => {
                let kind = Kind::of_command(&body);
                let done = self.command(&tag, body, now);
                self.finish(&tag, kind, done);
            }
            Item::Append(AppendItem::Begin(append)) => self.append(append),
            Item::Append(_) | Item::Line(_) => {}
            Item::Bad(error) => {
                self.out.bad(&error);
                self.count_nonsense();
            }
            Item::Continue => self.out.continuation("go on"),
            Item::Overrun => self.bye(Code::Limit, "too much was sent at once"),
        }
    }

    /// Tells what happened meanwhile, as far as the command allows, then how the command ended.
    fn finish(&mut self, tag: &Tag, kind: Kind, done: Result<Done, Failed>) {
        if self.ended {
            return;
        }
        let done = done.unwrap_or_else(Failed::answer);
        if matches!(done, Done::Runs | Done::Answered) {
            return;
        }
        // What the client has sent already may count in numbers as it knows them now.
        self.look();
        let quiet = matches!(self.next, None | Some(Item::Line(_)));
        let may_expunge = match kind {
            Kind::Numbers => false,
            Kind::Uids | Kind::Other => quiet,
        };
        if let Done::Bye(text) = &done {
            return self.bye(Code::Unavailable, text);
        }
        if let Err(lost) = self.tell(may_expunge, kind == Kind::Uids) {
            tracing::warn!(error = %lost, "a mailbox cannot stay selected");
            return self.bye(Code::Unavailable, &lost.to_string());
        }
        match &done {
            Done::Ok(reply, text) => self.out.status(Some(tag), Condition::Ok, reply.code(), text),
            Done::No(reply, text) => self.out.status(Some(tag), Condition::No, reply.code(), text),
            Done::Bad(reply, text) => self.out.status(Some(tag), Condition::Bad, reply.code(), text),
            Done::Runs | Done::Answered | Done::Bye(_) => {}
        }
    }

    fn replica(&self) -> Result<&Replica, Failed> {
        match &self.state {
            State::NotAuthenticated => Err(Failed::Bad("log in first")),
            State::Authenticated(account) | State::Selected(account, _) => Ok(account.replica()),
        }
    }

    fn account(&self) -> Result<&Account, Failed> {
        match &self.state {
            State::NotAuthenticated => Err(Failed::Bad("log in first")),
            State::Authenticated(account) | State::Selected(account, _) => Ok(account),
        }
    }

    fn command(&mut self, tag: &Tag, body: CommandBody, now: Instant) -> Result<Done, Failed> {
        use CommandBody as C;
        match body {
            C::Capability => {
                let all = self.capabilities();
                self.out.capability(&all);
                Ok(Done::ok("that is all"))
            }
            C::Noop | C::Check => Ok(Done::ok("here")),
            C::Logout => {
                self.out.status(None, Condition::Bye, None, "goodbye");
                self.out.status(Some(tag), Condition::Ok, None, "logged out");
                self.end();
                Ok(Done::Answered)
            }
            C::Id(_) => {
                self.out.id(&[("name", Some("postmerge")), ("version", Some(env!("CARGO_PKG_VERSION")))]);
                Ok(Done::ok("pleased to meet you"))
            }
            C::StartTls | C::Authenticate { .. } | C::Login { .. } => Ok(self.introduction(tag, body, now)),
            body => {
                self.replica()?;
                self.mailbox_command(tag, body)
            }
        }
    }

    fn mailbox_command(&mut self, tag: &Tag, body: CommandBody) -> Result<Done, Failed> {
        use CommandBody as C;
        match body {
            C::Compress => Ok(self.compress(tag)),
            C::Enable(extensions) => Ok(self.enable(&extensions)),
            C::Namespace => {
                self.out.namespace();
                Ok(Done::ok("one namespace, of your own"))
            }
            C::Select(select) => self.select(tag, select, false),
            C::Examine(select) => self.select(tag, select, true),
            C::Create { mailbox, uses } => self.create(mailbox, &uses),
            C::Delete(mailbox) => self.delete(mailbox),
            C::Rename { from, to } => self.rename(from, to),
            C::Subscribe(mailbox) => self.subscribe(mailbox, true),
            C::Unsubscribe(mailbox) => self.subscribe(mailbox, false),
            C::List(list) => self.list(&list),
            C::Lsub(lsub) => self.lsub(&lsub),
            C::Status { mailbox, items } => self.status(mailbox, &items),
            C::Idle => Ok(self.idle(tag.clone())),
            C::Close => self.close(true),
            C::Unselect => self.close(false),
            C::Expunge { uids } => self.expunge(uids.as_ref()),
            C::Search(search) => self.search(tag.clone(), search),
            C::Sort(sort) => self.sort(tag.clone(), sort),
            C::Thread(thread) => self.thread(tag.clone(), thread),
            C::Fetch(fetch) => self.fetch(tag.clone(), fetch),
            C::Store(store) => self.store(tag.clone(), store),
            C::Copy { numbering, messages, to } => self.transfer(numbering, &messages, to, true),
            C::Move { numbering, messages, to } => self.transfer(numbering, &messages, to, false),
            C::Capability | C::Noop | C::Check | C::Logout | C::Id(_) | C::StartTls => Ok(Done::Answered),
            C::Authenticate { .. } | C::Login { .. } => Ok(Done::Answered),
        }
    }
}

/// What a command allows to be told when it ends (RFC 9051, section 7.5.1).
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// FETCH, STORE and SEARCH by sequence numbers: no expunge. SELECT and EXAMINE too, whose EXISTS the client is still to take in.
    Numbers,
    /// The same by UIDs: every FETCH response has the UID (RFC 9051, section 6.4.9).
    Uids,
    /// All others.
    Other,
}

impl Kind {
    fn of(numbering: Numbering) -> Kind {
        match numbering {
            Numbering::Sequence => Kind::Numbers,
            Numbering::Uid => Kind::Uids,
        }
    }

    fn of_command(body: &CommandBody) -> Kind {
        match body {
            CommandBody::Fetch(fetch) => Kind::of(fetch.numbering),
            CommandBody::Store(store) => Kind::of(store.numbering),
            CommandBody::Search(search) => Kind::of(search.numbering),
            CommandBody::Sort(sort) => Kind::of(sort.numbering),
            CommandBody::Thread(thread) => Kind::of(thread.numbering),
            CommandBody::Select(_) | CommandBody::Examine(_) => Kind::Numbers,
            _ => Kind::Other,
        }
    }
}
