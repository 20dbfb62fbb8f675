package main

import (
	"encoding/json"
	"regexp"
	"slices"
	"sync"
	"time"
)

const (
	// The first failures tell the story; the rest are counted by message.
	failuresKept = 100
	messagesKept = 40
	// Durations kept for percentiles, the newest of them.
	samplesKept = 20000
)

// local is the client's own end of a connection in a message: every one differs, and none says anything.
var local = regexp.MustCompile(`(\d+\.\d+\.\d+\.\d+|\[[0-9a-f:]+\]):\d+->`)

// Failure is one request that did not get its answer.
type Failure struct {
	At      time.Time `json:"at"`
	Millis  int64     `json:"millis"`
	Message string    `json:"message"`
}

// Kind is the report of one kind of load.
type Kind struct {
	Sent   int `json:"sent"`
	OK     int `json:"ok"`
	Failed int `json:"failed"`
	// Retried counts tries that the client's library repeated by itself and that came out well.
	Retried int `json:"retried"`
	// Opened and Goodbyes are of byte streams: how many began, how many the server ended in good order.
	Opened   int `json:"opened,omitempty"`
	Goodbyes int `json:"goodbyes,omitempty"`
	// GapMillis is the longest time without any good answer.
	GapMillis int64          `json:"gapMillis"`
	P50Micros int64          `json:"p50Micros"`
	P99Micros int64          `json:"p99Micros"`
	MaxMicros int64          `json:"maxMicros"`
	Backends  map[string]int `json:"backends"`
	Messages  map[string]int `json:"messages,omitempty"`
	Failures  []Failure      `json:"failures,omitempty"`
}

// tally counts one kind. A request that began before a reset belongs to no report any more.
type tally struct {
	name       string
	mutex      sync.Mutex
	generation int
	kind       Kind
	last       time.Time
	samples    []int64
	next       int
}

func (t *tally) reset() {
	t.mutex.Lock()
	defer t.mutex.Unlock()
	t.generation++
	t.kind = Kind{Backends: map[string]int{}, Messages: map[string]int{}}
	t.last, t.samples, t.next = time.Now(), nil, 0
}

func (t *tally) sent() int {
	t.mutex.Lock()
	defer t.mutex.Unlock()
	t.kind.Sent++
	return t.generation
}

func (t *tally) opened() {
	t.mutex.Lock()
	defer t.mutex.Unlock()
	t.kind.Opened++
}

func (t *tally) goodbye(generation int) {
	t.mutex.Lock()
	defer t.mutex.Unlock()
	if t.generation == generation {
		t.kind.Goodbyes++
		t.kind.Sent--
	}
}

func (t *tally) done(generation int, began time.Time, backend string, retried int, err error) {
	if err != nil {
		t.mutex.Lock()
		stale := t.generation != generation
		t.mutex.Unlock()
		if !stale {
			t.failed(began, backend, err)
		}
		return
	}
	now := time.Now()
	t.mutex.Lock()
	defer t.mutex.Unlock()
	if t.generation != generation {
		return
	}
	t.kind.OK++
	t.kind.Retried += retried
	t.kind.Backends[backend]++
	t.kind.GapMillis = max(t.kind.GapMillis, now.Sub(t.last).Milliseconds())
	t.last = now
	took := now.Sub(began).Microseconds()
	t.kind.MaxMicros = max(t.kind.MaxMicros, took)
	if len(t.samples) < samplesKept {
		t.samples = append(t.samples, took)
	} else {
		t.samples[t.next%samplesKept] = took
	}
	t.next++
}

func (t *tally) failed(began time.Time, backend string, err error) {
	now := time.Now()
	t.mutex.Lock()
	defer t.mutex.Unlock()
	t.kind.Failed++
	message := local.ReplaceAllString(err.Error(), "")
	if backend != "" {
		message += " (" + backend + ")"
	}
	if _, known := t.kind.Messages[message]; known || len(t.kind.Messages) < messagesKept {
		t.kind.Messages[message]++
	} else {
		t.kind.Messages["others"]++
	}
	if len(t.kind.Failures) < failuresKept {
		t.kind.Failures = append(t.kind.Failures, Failure{At: began.UTC(), Millis: now.Sub(began).Milliseconds(), Message: message})
	}
}

// report adds what is only known when asked: the silence that still lasts, and the percentiles.
func (t *tally) report() Kind {
	t.mutex.Lock()
	defer t.mutex.Unlock()
	kind := t.kind
	kind.GapMillis = max(kind.GapMillis, time.Since(t.last).Milliseconds())
	if len(t.samples) > 0 {
		sorted := slices.Clone(t.samples)
		slices.Sort(sorted)
		kind.P50Micros, kind.P99Micros = sorted[len(sorted)/2], sorted[len(sorted)*99/100]
	}
	kind.Backends, kind.Messages = clone(kind.Backends), clone(kind.Messages)
	kind.Failures = slices.Clone(kind.Failures)
	return kind
}

func clone(from map[string]int) map[string]int {
	to := make(map[string]int, len(from))
	for key, value := range from {
		to[key] = value
	}
	return to
}

// book holds all tallies of a driver.
type book struct {
	mutex   sync.Mutex
	started time.Time
	began   time.Time
	tallies map[string]*tally
}

func newBook() *book {
	now := time.Now()
	return &book{started: now, began: now, tallies: map[string]*tally{}}
}

func (b *book) tally(kind string) *tally {
	t := &tally{name: kind}
	t.reset()
	b.mutex.Lock()
	defer b.mutex.Unlock()
	b.tallies[kind] = t
	return t
}

func (b *book) reset() {
	b.mutex.Lock()
	defer b.mutex.Unlock()
	b.began = time.Now()
	for _, t := range b.tallies {
		t.reset()
	}
}

func (b *book) json() []byte {
	b.mutex.Lock()
	defer b.mutex.Unlock()
	out := struct {
		Started time.Time       `json:"started"`
		Began   time.Time       `json:"began"`
		Now     time.Time       `json:"now"`
		Kinds   map[string]Kind `json:"kinds"`
	}{b.started.UTC(), b.began.UTC(), time.Now().UTC(), map[string]Kind{}}
	for kind, t := range b.tallies {
		out.Kinds[kind] = t.report()
	}
	text, err := json.Marshal(out)
	if err != nil {
		return []byte(err.Error())
	}
	return append(text, '\n')
}
