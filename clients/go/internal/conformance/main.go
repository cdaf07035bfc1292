// Command conformance drives the Go client as tests/conformance/README.md says.
package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"time"

	"go.opentelemetry.io/otel/propagation"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/proto"

	trunkline "github.com/trunkline/trunkline/clients/go"
	trunklinev1 "github.com/trunkline/trunkline/clients/go/gen/trunkline/v1"
)

type options struct {
	Target      string            `json:"target"`
	APIKey      *string           `json:"api_key"`
	Timeout     float64           `json:"timeout"`
	Metadata    map[string]string `json:"metadata"`
	CAFile      string            `json:"ca_file"`
	CertFile    string            `json:"cert_file"`
	KeyFile     string            `json:"key_file"`
	ServerName  string            `json:"server_name"`
	Environment map[string]string `json:"environment"`
}

type line struct {
	ID       int               `json:"id"`
	Op       string            `json:"op"`
	Client   string            `json:"client"`
	Options  options           `json:"options"`
	Method   string            `json:"method"`
	Request  []byte            `json:"request"`
	Timeout  float64           `json:"timeout"`
	Metadata map[string]string `json:"metadata"`
	Trace    string            `json:"trace"`
	Read     string            `json:"read"`
	Call     int               `json:"call"`
}

type answer map[string]any

type driver struct {
	writing sync.Mutex
	clients map[string]*trunkline.Client

	running sync.WaitGroup
	held    sync.Mutex
	cancels map[int]context.CancelCauseFunc
}

var errByOrder = errors.New("cancelled by order")

func main() {
	d := &driver{
		clients: map[string]*trunkline.Client{},
		cancels: map[int]context.CancelCauseFunc{},
	}
	input := bufio.NewReader(os.Stdin)
	for {
		text, err := input.ReadBytes('\n')
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		var told line
		if err := json.Unmarshal(text, &told); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		d.take(told)
	}
	d.running.Wait()
}

func (d *driver) write(id int, told answer) {
	told["id"] = id
	text, err := json.Marshal(told)
	if err != nil {
		panic(err)
	}
	d.writing.Lock()
	defer d.writing.Unlock()
	if _, err := os.Stdout.Write(append(text, '\n')); err != nil {
		panic(err)
	}
}

func (d *driver) take(told line) {
	switch told.Op {
	case "open":
		client, err := open(told.Options)
		if err != nil {
			d.write(told.ID, answer{"failed": err.Error()})
			return
		}
		d.clients[told.Client] = client
		d.write(told.ID, answer{"ok": true})
	case "close":
		if err := d.clients[told.Client].Close(); err != nil {
			d.write(told.ID, answer{"failed": err.Error()})
			return
		}
		delete(d.clients, told.Client)
		d.write(told.ID, answer{"ok": true})
	case "cancel":
		d.held.Lock()
		defer d.held.Unlock()
		d.cancels[told.Call](errByOrder)
	case "call", "stream":
		client := d.clients[told.Client]
		ctx, cancel := context.WithCancelCause(context.Background())
		d.held.Lock()
		d.cancels[told.ID] = cancel
		d.held.Unlock()
		d.running.Go(func() {
			defer cancel(nil)
			d.run(ctx, client, told)
		})
	default:
		d.write(told.ID, answer{"failed": "unknown op " + told.Op})
	}
}

func open(given options) (*trunkline.Client, error) {
	if given.Environment != nil {
		return trunkline.FromLookup(func(name string) (string, bool) {
			value, there := given.Environment[name]
			return value, there
		})
	}
	var chosen []trunkline.Option
	if given.APIKey != nil {
		chosen = append(chosen, trunkline.WithAPIKey(*given.APIKey))
	}
	if given.Timeout != 0 {
		chosen = append(chosen, trunkline.WithTimeout(seconds(given.Timeout)))
	}
	if given.Metadata != nil {
		chosen = append(chosen, trunkline.WithMetadata(given.Metadata))
	}
	if given.CAFile+given.CertFile+given.KeyFile+given.ServerName != "" {
		config, err := trunkline.TLSFromFiles(
			given.CAFile, given.CertFile, given.KeyFile, given.ServerName)
		if err != nil {
			return nil, err
		}
		chosen = append(chosen, trunkline.WithTLS(config))
	}
	return trunkline.New(given.Target, chosen...)
}

func (d *driver) run(ctx context.Context, client *trunkline.Client, told line) {
	whole := ctx
	if told.Trace != "" {
		carrier := propagation.MapCarrier{"traceparent": told.Trace}
		ctx = propagation.TraceContext{}.Extract(ctx, carrier)
	}
	for name, value := range told.Metadata {
		ctx = metadata.AppendToOutgoingContext(ctx, name, value)
	}
	if told.Timeout != 0 {
		bounded, done := context.WithTimeout(ctx, seconds(told.Timeout))
		defer done()
		ctx = bounded
	}
	var result answer
	var err error
	if told.Op == "call" {
		result, err = call(ctx, client, told)
	} else {
		result, err = d.stream(ctx, client, told)
	}
	var failed *trunkline.Error
	switch {
	case err == nil:
		d.write(told.ID, result)
	case context.Cause(whole) == errByOrder && errors.Is(err, context.Canceled):
		d.write(told.ID, answer{"cancelled": true})
	case errors.As(err, &failed):
		d.write(told.ID, answer{"error": written(failed)})
	default:
		d.write(told.ID, answer{"failed": err.Error()})
	}
}

func call(ctx context.Context, client *trunkline.Client, told line) (answer, error) {
	switch told.Method {
	case "Generate":
		response, err := unary(ctx, told.Request, &trunklinev1.GenerateRequest{}, client.Generate)
		if err != nil {
			return nil, err
		}
		return answer{"response": raw(response), "text": trunkline.Text(response.GetMessage())}, nil
	case "Embed":
		return plain(unary(ctx, told.Request, &trunklinev1.EmbedRequest{}, client.Embed))
	case "Route":
		return plain(unary(ctx, told.Request, &trunklinev1.RouteRequest{}, client.Route))
	case "BatchRoute":
		request := &trunklinev1.BatchRouteRequest{}
		if err := proto.Unmarshal(told.Request, request); err != nil {
			return nil, err
		}
		return plain(client.BatchRoute(ctx, request.GetRequests()))
	case "CountTokens":
		return plain(unary(ctx, told.Request, &trunklinev1.CountTokensRequest{}, client.CountTokens))
	case "ListModels":
		return plain(unary(ctx, told.Request, &trunklinev1.ListModelsRequest{}, client.ListModels))
	case "ListProviderHealth":
		request := &trunklinev1.ListProviderHealthRequest{}
		return plain(unary(ctx, told.Request, request, client.ListProviderHealth))
	case "Rerank":
		return plain(unary(ctx, told.Request, &trunklinev1.RerankRequest{}, client.Rerank))
	default:
		return nil, fmt.Errorf("unknown method %s", told.Method)
	}
}

func unary[Request proto.Message, Response proto.Message, Option any](
	ctx context.Context,
	encoded []byte,
	request Request,
	method func(context.Context, Request, ...Option) (Response, error),
) (Response, error) {
	if err := proto.Unmarshal(encoded, request); err != nil {
		var none Response
		return none, err
	}
	return method(ctx, request)
}

func plain[Response proto.Message](response Response, err error) (answer, error) {
	if err != nil {
		return nil, err
	}
	return answer{"response": raw(response)}, nil
}

func (d *driver) stream(
	ctx context.Context, client *trunkline.Client, told line,
) (answer, error) {
	request := &trunklinev1.GenerateRequest{}
	if err := proto.Unmarshal(told.Request, request); err != nil {
		return nil, err
	}
	stream := client.Stream(ctx, request)
	switch told.Read {
	case "text":
		var text strings.Builder
		for piece, err := range stream.Text() {
			if err != nil {
				return nil, err
			}
			text.WriteString(piece)
		}
		return answer{"text": text.String()}, nil
	case "message":
		message, err := stream.Message()
		return answer{"message": raw(message)}, err
	case "leave":
		for event, err := range stream.Events() {
			if err != nil {
				return nil, err
			}
			if event.GetDelta() != nil {
				break
			}
		}
		return answer{"left": true}, nil
	default:
		for event, err := range stream.Events() {
			if err != nil {
				return nil, err
			}
			d.write(told.ID, answer{"event": raw(event)})
		}
		return answer{"done": true}, nil
	}
}

func written(failed *trunkline.Error) answer {
	told := answer{
		"code":             codeName(failed.Code),
		"reason":           failed.Reason.String(),
		"message":          failed.Message,
		"metadata":         failed.Metadata,
		"retry_after":      nil,
		"field_violations": []answer{},
		"quota_violations": []answer{},
		"report":           nil,
		"request_id":       failed.RequestID,
	}
	if failed.RetryAfter != 0 {
		told["retry_after"] = failed.RetryAfter.Seconds()
	}
	fields, quotas := []answer{}, []answer{}
	for _, each := range failed.FieldViolations {
		fields = append(fields, answer{"field": each.Field, "description": each.Description})
	}
	for _, each := range failed.QuotaViolations {
		quotas = append(quotas, answer{"subject": each.Subject, "description": each.Description})
	}
	told["field_violations"], told["quota_violations"] = fields, quotas
	if failed.Report != nil {
		told["report"] = raw(failed.Report)
	}
	return told
}

// codeName writes DeadlineExceeded as gRPC's specification does, DEADLINE_EXCEEDED.
func codeName(code codes.Code) string {
	if code == codes.Canceled {
		return "CANCELLED"
	}
	var name strings.Builder
	for at, char := range code.String() {
		if at > 0 && 'A' <= char && char <= 'Z' {
			name.WriteByte('_')
		}
		name.WriteRune(char)
	}
	return strings.ToUpper(name.String())
}

func raw(message proto.Message) []byte {
	encoded, err := proto.Marshal(message)
	if err != nil {
		panic(err)
	}
	return encoded
}

func seconds(count float64) time.Duration {
	return time.Duration(count * float64(time.Second))
}
