use clap::{Args, Subcommand};
use postmerge::member::{MAX_ADDRESS, MAX_ADDRESSES, Member, Role, Status};
use postmerge::net::PeerState;
use serde::Serialize;

use crate::context::{Code, Context};
use crate::failure::Usage;
use crate::text;

/// Lists the replicas of the account, or says where this one is reached.
#[derive(Args)]
#[command(args_conflicts_with_subcommands = true)]
pub(crate) struct Peers {
    /// Prints the result as JSON.
    #[arg(long)]
    json: bool,
    #[command(subcommand)]
    act: Option<Act>,
}

#[derive(Subcommand)]
enum Act {
    /// Tells the peers where this replica is reached; without an address, that it cannot be reached.
    SetAddress {
        /// As HOST:PORT.
        addresses: Vec<String>,
        /// Says what would be done.
        #[arg(long)]
        dry_run: bool,
    },
}

#[derive(Serialize)]
struct Row {
    name: String,
    replica: String,
    endpoint: String,
    role: Role,
    status: &'static str,
    oneself: bool,
    addresses: Vec<String>,
    /// Only while `serve` runs.
    connected: Option<bool>,
    error: Option<String>,
}

impl Peers {
    pub(crate) fn run(&self, cx: &mut Context<'_>) -> anyhow::Result<Code> {
        if let Some(Act::SetAddress { addresses, dry_run }) = &self.act {
            return set_address(cx, addresses, *dry_run);
        }
        let states = cx.serving.and_then(|serving| serving.node.as_ref()).map(|node| node.states());
        let rows: Vec<Row> = cx
            .replica
            .peers()?
            .into_iter()
            .map(|peer| row(&peer.member, peer.oneself, states.as_deref()))
            .collect();
        if self.json {
            cx.json(&rows)?;
            return Ok(Code::DONE);
        }
        let cells: Vec<Vec<String>> = rows
            .into_iter()
            .map(|row| {
                let state = match (row.oneself, row.connected, row.error) {
                    (true, _, _) => "this one".to_owned(),
                    (_, Some(true), _) => "connected".to_owned(),
                    (_, _, Some(error)) => error,
                    _ => String::new(),
                };
                let replica = row.replica[..8].to_owned();
                vec![
                    row.name,
                    row.role.to_string(),
                    row.status.into(),
                    replica,
                    row.addresses.join(" "),
                    state,
                ]
            })
            .collect();
        text::table(&mut cx.out, &["name", "role", "status", "replica", "addresses", ""], &cells, &[])?;
        Ok(Code::DONE)
    }
}

fn row(member: &Member, oneself: bool, states: Option<&[PeerState]>) -> Row {
    let state = states.and_then(|states| states.iter().find(|state| state.replica == member.replica));
    Row {
        name: member.name.to_string(),
        replica: member.replica.to_string(),
        endpoint: member.endpoint.to_string(),
        role: member.role,
        status: match member.status {
            Status::Active => "active",
            Status::Revoked { .. } => "forgotten",
            Status::Succeeded { .. } => "replaced",
        },
        oneself,
        addresses: member.addresses.clone(),
        connected: states.filter(|_| !oneself).map(|_| state.is_some_and(|state| state.connected)),
        error: state.and_then(|state| state.error.clone()),
    }
}

fn set_address(cx: &mut Context<'_>, addresses: &[String], dry: bool) -> anyhow::Result<Code> {
    check(addresses)?;
    if dry {
        writeln!(cx.out, "would tell the peers these addresses of this replica: {addresses:?}")?;
        return Ok(Code::DONE);
    }
    cx.replica.announce(addresses.to_vec())?;
    Ok(Code::DONE)
}

/// Whether addresses can be told to anybody.
pub(crate) fn check(addresses: &[String]) -> anyhow::Result<()> {
    if addresses.len() > MAX_ADDRESSES {
        return Err(Usage(format!("at most {MAX_ADDRESSES} addresses")).into());
    }
    for address in addresses {
        let port = address.rsplit_once(':').filter(|(host, _)| !host.is_empty()).map(|(_, port)| port);
        let fits = address.len() <= MAX_ADDRESS && !address.chars().any(|c| c.is_control() || c == ' ');
        if !fits || port.is_none_or(|port| !port.parse::<u16>().is_ok_and(|port| port > 0)) {
            return Err(Usage(format!("{address:?} is not HOST:PORT")).into());
        }
    }
    Ok(())
}
