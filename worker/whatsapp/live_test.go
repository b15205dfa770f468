package whatsapp

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/holdfast-wa/holdfast/infra/wasim"
	"github.com/holdfast-wa/holdfast/state"
	"github.com/holdfast-wa/holdfast/worker/policy"
)

const account = "491700000001"

// world is a simulated service and one device of it.
type world struct {
	t     *testing.T
	ctx   context.Context
	sim   *wasim.Server
	svc   *Service
	store *fakeStore
	dev   *wasim.Device // nil: not paired
	lines uint64
}

func newWorld(t *testing.T, paired bool) *world {
	t.Helper()
	sim, err := wasim.New(wasim.Options{QuietPhone: true, Control: "off", CloseGrace: 50 * time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	if err := sim.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(sim.Close)
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	t.Cleanup(cancel)
	w := &world{t: t, ctx: ctx, sim: sim, store: newFakeStore()}
	w.svc = newService(t, ServiceConfig{Endpoint: sim.URL(), RootKey: sim.RootKeyHex()})
	if paired {
		if w.dev, err = sim.Enrol(ctx, account, w.store.device); err != nil {
			t.Fatal(err)
		}
	}
	return w
}

// line makes a line that is closed, and has let go, with the test.
func (w *world) line(change func(*Config)) (*Line, *mailbox) {
	w.t.Helper()
	m := newMailbox()
	w.lines++
	cfg := Config{Session: "test", N: w.lines, Device: w.store, Settings: policy.Guide(), Post: m.post}
	if change != nil {
		change(&cfg)
	}
	l, err := w.svc.NewLine(cfg)
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() { letGo(w.t, l) })
	return l, m
}

func letGo(t *testing.T, l *Line) {
	t.Helper()
	l.Close()
	select {
	case <-l.Done():
	case <-time.After(10 * time.Second):
		t.Error("the line did not let go")
	}
}

// online connects a paired device.
func (w *world) online() (*Line, *mailbox) {
	w.t.Helper()
	l, m := w.line(nil)
	if err := l.Connect(w.ctx); err != nil {
		w.t.Fatal(err)
	}
	await[Connected](w.ctx, w.t, m, nil)
	return l, m
}

func terminal(s Signalled) bool { return s.Terminal }

// ends waits for the end of a line and makes sure that it is told once.
func (w *world) ends(m *mailbox) policy.Signal {
	w.t.Helper()
	sig := await(w.ctx, w.t, m, terminal).Signal
	time.Sleep(settle + 50*time.Millisecond) // nothing more may come
	if got := m.terminal(); len(got) != 1 {
		w.t.Errorf("%d terminal signals: %+v", len(got), got)
	}
	return sig
}

func TestPairAndLogIn(t *testing.T) {
	w := newWorld(t, false)
	if err := w.svc.SetVersion("2.3000.1036000001"); err != nil {
		t.Fatal(err)
	}
	l, m := w.line(nil)
	if err := l.Connect(w.ctx); err != nil {
		t.Fatal(err)
	}
	qr := await[QRCodes](w.ctx, t, m, nil)
	if len(qr.Codes) != 6 || len(qr.Lasts) != 6 || l.LoggedIn() || !l.Open() {
		t.Fatalf("%d codes, logged in %v, open %v", len(qr.Codes), l.LoggedIn(), l.Open())
	}
	dev, err := w.sim.Phone(account).Scan(w.ctx, qr.Codes[0])
	if err != nil {
		t.Fatal(err)
	}
	paired := await[Paired](w.ctx, t, m, nil)
	if paired.JID != dev.JID().String() || paired.LID != dev.LID().String() {
		t.Errorf("paired as %s, %s", paired.JID, paired.LID)
	}
	if sig := w.ends(m); policy.Classify(sig, true) != state.CauseRestartRequired {
		t.Errorf("after the pairing: %+v", sig)
	}
	letGo(t, l)

	l, m = w.online()
	got := of[Connected](m)[0]
	if got.JID != paired.JID || got.LID != paired.LID || got.ServerTime.IsZero() || got.Connection() != 2 || !l.LoggedIn() {
		t.Errorf("connected: %+v", got)
	}
	for _, login := range w.sim.Truth().Logins {
		if login.Version != "2.3000.1036000001" {
			t.Errorf("the server was told version %s", login.Version)
		}
	}
}

func TestPairByCode(t *testing.T) {
	w := newWorld(t, false)
	l, m := w.line(nil)
	code := make(chan string, 1)
	go func() {
		c, err := l.PairPhone(w.ctx, "+"+account)
		if err != nil {
			t.Error(err)
		}
		code <- c
	}()
	if err := l.Connect(w.ctx); err != nil {
		t.Fatal(err)
	}
	if _, err := w.sim.Phone(account).EnterCode(w.ctx, <-code); err != nil {
		t.Fatal(err)
	}
	await[Paired](w.ctx, t, m, nil)
	if _, err := l.PairPhone(w.ctx, "nobody"); !errors.Is(err, ErrPairCode) {
		t.Errorf("a bad number: %v", err)
	}
}

// The event is staged by the handler, committed with the ratchet, and only then
// does the receipt leave.
func TestReceivedMessageIsCommittedBeforeItsReceipt(t *testing.T) {
	w := newWorld(t, true)
	l, _ := w.online()
	before := len(w.store.seen())
	id, err := w.sim.Contact("491700000002").SendText(w.ctx, account, "hello")
	if err != nil {
		t.Fatal(err)
	}
	if err := w.dev.WaitDrained(w.ctx); err != nil {
		t.Fatal(err)
	}
	order := w.store.seen()[before:]
	order = slices.DeleteFunc(order, func(s string) bool { return s != "stage" && s != "commit" && s != "send receipt" })
	if !slices.Equal(order, []string{"stage", "commit", "send receipt"}) {
		t.Errorf("order %v", order)
	}
	d := onlyData(t, w.store)
	if d.ID != id || d.Text != "hello" || d.Type != "text" {
		t.Errorf("data %+v", d)
	}
	if l.Inbound() == 0 || l.LastInbound().IsZero() || l.HandlerBlockedFor() != 0 {
		t.Error("the stanza was not counted")
	}
}

// The wait for the server's last word ends when the library has looked at every frame:
// all but the handshake's are made nodes of, or are told to be none.
func TestFramesAreCounted(t *testing.T) {
	w := newWorld(t, true)
	l, m := w.online()
	if _, err := w.sim.Inject(wasim.Fault{Kind: wasim.GarbageNode, Now: true}); err != nil {
		t.Fatal(err)
	}
	if _, err := w.sim.Contact("491700000002").SendText(w.ctx, account, "hello"); err != nil {
		t.Fatal(err)
	}
	if err := w.dev.WaitDrained(w.ctx); err != nil {
		t.Fatal(err)
	}
	if _, err := w.sim.Inject(wasim.Fault{Kind: wasim.DropFault, Now: true}); err != nil {
		t.Fatal(err)
	}
	w.ends(m)
	if given, taken := l.given.Load(), l.taken.Load(); given < 5 || given-taken != 1 {
		t.Errorf("%d frames were given, %d looked at", given, taken)
	}
}

// Neither a panic nor a failing store lets a receipt out, and the message
// comes again on the next connection.
func TestMessageComesAgainAfterAFailure(t *testing.T) {
	for name, c := range map[string]struct {
		set   func(*fakeStore, bool)
		cause state.Cause
	}{
		"panic":   {func(f *fakeStore, on bool) { f.panics = on }, state.CauseConnectionLost},
		"failing": {func(f *fakeStore, on bool) { f.failing = on }, state.CauseStoreUnavailable},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, true)
			l, m := w.online()
			w.store.set(func() { c.set(w.store, true) })
			if _, err := w.sim.Contact("491700000002").SendText(w.ctx, account, "hello"); err != nil {
				t.Fatal(err)
			}
			if sig := w.ends(m); policy.Classify(sig, true) != c.cause {
				t.Errorf("signal %+v", sig)
			}
			letGo(t, l)
			if w.dev.Pending() != 1 {
				t.Fatalf("%d messages wait; it was acknowledged", w.dev.Pending())
			}
			w.store.set(func() { c.set(w.store, false) })
			w.online()
			if err := w.dev.WaitDrained(w.ctx); err != nil {
				t.Fatal(err)
			}
			if d := onlyData(t, w.store); d.Text != "hello" {
				t.Errorf("data %+v", d)
			}
		})
	}
}

func TestSendAndReceipts(t *testing.T) {
	w := newWorld(t, true)
	l, m := w.online()
	ada := w.sim.Contact("491700000002")
	id := NewMessageID()
	at, err := l.SendText(w.ctx, id, "+491700000002", "hello Ada")
	if err != nil || at.IsZero() {
		t.Fatalf("%v, %v", at, err)
	}
	got, err := ada.WaitText(w.ctx, "hello Ada")
	if err != nil || got.ID != id {
		t.Fatalf("received %+v, %v", got, err)
	}
	await(w.ctx, t, m, func(r Receipt) bool { return r.Status == "delivered" && slices.Contains(r.IDs, id) })
	if _, err := l.Send(w.ctx, NewMessageID(), "491700000002", []byte(`{"extendedTextMessage":{"text":"as JSON"}}`)); err != nil {
		t.Fatal(err)
	}
	if _, err := ada.WaitText(w.ctx, "as JSON"); err != nil {
		t.Fatal(err)
	}
	order := w.store.seen()
	if first := slices.Index(order, "sending"); first < 0 || slices.Index(order, "send message") < first {
		t.Errorf("order %v", order)
	}
	if _, err := w.sim.Inject(wasim.Fault{Kind: wasim.SendError, Code: 463}); err != nil {
		t.Fatal(err)
	}
	_, err = l.SendText(w.ctx, NewMessageID(), "491700000002", "no")
	var refused *SendError
	if !errors.As(err, &refused) || refused.Code != CodeReachout || refused.Temporary {
		t.Errorf("got %v", err)
	}
}

// Each row of the table of signals gives one terminal signal with the cause
// that the policy wants to see.
func TestSignals(t *testing.T) {
	now := func(f wasim.Fault) wasim.Fault { f.Now = true; return f }
	for _, c := range []struct {
		fault wasim.Fault
		kind  policy.SignalKind
		code  int
		cause state.Cause
	}{
		{now(wasim.Fault{Kind: wasim.DropFault}), policy.SignalClosed, 0, state.CauseConnectionLost},
		{now(wasim.Fault{Kind: wasim.ResetFault}), policy.SignalClosed, 0, state.CauseNetwork},
		{now(wasim.Fault{Kind: wasim.CloseFault}), policy.SignalClosed, 0, state.CauseConnectionLost},
		{now(wasim.Fault{Kind: wasim.StreamEnd}), policy.SignalStreamEnd, 0, state.CauseConnectionLost},
		{now(wasim.Fault{Kind: wasim.StreamError, Code: 515}), policy.SignalStreamError, 515, state.CauseRestartRequired},
		{now(wasim.Fault{Kind: wasim.StreamError, Code: 503}), policy.SignalStreamError, 503, state.CauseUnavailable},
		{now(wasim.Fault{Kind: wasim.StreamError, Code: 516}), policy.SignalStreamError, 516, state.CauseServerError},
		{now(wasim.Fault{Kind: wasim.Replaced}), policy.SignalStreamError, 0, state.CauseReplaced},
		{now(wasim.Fault{Kind: wasim.DeviceRemoved}), policy.SignalStreamError, 401, state.CauseLoggedOut},
		{now(wasim.Fault{Kind: wasim.Oversized}), policy.SignalClosed, 0, state.CauseConnectionLost},
		{wasim.Fault{Kind: wasim.Failure, Code: 401}, policy.SignalFailure, 401, state.CauseLoggedOut},
		{wasim.Fault{Kind: wasim.Failure, Code: 403}, policy.SignalFailure, 403, state.CauseAccountLocked},
		{wasim.Fault{Kind: wasim.Failure, Code: 406}, policy.SignalFailure, 406, state.CauseAccountBanned},
		{wasim.Fault{Kind: wasim.Failure, Code: 402, Ban: 101, ExpireSeconds: 60}, policy.SignalFailure, 402, state.CauseTemporaryBan},
		{wasim.Fault{Kind: wasim.Failure, Code: 405}, policy.SignalFailure, 405, state.CauseClientOutdated},
		{wasim.Fault{Kind: wasim.Failure, Code: 500}, policy.SignalFailure, 500, state.CauseServerError},
		{wasim.Fault{Kind: wasim.Failure, Code: 503}, policy.SignalFailure, 503, state.CauseUnavailable},
		{wasim.Fault{Kind: wasim.Failure, Code: 429}, policy.SignalFailure, 429, state.CauseRateLimited},
		{wasim.Fault{Kind: wasim.Failure, Code: 400}, policy.SignalFailure, 400, state.CauseRejected},
		{wasim.Fault{Kind: wasim.Failure, Code: 408}, policy.SignalFailure, 408, state.CauseTimedOut},
		{wasim.Fault{Kind: wasim.Failure, Code: 409}, policy.SignalFailure, 409, state.CauseRejected},
		{wasim.Fault{Kind: wasim.Failure, Code: 411}, policy.SignalFailure, 411, state.CauseMultideviceMismatch},
		{wasim.Fault{Kind: wasim.Failure, Code: 415}, policy.SignalFailure, 415, state.CauseRejected},
		{wasim.Fault{Kind: wasim.Failure, Code: 418}, policy.SignalFailure, 418, state.CauseRejected},
		{wasim.Fault{Kind: wasim.Failure, Code: 428}, policy.SignalFailure, 428, state.CauseConnectionLost},
		{wasim.Fault{Kind: wasim.Failure, Code: 440}, policy.SignalFailure, 440, state.CauseReplaced},
		{wasim.Fault{Kind: wasim.Failure, Code: 501}, policy.SignalFailure, 501, state.CauseRejected},
		{wasim.Fault{Kind: wasim.Failure, Code: 515}, policy.SignalFailure, 515, state.CauseRestartRequired},
	} {
		t.Run(fmt.Sprintf("%s %d", c.fault.Kind, c.fault.Code), func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, true)
			l, m := w.line(nil)
			inject := func() {
				if _, err := w.sim.Inject(c.fault); err != nil {
					t.Fatal(err)
				}
			}
			if !c.fault.Now {
				inject()
			}
			if err := l.Connect(w.ctx); err != nil {
				t.Fatal(err)
			}
			if c.fault.Now {
				await[Connected](w.ctx, t, m, nil)
				inject()
			}
			sig := w.ends(m)
			if sig.Kind != c.kind || sig.Code != c.code {
				t.Errorf("got %s %d (%s, %v), want %s %d", sig.Kind, sig.Code, sig.Text, sig.Err, c.kind, c.code)
			}
			if got := policy.Classify(sig, true); got != c.cause {
				t.Errorf("cause %s, want %s", got, c.cause)
			}
			if c.fault.Code == 402 && sig.Expire != time.Minute {
				t.Errorf("expires in %s", sig.Expire)
			}
		})
	}
}

// A reset is network trouble also when a ping meets it before the read loop does.
func TestAResetAmongPings(t *testing.T) {
	w := newWorld(t, true)
	for range 5 {
		l, m := w.online()
		pings, cancel := context.WithCancel(w.ctx)
		var pinging sync.WaitGroup
		for range 4 {
			pinging.Go(func() {
				for pings.Err() == nil && l.Open() {
					_ = l.Ping(pings)
				}
			})
		}
		if _, err := w.sim.Inject(wasim.Fault{Kind: wasim.ResetFault, Now: true}); err != nil {
			t.Fatal(err)
		}
		sig := await(w.ctx, t, m, terminal).Signal
		cancel()
		pinging.Wait()
		if got := policy.Classify(sig, true); got != state.CauseNetwork {
			t.Errorf("cause %s (%v), want %s", got, sig.Err, state.CauseNetwork)
		}
		letGo(t, l)
	}
}

// Signals after which the connection goes on.
func TestSignalsThatStay(t *testing.T) {
	w := newWorld(t, true)
	l, m := w.online()
	for _, kind := range []wasim.Kind{wasim.Timelock, wasim.Downgrade, wasim.UnknownStanza, wasim.GarbageNode, wasim.LowPreKeys} {
		if _, err := w.sim.Inject(wasim.Fault{Kind: kind, Now: true, ExpireSeconds: 60}); err != nil {
			t.Fatal(err)
		}
	}
	lock := await[ReachoutTimelock](w.ctx, t, m, nil)
	if !lock.Active || time.Until(lock.Until) > time.Minute || time.Until(lock.Until) < 30*time.Second {
		t.Errorf("locked until %s", lock.Until)
	}
	await(w.ctx, t, m, func(s Signalled) bool { return s.Signal.Kind == policy.SignalMultidevice })
	if err := l.Ping(w.ctx); err != nil || !l.Open() || len(m.terminal()) != 0 {
		t.Errorf("ping %v, open %v, ended %v", err, l.Open(), m.terminal())
	}
}

// A frame that announces more than it has swallows what follows, as in any
// stream of bytes. Pings find out.
func TestLyingFrame(t *testing.T) {
	w := newWorld(t, true)
	l, _ := w.online()
	if _, err := w.sim.Inject(wasim.Fault{Kind: wasim.LyingFrame, Now: true}); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(w.ctx, 500*time.Millisecond)
	defer cancel()
	if err := l.Ping(ctx); err == nil || !l.LastPong().IsZero() {
		t.Errorf("a pong came through: %v", err)
	}
}

// Frames that do not open end the line and no more than that.
func TestBadFrames(t *testing.T) {
	for _, kind := range []wasim.Kind{wasim.GarbageFrame, wasim.OutOfOrder} {
		t.Run(string(kind), func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, true)
			l, m := w.online()
			if _, err := w.sim.Inject(wasim.Fault{Kind: kind, Now: true}); err != nil {
				t.Fatal(err)
			}
			_ = l.Ping(w.ctx)
			if sig := w.ends(m); policy.Classify(sig, true) != state.CauseConnectionLost {
				t.Errorf("signal %+v", sig)
			}
		})
	}
}

func TestPairingThatFails(t *testing.T) {
	for _, c := range []struct {
		fault wasim.Fault
		cause state.Cause
	}{
		{wasim.Fault{Kind: wasim.PairBadHMAC}, state.CausePairingFailed},
		{wasim.Fault{Kind: wasim.PairBadSignature}, state.CausePairingFailed},
		{wasim.Fault{Kind: wasim.PairDropBefore}, state.CausePairingFailed},
		{wasim.Fault{Kind: wasim.PairDropAfter}, state.CausePairingFailed},
		{wasim.Fault{Kind: wasim.Failure, Code: 405}, state.CausePairingFailed},
	} {
		t.Run(string(c.fault.Kind), func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, false)
			if _, err := w.sim.Inject(c.fault); err != nil {
				t.Fatal(err)
			}
			l, m := w.line(nil)
			if err := l.Connect(w.ctx); err != nil {
				t.Fatal(err)
			}
			if c.fault.Kind != wasim.Failure {
				qr := await[QRCodes](w.ctx, t, m, nil)
				ctx, cancel := context.WithTimeout(w.ctx, time.Second)
				defer cancel()
				_, _ = w.sim.Phone(account).Scan(ctx, qr.Codes[0])
			}
			sig := w.ends(m)
			if got := policy.Classify(sig, false); got != c.cause {
				t.Errorf("signal %+v is %s", sig, got)
			}
			if paired := len(of[Paired](m)) == 1; paired != (c.fault.Kind == wasim.PairDropAfter) {
				t.Errorf("paired: %v", paired)
			}
		})
	}
}

func TestPasskey(t *testing.T) {
	w := newWorld(t, false)
	if _, err := w.sim.Inject(wasim.Fault{Kind: wasim.Passkey}); err != nil {
		t.Fatal(err)
	}
	l, m := w.line(nil)
	if err := l.Connect(w.ctx); err != nil {
		t.Fatal(err)
	}
	await[PasskeyRequested](w.ctx, t, m, nil)
	if len(m.terminal()) != 0 {
		t.Error("the line has ended")
	}
}

func TestLogout(t *testing.T) {
	w := newWorld(t, true)
	l, m := w.online()
	if err := l.Logout(w.ctx); err != nil {
		t.Fatal(err)
	}
	if err := w.dev.WaitOffline(w.ctx); err != nil {
		t.Fatal(err)
	}
	time.Sleep(2 * settle)
	if got := m.terminal(); len(got) != 0 {
		t.Errorf("told %+v", got)
	}
}

// Many lines cost the library's four goroutines each and none of ours, and
// closing them leaves nothing.
func TestGoroutines(t *testing.T) {
	ignore := goleak.IgnoreCurrent()
	sim, err := wasim.New(wasim.Options{QuietPhone: true, Control: "off"})
	if err != nil {
		t.Fatal(err)
	}
	if err := sim.Start(); err != nil {
		t.Fatal(err)
	}
	svc, err := NewService(ServiceConfig{Endpoint: sim.URL(), RootKey: sim.RootKeyHex()})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	const n = 20
	lines := make([]*Line, n)
	for i := range lines {
		f, m := newFakeStore(), newMailbox()
		if _, err := sim.Enrol(ctx, fmt.Sprintf("4917000001%02d", i), f.device); err != nil {
			t.Fatal(err)
		}
		if lines[i], err = svc.NewLine(Config{Session: "s", N: 1, Device: f, Settings: policy.Guide(), Post: m.post}); err != nil {
			t.Fatal(err)
		}
		if err := lines[i].Connect(ctx); err != nil {
			t.Fatal(err)
		}
		await[Connected](ctx, t, m, nil)
	}
	time.Sleep(200 * time.Millisecond)
	if got := ours(); got > 5*n {
		t.Errorf("%d goroutines for %d lines", got, n)
	}
	for _, l := range lines {
		letGo(t, l)
	}
	svc.Close()
	sim.Close()
	goleak.VerifyNone(t, ignore)
}

// ours counts the goroutines that the clients' library runs, and our own.
func ours() int {
	buf := make([]byte, 8<<20)
	buf = buf[:runtime.Stack(buf, true)]
	count := 0
	for _, g := range splitStacks(buf) {
		if g.client && !g.server {
			count++
		}
	}
	return count
}
