//! How far a long command is, as data, so that it can cross the control socket; and its bar.

use std::io::IsTerminal;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde::{Deserialize, Serialize};

use crate::text::{size, tame};

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

/// One line on standard error if that is a terminal, else nothing.
pub(crate) fn on_terminal() -> Sink {
    if !std::io::stderr().is_terminal() {
        return Box::new(|_| {});
    }
    let mut line = Line { bar: None, messages: None };
    Box::new(move |step| line.take(step))
}

/// The bar. Nothing of it is left behind, also when a command fails half way.
struct Line {
    bar: Option<ProgressBar>,
    messages: Option<u64>,
}

/// Columns of what is being done; a quarter of the narrowest usual terminal.
const NAME_WIDTH: usize = 20;

impl Line {
    fn take(&mut self, step: Step) {
        match step {
            Step::Start { what, messages, bytes } => {
                self.messages = messages;
                // A total that grows must not begin anew.
                let what = tame(&what, NAME_WIDTH);
                if let Some(bar) = self.bar.as_ref().filter(|bar| bar.prefix() == what && !bar.is_finished())
                {
                    bar.set_length(bytes);
                    return;
                }
                self.clear();
                // It draws more often than steps come, so that none is left out.
                let target = ProgressDrawTarget::stderr_with_hz(2 * STEPS_PER_SECOND);
                // Only the last part is cut where columns are few: a line that wraps cannot be drawn again in its place.
                let style = "{prefix} [{bar:10}] {percent:>3}% {eta} left, {wide_msg}";
                let style = ProgressStyle::with_template(style).expect("the template is right");
                let bar = ProgressBar::with_draw_target(Some(bytes), target);
                self.bar = Some(bar.with_style(style.progress_chars("=> ")).with_prefix(what));
                self.show(0, 0);
            }
            Step::At { messages, bytes } => self.show(messages, bytes),
            Step::End => self.clear(),
        }
    }

    fn show(&self, messages: u64, bytes: u64) {
        let Some(bar) = &self.bar else { return };
        let total = bar.length().unwrap_or(0);
        let sizes = format!("{}/{}", size(bytes.min(total)), size(total));
        let told = match self.messages {
            Some(all) => format!("{}/{all} messages, {sizes}", messages.min(all)),
            None => sizes,
        };
        // The position draws; what it stands beside has to be there before.
        bar.set_message(told);
        bar.set_position(bytes.min(total));
    }

    fn clear(&mut self) {
        if let Some(bar) = self.bar.take() {
            bar.finish_and_clear();
        }
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        self.clear();
    }
}

/// As often as people see a number change, and cheap beside the work.
const STEPS_PER_SECOND: u8 = 10;

/// Lets few steps a second through, and every beginning and end, and what ends at its total.
pub(crate) fn paced(mut sink: Sink) -> Sink {
    let mut last: Option<Instant> = None;
    let mut total = 0;
    Box::new(move |step| {
        match step {
            Step::Start { bytes, .. } => total = bytes,
            Step::At { bytes, .. } => {
                let now = Instant::now();
                let pause = Duration::from_secs(1) / STEPS_PER_SECOND.into();
                if bytes < total && last.is_some_and(|last| now - last < pause) {
                    return;
                }
                last = Some(now);
            }
            Step::End => {}
        }
        sink(step);
    })
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;

    #[test]
    fn a_beginning_an_end_and_the_last_state_are_always_told() {
        let told = Arc::new(Mutex::new(Vec::new()));
        let mut sink = paced(Box::new({
            let told = Arc::clone(&told);
            move |step| told.lock().unwrap().push(step)
        }));
        let start = Step::Start { what: "import".into(), messages: Some(1000), bytes: 1000 };
        sink(start.clone());
        (1..=1000).for_each(|at| sink(Step::At { messages: at, bytes: at }));
        sink(Step::End);
        let told = told.lock().unwrap();
        assert_eq!(told[..2], [start, Step::At { messages: 1, bytes: 1 }]);
        assert_eq!(told[told.len() - 2..], [Step::At { messages: 1000, bytes: 1000 }, Step::End]);
        assert!(told.len() < 500, "{}", told.len());
    }
}
