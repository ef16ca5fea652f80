use std::path::PathBuf;

use clap::Args;
use postmerge::member::Role;
use postmerge::replica::{Founding, Replica};
use postmerge::uid::Block;

use crate::context::Code;
use crate::endpoint;
use crate::failure::advice;
use crate::paths::Setup;
use crate::text::a;

/// Makes a new account, and its first replica.
#[derive(Args)]
pub(crate) struct Init {
    /// What the replica does: a server assigns UIDs, an observer only holds mail.
    #[arg(long, default_value = "server")]
    role: Role,
    /// What peers call it [default: the host name].
    #[arg(long)]
    name: Option<String>,
    /// A Dovecot will assign UIDs of this account too.
    #[arg(long)]
    dovecot: bool,
    /// Uses the endpoint of the replica in another directory of this machine, so that one `serve` can host both.
    #[arg(long, value_name = "DIR")]
    share_endpoint: Option<PathBuf>,
    /// Prints the result as JSON.
    #[arg(long)]
    json: bool,
    /// Says what would be done.
    #[arg(long)]
    dry_run: bool,
}

impl Init {
    pub(crate) fn run(&self, setup: &Setup) -> anyhow::Result<Code> {
        let name = setup.name(self.name.as_deref())?;
        let dir = setup.store.display();
        if setup.store.join("STORE").exists() {
            return Err(advice(
                format!("there is a replica in {dir} already"),
                "--store DIR names another directory",
            ));
        }
        if self.dry_run {
            println!("would make an account and its first replica, {} called {name}, in {dir}", a(self.role));
            return Ok(Code::DONE);
        }
        if let Some(parent) = setup.store.parent() {
            std::fs::create_dir_all(parent)?;
        }
        let key = endpoint::shared_or_new_key(self.share_endpoint.as_deref())?;
        let block = if self.dovecot { Block::DOVECOT } else { Block::STANDARD };
        let founding = Founding { role: self.role, name, block, endpoint: key.peer_id() };
        let replica = Replica::found(&setup.store, setup.state(), &founding)?;
        endpoint::write_key(&setup.store, &key)?;
        let (account, id) = (replica.account(), replica.id()?);
        replica.close()?;
        if self.json {
            let (account, replica, endpoint) =
                (account.to_string(), id.to_string(), key.peer_id().to_string());
            println!(
                "{}",
                serde_json::json!({"account": account, "replica": replica, "endpoint": endpoint, "role": self.role})
            );
        } else {
            println!("account {account}\nreplica {id}, {}, in {dir}", a(self.role));
        }
        Ok(Code::DONE)
    }
}
