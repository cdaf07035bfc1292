//! What a client is built from: where the router is, who calls, and how calls behave.

use std::fmt::Display;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tonic::metadata::{Ascii, MetadataKey, MetadataMap, MetadataValue};

use crate::client::Client;
use crate::tls::Tls;
use crate::trace::{Propagator, default_propagator};
use crate::transport::Transport;

/// Where a client connects that is told nothing else.
pub const DEFAULT_TARGET: &str = "127.0.0.1:50051";
/// The deadline of calls that name none.
pub const DEFAULT_TIMEOUT: Duration = Duration::from_secs(60);

/// A client that cannot be built as told.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct ConfigError(String);

impl ConfigError {
    pub(crate) fn new(why: impl Display) -> Self {
        Self(why.to_string())
    }
}

/// Builds a [`Client`].
#[derive(Clone)]
#[must_use]
pub struct Builder {
    target: String,
    api_key: Option<String>,
    tls: Option<Tls>,
    timeout: Duration,
    metadata: Vec<(String, String)>,
    propagator: Option<Propagator>,
}

impl Builder {
    pub(crate) fn new(target: impl Into<String>) -> Self {
        Self {
            target: target.into(),
            api_key: None,
            tls: None,
            timeout: DEFAULT_TIMEOUT,
            metadata: Vec::new(),
            propagator: default_propagator(),
        }
    }

    /// A builder as the `TRUNKLINE_` variables say that `lookup` gives; an empty one counts as
    /// unset.
    ///
    /// # Errors
    ///
    /// Names the variable that is wrong, or the file that cannot be read.
    pub fn from_lookup(lookup: impl Fn(&str) -> Option<String>) -> Result<Self, ConfigError> {
        let get = |name: &str| lookup(&format!("TRUNKLINE_{name}")).filter(|text| !text.is_empty());
        let mut builder = Self::new(get("TARGET").unwrap_or_else(|| DEFAULT_TARGET.to_owned()));
        builder.api_key = get("API_KEY");
        if let Some(text) = get("TIMEOUT") {
            let wrong =
                || ConfigError::new("TRUNKLINE_TIMEOUT must be a positive number of seconds");
            let seconds: f64 = text.parse().map_err(|_| wrong())?;
            builder.timeout = Duration::try_from_secs_f64(seconds).map_err(|_| wrong())?;
            if builder.timeout.is_zero() {
                return Err(wrong());
            }
        }
        builder.tls = tls_from(get)?;
        Ok(builder)
    }

    /// Sends the key as a bearer token with every call.
    pub fn api_key(mut self, key: impl Into<String>) -> Self {
        self.api_key = Some(key.into());
        self
    }

    /// Encrypts the connection; without it the connection is plaintext, and so is the key.
    pub fn tls(mut self, tls: Tls) -> Self {
        self.tls = Some(tls);
        self
    }

    /// The deadline of calls that name none.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// Adds metadata to every call.
    pub fn metadata(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.metadata.push((name.into(), value.into()));
        self
    }

    /// Replaces what gives the headers of a call's trace, `traceparent` and its kin: it is called
    /// at each call, where the call is made.
    pub fn propagator<F>(mut self, propagator: F) -> Self
    where
        F: Fn(&mut dyn FnMut(&str, &str)) + Send + Sync + 'static,
    {
        self.propagator = Some(Arc::new(propagator));
        self
    }

    /// The client. It connects with its first call.
    ///
    /// # Errors
    ///
    /// When something that it was told is wrong.
    pub fn build(self) -> Result<Client, ConfigError> {
        if self.timeout.is_zero() {
            return Err(ConfigError::new("the timeout must be positive"));
        }
        let metadata = self.fixed_metadata()?;
        let transport = Transport::new(&self.target, self.tls.as_ref())?;
        Ok(Client::of(
            transport,
            self.timeout,
            metadata,
            self.propagator,
        ))
    }

    fn fixed_metadata(&self) -> Result<MetadataMap, ConfigError> {
        let mut fixed = MetadataMap::new();
        for (name, value) in &self.metadata {
            let wrong = || ConfigError::new(format!("{name:?} cannot be sent as metadata"));
            let key: MetadataKey<Ascii> = name.to_ascii_lowercase().parse().map_err(|_| wrong())?;
            let value: MetadataValue<Ascii> = value.parse().map_err(|_| wrong())?;
            fixed.insert(key, value);
        }
        let Some(key) = &self.api_key else {
            return Ok(fixed);
        };
        // The key itself stays out of the message.
        let wrong = || ConfigError::new("the API key must be printable ASCII and not empty");
        if key.is_empty() || !key.bytes().all(|byte| (b' '..=b'~').contains(&byte)) {
            return Err(wrong());
        }
        let mut shown: MetadataValue<Ascii> =
            format!("Bearer {key}").parse().map_err(|_| wrong())?;
        shown.set_sensitive(true);
        if fixed.insert("authorization", shown).is_some() {
            return Err(ConfigError::new(
                "authorization in the metadata beside an API key",
            ));
        }
        Ok(fixed)
    }
}

fn tls_from(get: impl Fn(&str) -> Option<String>) -> Result<Option<Tls>, ConfigError> {
    let wanted = match get("TLS").map(|text| text.to_ascii_lowercase()).as_deref() {
        Some("true") => true,
        None | Some("false") => false,
        Some(_) => return Err(ConfigError::new("TRUNKLINE_TLS must be true or false")),
    };
    let (authorities, name) = (get("CA_FILE"), get("SERVER_NAME"));
    let identity = match (get("CERT_FILE"), get("KEY_FILE")) {
        (Some(chain), Some(key)) => Some((PathBuf::from(chain), PathBuf::from(key))),
        (None, None) => None,
        _ => {
            let why = "TRUNKLINE_CERT_FILE and TRUNKLINE_KEY_FILE go together";
            return Err(ConfigError::new(why));
        }
    };
    if !wanted && authorities.is_none() && identity.is_none() && name.is_none() {
        return Ok(None);
    }
    let mut tls = Tls::default();
    if let Some(file) = authorities {
        tls = tls.authorities_from(file)?;
    }
    if let Some((chain, key)) = identity {
        tls = tls.identity_from(chain, key)?;
    }
    if let Some(name) = name {
        tls = tls.server_name(name);
    }
    Ok(Some(tls))
}
