//! A session without a socket, and what is said over it.

use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use postmerge::member::{MemberName, Role, SecretKey};
use postmerge::replica::{Founding, Replica};
use postmerge::uid::Block;
use postmerge_imap::auth::{
    Authenticator, Channel, DecoySecret, Iterations, Salt, ServerNonce, User, Users, Verifier,
};
use postmerge_imap::{Account, Opened, Session, SessionEvent, SessionLimits, Settings};

/// A replica that goes away with its directory.
pub(crate) struct Home {
    pub(crate) replica: Replica,
    pub(crate) account: Account,
    _dir: tempfile::TempDir,
}

/// A new account on a server.
pub(crate) fn home() -> Home {
    let dir = tempfile::tempdir().unwrap();
    let endpoint = SecretKey::from_seed([7; 32]).peer_id();
    let name = MemberName::new("desk").unwrap();
    let founding = Founding { role: Role::Server, name, block: Block::STANDARD, endpoint };
    let replica = Replica::found(&dir.path().join("mail"), None, &founding).unwrap();
    let account = Account::new(replica.clone());
    Home { replica, account, _dir: dir }
}

/// One user, `kim` with the password `secret`.
pub(crate) fn settings() -> Arc<Settings> {
    limited(SessionLimits::default())
}

/// The same with other limits.
pub(crate) fn limited(limits: SessionLimits) -> Arc<Settings> {
    static USERS: OnceLock<Users> = OnceLock::new();
    let users = USERS.get_or_init(|| {
        let mut users = Users::default();
        let iterations = Iterations::new(4096).unwrap();
        let verifier = Verifier::derive(b"secret", Salt::new([3; 16]).unwrap(), iterations).unwrap();
        users.insert(User::new("kim".parse().unwrap(), "/nowhere").unwrap(), verifier);
        users
    });
    let authenticator = Authenticator::new(users.clone(), DecoySecret::from_bytes([5; 32]));
    Arc::new(Settings {
        authenticator,
        nonce: || ServerNonce::from_bytes([9; ServerNonce::LEN]),
        time: || 1_764_000_000,
        limits,
    })
}

/// A client over a session, with a clock that only the test moves.
pub(crate) struct Client {
    account: Account,
    pub(crate) session: Session,
    pub(crate) now: Instant,
    pub(crate) closed: bool,
}

impl Client {
    /// A client that has not logged in, and what it was greeted with.
    pub(crate) fn connect(account: &Account) -> (Client, String) {
        Client::connect_with(account, settings())
    }

    /// The same with other settings.
    pub(crate) fn connect_with(account: &Account, settings: Arc<Settings>) -> (Client, String) {
        #[expect(clippy::disallowed_methods, reason = "some moment to start from")]
        let now = Instant::now();
        let session = Session::new(settings, Channel::Clear { passwords: true }, false, now);
        let mut client = Client { account: account.clone(), session, now, closed: false };
        let greeting = client.say_bytes(b"");
        (client, greeting)
    }

    /// Sends bytes and gives all that is answered.
    pub(crate) fn say_bytes(&mut self, bytes: &[u8]) -> String {
        self.session.receive(bytes, self.now);
        self.listen()
    }

    /// Lets the session work until it waits for something.
    pub(crate) fn listen(&mut self) -> String {
        let mut heard = Vec::new();
        loop {
            while let Some(bytes) = self.session.poll_send() {
                heard.extend(bytes);
            }
            match self.session.poll_event() {
                Some(SessionEvent::Open { .. }) => self.session.opened(Opened::Account(self.account.clone())),
                Some(SessionEvent::Close) => self.closed = true,
                Some(event) => panic!("no socket for {event:?}"),
                None if self.session.has_work() => self.session.work(self.now),
                None => return String::from_utf8(heard).unwrap(),
            }
        }
    }

    /// Tells the session that the replica committed.
    pub(crate) fn changed(&mut self) -> String {
        self.session.changed();
        self.listen()
    }

    /// Lets time pass.
    pub(crate) fn wait(&mut self, time: Duration) -> String {
        self.now += time;
        while self.session.poll_timeout().is_some_and(|at| at <= self.now) {
            self.session.handle_timeout(self.now);
        }
        self.listen()
    }
}
