//! What waits to be sent, most urgent first.

use std::collections::VecDeque;

use super::frame::Frame;

/// Frames in three queues: control, changes, bodies. A frame that was begun is finished first.
#[derive(Default)]
pub(super) struct Outbox {
    begun: Vec<u8>,
    /// How much of it was sent.
    sent: usize,
    control: VecDeque<Vec<u8>>,
    changes: VecDeque<Vec<u8>>,
    bodies: VecDeque<Vec<u8>>,
    last: Option<Vec<u8>>,
}

impl Outbox {
    pub(super) fn control(&mut self, frame: &Frame) {
        self.control.push_back(frame.encode());
    }

    pub(super) fn change(&mut self, frame: &Frame) {
        self.changes.push_back(frame.encode());
    }

    pub(super) fn body(&mut self, frame: &Frame) {
        self.bodies.push_back(frame.encode());
    }

    /// Sends `frame` when nothing else is left.
    pub(super) fn last(&mut self, frame: &Frame) {
        self.last = Some(frame.encode());
    }

    /// Whether the last frame is still to come.
    pub(super) fn has_last(&self) -> bool {
        self.last.is_some()
    }

    /// Sends `frame` after what was begun, and nothing else.
    pub(super) fn only(&mut self, frame: &Frame) {
        let (begun, sent) = (std::mem::take(&mut self.begun), self.sent);
        *self = Outbox { begun, sent, last: Some(frame.encode()), ..Outbox::default() };
    }

    /// Sends what was begun and the control frames that wait, then `frame`, and nothing else.
    pub(super) fn after_control(&mut self, frame: &Frame) {
        self.changes.clear();
        self.bodies.clear();
        self.last(frame);
    }

    pub(super) fn no_changes(&self) -> bool {
        self.changes.is_empty()
    }

    pub(super) fn no_bodies(&self) -> bool {
        self.bodies.is_empty()
    }

    /// Bytes of bodies that wait.
    pub(super) fn body_bytes(&self) -> usize {
        self.bodies.iter().map(Vec::len).sum()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.sent == self.begun.len()
            && self.control.is_empty()
            && self.changes.is_empty()
            && self.bodies.is_empty()
            && self.last.is_none()
    }

    /// At most `max` bytes to send, with at most one piece of a body begun in them.
    pub(super) fn poll(&mut self, max: usize) -> Option<Vec<u8>> {
        let mut out: Vec<u8> = Vec::new();
        let mut with_body = false;
        while out.len() < max {
            if self.sent == self.begun.len() {
                let urgent = self.control.pop_front().or_else(|| self.changes.pop_front());
                let next = match urgent {
                    Some(frame) => frame,
                    None if with_body => break,
                    None => match self.bodies.pop_front() {
                        Some(frame) => {
                            with_body = true;
                            frame
                        }
                        None => match self.last.take() {
                            Some(frame) => frame,
                            None => break,
                        },
                    },
                };
                (self.begun, self.sent) = (next, 0);
            }
            let left = &self.begun[self.sent..];
            let take = left.len().min(max - out.len());
            out.extend_from_slice(&left[..take]);
            self.sent += take;
        }
        (!out.is_empty()).then_some(out)
    }
}
