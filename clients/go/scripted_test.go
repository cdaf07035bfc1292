package trunkline_test

import (
	"context"
	"net"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"

	trunkline "github.com/trunkline/trunkline/clients/go"
	trunklinev1 "github.com/trunkline/trunkline/clients/go/gen/trunkline/v1"
)

// scripted is a router whose answers each test writes. Methods without a script are UNIMPLEMENTED.
type scripted struct {
	trunklinev1.UnimplementedInferenceServiceServer

	generate func(context.Context, *trunklinev1.GenerateRequest) (*trunklinev1.GenerateResponse, error)
	stream   func(*trunklinev1.GenerateRequest, grpc.ServerStreamingServer[trunklinev1.StreamGenerateResponse]) error

	held sync.Mutex
	seen []received
}

// received is one call as it arrived.
type received struct {
	metadata  metadata.MD
	remaining time.Duration
}

func (s *scripted) record(ctx context.Context) {
	told, _ := metadata.FromIncomingContext(ctx)
	deadline, _ := ctx.Deadline()
	s.held.Lock()
	defer s.held.Unlock()
	s.seen = append(s.seen, received{told, time.Until(deadline)})
}

func (s *scripted) last() received {
	s.held.Lock()
	defer s.held.Unlock()
	return s.seen[len(s.seen)-1]
}

func (s *scripted) Generate(
	ctx context.Context, request *trunklinev1.GenerateRequest,
) (*trunklinev1.GenerateResponse, error) {
	s.record(ctx)
	return s.generate(ctx, request)
}

func (s *scripted) StreamGenerate(
	request *trunklinev1.GenerateRequest,
	stream grpc.ServerStreamingServer[trunklinev1.StreamGenerateResponse],
) error {
	s.record(stream.Context())
	return s.stream(request, stream)
}

// serve listens on a free port until the test ends.
func serve(t *testing.T, router *scripted) string {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server := grpc.NewServer()
	trunklinev1.RegisterInferenceServiceServer(server, router)
	served := make(chan error, 1)
	go func() { served <- server.Serve(listener) }()
	t.Cleanup(func() {
		server.Stop()
		if err := <-served; err != nil {
			t.Error(err)
		}
	})
	return listener.Addr().String()
}

// connect opens a client that ends with the test.
func connect(t *testing.T, target string, options ...trunkline.Option) *trunkline.Client {
	t.Helper()
	client, err := trunkline.New(target, options...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := client.Close(); err != nil {
			t.Error(err)
		}
	})
	return client
}

func answering(text string) *scripted {
	return &scripted{
		generate: func(
			_ context.Context, request *trunklinev1.GenerateRequest,
		) (*trunklinev1.GenerateResponse, error) {
			message := &trunklinev1.Message{Parts: trunkline.UserMessage(text).GetParts()}
			return &trunklinev1.GenerateResponse{Id: request.GetRequestId(), Message: message}, nil
		},
	}
}

func event(delta *trunklinev1.StreamDelta) *trunklinev1.StreamGenerateResponse {
	return &trunklinev1.StreamGenerateResponse{
		Event: &trunklinev1.StreamGenerateResponse_Delta{Delta: delta},
	}
}

func text(index int32, text string) *trunklinev1.StreamDelta {
	return &trunklinev1.StreamDelta{
		PartIndex: index, Kind: &trunklinev1.StreamDelta_Text{Text: text},
	}
}

var (
	begin = &trunklinev1.StreamGenerateResponse{
		Event: &trunklinev1.StreamGenerateResponse_Start{
			Start: &trunklinev1.StreamStart{Id: "call-1"},
		},
	}
	finish = &trunklinev1.StreamGenerateResponse{
		Event: &trunklinev1.StreamGenerateResponse_End{
			End: &trunklinev1.StreamEnd{Usage: &trunklinev1.Usage{OutputTokens: 2}},
		},
	}
)

// streaming sends these events and then what `after` returns.
func streaming(
	after func(context.Context) error, events ...*trunklinev1.StreamGenerateResponse,
) *scripted {
	return &scripted{
		stream: func(
			_ *trunklinev1.GenerateRequest,
			stream grpc.ServerStreamingServer[trunklinev1.StreamGenerateResponse],
		) error {
			for _, each := range events {
				if err := stream.Send(each); err != nil {
					return err
				}
			}
			return after(stream.Context())
		},
	}
}

func well(context.Context) error { return nil }
