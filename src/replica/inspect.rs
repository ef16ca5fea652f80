//! Whether all is well.

use std::collections::BTreeSet;
use std::path::Path;

use super::core::waiting;
use super::identity::Identity;
use super::members::{self, Found};
use super::{MEMBERS, Replica, ReplicaError};
use crate::member::{Members, Role};
use crate::store::{CheckReport, Level, Problem, Progress, RepairReport, Store};

impl Replica {
    /// Looks at every file of a replica that nobody writes to, and changes nothing. What it shows is not looked at: for
    /// that, open it and ask for its [`Replica::doubts`].
    pub fn check_dir(
        dir: &Path,
        level: Level,
        progress: &mut dyn FnMut(Progress),
    ) -> Result<CheckReport, ReplicaError> {
        if !dir.join("STORE").exists() {
            return Err(ReplicaError::NoReplica { path: dir.into() });
        }
        let mut report = Store::check(dir, level, progress)?;
        report.problems.extend(check_own_files(dir));
        Ok(report)
    }

    /// Repairs a replica that nobody has open: [`Store::repair`], and keeps what is whole of a damaged membership log.
    /// Peers give back what is missing.
    pub fn repair(dir: &Path, progress: &mut dyn FnMut(Progress)) -> Result<RepairReport, ReplicaError> {
        let mut report = Store::repair(dir, progress)?;
        report.repaired.extend(repair_members(dir, true)?);
        Ok(report)
    }

    /// What [`Replica::repair`] would do; changes nothing.
    pub fn plan_repair(dir: &Path, progress: &mut dyn FnMut(Progress)) -> Result<RepairReport, ReplicaError> {
        let mut report = Store::plan_repair(dir, progress)?;
        report.repaired.extend(repair_members(dir, false)?);
        Ok(report)
    }

    /// What is wrong with what this replica shows, though no file may be: changes that wait for lost ones, and messages
    /// whose bodies are neither here nor asked for. Costs O(messages).
    pub fn doubts(&self) -> Result<Vec<Problem>, ReplicaError> {
        let snapshot = self.view()?;
        let waiting = waiting(snapshot.tables())?.len() as u64;
        let mut problems = Vec::new();
        problems.extend((waiting > 0).then_some(Problem::Waiting { changes: waiting }));
        let mut missing = BTreeSet::new();
        for mailbox in snapshot.view().mailboxes()? {
            for entry in snapshot.view().entries_of(mailbox.id)? {
                if let Some(message) = snapshot.view().message_of(entry)?
                    && !self.has_body(message.blob)?
                {
                    missing.insert(message.blob);
                }
            }
        }
        if !missing.is_empty() {
            for owed in self.owed(&snapshot, usize::MAX)? {
                missing.remove(&owed.blob);
            }
        }
        problems.extend(missing.into_iter().map(Problem::LostBody));
        Ok(problems)
    }

    /// Looks at every file, and at what is shown, while the replica is used.
    pub fn check(
        &self,
        level: Level,
        progress: &mut dyn FnMut(Progress),
    ) -> Result<CheckReport, ReplicaError> {
        let checker = self.with(|core| Ok(core.store.checker()?))?;
        let mut report = checker.check(level, progress)?;
        report.problems.extend(check_own_files(checker.dir()));
        for doubt in self.doubts()? {
            if !report.problems.contains(&doubt) {
                report.problems.push(doubt);
            }
        }
        Ok(report)
    }
}

/// The files that say who the replica and its peers are, each by itself and against the other.
fn check_own_files(dir: &Path) -> Vec<Problem> {
    let mut problems = Vec::new();
    let of_identity = |what: &str| Problem::Identity { path: Identity::path(dir), what: what.to_owned() };
    let of_members = |what: String| Problem::Members { path: dir.join(MEMBERS), what };
    let identity = match Identity::read(dir) {
        Ok(identity) => Some(identity),
        Err(ReplicaError::Io { source, .. }) => {
            problems.push(of_identity(&source.to_string()));
            None
        }
        Err(_) => {
            problems.push(of_identity("it is damaged"));
            None
        }
    };
    let records = match members::find(dir) {
        Ok(Found { damage: Some(what), .. }) => {
            problems.push(of_members(what));
            return problems;
        }
        Ok(Found { records, complete, .. }) => {
            problems.extend((!complete).then(|| Problem::MissingMembers { path: dir.join(MEMBERS) }));
            records
        }
        Err(ReplicaError::Io { source, .. }) => {
            problems.push(of_members(source.to_string()));
            return problems;
        }
        Err(error) => {
            problems.push(of_members(error.to_string()));
            return problems;
        }
    };
    // Before a join has come to its end there are none.
    let Some(identity) = identity.filter(|_| !records.is_empty()) else { return problems };
    match Members::fold(identity.account, records) {
        Err(error) => problems.push(of_members(error.to_string())),
        Ok(members) => match members.get(identity.replica) {
            Some(member) if member.key == identity.key.public() => {}
            Some(_) => problems.push(of_identity("the members know this replica by another key")),
            None if identity.succession.is_some() => {}
            None => problems.push(of_identity("the members do not know this replica")),
        },
    }
    problems
}

/// Keeps the records that are whole, if they still say who this replica is; peers give back the rest. True records are
/// signed: nothing else can get in. Only an observer may go on so: a server that forgets to whom it gave a part of its lane
/// would give out UIDs that are another server's.
fn repair_members(dir: &Path, act: bool) -> Result<Option<Problem>, ReplicaError> {
    let path = dir.join(MEMBERS);
    let Found { records, damage: Some(what), .. } = members::find(dir)? else { return Ok(None) };
    let identity = Identity::read(dir)?;
    let kept = Members::fold(identity.account, records)?;
    if kept.get(identity.replica).is_none_or(|oneself| oneself.role == Role::Server) {
        return Err(ReplicaError::Members { path, what });
    }
    if act {
        let copied = std::fs::copy(&path, path.with_extension("damaged"));
        copied.map_err(|source| ReplicaError::Io { action: "copy", path: path.clone(), source })?;
        members::write(dir, &kept)?;
    }
    Ok(Some(Problem::Members { path, what }))
}
