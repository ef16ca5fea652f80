//! A client that keeps a cache, believes every line that it is told, and fails the test where a line cannot be true.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::RangeInclusive;

use postmerge_imap::Account;

use crate::client::Client;
use crate::peer::Peer;

/// What the client keeps of a message.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Kept {
    /// Nothing before they were told.
    pub(crate) flags: Option<BTreeSet<String>>,
    modseq: u64,
}

/// What such a client talks over.
pub(crate) trait Talk {
    /// Sends commands with the tag `t`, or the end of one, and gives what is said up to as many tagged answers, or up to `+`
    /// where none is expected. More may be said later.
    fn say(&mut self, bytes: &[u8], answers: usize) -> String;
}

impl Talk for Client {
    fn say(&mut self, bytes: &[u8], _: usize) -> String {
        self.say_bytes(bytes)
    }
}

/// A client with a mailbox selected.
pub(crate) struct Strict<T = Client> {
    pub(crate) talk: T,
    mailbox: String,
    qresync: bool,
    /// The UID behind each sequence number, where it was told.
    told: Vec<Option<u32>>,
    pub(crate) cache: BTreeMap<u32, Kept>,
    validity: u32,
    /// EMAILID and text by UID, for ever: no UID may ever mean another message, at no server.
    met: BTreeMap<u32, (String, String)>,
    /// UIDs that this server took away.
    gone: BTreeSet<u32>,
    /// No message appears below this UID: the UIDNEXT of the last SELECT, once all that was there is known.
    promise: u32,
    uid_next: u32,
    /// The mod-sequence up to which the client knows everything.
    pub(crate) highest: u64,
    /// The highest mod-sequence told of a message.
    newest: u64,
    /// Whether VANISHED (EARLIER) may come.
    earlier: bool,
    pub(crate) idle: bool,
}

impl Strict {
    /// With INBOX selected.
    pub(crate) fn login(account: &Account, qresync: bool) -> Strict {
        Strict::start(Client::login(account), "INBOX", qresync)
    }

    /// Goes on at another server, with all that it knows.
    pub(crate) fn roam(&mut self, account: &Account) {
        self.wake();
        self.talk = Client::login(account);
        // These are promises of one server.
        (self.promise, self.uid_next) = (0, 0);
        self.gone.clear();
        self.cache.values_mut().for_each(|kept| kept.modseq = 0);
        self.enable();
        self.select();
    }

    /// Several commands in one write, with something happening after the first step of work. They name messages by
    /// sequence numbers, so none may go before the last one, which is a NOOP of its own.
    pub(crate) fn pipeline(&mut self, commands: &[String], meanwhile: impl FnOnce()) {
        self.talk.session.receive(pipelined(commands).as_bytes(), self.talk.now);
        let mut heard = self.talk.step().unwrap();
        meanwhile();
        self.talk.session.changed();
        while let Some(more) = self.talk.step() {
            heard += &more;
        }
        self.hear_pipeline(commands, &heard);
    }

    /// What an idle client is told when the replica commits; another one is told later. Gives the lines.
    pub(crate) fn changed(&mut self) -> Vec<String> {
        let heard = self.talk.changed();
        assert!(self.idle || heard.is_empty(), "nobody asked, and was told {heard}");
        self.hear(&heard, true)
    }
}

fn pipelined(commands: &[String]) -> String {
    format!("{}\r\nt NOOP\r\n", commands.join("\r\n"))
}

impl<T: Talk> Strict<T> {
    /// Takes a connection that is logged in.
    pub(crate) fn start(talk: T, mailbox: &str, qresync: bool) -> Strict<T> {
        let mut client = Strict {
            talk,
            mailbox: mailbox.to_owned(),
            qresync,
            told: Vec::new(),
            cache: BTreeMap::new(),
            validity: 0,
            met: BTreeMap::new(),
            gone: BTreeSet::new(),
            promise: 0,
            uid_next: 0,
            highest: 0,
            newest: 0,
            earlier: false,
            idle: false,
        };
        client.enable();
        client.select();
        client
    }

    /// Before anything is selected, so that it brings no news.
    fn enable(&mut self) {
        if self.qresync {
            let done = self.command("ENABLE QRESYNC", false);
            assert!(done.starts_with("OK"), "{done}");
        }
    }

    /// Selects the mailbox, first or again, and takes in what is new there. Gives what was told of messages.
    pub(crate) fn select(&mut self) -> Vec<String> {
        self.wake();
        self.told.clear();
        let mut select = format!("SELECT {}", self.mailbox);
        if self.qresync && !self.cache.is_empty() {
            let uids: Vec<String> = self.cache.keys().map(u32::to_string).collect();
            select += &format!(" (QRESYNC ({} {} {}))", self.validity, self.highest, uids.join(","));
        } else if !self.qresync {
            // It learns from the FETCH below.
            self.cache.clear();
        }
        (self.earlier, self.newest) = (true, 0);
        let resync = select.contains("(QRESYNC");
        let heard = self.talk.say(format!("t {select}\r\n").as_bytes(), 1);
        let lines = self.hear(&heard, false);
        assert!(lines.iter().any(|line| line.starts_with("t OK")), "{select}: {heard}");
        self.earlier = false;
        if resync {
            let kept = self.cache.len();
            assert!(kept <= self.told.len(), "{kept} are kept of {}: {heard}", self.told.len());
            if kept == self.told.len() {
                let known: Vec<Option<u32>> = self.cache.keys().copied().map(Some).collect();
                let fits = self.told.iter().zip(&known).all(|(told, known)| told.is_none() || told == known);
                assert!(fits, "{:?} is not {known:?}: {heard}", self.told);
                self.told = known;
            }
        }
        let next = self.uid_next;
        self.look();
        self.promise = next;
        lines
    }

    /// Fetches what it does not know yet, until nothing more came meanwhile.
    pub(crate) fn look(&mut self) {
        const ROUNDS: u32 = 1000;
        for _ in 0..ROUNDS {
            let new = |(uid, kept): (&u32, &Kept)| {
                (kept.flags.is_none() || !self.met.contains_key(uid)).then(|| uid.to_string())
            };
            let new: Vec<String> = self.cache.iter().filter_map(new).collect();
            let command = match (self.told.contains(&None), &new[..]) {
                (true, _) => "UID FETCH 1:* (UID)".to_owned(),
                (false, []) => return,
                (false, new) => format!("UID FETCH {} (FLAGS EMAILID BODY.PEEK[])", new.join(",")),
            };
            let done = self.command(&command, true);
            // A body may be on its way.
            assert!(done.starts_with("OK") || done.starts_with("NO [UNAVAILABLE]"), "{done}");
        }
        panic!("it never knows all of {:?}", self.told);
    }

    /// A command, and its tagged answer without the tag. `expunges` says whether messages may go while it runs.
    pub(crate) fn command(&mut self, command: &str, expunges: bool) -> String {
        let heard = self.talk.say(format!("t {command}\r\n").as_bytes(), 1);
        let lines = self.hear(&heard, expunges);
        let done = lines.last().and_then(|line| line.strip_prefix("t "));
        done.unwrap_or_else(|| panic!("{command}: {heard}")).to_owned()
    }

    /// Several commands in one write, as [`Strict::pipeline`] has them.
    pub(crate) fn pipeline_at_once(&mut self, commands: &[String]) {
        let heard = self.talk.say(pipelined(commands).as_bytes(), commands.len() + 1);
        self.hear_pipeline(commands, &heard);
    }

    fn hear_pipeline(&mut self, commands: &[String], heard: &str) {
        let mut left = commands.len();
        for response in responses(heard) {
            self.take(&response, left == 0);
            left -= usize::from(left > 0 && response.starts_with("t "));
        }
        assert_eq!(left, 0, "{commands:?}: {heard}");
    }

    /// STORE without an answer: the cache is changed as the client means it, then what comes is heard.
    pub(crate) fn store_silent(&mut self, seq: u32, add: bool, flag: &str) {
        let kept = self.told[seq as usize - 1].and_then(|uid| self.cache.get_mut(&uid));
        if let Some(flags) = kept.and_then(|kept| kept.flags.as_mut()) {
            match add {
                true => flags.insert(flag.to_owned()),
                false => flags.remove(flag),
            };
        }
        let sign = if add { '+' } else { '-' };
        self.command(&format!("STORE {seq} {sign}FLAGS.SILENT ({flag})"), false);
    }

    /// Begins to IDLE.
    pub(crate) fn sleep(&mut self) {
        let heard = self.talk.say(b"t IDLE\r\n", 0);
        self.hear(&heard, true);
        self.idle = true;
    }

    /// Ends IDLE, and fetches what came meanwhile.
    pub(crate) fn wake(&mut self) {
        if std::mem::take(&mut self.idle) {
            let heard = self.talk.say(b"DONE\r\n", 1);
            self.hear(&heard, true);
            self.look();
        }
    }

    /// How many messages it counts.
    pub(crate) fn exists(&self) -> u32 {
        self.told.len() as u32
    }

    /// The UID behind a sequence number.
    pub(crate) fn uid(&self, seq: u32) -> u32 {
        self.told[seq as usize - 1].expect("all are known between commands")
    }

    /// The text of a message.
    pub(crate) fn text(&self, uid: u32) -> &str {
        &self.met[&uid].1
    }

    /// Lets it learn everything and compares that with what the replica has.
    pub(crate) fn verify(&mut self, peer: &Peer) {
        self.wake();
        self.command("NOOP", true);
        self.look();
        self.highest = self.highest.max(self.newest);
        let shown: BTreeMap<u32, (Option<BTreeSet<String>>, String)> = peer
            .shown(&self.mailbox)
            .into_iter()
            .map(|message| {
                let mut text = String::new();
                let mut body = peer.replica.open_body(message.blob, 0).unwrap();
                std::io::Read::read_to_string(&mut body, &mut text).unwrap();
                let flags = message.keywords.iter().map(|keyword| keyword.to_string()).collect();
                (message.uid.value(), (Some(flags), text))
            })
            .collect();
        let known: BTreeMap<u32, (Option<BTreeSet<String>>, String)> = self
            .cache
            .iter()
            .map(|(uid, kept)| (*uid, (kept.flags.clone(), self.met.get(uid).cloned().unwrap_or_default().1)))
            .collect();
        assert_eq!(known, shown);
        assert_eq!(
            self.told.iter().flatten().copied().collect::<Vec<_>>(),
            Vec::from_iter(shown.into_keys())
        );
    }

    /// Takes in what was said and gives the lines.
    pub(crate) fn hear(&mut self, heard: &str, expunges: bool) -> Vec<String> {
        let lines = responses(heard);
        lines.iter().for_each(|line| self.take(line, expunges));
        lines
    }

    fn take(&mut self, line: &str, expunges: bool) {
        let words: Vec<&str> = line.split(' ').collect();
        match words[..] {
            ["*", count, "EXISTS"] => {
                let count: usize = count.parse().unwrap();
                assert!(count >= self.told.len(), "{line} after {}", self.told.len());
                self.told.resize(count, None);
            }
            ["*", seq, "EXPUNGE"] => {
                assert!(expunges && !self.qresync, "{line} at a wrong time");
                let seq: usize = seq.parse().unwrap();
                assert!((1..=self.told.len()).contains(&seq), "{line} of {}", self.told.len());
                let uid = self.told.remove(seq - 1);
                self.forget(uid);
            }
            ["*", "VANISHED", "(EARLIER)", set] => {
                assert!(self.earlier, "{line} at a wrong time");
                let ranges = ranges(set);
                let counted = self.told.iter().flatten().find(|uid| ranges.iter().any(|r| r.contains(*uid)));
                assert_eq!(counted, None, "{line} names a message with a number");
                self.cache.retain(|uid, _| !ranges.iter().any(|range| range.contains(uid)));
            }
            ["*", "VANISHED", set] => {
                assert!(expunges && self.qresync, "{line} at a wrong time");
                for uid in ranges(set).into_iter().flatten() {
                    let known = self.told.iter().position(|told| *told == Some(uid));
                    let at = known.or_else(|| self.told.iter().position(Option::is_none));
                    self.told.remove(at.unwrap_or_else(|| panic!("{line} names what is not there")));
                    self.forget(Some(uid));
                }
            }
            ["*", seq, "FETCH", ..] => {
                let seq = seq.parse().unwrap();
                self.take_fetch(seq, line);
            }
            ["*", "BYE", ..] => panic!("{line}"),
            _ => self.take_code(line),
        }
    }

    fn take_code(&mut self, line: &str) {
        if let Some(validity) = number_after(line, "[UIDVALIDITY ") {
            assert!([0, validity as u32].contains(&self.validity), "{line} after {}", self.validity);
            self.validity = validity as u32;
        }
        if let Some(next) = number_after(line, "[UIDNEXT ") {
            assert!(next as u32 >= self.uid_next, "{line} after {}", self.uid_next);
            self.uid_next = next as u32;
        }
        if let Some(highest) = number_after(line, "[HIGHESTMODSEQ ") {
            self.highest = highest;
        }
    }

    fn take_fetch(&mut self, seq: usize, line: &str) {
        assert!((1..=self.told.len()).contains(&seq), "{line} of {}", self.told.len());
        let (items, text) = match line.split_once(" BODY[] {") {
            Some((items, literal)) => {
                let (_, text) = literal.split_once("\r\n").unwrap();
                (items, text.strip_suffix(')'))
            }
            None => (line, None),
        };
        if let Some(uid) = number_after(items, "UID ").map(|uid| uid as u32) {
            let told = *self.told[seq - 1].get_or_insert(uid);
            assert_eq!(told, uid, "{line}");
            let below = self.told[..seq - 1].iter().flatten().all(|other| *other < uid);
            let above = self.told[seq..].iter().flatten().all(|other| *other > uid);
            assert!(below && above, "{line} is out of order in {:?}", self.told);
            assert!(!self.gone.contains(&uid), "{line} came back");
            assert!(self.met.contains_key(&uid) || uid >= self.promise, "{line} is below {}", self.promise);
        }
        // Flags of a message whose UID was never told are of no use; it will be asked for.
        let Some(uid) = self.told[seq - 1] else { return };
        let kept = self.cache.entry(uid).or_default();
        if let Some(modseq) = number_after(items, "MODSEQ (") {
            assert!(modseq >= kept.modseq, "{line} after {}", kept.modseq);
            kept.modseq = modseq;
            self.newest = self.newest.max(modseq);
        }
        if let Some(flags) = list_after(items, "FLAGS (") {
            kept.flags = Some(flags.split(' ').filter(|flag| !flag.is_empty()).map(str::to_owned).collect());
        }
        if let (Some(id), Some(text)) = (list_after(items, "EMAILID ("), text) {
            let met = self.met.entry(uid).or_insert_with(|| (id.to_owned(), text.to_owned()));
            assert_eq!((&*met.0, &*met.1), (id, text), "UID {uid} means two messages");
        }
    }

    fn forget(&mut self, uid: Option<u32>) {
        if let Some(uid) = uid {
            self.cache.remove(&uid);
            self.gone.insert(uid);
        }
    }
}

/// The responses in what a server said, without their ends; literals stay within.
fn responses(heard: &str) -> Vec<String> {
    let (mut all, mut from, mut at) = (Vec::new(), 0, 0);
    while let Some(end) = heard[at..].find("\r\n").map(|end| at + end) {
        let literal = heard[at..end].strip_suffix('}').and_then(|line| line.rsplit_once('{'));
        at = end + 2;
        match literal.and_then(|(_, length)| length.parse::<usize>().ok()) {
            Some(length) => at += length,
            None => {
                all.push(heard[from..end].to_owned());
                from = at;
            }
        }
    }
    assert_eq!(&heard[from..], "", "a response without an end");
    all
}

fn number_after(text: &str, name: &str) -> Option<u64> {
    let (_, rest) = text.split_once(name)?;
    rest[..rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len())].parse().ok()
}

fn list_after<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    Some(text.split_once(name)?.1.split_once(')')?.0)
}

fn ranges(set: &str) -> Vec<RangeInclusive<u32>> {
    let range = |part: &str| {
        let (first, last) = part.split_once(':').unwrap_or((part, part));
        first.parse().unwrap()..=last.parse().unwrap()
    };
    set.split(',').map(range).collect()
}
