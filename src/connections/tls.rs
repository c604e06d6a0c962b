//! TLS of a port: 1.2 and 1.3, with certificates that are read again when their files change. Connections that are
//! there keep what they have.

use std::path::PathBuf;
use std::sync::{Arc, PoisonError, RwLock};

use tokio::net::TcpStream;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::server::WebPkiClientVerifier;
use tokio_rustls::rustls::{RootCertStore, ServerConfig};
use tokio_rustls::server::TlsStream;
use tokio_rustls::{TlsAcceptor, rustls};

use super::{Protocol, certificate};
use crate::follow;
use crate::telemetry::metrics::Metrics;

/// Where the certificates are, all in PEM.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsFiles {
    /// The server's, with those that vouch for it.
    pub certificate: PathBuf,
    pub key: PathBuf,
    /// Who vouches for clients. `None`: they need no certificate.
    pub client_ca: Option<PathBuf>,
}

/// Why there is no TLS.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    #[error(transparent)]
    Read(#[from] std::io::Error),
    #[error("{0}")]
    Unfit(String),
}

/// What a port speaks TLS with. Cheap to clone.
#[derive(Clone)]
pub struct Tls(Arc<RwLock<Arc<ServerConfig>>>);

impl Tls {
    /// Follows the files in the background from now on. Must be called on a runtime.
    pub fn follow(files: &TlsFiles, protocol: Protocol, metrics: &Metrics) -> Result<Tls, TlsError> {
        let mut paths = vec![files.certificate.clone(), files.key.clone()];
        paths.extend(files.client_ca.clone());
        let contents = follow::read(&paths)?;
        let expiry = metrics.certificate_expiry();
        let ends = move |end: Option<i64>| end.into_iter().for_each(|end| expiry.set(end as f64));
        let (first, end) = config(&contents, protocol).map_err(TlsError::Unfit)?;
        ends(end);
        let tls = Tls(Arc::new(RwLock::new(Arc::new(first))));
        let following = tls.clone();
        follow::follow(paths, contents, metrics.reload_failures("tls"), move |contents| {
            let (config, end) = config(contents, protocol)?;
            *following.0.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(config);
            ends(end);
            Ok(())
        })?;
        Ok(tls)
    }

    pub(super) async fn accept(&self, stream: TcpStream) -> std::io::Result<TlsStream<TcpStream>> {
        let config = self.0.read().unwrap_or_else(PoisonError::into_inner).clone();
        TlsAcceptor::from(config).accept(stream).await
    }
}

/// Those of the client's certificate.
pub(super) fn names(stream: &TlsStream<TcpStream>) -> Vec<String> {
    let chain = stream.get_ref().1.peer_certificates().unwrap_or_default();
    chain.first().map(certificate::names).unwrap_or_default()
}

/// Of certificate, key, and perhaps the clients' CA; and when the certificate ends, in seconds since 1970.
fn config(contents: &[Vec<u8>], protocol: Protocol) -> Result<(ServerConfig, Option<i64>), String> {
    let [chain, key, ca @ ..] = contents else {
        return Err("certificate and key are missing".to_owned());
    };
    let chain = certificates(chain).map_err(|error| format!("the certificate: {error}"))?;
    let end = certificate::end(&chain);
    let key = PrivateKeyDer::from_pem_slice(key).map_err(|error| format!("the key: {error}"))?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ServerConfig::builder_with_provider(provider.clone());
    let builder = builder.with_safe_default_protocol_versions().map_err(|error| error.to_string())?;
    let builder = match ca.first() {
        None => builder.with_no_client_auth(),
        Some(ca) => {
            let mut roots = RootCertStore::empty();
            for root in certificates(ca).map_err(|error| format!("the clients' CA: {error}"))? {
                roots.add(root).map_err(|error| format!("the clients' CA: {error}"))?;
            }
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider).build();
            builder.with_client_cert_verifier(verifier.map_err(|error| format!("the clients' CA: {error}"))?)
        }
    };
    // It says whether the key is the certificate's.
    let mut config = builder.with_single_cert(chain, key).map_err(|error| error.to_string())?;
    config.alpn_protocols = match protocol {
        Protocol::Http1 => vec![b"http/1.1".to_vec()],
        Protocol::Http2 => vec![b"h2".to_vec()],
        Protocol::Both => vec![b"h2".to_vec(), b"http/1.1".to_vec()],
    };
    Ok((config, end))
}

fn certificates(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, String> {
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    match found {
        Ok(found) if found.is_empty() => Err("there is none".to_owned()),
        Ok(found) => Ok(found),
        Err(error) => Err(error.to_string()),
    }
}
