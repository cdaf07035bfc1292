package trunkline_test

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"go.opentelemetry.io/otel/trace"
	"google.golang.org/grpc/metadata"

	trunkline "github.com/trunkline/trunkline/clients/go"
)

func TestGenerateAnswers(t *testing.T) {
	client := connect(t, serve(t, answering("rivers")))
	request := trunkline.Prompt("model", "hello")
	request.RequestId = "mine"
	answer, err := client.Generate(context.Background(), request)
	if err != nil {
		t.Fatal(err)
	}
	if got := trunkline.Text(answer.GetMessage()); got != "rivers" || answer.GetId() != "mine" {
		t.Errorf("text %q of id %q", got, answer.GetId())
	}
}

func TestMetadataOfClientAndCallArriveTogether(t *testing.T) {
	router := answering("")
	client := connect(t, serve(t, router),
		trunkline.WithAPIKey("secret"),
		trunkline.WithMetadata(map[string]string{"X-Team": "search"}))
	ctx := metadata.AppendToOutgoingContext(context.Background(), "x-purpose", "test")
	if _, err := client.Generate(ctx, trunkline.Prompt("", "")); err != nil {
		t.Fatal(err)
	}
	seen := router.last().metadata
	for name, want := range map[string]string{
		"x-team": "search", "x-purpose": "test", "authorization": "Bearer secret",
	} {
		if got := seen.Get(name); len(got) != 1 || got[0] != want {
			t.Errorf("%s is %q, want %q", name, got, want)
		}
	}
	if agent := seen.Get("user-agent"); !strings.HasPrefix(agent[0], "trunkline-go/") {
		t.Errorf("user-agent is %q", agent)
	}
	if len(seen.Get("traceparent")) != 0 {
		t.Error("a trace was sent that there is not")
	}
}

func TestTheContextsTraceIsSent(t *testing.T) {
	span := trace.NewSpanContext(trace.SpanContextConfig{
		TraceID: trace.TraceID{1}, SpanID: trace.SpanID{2}, TraceFlags: trace.FlagsSampled,
	})
	ctx := trace.ContextWithSpanContext(context.Background(), span)
	want := fmt.Sprintf("00-%s-%s-01", span.TraceID(), span.SpanID())
	router := answering("")
	target := serve(t, router)
	if _, err := connect(t, target).Generate(ctx, trunkline.Prompt("", "")); err != nil {
		t.Fatal(err)
	}
	if got := router.last().metadata.Get("traceparent"); len(got) != 1 || got[0] != want {
		t.Errorf("traceparent is %q, want %q", got, want)
	}
	quiet := connect(t, target, trunkline.WithPropagator(nil))
	if _, err := quiet.Generate(ctx, trunkline.Prompt("", "")); err != nil {
		t.Fatal(err)
	}
	if got := router.last().metadata.Get("traceparent"); len(got) != 0 {
		t.Errorf("traceparent is %q, want none", got)
	}
}

func TestTheContextsDeadlineStandsAboveTheClients(t *testing.T) {
	router := answering("")
	client := connect(t, serve(t, router), trunkline.WithTimeout(time.Minute))
	for _, each := range []struct{ own, from, to time.Duration }{
		{0, 30 * time.Second, time.Minute},
		{20 * time.Second, 10 * time.Second, 20 * time.Second},
		{time.Hour, 30 * time.Minute, time.Hour},
	} {
		ctx := context.Background()
		if each.own != 0 {
			bounded, done := context.WithTimeout(ctx, each.own)
			defer done()
			ctx = bounded
		}
		if _, err := client.Generate(ctx, trunkline.Prompt("", "")); err != nil {
			t.Fatal(err)
		}
		if got := router.last().remaining; got < each.from || got > each.to {
			t.Errorf("with %v of its own a call had %v", each.own, got)
		}
	}
}

func TestWrongOptionsAreRefused(t *testing.T) {
	for name, option := range map[string]trunkline.Option{
		"timeout":       trunkline.WithTimeout(0),
		"API key":       trunkline.WithAPIKey(""),
		"printable":     trunkline.WithAPIKey("sec\nret"),
		"authorization": both(trunkline.WithAPIKey("k"), trunkline.WithMetadata(map[string]string{"Authorization": "x"})),
	} {
		client, err := trunkline.New("127.0.0.1:1", option)
		if err == nil {
			t.Errorf("%s: %v was accepted", name, client)
		} else if !strings.Contains(err.Error(), name) || strings.Contains(err.Error(), "ret") {
			t.Errorf("%s: told as %q", name, err)
		}
	}
	if _, err := trunkline.New(""); err == nil {
		t.Error("an empty target was accepted")
	}
}

func both(first, second trunkline.Option) trunkline.Option {
	// Options are applied in order, whoever holds them.
	return trunkline.Options(first, second)
}

func TestEnvironment(t *testing.T) {
	router := answering("")
	variables := map[string]string{
		"TRUNKLINE_TARGET": serve(t, router), "TRUNKLINE_API_KEY": "k", "TRUNKLINE_TIMEOUT": "7.5",
		"TRUNKLINE_CA_FILE": "",
	}
	client, err := trunkline.FromLookup(lookup(variables))
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	if client.Timeout() != 7500*time.Millisecond {
		t.Errorf("the timeout is %v", client.Timeout())
	}
	if _, err := client.Generate(context.Background(), trunkline.Prompt("", "")); err != nil {
		t.Fatal(err)
	}
	if got := router.last().metadata.Get("authorization"); len(got) != 1 || got[0] != "Bearer k" {
		t.Errorf("authorization is %q", got)
	}
}

func TestWrongVariablesAreNamed(t *testing.T) {
	for name, value := range map[string]string{
		"TRUNKLINE_TLS": "perhaps", "TRUNKLINE_CERT_FILE": "client.pem",
		"TRUNKLINE_KEY_FILE": "client.key",
	} {
		_, err := trunkline.FromLookup(lookup(map[string]string{name: value}))
		if err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("%s=%s gives %v", name, value, err)
		}
	}
	for _, value := range []string{"soon", "0", "-1", "nan", "inf", "1e300"} {
		_, err := trunkline.FromLookup(lookup(map[string]string{"TRUNKLINE_TIMEOUT": value}))
		if err == nil || !strings.Contains(err.Error(), "TRUNKLINE_TIMEOUT") {
			t.Errorf("TRUNKLINE_TIMEOUT=%s gives %v", value, err)
		}
	}
	missing := map[string]string{"TRUNKLINE_CA_FILE": "no-such-file.pem"}
	if _, err := trunkline.FromLookup(lookup(missing)); err == nil {
		t.Error("a missing file was accepted")
	}
}

func lookup(variables map[string]string) func(string) (string, bool) {
	return func(name string) (string, bool) {
		value, there := variables[name]
		return value, there
	}
}
