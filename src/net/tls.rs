//! TLS 1.3 with raw Ed25519 keys on both sides (RFC 7250).

use std::sync::Arc;

use quinn::crypto::rustls::{QuicClientConfig, QuicServerConfig};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{AlwaysResolvesClientRawPublicKeys, Resumption};
use rustls::crypto::{CryptoProvider, ring, verify_tls13_signature_with_raw_key};
use rustls::pki_types::{CertificateDer, PrivatePkcs8KeyDer, ServerName, SubjectPublicKeyInfoDer, UnixTime};
use rustls::server::AlwaysResolvesServerRawPublicKeys;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::sign::CertifiedKey;
use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, Error, PeerIncompatible, SignatureScheme,
};

use super::ALPN;
use crate::member::{PeerId, PublicKey, SecretKey};

/// Sessions that a client can resume: one for each peer of a large account.
const RESUMABLE: usize = 64;

/// What follows a peer's key in the name that its sessions are filed under. Never sent, never looked up.
const SUFFIX: &str = ".peer.invalid";

/// The name under which `peer` is pinned: TLS libraries file sessions by server name, so each key needs its own.
pub(super) fn server_name(peer: PeerId) -> String {
    format!("{peer}{SUFFIX}")
}

pub(super) struct Configs {
    pub(super) client: QuicClientConfig,
    pub(super) server: QuicServerConfig,
    #[cfg(test)]
    pub(super) verifier: Arc<Pinned>,
}

pub(super) fn configs(key: &SecretKey) -> Result<Configs, Error> {
    let provider = Arc::new(ring::default_provider());
    let private = PrivatePkcs8KeyDer::from(key.pkcs8().to_vec());
    let signer = ring::sign::any_eddsa_type(&private)?;
    let own = Arc::new(CertifiedKey::new(vec![CertificateDer::from(key.public().spki())], signer));
    // One verifier for all connections: a session resumes only under the verifier that it was made with.
    let verifier = Arc::new(Pinned::new(provider.clone()));
    let mut client = rustls::ClientConfig::builder_with_provider(provider.clone())
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .dangerous()
        .with_custom_certificate_verifier(verifier.clone())
        .with_client_cert_resolver(Arc::new(AlwaysResolvesClientRawPublicKeys::new(own.clone())));
    client.alpn_protocols = vec![ALPN.to_vec()];
    client.enable_sni = false;
    client.enable_early_data = false;
    client.resumption = Resumption::in_memory_sessions(RESUMABLE);
    let mut server = rustls::ServerConfig::builder_with_provider(provider.clone())
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_client_cert_verifier(Arc::new(AnyKey(provider)))
        .with_cert_resolver(Arc::new(AlwaysResolvesServerRawPublicKeys::new(own)));
    server.alpn_protocols = vec![ALPN.to_vec()];
    server.max_early_data_size = 0;
    let no_suite = |_| Error::General("the QUIC cipher suite is missing".to_owned());
    Ok(Configs {
        client: QuicClientConfig::try_from(client).map_err(no_suite)?,
        server: QuicServerConfig::try_from(server).map_err(no_suite)?,
        #[cfg(test)]
        verifier,
    })
}

/// The key that a handshake proved, or that a resumed session carries.
pub(super) fn peer_of(connection: &quinn::Connection) -> Option<PeerId> {
    let chain = connection.peer_identity()?.downcast::<Vec<CertificateDer<'static>>>().ok()?;
    PublicKey::from_spki(chain.first()?).map(PeerId::new)
}

fn verify(
    provider: &CryptoProvider,
    message: &[u8],
    spki: &CertificateDer<'_>,
    signed: &DigitallySignedStruct,
) -> Result<HandshakeSignatureValid, Error> {
    let algorithms = &provider.signature_verification_algorithms;
    verify_tls13_signature_with_raw_key(
        message,
        &SubjectPublicKeyInfoDer::from(&spki[..]),
        signed,
        algorithms,
    )
}

/// A client's judgement: the key is the one in the server name.
#[derive(Debug)]
pub(super) struct Pinned {
    provider: Arc<CryptoProvider>,
    /// Handshakes that were not resumed.
    #[cfg(test)]
    pub(super) full: std::sync::atomic::AtomicUsize,
}

impl Pinned {
    fn new(provider: Arc<CryptoProvider>) -> Pinned {
        Pinned {
            provider,
            #[cfg(test)]
            full: Default::default(),
        }
    }
}

impl ServerCertVerifier for Pinned {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        #[cfg(test)]
        self.full.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let key = PublicKey::from_spki(end_entity).ok_or(CertificateError::BadEncoding)?;
        if name.to_str() != server_name(PeerId::new(key)) {
            return Err(CertificateError::NotValidForName.into());
        }
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(PeerIncompatible::Tls12NotOffered.into())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify(&self.provider, message, cert, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ED25519]
    }

    fn requires_raw_public_keys(&self) -> bool {
        true
    }
}

/// A server's judgement: any Ed25519 key that the client has proved. The host judges the rest.
#[derive(Debug)]
struct AnyKey(Arc<CryptoProvider>);

impl ClientCertVerifier for AnyKey {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        PublicKey::from_spki(end_entity).ok_or(CertificateError::BadEncoding)?;
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(PeerIncompatible::Tls12NotOffered.into())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify(&self.0, message, cert, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ED25519]
    }

    fn requires_raw_public_keys(&self) -> bool {
        true
    }
}
