//! Drives the Rust client as tests/conformance/README.md says.

use std::collections::HashMap;
use std::error::Error as StdError;
use std::io::Write;
use std::time::Duration;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use opentelemetry::Context;
use opentelemetry::trace::{
    FutureExt, SpanContext, SpanId, TraceContextExt, TraceFlags, TraceId, TraceState,
};
use prost::Message;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::sync::oneshot;
use tonic::Request;
use tonic::metadata::{Ascii, MetadataKey};
use trunkline::v1::stream_generate_response::Event;
use trunkline::{Builder, Client, ConfigError, Error, Tls, v1};

#[derive(Default, Deserialize)]
#[serde(default)]
struct Options {
    target: String,
    api_key: Option<String>,
    timeout: Option<f64>,
    metadata: HashMap<String, String>,
    ca_file: Option<String>,
    cert_file: Option<String>,
    key_file: Option<String>,
    server_name: Option<String>,
    environment: Option<HashMap<String, String>>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Line {
    id: u64,
    op: String,
    client: String,
    options: Options,
    method: String,
    request: String,
    timeout: Option<f64>,
    metadata: HashMap<String, String>,
    trace: String,
    read: String,
    call: u64,
}

/// What a call may end with besides an answer.
enum Failure {
    Call(Error),
    Driver(String),
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::Call(error)
    }
}

impl From<prost::DecodeError> for Failure {
    fn from(error: prost::DecodeError) -> Self {
        Self::Driver(error.to_string())
    }
}

type Answer = Result<Value, Failure>;

#[tokio::main]
async fn main() -> Result<(), Box<dyn StdError>> {
    let mut clients = HashMap::new();
    let mut cancels = HashMap::new();
    let mut running = Vec::new();
    let mut lines = BufReader::new(tokio::io::stdin()).lines();
    while let Some(text) = lines.next_line().await? {
        let line: Line = serde_json::from_str(&text)?;
        match line.op.as_str() {
            "open" => match open(&line.options) {
                Ok(client) => {
                    clients.insert(line.client, client);
                    write(line.id, json!({"ok": true}));
                }
                Err(error) => write(line.id, json!({"failed": error.to_string()})),
            },
            "close" => {
                let client: Option<Client> = clients.remove(&line.client);
                client.ok_or("no such client")?.close();
                write(line.id, json!({"ok": true}));
            }
            "cancel" => {
                let cancel: Option<oneshot::Sender<()>> = cancels.remove(&line.call);
                // A call that has ended needs no cancelling.
                let _ended = cancel.ok_or("no such call")?.send(());
            }
            "call" | "stream" => {
                let client = clients.get(&line.client).ok_or("no such client")?.clone();
                let (cancel, cancelled) = oneshot::channel();
                cancels.insert(line.id, cancel);
                running.push(tokio::spawn(run(client, line, cancelled)));
            }
            op => write(line.id, json!({"failed": format!("unknown op {op}")})),
        }
    }
    cancels.clear();
    for task in running {
        task.await?;
    }
    Ok(())
}

fn write(id: u64, mut told: Value) {
    told["id"] = json!(id);
    let mut out = std::io::stdout().lock();
    writeln!(out, "{told}")
        .and_then(|()| out.flush())
        .expect("the harness reads");
}

fn open(options: &Options) -> Result<Client, ConfigError> {
    if let Some(variables) = &options.environment {
        return Builder::from_lookup(|name| variables.get(name).cloned())?.build();
    }
    let mut builder = Client::builder(&options.target);
    if let Some(key) = &options.api_key {
        builder = builder.api_key(key);
    }
    if let Some(seconds) = options.timeout {
        builder = builder.timeout(Duration::from_secs_f64(seconds));
    }
    for (name, value) in &options.metadata {
        builder = builder.metadata(name, value);
    }
    let wanted = [&options.ca_file, &options.cert_file, &options.server_name];
    if wanted.iter().any(|option| option.is_some()) {
        let mut tls = Tls::default();
        if let Some(file) = &options.ca_file {
            tls = tls.authorities_from(file)?;
        }
        if let (Some(chain), Some(key)) = (&options.cert_file, &options.key_file) {
            tls = tls.identity_from(chain, key)?;
        }
        if let Some(name) = &options.server_name {
            tls = tls.server_name(name);
        }
        builder = builder.tls(tls);
    }
    builder.build()
}

/// Makes the call within the trace that the line names, until it is cancelled: then it is dropped.
async fn run(client: Client, line: Line, mut cancelled: oneshot::Receiver<()>) {
    let context = context_of(&line.trace);
    let calling = async {
        if line.op == "call" {
            call(&client, &line).await
        } else {
            stream(&client, &line).await
        }
    };
    let cancel = async {
        if (&mut cancelled).await.is_err() {
            // The input has ended; the call goes on.
            std::future::pending::<()>().await;
        }
    };
    let answer = tokio::select! {
        answer = calling.with_context(context) => answer,
        () = cancel => Ok(json!({"cancelled": true})),
    };
    match answer {
        Ok(answer) => write(line.id, answer),
        Err(Failure::Call(error)) => write(line.id, json!({"error": told(&error)})),
        Err(Failure::Driver(why)) => write(line.id, json!({"failed": why})),
    }
}

fn context_of(traceparent: &str) -> Context {
    let parts: Vec<&str> = traceparent.split('-').collect();
    let [_, trace, span, _] = parts[..] else {
        return Context::new();
    };
    let (Ok(trace), Ok(span)) = (TraceId::from_hex(trace), SpanId::from_hex(span)) else {
        return Context::new();
    };
    Context::new().with_remote_span_context(SpanContext::new(
        trace,
        span,
        TraceFlags::SAMPLED,
        true,
        TraceState::default(),
    ))
}

fn request<M: Message + Default>(line: &Line) -> Result<Request<M>, Failure> {
    let raw = BASE64_STANDARD
        .decode(&line.request)
        .map_err(|error| Failure::Driver(error.to_string()))?;
    let mut request = Request::new(M::decode(raw.as_slice())?);
    if let Some(seconds) = line.timeout {
        request.set_timeout(Duration::from_secs_f64(seconds));
    }
    for (name, value) in &line.metadata {
        let name: MetadataKey<Ascii> = name
            .to_ascii_lowercase()
            .parse()
            .map_err(|_| Failure::Driver(format!("{name} is no metadata")))?;
        let value = value
            .parse()
            .map_err(|_| Failure::Driver(format!("{value} is no metadata")))?;
        request.metadata_mut().insert(name, value);
    }
    Ok(request)
}

async fn call(client: &Client, line: &Line) -> Answer {
    match line.method.as_str() {
        "Generate" => {
            let response = client
                .generate(request::<v1::GenerateRequest>(line)?)
                .await?;
            let text = response
                .message
                .as_ref()
                .map(trunkline::text_of)
                .unwrap_or_default();
            Ok(json!({"response": raw(&response), "text": text}))
        }
        "Embed" => plain(&client.embed(request::<v1::EmbedRequest>(line)?).await?),
        "Route" => plain(&client.route(request::<v1::RouteRequest>(line)?).await?),
        "BatchRoute" => plain(
            &client
                .batch_route(request::<v1::BatchRouteRequest>(line)?)
                .await?,
        ),
        "CountTokens" => plain(
            &client
                .count_tokens(request::<v1::CountTokensRequest>(line)?)
                .await?,
        ),
        "ListModels" => plain(
            &client
                .list_models(request::<v1::ListModelsRequest>(line)?)
                .await?,
        ),
        "ListProviderHealth" => {
            let request = request::<v1::ListProviderHealthRequest>(line)?;
            plain(&client.list_provider_health(request).await?)
        }
        "Rerank" => plain(&client.rerank(request::<v1::RerankRequest>(line)?).await?),
        method => Err(Failure::Driver(format!("unknown method {method}"))),
    }
}

fn plain(response: &impl Message) -> Answer {
    Ok(json!({"response": raw(response)}))
}

async fn stream(client: &Client, line: &Line) -> Answer {
    let mut stream = client.stream(request::<v1::GenerateRequest>(line)?).await?;
    match line.read.as_str() {
        "text" => {
            let mut whole = String::new();
            let mut text = stream.text();
            while let Some(piece) = text.next().await {
                whole.push_str(&piece?);
            }
            Ok(json!({"text": whole}))
        }
        "message" => Ok(json!({"message": raw(&stream.message().await?)})),
        "leave" => {
            while let Some(event) = stream.next().await {
                if matches!(event?.event, Some(Event::Delta(_))) {
                    break;
                }
            }
            Ok(json!({"left": true}))
        }
        _ => {
            while let Some(event) = stream.next().await {
                write(line.id, json!({"event": raw(&event?)}));
            }
            Ok(json!({"done": true}))
        }
    }
}

fn told(error: &Error) -> Value {
    let fields: Vec<_> = error
        .field_violations()
        .iter()
        .map(|each| json!({"field": each.field, "description": each.description}))
        .collect();
    let quotas: Vec<_> = error
        .quota_violations()
        .iter()
        .map(|each| json!({"subject": each.subject, "description": each.description}))
        .collect();
    json!({
        "code": code_name(error.code()),
        "reason": error.reason().as_str_name(),
        "message": error.message(),
        "metadata": error.metadata(),
        "retry_after": error.retry_after().map(|pause| pause.as_secs_f64()),
        "field_violations": fields,
        "quota_violations": quotas,
        "report": error.report().map(raw),
        "request_id": error.request_id(),
    })
}

/// Writes `DeadlineExceeded` as gRPC's specification does, `DEADLINE_EXCEEDED`.
fn code_name(code: tonic::Code) -> String {
    let mut name = String::new();
    for (at, char) in format!("{code:?}").chars().enumerate() {
        if at > 0 && char.is_uppercase() {
            name.push('_');
        }
        name.extend(char.to_uppercase());
    }
    name
}

fn raw(message: &impl Message) -> String {
    BASE64_STANDARD.encode(message.encode_to_vec())
}
