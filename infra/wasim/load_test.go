package wasim_test

import (
	"context"
	"fmt"
	"net/http"
	"os"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.mau.fi/whatsmeow"
	"go.mau.fi/whatsmeow/types/events"
	"go.uber.org/goleak"

	"github.com/holdfast-wa/holdfast/infra/wasim"
	"github.com/holdfast-wa/holdfast/infra/wasim/memstore"
	"github.com/holdfast-wa/holdfast/infra/wasim/wasimtest"
)

// crowd connects n clients that share one transport and calls each with every
// text it gets.
func crowd(t testing.TB, s *wasim.Server, n int, got func(i int)) []*whatsmeow.Client {
	t.Helper()
	rt := wasimtest.Transport(s.Host(), false)
	clients := make([]*whatsmeow.Client, n)
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	var wg sync.WaitGroup
	slots := make(chan struct{}, 16)
	for i := range n {
		dev := memstore.New()
		must(s.EnrolReady(ctx, fmt.Sprintf("4917%08d", i), dev, 8))
		cli := wasimtest.Client(s, dev)
		wasimtest.Point(cli, rt)
		cli.AddEventHandler(func(evt any) {
			if _, ok := evt.(*events.Message); ok {
				got(i)
			}
		})
		clients[i] = cli
		slots <- struct{}{}
		wg.Go(func() {
			defer func() { <-slots }()
			if err := wasimtest.Connect(ctx, cli); err != nil {
				t.Errorf("client %d: %v", i, err)
			}
		})
	}
	wg.Wait()
	t.Cleanup(func() {
		var wg sync.WaitGroup
		for _, cli := range clients {
			wg.Go(cli.Disconnect)
		}
		wg.Wait()
		rt.(interface{ CloseIdleConnections() }).CloseIdleConnections()
	})
	return clients
}

func TestAThousandDevices(t *testing.T) {
	s := start(t, wasim.Options{})
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	began := time.Now()
	var got atomic.Int64
	n := 1000
	if raceEnabled && os.Getenv("HOLDFAST_THOROUGH") != "1" {
		n = 300 // the detector takes half a minute for all
	}
	crowd(t, s, n, func(int) { got.Add(1) })
	t.Logf("%d devices online after %s", n, time.Since(began).Round(time.Millisecond))
	runtime.GC()
	runtime.ReadMemStats(&after)
	t.Logf("client and server together: %d KiB heap a device, %d goroutines a device",
		(after.HeapAlloc-before.HeapAlloc)/uint64(n)/1024, runtime.NumGoroutine()/n)
	c := s.Contact(other)
	for i := range n {
		must(c.SendText(t.Context(), fmt.Sprintf("4917%08d", i), "hello"))
	}
	for _, d := range s.Devices() {
		if err := d.WaitDrained(within(t)); err != nil {
			t.Fatal(err)
		}
	}
	if got.Load() != int64(n) {
		t.Errorf("%d texts came", got.Load())
	}
	if o := s.Truth().Overlaps; len(o) != 0 {
		t.Errorf("overlaps: %+v", o)
	}
}

// BenchmarkDeliver is messages to one device, each acknowledged, as fast as
// the bare library takes them.
func BenchmarkDeliver(b *testing.B) {
	s := start(b, wasim.Options{})
	_, d := online(b, s, own)
	c := s.Contact(other)
	b.ResetTimer()
	for range b.N {
		must(c.SendText(b.Context(), own, "a text of ordinary length, not more"))
	}
	ctx, cancel := context.WithTimeout(b.Context(), time.Minute)
	defer cancel()
	if err := d.WaitDrained(ctx); err != nil {
		b.Fatal(err)
	}
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "msgs/s")
}

func TestNothingIsLeftRunning(t *testing.T) {
	http.DefaultClient.CloseIdleConnections()
	before := goleak.IgnoreCurrent()
	s := must(wasim.New(wasim.Options{QuietPhone: true, Redeliver: time.Second}))
	if err := s.Start(); err != nil {
		t.Fatal(err)
	}
	b := wasimtest.Client(s, nil)
	rt := wasimtest.Transport(s.Host(), false)
	wasimtest.Point(b, rt)
	must(wasimtest.Pair(within(t), s, own, b))
	must(s.Contact(other).SendText(within(t), own, "x"))
	must(s.Inject(wasim.Fault{Kind: wasim.Mute, Now: true}))
	s.Close()
	s.Close()
	rt.(interface{ CloseIdleConnections() }).CloseIdleConnections()
	goleak.VerifyNone(t, before)
}
