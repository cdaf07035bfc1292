package main

import (
	"math"
	"slices"
	"sync"
	"time"
)

// tally gathers the outcomes of calls.
type tally struct {
	lock       sync.Mutex
	start, end time.Time
	latencies  []time.Duration
	firsts     []time.Duration
	chunks     int
	errors     map[string]int
}

func newTally(size int) *tally {
	return &tally{latencies: make([]time.Duration, 0, size), errors: map[string]int{}}
}

func (t *tally) add(start time.Time, got answer, err error) {
	now := time.Now()
	t.lock.Lock()
	defer t.lock.Unlock()
	if err != nil {
		t.errors[err.Error()]++
		return
	}
	t.latencies = append(t.latencies, now.Sub(start))
	t.chunks += got.chunks
	if got.chunks > 0 {
		t.firsts = append(t.firsts, got.first.Sub(start))
	}
}

// report is the JSON that the bench reads; times in milliseconds.
type report struct {
	OK         int                `json:"ok"`
	Errors     map[string]int     `json:"errors"`
	Seconds    float64            `json:"seconds"`
	PerSecond  float64            `json:"per_second"`
	Latency    map[string]float64 `json:"latency_ms"`
	FirstToken map[string]float64 `json:"first_token_ms"`
	Chunks     int                `json:"chunks"`
	// The latencies at 0, 1, ... 100 %.
	Quantiles []float64 `json:"quantiles_ms"`
}

func (t *tally) report() report {
	seconds := t.end.Sub(t.start).Seconds()
	latency := percentiles(t.latencies)
	return report{
		OK:         len(t.latencies),
		Errors:     t.errors,
		Seconds:    seconds,
		PerSecond:  float64(len(t.latencies)) / max(seconds, 1e-9),
		Latency:    latency,
		FirstToken: percentiles(t.firsts),
		Chunks:     t.chunks,
		Quantiles:  quantiles(t.latencies),
	}
}

// quantiles are of sorted times.
func quantiles(sorted []time.Duration) []float64 {
	found := []float64{}
	for part := 0; part <= 100 && len(sorted) > 0; part++ {
		found = append(found, float64(sorted[part*(len(sorted)-1)/100])/float64(time.Millisecond))
	}
	return found
}

// percentiles are by nearest rank. It sorts the times.
func percentiles(times []time.Duration) map[string]float64 {
	if len(times) == 0 {
		return map[string]float64{}
	}
	slices.Sort(times)
	at := func(share float64) float64 {
		rank := int(math.Ceil(share*float64(len(times)))) - 1
		return float64(times[max(rank, 0)]) / float64(time.Millisecond)
	}
	return map[string]float64{
		"p50": at(0.50), "p90": at(0.90), "p95": at(0.95), "p99": at(0.99), "p999": at(0.999), "max": at(1),
	}
}
