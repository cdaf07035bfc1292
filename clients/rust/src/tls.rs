//! TLS: whom the client trusts and who it is.

use std::path::Path;
use std::sync::Arc;

use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio_rustls::rustls::{ClientConfig, RootCertStore, crypto};

use crate::options::ConfigError;

/// TLS by PEM; empty, as `Tls::default()`, it trusts the system's roots and has no certificate of
/// the client's own.
#[derive(Clone, Default)]
pub struct Tls {
    authorities: Option<Vec<u8>>,
    identity: Option<(Vec<u8>, Vec<u8>)>,
    server_name: Option<String>,
}

impl std::fmt::Debug for Tls {
    // Keys stay out of it.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tls")
            .field("authorities", &self.authorities.is_some())
            .field("identity", &self.identity.is_some())
            .field("server_name", &self.server_name)
            .finish()
    }
}

impl Tls {
    /// Trusts these authorities in place of the system's; PEM.
    #[must_use]
    pub fn authorities(mut self, pem: impl Into<Vec<u8>>) -> Self {
        self.authorities = Some(pem.into());
        self
    }

    /// The client's own certificate chain and its key, for mutual TLS; PEM.
    #[must_use]
    pub fn identity(mut self, chain: impl Into<Vec<u8>>, key: impl Into<Vec<u8>>) -> Self {
        self.identity = Some((chain.into(), key.into()));
        self
    }

    /// The name to expect in the router's certificate where it differs from the target's host.
    #[must_use]
    pub fn server_name(mut self, name: impl Into<String>) -> Self {
        self.server_name = Some(name.into());
        self
    }

    /// The authorities of a PEM file.
    ///
    /// # Errors
    ///
    /// When the file cannot be read.
    pub fn authorities_from(self, file: impl AsRef<Path>) -> Result<Self, ConfigError> {
        Ok(self.authorities(read(file.as_ref())?))
    }

    /// The client's own certificate chain and key of PEM files.
    ///
    /// # Errors
    ///
    /// When a file cannot be read.
    pub fn identity_from(
        self,
        chain: impl AsRef<Path>,
        key: impl AsRef<Path>,
    ) -> Result<Self, ConfigError> {
        Ok(self.identity(read(chain.as_ref())?, read(key.as_ref())?))
    }

    /// What connects to that host, and the name that its certificate must have.
    pub(crate) fn connector(
        &self,
        host: &str,
    ) -> Result<(TlsConnector, ServerName<'static>), ConfigError> {
        let provider = Arc::new(crypto::ring::default_provider());
        let builder = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(ConfigError::new)?
            .with_root_certificates(self.roots()?);
        let mut config = match &self.identity {
            None => builder.with_no_client_auth(),
            Some((chain, key)) => {
                let key = PrivateKeyDer::from_pem_slice(key)
                    .map_err(|error| ConfigError::new(format!("the client's key: {error}")))?;
                let chain = certificates(chain, "the client's certificate")?;
                builder
                    .with_client_auth_cert(chain, key)
                    .map_err(ConfigError::new)?
            }
        };
        config.alpn_protocols = vec![b"h2".to_vec()];
        let name = self.server_name.as_deref().unwrap_or(host).to_owned();
        let name = ServerName::try_from(name).map_err(ConfigError::new)?;
        Ok((TlsConnector::from(Arc::new(config)), name))
    }

    fn roots(&self) -> Result<RootCertStore, ConfigError> {
        let mut roots = RootCertStore::empty();
        if let Some(pem) = &self.authorities {
            for certificate in certificates(pem, "the authorities")? {
                roots.add(certificate).map_err(ConfigError::new)?;
            }
        } else {
            // What the system has and cannot be read is not trusted, and that is all.
            roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        }
        Ok(roots)
    }
}

fn read(file: &Path) -> Result<Vec<u8>, ConfigError> {
    std::fs::read(file).map_err(|error| ConfigError::new(format!("{}: {error}", file.display())))
}

fn certificates(pem: &[u8], what: &str) -> Result<Vec<CertificateDer<'static>>, ConfigError> {
    let read: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    match read {
        Ok(found) if !found.is_empty() => Ok(found),
        Ok(_) => Err(ConfigError::new(format!(
            "{what}: there is no certificate in it"
        ))),
        Err(error) => Err(ConfigError::new(format!("{what}: {error}"))),
    }
}
