// Upstream is the provider that the bench measures against: compiled, so that it does not
// saturate before the routers do. It answers in OpenAI's shapes, behaves as the caller's
// knobs say (see knobs.go), and doubles as the sink for traces sent by OTLP over gRPC.
//
//	upstream -listen 127.0.0.1:18090 [-knobs latency=5ms,tokens=64]
package main

import (
	"encoding/json"
	"flag"
	"log"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"time"
)

// counters is what GET /stats tells.
type counters struct {
	Requests    atomic.Int64
	Streams     atomic.Int64
	Failures    atomic.Int64
	Connections atomic.Int64
	Spans       atomic.Int64
	Closed      atomic.Int64
	Open        atomic.Int64
}

func (c *counters) ServeHTTP(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(map[string]int64{
		"requests":       c.Requests.Load(),
		"streams":        c.Streams.Load(),
		"failures":       c.Failures.Load(),
		"connections":    c.Connections.Load(),
		"trace_exports":  c.Spans.Load(),
		"streams_closed": c.Closed.Load(),
		"streams_open":   c.Open.Load(),
	})
}

func main() {
	listen := flag.String("listen", "127.0.0.1:18090", "the address to listen on")
	standing := flag.String("knobs", "", "the behaviour of calls that do not say otherwise")
	flag.Parse()
	base, err := parseKnobs(*standing, defaultKnobs())
	if err != nil {
		log.Fatalf("upstream: -knobs: %v", err)
	}
	stats := &counters{}
	mux := http.NewServeMux()
	mux.Handle("GET /stats", stats)
	mux.HandleFunc("GET /healthz", func(http.ResponseWriter, *http.Request) {})
	mux.HandleFunc("POST /opentelemetry.proto.collector.trace.v1.TraceService/Export",
		func(w http.ResponseWriter, r *http.Request) { sinkTraces(w, r, stats) })
	mux.Handle("/", &provider{base: base, stats: stats})

	protocols := new(http.Protocols)
	protocols.SetHTTP1(true)
	protocols.SetUnencryptedHTTP2(true)
	server := &http.Server{
		Handler:     mux,
		Protocols:   protocols,
		IdleTimeout: 10 * time.Minute,
		ConnState: func(_ net.Conn, state http.ConnState) {
			if state == http.StateNew {
				stats.Connections.Add(1)
			}
		},
	}
	listener, err := net.Listen("tcp", *listen)
	if err != nil {
		log.Fatalf("upstream: %v", err)
	}
	log.Fatal(server.Serve(listener))
}

// provider serves /[KNOBS/]v1/chat/completions, /embeddings and /models.
type provider struct {
	base  knobs
	stats *counters
	turns turns
}

func (p *provider) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	prefix, operation, found := strings.Cut(r.URL.Path, "/v1/")
	if !found {
		// Some clients leave out the version.
		prefix, operation = "", strings.TrimPrefix(r.URL.Path, "/")
	}
	behaviour, err := parseKnobs(strings.Trim(prefix, "/"), p.base)
	if err != nil {
		refuse(w, http.StatusBadRequest, "invalid_request_error", err.Error())
		return
	}
	switch operation {
	case "chat/completions":
		p.chat(w, r, behaviour)
	case "embeddings":
		p.embed(w, r, behaviour)
	case "models":
		w.Header().Set("Content-Type", "application/json")
		_, _ = w.Write([]byte(`{"object":"list","data":[{"id":"bench","object":"model"}]}`))
	default:
		refuse(w, http.StatusNotFound, "invalid_request_error", "no such path")
	}
}
