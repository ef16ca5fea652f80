//! Thunderbird, driven through its Marionette port: what its message lists show, while two servers part and meet.

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::merge::{Pair, STORE, heal, two_replicas};
use crate::relay::Relay;
use crate::server::Server;
use crate::session::{MAILBOXES, id, message};
use crate::support::{World, until};

/// How long a script may take: a first start on a busy machine takes several seconds.
const PATIENCE: Duration = Duration::from_secs(90);

/// What Thunderbird keeps of a message: its UID, and by that the Message-ID and whether it is flagged.
type List = BTreeMap<u64, (String, bool)>;

/// A Thunderbird without a window, with one IMAP account.
struct Thunderbird {
    process: Child,
    marionette: BufReader<TcpStream>,
    relay: Relay,
    _profile: TempDir,
}

impl Thunderbird {
    fn start(server: &Server, condstore: bool) -> Thunderbird {
        let profile = TempDir::new().unwrap();
        let free = TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).unwrap();
        let preferences = [
            ("marionette.port", json!(free.port())),
            ("mail.provider.suppress_dialog_on_startup", json!(true)),
            ("mail.shell.checkDefaultClient", json!(false)),
            ("mailnews.start_page.enabled", json!(false)),
            ("datareporting.policy.dataSubmissionEnabled", json!(false)),
            ("app.update.enabled", json!(false)),
            ("mail.server.default.use_condstore", json!(condstore)),
        ];
        let lines = preferences.map(|(name, value)| format!("user_pref({name:?}, {value});\n"));
        fs::write(profile.path().join("user.js"), lines.concat()).unwrap();
        let process = Command::new("thunderbird")
            .args(["--headless", "--marionette", "-remote-allow-system-access", "--no-remote", "--profile"])
            .arg(profile.path())
            .env("HOME", profile.path())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut marionette = None;
        until("Thunderbird to listen", || {
            marionette = TcpStream::connect(free).ok();
            marionette.is_some()
        });
        let marionette = marionette.expect("it was just reached");
        marionette.set_read_timeout(Some(PATIENCE)).unwrap();
        let marionette = BufReader::new(marionette);
        let mut client = Thunderbird { process, marionette, relay: Relay::new(), _profile: profile };
        client.answer();
        client.call("WebDriver:NewSession", json!({ "capabilities": {} }));
        client.call("WebDriver:SetTimeouts", json!({ "script": PATIENCE.as_millis() as u64 }));
        client.call("Marionette:SetContext", json!({ "value": "chrome" }));
        client.relay.lead_to(&server.address);
        let account = json!([client.relay.port, server.user, server.password]);
        client.script(
            r#"
            const [port, user, password] = args;
            const server = MailServices.accounts.createIncomingServer(user, "127.0.0.1", "imap");
            server.port = port; server.socketType = 0; server.authMethod = 3; server.password = password;
            const login = Cc["@mozilla.org/login-manager/loginInfo;1"].createInstance(Ci.nsILoginInfo);
            login.init("imap://127.0.0.1", null, "imap://127.0.0.1", user, password, "", "");
            await Services.logins.addLoginAsync(login);
            const account = MailServices.accounts.createAccount();
            const identity = MailServices.accounts.createIdentity();
            identity.email = user + "@example.org";
            account.addIdentity(identity);
            account.incomingServer = server;
            server.valid = true;
            "#,
            account,
        );
        client
    }

    /// Opens a mailbox as a person does, and gives what its list shows then.
    fn list(&mut self, mailbox: &str) -> List {
        let shown = self.script(
            r#"
            const server = MailServices.accounts.findServer("tester", "127.0.0.1", "imap");
            const folder = server.rootFolder.subFolders.find(one =>
                one.QueryInterface(Ci.nsIMsgImapMailFolder).onlineName === args[0]);
            try {
                await new Promise(done => folder.QueryInterface(Ci.nsIMsgImapMailFolder).updateFolderWithListener(
                    null, { OnStartRunningUrl() {}, OnStopRunningUrl() { done(); } }));
            } catch (error) {
                // There is no such folder, or it is not open, before the server was asked what there is.
                server.performExpand(null);
                await new Promise(done => setTimeout(done, 300));
                return [];
            }
            return [...folder.messages].map(one => [one.messageKey, one.messageId, Boolean(one.flags & 4)]);
            "#,
            json!([utf8(mailbox)]),
        );
        let rows = shown.as_array().unwrap().iter();
        rows.map(|row| (row[0].as_u64().unwrap(), (row[1].as_str().unwrap().to_owned(), row[2] == true)))
            .collect()
    }

    /// Marks a message as a person does.
    fn flag(&mut self, mailbox: &str, id: &str) {
        self.script(
            r#"
            const root = MailServices.accounts.accounts[0].incomingServer.rootFolder;
            const folder = root.subFolders.find(one =>
                one.QueryInterface(Ci.nsIMsgImapMailFolder).onlineName === args[0]);
            folder.markMessagesFlagged([...folder.messages].filter(one => one.messageId === args[1]), true);
            "#,
            json!([utf8(mailbox), id.trim_matches(['<', '>'])]),
        );
    }

    /// Meets another server from now on, and cannot know.
    fn roam(&mut self, server: &Server) {
        self.relay.lead_to(&server.address);
        let close = "MailServices.accounts.accounts[0].incomingServer.closeCachedConnections();";
        self.script(close, json!([]));
    }

    /// Runs a script with all rights, which may wait and return something.
    #[track_caller]
    fn script(&mut self, body: &str, args: Value) -> Value {
        let script = format!(
            r#"const done = arguments[1]; const args = arguments[0];
            const {{ setTimeout }} = ChromeUtils.importESModule("resource://gre/modules/Timer.sys.mjs");
            const {{ MailServices }} = ChromeUtils.importESModule("resource:///modules/MailServices.sys.mjs");
            (async () => {{ {body} }})().then(value => done([value ?? null]), error => done(String(error)));"#
        );
        let answer = self.call("WebDriver:ExecuteAsyncScript", json!({ "script": script, "args": [args] }));
        assert!(answer["value"].is_array(), "{answer}");
        answer["value"][0].clone()
    }

    #[track_caller]
    fn call(&mut self, command: &str, parameters: Value) -> Value {
        let message = json!([0, 1, command, parameters]).to_string();
        write!(self.marionette.get_mut(), "{}:{message}", message.len()).unwrap();
        let answer = self.answer();
        assert!(answer[2].is_null(), "{command}: {answer}");
        answer[3].clone()
    }

    /// A message of Marionette: its length, a colon, JSON.
    fn answer(&mut self) -> Value {
        let mut length = 0;
        loop {
            let mut byte = [0];
            self.marionette.read_exact(&mut byte).unwrap();
            match byte[0] {
                b':' => break,
                digit => length = length * 10 + usize::from(digit - b'0'),
            }
        }
        let mut message = vec![0; length];
        self.marionette.read_exact(&mut message).unwrap();
        serde_json::from_slice(&message).unwrap()
    }
}

impl Drop for Thunderbird {
    fn drop(&mut self) {
        // Its profile goes with it, so nothing is there to be saved.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// A mailbox's name as Thunderbird and the program have it.
fn utf8(mailbox: &str) -> &str {
    if mailbox.starts_with("Entw") { "Entwürfe" } else { mailbox }
}

/// What a store shows, asked without IMAP.
fn shown(world: &World, mailbox: &str) -> List {
    let rows = world.json(STORE, &["messages", utf8(mailbox), "--json"]);
    let row = |row: &Value| {
        let body = world.ok(STORE, &["body", row["entry"].as_str().unwrap()]);
        let id = crate::imap::message_id(&body).trim_matches(['<', '>']).to_owned();
        let flags = row["flags"].as_array().unwrap();
        (row["uid"].as_u64().unwrap(), (id, flags.iter().any(|flag| flag == "\\Flagged")))
    };
    rows.as_array().unwrap().iter().map(row).collect()
}

/// Thunderbird may need another look: what it hears while it is idle it takes in when it gets to it.
#[track_caller]
fn same(client: &mut Thunderbird, world: &World) {
    for mailbox in MAILBOXES {
        let (mut left, mut right) = (List::new(), List::new());
        for _ in 0..60 {
            (left, right) = (client.list(mailbox), shown(world, mailbox));
            if left == right {
                break;
            }
        }
        assert_eq!(left, right, "{mailbox}: Thunderbird left, store right");
    }
}

fn across_a_merge(condstore: bool) {
    let pair = two_replicas();
    let Pair { alpha: here, beta: there, .. } = &pair;
    for mailbox in ["Work", "Entwürfe"] {
        here.ok(STORE, &["mailbox", "subscribe", mailbox]);
    }
    heal(&pair);
    let alpha = Server::postmerge(here, STORE);
    let mut client = Thunderbird::start(&alpha, condstore);
    same(&mut client, here);

    // Apart: both give the next UID of INBOX to a message of their own.
    for n in 0..3 {
        here.run_with(STORE, &["append", "INBOX"], message(&format!("at-alpha-{n}")).as_bytes()).ok();
        there.run_with(STORE, &["append", "INBOX"], message(&format!("at-beta-{n}")).as_bytes()).ok();
    }
    client.flag("INBOX", &id("inbox-1"));
    until("the flag to arrive", || shown(here, "INBOX").values().any(|(_, flagged)| *flagged));
    same(&mut client, here);

    // Over to the other server in the middle of the split, with the cache of the first.
    let beta = Server::postmerge(there, STORE);
    client.roam(&beta);
    drop(alpha);
    same(&mut client, there);
    drop(beta);

    heal(&pair);
    for world in [here, there] {
        let server = Server::postmerge(world, STORE);
        client.roam(&server);
        same(&mut client, world);
    }
}

#[test]
#[ignore = "needs thunderbird"]
fn thunderbird_across_a_merge() {
    across_a_merge(false);
}

#[test]
#[ignore = "needs thunderbird"]
fn thunderbird_with_condstore_across_a_merge() {
    across_a_merge(true);
}
