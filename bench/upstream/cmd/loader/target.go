package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync/atomic"
	"time"
)

// answer is what one call gave: when its first token came, and how many chunks held tokens.
type answer struct {
	first  time.Time
	chunks int
}

// target is what is called.
type target interface {
	call(payload []byte) (answer, error)
}

// marker ends the text of every chunk that the upstream writes.
var marker = []byte(`token "`)

type httpTarget struct {
	client  *http.Client
	url     string
	headers headers
	stream  bool
	timeout time.Duration
}

func newHTTPTarget(url string, extra headers, stream bool, timeout time.Duration) *httpTarget {
	transport := &http.Transport{
		MaxIdleConns: 0, MaxIdleConnsPerHost: 10_000, DisableCompression: true,
	}
	return &httpTarget{&http.Client{Transport: transport}, url, extra, stream, timeout}
}

func (t *httpTarget) call(payload []byte) (answer, error) {
	limit, cancel := context.WithTimeout(context.Background(), t.timeout)
	defer cancel()
	request, err := http.NewRequestWithContext(limit, http.MethodPost, t.url, bytes.NewReader(payload))
	if err != nil {
		return answer{}, err
	}
	request.Header.Set("Content-Type", "application/json")
	for name, value := range t.headers {
		request.Header.Set(name, value)
	}
	response, err := t.client.Do(request)
	if err != nil {
		return answer{}, err
	}
	defer func() { _ = response.Body.Close() }()
	if response.StatusCode != http.StatusOK {
		text, _ := io.ReadAll(io.LimitReader(response.Body, 300))
		return answer{}, fmt.Errorf("HTTP %d: %s", response.StatusCode, text)
	}
	if !t.stream {
		_, err = io.Copy(io.Discard, response.Body)
		return answer{}, err
	}
	return readEvents(response.Body)
}

func readEvents(body io.Reader) (answer, error) {
	var got answer
	done := false
	lines := bufio.NewScanner(body)
	lines.Buffer(make([]byte, 64*1024), 1<<20)
	for lines.Scan() {
		line := lines.Bytes()
		if bytes.HasPrefix(line, []byte("data:")) && bytes.Contains(line, marker) {
			if got.chunks == 0 {
				got.first = time.Now()
			}
			got.chunks++
		}
		done = done || bytes.HasSuffix(line, []byte("[DONE]"))
	}
	if err := lines.Err(); err != nil {
		return got, err
	}
	if !done {
		return got, errors.New("the stream ended early")
	}
	return got, nil
}

type grpcTarget struct {
	clients []*http.Client
	next    atomic.Uint64
	url     string
	headers headers
	stream  bool
	timeout time.Duration
}

func newGRPCTarget(
	address, method string, extra headers, connections int, stream bool, timeout time.Duration,
) *grpcTarget {
	made := &grpcTarget{url: "http://" + address + method, headers: extra, stream: stream, timeout: timeout}
	for range max(connections, 1) {
		protocols := new(http.Protocols)
		protocols.SetUnencryptedHTTP2(true)
		made.clients = append(made.clients, &http.Client{
			Transport: &http.Transport{Protocols: protocols, DisableCompression: true},
		})
	}
	return made
}

// tagDelta is the first byte of a StreamGenerateResponse that holds a delta: its field 2.
const tagDelta = 0x12

func (t *grpcTarget) call(payload []byte) (answer, error) {
	limit, cancel := context.WithTimeout(context.Background(), t.timeout)
	defer cancel()
	framed := make([]byte, 5+len(payload))
	binary.BigEndian.PutUint32(framed[1:5], uint32(len(payload)))
	copy(framed[5:], payload)
	request, err := http.NewRequestWithContext(limit, http.MethodPost, t.url, bytes.NewReader(framed))
	if err != nil {
		return answer{}, err
	}
	request.Header.Set("Content-Type", "application/grpc")
	request.Header.Set("TE", "trailers")
	for name, value := range t.headers {
		request.Header.Set(name, value)
	}
	client := t.clients[t.next.Add(1)%uint64(len(t.clients))]
	response, err := client.Do(request)
	if err != nil {
		return answer{}, err
	}
	defer func() { _ = response.Body.Close() }()
	got, err := t.readFrames(response.Body)
	if err != nil {
		return got, err
	}
	status := response.Trailer.Get("Grpc-Status")
	message := response.Trailer.Get("Grpc-Message")
	if status == "" {
		status, message = response.Header.Get("Grpc-Status"), response.Header.Get("Grpc-Message")
	}
	if status != "0" {
		return got, fmt.Errorf("gRPC status %s: %s", status, strings.TrimSpace(message))
	}
	return got, nil
}

func (t *grpcTarget) readFrames(body io.Reader) (answer, error) {
	var got answer
	var head [5]byte
	buffered := bufio.NewReaderSize(body, 32*1024)
	for {
		if _, err := io.ReadFull(buffered, head[:]); err == io.EOF {
			return got, nil
		} else if err != nil {
			return got, err
		}
		length := int(binary.BigEndian.Uint32(head[1:]))
		if t.stream && length > 0 {
			if tag, err := buffered.Peek(1); err == nil && tag[0] == tagDelta {
				if got.chunks == 0 {
					got.first = time.Now()
				}
				got.chunks++
			}
		}
		if _, err := buffered.Discard(length); err != nil {
			return got, err
		}
	}
}
