//! The mail that ships with the program: many charsets, attachments, threads, and things that are slightly wrong.

use mail_parser::MessageParser;

use crate::text;

/// A message of the demo.
#[derive(Clone, Copy)]
pub(super) struct Mail {
    /// Its file.
    pub(super) file: &'static str,
    /// Its bytes.
    pub(super) raw: &'static [u8],
}

macro_rules! mail {
    ($file:literal) => {
        Mail { file: $file, raw: include_bytes!(concat!("../../../demo-mail/", $file)) }
    };
}

/// All of it, by number.
pub(super) const ALL: [Mail; 36] = [
    mail!("01-welcome.eml"),
    mail!("02-re-welcome.eml"),
    mail!("03-gauge-utf8.eml"),
    mail!("04-speisekarte-latin1.eml"),
    mail!("05-photo-plan-base64.eml"),
    mail!("06-tokyo-iso2022jp.eml"),
    mail!("07-long-encoded-subject.eml"),
    mail!("08-newsletter-alternative.eml"),
    mail!("09-png-attachment.eml"),
    mail!("10-invoice-pdf.eml"),
    mail!("11-calendar-invitation.eml"),
    mail!("12-calendar-reply.eml"),
    mail!("13-list-datum-question.eml"),
    mail!("14-list-datum-reply-1.eml"),
    mail!("15-list-datum-reply-2.eml"),
    mail!("16-list-datum-reply-3.eml"),
    mail!("17-list-datum-mine.eml"),
    mail!("18-list-datum-tangent.eml"),
    mail!("19-no-message-id.eml"),
    mail!("20-no-date.eml"),
    mail!("21-bounce.eml"),
    mail!("22-resent-gauge.eml"),
    mail!("23-long-references.eml"),
    mail!("24-flowed.eml"),
    mail!("25-html-only.eml"),
    mail!("26-related-inline-image.eml"),
    mail!("27-from-lines.eml"),
    mail!("28-group-address.eml"),
    mail!("29-signed.eml"),
    mail!("30-koi8-r.eml"),
    mail!("31-draft.eml"),
    mail!("32-empty-body.eml"),
    mail!("33-odd-headers.eml"),
    mail!("34-spam.eml"),
    mail!("35-utf8-headers.eml"),
    mail!("36-undeclared-latin1.eml"),
];

/// When mail arrives that does not say when it was sent: a day in 2026.
const SOME_DAY: i64 = 1_772_700_000;

impl Mail {
    /// The message whose file starts with a number.
    pub(super) fn number(number: &str) -> Mail {
        *ALL.iter().find(|mail| mail.file.starts_with(number)).expect("the demo has the message")
    }

    /// When it was sent.
    pub(super) fn date(&self) -> i64 {
        let parsed = MessageParser::new().parse_headers(self.raw);
        parsed.and_then(|message| Some(message.date()?.to_timestamp())).unwrap_or(SOME_DAY)
    }

    /// Where it belongs.
    pub(super) fn mailbox(&self) -> &'static str {
        match &self.file[..2] {
            "13" | "14" | "15" | "16" | "17" | "18" => "Lists",
            "31" => "Drafts",
            "34" => "Junk",
            "09" | "10" | "26" => "Archive",
            _ => "INBOX",
        }
    }
}

/// A message's subject, for people to read.
pub(super) fn subject(raw: &[u8]) -> String {
    let parsed = MessageParser::new().parse_headers(raw);
    let subject = parsed.as_ref().and_then(|message| message.subject()).unwrap_or("");
    match subject.trim() {
        "" => "(no subject)".into(),
        subject => text::tame(subject, 34),
    }
}
