//! The server against RFC 7677's exchange, against a client of its own, and against messages that break rules.

use proptest::prelude::*;
use ring::{digest, hmac, pbkdf2};

use super::*;
use crate::auth::Bindings;
use crate::auth::testing::authenticator;

const CLEAR: Channel = Channel::Clear { passwords: false };

/// What a client computes, written from RFC 5802, section 3, apart from the server's code.
struct Client<'a> {
    password: &'a [u8],
    header: &'a str,
    bare: String,
    bound: &'a [u8],
}

impl<'a> Client<'a> {
    fn new(header: &'a str, name: &str, password: &'a [u8]) -> Client<'a> {
        Client { password, header, bare: format!("n={name},r=client"), bound: b"" }
    }

    fn bound_to(self, bound: &'a [u8]) -> Client<'a> {
        Client { bound, ..self }
    }

    fn first(&self) -> String {
        format!("{}{}", self.header, self.bare)
    }

    /// Gives client-final and the server-final that it then expects.
    fn last(&self, server_first: &str) -> (String, String) {
        let parts: Vec<&str> = server_first.split(',').collect();
        let [nonce, salt, iterations] = parts[..] else { panic!("{server_first}") };
        let salt = BASE64.decode(&salt.as_bytes()[2..]).unwrap();
        let mut salted = [0; 32];
        let iterations = iterations[2..].parse().unwrap();
        pbkdf2::derive(pbkdf2::PBKDF2_HMAC_SHA256, iterations, &salt, self.password, &mut salted);
        let sign = |key: &[u8], text: &[u8]| hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key), text);

        let binding = BASE64.encode(&[self.header.as_bytes(), self.bound].concat());
        let without_proof = format!("c={binding},{nonce}");
        let auth_message = format!("{},{server_first},{without_proof}", self.bare);
        let client_key = sign(&salted, b"Client Key");
        let stored_key = digest::digest(&digest::SHA256, client_key.as_ref());
        let signature = sign(stored_key.as_ref(), auth_message.as_bytes());
        let proof: Vec<u8> = client_key.as_ref().iter().zip(signature.as_ref()).map(|(a, b)| a ^ b).collect();
        let server_key = sign(&salted, b"Server Key");
        let server_signature = sign(server_key.as_ref(), auth_message.as_bytes());
        (
            format!("{without_proof},p={}", BASE64.encode(&proof)),
            format!("v={}", BASE64.encode(server_signature.as_ref())),
        )
    }
}

fn tls() -> Channel {
    Channel::Tls(Bindings { exporter: Some([5; 32]), server_end_point: Some([6; 48].into()) })
}

fn nonce() -> ServerNonce {
    ServerNonce::from_bytes([3; 18])
}

fn start(message: &[u8], plus: bool, channel: &Channel) -> Result<(String, Scram), ScramError> {
    Scram::start(message, plus, channel, &authenticator(), nonce())
}

/// Runs client against server; gives who logged in.
fn run(client: &Client<'_>, plus: bool, channel: &Channel) -> Result<String, ScramError> {
    let (server_first, server) = start(client.first().as_bytes(), plus, channel)?;
    let (client_final, expected) = client.last(&server_first);
    let (server_final, user) = server.finish(client_final.as_bytes())?;
    assert_eq!(server_final, expected, "the client would refuse this server");
    Ok(user.name().to_string())
}

#[test]
fn the_exchange_of_rfc_7677() {
    let nonce = ServerNonce("%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0".into());
    let first = b"n,,n=user,r=rOprNGfwEbeRWgbNEkqO";
    let (server_first, server) = Scram::start(first, false, &CLEAR, &authenticator(), nonce).unwrap();
    assert_eq!(
        server_first,
        "r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096"
    );
    let last = b"c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,\
        p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=";
    let (server_final, user) = server.finish(last).unwrap();
    assert_eq!(server_final, "v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=");
    assert_eq!(user.name().as_str(), "user");
}

#[test]
fn a_client_logs_in_with_and_without_binding() {
    for (header, bound, plus, channel) in [
        ("n,,", &[][..], false, CLEAR),
        ("y,,", &[], false, CLEAR),
        ("n,a=user,", &[], false, CLEAR),
        ("n,,", &[], false, tls()),
        ("y,,", &[], false, Channel::Tls(Bindings::default())),
        ("p=tls-exporter,,", &[5; 32], true, tls()),
        ("p=tls-server-end-point,a=user,", &[6; 48], true, tls()),
    ] {
        let client = Client::new(header, "user", b"pencil").bound_to(bound);
        assert_eq!(run(&client, plus, &channel), Ok("user".into()), "{header} {channel:?}");
    }
    assert_eq!(
        run(&Client::new("n,a=a=2Cb=3Dc,", "a=2Cb=3Dc", b"pencil"), false, &CLEAR),
        Ok("a,b=c".into())
    );
}

#[test]
fn wrong_passwords_names_and_bindings_fail() {
    use ScramError::*;
    for (header, name, password, bound, plus, channel, why) in [
        ("n,,", "user", "pen", &[][..], false, CLEAR, Proof),
        ("n,,", "nobody", "pencil", &[], false, CLEAR, Proof),
        ("p=tls-exporter,,", "user", "pen", &[5; 32], true, tls(), Proof),
        ("p=tls-exporter,,", "user", "pencil", &[4; 32], true, tls(), BindingsDiffer),
        ("p=tls-exporter,,", "user", "pencil", &[], true, tls(), BindingsDiffer),
        ("p=tls-exporter,,", "user", "pencil", &[6; 48], true, tls(), BindingsDiffer),
        ("n,,", "user", "pencil", &[5; 32], false, tls(), BindingsDiffer),
    ] {
        let client = Client::new(header, name, password.as_bytes()).bound_to(bound);
        assert_eq!(run(&client, plus, &channel), Err(why), "{header} {name} {password}");
    }
}

#[test]
fn a_downgrade_is_refused() {
    use ScramError::*;
    let only_end_point = Channel::Tls(Bindings { server_end_point: Some([6; 48].into()), exporter: None });
    for (flag, plus, channel, why) in [
        ("y", false, tls(), BindingOffered),
        ("y", true, tls(), BindingOffered),
        ("n", true, tls(), BindingOffered),
        ("p=tls-exporter", false, tls(), BindingWithoutPlus),
        ("p=tls-exporter", false, CLEAR, BindingWithoutPlus),
        ("p=tls-exporter", true, only_end_point, BindingType),
        ("p=tls-unique", true, tls(), BindingType),
    ] {
        let message = format!("{flag},,n=user,r=x");
        assert_eq!(start(message.as_bytes(), plus, &channel).map(drop), Err(why), "{flag} {plus}");
    }
    // Somebody took PLUS out of the list and made the client's `y` into `n`: then `c=` differs.
    let (server_first, server) = start(b"n,,n=user,r=client", false, &tls()).unwrap();
    let (client_final, _) = Client::new("y,,", "user", b"pencil").last(&server_first);
    assert_eq!(server.finish(client_final.as_bytes()).map(drop), Err(BindingsDiffer));
}

#[test]
fn bad_first_messages_are_refused() {
    use ScramError::*;
    for (message, why) in [
        (&b""[..], Encoding),
        (b",", Encoding),
        (b"n,,", Encoding),
        (b"n=user,r=x", Encoding),
        (b"n,n=user,r=x", Encoding),
        (b"N,,n=user,r=x", Encoding),
        (b"x,,n=user,r=x", Encoding),
        (b"nn,,n=user,r=x", Encoding),
        (b"p,,n=user,r=x", Encoding),
        (b"p=,,n=user,r=x", Encoding),
        (b"p=tls exporter,,n=user,r=x", Encoding),
        (b"n,user,n=user,r=x", Encoding),
        (b"n,a=,n=user,r=x", UserName),
        (b"n,a=other,n=user,r=x", Authzid),
        (b"n,,m=ext,n=user,r=x", Extension),
        (b"n,,n=user,m=ext,r=x", Extension),
        (b"n,,n=user,r=x,m=ext", Extension),
        (b"n,,r=x,n=user", Encoding),
        (b"n,,n=user", Encoding),
        (b"n,,n=user,r=", Encoding),
        (b"n,,n=user,r=a b", Encoding),
        (b"n,,n=user,r=\x7f", Encoding),
        (b"n,,n=user,r=\xc3\xa9", Encoding),
        (b"n,,n=user,r=x,", Encoding),
        (b"n,,n=user,r=x,a", Encoding),
        (b"n,,n=user,r=x,a=", Encoding),
        (b"n,,n=user,r=x,1=a", Encoding),
        (b"n,,n=,r=x", UserName),
        (b"n,,n=us=er,r=x", UserName),
        (b"n,,n=user=,r=x", UserName),
        (b"n,,n=user=2,r=x", UserName),
        (b"n,,n=a=2cb=3dc,r=x", UserName),
        (b"n,,n=us\ner,r=x", UserName),
        (b"n,,n=us\0er,r=x", Encoding),
        (b"n,,n=us\xffer,r=x", Encoding),
    ] {
        assert_eq!(start(message, false, &CLEAR).map(drop), Err(why), "{}", message.escape_ascii());
    }
    assert!(start(b"n,,n=user,r=x,a=b,Z=c=d", false, &CLEAR).is_ok(), "optional extensions are passed over");
}

#[test]
fn bad_final_messages_are_refused() {
    use ScramError::*;
    let client = Client::new("n,,", "user", b"pencil");
    let (server_first, _) = start(client.first().as_bytes(), false, &CLEAR).unwrap();
    let (good, _) = client.last(&server_first);
    for (from, to, why) in [
        ("c=biws", "c=biw", Encoding),
        ("c=biws", "c=", BindingsDiffer),
        ("c=biws", "c=eSws", BindingsDiffer),
        ("c=biws,", "", Encoding),
        ("c=biws", "m=x,c=biws", Extension),
        ("r=client", "r=Client", Nonce),
        ("r=client", "r=client!", Nonce),
        ("r=client", "q=client", Encoding),
        (",p=", ",m=x,p=", Extension),
        (",p=", ",x,p=", Encoding),
        // It is signed with the rest, so adding it on the way breaks the proof.
        (",p=", ",x=y,p=", Proof),
        (",p=", ",p=AAAA,p=", Proof),
        (",p=", ",q=", Encoding),
        (",p=", ",p=A", Encoding),
        (",p=", ",p=AAAA", Encoding),
        (",p=", ",p= ", Encoding),
    ] {
        let (_, server) = start(client.first().as_bytes(), false, &CLEAR).unwrap();
        let bad = good.replacen(from, to, 1);
        assert_ne!(bad, good);
        assert_eq!(server.finish(bad.as_bytes()).map(drop), Err(why), "{bad}");
    }
    let (_, server) = start(client.first().as_bytes(), false, &CLEAR).unwrap();
    assert_eq!(server.finish(b"").map(drop), Err(Encoding));
    let (_, server) = start(client.first().as_bytes(), false, &CLEAR).unwrap();
    assert!(server.finish(good.as_bytes()).is_ok());
}

#[test]
fn an_answer_does_not_serve_another_login() {
    let client = Client::new("n,,", "user", b"pencil");
    let (server_first, _) = start(client.first().as_bytes(), false, &CLEAR).unwrap();
    let (overheard, _) = client.last(&server_first);
    let other = ServerNonce::from_bytes([4; 18]);
    let (_, later) = Scram::start(client.first().as_bytes(), false, &CLEAR, &authenticator(), other).unwrap();
    assert_eq!(later.finish(overheard.as_bytes()).map(drop), Err(ScramError::Nonce));
}

#[test]
fn nobody_looks_like_somebody() {
    let (known, _) = start(b"n,,n=user,r=x", false, &CLEAR).unwrap();
    let (unknown, _) = start(b"n,,n=nobody,r=x", false, &CLEAR).unwrap();
    let (again, _) = start(b"n,,n=nobody,r=x", false, &CLEAR).unwrap();
    assert_eq!(unknown, again);
    assert_ne!(known, unknown);
    let shape = |text: &str| (text.len(), text.rsplit_once(',').unwrap().1.to_owned());
    assert_eq!(shape(&known), shape(&unknown));
}

proptest! {
    #[test]
    fn any_bytes_are_answered(first: Vec<u8>, last: Vec<u8>, plus: bool) {
        let _ = start(&first, plus, &tls()).map(drop);
        let (_, server) = start(b"n,,n=user,r=x", false, &CLEAR).unwrap();
        prop_assert!(server.finish(&last).is_err());
    }

    #[test]
    fn almost_messages_are_answered(first in "[nyp],,(n=[a=2C3D]{0,6},r=x){0,2}(,[a-m]=.{0,2}){0,2}") {
        let _ = start(first.as_bytes(), false, &CLEAR).map(drop);
    }

    #[test]
    fn a_changed_answer_opens_nothing(at in 0_usize..100, to: u8) {
        let client = Client::new("n,,", "user", b"pencil");
        let (server_first, server) = start(client.first().as_bytes(), false, &CLEAR).unwrap();
        let mut answer = client.last(&server_first).0.into_bytes();
        let at = at % answer.len();
        prop_assume!(answer[at] != to);
        answer[at] = to;
        prop_assert!(server.finish(&answer).is_err());
    }
}
