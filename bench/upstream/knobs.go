package main

import (
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"
)

// knobs is how a call is answered. As text they are pairs such as
// "latency=5ms,tokens=100,chunk=4": in the -knobs flag, as the first part of the path, or
// after a colon in the model's name, which counts most.
type knobs struct {
	latency  time.Duration // before the first byte
	interval time.Duration // between two events of a stream
	tokens   int           // in the answer
	chunk    int           // tokens in one event
	dims     int           // of an embedding
	fail     float64       // the share of calls answered with status
	status   int
	limit    float64 // the share of calls answered with 429
	cut      float64 // the share of streams that break off in the middle
	slow     float64 // the share of calls whose latency is slowBy longer
	slowBy   time.Duration
}

func defaultKnobs() knobs {
	return knobs{tokens: 16, chunk: 1, dims: 1536, status: http.StatusInternalServerError}
}

func parseKnobs(text string, base knobs) (knobs, error) {
	if text == "" {
		return base, nil
	}
	result := base
	for _, pair := range strings.Split(text, ",") {
		name, value, found := strings.Cut(pair, "=")
		if !found {
			return base, fmt.Errorf("%q is not NAME=VALUE", pair)
		}
		var err error
		switch name {
		case "latency":
			result.latency, err = time.ParseDuration(value)
		case "interval":
			result.interval, err = time.ParseDuration(value)
		case "tokens":
			result.tokens, err = strconv.Atoi(value)
		case "chunk":
			result.chunk, err = strconv.Atoi(value)
			if result.chunk < 1 {
				err = fmt.Errorf("chunk is at least 1")
			}
		case "dims":
			result.dims, err = strconv.Atoi(value)
		case "fail":
			result.fail, err = strconv.ParseFloat(value, 64)
		case "status":
			result.status, err = strconv.Atoi(value)
		case "limit":
			result.limit, err = strconv.ParseFloat(value, 64)
		case "cut":
			result.cut, err = strconv.ParseFloat(value, 64)
		case "slow":
			result.slow, err = strconv.ParseFloat(value, 64)
		case "slowby":
			result.slowBy, err = time.ParseDuration(value)
		default:
			err = fmt.Errorf("unknown knob %q", name)
		}
		if err != nil {
			return base, err
		}
	}
	return result, nil
}

// ofModel gives the knobs that a model's name carries, and the name without them.
func ofModel(model string, base knobs) (string, knobs, error) {
	name, text, found := strings.Cut(model, ":")
	if !found {
		return model, base, nil
	}
	result, err := parseKnobs(text, base)
	return name, result, err
}

// turns picks every nth call rather than a random one, so that rates hold exactly.
type turns struct {
	lock  sync.Mutex
	share map[string]float64
}

// due tells whether this call is one of the given share of calls of the given kind.
func (t *turns) due(kind string, share float64) bool {
	if share <= 0 {
		return false
	}
	t.lock.Lock()
	defer t.lock.Unlock()
	if t.share == nil {
		t.share = make(map[string]float64)
	}
	t.share[kind] += share
	if t.share[kind] < 1 {
		return false
	}
	t.share[kind]--
	return true
}

// begin waits as long as the vendor thinks, and tells whether the call is to be answered.
func (p *provider) begin(w http.ResponseWriter, r *http.Request, k knobs) bool {
	p.stats.Requests.Add(1)
	wait := k.latency
	if p.turns.due("slow", k.slow) {
		wait += k.slowBy
	}
	if wait > 0 && !pause(r, wait) {
		p.stats.Closed.Add(1)
		return false
	}
	if p.turns.due("limit", k.limit) {
		p.stats.Failures.Add(1)
		w.Header().Set("Retry-After", "1")
		refuse(w, http.StatusTooManyRequests, "rate_limit_exceeded", "slow down")
		return false
	}
	if p.turns.due("fail", k.fail) {
		p.stats.Failures.Add(1)
		refuse(w, k.status, "server_error", "as asked")
		return false
	}
	return true
}

// pause waits, unless the caller goes away first.
func pause(r *http.Request, wait time.Duration) bool {
	timer := time.NewTimer(wait)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-r.Context().Done():
		return false
	}
}
