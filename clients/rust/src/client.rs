//! The client: typed calls over the generated stub.

use std::future::Future;
use std::time::Duration;

use tokio::time::{Instant, sleep, timeout_at};
use tonic::metadata::{Ascii, KeyAndValueRef, MetadataKey, MetadataMap};
use tonic::{Code, IntoRequest, Request, Response, Status};

use crate::error::Error;
use crate::options::{Builder, ConfigError};
use crate::retry::Retries;
use crate::stream::Stream;
use crate::trace::Propagator;
use crate::transport::Transport;
use crate::v1;
use crate::v1::inference_service_client::InferenceServiceClient;

// gRPC stops at 4 MiB; a request may hold several images of up to 20 MiB.
const MAX_MESSAGE_BYTES: usize = 64 << 20;

/// The generated stub over this crate's connections.
pub type Stub = InferenceServiceClient<Transport>;

/// A connection to a router. Clones are cheap and share it.
///
/// A call takes the contract's message, or a [`tonic::Request`] around it for a deadline
/// (`set_timeout`) and metadata of its own. Dropping a call or a stream before its end cancels
/// it, and the router stops the provider: an answer that nobody reads is not paid for.
#[derive(Clone)]
pub struct Client {
    transport: Transport,
    timeout: Duration,
    metadata: MetadataMap,
    propagator: Option<Propagator>,
    retries: Retries,
}

impl std::fmt::Debug for Client {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Client")
            .field("target", &self.transport.target())
            .finish_non_exhaustive()
    }
}

macro_rules! unary {
    ($(#[$doc:meta])* $name:ident($request:ident) -> $response:ident, $again:expr, $id:expr) => {
        $(#[$doc])*
        ///
        /// # Errors
        ///
        /// When the call fails.
        pub async fn $name(
            &self,
            request: impl IntoRequest<v1::$request>,
        ) -> Result<v1::$response, Error> {
            let id: fn(&v1::$request) -> String = $id;
            let call = |mut stub: Stub, request| async move { stub.$name(request).await };
            self.unary(request.into_request(), id, $again, call).await
        }
    };
}

impl Client {
    /// A builder for a target such as `host:50051` or `dns:///trunkline.internal:50051`; calls go
    /// in turn to all addresses that the name has.
    pub fn builder(target: impl Into<String>) -> Builder {
        Builder::new(target)
    }

    /// A client for a target, without key or TLS. It connects with its first call.
    ///
    /// # Errors
    ///
    /// When the target is none.
    pub fn new(target: impl Into<String>) -> Result<Self, ConfigError> {
        Self::builder(target).build()
    }

    /// A client as the `TRUNKLINE_` variables say; the crate's documentation lists them.
    ///
    /// # Errors
    ///
    /// Names the variable that is wrong, or the file that cannot be read.
    pub fn from_env() -> Result<Self, ConfigError> {
        Builder::from_lookup(|name| std::env::var(name).ok())?.build()
    }

    pub(crate) fn of(
        transport: Transport,
        timeout: Duration,
        metadata: MetadataMap,
        propagator: Option<Propagator>,
    ) -> Self {
        Self {
            transport,
            timeout,
            metadata,
            propagator,
            retries: Retries::default(),
        }
    }

    /// Closes the connection and ends the calls and streams in progress, of all clones. A client
    /// that is merely dropped lets its streams go on.
    pub fn close(self) {
        self.transport.close();
    }

    /// The deadline of calls that name none.
    #[must_use]
    pub fn timeout(&self) -> Duration {
        self.timeout
    }

    /// gRPC's own client, for calls that have no method here. It knows neither the timeout nor
    /// the metadata; [`Client::prepare`] adds both, and [`Error::from_status`] types its errors.
    #[must_use]
    pub fn stub(&self) -> Stub {
        InferenceServiceClient::new(self.transport.clone())
            .max_decoding_message_size(MAX_MESSAGE_BYTES)
            .max_encoding_message_size(MAX_MESSAGE_BYTES)
    }

    unary! {
        /// Answers a conversation in one piece.
        generate(GenerateRequest) -> GenerateResponse, false, |request| request.request_id.clone()
    }
    unary! {
        /// Turns texts into vectors.
        embed(EmbedRequest) -> EmbedResponse, false, |request| request.request_id.clone()
    }
    unary! {
        /// Tells how a call would be routed, without making it. Sent again when the router is
        /// unavailable.
        route(RouteRequest) -> RouteResponse, true, |_| String::new()
    }
    unary! {
        /// Tells how each of up to 10,000 calls would be routed, in their order; one that fails
        /// leaves the others alone. Sent again when the router is unavailable.
        batch_route(BatchRouteRequest) -> BatchRouteResponse, true, |_| String::new()
    }
    unary! {
        /// Makes pictures of a description, or changes given ones.
        generate_image(GenerateImageRequest) -> GenerateImageResponse, false,
        |request| request.request_id.clone()
    }
    unary! {
        /// Orders documents by how well they answer a query.
        rerank(RerankRequest) -> RerankResponse, false, |request| request.request_id.clone()
    }
    unary! {
        /// Counts the tokens of a conversation without having it answered. Sent again when the
        /// router is unavailable.
        count_tokens(CountTokensRequest) -> CountTokensResponse, true,
        |request| request.request_id.clone()
    }
    unary! {
        /// Gives one page of the models that the caller may use. Sent again when the router is
        /// unavailable.
        list_models(ListModelsRequest) -> ListModelsResponse, true, |_| String::new()
    }
    unary! {
        /// Tells how each provider fares. Sent again when the router is unavailable.
        list_provider_health(ListProviderHealthRequest) -> ListProviderHealthResponse, true,
        |_| String::new()
    }

    /// Answers a conversation as the answer is written. The deadline covers the whole stream.
    ///
    /// # Errors
    ///
    /// When the call fails before its first event.
    pub async fn stream(
        &self,
        request: impl IntoRequest<v1::GenerateRequest>,
    ) -> Result<Stream, Error> {
        let mut request = request.into_request();
        let id = request.get_ref().request_id.clone();
        let deadline = self.prepare(&mut request);
        let mut stub = self.stub();
        match timeout_at(deadline, stub.stream_generate(request)).await {
            Ok(Ok(response)) => Ok(Stream::new(response.into_inner(), deadline, id)),
            Ok(Err(status)) => Err(Error::of_call(normal(status), &id)),
            Err(_) => Err(Error::of_call(too_late(), &id)),
        }
    }

    /// Adds the client's metadata, the trace and, where it has no timeout, the client's timeout to
    /// a request; gives the moment when its time is over.
    pub fn prepare<T>(&self, request: &mut Request<T>) -> Instant {
        let metadata = request.metadata_mut();
        for entry in self.metadata.iter() {
            if let KeyAndValueRef::Ascii(name, value) = entry
                && !metadata.contains_key(name)
            {
                metadata.insert(name, value.clone());
            }
        }
        if let Some(propagator) = &self.propagator {
            propagator(&mut |name, value| {
                // What is no metadata is no trace either.
                let name = name.parse::<MetadataKey<Ascii>>();
                if let (Ok(name), Ok(value)) = (name, value.parse()) {
                    metadata.insert(name, value);
                }
            });
        }
        let own = metadata
            .get("grpc-timeout")
            .and_then(|value| told(value.to_str().ok()?));
        let timeout = own.unwrap_or(self.timeout);
        request.set_timeout(timeout);
        Instant::now() + timeout
    }

    async fn unary<Q, R, F>(
        &self,
        mut request: Request<Q>,
        id: impl Fn(&Q) -> String,
        again: bool,
        call: impl Fn(Stub, Request<Q>) -> F,
    ) -> Result<R, Error>
    where
        Q: Clone,
        F: Future<Output = Result<Response<R>, Status>>,
    {
        let deadline = self.prepare(&mut request);
        let id = id(request.get_ref());
        if !again {
            let answer = timeout_at(deadline, call(self.stub(), request)).await;
            return read(answer, &id);
        }
        let (metadata, _, message) = request.into_parts();
        let mut tries = self.retries.begin();
        loop {
            let mut request = Request::from_parts(
                metadata.clone(),
                tonic::Extensions::default(),
                message.clone(),
            );
            request.set_timeout(deadline.saturating_duration_since(Instant::now()));
            let answer = timeout_at(deadline, call(self.stub(), request)).await;
            let unavailable =
                matches!(&answer, Ok(Err(status)) if normal_code(status) == Code::Unavailable);
            match tries.next(unavailable) {
                Some(pause) if Instant::now() + pause < deadline => sleep(pause).await,
                _ => return read(answer, &id),
            }
        }
    }
}

fn read<R>(
    answer: Result<Result<Response<R>, Status>, tokio::time::error::Elapsed>,
    id: &str,
) -> Result<R, Error> {
    match answer {
        Ok(Ok(response)) => Ok(response.into_inner()),
        Ok(Err(status)) => Err(Error::of_call(normal(status), id)),
        Err(_) => Err(Error::of_call(too_late(), id)),
    }
}

pub(crate) fn too_late() -> Status {
    Status::deadline_exceeded("the deadline has passed")
}

/// The timeout as it stands in `grpc-timeout`: digits and a unit.
fn told(text: &str) -> Option<Duration> {
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    let count: u64 = digits.parse().ok()?;
    Some(match unit {
        "H" => Duration::from_secs(count * 3600),
        "M" => Duration::from_secs(count * 60),
        "S" => Duration::from_secs(count),
        "m" => Duration::from_millis(count),
        "u" => Duration::from_micros(count),
        "n" => Duration::from_nanos(count),
        _ => return None,
    })
}

/// The status with the code that gRPC means: a connection that broke under a call is
/// UNAVAILABLE, where tonic knows only that something is wrong.
pub(crate) fn normal(status: Status) -> Status {
    let code = normal_code(&status);
    if code == status.code() {
        return status;
    }
    Status::new(code, status.message())
}

fn normal_code(status: &Status) -> Code {
    let mut cause = std::error::Error::source(status);
    while let Some(error) = cause {
        if error.is::<hyper::Error>() || error.is::<std::io::Error>() {
            return match status.code() {
                // What the other side told by a code of HTTP/2 stays as it is.
                code @ (Code::Cancelled | Code::DeadlineExceeded | Code::ResourceExhausted) => code,
                _ => Code::Unavailable,
            };
        }
        cause = error.source();
    }
    status.code()
}
