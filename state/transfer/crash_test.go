package transfer

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/holdfast-wa/holdfast/state"
	"github.com/holdfast-wa/holdfast/state/device"
	"github.com/holdfast-wa/holdfast/state/journal"
	"github.com/holdfast-wa/holdfast/state/memory"
	"github.com/holdfast-wa/holdfast/state/statetest"
)

// mortal is a place whose store and vault answer no more from the n-th call on;
// that call may take effect all the same.
type mortal struct {
	*place
	mu    sync.Mutex
	calls int
	dies  int // 0: never
	after bool
}

var errDead = fmt.Errorf("%w: the process has died", state.ErrUnavailable)

// step counts a call of the work itself; heartbeats are not counted, or the count
// would hang on time.
func (m *mortal) step(do func() error) error {
	m.mu.Lock()
	m.calls++
	now, dead := m.dies > 0 && m.calls == m.dies, m.dies > 0 && m.calls > m.dies
	m.mu.Unlock()
	switch {
	case dead || now && !m.after:
		return errDead
	case now:
		_ = do()
		return errDead
	}
	return do()
}

func (m *mortal) gone() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.dies > 0 && m.calls >= m.dies
}

// live makes it answer again.
func (m *mortal) live() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.dies, m.calls = 0, 0
}

func (m *mortal) dieAt(n int, after bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.dies, m.calls, m.after = n, 0, after
}

// mortalStore fails by its place's count.
type mortalStore struct {
	state.Store
	m *mortal
}

func step[T any](m *mortal, do func() (T, error)) (v T, err error) {
	err = m.step(func() error { v, err = do(); return err })
	if err != nil {
		var none T
		return none, err
	}
	return v, nil
}

func (s mortalStore) Get(ctx context.Context, p state.Partition, k state.Key) (state.Record, error) {
	return step(s.m, func() (state.Record, error) { return s.Store.Get(ctx, p, k) })
}

func (s mortalStore) Query(ctx context.Context, p state.Partition, q state.Query) (state.Page, error) {
	return step(s.m, func() (state.Page, error) { return s.Store.Query(ctx, p, q) })
}

func (s mortalStore) Owner(ctx context.Context, name string) (state.Owner, error) {
	return step(s.m, func() (state.Owner, error) { return s.Store.Owner(ctx, name) })
}

func (s mortalStore) Commit(ctx context.Context, f state.Fence, token string, w []state.Write) error {
	return s.m.step(func() error { return s.Store.Commit(ctx, f, token, w) })
}

func (s mortalStore) Update(ctx context.Context, p state.Partition, w []state.Write) error {
	return s.m.step(func() error { return s.Store.Update(ctx, p, w) })
}

func (s mortalStore) CreateSession(ctx context.Context, name string, w []state.Write) error {
	return s.m.step(func() error { return s.Store.CreateSession(ctx, name, w) })
}

func (s mortalStore) Claim(ctx context.Context, to string, from ...state.Owner) ([]state.Owner, error) {
	return step(s.m, func() ([]state.Owner, error) { return s.Store.Claim(ctx, to, from...) })
}

func (s mortalStore) Release(ctx context.Context, f state.Fence) error {
	return s.m.step(func() error { return s.Store.Release(ctx, f) })
}

func (s mortalStore) Join(ctx context.Context, id string, info state.MemberInfo) (state.Member, error) {
	return step(s.m, func() (state.Member, error) { return s.Store.Join(ctx, id, info) })
}

func (s mortalStore) Beat(ctx context.Context, id string, load state.Load) error {
	if s.m.gone() {
		return errDead
	}
	return s.Store.Beat(ctx, id, load)
}

func (s mortalStore) Watch(ctx context.Context, ids []string) (state.Pulse, error) {
	if s.m.gone() {
		return state.Pulse{}, errDead
	}
	return s.Store.Watch(ctx, ids)
}

func (s mortalStore) DeclareStopped(ctx context.Context, id string) error {
	if s.m.gone() {
		return errDead
	}
	return s.Store.DeclareStopped(ctx, id)
}

type mortalVault struct {
	state.Vault
	m *mortal
}

func (v mortalVault) PutObject(ctx context.Context, session, name string, body []byte) (string, error) {
	return step(v.m, func() (string, error) { return v.Vault.PutObject(ctx, session, name, body) })
}

func (v mortalVault) GetObject(ctx context.Context, session, name, version string) ([]byte, error) {
	return step(v.m, func() ([]byte, error) { return v.Vault.GetObject(ctx, session, name, version) })
}

func newMortal(t testing.TB, name string) *mortal {
	m := &mortal{}
	m.place = newPlace(t, name, mortalStore{memory.New(time.Now), m}, nil)
	m.vault = mortalVault{memory.NewVault(), m}
	return m
}

// stride is how many calls lie between two that a process dies at. All in a row
// cost a minute of the race detector: HOLDFAST_THOROUGH=1 has them, else each run
// has others.
func stride(t *testing.T) (first, every int) {
	if os.Getenv("HOLDFAST_THOROUGH") == "1" {
		return 1, 1
	}
	every = 3
	first = 1 + rand.IntN(every)
	t.Logf("each third call, from call %d on", first)
	return first, every
}

// TestExportDies has an export die at each call of store and vault, before and
// after it takes effect. A file that is there means that nobody at the source
// connects; without one either nothing has happened, or the source says what to
// do. The same export run again ends it in every case, also when a worker has
// had the session in between, and the file holds everything.
func TestExportDies(t *testing.T) {
	k := newKey(t)
	first, every := stride(t)
	for _, after := range []bool{false, true} {
		deaths := 0
		for n := first; ; n += every {
			ended := false
			synctest.Test(t, func(t *testing.T) {
				home := newMortal(t, "home")
				home.furnished()
				file := temp(t)
				home.dieAt(n, after)
				_, err := exportTo(home.place, file, k)
				ended = !home.gone()
				home.live()
				if ended {
					must(t, err)
					return
				}
				deaths++
				marked := home.meta().Moved
				_, there := os.Stat(file)
				if there == nil && marked == nil {
					t.Fatalf("call %d: a file, and the source is not marked", n)
				}
				if err != nil && !errors.Is(err, state.ErrUnavailable) {
					t.Errorf("call %d: %v", n, err)
				}
				if marked != nil {
					home.refuses(device.ErrMoved)
				} else {
					home.whole(`{"trimmed":true}`, `"event 2"`, `"event 3"`)
				}
				if marked == nil || !marked.Done {
					report, err := exportTo(home.place, file, k)
					if err != nil {
						t.Fatalf("call %d, run again: %v", n, err)
					}
					if marked != nil && report.ID != marked.ID {
						t.Errorf("call %d: another id", n)
					}
				}
				tidy(t, file, filepath.Base(file))
				home.refuses(device.ErrMoved)
				if due := home.due(); len(due) != 0 {
					t.Errorf("call %d: the source would still send %v", n, due)
				}
				cloud := newMemory(t, "cloud")
				report, err := importFrom(cloud, file, k)
				if err != nil {
					t.Fatalf("call %d: %v", n, err)
				}
				if report.Unsent != 2 || len(cloud.due()) != 2 {
					t.Errorf("call %d: %+v, to send %v", n, report, cloud.due())
				}
				history := cloud.history()
				if len(history) != 4 {
					t.Fatalf("call %d: %d events", n, len(history))
				}
				cloud.whole(`{"trimmed":true}`, `"event 2"`, `"event 3"`, string(history[3].Data))
				if st := cloud.status(); st.State != state.Connecting || st.Cause != state.CauseNone {
					t.Errorf("call %d: %+v", n, st)
				}
			})
			if ended || t.Failed() {
				break
			}
		}
		t.Logf("after its effect: %v: %d deaths", after, deaths)
		if deaths*every < 20 {
			t.Errorf("only %d calls", deaths)
		}
	}
}

// TestImportDies is the same of an import: until it has ended nobody connects,
// and run again it ends.
func TestImportDies(t *testing.T) {
	k := newKey(t)
	first, every := stride(t)
	for _, moveBack := range []bool{false, true} {
		for _, after := range []bool{false, true} {
			if moveBack && !after {
				continue // the calls are the same ones, and so is what one without effect leaves behind
			}
			deaths := 0
			for n := first; ; n += every {
				ended := false
				synctest.Test(t, func(t *testing.T) {
					source, target := newMemory(t, "source"), newMortal(t, "target")
					file := temp(t)
					if moveBack { // into a store that the session was moved away from
						target.furnished()
						first := temp(t)
						_, err := exportTo(target.place, first, k)
						must(t, err)
						_, err = importFrom(source, first, k)
						must(t, err)
					} else {
						source.furnished()
					}
					_, err := exportTo(source, file, k)
					must(t, err)
					target.dieAt(n, after)
					_, err = importFrom(target.place, file, k)
					ended = !target.gone()
					target.live()
					if ended {
						must(t, err)
						return
					}
					deaths++
					done := false
					if _, err := target.store.Owner(context.Background(), shop); err == nil {
						m, _, err := readMeta(context.Background(), target.store, partition)
						must(t, err)
						done = m.Imported != nil && m.Imported.Done
						switch {
						case done:
						case m.Moved != nil:
							target.refuses(device.ErrMoved)
						case m.Imported != nil:
							target.refuses(device.ErrHalfImported)
						default: // made, and nothing in it
							d := target.open()
							if d.Paired() {
								t.Errorf("call %d: paired by half an import", n)
							}
							d.Close()
							target.release()
						}
						if !done && target.spec().Wanted == state.WantRunning && !moveBack {
							t.Errorf("call %d: half an import is wanted running", n)
						}
					}
					_, err = importFrom(target.place, file, k)
					if done {
						wantErr(t, err, ErrImported)
					} else if err != nil {
						t.Fatalf("call %d, run again: %v", n, err)
					}
					history := target.history()
					texts := []string{`{"trimmed":true}`, `"event 2"`, `"event 3"`}
					for _, e := range history[3:] {
						texts = append(texts, string(e.Data))
					}
					target.whole(texts...)
					if len(target.due()) != 2 {
						t.Errorf("call %d: to send %v", n, target.due())
					}
					_, err = importFrom(target.place, file, k)
					wantErr(t, err, ErrImported)
				})
				if ended || t.Failed() {
					break
				}
			}
			t.Logf("back: %v, after its effect: %v: %d deaths", moveBack, after, deaths)
			if deaths*every < 20 {
				t.Errorf("only %d calls", deaths)
			}
		}
	}
}

// TestOwnership: whose session it is, and how it is come by.
func TestOwnership(t *testing.T) {
	k := newKey(t)
	t.Run("a worker that died is declared dead", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			home := newMemory(t, "home")
			home.furnished()
			home.own().Close() // and never beats again
			begun := time.Now()
			_, err := exportTo(home, temp(t), k)
			must(t, err)
			if took := time.Since(begun); took < DefaultTakeover || took > DefaultTakeover+2*time.Second {
				t.Errorf("after %s", took)
			}
		})
	})
	t.Run("a worker that lives hands it over", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			home := newMemory(t, "home")
			home.furnished()
			w := startWorker(t, home, true)
			begun := time.Now()
			_, err := exportTo(home, temp(t), k)
			must(t, err)
			if took := time.Since(begun); took > 5*time.Second {
				t.Errorf("after %s", took)
			}
			w.end()
			home.commandsEnded(t, state.CommandDone)
		})
	})
	t.Run("a worker that does not give it up", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			home := newMemory(t, "home")
			home.furnished()
			w := startWorker(t, home, false)
			begun := time.Now()
			_, err := exportTo(home, temp(t), k)
			wantErr(t, err, ErrBusy)
			if took := time.Since(begun); took < DefaultPatience || took > DefaultPatience+2*time.Second {
				t.Errorf("after %s", took)
			}
			if home.meta().Moved != nil {
				t.Error("marked all the same")
			}
			w.end()
			home.commandsEnded(t, state.CommandFailed)
		})
	})
	t.Run("fenced in the middle", func(t *testing.T) {
		home := newMemory(t, "home")
		home.furnished()
		inner := home.store
		home.store = &thief{Store: inner, t: t}
		_, err := exportTo(home, temp(t), k)
		wantErr(t, err, state.ErrFenced)
		home.store = inner
		home.refuses(device.ErrMoved)
	})
	t.Run("nobody is left behind", func(t *testing.T) {
		home := newMemory(t, "home")
		home.furnished()
		_, err := exportTo(home, temp(t), k)
		must(t, err)
		roster, err := home.store.Roster(context.Background())
		must(t, err)
		for _, m := range roster.Members {
			if m.Info.Tool {
				t.Errorf("%s is still a member", m.Incarnation)
			}
		}
	})
}

// thief is a store where another worker takes the session once it is marked.
type thief struct {
	state.Store
	t      *testing.T
	stolen bool
}

func (s *thief) Commit(ctx context.Context, f state.Fence, token string, writes []state.Write) error {
	err := s.Store.Commit(ctx, f, token, writes)
	m, _, metaErr := readMeta(ctx, s.Store, partition)
	must(s.t, metaErr)
	if !s.stolen && m.Moved != nil {
		s.stolen = true
		_, err := statetest.Take(ctx, s.Store, shop, "w-thief")
		must(s.t, err)
	}
	return err
}

// fakeWorker is a worker that beats, and gives its session up when asked, if it
// is willing.
type fakeWorker struct {
	stop context.CancelFunc
	done sync.WaitGroup
}

func (w *fakeWorker) end() { w.stop(); w.done.Wait() }

func startWorker(t *testing.T, p *place, willing bool) *fakeWorker {
	t.Helper()
	ctx, stop := context.WithCancel(context.Background())
	w := &fakeWorker{stop: stop}
	const id = "w-alive"
	o, err := statetest.Take(ctx, p.store, shop, id)
	must(t, err)
	w.done.Go(func() {
		for tick := time.NewTicker(time.Second); ; {
			select {
			case <-ctx.Done():
				tick.Stop()
				return
			case <-tick.C:
			}
			_ = p.store.Beat(ctx, id, state.Load{})
			page, _ := p.store.Indexed(ctx, state.CommandIndex(id), nil, 10)
			for _, r := range page {
				var c state.Command
				if state.Decode(r.Value, &c) != nil || c.Verb != state.VerbHandOver || !willing {
					continue
				}
				c.State, c.EndedAt = state.CommandDone, time.Now()
				value, err := state.Encode(c)
				if err != nil {
					t.Error(err)
				}
				done := state.Put(state.KindCommand, c.ID, value)
				done.Rev = r.Rev + 1
				j, err := journal.Open(ctx, journal.Config{Store: p.store, Fence: o.Fence(), Fleet: p.fleet})
				if err != nil {
					t.Error(err)
					return
				}
				if err := j.Commit(ctx, journal.Batch{Writes: []state.Write{done}}); err != nil {
					t.Error(err)
				}
				j.Close()
				if _, err := p.store.HandOver(ctx, o.Fence(), c.Args["to"]); err != nil {
					t.Error(err)
				}
			}
		}
	})
	return w
}

func (p *place) commandsEnded(t *testing.T, want state.CommandState) {
	t.Helper()
	n := 0
	must(t, eachRecord(context.Background(), p.store, partition, state.KindCommand, "", func(r state.Record) error {
		var c state.Command
		n++
		if err := state.Decode(r.Value, &c); err != nil || c.State != want || r.Index != "" {
			t.Errorf("command %s is %s, in index %q, %v", c.Verb, c.State, r.Index, err)
		}
		return nil
	}))
	if n != 1 {
		t.Errorf("%d commands", n)
	}
}
