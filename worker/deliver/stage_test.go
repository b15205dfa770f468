package deliver

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"github.com/holdfast-wa/holdfast/state"
	"github.com/holdfast-wa/holdfast/state/memory"
	"github.com/holdfast-wa/holdfast/state/seal"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// stage is a store with sessions whose events are committed and delivered as a
// worker would.
type stage struct {
	t     *testing.T
	store *memory.Store
	fleet *seal.Keyset
	log   *lockedBuffer

	mu       sync.Mutex
	last     map[string]uint64
	outcomes map[string]int
	fill     []int
}

type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *lockedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}

func newStage(t *testing.T) *stage {
	t.Helper()
	fleet, err := seal.NewKeyset()
	if err != nil {
		t.Fatal(err)
	}
	return &stage{t: t, store: memory.New(time.Now), fleet: fleet, log: &lockedBuffer{},
		last: map[string]uint64{}, outcomes: map[string]int{}}
}

// run starts a dispatcher; the returned func ends it and waits.
func (s *stage) run(c Config) (*Dispatcher, func()) {
	s.t.Helper()
	c.Records, c.Fleet = s.store, s.fleet
	c.Log = slog.New(slog.NewTextHandler(s.log, &slog.HandlerOptions{Level: slog.LevelDebug}))
	if c.Observe == nil {
		c.Observe = func(o Outcome) {
			s.mu.Lock()
			s.outcomes[o.Sink+" "+o.Result]++
			s.mu.Unlock()
		}
	}
	d := New(c)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		if err := d.Run(ctx); err != nil {
			s.t.Errorf("Run: %v", err)
		}
	}()
	return d, func() { cancel(); <-done }
}

// attach makes the session where it is new.
func (s *stage) attach(d *Dispatcher, name string, change func(*Session), sinks ...Sink) *Queue {
	s.t.Helper()
	if err := s.store.CreateSession(context.Background(), name, nil); err != nil && !errors.Is(err, state.ErrExists) {
		s.t.Fatal(err)
	}
	p := state.OfSession(name)
	session := Session{Name: name, Sinks: sinks, Last: s.seq(name),
		Delivered: func(sink string, seq uint64) {
			value, _ := state.Encode(state.Cursor{V: 1, Seq: seq})
			if err := s.store.Update(context.Background(), p, []state.Write{state.Put(state.KindCursor, sink, value)}); err != nil {
				s.t.Errorf("cursor: %v", err)
			}
		},
		Commit: func(ctx context.Context, w ...state.Write) error { return s.store.Update(ctx, p, w) },
		Filling: func(depth int, _ time.Duration) {
			s.mu.Lock()
			s.fill = append(s.fill, depth)
			s.mu.Unlock()
		},
	}
	if change != nil {
		change(&session)
	}
	q, err := d.Attach(session)
	if err != nil {
		s.t.Fatal(err)
	}
	return q
}

func (s *stage) seq(name string) uint64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.last[name]
}

func (s *stage) warnings() []int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]int(nil), s.fill...)
}

// commit stores n events and tells the queue, where there is one.
func (s *stage) commit(q *Queue, name string, n int) {
	s.t.Helper()
	p := state.OfSession(name)
	for range n {
		s.mu.Lock()
		s.last[name]++
		seq := s.last[name]
		s.mu.Unlock()
		ev := state.Event{ID: fmt.Sprintf("01EV%s%010d", strings.ToUpper(name), seq), Type: state.EventMessage, Time: time.Now(),
			Session: name, Epoch: 1, Seq: seq, Data: json.RawMessage(fmt.Sprintf(`{"text":"hello %d"}`, seq))}
		plain, _ := json.Marshal(ev)
		sealed, err := s.fleet.Seal(seal.Place{Partition: p, Kind: state.KindEvent, ID: state.EventID(seq)}, plain)
		if err != nil {
			s.t.Fatal(err)
		}
		value, _ := state.Encode(state.StoredEvent{V: 1, ID: ev.ID, Type: ev.Type, At: ev.Time, Sealed: sealed})
		if err := s.store.Update(context.Background(), p, []state.Write{state.Put(state.KindEvent, state.EventID(seq), value)}); err != nil {
			s.t.Fatal(err)
		}
		if q != nil {
			q.Committed([]state.Event{ev})
		}
	}
}

func (s *stage) cursor(name, sink string) uint64 {
	r, err := s.store.Get(context.Background(), state.OfSession(name), state.Key{Kind: state.KindCursor, ID: sink})
	if err != nil {
		return 0
	}
	var c state.Cursor
	if err := state.Decode(r.Value, &c); err != nil {
		s.t.Fatal(err)
	}
	return c.Seq
}

// receiver is a fake HTTP receiver in virtual time.
type receiver struct {
	answer func(host string, ev state.Event, n int) (status int, header http.Header) // status 0: hangs
	mu     sync.Mutex
	got    map[string][]uint64 // accepted, by host
	tried  map[string]int
	ids    map[string]uint64
	at     []time.Time
}

func newReceiver(answer func(string, state.Event, int) (int, http.Header)) *receiver {
	return &receiver{answer: answer, got: map[string][]uint64{}, tried: map[string]int{}, ids: map[string]uint64{}}
}

func (r *receiver) RoundTrip(req *http.Request) (*http.Response, error) {
	body, err := io.ReadAll(req.Body)
	if err != nil {
		return nil, err
	}
	var ev state.Event
	if err := json.Unmarshal(body, &ev); err != nil {
		return nil, err
	}
	host := req.URL.Host
	r.mu.Lock()
	r.tried[host]++
	n := r.tried[host]
	r.at = append(r.at, time.Now())
	status, header := r.answer(host, ev, n)
	if status/100 == 2 {
		if seq, seen := r.ids[req.Header.Get("webhook-id")]; seen && seq != ev.Seq {
			err = fmt.Errorf("id %s is that of %d and of %d", ev.ID, seq, ev.Seq)
		}
		r.ids[req.Header.Get("webhook-id")] = ev.Seq
		r.got[host] = append(r.got[host], ev.Seq)
	}
	r.mu.Unlock()
	if err != nil {
		return nil, err
	}
	if status == 0 {
		<-req.Context().Done()
		return nil, req.Context().Err()
	}
	if header == nil {
		header = http.Header{}
	}
	return &http.Response{StatusCode: status, Header: header, Body: io.NopCloser(strings.NewReader("ok")), Request: req}, nil
}

func (r *receiver) seqs(host string) []uint64 {
	r.mu.Lock()
	defer r.mu.Unlock()
	return append([]uint64(nil), r.got[host]...)
}

// change changes what the answers depend on.
func (r *receiver) change(f func()) {
	r.mu.Lock()
	defer r.mu.Unlock()
	f()
}

func (r *receiver) tries(host string) int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.tried[host]
}

// inOrder checks that seqs is 1..n.
func inOrder(t *testing.T, what string, seqs []uint64, n int) {
	t.Helper()
	if len(seqs) != n {
		t.Fatalf("%s: got %d events, want %d", what, len(seqs), n)
	}
	for i, seq := range seqs {
		if seq != uint64(i+1) {
			t.Fatalf("%s: event %d has seq %d", what, i, seq)
		}
	}
}

func hook(t *testing.T, p *Poster, url string) Sink {
	t.Helper()
	w, err := p.Webhook(url, "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")
	if err != nil {
		t.Fatal(err)
	}
	return w
}

func bubble(t *testing.T, f func(*testing.T, *stage)) {
	synctest.Test(t, func(t *testing.T) { f(t, newStage(t)) })
}

func alwaysOK(string, state.Event, int) (int, http.Header) { return 200, nil }
