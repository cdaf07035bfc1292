package trunkline

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"

	"go.opentelemetry.io/otel/propagation"
	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/keepalive"
)

// Version is the version of this module, as the user agent tells it.
const Version = "0.1.0"

const (
	// DefaultTarget is where a client connects that is told nothing else.
	DefaultTarget = "127.0.0.1:50051"
	// DefaultTimeout is the deadline of calls whose context has none.
	DefaultTimeout = 60 * time.Second
)

const (
	// gRPC stops at 4 MiB; a request may hold several images of up to 20 MiB.
	maxMessageBytes = 64 << 20
	// Finds a dead peer under a long call. gRPC servers hang up on clients that ping more often
	// than every five minutes without data, unless they were told otherwise.
	keepaliveTime    = 310 * time.Second
	keepaliveTimeout = 20 * time.Second
)

// Calls that cost nothing and change nothing may be sent again. The others are billed; the router
// owns their retries, and a second owner would multiply them.
const serviceConfig = `{
  "loadBalancingConfig": [{"round_robin": {}}],
  "methodConfig": [{
    "name": [
      {"service": "trunkline.v1.InferenceService", "method": "Route"},
      {"service": "trunkline.v1.InferenceService", "method": "BatchRoute"},
      {"service": "trunkline.v1.InferenceService", "method": "CountTokens"},
      {"service": "trunkline.v1.InferenceService", "method": "ListModels"},
      {"service": "trunkline.v1.InferenceService", "method": "ListProviderHealth"}
    ],
    "retryPolicy": {
      "maxAttempts": 4,
      "initialBackoff": "0.05s",
      "maxBackoff": "1s",
      "backoffMultiplier": 2,
      "retryableStatusCodes": ["UNAVAILABLE"]
    }
  }],
  "retryThrottling": {"maxTokens": 20, "tokenRatio": 0.1}
}`

type settings struct {
	apiKey     string
	hasKey     bool
	tls        *tls.Config
	timeout    time.Duration
	metadata   map[string]string
	propagator propagation.TextMapPropagator
	dial       []grpc.DialOption
}

// Option configures a Client.
type Option func(*settings)

// WithAPIKey sends the key as a bearer token with every call.
func WithAPIKey(key string) Option {
	return func(s *settings) { s.apiKey, s.hasKey = key, true }
}

// WithTLS encrypts the connection; without it the connection is plaintext, and so is the key. An
// empty config trusts the system's roots. TLSFromFiles makes one from PEM files.
func WithTLS(config *tls.Config) Option {
	return func(s *settings) { s.tls = config }
}

// WithTimeout sets the deadline of calls whose context has none.
func WithTimeout(timeout time.Duration) Option {
	return func(s *settings) { s.timeout = timeout }
}

// WithMetadata adds metadata to every call. Metadata of one call travels in its context, by
// metadata.AppendToOutgoingContext.
func WithMetadata(metadata map[string]string) Option {
	return func(s *settings) {
		for name, value := range metadata {
			s.metadata[strings.ToLower(name)] = value
		}
	}
}

// WithPropagator replaces what writes the trace of a call's context into its metadata: W3C's
// traceparent and tracestate, unless another is given. Nil sends no trace.
func WithPropagator(propagator propagation.TextMapPropagator) Option {
	return func(s *settings) { s.propagator = propagator }
}

// WithDialOptions passes options to gRPC, above those of this package.
func WithDialOptions(options ...grpc.DialOption) Option {
	return func(s *settings) { s.dial = append(s.dial, options...) }
}

// Options joins several options into one.
func Options(options ...Option) Option {
	return func(s *settings) {
		for _, option := range options {
			option(s)
		}
	}
}

// TLSFromFiles reads PEM files: the authorities to trust, the client's own certificate and its
// key, which go together. An empty name leaves that out; without authorities the system's are
// trusted. serverName is the name to expect in the router's certificate where it differs from
// the target's host.
func TLSFromFiles(caFile, certFile, keyFile, serverName string) (*tls.Config, error) {
	config := &tls.Config{MinVersion: tls.VersionTLS12, ServerName: serverName}
	if (certFile == "") != (keyFile == "") {
		return nil, errors.New("trunkline: a client certificate needs both its file and its key's")
	}
	if caFile != "" {
		pem, err := os.ReadFile(caFile)
		if err != nil {
			return nil, fmt.Errorf("trunkline: %w", err)
		}
		config.RootCAs = x509.NewCertPool()
		if !config.RootCAs.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("trunkline: no certificate in %s", caFile)
		}
	}
	if certFile != "" {
		pair, err := tls.LoadX509KeyPair(certFile, keyFile)
		if err != nil {
			return nil, fmt.Errorf("trunkline: %w", err)
		}
		config.Certificates = []tls.Certificate{pair}
	}
	return config, nil
}

func newSettings(options []Option) (*settings, error) {
	s := &settings{
		timeout:    DefaultTimeout,
		metadata:   map[string]string{},
		propagator: propagation.TraceContext{},
	}
	for _, option := range options {
		option(s)
	}
	if s.timeout <= 0 {
		return nil, fmt.Errorf("trunkline: the timeout must be positive, not %v", s.timeout)
	}
	if s.hasKey {
		if !isPrintable(s.apiKey) {
			// The key itself stays out of the message.
			return nil, errors.New("trunkline: the API key must be printable ASCII and not empty")
		}
		if _, there := s.metadata["authorization"]; there {
			return nil, errors.New("trunkline: authorization in the metadata beside an API key")
		}
		s.metadata["authorization"] = "Bearer " + s.apiKey
	}
	return s, nil
}

func (s *settings) dialOptions() []grpc.DialOption {
	secure := insecure.NewCredentials()
	if s.tls != nil {
		secure = credentials.NewTLS(s.tls)
	}
	// gRPC waits up to two minutes between attempts to reconnect: too long for a neighbour.
	pauses := backoff.DefaultConfig
	pauses.BaseDelay, pauses.MaxDelay = 200*time.Millisecond, 5*time.Second
	return append([]grpc.DialOption{
		grpc.WithTransportCredentials(secure),
		grpc.WithUserAgent("trunkline-go/" + Version),
		// The service config here holds, whatever a DNS TXT record says.
		grpc.WithDefaultServiceConfig(serviceConfig),
		grpc.WithDisableServiceConfig(),
		grpc.WithDefaultCallOptions(
			grpc.MaxCallRecvMsgSize(maxMessageBytes), grpc.MaxCallSendMsgSize(maxMessageBytes)),
		grpc.WithConnectParams(grpc.ConnectParams{
			Backoff: pauses, MinConnectTimeout: 5 * time.Second,
		}),
		grpc.WithKeepaliveParams(keepalive.ClientParameters{
			Time: keepaliveTime, Timeout: keepaliveTimeout,
		}),
	}, s.dial...)
}

func isPrintable(text string) bool {
	for _, char := range []byte(text) {
		if char < ' ' || char > '~' {
			return false
		}
	}
	return text != ""
}

// environment reads TRUNKLINE_ variables; an empty one counts as unset.
func environment(lookup func(string) (string, bool)) (string, []Option, error) {
	get := func(name string) string {
		value, _ := lookup("TRUNKLINE_" + name)
		return value
	}
	var options []Option
	target := DefaultTarget
	if value := get("TARGET"); value != "" {
		target = value
	}
	if key := get("API_KEY"); key != "" {
		options = append(options, WithAPIKey(key))
	}
	if value := get("TIMEOUT"); value != "" {
		seconds, err := strconv.ParseFloat(value, 64)
		timeout := time.Duration(seconds * float64(time.Second))
		// A duration that does not fit comes out negative.
		if err != nil || !(seconds > 0) || timeout <= 0 {
			return "", nil, errors.New(
				"trunkline: TRUNKLINE_TIMEOUT must be a positive number of seconds")
		}
		options = append(options, WithTimeout(timeout))
	}
	config, err := environmentTLS(get)
	if err != nil {
		return "", nil, err
	}
	if config != nil {
		options = append(options, WithTLS(config))
	}
	return target, options, nil
}

func environmentTLS(get func(string) string) (*tls.Config, error) {
	wanted := false
	switch strings.ToLower(get("TLS")) {
	case "true":
		wanted = true
	case "", "false":
	default:
		return nil, errors.New("trunkline: TRUNKLINE_TLS must be true or false")
	}
	ca, cert, key, name := get("CA_FILE"), get("CERT_FILE"), get("KEY_FILE"), get("SERVER_NAME")
	if !wanted && ca == "" && cert == "" && key == "" && name == "" {
		return nil, nil
	}
	if (cert == "") != (key == "") {
		return nil, errors.New(
			"trunkline: TRUNKLINE_CERT_FILE and TRUNKLINE_KEY_FILE go together")
	}
	return TLSFromFiles(ca, cert, key, name)
}
