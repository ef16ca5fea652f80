//! What a service manager and the daemon say to each other: notices, SIGHUP, SIGTERM.

use std::io::{BufRead, BufReader, Write};
use std::net::TcpStream;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::process::{Child, Stdio};
use std::time::Duration;

use rustix::process::Signal;
use serde_json::json;

use crate::support::{World, signal};

/// Longest wait for a datagram; a loaded machine needs a fraction.
const PATIENCE: Duration = Duration::from_secs(60);

/// A manager that has started a daemon.
struct Manager {
    socket: UnixDatagram,
    daemon: Child,
}

impl Manager {
    fn start(world: &World, arguments: &[&str], socket: UnixDatagram, name: &str) -> Manager {
        let mut command = world.command("a", &[&["serve"], arguments].concat());
        command.env("NOTIFY_SOCKET", name).stdin(Stdio::null()).stderr(Stdio::piped());
        let daemon = command.spawn().unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        Manager { socket, daemon }
    }

    /// One that listens at a path.
    fn at_path(world: &World, arguments: &[&str]) -> Manager {
        let path = world.path("notify");
        let socket = UnixDatagram::bind(&path).unwrap();
        Manager::start(world, arguments, socket, path.to_str().unwrap())
    }

    /// The next notice, as it came.
    #[track_caller]
    fn notice(&self) -> String {
        let mut buffer = [0; 4096];
        let count = self.socket.recv(&mut buffer).unwrap();
        std::str::from_utf8(&buffer[..count]).unwrap().to_owned()
    }

    /// Waits until it is ready; gives what it says of its state.
    #[track_caller]
    fn ready(&self) -> String {
        let notice = self.notice();
        notice.strip_prefix("READY=1\nSTATUS=").unwrap_or_else(|| panic!("{notice:?}")).to_owned()
    }

    fn signal(&self, which: Signal) {
        signal(self.daemon.id(), which);
    }

    /// Has it reload; gives what it says of its state then.
    #[track_caller]
    fn reload(&self) -> String {
        self.signal(Signal::HUP);
        let notice = self.notice();
        let micros = notice.strip_prefix("RELOADING=1\nMONOTONIC_USEC=");
        let micros = micros.and_then(|rest| rest.lines().next()?.parse::<u64>().ok());
        let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
        let now = u64::try_from(now.tv_sec * 1_000_000 + now.tv_nsec / 1000).unwrap();
        assert!(micros.is_some_and(|micros| micros <= now && micros > now - 60_000_000), "{notice:?}");
        self.ready()
    }

    /// Waits for its end; gives the exit code and what it said on standard error.
    fn end(mut self) -> (Option<i32>, String) {
        let said = std::io::read_to_string(self.daemon.stderr.take().unwrap()).unwrap();
        (self.daemon.wait().unwrap().code(), said)
    }
}

impl Drop for Manager {
    fn drop(&mut self) {
        let _ = self.daemon.kill();
        let _ = self.daemon.wait();
    }
}

/// What a manager is told, from the beginning to the end.
#[track_caller]
fn lifecycle(world: &World, manager: Manager) {
    assert_eq!(manager.ready(), "serving 1 account offline");
    assert_eq!(world.run("a", &["status"]).code, 0, "ready is ready");
    manager.signal(Signal::TERM);
    assert_eq!(manager.notice(), "STOPPING=1\nSTATUS=ending conversations");
    assert_eq!(manager.end().0, Some(0));
}

#[test]
fn a_manager_hears_when_all_is_ready_and_when_it_ends() {
    let world = World::new();
    world.ok("a", &["init"]);
    lifecycle(&world, Manager::at_path(&world, &["--offline"]));
    // Names of abstract sockets are shared by the whole machine.
    let name = format!("postmerge-test-{}", std::process::id());
    let socket = UnixDatagram::bind_addr(&SocketAddr::from_abstract_name(&name).unwrap()).unwrap();
    lifecycle(&world, Manager::start(&world, &["--offline"], socket, &format!("@{name}")));
}

#[test]
fn a_manager_that_cannot_be_told_keeps_nobody_from_serving() {
    let world = World::new();
    world.ok("a", &["init"]);
    for name in [world.path("nobody").to_str().unwrap(), "vsock:2:1234", "@"] {
        let socket = UnixDatagram::unbound().unwrap();
        let manager = Manager::start(&world, &["--offline"], socket, name);
        crate::support::until("the daemon", || world.run("a", &["status"]).code == 0);
        manager.signal(Signal::TERM);
        let (code, said) = manager.end();
        assert_eq!(code, Some(0), "{said}");
        assert!(said.contains("service manager"), "{said}");
    }
}

#[test]
fn a_watchdog_is_fed_if_it_is_meant_for_this_process() {
    let world = World::new();
    world.ok("a", &["init"]);
    let path = world.path("notify");
    let socket = UnixDatagram::bind(&path).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    let start = |watchdog_pid: Option<&str>| {
        let mut command = world.command("a", &["serve", "--offline"]);
        command.env("NOTIFY_SOCKET", &path).env("WATCHDOG_USEC", "20000");
        watchdog_pid.map(|pid| command.env("WATCHDOG_PID", pid));
        command.stderr(Stdio::piped()).spawn().unwrap()
    };
    let manager = Manager { daemon: start(None), socket };
    manager.ready();
    for _ in 0..3 {
        assert_eq!(manager.notice(), "WATCHDOG=1");
    }
    manager.signal(Signal::TERM);
    while manager.notice() == "WATCHDOG=1" {}
    let socket = manager.socket.try_clone().unwrap();
    assert_eq!(manager.end().0, Some(0));
    // The variables of a parent.
    let manager = Manager { daemon: start(Some("1")), socket };
    manager.ready();
    manager.reload();
    manager.signal(Signal::TERM);
    assert!(manager.notice().starts_with("STOPPING=1"));
}

/// A certificate and its key in files of this world.
fn write_certificate(world: &World) {
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    std::fs::write(world.path("chain.pem"), made.cert.pem()).unwrap();
    std::fs::write(world.path("key.pem"), made.signing_key.serialize_pem()).unwrap();
}

fn addresses(world: &World) -> serde_json::Value {
    world.json("a", &["peers", "--json"])[0]["addresses"].clone()
}

#[test]
fn a_reload_takes_up_what_it_can_and_says_what_waits() {
    let world = World::new();
    world.ok("a", &["init"]);
    std::fs::create_dir_all(world.path("config/postmerge")).unwrap();
    let configure = |text: &str| std::fs::write(world.path("config/postmerge/config.toml"), text).unwrap();
    configure("addresses = [\"one.example:1\"]\n");
    let manager = Manager::at_path(&world, &["--listen", "127.0.0.1:0"]);
    manager.ready();
    assert_eq!(addresses(&world), json!(["one.example:1"]));

    configure("addresses = [\"two.example:2\"]\nlog = \"postmerge=debug\"\n");
    assert!(manager.reload().ends_with("; read the configuration again"));
    assert_eq!(addresses(&world), json!(["two.example:2"]));
    // Commands that run inside the daemon go by the new one too.
    world.ok("a", &["invite"]);
    assert_eq!(addresses(&world), json!(["two.example:2"]));

    configure("addresses = [\"two.example:2\"]\nmetrics = \"127.0.0.1:0\"\nimaps = \"127.0.0.1:0\"\n");
    assert!(manager.reload().ends_with("; a restart takes up the new imaps, metrics"));
    manager.signal(Signal::TERM);
    assert_eq!(manager.end().0, Some(0));
}

#[test]
fn a_configuration_that_cannot_be_used_changes_nothing() {
    let world = World::new();
    world.ok("a", &["init"]);
    write_certificate(&world);
    // The daemon's alone: other commands would refuse to run with what comes.
    let file = world.path("daemon.toml");
    let good = "addresses = [\"one.example:1\"]\nimaps = \"127.0.0.1:0\"\ntls_cert = \"chain.pem\"\ntls_key = \"key.pem\"\n";
    std::fs::write(&file, good).unwrap();
    let manager = Manager::at_path(&world, &["--config", "daemon.toml", "--listen", "127.0.0.1:0"]);
    manager.ready();

    // Each also says something that could be taken up.
    let other = good.replace("one.example", "two.example");
    for (bad, why) in [
        (other.replace("imaps", "imasp"), "unknown field `imasp`"),
        (other.replace("chain.pem", "gone.pem"), "cannot read gone.pem"),
        (other.replace("tls_key", "# tls_key"), "go together"),
        (format!("{other}log = \"=\"\n"), "names no events"),
        (other.replace(":1\"", "\""), "is not HOST:PORT"),
    ] {
        std::fs::write(&file, &bad).unwrap();
        let state = manager.reload();
        assert!(state.contains("; the configuration cannot be used: "), "{bad}: {state}");
        assert_eq!(addresses(&world), json!(["one.example:1"]), "{why}");
    }
    // The file of the certificate may be what is broken.
    std::fs::write(&file, &other).unwrap();
    std::fs::write(world.path("key.pem"), "").unwrap();
    assert!(manager.reload().contains("holds no private key"));
    write_certificate(&world);
    assert!(manager.reload().ends_with("; read the configuration again"));
    assert_eq!(addresses(&world), json!(["two.example:1"]));
    manager.signal(Signal::TERM);
    let (code, said) = manager.end();
    assert_eq!(code, Some(0));
    for why in [
        "unknown field `imasp`",
        "cannot read gone.pem",
        "go together",
        "names no events",
        "is not HOST:PORT",
    ] {
        assert!(said.contains(why), "{why} is not in {said}");
    }
    assert!(said.contains("keeping the configuration as it was"), "{said}");
}

#[test]
fn clients_are_told_of_the_end() {
    let world = World::new();
    world.ok("a", &["init"]);
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let serve = world.serve("a", &["--offline", "--imap", &format!("127.0.0.1:{port}")]);
    let mut client = BufReader::new(TcpStream::connect(("127.0.0.1", port)).unwrap());
    let mut line = String::new();
    client.read_line(&mut line).unwrap();
    assert!(line.starts_with("* OK"), "{line}");
    assert_eq!(serve.stop(), Some(0));
    line.clear();
    client.read_line(&mut line).unwrap();
    assert!(line.starts_with("* BYE"), "{line}");
}

#[test]
fn a_second_signal_ends_it_at_once() {
    let world = World::new();
    world.ok("a", &["init"]);
    world.append("a", "INBOX", "Subject: confirmed\n\n");
    for (second, code) in [(Signal::TERM, 1), (Signal::INT, 130)] {
        let manager = Manager::at_path(&world, &["--offline"]);
        manager.ready();
        // A command that waits for its input is waited for, a while.
        let mut command = world.command("a", &["append", "INBOX"]);
        let mut waiting = command.stdin(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
        // More than fits into a pipe: once it is taken, the command runs in the daemon.
        let mut input = waiting.stdin.take().unwrap();
        input.write_all(&vec![b'x'; 1 << 20]).unwrap();
        manager.signal(Signal::TERM);
        assert!(manager.notice().starts_with("STOPPING=1"));
        manager.signal(second);
        let (ended, said) = manager.end();
        assert_eq!(ended, Some(code), "{said}");
        assert!(said.contains("stopped before everything had come to its end"), "{said}");
        std::fs::remove_file(world.path("notify")).unwrap();
        waiting.kill().unwrap();
        waiting.wait().unwrap();
    }
    let check = world.ok("a", &["check"]);
    assert!(check.starts_with("all is well"), "{check}");
}
