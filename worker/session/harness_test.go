package session

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.mau.fi/whatsmeow/proto/waAdv"
	"go.mau.fi/whatsmeow/types"

	"github.com/holdfast-wa/holdfast/state"
	"github.com/holdfast-wa/holdfast/state/device"
	"github.com/holdfast-wa/holdfast/state/journal"
	"github.com/holdfast-wa/holdfast/state/memory"
	"github.com/holdfast-wa/holdfast/state/seal"
	"github.com/holdfast-wa/holdfast/state/statetest"
	"github.com/holdfast-wa/holdfast/worker/lease"
	"github.com/holdfast-wa/holdfast/worker/policy"
	"github.com/holdfast-wa/holdfast/worker/whatsapp"
)

// world is a session with everything around it, in a bubble of virtual time.
// The line is a fake, because a real socket would stall the bubble; the client
// behind a real line is tested against the simulated service elsewhere.
type world struct {
	t      *testing.T
	store  state.Store
	vault  state.Vault
	master seal.Master
	fleet  *seal.Keyset

	mu     sync.Mutex
	dials  []time.Time
	lines  []*fakeLine
	events []state.Event
	shown  []string
	behave func(*fakeLine) // what a line does once connected

	refreshes int
	off       time.Duration // of the server's clock from the host's
	quiet     bool          // nothing arrives but pongs
	cfg       func(*Config)
	recovers  bool // a panic of the actor is an error, as in the supervisor

	s     *Session
	lease *lease.Lease
	stop  context.CancelFunc
	ended chan error
}

func newWorld(t *testing.T) *world {
	t.Helper()
	master, err := seal.CreateFile(filepath.Join(t.TempDir(), "key"))
	if err != nil {
		t.Fatal(err)
	}
	fleet, err := seal.NewKeyset()
	if err != nil {
		t.Fatal(err)
	}
	w := &world{t: t, store: memory.New(time.Now), vault: memory.NewVault(), master: master, fleet: fleet}
	w.putSpec(state.Spec{V: state.Format, Name: "shop", Wanted: state.WantRunning, Generation: 1, CreatedAt: time.Now()}, true)
	return w
}

func (w *world) putSpec(spec state.Spec, create bool) {
	w.t.Helper()
	value, err := state.Encode(spec)
	if err != nil {
		w.t.Fatal(err)
	}
	write := state.Put(state.KindSpec, "", value)
	write.Rev = spec.Generation
	if create {
		err = w.store.CreateSession(context.Background(), spec.Name, []state.Write{write})
	} else {
		err = w.store.Update(context.Background(), state.OfSession(spec.Name), []state.Write{write})
	}
	if err != nil {
		w.t.Fatal(err)
	}
}

// wish makes what a verb asks for the wanted state, as the admin side does in the
// update that stores the command.
func (w *world) wish(verb state.Verb) {
	w.t.Helper()
	if serves, wanted := wishOf(verb); serves {
		w.want(func(s *state.Spec) { s.Wanted = wanted })
	}
}

// pair gives the session credentials, as a pairing would.
func (w *world) pair() {
	w.t.Helper()
	ctx := context.Background()
	o, err := statetest.Take(ctx, w.store, "shop", "w-pairing")
	if err != nil {
		w.t.Fatal(err)
	}
	jrn, err := journal.Open(ctx, journal.Config{Store: w.store, Fence: o.Fence(), Fleet: w.fleet})
	if err != nil {
		w.t.Fatal(err)
	}
	dev, err := device.Open(ctx, device.Config{Journal: jrn, Store: w.store, Vault: w.vault, Master: w.master, Session: "shop",
		Poison: func(err error) { w.t.Error(err) }})
	if err != nil {
		w.t.Fatal(err)
	}
	credentials(w.t, dev)
	value, err := state.Encode(state.Status{V: state.Format, State: state.Online, Paired: true, Since: time.Now()})
	if err != nil {
		w.t.Fatal(err)
	}
	if err := jrn.Commit(ctx, journal.Batch{Writes: []state.Write{state.Put(state.KindStatus, "", value)}}); err != nil {
		w.t.Fatal(err)
	}
	dev.Close()
	jrn.Close()
	if err := w.store.Release(ctx, o.Fence()); err != nil {
		w.t.Fatal(err)
	}
}

// credentials fills in what a phone gives a device that it links.
func credentials(t *testing.T, dev *device.Device) {
	lib := dev.Library()
	lib.ID = &types.JID{User: "491700000001", Device: 2, Server: types.DefaultUserServer}
	lib.LID = types.JID{User: "987654321", Device: 2, Server: types.HiddenUserServer}
	lib.Account = &waAdv.ADVSignedDeviceIdentity{Details: []byte("d"), AccountSignature: make([]byte, 64),
		AccountSignatureKey: make([]byte, 32), DeviceSignature: make([]byte, 64)}
	if err := lib.Save(context.Background()); err != nil {
		t.Error(err)
	}
}

// adopt pairs the device of a line.
func (w *world) adopt(l *fakeLine) { credentials(w.t, l.call.Device) }

// start claims the session and runs its actor.
func (w *world) start() {
	w.t.Helper()
	ctx, stop := context.WithCancel(context.Background())
	w.stop = stop
	o, err := statetest.Take(ctx, w.store, "shop", lease.NewIncarnation())
	if err != nil {
		w.t.Fatal(err)
	}
	w.lease = lease.Hold(ctx, w.store, o)
	cfg := Config{
		Name: "shop", Lease: w.lease, Store: w.store, Vault: w.vault, Master: w.master, Keyset: w.fleet,
		Settings: policy.Guide(), Fleet: w, Dial: w.dial,
		Effective:   func(own state.SessionSettings) (policy.Settings, error) { return policy.Guide().With(own.Override) },
		Sinks:       func(state.SessionSettings) []string { return nil },
		KeepContent: func(state.SessionSettings) bool { return true },
		Committed: func(_ string, events []state.Event) {
			w.mu.Lock()
			defer w.mu.Unlock()
			w.events = append(w.events, events...)
		},
		ShowQR: func(_, code string, _ time.Time) { w.shown = append(w.shown, code) },
		Log:    slog.New(slog.DiscardHandler),
	}
	if os.Getenv("HOLDFAST_TEST_LOG") != "" {
		cfg.Log = slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelDebug}))
	}
	if w.cfg != nil {
		w.cfg(&cfg)
	}
	w.s = New(cfg)
	ended := make(chan error, 1)
	w.ended = ended
	s := w.s
	go func() {
		defer func() {
			if v := recover(); v != nil {
				if !w.recovers {
					panic(v)
				}
				ended <- fmt.Errorf("panic: %v", v)
			}
		}()
		ended <- s.Run()
	}()
}

// end stops the actor in order and releases the session.
func (w *world) end() {
	w.t.Helper()
	w.stop()
	synctest.Wait()
	if err := <-w.ended; err != nil {
		w.t.Error(err)
	}
	if err := w.lease.Release(context.Background()); err != nil {
		w.t.Error(err)
	}
}

// status reads the record that operators see.
func (w *world) status() state.Status {
	w.t.Helper()
	synctest.Wait()
	rec, err := w.store.Get(context.Background(), state.OfSession("shop"), state.Key{Kind: state.KindStatus})
	if err != nil {
		w.t.Fatal(err)
	}
	var st state.Status
	if err := state.Decode(rec.Value, &st); err != nil {
		w.t.Fatal(err)
	}
	return st
}

// command puts a command as the admin side does and waits for its end.
func (w *world) command(verb state.Verb, args map[string]string) state.Command {
	w.t.Helper()
	ctx := context.Background()
	w.wish(verb)
	id := "CMD" + time.Now().Format("150405.000000000") + string(verb)
	c := state.Command{V: state.Format, ID: id, Session: "shop", Verb: verb, State: state.CommandPending,
		By: "test", At: time.Now(), ExpiresAt: time.Now().Add(time.Hour), Args: args}
	value, err := state.Encode(c)
	if err != nil {
		w.t.Fatal(err)
	}
	write := state.Put(state.KindCommand, id, value)
	write.Rev, write.If = 1, state.Absent()
	if err := w.store.Update(ctx, state.OfSession("shop"), []state.Write{write}); err != nil {
		w.t.Fatal(err)
	}
	w.s.Command(Order{c, 1})
	time.Sleep(time.Minute / 2)
	synctest.Wait()
	rec, err := w.store.Get(ctx, state.OfSession("shop"), state.Key{Kind: state.KindCommand, ID: id})
	if errors.Is(err, state.ErrNotFound) {
		return state.Command{}
	}
	if err != nil {
		w.t.Fatal(err)
	}
	var done state.Command
	if err := state.Decode(rec.Value, &done); err != nil {
		w.t.Fatal(err)
	}
	return done
}

func (w *world) count(typ state.EventType) int {
	w.mu.Lock()
	defer w.mu.Unlock()
	n := 0
	for _, e := range w.events {
		if e.Type == typ {
			n++
		}
	}
	return n
}

func (w *world) dialled() []time.Time {
	w.mu.Lock()
	defer w.mu.Unlock()
	return append([]time.Time(nil), w.dials...)
}

func (w *world) last() *fakeLine {
	synctest.Wait()
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.lines[len(w.lines)-1]
}

func (w *world) dial(c Call) (Line, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	l := &fakeLine{w: w, call: c, gone: make(chan struct{})}
	w.dials = append(w.dials, time.Now())
	w.lines = append(w.lines, l)
	return l, nil
}

// Ask and the rest make the world a Fleet without limits.
func (w *world) Clock() time.Time                                     { return time.Now().Add(w.off) }
func (w *world) Synced(context.Context)                               {}
func (w *world) Ask(string, time.Time) time.Duration                  { return 0 }
func (w *world) Failed(string, state.Cause, time.Time) (bool, string) { return false, "" }
func (w *world) Succeeded(string, time.Time)                          {}
func (w *world) Reachable(string) bool                                { return true }
func (w *world) RefreshVersion(context.Context) (changed bool, err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.refreshes++
	return false, nil
}

// fakeLine is a connection as the actor sees it.
type fakeLine struct {
	w    *world
	call Call

	mu        sync.Mutex
	open      bool
	pong      time.Time
	inbound   time.Time
	mute      bool // pings are not answered
	connErr   error
	sent      []string
	sendErr   error
	uploads   int
	uploadErr error
	stubborn  string // sends to this chat fail for a passing reason
	refused   int
	loggedOut bool
	blocked   time.Duration
	gone      chan struct{}
	once      sync.Once
}

func (l *fakeLine) post(e whatsapp.Event) { l.call.Post(e) }

func (l *fakeLine) Connect(ctx context.Context) error {
	select {
	case <-time.After(50 * time.Millisecond):
	case <-ctx.Done():
		return ctx.Err()
	case <-l.gone:
		return context.Canceled
	}
	if l.connErr != nil {
		return l.connErr
	}
	l.mu.Lock()
	l.open, l.pong = true, time.Now()
	l.mu.Unlock()
	if b := l.w.behave; b != nil {
		go b(l)
	}
	return nil
}

func (l *fakeLine) login() {
	l.mu.Lock()
	l.inbound = time.Now()
	l.mu.Unlock()
	l.post(whatsapp.Connected{On: whatsapp.On{N: l.call.N}, JID: "491700000001:2@s.whatsapp.net", At: time.Now()})
}

func (l *fakeLine) signal(sig policy.Signal) {
	l.mu.Lock()
	l.open = false
	l.mu.Unlock()
	l.post(whatsapp.Signalled{On: whatsapp.On{N: l.call.N}, Signal: sig, Terminal: true})
}

func (l *fakeLine) Cut() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.open = false
	l.once.Do(func() { close(l.gone) })
}
func (l *fakeLine) Close() { l.Cut() }
func (l *fakeLine) Ping(ctx context.Context) error {
	l.mu.Lock()
	dead := l.mute || !l.open
	l.mu.Unlock()
	answer := time.After(20 * time.Millisecond)
	if dead {
		answer = nil
	}
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-l.gone:
		return errors.New("cut")
	case <-answer:
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.pong = time.Now()
	return nil
}
func (l *fakeLine) Open() bool          { l.mu.Lock(); defer l.mu.Unlock(); return l.open }
func (l *fakeLine) LoggedIn() bool      { return l.Open() }
func (l *fakeLine) LastPong() time.Time { l.mu.Lock(); defer l.mu.Unlock(); return l.pong }

// LastInbound is now, as on a lively account, unless the world is quiet.
func (l *fakeLine) LastInbound() time.Time {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.open && !l.w.quiet {
		l.inbound = time.Now()
	}
	return l.inbound
}

func (l *fakeLine) LastActivity() time.Time          { return l.LastInbound() }
func (l *fakeLine) HandlerBlockedFor() time.Duration { return l.blocked }
func (l *fakeLine) SendText(_ context.Context, id, to, text string) (time.Time, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.sendErr != nil {
		return time.Time{}, l.sendErr
	}
	if to == l.stubborn {
		l.refused++
		return time.Time{}, &whatsapp.SendError{Temporary: true, Err: context.DeadlineExceeded}
	}
	l.sent = append(l.sent, id+" "+to+" "+text)
	return time.Now(), nil
}
func (l *fakeLine) Send(ctx context.Context, id, to string, m []byte) (time.Time, error) {
	return l.SendText(ctx, id, to, string(m))
}

// Attach makes a message of the file's length and name.
func (l *fakeLine) Attach(_ context.Context, c state.OutboxContent, f whatsapp.File) ([]byte, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.uploads++
	if l.uploadErr != nil {
		return nil, l.uploadErr
	}
	return []byte(fmt.Sprintf("%q", fmt.Sprintf("file %s %d %s upload %d", f.Name, len(f.Data), c.Text, l.uploads))), nil
}
func (l *fakeLine) Logout(context.Context) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.loggedOut = true
	return nil
}
func (l *fakeLine) PairPhone(context.Context, string) (string, error) { return "ABCD-1234", nil }
