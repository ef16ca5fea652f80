//! Defects that a test plants on purpose, to see that the simulator notices them. What is shipped has none: there
//! [`planted`] is always false, and the compiler takes it out.

/// A defect. `docs/testing.md` has the table of what each breaks, and of what catches it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Mutation {
    /// Rule 3a is off, and lanes, which hide that.
    Contested,
    /// Rule 3b is off.
    Spanned,
    /// Rule 3c is off.
    Recorded,
    /// All servers claim from the same numbers.
    Lanes,
    /// A claim that comes late is not judged by the runs that are known.
    LateClaim,
    /// A server uses its lane before it heard of its giver's past.
    LaneTooEarly,
    /// UIDNEXT is one more than the last message's UID.
    UidNext,
    /// UIDVALIDITY rises after a thousand UIDs.
    Calm,
    /// Who acts on UIDs of another UIDVALIDITY is not refused.
    StaleUids,
    /// What vanished is not told to who asks for changes.
    Vanished,
    /// After a restore mod-sequences go on in the old era.
    Era,
    /// The log is not synced.
    UnsyncedLog,
    /// Bodies are not synced before the log refers to them.
    UnsyncedBodies,
    /// Claims for the messages of others are shown before they are durable.
    UnsyncedClaims,
    /// A peer is told that changes are known before they are committed.
    KnownTooEarly,
    /// A peer is told that bodies are held while they are owed.
    HeldTooEarly,
    /// A store that was copied back goes on as if nothing had happened.
    CopyUnnoticed,
    /// It is noticed, but UIDVALIDITYs do not rise.
    FloorForgotten,
    /// The note outside of the store is not renewed.
    NoteForgotten,
    /// Bodies that changes of others need are not noted as owed.
    OwedForgotten,
}

#[cfg(test)]
impl Mutation {
    pub(crate) const ALL: [Mutation; 20] = [
        Mutation::Contested,
        Mutation::Spanned,
        Mutation::Recorded,
        Mutation::Lanes,
        Mutation::LateClaim,
        Mutation::LaneTooEarly,
        Mutation::UidNext,
        Mutation::Calm,
        Mutation::StaleUids,
        Mutation::Vanished,
        Mutation::Era,
        Mutation::UnsyncedLog,
        Mutation::UnsyncedBodies,
        Mutation::UnsyncedClaims,
        Mutation::KnownTooEarly,
        Mutation::HeldTooEarly,
        Mutation::CopyUnnoticed,
        Mutation::FloorForgotten,
        Mutation::NoteForgotten,
        Mutation::OwedForgotten,
    ];
}

#[cfg(test)]
thread_local! {
    static PLANTED: std::cell::Cell<Option<Mutation>> = const { std::cell::Cell::new(None) };
}

/// Plants a defect in what this thread does from now on, or takes it out.
#[cfg(test)]
pub(crate) fn plant(mutation: Option<Mutation>) {
    PLANTED.set(mutation);
}

/// Whether a test has planted the defect.
#[cfg(test)]
pub(crate) fn planted(mutation: Mutation) -> bool {
    PLANTED.get() == Some(mutation)
}

/// While `act` runs, another defect stands in for one that is planted.
pub(crate) fn instead<R>(planted: Mutation, other: Mutation, act: impl FnOnce() -> R) -> R {
    #[cfg(test)]
    if self::planted(planted) {
        plant(Some(other));
        let done = act();
        plant(Some(planted));
        return done;
    }
    let _ = (planted, other);
    act()
}

/// There is none.
#[cfg(not(test))]
pub(crate) const fn planted(_: Mutation) -> bool {
    false
}
