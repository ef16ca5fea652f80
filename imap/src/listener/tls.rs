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
    config: Arc<ServerConfig>,
    changed: [Option<SystemTime>; 2],
    looked: Instant,
}

/// A server's certificate.
pub struct Tls {
    certificate: PathBuf,
    key: PathBuf,
    loaded: Mutex<Loaded>,
}

impl Tls {
    /// Reads a certificate chain and its key, both in PEM form.
    pub fn load(certificate: &Path, key: &Path) -> Result<Tls, TlsError> {
        let changed = [modified(certificate), modified(key)];
        let loaded = Mutex::new(Loaded { config: read(certificate, key)?, changed, looked: now() });
        Ok(Tls { certificate: certificate.into(), key: key.into(), loaded })
    }

    /// The files' state of now. One that cannot be used is reported and the last good one stays.
    fn config(&self) -> Arc<ServerConfig> {
        let mut loaded = self.loaded.lock().unwrap_or_else(PoisonError::into_inner);
        if now().duration_since(loaded.looked) >= LOOK_AGAIN {
            loaded.looked = now();
            let changed = [modified(&self.certificate), modified(&self.key)];
            if changed != loaded.changed {
                match read(&self.certificate, &self.key) {
                    Ok(config) => {
                        (loaded.config, loaded.changed) = (config, changed);
                        tracing::info!(certificate = %self.certificate.display(), "took the new certificate");
                    }
                    Err(error) => tracing::error!(%error, "keeping the old certificate"),
                }
            }
        }
        loaded.config.clone()
    }

    pub(super) async fn accept(&self, io: Box<dyn Io>) -> std::io::Result<(Box<dyn Io>, Bindings)> {
        let stream = TlsAcceptor::from(self.config()).accept(io).await?;
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
