//! What a session offers, and how a client logs in (RFC 9051, sections 6.1 and 6.2).

use std::time::Instant;

use super::done::Done;
use super::{Enabled, Opened, Running, Session, SessionEvent, State};
use crate::auth::{Answer, Failure, Mechanism, Sasl, Step, User, UserName};
use crate::grammar::{Code, CommandBody, Condition, Extension, NameEncoding, Secret, Tag};

/// What every session can.
const ALWAYS: &[&str] = &["IMAP4rev1", "IMAP4rev2", "LITERAL+", "ID", "ENABLE"];
/// What there is once somebody has logged in.
const LOGGED_IN: &[&str] = &[
    "IDLE",
    "NAMESPACE",
    "CHILDREN",
    "LIST-EXTENDED",
    "LIST-STATUS",
    "SPECIAL-USE",
    "CREATE-SPECIAL-USE",
    "UNSELECT",
    "UIDPLUS",
    "MOVE",
    "CONDSTORE",
    "QRESYNC",
    "ESEARCH",
    "SEARCHRES",
    "WITHIN",
    "PARTIAL",
    "SORT",
    "SORT=DISPLAY",
    "ESORT",
    "THREAD=ORDEREDSUBJECT",
    "THREAD=REFERENCES",
    "MULTIAPPEND",
    "CATENATE",
    "REPLACE",
    "BINARY",
    "PREVIEW",
    "STATUS=SIZE",
    "OBJECTID",
    "SAVEDATE",
    "UTF8=ACCEPT",
    "UIDONLY",
];
/// Commands that are none, before login, after which the other side is no mail client.
const MAX_NONSENSE: u32 = 10;

impl Session {
    /// What CAPABILITY says now.
    pub(super) fn capabilities(&self) -> Vec<&'static str> {
        let mut all = ALWAYS.to_vec();
        match self.state {
            State::NotAuthenticated => {
                all.push("SASL-IR");
                all.extend(self.can_start_tls.then_some("STARTTLS"));
                all.extend(self.channel.capabilities());
            }
            _ => {
                all.extend(LOGGED_IN);
                all.extend((!self.compressed).then_some("COMPRESS=DEFLATE"));
            }
        }
        all
    }

    pub(super) fn greet(&mut self) {
        let all = self.capabilities();
        self.out.status(None, Condition::Ok, Some(Code::Capability(&all)), "postmerge is ready");
    }

    /// What a client says before it is known.
    pub(super) fn introduction(&mut self, tag: &Tag, body: CommandBody, now: Instant) -> Done {
        if !matches!(self.state, State::NotAuthenticated) {
            return Done::bad("you are logged in already");
        }
        match body {
            CommandBody::StartTls => self.start_tls(tag),
            CommandBody::Login { user, password } => self.log_in(tag, &user, &password, now),
            CommandBody::Authenticate { mechanism, initial_response } => {
                self.authenticate(tag.clone(), mechanism.name(), initial_response, now)
            }
            _ => Done::bad("log in first"),
        }
    }

    fn start_tls(&mut self, tag: &Tag) -> Done {
        if !self.can_start_tls {
            return Done::bad("TLS cannot be started here");
        }
        self.out.status(Some(tag), Condition::Ok, None, "start the handshake");
        // Whoever sent more in the clear may not be the one who will speak under TLS.
        self.reader.take_input();
        self.events.push_back(SessionEvent::StartTls);
        Done::Answered
    }

    pub(super) fn compress(&mut self, tag: &Tag) -> Done {
        if self.compressed {
            return Done::no(Code::CompressionActive, "it is compressed already");
        }
        self.compressed = true;
        self.out.status(Some(tag), Condition::Ok, None, "deflated from here on");
        self.events.push_back(SessionEvent::Compress { input: self.reader.take_input() });
        Done::Answered
    }

    fn log_in(&mut self, tag: &Tag, user: &[u8], password: &Secret, now: Instant) -> Done {
        if !self.channel.offers_login() {
            return Done::no(Code::PrivacyRequired, "passwords need TLS here");
        }
        if !self.attempts.may_try(now) {
            return Done::bad("wait for the answer to the last attempt");
        }
        let name = std::str::from_utf8(user).ok().and_then(|name| name.parse::<UserName>().ok());
        let known =
            name.and_then(|name| self.settings.authenticator.check_password(&name, password.as_bytes()));
        match known {
            Some(user) => self.open(tag.clone(), user),
            None => {
                let name: String = String::from_utf8_lossy(user).chars().take(100).collect();
                tracing::warn!(?name, "LOGIN failed");
                self.refuse_login(tag, Answer::AuthenticationFailed, "wrong name or password", now)
            }
        }
    }

    fn authenticate(&mut self, tag: Tag, mechanism: &str, initial: Option<Secret>, now: Instant) -> Done {
        if !self.attempts.may_try(now) {
            return Done::bad("wait for the answer to the last attempt");
        }
        let Ok(mechanism) = mechanism.parse::<Mechanism>() else {
            return Done::no(Code::Cannot, "this mechanism is not known here");
        };
        let nonce = (self.settings.nonce)();
        let step = Sasl::start(
            mechanism,
            initial.as_ref().map(Secret::as_bytes),
            &self.channel,
            &self.settings.authenticator,
            nonce,
        );
        self.sasl(tag, step, now)
    }

    /// Takes the client's line in the course of AUTHENTICATE.
    pub(super) fn respond(&mut self, tag: Tag, sasl: Sasl, line: &[u8], now: Instant) -> Done {
        let step = sasl.respond(line, &self.settings.authenticator);
        self.sasl(tag, step, now)
    }

    fn sasl(&mut self, tag: Tag, step: Step, now: Instant) -> Done {
        match step {
            Step::Challenge { line, next } => {
                self.out.challenge(&line);
                self.reader.expect_line();
                self.running = Some(Running::Authenticate(tag, next));
                Done::Runs
            }
            Step::Done(user) => self.open(tag, user),
            Step::Failed(Failure::Cancelled) => Done::bad("cancelled"),
            Step::Failed(failure) => self.refuse_login(&tag, failure.answer(), &failure.to_string(), now),
        }
    }

    /// Answers later, so that guessing takes time.
    fn refuse_login(&mut self, tag: &Tag, answer: Answer, text: &str, now: Instant) -> Done {
        let penalty = self.attempts.failed(now);
        tracing::warn!(text, bye = penalty.bye, "a login failed");
        let code = match answer {
            Answer::Bad | Answer::No => None,
            Answer::AuthenticationFailed => Some(Code::AuthenticationFailed),
            Answer::AuthorizationFailed => Some(Code::AuthorizationFailed),
            Answer::PrivacyRequired => Some(Code::PrivacyRequired),
        };
        let condition = if answer == Answer::Bad { Condition::Bad } else { Condition::No };
        self.out.status(Some(tag), condition, code, text);
        if penalty.bye {
            self.bye(Code::Limit, "too many failed logins");
        }
        // All that was just written is held back until then.
        self.not_before = Some(penalty.answer_at);
        Done::Answered
    }

    fn open(&mut self, tag: Tag, user: User) -> Done {
        self.running = Some(Running::Opening(tag));
        self.events.push_back(SessionEvent::Open { user });
        Done::Runs
    }

    /// What came of opening the account.
    pub fn opened(&mut self, opened: Opened) {
        let Some(Running::Opening(tag)) = self.running.take() else { return };
        match opened {
            Opened::Account(account) => {
                self.state = State::Authenticated(account);
                self.reader.set_limits(self.settings.limits.command);
                let all = self.capabilities();
                self.out.status(Some(&tag), Condition::Ok, Some(Code::Capability(&all)), "logged in");
            }
            Opened::Refused(reason) => {
                tracing::error!(reason, "an account cannot be opened");
                let text = "the account cannot be opened now";
                self.out.status(Some(&tag), Condition::No, Some(Code::Unavailable), text);
            }
        }
        self.look();
    }

    pub(super) fn enable(&mut self, extensions: &[Extension]) -> Done {
        let mut fresh = Vec::new();
        for extension in extensions {
            let Enabled { condstore, qresync, rev2, utf8, uid_only } = &mut self.enabled;
            let flag = match extension {
                Extension::Condstore => condstore,
                Extension::Qresync => qresync,
                Extension::Imap4rev2 => rev2,
                Extension::Utf8Accept => utf8,
                Extension::UidOnly => uid_only,
            };
            if !std::mem::replace(flag, true) {
                fresh.push(*extension);
            }
        }
        // RFC 7162, section 3.2.3.
        self.enabled.condstore |= self.enabled.qresync;
        if self.enabled.rev2 || self.enabled.utf8 {
            self.reader.set_names(NameEncoding::Utf8);
            self.out.set_names(NameEncoding::Utf8);
        }
        self.out.enabled(&fresh);
        Done::ok("enabled")
    }

    /// Before login every line that is no command brings the end nearer.
    pub(super) fn count_nonsense(&mut self) {
        self.nonsense += 1;
        if matches!(self.state, State::NotAuthenticated) && self.nonsense >= MAX_NONSENSE {
            self.bye(Code::ClientBug, "this is an IMAP server");
        }
    }
}
