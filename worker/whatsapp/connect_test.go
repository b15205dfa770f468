package whatsapp

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/holdfast-wa/holdfast/infra/wasim"
	"github.com/holdfast-wa/holdfast/state"
	"github.com/holdfast-wa/holdfast/worker/policy"
)

// A connection that cannot be made fails within its bound, says how, and leaves
// nothing behind.
func TestConnectFails(t *testing.T) {
	for _, c := range []struct {
		fault wasim.Fault
		bound time.Duration
		kind  policy.SignalKind
		cause state.Cause
	}{
		{wasim.Fault{Kind: wasim.Refuse}, 0, policy.SignalDialFailed, state.CauseNetwork},
		{wasim.Fault{Kind: wasim.HTTPStatus, Code: 503}, 0, policy.SignalDialFailed, state.CauseUnavailable},
		{wasim.Fault{Kind: wasim.HTTPStatus, Code: 429}, 0, policy.SignalDialFailed, state.CauseRateLimited},
		{wasim.Fault{Kind: wasim.Unreachable}, 0, policy.SignalDialFailed, state.CauseNetwork},
		{wasim.Fault{Kind: wasim.HalfOpen}, 300 * time.Millisecond, policy.SignalConnectTimeout, state.CauseTimedOut},
		{wasim.Fault{Kind: wasim.HandshakeMute}, 300 * time.Millisecond, policy.SignalConnectTimeout, state.CauseTimedOut},
		{wasim.Fault{Kind: wasim.HandshakeGarbage}, 0, policy.SignalHandshakeFailed, state.CauseServerError},
		{wasim.Fault{Kind: wasim.CertificateExpired}, 0, policy.SignalHandshakeFailed, state.CauseServerError},
		{wasim.Fault{Kind: wasim.CertificateFuture}, 0, policy.SignalHandshakeFailed, state.CauseServerError},
		{wasim.Fault{Kind: wasim.CertificateForged}, 0, policy.SignalHandshakeFailed, state.CauseServerError},
	} {
		t.Run(fmt.Sprintf("%s %d", c.fault.Kind, c.fault.Code), func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, true)
			if _, err := w.sim.Inject(c.fault); err != nil {
				t.Fatal(err)
			}
			l, m := w.line(nil)
			bound := c.bound
			if bound == 0 {
				bound = 10 * time.Second
			}
			ctx, cancel := context.WithTimeout(w.ctx, bound)
			defer cancel()
			begun := time.Now()
			err := l.Connect(ctx)
			if took := time.Since(begun); took > bound+time.Second {
				t.Errorf("took %s", took)
			}
			failed, ok := errors.AsType[*ConnectError](err)
			if !ok {
				t.Fatalf("got %v", err)
			}
			if failed.Signal.Kind != c.kind {
				t.Errorf("kind %s (%v)", failed.Signal.Kind, err)
			}
			if got := policy.Classify(failed.Signal, true); got != c.cause {
				t.Errorf("cause %s (%v)", got, err)
			}
			begun = time.Now()
			letGo(t, l)
			if took := time.Since(begun); took > 2*time.Second {
				t.Errorf("letting go took %s", took)
			}
			time.Sleep(settle)
			if len(m.all()) != 0 {
				t.Errorf("posted %+v", m.all())
			}
			if err := l.Connect(w.ctx); !errors.Is(err, errOnce) {
				t.Errorf("a second Connect: %v", err)
			}
		})
	}
}

// A server that ends the connection in the middle of the handshake is not
// waited for.
// The library waits 20 s for the answer to its handshake unless it is freed; a
// cut must free it whatever the library is at.
func TestCutAtAnyMomentOfTheHandshake(t *testing.T) {
	w := newWorld(t, true)
	if _, err := w.sim.Inject(wasim.Fault{Kind: wasim.HandshakeMute, Times: -1}); err != nil {
		t.Fatal(err)
	}
	var all sync.WaitGroup
	for i := range 200 {
		l, _ := w.line(nil)
		all.Go(func() {
			ctx, cancel := context.WithTimeout(w.ctx, time.Duration(i%40)*5*time.Millisecond)
			defer cancel()
			if err := l.Connect(ctx); err == nil {
				t.Error("connected")
			}
			l.Close()
			select {
			case <-l.Done():
			case <-time.After(15 * time.Second):
				t.Errorf("cut after %d ms: the line did not let go", i%40*5)
			}
		})
	}
	all.Wait()
}

func TestHandshakeCutByTheServer(t *testing.T) {
	w := newWorld(t, true)
	if _, err := w.sim.Inject(wasim.Fault{Kind: wasim.HandshakeMute, Times: -1}); err != nil {
		t.Fatal(err)
	}
	l, _ := w.line(nil)
	time.AfterFunc(200*time.Millisecond, w.sim.Close)
	begun := time.Now()
	err := l.Connect(w.ctx)
	failed, ok := errors.AsType[*ConnectError](err)
	if !ok || failed.Signal.Kind != policy.SignalHandshakeFailed || time.Since(begun) > 5*time.Second {
		t.Errorf("got %v after %s", err, time.Since(begun))
	}
}

func TestPing(t *testing.T) {
	w := newWorld(t, true)
	l, m := w.online()
	if !l.LastPong().IsZero() {
		t.Error("a pong without a ping")
	}
	activity := l.LastActivity()
	if err := l.Ping(w.ctx); err != nil {
		t.Fatal(err)
	}
	first := l.LastPong()
	if first.IsZero() || !l.LastActivity().Equal(activity) {
		t.Errorf("pong at %s, activity moved %v", first, !l.LastActivity().Equal(activity))
	}
	time.Sleep(time.Millisecond)
	if err := l.Ping(w.ctx); err != nil || !l.LastPong().After(first) {
		t.Errorf("second ping: %v", err)
	}
	if _, err := w.sim.Inject(wasim.Fault{Kind: wasim.NoPong, Now: true}); err != nil {
		t.Fatal(err)
	}
	last := l.LastPong()
	ctx, cancel := context.WithTimeout(w.ctx, 200*time.Millisecond)
	defer cancel()
	if err := l.Ping(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("without an answer: %v", err)
	}
	// The end of the connection is no answer to a ping that waits.
	waiting := make(chan error, 1)
	go func() { waiting <- l.Ping(w.ctx) }()
	time.Sleep(50 * time.Millisecond)
	if err := w.dev.Drop(wasim.DropTCP); err != nil {
		t.Fatal(err)
	}
	if err := <-waiting; err == nil || !l.LastPong().Equal(last) {
		t.Errorf("the end was taken for a pong: %v", err)
	}
	w.ends(m)
}

func TestCut(t *testing.T) {
	w := newWorld(t, true)
	l, m := w.online()
	begun := time.Now()
	l.Cut()
	if took := time.Since(begun); took > 50*time.Millisecond {
		t.Errorf("took %s", took)
	}
	if l.Open() || l.LoggedIn() {
		t.Error("still open")
	}
	if err := w.dev.WaitOffline(w.ctx); err != nil {
		t.Fatal(err)
	}
	letGo(t, l)
	if got := m.terminal(); len(got) != 0 {
		t.Errorf("told %+v", got)
	}
}
