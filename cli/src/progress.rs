//! How far a long command is, as data, so that it can cross the control socket; and its bars.

use std::io::IsTerminal;
use std::time::{Duration, Instant};

use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde::{Deserialize, Serialize};

/// One step.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Step {
    /// Something begins.
    Start {
        /// What.
        what: String,
        /// How many messages, if they are counted.
        messages: Option<u64>,
        /// How many bytes.
        bytes: u64,
    },
    /// It is this far.
    At {
        /// Messages done.
        messages: u64,
        /// Bytes done.
        bytes: u64,
    },
    /// It is over.
    End,
}

/// Takes steps.
pub(crate) type Sink = Box<dyn FnMut(Step) + Send>;

/// Bars on standard error if that is a terminal, else nothing.
pub(crate) fn on_terminal() -> Sink {
    if !std::io::stderr().is_terminal() {
        return Box::new(|_| {});
    }
    let mut bars: Option<(MultiProgress, Option<ProgressBar>, ProgressBar)> = None;
    Box::new(move |step| match step {
        Step::Start { what, messages, bytes } => {
            let all = MultiProgress::with_draw_target(ProgressDrawTarget::stderr_with_hz(10));
            let count = messages.map(|total| all.add(bar(&what, total, "{pos}/{len} messages")));
            let what = if count.is_some() { "" } else { &what };
            let size = all.add(bar(what, bytes, "{bytes}/{total_bytes} {binary_bytes_per_sec} {eta}"));
            bars = Some((all, count, size));
        }
        Step::At { messages, bytes } => {
            if let Some((_, count, size)) = &bars {
                count.iter().for_each(|bar| bar.set_position(messages));
                size.set_position(bytes);
            }
        }
        Step::End => {
            if let Some((all, _, _)) = bars.take() {
                let _ = all.clear();
            }
        }
    })
}

fn bar(what: &str, total: u64, numbers: &str) -> ProgressBar {
    let template = format!("{{msg:20}} [{{bar:30}}] {numbers}");
    let style = ProgressStyle::with_template(&template).expect("the template is right");
    ProgressBar::new(total).with_style(style.progress_chars("=> ")).with_message(what.to_owned())
}

/// Lets at most twenty steps a second through, and every beginning and end.
pub(crate) fn paced(mut sink: Sink) -> Sink {
    let mut last: Option<Instant> = None;
    Box::new(move |step| {
        if let Step::At { .. } = step {
            let now = Instant::now();
            if last.is_some_and(|last| now - last < Duration::from_millis(50)) {
                return;
            }
            last = Some(now);
        }
        sink(step);
    })
}
