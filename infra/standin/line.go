package standin

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"sync"

	"github.com/Shopify/toxiproxy/v2"
	"github.com/rs/zerolog"
)

// FaultKind is what is wrong with a line.
type FaultKind string

// The kinds of faults.
const (
	// Refuse: connections are cut and new ones refused: the host is there, and
	// nobody listens. Callers know at once.
	Refuse FaultKind = "refuse"
	// Hole: connections stay and nothing passes: packets are lost. Callers know
	// when they lose patience.
	Hole FaultKind = "hole"
	// LoseRequests: nothing arrives at the service, what it was about to answer
	// comes through.
	LoseRequests FaultKind = "lose_requests"
	// LoseReplies: requests arrive and are carried out, and no answer comes back:
	// the caller cannot know whether its commit happened.
	LoseReplies FaultKind = "lose_replies"
	// Throttle: every request is answered at once, and refused because there are too
	// many, in each of the ways in which DynamoDB says so. Of DynamoDB only.
	Throttle FaultKind = "throttle"
	// Late: each piece of an answer comes DelayMS later, give or take JitterMS.
	Late FaultKind = "late"
)

// FaultKinds are all of them.
var FaultKinds = []FaultKind{Refuse, Hole, LoseRequests, LoseReplies, Throttle, Late}

// Fault is a state of a line. The zero value is a good line.
type Fault struct {
	Kind     FaultKind `json:"kind"`
	DelayMS  int       `json:"delayMs,omitempty"`
	JitterMS int       `json:"jitterMs,omitempty"`
}

// maxDelay bounds DelayMS and JitterMS.
const maxDelay = 60_000

// proxies is what toxiproxy wants to know of the world around it: nothing.
var proxies = toxiproxy.NewServer(toxiproxy.NewMetricsContainer(nil), zerolog.Nop())

// line is one port to one service.
type line struct {
	name     string
	address  string // host:port, the same for as long as the line is there
	upstream string
	service  Service

	mu       sync.Mutex
	proxy    *toxiproxy.Proxy // nil: refused or throttled
	throttle *throttler       // in its place
	fault    Fault
}

func openLine(name string, service Service, upstream string) (*line, error) {
	l := &line{name: name, address: "127.0.0.1:0", upstream: upstream, service: service}
	if err := l.start(); err != nil {
		return nil, err
	}
	l.address = l.proxy.Listen
	return l, nil
}

// start opens the port with nothing wrong. The lock is held.
func (l *line) start() error {
	p := toxiproxy.NewProxy(proxies, l.name, l.address, l.upstream)
	if err := p.Start(); err != nil {
		return err
	}
	l.proxy = p
	return nil
}

// stop closes the port and all connections. The lock is held.
func (l *line) stop() {
	if l.proxy != nil {
		l.proxy.Stop()
		l.proxy = nil
	}
	if l.throttle != nil {
		l.throttle.stop()
		l.throttle = nil
	}
}

func (l *line) close() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.stop()
	return nil
}

func (l *line) state() Fault {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.fault
}

// toxic is one of toxiproxy's, as it reads them.
type toxic struct {
	Type       string         `json:"type"`
	Stream     string         `json:"stream"`
	Attributes map[string]int `json:"attributes"`
}

func swallow(stream string) toxic { return toxic{"timeout", stream, map[string]int{"timeout": 0}} }

// toxics of a fault.
func (f Fault) toxics() ([]toxic, error) {
	if f.Kind == Late {
		if f.DelayMS <= 0 || f.DelayMS > maxDelay || f.JitterMS < 0 || f.JitterMS > maxDelay {
			return nil, fmt.Errorf("fault late: delay %d ms, jitter %d ms: use 1 to %d and 0 to %[3]d", f.DelayMS, f.JitterMS, maxDelay)
		}
		return []toxic{{"latency", "downstream", map[string]int{"latency": f.DelayMS, "jitter": f.JitterMS}}}, nil
	}
	if f.DelayMS != 0 || f.JitterMS != 0 {
		return nil, fmt.Errorf("fault %q: has no delay; only late has", f.Kind)
	}
	switch f.Kind {
	case Refuse, Throttle:
		return nil, nil
	case Hole:
		return []toxic{swallow("upstream"), swallow("downstream")}, nil
	case LoseRequests:
		return []toxic{swallow("upstream")}, nil
	case LoseReplies:
		return []toxic{swallow("downstream")}, nil
	}
	return nil, fmt.Errorf("fault %q: is none; there are %s", f.Kind, strings.Trim(fmt.Sprint(FaultKinds), "[]"))
}

// fail puts the line into the fault's state.
func (l *line) fail(f Fault) error {
	toxics, err := f.toxics()
	if err != nil {
		return err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if err := l.mend(); err != nil {
		return err
	}
	if f.Kind == Throttle && l.service != DynamoDB {
		return fmt.Errorf("fault throttle: is of %s only; for %s use refuse or late", DynamoDB, l.service)
	}
	if f.Kind == Refuse || f.Kind == Throttle {
		l.stop()
	}
	if f.Kind == Throttle {
		if l.throttle, err = startThrottler(l.address); err != nil {
			return fmt.Errorf("%s: its port cannot be opened to throttle: %w", l.name, errors.Join(err, l.start()))
		}
	}
	for _, t := range toxics {
		b, err := json.Marshal(t)
		if err != nil {
			return err
		}
		if _, err := l.proxy.Toxics.AddToxicJson(strings.NewReader(string(b))); err != nil {
			return fmt.Errorf("toxiproxy: %w", err)
		}
	}
	l.fault = f
	return nil
}

func (l *line) heal() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.mend()
}

// mend takes the fault away. The lock is held.
func (l *line) mend() error {
	switch l.fault.Kind {
	case "":
		return nil
	case Late:
		l.proxy.Toxics.ResetToxics(context.Background())
	default:
		// Connections that have lost bytes cannot go on.
		l.stop()
		if err := l.start(); err != nil {
			return fmt.Errorf("%s: its port cannot be opened again: %w", l.name, err)
		}
	}
	l.fault = Fault{}
	return nil
}
