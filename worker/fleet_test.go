package worker

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/holdfast-wa/holdfast/state"
	"github.com/holdfast-wa/holdfast/state/memory"
	"github.com/holdfast-wa/holdfast/state/seal"
	"github.com/holdfast-wa/holdfast/worker/deliver/safedial"
	"github.com/holdfast-wa/holdfast/worker/policy"
)

// fakeUpstream is WhatsApp's web host: a fake, because only its answers matter.
type fakeUpstream struct {
	mu      sync.Mutex
	version string
	newest  string
	err     error
	looks   int
	down    map[string]bool
}

func (u *fakeUpstream) Version() string            { u.mu.Lock(); defer u.mu.Unlock(); return u.version }
func (u *fakeUpstream) ClockOffset() time.Duration { return time.Hour }
func (u *fakeUpstream) SetVersion(v string) error {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.version = v
	return nil
}
func (u *fakeUpstream) LatestVersion(context.Context, string) (string, error) {
	time.Sleep(time.Second)
	u.mu.Lock()
	defer u.mu.Unlock()
	u.looks++
	return u.newest, u.err
}
func (u *fakeUpstream) Reachable(_ context.Context, via string) error {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.down[via] {
		return errors.New("down")
	}
	return nil
}

func testFleet(u *fakeUpstream, store state.Records, rate float64, burst int) *fleet {
	return newFleet(store, u, rate, burst, 2*time.Minute, slog.New(slog.DiscardHandler))
}

func TestTheVersionIsLookedUpOnceForAll(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := memory.New(time.Now)
		u := &fakeUpstream{version: "2.3000.100", newest: "2.3000.200"}
		f := testFleet(u, store, 100, 100)
		var all sync.WaitGroup
		for range 100 {
			all.Go(func() {
				changed, err := f.RefreshVersion(t.Context())
				if err != nil || !changed {
					t.Errorf("changed %v, %v", changed, err)
				}
			})
		}
		all.Wait()
		if u.looks != 1 || u.Version() != "2.3000.200" {
			t.Errorf("%d looks, version %s", u.looks, u.Version())
		}
		// Another worker of the fleet finds it in the store.
		other := &fakeUpstream{version: "2.3000.100", err: errors.New("not asked")}
		if err := testFleet(other, store, 100, 100).loadVersion(t.Context()); err != nil || other.Version() != "2.3000.200" {
			t.Errorf("version %s, %v", other.Version(), err)
		}
		// An older one in the store does not replace a newer built-in one.
		newer := &fakeUpstream{version: "2.3000.300"}
		if err := testFleet(newer, store, 100, 100).loadVersion(t.Context()); err != nil || newer.Version() != "2.3000.300" {
			t.Errorf("version %s, %v", newer.Version(), err)
		}
		// Unchanged: nobody is told that it changed, and it is looked for again after a minute.
		time.Sleep(10 * time.Minute)
		if changed, err := f.RefreshVersion(t.Context()); changed || err != nil || u.looks != 2 {
			t.Errorf("changed %v, %v, %d looks", changed, err, u.looks)
		}
	})
}

func TestLoginsTakeTheirTurn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := testFleet(&fakeUpstream{}, memory.New(time.Now), 20, 100)
		begun := time.Now()
		var all sync.WaitGroup
		var mu sync.Mutex
		var last time.Duration
		early := 0
		for i := range 500 {
			all.Go(func() {
				name := fmt.Sprintf("s-%d", i)
				for wait := f.Ask(name, time.Now()); wait > 0; wait = f.Ask(name, time.Now()) {
					time.Sleep(wait)
				}
				mu.Lock()
				defer mu.Unlock()
				took := time.Since(begun)
				last = max(last, took)
				if took == 0 {
					early++
				}
			})
		}
		all.Wait()
		if early != 100 || last < 19*time.Second || last > 21*time.Second {
			t.Errorf("%d at once, the last after %v; want a burst of 100 and 20 a second", early, last)
		}
	})
}

func TestAnOutageIsOneAlarm(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := testFleet(&fakeUpstream{}, memory.New(time.Now), 1000, 1000)
		f.breaker.Sessions(100)
		alarms := 0
		for i := range 100 {
			if _, alarm := f.Failed(fmt.Sprintf("s-%d", i), state.CauseServerError, time.Now()); alarm != "" {
				alarms++
			}
		}
		if alarms != 1 {
			t.Errorf("%d alarms", alarms)
		}
		time.Sleep(6 * time.Second)
		through := 0
		for i := range 100 {
			if f.Ask(fmt.Sprintf("s-%d", i), time.Now()) == 0 {
				through++
			}
		}
		if through != 1 {
			t.Errorf("%d probe at once", through)
		}
	})
}

func TestReachabilityIsPerProxy(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		u := &fakeUpstream{down: map[string]bool{"socks5://dead:1": true}}
		f := testFleet(u, memory.New(time.Now), 1, 1)
		if !f.Reachable("") || !f.Reachable("socks5://dead:1") {
			t.Error("what was never checked counts as good")
		}
		ctx, cancel := context.WithCancel(t.Context())
		go f.watchReach(ctx)
		time.Sleep(time.Second)
		f.Synced(ctx) // does not wait: it was looked at
		if got := time.Until(f.Clock()); got != time.Hour {
			t.Errorf("the clock is off by %v", got)
		}
		if !f.Reachable("") || f.Reachable("socks5://dead:1") {
			t.Errorf("direct %v, proxy %v", f.Reachable(""), f.Reachable("socks5://dead:1"))
		}
		u.mu.Lock()
		u.down = nil
		u.mu.Unlock()
		time.Sleep(2 * time.Minute)
		if !f.Reachable("socks5://dead:1") {
			t.Error("it has come back")
		}
		cancel()
		synctest.Wait()
	})
}

func TestSettingsOfASession(t *testing.T) {
	base := policy.Guide()
	set, err := EffectiveSettings(base, state.SessionSettings{Profile: "gentle", Override: map[string]string{"monitor-tick": "20s"}})
	if err != nil || set.KeepAliveInterval != time.Minute || set.MonitorTick != 20*time.Second || !set.MarkOnline {
		t.Errorf("%+v %v", set, err)
	}
	for name, bad := range map[string]state.SessionSettings{
		"profile": {Profile: "wild"}, "value": {Override: map[string]string{"monitor-tick": "soon"}},
		"name": {Override: map[string]string{"monitor-tock": "1s"}}, "proxy": {Proxy: "ftp://x"}, "webhook": {WebhookURL: "nope"},
	} {
		if err := CheckSettings(base, safedial.Public, bad); err == nil {
			t.Errorf("%s: taken", name)
		}
	}
	if err := CheckSettings(base, safedial.Public, state.SessionSettings{Proxy: "socks5://127.0.0.1:1080", WebhookURL: "https://example.org/x", WebhookSecret: "s3cret-s3cret-s3cret"}); err != nil {
		t.Error(err)
	}
}

func TestTheKeysetIsMadeOnceAndNeedsItsMasterKey(t *testing.T) {
	store := memory.New(time.Now)
	master, err := seal.CreateFile(t.TempDir() + "/a")
	if err != nil {
		t.Fatal(err)
	}
	first, err := OpenKeyset(t.Context(), store, master)
	if err != nil {
		t.Fatal(err)
	}
	second, err := OpenKeyset(t.Context(), store, master)
	if err != nil || first.ID() != second.ID() {
		t.Errorf("%v", err)
	}
	other, err := seal.CreateFile(t.TempDir() + "/b")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := OpenKeyset(t.Context(), store, other); !errors.Is(err, state.ErrCorrupt) {
		t.Errorf("a wrong master key: %v", err)
	}
}
