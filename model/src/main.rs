//! The UID rules, explored in every order for small bounds.
//!
//! Servers deliver, move, expunge, hear of each other, and are looked at by clients that believe all they were told. After
//! every step P1, P2, P4 and P5 hold. Where no step is left that changes anything, all faults are healed: then every server
//! shows the same under the same UIDs, and nobody writes any more (P3). Each rule, taken out, has a counterexample.

mod account;
mod replica;

use stateright::{Checker, HasDiscoveries, Model, Property};

use crate::account::{Deed, Id, Lane, Log, Mailbox, Rules};
use crate::replica::{Observer, Server};

/// What is explored.
#[derive(Clone, Debug)]
struct Bounds {
    servers: u8,
    observer: bool,
    mailboxes: u8,
    /// How often users do something.
    deeds: u8,
    /// How often a server settles while there is something that it has not heard: two that do so at the same moment for ever
    /// would burn each other's claims for ever.
    races: u8,
    rules: Rules,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct State {
    log: Log,
    servers: Vec<Server>,
    observer: Option<Observer>,
    left: u8,
    races: u8,
    broken: Option<&'static str>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Action {
    /// A user does something at a server.
    Do(u8, Deed),
    /// The first hears all that the second knows; the observer is the last.
    Pull(u8, u8),
    /// A server writes what must be written before it shows its mailboxes.
    Settle(u8),
}

impl Bounds {
    fn lane(&self, server: u8) -> Lane {
        if self.rules.lanes { Lane::of(server, self.servers) } else { Lane::of(0, 1) }
    }

    fn act(&self, state: &mut State, action: &Action) {
        match action {
            Action::Do(n, deed) => {
                state.left -= 1;
                let lane = self.lane(*n);
                let server = &mut state.servers[usize::from(*n)];
                server.act(&mut state.log, *n, deed.clone(), lane, self.rules, &mut state.broken);
            }
            Action::Pull(to, from) if *to == self.servers => {
                let known = state.servers[usize::from(*from)].known.clone();
                if let Some(observer) = &mut state.observer {
                    observer.hear(&state.log, &known, self.rules, self.mailboxes);
                }
            }
            Action::Pull(to, from) => {
                let known = state.servers[usize::from(*from)].known.clone();
                let server = &mut state.servers[usize::from(*to)];
                server.hear(&state.log, &known, self.rules, &mut state.broken);
            }
            Action::Settle(n) => {
                let lane = self.lane(*n);
                state.races -= u8::from(!knows_all(&state.log, &state.servers[usize::from(*n)].known));
                let server = &mut state.servers[usize::from(*n)];
                server.settle(&mut state.log, *n, lane, self.mailboxes, self.rules, &mut state.broken);
            }
        }
        self.look(state);
    }

    /// Clients look after every step, at all that can be shown: who looks more often is harder to please.
    fn look(&self, state: &mut State) {
        for server in &mut state.servers {
            server.look(&state.log, self.mailboxes, self.rules, &mut state.broken);
        }
        if let Some(observer) = &mut state.observer {
            observer.look(self.mailboxes, &mut state.broken);
        }
        roam(&state.servers, &mut state.broken);
    }

    /// What changes anything.
    fn steps(&self, state: &State) -> Vec<Action> {
        let mut all = Vec::new();
        for n in 0..self.servers {
            let server = &state.servers[usize::from(n)];
            if state.left > 0 {
                all.extend((0..self.mailboxes).map(|mailbox| Action::Do(n, Deed::Deliver(mailbox))));
                for (message, at) in server.visible(&state.log, self.rules) {
                    let moves = (0..self.mailboxes).filter(|to| *to != at).map(|to| Deed::Move(message, to));
                    all.extend(moves.chain([Deed::Expunge(message)]).map(|deed| Action::Do(n, deed)));
                }
            }
            let lacks = |to: &u8| {
                let known = match &state.observer {
                    Some(observer) if *to == self.servers => &observer.known,
                    _ => &state.servers[usize::from(*to)].known,
                };
                known.iter().zip(&server.known).any(|(theirs, ours)| theirs < ours)
            };
            let readers = (0..self.servers + u8::from(state.observer.is_some())).filter(|to| *to != n);
            all.extend(readers.filter(lacks).map(|to| Action::Pull(to, n)));
            let may = state.races > 0 || knows_all(&state.log, &server.known);
            if may && !server.is_settled(&state.log, self.mailboxes, self.rules) {
                all.push(Action::Settle(n));
            }
        }
        all
    }
}

fn knows_all(log: &Log, known: &[u8]) -> bool {
    log.iter().zip(known).all(|(changes, known)| changes.len() == usize::from(*known))
}

/// P4: no UID is two messages, at whichever servers.
fn roam(servers: &[Server], broken: &mut Option<&'static str>) {
    for (n, server) in servers.iter().enumerate() {
        for other in &servers[..n] {
            let both = server
                .client
                .told
                .iter()
                .filter_map(|(uid, message)| Some((message, other.client.told.get(uid)?)));
            for (here, there) in both {
                if here != there {
                    broken.get_or_insert("P4: a UID is two messages at two servers");
                }
            }
        }
    }
}

impl Model for Bounds {
    type State = State;
    type Action = Action;

    fn init_states(&self) -> Vec<State> {
        let servers = (0..self.servers).map(|_| Server::new(self.servers, self.mailboxes)).collect();
        let observer = self.observer.then(|| Observer::new(self.servers, self.mailboxes));
        let log = vec![Vec::new(); usize::from(self.servers)];
        vec![State { log, servers, observer, left: self.deeds, races: self.races, broken: None }]
    }

    fn actions(&self, state: &State, actions: &mut Vec<Action>) {
        if state.broken.is_none() {
            actions.extend(self.steps(state));
        }
    }

    fn next_state(&self, state: &State, action: Action) -> Option<State> {
        let mut next = state.clone();
        self.act(&mut next, &action);
        Some(next)
    }

    fn properties(&self) -> Vec<Property<Bounds>> {
        vec![
            Property::always("nothing promised is broken", |_, state: &State| state.broken.is_none()),
            Property::always("where nothing moves, all are equal", |bounds: &Bounds, state: &State| {
                state.broken.is_some() || !bounds.steps(state).is_empty() || is_healed(bounds, state)
            }),
        ]
    }
}

/// Everybody knows everything, and shows the same.
fn is_healed(bounds: &Bounds, state: &State) -> bool {
    let pictures: Vec<_> =
        state.servers.iter().map(|server| server.picture(&state.log, bounds.rules)).collect();
    let observed = state.observer.as_ref().is_none_or(|observer| knows_all(&state.log, &observer.known));
    state.servers.iter().all(|server| knows_all(&state.log, &server.known))
        && pictures.windows(2).all(|two| two[0] == two[1])
        && pictures.iter().flatten().all(|(_, _, uid)| uid.is_some())
        && observed
}

type Shown = Vec<(Id, Mailbox, Option<account::Uid>)>;

const ALL: Rules = Rules { contested: true, spanned: true, recorded: true, lanes: true };

fn main() {
    let bounds = |servers, observer, mailboxes, deeds, races| Bounds {
        servers,
        observer,
        mailboxes,
        deeds,
        races,
        rules: ALL,
    };
    let deep = [bounds(3, false, 1, 3, 2), bounds(2, false, 1, 5, 2), bounds(2, false, 2, 4, 4)];
    let mut explored = vec![bounds(2, false, 2, 4, 2), bounds(2, true, 2, 3, 2), bounds(3, false, 2, 2, 2)];
    if std::env::args().nth(1).is_some_and(|argument| argument == "deep") {
        explored.extend(deep);
    }
    for bounds in explored {
        let name = format!(
            "{} servers, {} observer, {} mailboxes, {} deeds, {} races",
            bounds.servers,
            u8::from(bounds.observer),
            bounds.mailboxes,
            bounds.deeds,
            bounds.races
        );
        let checker = bounds.checker().threads(2).finish_when(HasDiscoveries::Any).spawn_bfs().join();
        if let Some((property, path)) = checker.discoveries().into_iter().next() {
            let last = path.last_state().clone();
            println!("{name}: {property}: {:?}: {:#?}, {last:#?}", last.broken, path.into_actions());
            std::process::exit(1);
        }
        println!("{name}: {} states, nothing is broken", checker.unique_state_count());
    }
    let mutations = [
        ("without rule 3a, and without lanes", Rules { contested: false, lanes: false, ..ALL }, 2),
        ("without rule 3b", Rules { spanned: false, ..ALL }, 2),
        ("without rule 3c", Rules { recorded: false, ..ALL }, 4),
        ("without lanes", Rules { lanes: false, ..ALL }, 2),
    ];
    for (name, rules, deeds) in mutations {
        let bounds = Bounds { rules, ..bounds(2, false, 2, deeds, 2) };
        let checker = bounds.checker().threads(2).finish_when(HasDiscoveries::Any).spawn_bfs().join();
        let Some((property, path)) = checker.discoveries().into_iter().next() else {
            println!("{name}: {} states, and no counterexample", checker.unique_state_count());
            std::process::exit(1);
        };
        let what = path.last_state().broken.unwrap_or(property);
        println!("{name}: {what}, after {} steps", path.into_actions().len());
    }
}
