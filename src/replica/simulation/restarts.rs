//! What happens to machines: processes die, power fails, disks fill up, backups come back, some are switched off for good.

use super::site::Promised;
use super::world::World;
use super::{Outcome, Violation};
use crate::replica::{Replica, ReplicaError};
use crate::store::disk::fault::Fate;

impl World {
    pub(super) fn trouble(&mut self, n: usize) -> Outcome {
        match self.random.below(20) {
            // At one of the next operations of its disk, whatever it is doing then.
            0..9 => {
                let left = self.random.below(30) as u64;
                self.sites[n].fault.stop_after(left);
                Ok(())
            }
            9..12 => {
                self.sites[n].fault.stop_now();
                self.crash(n)
            }
            12..15 => {
                self.sites[n].was_full = true;
                self.sites[n].fault.fill();
                Ok(())
            }
            15 => self.close(n),
            16 | 17 => self.back_up(n),
            18 if !self.calm => self.restore(n),
            19 if !self.calm && self.random.chance(15) => self.retire(n),
            _ => Ok(()),
        }
    }

    /// The process dies, or the machine.
    pub(super) fn crash(&mut self, n: usize) -> Outcome {
        self.note(|| format!("site {n} crashes"));
        self.hang_up(n);
        let site = &mut self.sites[n];
        site.fault.stop_now();
        site.enter(self.time);
        site.down();
        // In a process that died, nothing was left to empty the lock file.
        let lock = site.store().join("lock");
        if lock.exists() {
            std::fs::write(lock, "1\n").unwrap();
        }
        let power = self.random.below(3);
        let random = &mut self.random;
        match power {
            0 => {}
            1 => self.sites[n].fault.lose_unsynced(),
            _ => self.sites[n].fault.lose(&mut || [Fate::Lost, Fate::Kept, Fate::Torn][random.below(3)]),
        }
        Ok(())
    }

    fn close(&mut self, n: usize) -> Outcome {
        self.hang_up(n);
        match self.call(n, Replica::close)? {
            Some(()) => {
                self.sites[n].down();
                Ok(())
            }
            // What could not be closed in good order is left as it is.
            None if self.sites[n].replica.is_some() => self.crash(n),
            None => Ok(()),
        }
    }

    /// The site's ends of conversations are gone; the others notice when they have read what was on its way.
    fn hang_up(&mut self, n: usize) {
        self.enter(n);
        for (c, side) in self.ends_at(n) {
            self.connections[c].ends[side] = None;
        }
    }

    /// The site starts again, and may die of it.
    pub(super) fn restart(&mut self, n: usize) -> Outcome {
        self.sites[n].fault.resume();
        if self.random.chance(15) {
            let left = self.random.below(40) as u64;
            self.sites[n].fault.stop_after(left);
        }
        self.note(|| format!("site {n} starts"));
        self.enter(n);
        let site = &mut self.sites[n];
        match Replica::open(&site.store(), Some(&site.state())) {
            Ok(replica) => {
                let id = replica.id().ok();
                site.up(replica);
                self.note(|| format!("site {n} is {id:?}"));
                let site = &self.sites[n];
                site.keeps_its_promises(n)?;
                self.hear_news(n)
            }
            Err(_) if site.fault.is_stopped() => self.crash(n),
            Err(error) => Err(Violation(format!("site {n} does not open again: {error}: {error:?}"))),
        }
    }

    fn back_up(&mut self, n: usize) -> Outcome {
        let to = self.sites[n].backup();
        let done = self.call(n, |replica| match replica.backup(&to, &mut |_| {}) {
            // It became another replica since: that backup is of no use any more.
            Err(ReplicaError::Store(crate::store::StoreError::NotEmpty { .. })) => {
                std::fs::remove_dir_all(&to).unwrap();
                replica.backup(&to, &mut |_| {})
            }
            done => done,
        })?;
        match done {
            Some(()) => {
                let site = &mut self.sites[n];
                (site.backed_up, site.backup_used) = (true, site.lost);
            }
            None => {
                self.sites[n].backed_up = false;
                let _ = std::fs::remove_dir_all(to);
            }
        }
        Ok(())
    }

    /// The disk is lost, and the last backup takes its place. What was promised since is void.
    fn restore(&mut self, n: usize) -> Outcome {
        if !self.sites[n].backed_up {
            return Ok(());
        }
        self.note(|| format!("site {n} is restored"));
        self.sites[n].fault.stop_now();
        self.crash(n)?;
        let site = &mut self.sites[n];
        site.fault = std::sync::Arc::new(crate::store::disk::fault::Fault::after(u64::MAX));
        site.restored += 1;
        site.lost |= std::mem::replace(&mut site.backup_used, true);
        site.promised = Promised::default();
        std::fs::remove_dir_all(site.store()).unwrap();
        copy(&site.backup(), &site.store());
        // Without its notes a store that is put back twice to one backup cannot know what it showed in between.
        if self.random.chance(10) && !self.sites[n].lost {
            let _ = std::fs::remove_dir_all(self.sites[n].state());
        }
        self.restart(n)
    }

    /// A machine is switched off for good, and somebody says so.
    fn retire(&mut self, n: usize) -> Outcome {
        let up = |m: &usize| *m != n && self.sites[*m].replica.is_some();
        let others: Vec<usize> = (0..self.sites.len()).filter(up).collect();
        let Some(other) = self.random.pick(&others).copied() else { return Ok(()) };
        let Some(Some(id)) = self.call(n, Replica::id).map(Some)? else { return Ok(()) };
        self.call(other, |replica| match replica.peers()?.iter().any(|peer| peer.member.replica == id) {
            true => replica.forget(id),
            false => Ok(()),
        })?;
        if self.sites[n].replica.is_some() {
            self.hang_up(n);
            self.retire_site(n);
        }
        Ok(())
    }

    pub(super) fn retire_site(&mut self, n: usize) {
        self.note(|| format!("site {n} is retired"));
        let site = &mut self.sites[n];
        site.down();
        (site.retired, site.promised) = (true, Promised::default());
    }
}

fn copy(from: &std::path::Path, to: &std::path::Path) {
    std::fs::create_dir(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap().map(Result::unwrap) {
        let target = to.join(entry.file_name());
        match entry.file_type().unwrap().is_dir() {
            true => copy(&entry.path(), &target),
            false => _ = std::fs::copy(entry.path(), target).unwrap(),
        }
    }
}
