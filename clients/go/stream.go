package trunkline

import (
	"context"
	"errors"
	"io"
	"iter"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"

	trunklinev1 "github.com/trunkline/trunkline/clients/go/gen/trunkline/v1"
)

// Stream is one streamed answer. Read it once, by Events, Text or Message; leaving the loop before
// its end cancels the call, and the router stops the provider: an answer that nobody reads is not
// paid for. A stream that is not read to its end otherwise must be closed.
//
// It is read by one goroutine at a time; Close may come from any.
type Stream struct {
	call      grpc.ServerStreamingClient[trunklinev1.StreamGenerateResponse]
	done      context.CancelFunc
	requestID string
	err       error
	start     *trunklinev1.StreamStart
	end       *trunklinev1.StreamEnd
	assembler Assembler
}

// Stream answers a conversation as the answer is written. The context covers the whole stream.
// What goes wrong, even at once, is told to who reads it.
func (c *Client) Stream(
	ctx context.Context, request *trunklinev1.GenerateRequest, options ...grpc.CallOption,
) *Stream {
	ctx, done := c.Context(ctx)
	stream := &Stream{done: done, requestID: request.GetRequestId()}
	call, err := c.stub.StreamGenerate(ctx, request, options...)
	if err != nil {
		stream.err = fromError(err, stream.requestID)
		done()
	}
	stream.call = call
	return stream
}

// Start is the first event: who answers and why. Nil until it has come.
func (s *Stream) Start() *trunklinev1.StreamStart { return s.start }

// End is the last event: usage, cost and attempts. Nil until it has come, and when the stream
// failed.
func (s *Stream) End() *trunklinev1.StreamEnd { return s.end }

// Close cancels the call unless it has ended; reading on fails with codes.Canceled.
func (s *Stream) Close() { s.done() }

// Next gives the next event, and io.EOF after the end event. Any other error is an *Error.
func (s *Stream) Next() (*trunklinev1.StreamGenerateResponse, error) {
	if s.err != nil {
		return nil, s.err
	}
	event, err := s.call.Recv()
	if err != nil {
		s.err = s.ending(err)
		s.done()
		return nil, s.err
	}
	switch kind := event.GetEvent().(type) {
	case *trunklinev1.StreamGenerateResponse_Start:
		s.start = kind.Start
		s.requestID = kind.Start.GetId()
	case *trunklinev1.StreamGenerateResponse_Delta:
		s.assembler.Add(kind.Delta)
	case *trunklinev1.StreamGenerateResponse_End:
		s.end = kind.End
	}
	return event, nil
}

func (s *Stream) ending(err error) error {
	switch {
	case !errors.Is(err, io.EOF):
		return fromError(err, s.requestID)
	case s.end == nil:
		return &Error{
			Code:      codes.Internal,
			Message:   "the stream ended without its end event",
			RequestID: s.requestID,
		}
	default:
		return io.EOF
	}
}

// Events gives the events in order, and a failure as the last pair.
func (s *Stream) Events() iter.Seq2[*trunklinev1.StreamGenerateResponse, error] {
	return func(yield func(*trunklinev1.StreamGenerateResponse, error) bool) {
		defer s.Close()
		for {
			event, err := s.Next()
			if errors.Is(err, io.EOF) || !yield(event, err) || err != nil {
				return
			}
		}
	}
}

// Text gives the pieces of text in order, and a failure as the last pair.
func (s *Stream) Text() iter.Seq2[string, error] {
	return func(yield func(string, error) bool) {
		for event, err := range s.Events() {
			piece := event.GetDelta().GetText()
			if (piece != "" || err != nil) && !yield(piece, err) {
				return
			}
		}
	}
}

// Message reads to the end and gives the message that Generate would have returned. With an error
// it gives the message as far as it had come.
func (s *Stream) Message() (*trunklinev1.Message, error) {
	for _, err := range s.Events() {
		if err != nil {
			return s.assembler.Message(), err
		}
	}
	return s.assembler.Message(), nil
}
