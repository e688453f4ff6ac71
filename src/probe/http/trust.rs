//! What HTTP probes share: whom they trust, and how many wait for the end of a server.

use std::sync::Arc;

use reqwest::Url;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, Error, SignatureScheme};
use tokio::sync::{OnceCell, Semaphore};

use crate::tls;

/// What probes share. Cheap to make and to clone. Trusted certificates are read when the first `https` probe asks for
/// them: a supervisor without such a probe does not pay for them.
#[derive(Debug, Clone, Default)]
pub struct ProbeClient(Arc<Shared>);

/// Connections at once that wait for their server to close; further ones are reset. Servers that heed
/// `Connection: close` need a place for less than a millisecond, and those that do not must not use up descriptors.
pub(super) const CLOSING_AT_ONCE: usize = 64;

#[derive(Debug)]
struct Shared {
    verified: OnceCell<Arc<ClientConfig>>,
    unverified: OnceCell<Arc<ClientConfig>>,
    closing: Arc<Semaphore>,
}

impl Default for Shared {
    fn default() -> Self {
        let closing = Arc::new(Semaphore::new(CLOSING_AT_ONCE));
        Self { verified: OnceCell::new(), unverified: OnceCell::new(), closing }
    }
}

impl ProbeClient {
    pub(super) fn closing(&self) -> &Arc<Semaphore> {
        &self.0.closing
    }

    /// For this URL; `None` where it is not `https`.
    pub(super) async fn suited(&self, url: &Url, verify: bool) -> Result<Option<Arc<ClientConfig>>, String> {
        if url.scheme() != "https" {
            return Ok(None);
        }
        let config = match verify {
            true => self.0.verified.get_or_try_init(|| verified(url)).await?,
            false => self.0.unverified.get_or_init(unverified).await,
        };
        Ok(Some(Arc::clone(config)))
    }
}

async fn verified(url: &Url) -> Result<Arc<ClientConfig>, String> {
    let url = url.clone();
    let reading = tokio::task::spawn_blocking(move || tls::client(&url));
    let config = reading.await.map_err(|error| format!("TLS cannot be set up: {error}"))?;
    config.map(Arc::new).map_err(|error| format!("{error}, or set tls_verify to false"))
}

async fn unverified() -> Arc<ClientConfig> {
    let builder = ClientConfig::builder();
    let anyone = Arc::new(Anyone(Arc::clone(builder.crypto_provider())));
    Arc::new(builder.dangerous().with_custom_certificate_verifier(anyone).with_no_client_auth())
}

/// `tls_verify` is off: whoever answers is the service.
#[derive(Debug)]
struct Anyone(Arc<CryptoProvider>);

impl ServerCertVerifier for Anyone {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
