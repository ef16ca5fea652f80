//! TLS for clients: a certificate and key from files, read again when they change.

use std::fs::File;
use std::io::BufReader;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::TlsAcceptor;

use super::{Io, now};
use crate::auth::Bindings;

/// How often the files are looked at. A renewed certificate is valid long before the old one ends.
const LOOK_AGAIN: Duration = Duration::from_secs(10);

/// Why there is no TLS.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file could not be read.
    #[error("cannot read {path}", path = path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// A file holds no certificate, or no private key.
    #[error("{path} holds no {what} in PEM form", path = path.display())]
    Missing {
        /// What was looked for.
        what: &'static str,
        /// The file.
        path: PathBuf,
    },
    /// They do not fit together, or their kind is unknown.
    #[error("the certificate in {certificate} and the key in {key} are of no use", certificate = certificate.display(), key = key.display())]
    Unusable {
        /// The file of the certificate.
        certificate: PathBuf,
        /// The file of the key.
        key: PathBuf,
        /// What TLS said.
        source: rustls::Error,
    },
}

struct Loaded {
    certificate: PathBuf,
    key: PathBuf,
    config: Arc<ServerConfig>,
    changed: [Option<SystemTime>; 2],
    looked: Instant,
}

impl Loaded {
    fn read(certificate: &Path, key: &Path) -> Result<Loaded, TlsError> {
        // Before they are read: what changes meanwhile is read again.
        let changed = [modified(certificate), modified(key)];
        let config = read(certificate, key)?;
        Ok(Loaded { certificate: certificate.into(), key: key.into(), config, changed, looked: now() })
    }
}

/// A server's certificate.
pub struct Tls {
    loaded: Mutex<Loaded>,
}

impl Tls {
    /// Reads a certificate chain and its key, both in PEM form.
    pub fn load(certificate: &Path, key: &Path) -> Result<Tls, TlsError> {
        Ok(Tls { loaded: Mutex::new(Loaded::read(certificate, key)?) })
    }

    /// Reads them again now, or others. If they cannot be used, the last good ones stay.
    pub fn reload(&self, certificate: &Path, key: &Path) -> Result<(), TlsError> {
        let loaded = Loaded::read(certificate, key)?;
        *self.loaded.lock().unwrap_or_else(PoisonError::into_inner) = loaded;
        Ok(())
    }

    /// The files' state at `now`, or a little before. One that cannot be used is reported and the last good one stays.
    fn config(&self, now: Instant) -> Arc<ServerConfig> {
        let mut loaded = self.loaded.lock().unwrap_or_else(PoisonError::into_inner);
        if now.saturating_duration_since(loaded.looked) >= LOOK_AGAIN {
            loaded.looked = now;
            let changed = [modified(&loaded.certificate), modified(&loaded.key)];
            if changed != loaded.changed {
                match read(&loaded.certificate, &loaded.key) {
                    Ok(config) => {
                        (loaded.config, loaded.changed) = (config, changed);
                        tracing::info!(certificate = %loaded.certificate.display(), "took the new certificate");
                    }
                    Err(error) => tracing::error!(%error, "keeping the old certificate"),
                }
            }
        }
        loaded.config.clone()
    }

    pub(super) async fn accept(&self, io: Box<dyn Io>) -> std::io::Result<(Box<dyn Io>, Bindings)> {
        let stream = TlsAcceptor::from(self.config(now())).accept(io).await?;
        let (_, connection) = stream.get_ref();
        // RFC 9266; before TLS 1.3 it needs an extended master secret, of which this library does not tell.
        let exporter = match connection.protocol_version() {
            Some(rustls::ProtocolVersion::TLSv1_3) => {
                connection.export_keying_material([0; 32], b"EXPORTER-Channel-Binding", Some(b"")).ok()
            }
            _ => None,
        };
        Ok((Box::new(stream), Bindings { exporter, server_end_point: None }))
    }
}

fn modified(path: &Path) -> Option<SystemTime> {
    std::fs::metadata(path).and_then(|found| found.modified()).ok()
}

fn read(certificate: &Path, key: &Path) -> Result<Arc<ServerConfig>, TlsError> {
    let open = |path: &Path| match File::open(path) {
        Ok(file) => Ok(BufReader::new(file)),
        Err(source) => Err(TlsError::Read { path: path.into(), source }),
    };
    let chain: Result<Vec<_>, _> = CertificateDer::pem_reader_iter(open(certificate)?).collect();
    let chain = chain.ok().filter(|chain| !chain.is_empty());
    let chain = chain.ok_or_else(|| TlsError::Missing { what: "certificate", path: certificate.into() })?;
    let secret = PrivateKeyDer::from_pem_reader(open(key)?);
    let secret = secret.map_err(|_| TlsError::Missing { what: "private key", path: key.into() })?;
    let unusable = |source| TlsError::Unusable { certificate: certificate.into(), key: key.into(), source };
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(unusable)?
        .with_no_client_auth()
        .with_single_cert(chain, secret)
        .map_err(unusable)?;
    Ok(Arc::new(config))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Writes a new certificate, or its key, as of so many seconds after 2001.
    fn write(path: &Path, text: &str, seconds: u64) {
        std::fs::write(path, text).unwrap();
        let changed = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000_000 + seconds);
        File::options().write(true).open(path).unwrap().set_modified(changed).unwrap();
    }

    #[test]
    fn a_renewed_certificate_is_taken_once_it_fits_its_key() {
        let dir = tempfile::tempdir().unwrap();
        let (certificate, key) = (dir.path().join("chain.pem"), dir.path().join("key.pem"));
        let make = || rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        let (old, new) = (make(), make());
        write(&certificate, &old.cert.pem(), 0);
        write(&key, &old.signing_key.serialize_pem(), 0);
        let tls = Tls::load(&certificate, &key).unwrap();
        let start = tls.loaded.lock().unwrap().looked;
        let at = |looks: u32| tls.config(start + LOOK_AGAIN * looks);
        let first = at(0);

        assert!(Arc::ptr_eq(&first, &at(1)), "nothing has changed");
        write(&certificate, &new.cert.pem(), 1);
        assert!(Arc::ptr_eq(&first, &at(1)), "it is not time to look yet");
        assert!(Arc::ptr_eq(&first, &at(2)), "the key is still that of the old certificate");
        write(&key, &new.signing_key.serialize_pem(), 1);
        let second = at(3);
        assert!(!Arc::ptr_eq(&first, &second), "both are new");
        assert!(Arc::ptr_eq(&second, &at(4)), "nothing has changed since");
        std::fs::remove_file(&key).unwrap();
        assert!(Arc::ptr_eq(&second, &at(5)), "no key, no change");

        assert!(tls.reload(&certificate, &key).is_err());
        assert!(Arc::ptr_eq(&second, &at(5)), "the last good ones stay");
        let other = dir.path().join("other.pem");
        write(&other, &new.signing_key.serialize_pem(), 1);
        tls.reload(&certificate, &other).unwrap();
        let now = tls.loaded.lock().unwrap().looked;
        assert!(!Arc::ptr_eq(&second, &tls.config(now)), "it was asked to look, at other files");
    }

    #[test]
    fn files_of_no_use_are_told_apart() {
        let dir = tempfile::tempdir().unwrap();
        let (certificate, key) = (dir.path().join("chain.pem"), dir.path().join("key.pem"));
        let error = || Tls::load(&certificate, &key).err().unwrap().to_string();
        assert!(error().starts_with("cannot read "), "{}", error());
        write(&certificate, "", 0);
        write(&key, "", 0);
        assert!(error().contains("holds no certificate"), "{}", error());
        let [one, other] =
            [0, 1].map(|_| rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap());
        write(&certificate, &one.cert.pem(), 0);
        assert!(error().contains("holds no private key"), "{}", error());
        write(&key, &other.signing_key.serialize_pem(), 0);
        assert!(error().contains("are of no use"), "{}", error());
    }
}
