// Package trunkline is the client for Trunkline, the gRPC router for language-model traffic: the
// contract's own messages, in gen/trunkline/v1, and a thin layer of typed calls over gRPC.
package trunkline

import (
	"context"
	"fmt"
	"os"
	"time"

	"go.opentelemetry.io/otel/propagation"
	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"

	trunklinev1 "github.com/trunkline/trunkline/clients/go/gen/trunkline/v1"
)

// Client is a connection to a router. It is safe for use by several goroutines.
//
// Every call ends with its context. A context without a deadline gets the client's timeout. A
// call that fails returns an *Error.
type Client struct {
	connection *grpc.ClientConn
	stub       trunklinev1.InferenceServiceClient
	settings   *settings
	fixed      []string
}

// New makes a client for a gRPC name such as "host:50051" or "dns:///trunkline.internal:50051";
// calls go in turn to all addresses that the name has. It connects with the first call. An error
// means that an option is wrong.
func New(target string, options ...Option) (*Client, error) {
	if target == "" {
		return nil, fmt.Errorf("trunkline: the target must not be empty")
	}
	s, err := newSettings(options)
	if err != nil {
		return nil, err
	}
	connection, err := grpc.NewClient(target, s.dialOptions()...)
	if err != nil {
		return nil, fmt.Errorf("trunkline: %w", err)
	}
	client := &Client{
		connection: connection,
		stub:       trunklinev1.NewInferenceServiceClient(connection),
		settings:   s,
	}
	for name, value := range s.metadata {
		client.fixed = append(client.fixed, name, value)
	}
	return client, nil
}

// FromEnvironment makes a client as the TRUNKLINE_ variables say; the README lists them. The
// options stand above the variables. An error names the variable that is wrong.
func FromEnvironment(options ...Option) (*Client, error) {
	return FromLookup(os.LookupEnv, options...)
}

// FromLookup is FromEnvironment with another source of variables.
func FromLookup(lookup func(string) (string, bool), options ...Option) (*Client, error) {
	target, own, err := environment(lookup)
	if err != nil {
		return nil, err
	}
	return New(target, append(own, options...)...)
}

// Close closes the connection and cancels the calls still in progress.
func (c *Client) Close() error { return c.connection.Close() }

// Stub is gRPC's own client, for calls that have no method here. It knows neither the client's
// timeout nor its metadata; Context adds both, and FromError makes its errors typed.
func (c *Client) Stub() trunklinev1.InferenceServiceClient { return c.stub }

// Generate answers a conversation in one piece.
func (c *Client) Generate(
	ctx context.Context, request *trunklinev1.GenerateRequest, options ...grpc.CallOption,
) (*trunklinev1.GenerateResponse, error) {
	return call(ctx, c, c.stub.Generate, request, options)
}

// Embed turns texts into vectors.
func (c *Client) Embed(
	ctx context.Context, request *trunklinev1.EmbedRequest, options ...grpc.CallOption,
) (*trunklinev1.EmbedResponse, error) {
	return call(ctx, c, c.stub.Embed, request, options)
}

// Route tells how a call would be routed, without making it. Sent again when the router is
// unavailable.
func (c *Client) Route(
	ctx context.Context, request *trunklinev1.RouteRequest, options ...grpc.CallOption,
) (*trunklinev1.RouteResponse, error) {
	return call(ctx, c, c.stub.Route, request, options)
}

// BatchRoute tells how each of up to 10,000 calls would be routed, in their order; one that fails
// leaves the others alone. Sent again when the router is unavailable.
func (c *Client) BatchRoute(
	ctx context.Context, requests []*trunklinev1.RouteRequest, options ...grpc.CallOption,
) (*trunklinev1.BatchRouteResponse, error) {
	request := &trunklinev1.BatchRouteRequest{Requests: requests}
	return call(ctx, c, c.stub.BatchRoute, request, options)
}

// Rerank orders documents by how well they answer a query.
func (c *Client) Rerank(
	ctx context.Context, request *trunklinev1.RerankRequest, options ...grpc.CallOption,
) (*trunklinev1.RerankResponse, error) {
	return call(ctx, c, c.stub.Rerank, request, options)
}

// GenerateImage makes pictures of a description, or changes given ones.
func (c *Client) GenerateImage(
	ctx context.Context, request *trunklinev1.GenerateImageRequest, options ...grpc.CallOption,
) (*trunklinev1.GenerateImageResponse, error) {
	return call(ctx, c, c.stub.GenerateImage, request, options)
}

// CountTokens counts the tokens of a conversation without having it answered. Sent again when the
// router is unavailable.
func (c *Client) CountTokens(
	ctx context.Context, request *trunklinev1.CountTokensRequest, options ...grpc.CallOption,
) (*trunklinev1.CountTokensResponse, error) {
	return call(ctx, c, c.stub.CountTokens, request, options)
}

// ListModels gives one page of the models that the caller may use. Sent again when the router is
// unavailable.
func (c *Client) ListModels(
	ctx context.Context, request *trunklinev1.ListModelsRequest, options ...grpc.CallOption,
) (*trunklinev1.ListModelsResponse, error) {
	return call(ctx, c, c.stub.ListModels, request, options)
}

// ListProviderHealth tells how each provider fares. Sent again when the router is unavailable.
func (c *Client) ListProviderHealth(
	ctx context.Context, request *trunklinev1.ListProviderHealthRequest,
	options ...grpc.CallOption,
) (*trunklinev1.ListProviderHealthResponse, error) {
	return call(ctx, c, c.stub.ListProviderHealth, request, options)
}

// Context is the context of one call: with the client's metadata and the trace of the given one,
// and with the client's timeout where the given one has no deadline. The function ends it.
func (c *Client) Context(ctx context.Context) (context.Context, context.CancelFunc) {
	pairs := c.fixed
	if c.settings.propagator != nil {
		carrier := propagation.MapCarrier{}
		c.settings.propagator.Inject(ctx, carrier)
		for name, value := range carrier {
			// A copy when it grows: calls share what is fixed.
			pairs = append(pairs[:len(pairs):len(pairs)], name, value)
		}
	}
	ctx = metadata.AppendToOutgoingContext(ctx, pairs...)
	if _, bounded := ctx.Deadline(); bounded {
		return context.WithCancel(ctx)
	}
	return context.WithTimeout(ctx, c.settings.timeout)
}

// Timeout is the deadline of calls whose context has none.
func (c *Client) Timeout() time.Duration { return c.settings.timeout }

type requested interface{ GetRequestId() string }

func call[Request any, Response any](
	ctx context.Context,
	client *Client,
	method func(context.Context, Request, ...grpc.CallOption) (*Response, error),
	request Request,
	options []grpc.CallOption,
) (*Response, error) {
	ctx, done := client.Context(ctx)
	defer done()
	response, err := method(ctx, request, options...)
	if err != nil {
		return nil, fromError(err, requestID(request))
	}
	return response, nil
}

func requestID(request any) string {
	if named, ok := request.(requested); ok {
		return named.GetRequestId()
	}
	return ""
}
