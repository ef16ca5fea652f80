use std::io::{Read, Write};

use clap::Args;
use postmerge::mailbox::ReplicaId;
use postmerge::net;
use postmerge::replica::Replica;
use postmerge::sync::Side;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::runtime::Handle;

use crate::bridge;
use crate::context::{Code, Context};
use crate::failure::Failure;

/// Answers one peer on standard input and output, as in `ssh host postmerge stdio`, and brings attached Maildirs in step before
/// and after.
#[derive(Args)]
pub(crate) struct Stdio {}

impl Stdio {
    pub(crate) fn run(&self, cx: &mut Context<'_>) -> anyhow::Result<Code> {
        let input = std::mem::replace(&mut cx.input, Box::new(std::io::empty()));
        let before = maildirs(cx)?;
        converse(&cx.setup.runtime, &cx.replica, None, input, &mut cx.out)?;
        let after = maildirs(cx)?;
        Ok(if before == Code::DONE { after } else { before })
    }
}

/// Brings Maildirs in step. Standard output belongs to the conversation, which a Maildir that fails does not hold up: the peer may
/// well be one that has what this one lacks.
fn maildirs(cx: &mut Context<'_>) -> anyhow::Result<Code> {
    let reports = match bridge::run_all(cx, false) {
        Ok(reports) => reports,
        Err(error) => {
            Failure::of(&error, "stdio").print(&mut cx.err);
            return Ok(Code::PARTLY);
        }
    };
    for (attachment, report) in &reports {
        let (_, warnings) = bridge::as_lines(attachment, report, false);
        warnings.iter().try_for_each(|line| writeln!(cx.err, "{line}"))?;
    }
    Ok(Code::partly_if(reports.iter().any(|(_, report)| bridge::code(report) != Code::DONE)))
}

/// Bytes between the pipes and the conversation.
const BUFFER: usize = 64 << 10;

/// Talks over a pair of pipes: with `peer` as the one who began, else as the one who answers.
pub(super) fn converse(
    runtime: &Handle,
    replica: &Replica,
    peer: Option<ReplicaId>,
    mut input: Box<dyn Read + Send>,
    out: &mut dyn Write,
) -> anyhow::Result<()> {
    let mut nonce = [0; 32];
    getrandom::fill(&mut nonce).map_err(|error| anyhow::anyhow!("no random numbers: {error}"))?;
    let (reader, mut arrived) = tokio::io::duplex(BUFFER);
    let (writer, mut leaving) = tokio::io::duplex(BUFFER);
    let pump = runtime.clone();
    // It may wait for input for ever; it ends with the process or with the client's connection.
    std::thread::spawn(move || {
        let mut buffer = vec![0; BUFFER];
        while let Ok(count @ 1..) = input.read(&mut buffer) {
            if pump.block_on(arrived.write_all(&buffer[..count])).is_err() {
                break;
            }
        }
    });
    let replica = replica.clone();
    let side = if peer.is_some() { Side::Initiator } else { Side::Responder };
    let talk = runtime.spawn(async move {
        let connection = net::pipe(reader, writer, side, nonce).await?;
        net::talk(&replica, peer, connection, &mut |_| {}).await
    });
    let mut buffer = vec![0; BUFFER];
    let mut written = Ok(());
    loop {
        let count = runtime.block_on(leaving.read(&mut buffer))?;
        if count == 0 {
            break;
        }
        written = out.write_all(&buffer[..count]).and_then(|()| out.flush());
        if written.is_err() {
            break;
        }
    }
    drop(leaving);
    // What the conversation says of its end tells more than a broken pipe.
    runtime.block_on(talk)??;
    Ok(written?)
}
