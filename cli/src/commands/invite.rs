use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::time::Duration;

use clap::Args;
use postmerge::member::{MAX_ADDRESSES, Role};
use postmerge::replica::Invitation;

use crate::config::Config;
use crate::context::{Code, Context};
use crate::endpoint;
use crate::failure::Usage;
use crate::text;

/// Prints a ticket with which one replica can join, once, while this one is served.
#[derive(Args)]
pub(crate) struct Invite {
    /// What the guest will do: a server assigns UIDs, an observer changes mail without that, a reader changes nothing, and one
    /// that may deliver only adds messages.
    #[arg(long, default_value = "observer")]
    role: Role,
    /// Where this replica is reached; may be said several times. It is told to all peers.
    #[arg(long = "address", value_name = "HOST:PORT")]
    addresses: Vec<String>,
    /// For how long the ticket can be used: `90s`, `30m`, `24h`, `7d`; at most a year.
    #[arg(long, default_value = "24h", value_name = "TIME", value_parser = text::duration)]
    valid: Duration,
    /// Says what would be done.
    #[arg(long)]
    dry_run: bool,
}

impl Invite {
    pub(crate) fn run(&self, cx: &mut Context<'_>) -> anyhow::Result<Code> {
        super::peers::check(&self.addresses)?;
        let addresses = self.addresses(cx)?;
        if addresses.is_empty() {
            return Err(Usage(
                "nobody can tell where this replica is reached; say --address HOST:PORT".into(),
            )
            .into());
        }
        if self.dry_run {
            let (role, valid) = (text::a(self.role), self.valid.as_secs());
            let addresses = addresses.join(", ");
            writeln!(cx.out, "would invite {role} to {addresses}, with a ticket that is good for {valid} s")?;
            return Ok(Code::DONE);
        }
        let endpoint = endpoint::read_key(&cx.setup.store)?.peer_id();
        // The guest needs them later too, when the ticket is gone.
        cx.replica.announce(addresses.clone())?;
        let ticket = cx.replica.invite(&Invitation {
            role: self.role,
            addresses,
            endpoint,
            valid_for: self.valid.as_secs(),
        })?;
        writeln!(cx.out, "{ticket}")?;
        cx.out.flush()?;
        if cx.serving.is_none_or(|serving| serving.node.is_none()) {
            writeln!(cx.err, "The ticket can be used while `postmerge serve` runs here.")?;
        }
        Ok(Code::DONE)
    }

    /// Where the guest is to look: what was said, now or before, else this machine's own address.
    fn addresses(&self, cx: &Context<'_>) -> anyhow::Result<Vec<String>> {
        let peers = cx.replica.peers()?;
        let known = peers.into_iter().find(|peer| peer.oneself).map(|peer| peer.member.addresses);
        let mut addresses = self.addresses.clone();
        addresses.extend(cx.setup.config.now().addresses.iter().cloned());
        addresses.extend(known.unwrap_or_default());
        if addresses.is_empty() {
            addresses.extend(guess(cx).map(|address| address.to_string()));
        }
        let mut seen = std::collections::BTreeSet::new();
        addresses.retain(|address| seen.insert(address.clone()));
        addresses.truncate(MAX_ADDRESSES);
        Ok(addresses)
    }
}

/// This machine's address on the network, with the port that `serve` has or would have.
fn guess(cx: &Context<'_>) -> Option<SocketAddr> {
    let config = cx.setup.config.now();
    let listen = config.listen.as_deref().unwrap_or(Config::LISTEN);
    let listens = match cx.serving.and_then(|serving| serving.listens) {
        Some(listens) => listens,
        None => listen.parse().ok()?,
    };
    if !listens.ip().is_unspecified() {
        return Some(listens);
    }
    // Nothing is sent: it only asks the system which address it would send from.
    let ask = |bind: &str, to: &str| -> Option<IpAddr> {
        let socket = UdpSocket::bind(bind).ok()?;
        socket.connect(to).ok()?;
        Some(socket.local_addr().ok()?.ip()).filter(|ip| !ip.is_unspecified())
    };
    let ip = ask("0.0.0.0:0", "192.0.2.1:9").or_else(|| ask("[::]:0", "[2001:db8::1]:9"))?;
    Some(SocketAddr::new(ip, listens.port()))
}
