// Command chat holds a conversation on the terminal, streaming each answer; Ctrl-D ends it.
//
// usage: go run ./examples/chat [MODEL]
//
// TRUNKLINE_TARGET names the router (127.0.0.1:50051 if unset), TRUNKLINE_API_KEY the key.
package main

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"os/signal"

	trunkline "github.com/trunkline/trunkline/clients/go"
	trunklinev1 "github.com/trunkline/trunkline/clients/go/gen/trunkline/v1"
)

func main() {
	if err := chat(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func chat() error {
	client, err := trunkline.FromEnvironment()
	if err != nil {
		return err
	}
	defer client.Close()
	request := &trunklinev1.GenerateRequest{}
	if len(os.Args) > 1 {
		request.Model = os.Args[1]
	}
	input := bufio.NewScanner(os.Stdin)
	for fmt.Print("> "); input.Scan(); fmt.Print("> ") {
		before := request.Messages
		request.Messages = append(before, trunkline.UserMessage(input.Text()))
		answer, err := turn(client, request)
		if err != nil {
			// The question stays unanswered; the next turn starts clean.
			request.Messages = before
			fmt.Fprintln(os.Stderr, err)
			continue
		}
		request.Messages = append(request.Messages, answer)
	}
	return input.Err()
}

// turn prints the next answer as it is written and returns it for the history. An interrupt ends
// the answer, and with it what the answer costs.
func turn(
	client *trunkline.Client, request *trunklinev1.GenerateRequest,
) (*trunklinev1.Message, error) {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	stream := client.Stream(ctx, request)
	for piece, err := range stream.Text() {
		if err != nil {
			return nil, err
		}
		fmt.Print(piece)
	}
	fmt.Println()
	return stream.Message()
}
