//! The configuration file, which `serve` reads again when it is told to.

use std::num::{NonZeroU64, NonZeroUsize};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::Context as _;
use postmerge::replica::Retention;
use postmerge_imap::{Limits, SessionLimits};
use serde::Deserialize;

/// What can be set once instead of with each command.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Config {
    /// Where `serve` listens, as `ADDR:PORT`.
    pub(crate) listen: Option<String>,
    /// What peers call this machine; else its host name.
    pub(crate) name: Option<String>,
    /// Where peers reach this machine, as `HOST:PORT`.
    pub(crate) addresses: Vec<String>,
    /// Further stores that `serve` hosts, beside the one it is started for.
    pub(crate) host: Vec<PathBuf>,
    /// How many messages a run over a Maildir may remove without asking.
    pub(crate) removals: Option<u64>,
    /// How many of a hundred it may remove, if those are more.
    pub(crate) removals_percent: Option<u64>,
    /// For how long the bodies of expunged messages are kept: days, or "forever".
    pub(crate) keep_expunged: KeepExpunged,
    /// Bytes a second that `serve` reads again to see that they are whole; 0 is not at all.
    pub(crate) scrub_rate: Option<u64>,
    /// Where `serve` serves IMAP, as `ADDR:PORT`.
    pub(crate) imap: Option<String>,
    /// Where `serve` serves IMAP over TLS, as `ADDR:PORT`.
    pub(crate) imaps: Option<String>,
    /// Whether passwords are taken in the clear on addresses that other machines reach.
    pub(crate) imap_cleartext: bool,
    /// What mail clients may cost.
    pub(crate) imap_limits: ImapLimits,
    /// Where `serve` takes mail over LMTP: a path or `ADDR:PORT`.
    pub(crate) lmtp: Option<String>,
    /// The mode of that Unix socket, in octal.
    pub(crate) lmtp_mode: Option<String>,
    /// Whether LMTP may listen on addresses that other machines reach.
    pub(crate) lmtp_remote: bool,
    /// The certificate chain for IMAP, a PEM file.
    pub(crate) tls_cert: Option<PathBuf>,
    /// Its private key, a PEM file.
    pub(crate) tls_key: Option<PathBuf>,
    /// Where `serve` shows figures for Prometheus, as `ADDR:PORT` of this machine.
    pub(crate) metrics: Option<String>,
    /// Which events `serve` tells of, as `POSTMERGE_LOG` says it.
    pub(crate) log: Option<String>,
}

/// For how long the bodies of expunged messages are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct KeepExpunged(pub(crate) Retention);

impl Default for KeepExpunged {
    fn default() -> KeepExpunged {
        KeepExpunged(Retention::USUAL)
    }
}

impl std::str::FromStr for KeepExpunged {
    type Err = String;

    fn from_str(text: &str) -> Result<KeepExpunged, String> {
        match (text, text.parse()) {
            ("forever", _) => Ok(KeepExpunged(Retention::FOREVER)),
            (_, Ok(days)) => Ok(KeepExpunged(Retention::days(days))),
            _ => Err(format!("{text:?} is neither a number of days nor \"forever\"")),
        }
    }
}

impl<'de> Deserialize<'de> for KeepExpunged {
    fn deserialize<D: serde::Deserializer<'de>>(source: D) -> Result<KeepExpunged, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Said {
            Days(u32),
            Text(String),
        }
        match Said::deserialize(source)? {
            Said::Days(days) => Ok(KeepExpunged(Retention::days(days))),
            Said::Text(text) => text.parse().map_err(serde::de::Error::custom),
        }
    }
}

/// What mail clients may cost; what is not said is as `docs/imap.md` has it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct ImapLimits {
    /// Connections at once.
    pub(crate) connections: Option<NonZeroUsize>,
    /// Connections at once from one address; more where many clients come through one.
    pub(crate) connections_per_address: Option<NonZeroUsize>,
    /// Bytes of a command after login, without its literals.
    pub(crate) command: Option<NonZeroUsize>,
    /// Bytes of the literals of a command together, messages apart.
    pub(crate) literals: Option<NonZeroUsize>,
    /// Bytes of refused literals that are read and thrown away.
    pub(crate) discarded: Option<NonZeroU64>,
    /// Bytes of a message that APPEND takes.
    pub(crate) message: Option<NonZeroU64>,
    /// Messages of one APPEND.
    pub(crate) messages: Option<NonZeroUsize>,
    /// Keys of a SEARCH.
    pub(crate) search_keys: Option<NonZeroUsize>,
}

impl ImapLimits {
    /// Those of the whole server.
    pub(crate) fn server(&self) -> Limits {
        let mut limits = Limits::default();
        set(&mut limits.connections, self.connections);
        set(&mut limits.connections_per_address, self.connections_per_address);
        limits
    }

    /// Those of one session.
    pub(crate) fn session(&self) -> SessionLimits {
        let mut limits = SessionLimits::default();
        set(&mut limits.command.line, self.command);
        set(&mut limits.command.literals, self.literals);
        set(&mut limits.command.swallow, self.discarded);
        set(&mut limits.message, self.message);
        set(&mut limits.messages, self.messages);
        set(&mut limits.search_keys, self.search_keys);
        limits
    }
}

fn set<T>(limit: &mut T, said: Option<impl Into<T>>) {
    if let Some(said) = said {
        *limit = said.into();
    }
}

impl Config {
    /// Where `serve` listens if nothing else is said: every address, IPv6 and IPv4.
    pub(crate) const LISTEN: &str = "[::]:7367";

    /// Bytes a second that a scrub reads if nothing else is said: ten gigabytes in half a day, and a hundredth of a core.
    pub(crate) const SCRUB_RATE: u64 = 256 << 10;

    /// Reads the file; one that is not there sets nothing, unless it was asked for by name.
    pub(crate) fn read(path: &Path, must_exist: bool) -> anyhow::Result<Config> {
        match std::fs::read_to_string(path) {
            Ok(text) => Config::parse(&text).with_context(|| format!("cannot use {}", path.display())),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound && !must_exist => {
                Ok(Config::default())
            }
            Err(error) => Err(error).with_context(|| format!("cannot read {}", path.display())),
        }
    }

    /// What differs in `new` and is taken up by a restart only: sockets that are open and stores that are held stay as they
    /// are.
    pub(crate) fn waits_for_restart(&self, new: &Config) -> Vec<&'static str> {
        let differs = [
            ("listen", self.listen != new.listen),
            ("host", self.host != new.host),
            ("removals", self.removals != new.removals),
            ("removals_percent", self.removals_percent != new.removals_percent),
            ("imap", self.imap != new.imap),
            ("imaps", self.imaps != new.imaps),
            ("imap_limits", self.imap_limits.session() != new.imap_limits.session()),
            ("imap_cleartext", self.imap_cleartext != new.imap_cleartext),
            ("lmtp", self.lmtp != new.lmtp),
            ("lmtp_mode", self.lmtp_mode != new.lmtp_mode),
            ("lmtp_remote", self.lmtp_remote != new.lmtp_remote),
            ("metrics", self.metrics != new.metrics),
        ];
        differs.into_iter().filter(|(_, differs)| *differs).map(|(key, _)| key).collect()
    }

    fn parse(text: &str) -> anyhow::Result<Config> {
        Ok(toml::from_str(text)?)
    }
}

/// The configuration as it is now. Clones share it.
#[derive(Clone)]
pub(crate) struct Current {
    /// The file, and whether it must be there.
    file: Option<(PathBuf, bool)>,
    config: Arc<Mutex<Arc<Config>>>,
}

impl Current {
    /// Reads the file, if there is a place for one.
    pub(crate) fn read(file: Option<(PathBuf, bool)>) -> anyhow::Result<Current> {
        let current = Current { file, config: Arc::default() };
        current.replace(current.read_again()?);
        Ok(current)
    }

    /// What was taken last.
    pub(crate) fn now(&self) -> Arc<Config> {
        self.config.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// What the file says by now.
    pub(crate) fn read_again(&self) -> anyhow::Result<Config> {
        match &self.file {
            Some((file, must_exist)) => Config::read(file, *must_exist),
            None => Ok(Config::default()),
        }
    }

    /// Takes another one.
    pub(crate) fn replace(&self, config: Config) {
        *self.config.lock().unwrap_or_else(PoisonError::into_inner) = Arc::new(config);
    }
}

#[cfg(test)]
mod tests {
    use postmerge_imap::grammar;

    use super::*;

    #[test]
    fn a_name_that_nobody_knows_is_refused() {
        let text = "listen = \"127.0.0.1:1\"\nname = \"desktop\"\naddresses = [\"mail.example:7367\"]\n";
        let config = Config::parse(text).unwrap();
        assert_eq!((config.name.as_deref(), config.addresses.len()), (Some("desktop"), 1));
        let config =
            Config::parse("imaps = \"[::]:993\"\ntls_cert = \"chain.pem\"\ntls_key = \"key.pem\"\n").unwrap();
        assert_eq!(config.tls_cert.as_deref(), Some(Path::new("chain.pem")));
        assert!(!config.imap_cleartext, "passwords in the clear are asked for by name");
        let keep = |text: &str| Config::parse(text).map(|config| config.keep_expunged.0);
        assert_eq!(keep("").unwrap(), Retention::days(30));
        assert_eq!(keep("keep_expunged = 7").unwrap(), Retention::days(7));
        assert_eq!(keep("keep_expunged = \"forever\"").unwrap(), Retention::FOREVER);
        assert!(keep("keep_expunged = -1").is_err() && keep("keep_expunged = \"never\"").is_err());
        assert!(Config::parse("listne = \"127.0.0.1:1\"").is_err());
        assert_eq!(Config::parse("").unwrap(), Config::default());
    }

    #[test]
    fn each_limit_of_imap_can_be_said_and_the_others_stay() {
        let parse = |text: &str| Config::parse(&format!("[imap_limits]\n{text}\n")).map(|it| it.imap_limits);
        let server = |text| {
            let limits = parse(text).unwrap().server();
            (limits.connections, limits.connections_per_address)
        };
        assert_eq!(server(""), (4096, 64));
        assert_eq!(server("connections = 9"), (9, 64));
        assert_eq!(server("connections_per_address = 9"), (4096, 9));
        let usual = SessionLimits::default();
        assert_eq!(parse("").unwrap().session(), usual);
        let command = usual.command;
        for (key, limits) in [
            ("command", SessionLimits { command: grammar::Limits { line: 9, ..command }, ..usual }),
            ("literals", SessionLimits { command: grammar::Limits { literals: 9, ..command }, ..usual }),
            ("discarded", SessionLimits { command: grammar::Limits { swallow: 9, ..command }, ..usual }),
            ("message", SessionLimits { message: 9, ..usual }),
            ("messages", SessionLimits { messages: 9, ..usual }),
            ("search_keys", SessionLimits { search_keys: 9, ..usual }),
        ] {
            assert_eq!(parse(&format!("{key} = 9")).unwrap().session(), limits, "{key}");
            assert!(parse(&format!("{key} = 0")).is_err(), "{key}");
        }
        assert!(parse("comand = 9").is_err());
    }
}
