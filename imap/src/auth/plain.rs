//! PLAIN: name and password in one message (RFC 4616).

use super::user_name::UserName;

/// The message of PLAIN, `[authzid] NUL authcid NUL passwd`, borrowed from a response that is erased later.
pub(super) struct Plain<'a> {
    /// As whom to act; absent means as the one who logs in.
    pub(super) authzid: Option<UserName>,
    /// Who logs in.
    pub(super) name: UserName,
    /// The password as the client sent it: it should be UTF-8, but is not of every client.
    pub(super) password: &'a [u8],
}

impl Plain<'_> {
    /// Reads a message; nothing if it is none, or if a name in it is a name that no user can have.
    pub(super) fn parse(message: &[u8]) -> Option<Plain<'_>> {
        let mut parts = message.split(|byte| *byte == 0);
        let (authzid, name, password) = (parts.next()?, parts.next()?, parts.next()?);
        if parts.next().is_some() || password.is_empty() {
            return None;
        }
        let user_name = |bytes| std::str::from_utf8(bytes).ok()?.parse().ok();
        let authzid = if authzid.is_empty() { None } else { Some(user_name(authzid)?) };
        Some(Plain { authzid, name: user_name(name)?, password })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_read() {
        for (message, authzid, name, password) in [
            (&b"\0tim\0tanstaaftanstaaf"[..], None, "tim", &b"tanstaaftanstaaf"[..]),
            (b"Ursel\0Kurt\0xipj3plmq", Some("Ursel"), "Kurt", b"xipj3plmq"),
            (b"\0tim\0gr\xfc\xdfe", None, "tim", b"gr\xfc\xdfe"),
        ] {
            let plain = Plain::parse(message).unwrap();
            assert_eq!(plain.authzid.as_ref().map(UserName::as_str), authzid);
            assert_eq!((plain.name.as_str(), plain.password), (name, password));
        }
    }

    #[test]
    fn what_is_no_message_is_refused() {
        let long = format!("\0{}\0pw", "n".repeat(256));
        for message in [
            &b""[..],
            b"tim",
            b"tim\0pw",
            b"\0tim\0",
            b"\0\0pw",
            b"\0tim\0pw\0",
            b"\0tim\0p\0w",
            b"\0t\xffm\0pw",
            b"\xff\0tim\0pw",
            b"\0t\nm\0pw",
            long.as_bytes(),
        ] {
            assert!(Plain::parse(message).is_none(), "{}", message.escape_ascii());
        }
    }
}
