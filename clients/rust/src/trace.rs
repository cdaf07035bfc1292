//! The trace that a call belongs to, as W3C's headers.

use std::sync::Arc;

/// Gives the headers of a call's trace to what it is handed.
pub(crate) type Propagator = Arc<dyn Fn(&mut dyn FnMut(&str, &str)) + Send + Sync>;

/// What is used when the builder is told nothing.
#[cfg(not(feature = "opentelemetry"))]
pub(crate) fn default_propagator() -> Option<Propagator> {
    None
}

/// What is used when the builder is told nothing: OpenTelemetry's current context.
#[cfg(feature = "opentelemetry")]
#[allow(clippy::unnecessary_wraps)] // Without the feature there is none.
pub(crate) fn default_propagator() -> Option<Propagator> {
    use opentelemetry::Context;
    use opentelemetry::trace::TraceContextExt;

    Some(Arc::new(|give| {
        let context = Context::current();
        let span = context.span();
        let own = span.span_context();
        if !own.is_valid() {
            return;
        }
        let flags = own.trace_flags().to_u8() & 1;
        give(
            "traceparent",
            &format!("00-{}-{}-{flags:02x}", own.trace_id(), own.span_id()),
        );
        let state = own.trace_state().header();
        if !state.is_empty() {
            give("tracestate", &state);
        }
    }))
}
