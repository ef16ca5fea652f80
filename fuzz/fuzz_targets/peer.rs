//! What a stranger says on the port for peers, and what is typed or mailed as a ticket. A membership record is judged before
//! anybody trusts its author.

#![no_main]

use std::time::Duration;

use libfuzzer_sys::fuzz_target;
use postmerge::member::{Record, Ticket};
use postmerge::sync::{Session, naming};

fuzz_target!(|input: &[u8]| {
    if let Ok(text) = std::str::from_utf8(input)
        && let Ok(ticket) = text.parse::<Ticket>()
    {
        assert_eq!(ticket.to_string().parse::<Ticket>().as_ref(), Ok(&ticket));
    }
    if let Ok(record) = Record::decode(input) {
        assert_eq!(record.encoded(), input);
    }
    naming(input);
    let Some((piece, octets)) = input.split_first() else { return };
    let mut session = Session::respond(Default::default(), Duration::ZERO);
    for part in octets.chunks(usize::from(*piece) + 1) {
        if session.receive(part, Duration::ZERO).is_err() {
            break;
        }
        while let Ok(Some(_)) = session.poll_event() {}
    }
    while session.poll_send(1 << 16).is_some() {}
});
