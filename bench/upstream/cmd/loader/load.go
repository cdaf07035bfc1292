package main

import (
	"bufio"
	"encoding/json"
	"os"
	"sync"
	"sync/atomic"
	"time"
)

// planned is a call to be begun at a moment after the start.
type planned struct {
	at      time.Duration
	payload []byte
}

// replayLine is how a planned call stands in a file.
type replayLine struct {
	AtMs float64 `json:"at_ms"`
	Body []byte  `json:"body_base64"`
}

func readReplay(path string) ([]planned, error) {
	file, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer func() { _ = file.Close() }()
	var calls []planned
	lines := json.NewDecoder(bufio.NewReader(file))
	for lines.More() {
		var line replayLine
		if err := lines.Decode(&line); err != nil {
			return nil, err
		}
		calls = append(calls, planned{time.Duration(line.AtMs * float64(time.Millisecond)), line.Body})
	}
	return calls, nil
}

func steady(payload []byte, total int, rate float64) []planned {
	calls := make([]planned, total)
	for index := range calls {
		calls[index] = planned{time.Duration(float64(index) / rate * float64(time.Second)), payload}
	}
	return calls
}

// closedLoop keeps a number of calls under way until total have been made.
func closedLoop(target target, payload []byte, total, concurrency int) *tally {
	result := newTally(total)
	var begun atomic.Int64
	var running sync.WaitGroup
	result.start = time.Now()
	for range concurrency {
		running.Go(func() {
			for begun.Add(1) <= int64(total) {
				start := time.Now()
				got, err := target.call(payload)
				result.add(start, got, err)
			}
		})
	}
	running.Wait()
	result.end = time.Now()
	return result
}

// openLoop begins each call at its moment, however the earlier ones fare. Latency counts from
// that moment, so that a stall of the server, or of this program, is not left out.
func openLoop(target target, calls []planned) *tally {
	result := newTally(len(calls))
	var running sync.WaitGroup
	result.start = time.Now()
	for _, call := range calls {
		due := result.start.Add(call.at)
		time.Sleep(time.Until(due))
		running.Go(func() {
			got, err := target.call(call.payload)
			result.add(due, got, err)
		})
	}
	running.Wait()
	result.end = time.Now()
	return result
}
