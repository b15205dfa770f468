package device_test

import (
	"context"
	"fmt"
	"runtime"
	"testing"
	"time"

	"go.mau.fi/whatsmeow/store"
	"go.mau.fi/whatsmeow/types"
	"go.mau.fi/whatsmeow/util/keys"

	"github.com/holdfast-wa/holdfast/state/device"
	"github.com/holdfast-wa/holdfast/state/journal"
	"github.com/holdfast-wa/holdfast/state/memory"
	"github.com/holdfast-wa/holdfast/state/statetest"
	"github.com/holdfast-wa/holdfast/state/statetest/libtest"
)

func heap() uint64 {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}

// idle measures the bytes of heap of each of n paired devices that have
// connected once, journal included.
func idle(t testing.TB, n int) uint64 {
	ctx := context.Background()
	s := memory.New(time.Now)
	w := newWorld(t, s)
	var configs []device.Config
	for i := range n {
		name := fmt.Sprint("s", i)
		must(t, s.CreateSession(ctx, name, nil))
		owner, err := statetest.Take(ctx, s, name, "w")
		must(t, err)
		j, err := journal.Open(ctx, journal.Config{Store: s, Fence: owner.Fence(), Fleet: w.fleet, Sinks: w.sinks})
		must(t, err)
		c := w.config(j)
		c.Session = name
		d, err := device.Open(ctx, c)
		must(t, err)
		libtest.Pair(t, d.Library())
		must(t, j.Flush(ctx))
		j.Close()
		c.Journal = nil
		configs = append(configs, c)
	}
	before := heap()
	devices := make([]*device.Device, n)
	for i, c := range configs {
		owner, err := s.Owner(ctx, c.Session)
		must(t, err)
		c.Journal, err = journal.Open(ctx, journal.Config{Store: s, Fence: owner.Fence(), Fleet: w.fleet, Sinks: w.sinks})
		must(t, err)
		t.Cleanup(c.Journal.Close)
		d, err := device.Open(ctx, c)
		must(t, err)
		dev := d.Library()
		_, err = dev.PreKeys.UploadedPreKeyCount(ctx)
		must(t, err)
		_, err = dev.PrivacyTokens.DeleteExpiredPrivacyTokens(ctx, time.Unix(1, 0))
		must(t, err)
		_, err = dev.LIDs.GetLIDForPN(ctx, types.JID{User: "15550001111", Server: types.DefaultUserServer})
		must(t, err)
		devices[i] = d
	}
	after := heap()
	runtime.KeepAlive(devices)
	runtime.KeepAlive(configs)
	return (after - before) / uint64(n)
}

// bare measures a device of the library over no store at all.
func bare(n int) uint64 {
	before := heap()
	devices := make([]*store.Device, n)
	for i := range devices {
		devices[i] = &store.Device{NoiseKey: keys.NewKeyPair(), IdentityKey: keys.NewKeyPair(), AdvSecretKey: make([]byte, 32)}
		devices[i].SignedPreKey = devices[i].IdentityKey.CreateSignedPreKey(1)
	}
	after := heap()
	runtime.KeepAlive(devices)
	return (after - before) / uint64(n)
}

// TestIdleHeap: an idle session costs a few KiB; 1,000 of them share a process.
func TestIdleHeap(t *testing.T) {
	each := idle(t, 200)
	t.Logf("%d bytes of heap an idle device with its journal; the library's own device alone %d", each, bare(200))
	if each > 12<<10 {
		t.Errorf("an idle device takes %d bytes of heap", each)
	}
}

// BenchmarkIdleHeap reports the heap of an idle device.
func BenchmarkIdleHeap(b *testing.B) {
	for b.Loop() {
		b.ReportMetric(float64(idle(b, 100)), "B/device")
	}
}

// BenchmarkReceive is a message of a known contact, from its ciphertext to its
// receipt, without the network and with a store in memory.
func BenchmarkReceive(b *testing.B) {
	w := newWorld(b, memory.New(time.Now))
	cl, c := newClient(w, w.paired()), newContact(b)
	cl.receive(c.jid, c.write(ours, cl.dev, "warm", "warm"))
	var inbox []envelope
	for i := 0; b.Loop(); i++ {
		if len(inbox) == 0 {
			b.StopTimer()
			for j := range 1000 {
				id := fmt.Sprint(i, "-", j)
				inbox = append(inbox, c.write(ours, cl.dev, id, id))
			}
			b.StartTimer()
		}
		if answer := cl.receive(c.jid, inbox[0]); answer != "receipt" {
			b.Fatalf("answered %q", answer)
		}
		inbox = inbox[1:]
	}
}
