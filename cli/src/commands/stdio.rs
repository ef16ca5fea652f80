use std::io::{Read, Write};

use clap::Args;
use postmerge::net;
use postmerge::sync::Side;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::context::{Code, Context};

/// Answers one peer on standard input and output, as in `ssh host postmerge stdio`.
#[derive(Args)]
pub(crate) struct Stdio {}

/// Bytes between the pipes and the conversation.
const BUFFER: usize = 64 << 10;

impl Stdio {
    pub(crate) fn run(&self, cx: &mut Context<'_>) -> anyhow::Result<Code> {
        let mut nonce = [0; 32];
        getrandom::fill(&mut nonce).map_err(|error| anyhow::anyhow!("no random numbers: {error}"))?;
        let runtime = cx.setup.runtime.clone();
        let (reader, mut from_stdin) = tokio::io::duplex(BUFFER);
        let (writer, mut to_stdout) = tokio::io::duplex(BUFFER);
        let mut input = std::mem::replace(&mut cx.input, Box::new(std::io::empty()));
        let pump = runtime.clone();
        // It may wait for input for ever; it ends with the process or with the client's connection.
        std::thread::spawn(move || {
            let mut buffer = vec![0; BUFFER];
            while let Ok(count @ 1..) = input.read(&mut buffer) {
                if pump.block_on(from_stdin.write_all(&buffer[..count])).is_err() {
                    break;
                }
            }
        });
        let replica = cx.replica.clone();
        let talk = runtime.spawn(async move {
            let connection = net::pipe(reader, writer, Side::Responder, nonce).await?;
            net::talk(&replica, None, connection, &mut |_| {}).await
        });
        let mut buffer = vec![0; BUFFER];
        loop {
            let count = runtime.block_on(to_stdout.read(&mut buffer))?;
            if count == 0 {
                break;
            }
            cx.out.write_all(&buffer[..count])?;
            cx.out.flush()?;
        }
        runtime.block_on(talk)??;
        Ok(Code::DONE)
    }
}
