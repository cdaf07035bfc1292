//! The client against a server whose answers each test writes, over real sockets.

use std::future::pending;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use prost::Message;
use tokio::net::TcpListener;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, timeout};
use tokio_stream::StreamExt;
use tokio_stream::wrappers::{ReceiverStream, TcpListenerStream};
use tonic::codegen::BoxStream;
use tonic::metadata::MetadataMap;
use tonic::transport::Server;
use tonic::{Code, Request, Response, Status};
use tonic_types::pb;

use crate::v1::inference_service_server::{InferenceService, InferenceServiceServer};
use crate::v1::stream_generate_response::Event;
use crate::v1::{
    CallReport, ErrorReason, GenerateRequest, GenerateResponse, RouteRequest, RouteResponse,
    StreamDelta, StreamEnd, StreamGenerateResponse, StreamStart, stream_delta,
};
use crate::{Builder, Client, Error, Tls, prompt, text_of, user_message};

const PATIENCE: Duration = Duration::from_secs(20);

type Events = mpsc::Receiver<Result<StreamGenerateResponse, Status>>;

/// What the server does, and what it has seen.
#[derive(Default)]
struct Script {
    generate: Option<Result<String, Status>>,
    stream: Mutex<Option<Events>>,
    // Failures of Route before it answers.
    unavailable: Mutex<u32>,
    seen: Mutex<Vec<MetadataMap>>,
    // Told when a call of Generate without an answer is dropped.
    gone: Mutex<Option<oneshot::Sender<()>>>,
}

struct TellsWhenDropped(Option<oneshot::Sender<()>>);

impl Drop for TellsWhenDropped {
    fn drop(&mut self) {
        if let Some(sender) = self.0.take() {
            // Whoever waits may have gone.
            let _heard = sender.send(());
        }
    }
}

#[tonic::async_trait]
impl InferenceService for Arc<Script> {
    async fn generate(
        &self,
        request: Request<GenerateRequest>,
    ) -> Result<Response<GenerateResponse>, Status> {
        self.seen.lock().unwrap().push(request.metadata().clone());
        let Some(answer) = &self.generate else {
            let _tells = TellsWhenDropped(self.gone.lock().unwrap().take());
            return pending().await;
        };
        let text = answer.clone()?;
        let id = request.into_inner().request_id;
        let message = Some(user_message(text));
        Ok(Response::new(GenerateResponse {
            id,
            message,
            ..Default::default()
        }))
    }

    async fn stream_generate(
        &self,
        _: Request<GenerateRequest>,
    ) -> Result<Response<BoxStream<StreamGenerateResponse>>, Status> {
        let events = self.stream.lock().unwrap().take().expect("one stream");
        Ok(Response::new(Box::pin(ReceiverStream::new(events))))
    }

    async fn route(
        &self,
        request: Request<RouteRequest>,
    ) -> Result<Response<RouteResponse>, Status> {
        self.seen.lock().unwrap().push(request.metadata().clone());
        let mut left = self.unavailable.lock().unwrap();
        if *left > 0 {
            *left -= 1;
            return Err(Status::unavailable("not yet"));
        }
        Ok(Response::new(RouteResponse::default()))
    }
}

/// Serves until the sender is dropped; gives the address.
async fn serve(script: &Arc<Script>) -> (SocketAddr, oneshot::Sender<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    (listener.local_addr().unwrap(), serve_on(listener, script))
}

fn serve_on(listener: TcpListener, script: &Arc<Script>) -> oneshot::Sender<()> {
    let (stop, stopped) = oneshot::channel::<()>();
    let service = InferenceServiceServer::new(Arc::clone(script));
    tokio::spawn(
        Server::builder()
            .add_service(service)
            .serve_with_incoming_shutdown(TcpListenerStream::new(listener), async {
                // The sender says so by being dropped.
                let _dropped = stopped.await;
            }),
    );
    stop
}

fn answering(text: &str) -> Arc<Script> {
    Arc::new(Script {
        generate: Some(Ok(text.to_owned())),
        ..Default::default()
    })
}

#[allow(clippy::unnecessary_wraps)] // It is what the server's streams are made of.
fn event(event: Event) -> Result<StreamGenerateResponse, Status> {
    Ok(StreamGenerateResponse { event: Some(event) })
}

fn text(text: &str) -> Result<StreamGenerateResponse, Status> {
    let kind = Some(stream_delta::Kind::Text(text.to_owned()));
    event(Event::Delta(StreamDelta {
        kind,
        ..Default::default()
    }))
}

fn begin() -> Result<StreamGenerateResponse, Status> {
    event(Event::Start(StreamStart {
        id: "call-1".to_owned(),
        ..Default::default()
    }))
}

/// A server whose stream sends these events, and the end of the channel that feeds it.
async fn streaming(
    events: Vec<Result<StreamGenerateResponse, Status>>,
) -> (
    Client,
    mpsc::Sender<Result<StreamGenerateResponse, Status>>,
    oneshot::Sender<()>,
) {
    let (feed, events_fed) = mpsc::channel(16);
    for each in events {
        feed.send(each).await.unwrap();
    }
    let script = Arc::new(Script {
        stream: Mutex::new(Some(events_fed)),
        ..Default::default()
    });
    let (address, stop) = serve(&script).await;
    (Client::new(address.to_string()).unwrap(), feed, stop)
}

#[tokio::test]
async fn generate_answers_with_metadata_of_client_and_call() {
    let script = answering("rivers");
    let (address, _stop) = serve(&script).await;
    let client = Client::builder(format!("dns:///{address}"))
        .api_key("secret")
        .metadata("X-Team", "search")
        .timeout(Duration::from_secs(9))
        .propagator(|give| give("traceparent", "00-1-2-01"))
        .build()
        .unwrap();
    let mut request = Request::new(GenerateRequest {
        request_id: "mine".into(),
        ..prompt("m", "hi")
    });
    request
        .metadata_mut()
        .insert("x-purpose", "test".parse().unwrap());
    let answer = client.generate(request).await.unwrap();
    assert_eq!(answer.id, "mine");
    assert_eq!(text_of(&answer.message.unwrap()), "rivers");
    let seen = script.seen.lock().unwrap();
    let seen = &seen[0];
    for (name, value) in [
        ("authorization", "Bearer secret"),
        ("x-team", "search"),
        ("x-purpose", "test"),
        ("traceparent", "00-1-2-01"),
        ("grpc-timeout", "9000000u"),
    ] {
        assert_eq!(seen.get(name).unwrap(), value, "{name}");
    }
    let agent = seen.get("user-agent").unwrap().to_str().unwrap();
    assert!(agent.starts_with("trunkline-rust/"), "{agent}");
}

#[tokio::test]
async fn a_calls_own_timeout_stands_above_the_clients() {
    let script = answering("");
    let (address, _stop) = serve(&script).await;
    let client = Client::new(address.to_string()).unwrap();
    let mut request = Request::new(prompt("", ""));
    request.set_timeout(Duration::from_millis(2500));
    client.generate(request).await.unwrap();
    let seen = script.seen.lock().unwrap();
    assert_eq!(seen[0].get("grpc-timeout").unwrap(), "2500000u");
}

#[tokio::test]
async fn a_passed_deadline_is_told_and_stops_the_call() {
    let (gone, was_dropped) = oneshot::channel();
    let script = Arc::new(Script {
        gone: Mutex::new(Some(gone)),
        ..Default::default()
    });
    let (address, _stop) = serve(&script).await;
    let client = Client::builder(address.to_string()).timeout(Duration::from_millis(50));
    let error = client
        .build()
        .unwrap()
        .generate(prompt("", ""))
        .await
        .unwrap_err();
    assert_eq!(error.code(), Code::DeadlineExceeded);
    timeout(PATIENCE, was_dropped).await.unwrap().unwrap();
}

#[tokio::test]
async fn dropping_a_call_stops_it() {
    let (gone, was_dropped) = oneshot::channel();
    let script = Arc::new(Script {
        gone: Mutex::new(Some(gone)),
        ..Default::default()
    });
    let (address, _stop) = serve(&script).await;
    let client = Client::new(address.to_string()).unwrap();
    let call = tokio::spawn(async move { client.generate(prompt("", "")).await });
    while script.seen.lock().unwrap().is_empty() {
        tokio::task::yield_now().await;
    }
    call.abort();
    timeout(PATIENCE, was_dropped).await.unwrap().unwrap();
}

#[tokio::test]
async fn a_stream_gives_events_text_and_message() {
    let end = event(Event::End(StreamEnd::default()));
    let (client, feed, _stop) = streaming(vec![begin(), text("Hel"), text("lo"), end]).await;
    drop(feed);
    let mut stream = client.stream(prompt("", "")).await.unwrap();
    let pieces: Vec<_> = stream.text().map(Result::unwrap).collect().await;
    assert_eq!(pieces, ["Hel", "lo"]);
    assert_eq!(stream.start().unwrap().id, "call-1");
    assert!(stream.end().is_some());
    assert_eq!(text_of(&stream.message().await.unwrap()), "Hello");
    assert!(stream.next().await.is_none());
}

#[tokio::test]
async fn dropping_a_stream_stops_it() {
    let (client, feed, _stop) = streaming(vec![begin(), text("Hel")]).await;
    let mut stream = client.stream(prompt("", "")).await.unwrap();
    stream.next().await.unwrap().unwrap();
    drop(stream);
    timeout(PATIENCE, feed.closed()).await.unwrap();
}

#[tokio::test]
async fn closing_the_client_stops_its_streams() {
    let (client, feed, _stop) = streaming(vec![begin(), text("Hel")]).await;
    let mut stream = client.stream(prompt("", "")).await.unwrap();
    stream.next().await.unwrap().unwrap();
    stream.next().await.unwrap().unwrap();
    let other = client.clone();
    client.close();
    timeout(PATIENCE, feed.closed()).await.unwrap();
    stream.next().await.unwrap().unwrap_err();
    assert!(stream.next().await.is_none());
    assert_eq!(
        other.generate(prompt("", "")).await.unwrap_err().code(),
        Code::Cancelled
    );
}

#[tokio::test]
async fn dropping_the_client_lets_its_streams_go_on() {
    let (client, feed, _stop) = streaming(vec![begin()]).await;
    let mut stream = client.stream(prompt("", "")).await.unwrap();
    drop(client);
    stream.next().await.unwrap().unwrap();
    feed.send(text("more")).await.unwrap();
    let more = timeout(PATIENCE, stream.text().next())
        .await
        .unwrap()
        .unwrap()
        .unwrap();
    assert_eq!(more, "more");
}

#[tokio::test]
async fn a_stream_without_its_end_event_fails() {
    let (client, feed, _stop) = streaming(vec![begin(), text("Hel")]).await;
    drop(feed);
    let mut stream = client.stream(prompt("", "")).await.unwrap();
    let error = stream.message().await.unwrap_err();
    assert_eq!(
        (error.code(), error.request_id()),
        (Code::Internal, "call-1")
    );
    assert_eq!(text_of(&stream.so_far()), "Hel");
}

#[tokio::test]
async fn a_stream_past_its_deadline_fails_after_what_had_come() {
    let (client, feed, _stop) = streaming(vec![begin(), text("Hel")]).await;
    let mut request = Request::new(prompt("", ""));
    request.set_timeout(Duration::from_millis(300));
    let mut stream = client.stream(request).await.unwrap();
    assert_eq!(stream.text().next().await.unwrap().unwrap(), "Hel");
    let error = stream.next().await.unwrap().unwrap_err();
    assert_eq!(error.code(), Code::DeadlineExceeded);
    timeout(PATIENCE, feed.closed()).await.unwrap();
}

#[tokio::test]
async fn route_is_sent_again_and_keeps_its_deadline() {
    let script = Arc::new(Script {
        unavailable: Mutex::new(2),
        ..Default::default()
    });
    let (address, _stop) = serve(&script).await;
    let client = Client::builder(address.to_string()).metadata("x-team", "search");
    client
        .build()
        .unwrap()
        .route(RouteRequest::default())
        .await
        .unwrap();
    let seen = script.seen.lock().unwrap();
    assert_eq!(seen.len(), 3);
    assert!(
        seen.iter()
            .all(|each| each.get("x-team").unwrap() == "search")
    );
}

#[tokio::test]
async fn nobody_there_is_unavailable_at_once() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    let client = Client::new(address.to_string()).unwrap();
    let began = Instant::now();
    let error = client.generate(prompt("", "")).await.unwrap_err();
    assert_eq!(
        (error.code(), error.reason()),
        (Code::Unavailable, ErrorReason::Unspecified)
    );
    assert!(began.elapsed() < PATIENCE);
    let unknown = Client::new("dns:///no-such-host.invalid:1").unwrap();
    let error = unknown.generate(prompt("", "")).await.unwrap_err();
    assert_eq!(error.code(), Code::Unavailable);
    assert!(error.message().contains("no-such-host.invalid"), "{error}");
}

#[tokio::test]
async fn whoever_accepts_and_hangs_up_is_unavailable() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((connection, _)) = listener.accept().await {
            drop(connection);
        }
    });
    let client = Client::new(address.to_string()).unwrap();
    let error = timeout(PATIENCE, client.generate(prompt("", "")))
        .await
        .unwrap()
        .unwrap_err();
    assert_eq!(error.code(), Code::Unavailable);
}

#[tokio::test]
async fn it_connects_again_after_a_restart() {
    let script = answering("back");
    let (address, stop) = serve(&script).await;
    let client = Client::new(address.to_string()).unwrap();
    client.generate(prompt("", "")).await.unwrap();
    drop(stop);
    // The port is free once the server has ended.
    let listener = loop {
        match TcpListener::bind(address).await {
            Ok(listener) => break listener,
            Err(_) => tokio::task::yield_now().await,
        }
    };
    let _stop = serve_on(listener, &script);
    let answered = async {
        while let Err(error) = client.generate(prompt("", "")).await {
            assert_eq!(error.code(), Code::Unavailable, "{error}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(PATIENCE, answered).await.unwrap();
}

fn any(name: &str, message: &impl Message) -> prost_types::Any {
    let type_url = format!("type.googleapis.com/{name}");
    prost_types::Any {
        type_url,
        value: message.encode_to_vec(),
    }
}

fn failure(code: Code, inner: Code, details: Vec<prost_types::Any>) -> Error {
    let attached = pb::Status {
        code: inner as i32,
        message: String::new(),
        details,
    };
    Error::of_call(
        Status::with_details(code, "no", attached.encode_to_vec().into()),
        "mine",
    )
}

fn info(domain: &str, reason: &str) -> prost_types::Any {
    let metadata = [("scope".to_owned(), "key".to_owned())].into();
    let info = pb::ErrorInfo {
        reason: reason.to_owned(),
        domain: domain.to_owned(),
        metadata,
    };
    any("google.rpc.ErrorInfo", &info)
}

#[test]
fn an_error_tells_its_details() {
    let delay = prost_types::Duration {
        seconds: 1,
        nanos: 500_000_000,
    };
    let field = pb::bad_request::FieldViolation {
        field: "model".into(),
        description: "wrong".into(),
        ..Default::default()
    };
    let quota = pb::quota_failure::Violation {
        subject: "key:a".into(),
        description: "spent".into(),
        ..Default::default()
    };
    let error = failure(
        Code::ResourceExhausted,
        Code::ResourceExhausted,
        vec![
            any(
                "google.rpc.RetryInfo",
                &pb::RetryInfo {
                    retry_delay: Some(delay),
                },
            ),
            info("trunkline", "ERROR_REASON_RATE_LIMIT"),
            any(
                "google.rpc.BadRequest",
                &pb::BadRequest {
                    field_violations: vec![field],
                },
            ),
            any(
                "google.rpc.QuotaFailure",
                &pb::QuotaFailure {
                    violations: vec![quota],
                },
            ),
            any(
                "trunkline.v1.CallReport",
                &CallReport {
                    id: "theirs".into(),
                    ..Default::default()
                },
            ),
            prost_types::Any {
                type_url: "garbled".into(),
                value: vec![255],
            },
        ],
    );
    assert_eq!(error.reason(), ErrorReason::RateLimit);
    assert_eq!(error.metadata()["scope"], "key");
    assert_eq!(error.retry_after(), Some(Duration::from_millis(1500)));
    assert_eq!(error.field_violations()[0].field, "model");
    assert_eq!(error.quota_violations()[0].subject, "key:a");
    assert_eq!(error.report().unwrap().id, "theirs");
    assert_eq!(error.request_id(), "theirs");
    assert_eq!(error.to_string(), "RATE_LIMIT: no");
}

#[test]
fn what_others_say_is_no_reason_of_ours() {
    for details in [
        vec![info("elsewhere", "ERROR_REASON_RATE_LIMIT")],
        vec![info("trunkline", "ERROR_REASON_OF_TOMORROW")],
        vec![],
    ] {
        let error = failure(Code::Unavailable, Code::Unavailable, details);
        assert_eq!(error.reason(), ErrorReason::Unspecified);
        assert_eq!(
            (error.request_id(), error.to_string().as_str()),
            ("mine", "Unavailable: no")
        );
    }
    let details = vec![info("trunkline", "ERROR_REASON_RATE_LIMIT")];
    let contradicting = failure(Code::Unavailable, Code::ResourceExhausted, details);
    assert_eq!(contradicting.reason(), ErrorReason::Unspecified);
}

#[test]
fn wrong_options_are_refused_without_the_secret() {
    let at = || Client::builder("127.0.0.1:1");
    for (builder, told) in [
        (at().timeout(Duration::ZERO), "timeout"),
        (at().api_key(""), "API key"),
        (at().api_key("sec\nret"), "printable"),
        (
            at().api_key("k").metadata("Authorization", "x"),
            "authorization",
        ),
        (at().metadata("x team", "search"), "x team"),
        (Client::builder(""), "target"),
        (Client::builder("not a target"), "not a target"),
        (
            at().tls(Tls::default().authorities("no PEM")),
            "authorities",
        ),
        (at().tls(Tls::default().identity("no PEM", "no PEM")), "key"),
    ] {
        let error = builder.build().unwrap_err().to_string();
        assert!(
            error.contains(told) && !error.contains("ret"),
            "{error} does not name {told}"
        );
    }
}

#[test]
fn the_environment_is_read_and_its_mistakes_are_named() {
    let of = |name: &'static str, value: &'static str| {
        Builder::from_lookup(move |asked| (asked == name).then(|| value.to_owned()))
    };
    let client = of("TRUNKLINE_TIMEOUT", "7.5").unwrap().build().unwrap();
    assert_eq!(client.timeout(), Duration::from_millis(7500));
    assert!(format!("{client:?}").contains("127.0.0.1:50051"));
    assert!(of("TRUNKLINE_TIMEOUT", "").is_ok());
    for value in ["soon", "0", "-1", "nan", "inf", "1e300"] {
        let error = of("TRUNKLINE_TIMEOUT", value)
            .err()
            .expect(value)
            .to_string();
        assert!(error.contains("TRUNKLINE_TIMEOUT"), "{error}");
    }
    for (name, value) in [
        ("TRUNKLINE_TLS", "perhaps"),
        ("TRUNKLINE_CERT_FILE", "client.pem"),
        ("TRUNKLINE_KEY_FILE", "client.key"),
    ] {
        let error = of(name, value).err().expect(name).to_string();
        assert!(error.contains(name), "{error}");
    }
    let error = of("TRUNKLINE_CA_FILE", "no-such-file.pem")
        .err()
        .unwrap()
        .to_string();
    assert!(error.contains("no-such-file.pem"), "{error}");
}

#[test]
fn parts_that_come_in_turn_are_kept_apart() {
    use crate::v1::{Part, Signature, Source, ToolCallDelta, part};
    use stream_delta::Kind;

    let mut assembler = crate::MessageAssembler::default();
    let call = |id: &str, name: &str, arguments: &str| {
        Kind::ToolCall(ToolCallDelta {
            id: id.into(),
            name: name.into(),
            arguments_json: arguments.into(),
        })
    };
    let whole = Part {
        kind: Some(part::Kind::Text("whole".into())),
        ..Default::default()
    };
    for (part_index, kind) in [
        (1, call("a", "weather", "{\"ci")),
        (0, Kind::Reasoning("Hm".into())),
        (2, call("b", "clock", "")),
        (1, call("", "", "ty\":1}")),
        (0, Kind::Reasoning("m.".into())),
        (
            0,
            Kind::Signature(Signature {
                dialect: "d".into(),
                value: "s".into(),
            }),
        ),
        (2, call("", "", "{}")),
        (3, Kind::Part(whole)),
        (4, Kind::Text("Do".into())),
        (4, Kind::Text("ne".into())),
        (
            0,
            Kind::Source(Source {
                uri: "https://example.com".into(),
                ..Default::default()
            }),
        ),
    ] {
        assembler.add(StreamDelta {
            part_index,
            kind: Some(kind),
        });
    }
    assembler.add(StreamDelta {
        part_index: 9,
        kind: None,
    });
    let message = assembler.message();
    let shown: Vec<String> = message
        .parts
        .iter()
        .map(|part| match part.kind.as_ref().unwrap() {
            part::Kind::Text(text) => text.clone(),
            part::Kind::Reasoning(reasoning) => {
                format!(
                    "{} {}",
                    reasoning.text,
                    part.signature.as_ref().unwrap().value
                )
            }
            part::Kind::ToolCall(call) => {
                format!("{} {} {}", call.id, call.name, call.arguments_json)
            }
            kind => panic!("{kind:?}"),
        })
        .collect();
    assert_eq!(
        shown,
        [
            "Hmm. s",
            "a weather {\"city\":1}",
            "b clock {}",
            "whole",
            "Done"
        ]
    );
    assert_eq!(message.sources.len(), 1);
}
