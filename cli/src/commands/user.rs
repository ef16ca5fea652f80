use std::io::{BufRead, IsTerminal};
use std::path::Path;

use anyhow::Context as _;
use clap::{Args, Subcommand};
use postmerge_imap::auth::{Iterations, Salt, User as Known, UserName, Verifier};

use crate::context::Code;
use crate::failure::advice;
use crate::paths::Setup;
use crate::users;

/// Who may log in over IMAP on this machine. Users are not replicated.
#[derive(Args)]
pub(crate) struct User {
    #[command(subcommand)]
    what: What,
}

#[derive(Subcommand)]
enum What {
    /// Lets a user log in to this replica, or gives one another password. The password is one line on standard input.
    Add {
        /// The name to log in with.
        name: UserName,
        /// Lets a user who logs in to another replica log in to this one instead.
        #[arg(long = "move")]
        moves: bool,
        /// Says what would be done.
        #[arg(long)]
        dry_run: bool,
    },
    /// Prints the users, and which replica each opens.
    List {
        /// Prints the result as JSON.
        #[arg(long)]
        json: bool,
    },
    /// Takes a user's access away. Sessions that are open stay open.
    Remove {
        /// The name.
        name: UserName,
        /// Says what would be done.
        #[arg(long)]
        dry_run: bool,
    },
}

impl User {
    pub(crate) fn run(&self, setup: &Setup) -> anyhow::Result<Code> {
        match &self.what {
            What::Add { name, moves, dry_run } => add(setup, name, *moves, *dry_run),
            What::List { json } => list(setup, *json),
            What::Remove { name, dry_run } => remove(setup, name, *dry_run),
        }
    }
}

fn add(setup: &Setup, name: &UserName, moves: bool, dry_run: bool) -> anyhow::Result<Code> {
    if !setup.store.join("STORE").exists() {
        return Err(postmerge::replica::ReplicaError::NoReplica { path: setup.store.clone() }.into());
    }
    let store = setup.store.canonicalize().unwrap_or_else(|_| setup.store.clone());
    let store = store.to_str().context("the path of the replica is not UTF-8")?.to_owned();
    let mut known = users::read(&setup.users)?;
    let (new, old) = match known.find(name) {
        Some((user, _)) => (false, Some(user.replica().to_owned()).filter(|old| old != Path::new(&store))),
        None => (true, None),
    };
    if let Some(old) = old.as_ref().filter(|_| !moves) {
        let (name, old) = (name.as_str(), old.display());
        let hint = format!(
            "`postmerge --store {old} user add {name}` gives another password there; `user add --move {name}` takes \
             {name} to {store}"
        );
        return Err(advice(format!("{name} logs in to {old} already"), hint));
    }
    let password = password()?;
    let verifier =
        Verifier::derive(password.as_bytes(), Salt::new(users::random::<16>()?)?, Iterations::DEFAULT)?;
    let (would, did) = match (new, &old) {
        (true, _) => ("add", String::new()),
        (false, None) => ("give another password to", ", with another password".into()),
        (false, Some(old)) => ("move", format!(", and no longer to {}", old.display())),
    };
    if dry_run {
        println!("would {would} {}, who then logs in to {store}{did}", name.as_str());
        return Ok(Code::DONE);
    }
    known.insert(Known::new(name.clone(), &store)?, verifier);
    users::write(&setup.users, &known)?;
    println!("{} logs in to {store}{did}", name.as_str());
    Ok(Code::DONE)
}

fn password() -> anyhow::Result<zeroize::Zeroizing<String>> {
    let input = std::io::stdin();
    if input.is_terminal() {
        eprintln!("type the password and press Enter; it is shown as you type");
    }
    let mut line = zeroize::Zeroizing::new(String::new());
    input.lock().read_line(&mut line).context("cannot read the password from standard input")?;
    let password = zeroize::Zeroizing::new(line.trim_end_matches(['\r', '\n']).to_owned());
    if password.is_empty() {
        let hint = "the password is one line on standard input: `postmerge user add NAME < password`";
        return Err(advice("there is no password: standard input is empty", hint));
    }
    Ok(password)
}

fn list(setup: &Setup, json: bool) -> anyhow::Result<Code> {
    let known = users::read(&setup.users)?;
    if json {
        let all: Vec<_> = known
            .iter()
            .map(|(user, _)| serde_json::json!({"name": user.name().as_str(), "store": user.replica()}))
            .collect();
        println!("{}", serde_json::to_string_pretty(&all)?);
    } else {
        for (user, _) in known.iter() {
            println!("{}  {}", user.name().as_str(), user.replica().display());
        }
    }
    Ok(Code::DONE)
}

fn remove(setup: &Setup, name: &UserName, dry_run: bool) -> anyhow::Result<Code> {
    let mut known = users::read(&setup.users)?;
    if !known.remove(name) {
        return Err(advice(
            format!("there is no user {}", name.as_str()),
            "`postmerge user list` names them",
        ));
    }
    if dry_run {
        println!("would remove {}", name.as_str());
        return Ok(Code::DONE);
    }
    users::write(&setup.users, &known)?;
    println!("{} cannot log in any more", name.as_str());
    Ok(Code::DONE)
}
