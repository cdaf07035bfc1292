// Loader sends load that ghz cannot: HTTP calls (to the upstream itself and to gateways that
// speak HTTP), streams whose first token is timed, and calls at recorded moments. It speaks
// gRPC too, so that one generator measures a call with and without the router between.
//
//	loader -url http://HOST:PORT/v1/chat/completions -body FILE -total 1000 -concurrency 8
//	loader -grpc HOST:PORT -method /trunkline.v1.InferenceService/Generate -body FILE -rate 200
//
// It prints one JSON object.
package main

import (
	"encoding/json"
	"flag"
	"fmt"
	"log"
	"os"
	"strings"
	"time"
)

// headers collects -header NAME=VALUE.
type headers map[string]string

func (h headers) String() string { return "" }

func (h headers) Set(text string) error {
	name, value, found := strings.Cut(text, "=")
	if !found {
		return fmt.Errorf("%q is not NAME=VALUE", text)
	}
	h[name] = value
	return nil
}

func main() {
	extra := headers{}
	url := flag.String("url", "", "the URL to POST to")
	address := flag.String("grpc", "", "in place of -url: the address of a gRPC server, plain text")
	method := flag.String("method", "", "with -grpc: /package.Service/Method")
	body := flag.String("body", "", "the file of the request: JSON, or with -grpc a serialised message")
	replay := flag.String("replay", "", "a file of JSON lines {at_ms, body_base64}, in place of -body and -rate")
	total := flag.Int("total", 1000, "how many calls")
	concurrency := flag.Int("concurrency", 8, "calls under way at once, when there is no -rate")
	connections := flag.Int("connections", 4, "connections, for gRPC")
	rate := flag.Float64("rate", 0, "calls begun in a second, whether or not earlier ones have ended")
	stream := flag.Bool("stream", false, "expect a stream, and time its first token")
	timeout := flag.Duration("timeout", 60*time.Second, "the longest a call may take")
	flag.Var(extra, "header", "NAME=VALUE, may be repeated")
	flag.Parse()

	payload := []byte{}
	if *body != "" {
		read, err := os.ReadFile(*body)
		if err != nil {
			log.Fatalf("loader: %v", err)
		}
		payload = read
	}
	var target target
	if *address != "" {
		target = newGRPCTarget(*address, *method, extra, *connections, *stream, *timeout)
	} else {
		target = newHTTPTarget(*url, extra, *stream, *timeout)
	}
	var tally *tally
	switch {
	case *replay != "":
		calls, err := readReplay(*replay)
		if err != nil {
			log.Fatalf("loader: %v", err)
		}
		tally = openLoop(target, calls)
	case *rate > 0:
		tally = openLoop(target, steady(payload, *total, *rate))
	default:
		tally = closedLoop(target, payload, *total, *concurrency)
	}
	_ = json.NewEncoder(os.Stdout).Encode(tally.report())
}
