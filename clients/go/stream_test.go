package trunkline_test

import (
	"context"
	"errors"
	"io"
	"strings"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/prototext"
	"google.golang.org/protobuf/proto"

	trunkline "github.com/trunkline/trunkline/clients/go"
	trunklinev1 "github.com/trunkline/trunkline/clients/go/gen/trunkline/v1"
)

func TestStreamGivesEventsTextAndMessage(t *testing.T) {
	target := serve(t, streaming(well, begin, event(text(0, "Hel")), event(text(0, "lo")), finish))
	client := connect(t, target)

	stream := client.Stream(context.Background(), trunkline.Prompt("", ""))
	count := 0
	for _, err := range stream.Events() {
		if err != nil {
			t.Fatal(err)
		}
		count++
	}
	if count != 4 || stream.Start().GetId() != "call-1" || stream.End().GetUsage().GetOutputTokens() != 2 {
		t.Errorf("%d events from %v to %v", count, stream.Start(), stream.End())
	}
	if _, err := stream.Next(); !errors.Is(err, io.EOF) {
		t.Errorf("after the end comes %v", err)
	}

	stream = client.Stream(context.Background(), trunkline.Prompt("", ""))
	var read strings.Builder
	for piece, err := range stream.Text() {
		if err != nil {
			t.Fatal(err)
		}
		read.WriteString(piece)
	}
	message, err := stream.Message()
	if err != nil || read.String() != "Hello" || trunkline.Text(message) != "Hello" {
		t.Errorf("the text is %q, the message %v, the error %v", read.String(), message, err)
	}
}

func TestLeavingTheLoopCancels(t *testing.T) {
	gone := make(chan error, 1)
	router := streaming(func(ctx context.Context) error {
		<-ctx.Done()
		gone <- ctx.Err()
		return ctx.Err()
	}, begin, event(text(0, "Hello")))
	stream := connect(t, serve(t, router)).Stream(context.Background(), trunkline.Prompt("", ""))
	for range stream.Text() {
		break
	}
	if err := <-gone; !errors.Is(err, context.Canceled) {
		t.Errorf("the router saw %v", err)
	}
	if _, err := stream.Next(); status.Code(err) != codes.Canceled {
		t.Errorf("reading on gives %v", err)
	}
}

func TestAStreamWithoutItsEndFails(t *testing.T) {
	target := serve(t, streaming(well, begin, event(text(0, "Hel"))))
	stream := connect(t, target).Stream(context.Background(), trunkline.Prompt("", ""))
	message, err := stream.Message()
	var failed *trunkline.Error
	if !errors.As(err, &failed) || failed.Code != codes.Internal || failed.RequestID != "call-1" {
		t.Errorf("it ended with %v", err)
	}
	if trunkline.Text(message) != "Hel" {
		t.Errorf("what had come is %v", message)
	}
}

func TestABrokenStreamFails(t *testing.T) {
	broken := func(context.Context) error { return status.Error(codes.Unavailable, "cut") }
	stream := connect(t, serve(t, streaming(broken, begin, event(text(0, "Hel"))))).
		Stream(context.Background(), trunkline.Prompt("", ""))
	var pieces []string
	var last error
	for piece, err := range stream.Text() {
		pieces, last = append(pieces, piece), err
	}
	if status.Code(last) != codes.Unavailable || len(pieces) != 2 || pieces[0] != "Hel" {
		t.Errorf("%q came, and %v", pieces, last)
	}
	if stream.End() != nil {
		t.Error("it has an end")
	}
}

func TestAStreamThatCannotBeginTellsItsReader(t *testing.T) {
	client, err := trunkline.New("127.0.0.1:1")
	if err != nil {
		t.Fatal(err)
	}
	if err := client.Close(); err != nil {
		t.Fatal(err)
	}
	for _, err := range client.Stream(context.Background(), trunkline.Prompt("", "")).Events() {
		var failed *trunkline.Error
		if !errors.As(err, &failed) {
			t.Errorf("it told %v", err)
		}
	}
}

func TestAssemblerKeepsPartsApart(t *testing.T) {
	var assembler trunkline.Assembler
	for _, raw := range []string{
		`part_index: 1 tool_call: {id: "a" name: "weather" arguments_json: "{\"ci"}`,
		`part_index: 0 reasoning: "Hm"`,
		`part_index: 2 tool_call: {id: "b" name: "clock"}`,
		`part_index: 1 tool_call: {arguments_json: "ty\":1}"}`,
		`part_index: 2 tool_call: {arguments_json: "{}"}`,
		`part_index: 0 reasoning: "m."`,
		`part_index: 0 signature: {dialect: "d" value: "s"}`,
		`part_index: 3 part: {image: {uri: "https://example.com/a.png"}}`,
		`part_index: 4 text: "Done"`,
		`source: {uri: "https://example.com"}`,
		`citation: {part_index: 4 source_indexes: 0}`,
		`part_index: 9`,
	} {
		delta := &trunklinev1.StreamDelta{}
		if err := prototext.Unmarshal([]byte(raw), delta); err != nil {
			t.Fatal(err)
		}
		assembler.Add(delta)
	}
	want := &trunklinev1.Message{}
	if err := prototext.Unmarshal([]byte(`
		role: ROLE_ASSISTANT
		parts: {reasoning: {text: "Hmm."} signature: {dialect: "d" value: "s"}}
		parts: {tool_call: {id: "a" name: "weather" arguments_json: "{\"city\":1}"}}
		parts: {tool_call: {id: "b" name: "clock" arguments_json: "{}"}}
		parts: {image: {uri: "https://example.com/a.png"}}
		parts: {text: "Done"}
		sources: {uri: "https://example.com"}
		citations: {part_index: 4 source_indexes: 0}
	`), want); err != nil {
		t.Fatal(err)
	}
	for range 2 { // The message may be had again and again.
		if got := assembler.Message(); !proto.Equal(got, want) {
			t.Errorf("the message is %v", prototext.Format(got))
		}
	}
}
