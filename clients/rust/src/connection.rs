//! One connection to one address of a router: dialled, secured, and driven to its end.

use std::error::Error as StdError;
use std::future::Future;
use std::net::SocketAddr;
use std::time::Duration;

use http::Uri;
use http::uri::{Authority, PathAndQuery, Scheme};
use hyper::client::conn::http2::{Builder, Connection, SendRequest};
use hyper::rt::Executor;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::pki_types::ServerName;
use tonic::Status;
use tonic::body::Body;

use crate::options::ConfigError;
use crate::tls::Tls;

// Finds a dead peer under a long call. gRPC servers hang up on clients that ping more often than
// every five minutes without data, unless they were told otherwise.
const KEEPALIVE: Duration = Duration::from_secs(310);
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(20);

/// What sends on a connection.
pub(crate) type Sender = SendRequest<Body>;
pub(crate) type BoxError = Box<dyn StdError + Send + Sync>;

/// Where a router is, and how it is spoken to.
pub(crate) struct Target {
    pub(crate) host: String,
    pub(crate) port: u16,
    pub(crate) authority: Authority,
    tls: Option<(TlsConnector, ServerName<'static>)>,
}

impl Target {
    /// Reads `host:50051` or `dns:///host:50051`.
    pub(crate) fn parse(text: &str, tls: Option<&Tls>) -> Result<Self, ConfigError> {
        let plain = text
            .strip_prefix("dns:///")
            .or_else(|| text.strip_prefix("dns:"));
        let authority: Authority = plain
            .unwrap_or(text)
            .parse()
            .map_err(|_| ConfigError::new(format!("{text:?} is no target such as host:50051")))?;
        let host = authority
            .host()
            .trim_start_matches('[')
            .trim_end_matches(']')
            .to_owned();
        let tls = tls.map(|tls| tls.connector(&host)).transpose()?;
        Ok(Self {
            port: authority.port_u16().unwrap_or(443),
            host,
            authority,
            tls,
        })
    }

    /// The whole URI of a path.
    pub(crate) fn uri(&self, path: Option<&PathAndQuery>) -> Result<Uri, http::Error> {
        let scheme = if self.tls.is_some() {
            Scheme::HTTPS
        } else {
            Scheme::HTTP
        };
        Uri::builder()
            .scheme(scheme)
            .authority(self.authority.clone())
            .path_and_query(path.map_or("/", PathAndQuery::as_str))
            .build()
    }

    /// Connects to one of the target's addresses. Closing the client ends what comes of it.
    pub(crate) async fn connect(
        &self,
        address: SocketAddr,
        closed: watch::Receiver<bool>,
    ) -> Result<(Sender, Running), BoxError> {
        let plain = TcpStream::connect(address).await?;
        plain.set_nodelay(true)?;
        let io: Box<dyn Io> = match &self.tls {
            None => Box::new(plain),
            Some((connector, name)) => {
                let secure = connector.connect(name.clone(), plain).await?;
                if secure.get_ref().1.alpn_protocol() != Some(b"h2") {
                    return Err("it does not speak HTTP/2".into());
                }
                Box::new(secure)
            }
        };
        let pair = Builder::new(Tasks(closed))
            .timer(TokioTimer::new())
            .keep_alive_interval(KEEPALIVE)
            .keep_alive_timeout(KEEPALIVE_TIMEOUT)
            .adaptive_window(true)
            .handshake(TokioIo::new(io))
            .await?;
        Ok(pair)
    }
}

/// Runs the tasks of a connection, of which hyper has one beside the connection itself. Closing the
/// client ends them at once; dropping the client lets its calls end.
#[derive(Clone)]
pub(crate) struct Tasks(watch::Receiver<bool>);

impl<F> Executor<F> for Tasks
where
    F: Future<Output: Send> + Send + 'static,
{
    fn execute(&self, task: F) {
        tokio::spawn(until_closed(task, self.0.clone()));
    }
}

/// What the future gives; None when the client is closed before.
pub(crate) async fn until_closed<F: Future>(
    task: F,
    mut closed: watch::Receiver<bool>,
) -> Option<F::Output> {
    let closing = async move {
        // An error means that the client was dropped.
        if closed.wait_for(|closed| *closed).await.is_err() {
            std::future::pending::<()>().await;
        }
    };
    tokio::select! {
        given = task => Some(given),
        () = closing => None,
    }
}

/// What drives a connection to its end.
pub(crate) type Running = Connection<TokioIo<Box<dyn Io>>, Body, Tasks>;

/// What a connection runs over.
pub(crate) trait Io: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Io for T {}

/// A connection that failed under a call, as gRPC tells it.
pub(crate) fn lost(error: &hyper::Error) -> Status {
    Status::unavailable(told(error))
}

/// The error and what caused it, in one line.
pub(crate) fn told(error: &dyn StdError) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        text = format!("{text}: {inner}");
        cause = inner.source();
    }
    text
}
