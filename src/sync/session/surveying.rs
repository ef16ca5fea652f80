//! The part of a session in which two sides compare what they have.

use super::super::error::{Misbehaved, SessionError};
use super::super::event::Event;
use super::super::frame::Frame;
use super::super::handshake::Digest;
use super::super::survey::{Answer, Question, SurveyFrame};
use super::Session;
use std::time::Duration;

impl Session {
    /// Asks the peer about a state that both are in; one question at a time. The answer is [`Event::Surveyed`].
    pub fn ask(&mut self, digest: Digest, question: Question, now: Duration) -> Result<(), SessionError> {
        if !self.open()? {
            return Ok(());
        }
        if self.surveying.asked.is_some() {
            return Err(SessionError::Misuse("a question before the last one was answered"));
        }
        if self.waiting().is_none() {
            self.quiet_since = now;
        }
        self.surveying.asked = Some(question);
        self.outbox.control(&Frame::Survey(SurveyFrame::Ask { digest, question }));
        Ok(())
    }

    /// Answers [`Event::SurveyWanted`].
    pub fn tell(&mut self, answer: Answer) -> Result<(), SessionError> {
        if !self.open()? {
            return Ok(());
        }
        if !self.surveying.answers(&answer) {
            return Err(SessionError::Misuse("an answer to a question that was not asked"));
        }
        self.outbox.control(&Frame::Survey(SurveyFrame::Tell(answer)));
        Ok(())
    }

    pub(super) fn handle_survey(&mut self, frame: SurveyFrame) -> Result<(), Misbehaved> {
        let kind = frame.kind();
        match frame {
            SurveyFrame::Ask { digest, question } if self.surveying.wants(question) => {
                self.events.push_back(Event::SurveyWanted { digest, question });
            }
            SurveyFrame::Tell(answer) if self.surveying.answered(&answer) => {
                self.events.push_back(Event::Surveyed(answer));
            }
            _ => return Err(Misbehaved::OutOfTurn { kind }),
        }
        Ok(())
    }
}
