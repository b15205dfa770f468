package whatsapp

import (
	"context"
	"errors"
	"slices"
	"sync"
	"testing"

	"go.mau.fi/whatsmeow/store"

	"github.com/holdfast-wa/holdfast/infra/wasim/memstore"
	"github.com/holdfast-wa/holdfast/state/journal"
	"github.com/holdfast-wa/holdfast/worker/policy"
)

// fakeStore is a Store in memory that writes down what happens in which order.
type fakeStore struct {
	device *store.Device

	mu      sync.Mutex
	staged  []journal.Draft
	events  []journal.Draft // committed
	log     []string
	failing bool // Stage and BeforeSend fail
	panics  bool // Stage panics
}

var errStore = errors.New("the store is down")

func newFakeStore() *fakeStore {
	f := &fakeStore{device: memstore.New()}
	f.device.EventBuffer = watchedBuffer{f.device.EventBuffer, f}
	return f
}

// watchedBuffer commits where the real device does: between the handler and
// the receipt.
type watchedBuffer struct {
	store.EventBuffer
	f *fakeStore
}

func (w watchedBuffer) ClearBufferedEventPlaintext(ctx context.Context, hash [32]byte) error {
	w.f.commit("commit")
	return w.EventBuffer.ClearBufferedEventPlaintext(ctx, hash)
}

func (f *fakeStore) commit(as string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.log = append(f.log, as)
	f.events = append(f.events, f.staged...)
	f.staged = nil
}

func (f *fakeStore) Library() *store.Device { return f.device }

func (f *fakeStore) Stage(b journal.Batch) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.panics {
		panic("a panic of the test")
	}
	if f.failing {
		return errStore
	}
	f.log = append(f.log, "stage")
	f.staged = append(f.staged, b.Events...)
	return nil
}

func (f *fakeStore) Drop() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.log = append(f.log, "drop")
	f.staged = nil
}

func (f *fakeStore) BeforeSend(tag string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.log = append(f.log, "send "+tag)
	if f.failing {
		return errStore
	}
	f.events = append(f.events, f.staged...)
	f.staged = nil
	return nil
}

func (f *fakeStore) Sending(ctx context.Context) (context.Context, func()) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.log = append(f.log, "sending")
	return ctx, func() {}
}

func (f *fakeStore) set(do func()) {
	f.mu.Lock()
	defer f.mu.Unlock()
	do()
}

func (f *fakeStore) seen() []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Clone(f.log)
}

func (f *fakeStore) drafts() []journal.Draft {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Clone(f.events)
}

// mailbox collects the events of a line.
type mailbox struct {
	mu     sync.Mutex
	events []Event
	news   chan struct{}
}

func newMailbox() *mailbox { return &mailbox{news: make(chan struct{}, 1)} }

func (m *mailbox) post(e Event) {
	m.mu.Lock()
	m.events = append(m.events, e)
	m.mu.Unlock()
	select {
	case m.news <- struct{}{}:
	default:
	}
}

func (m *mailbox) all() []Event {
	m.mu.Lock()
	defer m.mu.Unlock()
	return slices.Clone(m.events)
}

// of are the events of one type.
func of[E Event](m *mailbox) []E {
	var out []E
	for _, e := range m.all() {
		if v, ok := e.(E); ok {
			out = append(out, v)
		}
	}
	return out
}

// terminal are the signals that ended the line.
func (m *mailbox) terminal() []policy.Signal {
	var out []policy.Signal
	for _, s := range of[Signalled](m) {
		if s.Terminal {
			out = append(out, s.Signal)
		}
	}
	return out
}

// await waits for an event of one type.
func await[E Event](ctx context.Context, t *testing.T, m *mailbox, want func(E) bool) E {
	t.Helper()
	for {
		for _, e := range of[E](m) {
			if want == nil || want(e) {
				return e
			}
		}
		select {
		case <-m.news:
		case <-ctx.Done():
			var zero E
			t.Fatalf("no %T came; there were %#v", zero, m.all())
		}
	}
}

// loose is a line that is not connected, for what needs no connection.
func loose(t *testing.T, f *fakeStore, change func(*Config)) (*Line, *mailbox) {
	t.Helper()
	s := newService(t, ServiceConfig{Endpoint: "ws://127.0.0.1:1"})
	m := newMailbox()
	cfg := Config{Session: "test", N: 7, Device: f, Settings: policy.Guide(), Post: m.post}
	if change != nil {
		change(&cfg)
	}
	l, err := s.NewLine(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return l, m
}
