//! A streamed answer.

use std::future::poll_fn;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use futures_core::Stream as FuturesStream;
use tokio::time::{Instant, Sleep, sleep_until};
use tonic::{Status, Streaming};

use crate::assemble::MessageAssembler;
use crate::client::{normal, too_late};
use crate::error::Error;
use crate::v1::stream_generate_response::Event;
use crate::v1::{Message, StreamEnd, StreamGenerateResponse, StreamStart, stream_delta};

/// The events of one streamed answer, in order, as a [`futures_core::Stream`].
///
/// A stream that breaks off gives an error as its last item; it never ends as if it were
/// complete. Dropping it before its end cancels the call.
#[must_use = "a stream that is not read is cancelled when it is dropped"]
pub struct Stream {
    // None once it has ended or failed; dropping it is what cancels the call.
    call: Option<Streaming<StreamGenerateResponse>>,
    deadline: Pin<Box<Sleep>>,
    request_id: String,
    start: Option<StreamStart>,
    end: Option<StreamEnd>,
    assembler: MessageAssembler,
}

impl std::fmt::Debug for Stream {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Stream")
            .field("request_id", &self.request_id)
            .field("open", &self.call.is_some())
            .finish_non_exhaustive()
    }
}

impl Stream {
    pub(crate) fn new(
        call: Streaming<StreamGenerateResponse>,
        deadline: Instant,
        request_id: String,
    ) -> Self {
        Self {
            call: Some(call),
            deadline: Box::pin(sleep_until(deadline)),
            request_id,
            start: None,
            end: None,
            assembler: MessageAssembler::default(),
        }
    }

    /// The first event: who answers and why. None until it has come.
    #[must_use]
    pub fn start(&self) -> Option<&StreamStart> {
        self.start.as_ref()
    }

    /// The last event: usage, cost and attempts. None until it has come, and when the stream
    /// failed.
    #[must_use]
    pub fn end(&self) -> Option<&StreamEnd> {
        self.end.as_ref()
    }

    /// The next event; None after the end event.
    ///
    /// # Errors
    ///
    /// When the stream fails; there is nothing after that.
    pub async fn next(&mut self) -> Option<Result<StreamGenerateResponse, Error>> {
        poll_fn(|context| self.poll_event(context)).await
    }

    /// The pieces of text alone.
    pub fn text(&mut self) -> Text<'_> {
        Text { stream: self }
    }

    /// Reads to the end and gives the message that Generate would have returned.
    ///
    /// # Errors
    ///
    /// When the stream fails; [`Stream::so_far`] has what had come.
    pub async fn message(&mut self) -> Result<Message, Error> {
        while let Some(event) = self.next().await {
            event?;
        }
        Ok(self.so_far())
    }

    /// The message as far as it has come.
    #[must_use]
    pub fn so_far(&self) -> Message {
        self.assembler.message()
    }

    fn poll_event(
        &mut self,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<StreamGenerateResponse, Error>>> {
        let Some(call) = &mut self.call else {
            return Poll::Ready(None);
        };
        if self.deadline.as_mut().poll(context).is_ready() {
            return Poll::Ready(Some(Err(self.fail(too_late()))));
        }
        match ready!(Pin::new(call).poll_next(context)) {
            Some(Ok(event)) => {
                self.take(&event);
                Poll::Ready(Some(Ok(event)))
            }
            Some(Err(status)) => Poll::Ready(Some(Err(self.fail(normal(status))))),
            None if self.end.is_none() => {
                let status = Status::internal("the stream ended without its end event");
                Poll::Ready(Some(Err(self.fail(status))))
            }
            None => {
                self.call = None;
                Poll::Ready(None)
            }
        }
    }

    fn take(&mut self, event: &StreamGenerateResponse) {
        match &event.event {
            Some(Event::Start(start)) => {
                self.request_id.clone_from(&start.id);
                self.start = Some(start.clone());
            }
            Some(Event::Delta(delta)) => self.assembler.add(delta.clone()),
            Some(Event::End(end)) => self.end = Some(end.clone()),
            None => {}
        }
    }

    fn fail(&mut self, status: Status) -> Error {
        self.call = None;
        Error::of_call(status, &self.request_id)
    }
}

impl FuturesStream for Stream {
    type Item = Result<StreamGenerateResponse, Error>;

    fn poll_next(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.get_mut().poll_event(context)
    }
}

/// The pieces of text of a stream, as a [`futures_core::Stream`].
#[derive(Debug)]
pub struct Text<'a> {
    stream: &'a mut Stream,
}

impl Text<'_> {
    /// The next piece; None at the end.
    ///
    /// # Errors
    ///
    /// When the stream fails; there is nothing after that.
    pub async fn next(&mut self) -> Option<Result<String, Error>> {
        poll_fn(|context| self.poll_piece(context)).await
    }

    fn poll_piece(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<String, Error>>> {
        loop {
            let event = match ready!(self.stream.poll_event(context)) {
                Some(Ok(event)) => event,
                Some(Err(error)) => return Poll::Ready(Some(Err(error))),
                None => return Poll::Ready(None),
            };
            if let Some(Event::Delta(delta)) = event.event
                && let Some(stream_delta::Kind::Text(piece)) = delta.kind
                && !piece.is_empty()
            {
                return Poll::Ready(Some(Ok(piece)));
            }
        }
    }
}

impl FuturesStream for Text<'_> {
    type Item = Result<String, Error>;

    fn poll_next(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.get_mut().poll_piece(context)
    }
}
