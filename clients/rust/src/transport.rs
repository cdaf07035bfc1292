//! Connections to a router: one to each address that its name has, used in turn.
//!
//! gRPC's own clients do this by their `round_robin` policy, and tonic's channel has no such one.
//! The rules are theirs: a call goes to the next address that is connected; while none is, it
//! waits for those being connected, and fails at once when all have failed. A call that was not
//! yet sent when its connection ended goes to another one.

use std::collections::HashSet;
use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::task::{Context, Poll};
use std::time::Duration;

use http::{HeaderValue, Request, Response, header};
use hyper::body::Incoming;
use tokio::net::lookup_host;
use tokio::sync::{Notify, watch};
use tokio::task::AbortHandle;
use tokio::time::{Instant, sleep, timeout};
use tonic::Status;
use tonic::body::Body;
use tower_service::Service;

use crate::connection::{Sender, Target, lost, told, until_closed};
use crate::options::ConfigError;
use crate::tls::Tls;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(20);
// Pauses between attempts to connect.
const LEAST_PAUSE: Duration = Duration::from_millis(200);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);
// A connection that ends sooner never was one: somebody accepts and hangs up.
const LEAST_LIFE: Duration = Duration::from_secs(1);
// Between two questions for the addresses of the name.
const RESOLVE_PAUSE: Duration = Duration::from_secs(5);
// How many connections may end under a call before it was sent.
const MOST_MOVES: usize = 5;

const USER_AGENT: HeaderValue =
    HeaderValue::from_static(concat!("trunkline-rust/", env!("CARGO_PKG_VERSION")));

/// A connection to all addresses of a target; clones share it.
#[derive(Clone)]
pub struct Transport {
    shared: Arc<Shared>,
}

struct Shared {
    target: Target,
    state: Mutex<State>,
    // Something in the state has changed.
    changed: Notify,
    // An address may be out of date. Whoever waits for it does not keep the client alive.
    stale: Arc<Notify>,
    // True once the client is closed; gone with its last clone.
    closed: watch::Sender<bool>,
}

#[derive(Default)]
struct State {
    started: bool,
    peers: Vec<Peer>,
    // Why the name gave no addresses, when it gave none.
    unresolved: Option<String>,
    turn: usize,
}

struct Peer {
    address: SocketAddr,
    link: Link,
    keeper: AbortHandle,
}

#[derive(Clone)]
enum Link {
    Connecting,
    Ready(Sender),
    Failed(String),
}

impl Link {
    fn failure(&self) -> Option<&String> {
        match self {
            Self::Failed(why) => Some(why),
            Self::Connecting | Self::Ready(_) => None,
        }
    }
}

impl Transport {
    /// Prepares for a target such as `host:50051` or `dns:///host:50051`; nothing is connected.
    pub(crate) fn new(target: &str, tls: Option<&Tls>) -> Result<Self, ConfigError> {
        let target = Target::parse(target, tls)?;
        let shared = Shared {
            target,
            state: Mutex::default(),
            changed: Notify::new(),
            stale: Arc::default(),
            closed: watch::Sender::new(false),
        };
        Ok(Self {
            shared: Arc::new(shared),
        })
    }

    /// What was given as target, as host and port.
    pub(crate) fn target(&self) -> &str {
        self.shared.target.authority.as_str()
    }

    /// Ends all connections, and with them the calls in progress.
    pub(crate) fn close(&self) {
        self.shared.closed.send_replace(true);
        self.shared.lock().peers.clear();
        self.shared.changed.notify_waiters();
    }
}

impl Service<Request<Body>> for Transport {
    type Response = Response<Incoming>;
    type Error = Status;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Status>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Status>> {
        // Calls wait for their connection themselves, within their deadline.
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let shared = Arc::clone(&self.shared);
        Box::pin(async move { shared.send(request).await })
    }
}

impl Shared {
    async fn send(
        self: Arc<Self>,
        mut request: Request<Body>,
    ) -> Result<Response<Incoming>, Status> {
        let uri = self.target.uri(request.uri().path_and_query());
        *request.uri_mut() = uri.map_err(|error| Status::internal(error.to_string()))?;
        request.headers_mut().insert(header::USER_AGENT, USER_AGENT);
        let mut last = None;
        for _ in 0..MOST_MOVES {
            let mut sender = self.ready().await?;
            if let Err(error) = sender.ready().await {
                last = Some(error);
                tokio::task::yield_now().await;
                continue;
            }
            match sender.try_send_request(request).await {
                Ok(response) => return Ok(response),
                Err(mut failure) => match failure.take_message() {
                    Some(unsent) => request = unsent,
                    None => return Err(lost(&failure.into_error())),
                },
            }
        }
        Err(last.map_or_else(
            || Status::unavailable("no connection lasts"),
            |why| lost(&why),
        ))
    }

    /// The next connection in turn; waits while there may yet be one.
    async fn ready(self: &Arc<Self>) -> Result<Sender, Status> {
        loop {
            let changed = self.changed.notified();
            tokio::pin!(changed);
            // From here on no change is missed.
            changed.as_mut().enable();
            if let Some(found) = self.pick() {
                return found;
            }
            changed.await;
        }
    }

    fn pick(self: &Arc<Self>) -> Option<Result<Sender, Status>> {
        if *self.closed.borrow() {
            return Some(Err(Status::cancelled("the client is closed")));
        }
        let mut state = self.lock();
        if !state.started {
            state.started = true;
            let wanted = Arc::clone(&self.stale);
            let closed = self.closed.subscribe();
            tokio::spawn(resolve(Arc::downgrade(self), wanted, closed));
        }
        let count = state.peers.len();
        for step in 0..count {
            let at = (state.turn + step) % count;
            if let Link::Ready(sender) = &state.peers[at].link
                && !sender.is_closed()
            {
                let sender = sender.clone();
                state.turn = at + 1;
                return Some(Ok(sender));
            }
        }
        let failure = match state.peers.last() {
            None => state.unresolved.as_ref(),
            Some(peer) => peer.link.failure(),
        }?;
        let all = state.peers.iter().all(|peer| peer.link.failure().is_some());
        all.then(|| Err(Status::unavailable(failure.clone())))
    }

    /// Takes over the addresses that the name has now; what is connected and stays is kept.
    fn take(self: &Arc<Self>, addresses: &HashSet<SocketAddr>) {
        let mut state = self.lock();
        state.unresolved = None;
        for gone in state
            .peers
            .extract_if(.., |peer| !addresses.contains(&peer.address))
        {
            // Its calls go on: they have the connection's task.
            gone.keeper.abort();
        }
        let mut new: Vec<_> = addresses
            .iter()
            .filter(|address| state.peers.iter().all(|peer| peer.address != **address))
            .collect();
        new.sort();
        for &address in new {
            let keeping = keep(Arc::downgrade(self), address, self.closed.subscribe());
            let keeper = tokio::spawn(keeping).abort_handle();
            state.peers.push(Peer {
                address,
                link: Link::Connecting,
                keeper,
            });
        }
        drop(state);
        self.changed.notify_waiters();
    }

    fn set(&self, address: SocketAddr, link: Link) {
        if let Some(peer) = self
            .lock()
            .peers
            .iter_mut()
            .find(|peer| peer.address == address)
        {
            peer.link = link;
        }
        self.changed.notify_waiters();
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing panics while it holds the lock.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Asks for the addresses of the name, at first and whenever a connection ends.
async fn resolve(shared: Weak<Shared>, stale: Arc<Notify>, mut closed: watch::Receiver<bool>) {
    loop {
        let Some(strong) = shared.upgrade() else {
            return;
        };
        let Target { host, port, .. } = &strong.target;
        let found = lookup_host((host.as_str(), *port)).await;
        let failure = match found.map(Iterator::collect::<HashSet<SocketAddr>>) {
            Ok(addresses) if !addresses.is_empty() => {
                strong.take(&addresses);
                None
            }
            Ok(_) => Some(format!("{host} has no addresses")),
            Err(error) => Some(format!("{host}: {error}")),
        };
        let resolved = failure.is_none();
        if !resolved {
            strong.lock().unresolved = failure;
            strong.changed.notify_waiters();
        }
        drop(strong);
        tokio::select! {
            () = sleep(RESOLVE_PAUSE) => {}
            _ = closed.changed() => return,
        }
        // A name that has no addresses is asked for again without being told to.
        if resolved {
            tokio::select! {
                () = stale.notified() => {}
                _ = closed.changed() => return,
            }
        }
    }
}

/// Keeps one address connected, as long as the client wants it.
async fn keep(shared: Weak<Shared>, address: SocketAddr, mut closed: watch::Receiver<bool>) {
    let mut pause = LEAST_PAUSE;
    loop {
        let Some(strong) = shared.upgrade() else {
            return;
        };
        let connected = timeout(
            CONNECT_TIMEOUT,
            strong.target.connect(address, closed.clone()),
        )
        .await;
        let failure = match connected {
            Ok(Ok((sender, running))) => {
                let began = Instant::now();
                // Of its own, so that calls go on when this address is given up.
                let ended = tokio::spawn(until_closed(running, closed.clone()));
                strong.set(address, Link::Ready(sender));
                drop(strong);
                let failure = match ended.await {
                    Ok(Some(Err(error))) => told(&error),
                    _ => "the router hung up".to_owned(),
                };
                if *closed.borrow() {
                    return;
                }
                if began.elapsed() >= LEAST_LIFE {
                    pause = LEAST_PAUSE;
                    set(&shared, address, Link::Connecting);
                    continue;
                }
                failure
            }
            Ok(Err(error)) => error.to_string(),
            Err(_) => "connecting took too long".to_owned(),
        };
        set(
            &shared,
            address,
            Link::Failed(format!("{address}: {failure}")),
        );
        tokio::select! {
            () = sleep(pause) => {}
            _ = closed.changed() => return,
        }
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}

fn set(shared: &Weak<Shared>, address: SocketAddr, link: Link) {
    if let Some(strong) = shared.upgrade() {
        strong.set(address, link);
        strong.stale.notify_one();
    }
}
