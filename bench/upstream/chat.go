package main

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
)

const (
	word    = "token "
	created = 1_700_000_000
)

// chatRequest is the part of a request that the answer depends on.
type chatRequest struct {
	Model         string `json:"model"`
	Stream        bool   `json:"stream"`
	StreamOptions struct {
		IncludeUsage bool `json:"include_usage"`
	} `json:"stream_options"`
}

func refuse(w http.ResponseWriter, status int, kind, message string) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(map[string]any{
		"error": map[string]string{"type": kind, "code": kind, "message": message},
	})
}

// read takes the whole body and its JSON; what is not named in into is skipped.
func read(w http.ResponseWriter, r *http.Request, into any) (int, bool) {
	body, err := io.ReadAll(r.Body)
	if err == nil {
		err = json.Unmarshal(body, into)
	}
	if err != nil {
		refuse(w, http.StatusBadRequest, "invalid_request_error", err.Error())
		return 0, false
	}
	return len(body), true
}

func (p *provider) chat(w http.ResponseWriter, r *http.Request, k knobs) {
	var request chatRequest
	size, ok := read(w, r, &request)
	if !ok {
		return
	}
	model, k, err := ofModel(request.Model, k)
	if err != nil {
		refuse(w, http.StatusBadRequest, "invalid_request_error", err.Error())
		return
	}
	if !p.begin(w, r, k) {
		return
	}
	usage := usageOf(size/4, k.tokens)
	if request.Stream {
		p.stats.Streams.Add(1)
		p.stats.Open.Add(1)
		defer p.stats.Open.Add(-1)
		p.stream(w, r, k, model, usage, request.StreamOptions.IncludeUsage)
		return
	}
	body := fmt.Sprintf(`{"id":"chatcmpl-bench","object":"chat.completion","created":%d,"model":%q,`+
		`"choices":[{"index":0,"message":{"role":"assistant","content":%q},"finish_reason":"stop"}],%s}`,
		created, model, strings.Repeat(word, k.tokens), usage)
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Content-Length", strconv.Itoa(len(body)))
	_, _ = io.WriteString(w, body)
}

func usageOf(prompt, completion int) string {
	return fmt.Sprintf(`"usage":{"prompt_tokens":%d,"completion_tokens":%d,"total_tokens":%d}`,
		prompt, completion, prompt+completion)
}

// stream writes one event for each chunk of tokens, flushed by itself, then the end.
func (p *provider) stream(
	w http.ResponseWriter, r *http.Request, k knobs, model, usage string, withUsage bool,
) {
	w.Header().Set("Content-Type", "text/event-stream")
	controller := http.NewResponseController(w)
	head := fmt.Sprintf(`data: {"id":"chatcmpl-bench","object":"chat.completion.chunk","created":%d,`+
		`"model":%q,`, created, model)
	full := head + `"choices":[{"index":0,"delta":{"content":"` + strings.Repeat(word, k.chunk) +
		`"},"finish_reason":null}]}` + "\n\n"
	breaks := p.turns.due("cut", k.cut)
	for left := k.tokens; left > 0; left -= k.chunk {
		if breaks && left <= k.tokens/2 {
			p.stats.Failures.Add(1)
			// Closes the connection without the end of the body.
			panic(http.ErrAbortHandler)
		}
		event := full
		if left < k.chunk {
			event = strings.Replace(full, strings.Repeat(word, k.chunk), strings.Repeat(word, left), 1)
		}
		_, _ = io.WriteString(w, event)
		if controller.Flush() != nil || (k.interval > 0 && !pause(r, k.interval)) {
			p.stats.Closed.Add(1)
			return
		}
	}
	end := head + `"choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}` + "\n\n"
	if withUsage {
		end += head + `"choices":[],` + usage + "}\n\n"
	}
	_, _ = io.WriteString(w, end+"data: [DONE]\n\n")
}
