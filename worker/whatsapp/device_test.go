package whatsapp

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"go.mau.fi/whatsmeow/store"

	"github.com/holdfast-wa/holdfast/infra/wasim"
	"github.com/holdfast-wa/holdfast/state"
	"github.com/holdfast-wa/holdfast/state/device"
	"github.com/holdfast-wa/holdfast/state/journal"
	"github.com/holdfast-wa/holdfast/state/memory"
	"github.com/holdfast-wa/holdfast/state/seal"
	"github.com/holdfast-wa/holdfast/state/statetest"
	"github.com/holdfast-wa/holdfast/worker/policy"
)

var _ Store = (*device.Device)(nil)

// TestMain lets more tests run beside each other than there are processors:
// they wait for each other's servers more than they compute.
func TestMain(m *testing.M) {
	flag.Parse()
	_ = flag.Set("test.parallel", "12")
	os.Exit(m.Run())
}

// owned is a session as its owner has it: journal and device over a store.
type owned struct {
	t      *testing.T
	store  *memory.Store
	vault  *memory.Vault
	master seal.Master
	fleet  *seal.Keyset
	owner  state.Owner

	mu   sync.Mutex
	told []state.Event
	line *Line
}

func newOwned(t *testing.T) *owned {
	t.Helper()
	o := &owned{t: t, store: memory.New(time.Now), vault: memory.NewVault()}
	var err error
	if o.master, err = seal.CreateFile(filepath.Join(t.TempDir(), "master.key")); err != nil {
		t.Fatal(err)
	}
	if o.fleet, err = seal.NewKeyset(); err != nil {
		t.Fatal(err)
	}
	if err := o.store.CreateSession(t.Context(), "shop", nil); err != nil {
		t.Fatal(err)
	}
	if o.owner, err = o.store.Owner(t.Context(), "shop"); err != nil {
		t.Fatal(err)
	}
	return o
}

// open claims the session anew, as a process that starts does.
func (o *owned) open() *device.Device {
	o.t.Helper()
	var err error
	if o.owner, err = statetest.Take(o.t.Context(), o.store, "shop", fmt.Sprintf("w-%d", o.owner.Epoch+1)); err != nil {
		o.t.Fatal(err)
	}
	j, err := journal.Open(o.t.Context(), journal.Config{Store: o.store, Fence: o.owner.Fence(), Fleet: o.fleet,
		Committed: func(events []state.Event) {
			o.mu.Lock()
			defer o.mu.Unlock()
			o.told = append(o.told, events...)
		}})
	if err != nil {
		o.t.Fatal(err)
	}
	d, err := device.Open(o.t.Context(), device.Config{Journal: j, Store: o.store, Vault: o.vault, Master: o.master, Session: "shop",
		Poison: func(err error) {
			o.t.Errorf("poisoned: %v", err)
			o.mu.Lock()
			defer o.mu.Unlock()
			if o.line != nil {
				o.line.Cut()
			}
		}})
	if err != nil {
		o.t.Fatal(err)
	}
	o.t.Cleanup(func() { d.Close(); j.Close() })
	return d
}

// texts are those of the messages that were committed, in order.
func (o *owned) texts() []string {
	o.mu.Lock()
	defer o.mu.Unlock()
	var out []string
	for _, e := range o.told {
		if e.Type != state.EventMessage {
			continue
		}
		var d MessageData
		if err := json.Unmarshal(e.Data, &d); err != nil {
			o.t.Error(err)
		}
		out = append(out, d.Text)
	}
	return out
}

// The whole path with the real device state: pair, log in, receive, send, and
// resume as another owner without a QR.
func TestWithTheRealDevice(t *testing.T) {
	w := newWorld(t, false)
	o := newOwned(t)
	connect := func(d *device.Device) (*Line, *mailbox) {
		l, m := w.line(func(c *Config) { c.Device = d })
		o.mu.Lock()
		o.line = l
		o.mu.Unlock()
		if err := l.Connect(w.ctx); err != nil {
			t.Fatal(err)
		}
		return l, m
	}
	d := o.open()
	l, m := connect(d)
	dev, err := w.sim.Phone(account).Scan(w.ctx, await[QRCodes](w.ctx, t, m, nil).Codes[0])
	if err != nil {
		t.Fatal(err)
	}
	if got := policy.Classify(w.ends(m), true); got != state.CauseRestartRequired || !d.Paired() {
		t.Fatalf("cause %s, paired %v", got, d.Paired())
	}
	letGo(t, l)

	l, m = connect(d)
	await[Connected](w.ctx, t, m, nil)
	ada := w.sim.Contact("491700000002")
	want := []string{"one", "two", "three"}
	for _, s := range want {
		if _, err := ada.SendText(w.ctx, account, s); err != nil {
			t.Fatal(err)
		}
	}
	if err := dev.WaitDrained(w.ctx); err != nil {
		t.Fatal(err)
	}
	if got := o.texts(); !slices.Equal(got, want) {
		t.Errorf("committed %v", got)
	}
	if _, err := l.SendText(w.ctx, NewMessageID(), "491700000002", "back"); err != nil {
		t.Fatal(err)
	}
	if _, err := ada.WaitText(w.ctx, "back"); err != nil {
		t.Fatal(err)
	}
	await(w.ctx, t, m, func(r Receipt) bool { return r.Status == "delivered" })
	letGo(t, l)
	if err := dev.WaitOffline(w.ctx); err != nil {
		t.Fatal(err)
	}

	if _, err := ada.SendText(w.ctx, account, "while away"); err != nil {
		t.Fatal(err)
	}
	_, m = connect(o.open())
	await[Connected](w.ctx, t, m, nil)
	if err := dev.WaitDrained(w.ctx); err != nil {
		t.Fatal(err)
	}
	if got := o.texts(); !slices.Equal(got, append(want, "while away")) {
		t.Errorf("committed %v", got)
	}
	await[OfflineDone](w.ctx, t, m, nil)
	truth := w.sim.Truth()
	if len(truth.Anomalies) != 0 || len(truth.Overlaps) != 0 || len(ada.Undecryptable()) != 0 {
		t.Errorf("anomalies %+v, overlaps %+v, undecryptable %+v", truth.Anomalies, truth.Overlaps, ada.Undecryptable())
	}
}

// holding is a device that holds back a stanza of ours, and tells when the library
// has deleted it.
type holding struct {
	*device.Device
	which               func(tag string) bool
	held, free, deleted chan struct{}
	once                sync.Once
}

func hold(d *device.Device, which func(tag string) bool) *holding {
	return &holding{Device: d, which: which, held: make(chan struct{}), free: make(chan struct{}), deleted: make(chan struct{})}
}

func (h *holding) BeforeSend(tag string) error {
	if h.which(tag) {
		h.once.Do(func() { close(h.held) })
		<-h.free
	}
	return h.Device.BeforeSend(tag)
}

func (h *holding) Library() *store.Device {
	view := h.Device.Library()
	view.Container = container{view.Container, sync.OnceFunc(func() { close(h.deleted) })}
	return view
}

type container struct {
	store.DeviceContainer
	told func()
}

func (c container) DeleteDevice(ctx context.Context, dev *store.Device) error {
	defer c.told()
	return c.DeviceContainer.DeleteDevice(ctx, dev)
}

// TestCutBeforeThePairingIsConfirmed: the library deletes the device when it cannot
// send the confirmation, and is not sure of it when it says so. The credentials
// stay, and the next connection asks the server with them.
func TestCutBeforeThePairingIsConfirmed(t *testing.T) {
	w := newWorld(t, false)
	d := newOwned(t).open()
	h := hold(d, func(string) bool { return d.Paired() })
	l, m := w.line(func(c *Config) { c.Device = h })
	if err := l.Connect(w.ctx); err != nil {
		t.Fatal(err)
	}
	scanned := make(chan error, 1)
	code := await[QRCodes](w.ctx, t, m, nil).Codes[0]
	go func() {
		_, err := w.sim.Phone(account).Scan(w.ctx, code)
		scanned <- err
	}()
	<-h.held
	l.Cut()
	close(h.free)
	letGo(t, l)
	if err := <-scanned; err == nil {
		t.Error("the phone shows a device whose confirmation was not sent")
	}
	<-h.deleted
	if !d.Paired() {
		t.Fatal("the credentials are gone")
	}
	next, m := w.line(func(c *Config) { c.Device = d })
	if err := next.Connect(w.ctx); err != nil {
		t.Fatal(err)
	}
	if got := policy.Classify(w.ends(m), true); got != state.CauseLoggedOut {
		t.Errorf("the server was asked, and the answer was %s", got)
	}
}

// TestUnlinkedInTheMiddleOfSomething: the library deletes the device while a stanza
// is on its way out. That is no failure of the store, and what ended the connection
// is what the server said.
func TestUnlinkedInTheMiddleOfSomething(t *testing.T) {
	w := newWorld(t, false)
	d := newOwned(t).open()
	l, m := w.line(func(c *Config) { c.Device = d })
	if err := l.Connect(w.ctx); err != nil {
		t.Fatal(err)
	}
	if _, err := w.sim.Phone(account).Scan(w.ctx, await[QRCodes](w.ctx, t, m, nil).Codes[0]); err != nil {
		t.Fatal(err)
	}
	w.ends(m)
	letGo(t, l)

	h := hold(d, func(tag string) bool { return tag == "message" })
	l, m = w.line(func(c *Config) { c.Device = h })
	if err := l.Connect(w.ctx); err != nil {
		t.Fatal(err)
	}
	await[Connected](w.ctx, t, m, nil)
	sent := make(chan error, 1)
	go func() {
		_, err := l.SendText(w.ctx, NewMessageID(), "491700000002", "hello")
		sent <- err
	}()
	<-h.held
	if _, err := w.sim.Inject(wasim.Fault{Kind: wasim.DeviceRemoved, Now: true}); err != nil {
		t.Fatal(err)
	}
	<-h.deleted
	close(h.free)
	if got := policy.Classify(w.ends(m), true); got != state.CauseLoggedOut {
		t.Errorf("the connection ended with %s", got)
	}
	if err := <-sent; err != nil { // whether it got through is the server's matter
		t.Logf("the message: %v", err)
	}
	if !d.Paired() || d.Err() != nil {
		t.Errorf("paired %v, failed %v: the owner was not asked", d.Paired(), d.Err())
	}
}

// A ciphertext that does not open is told of once, and the message comes after
// all by the library's retry.
func TestUndecryptableIsHealed(t *testing.T) {
	w := newWorld(t, true)
	l, m := w.online()
	if _, err := w.sim.Inject(wasim.Fault{Kind: wasim.CorruptMessage}); err != nil {
		t.Fatal(err)
	}
	if _, err := w.sim.Contact("491700000002").SendText(w.ctx, account, "hello"); err != nil {
		t.Fatal(err)
	}
	await[Undecryptable](w.ctx, t, m, nil)
	if err := w.dev.WaitDrained(w.ctx); err != nil {
		t.Fatal(err)
	}
	for !slices.ContainsFunc(w.store.drafts(), func(d journal.Draft) bool { return d.Type == state.EventMessage }) {
		if w.ctx.Err() != nil {
			t.Fatalf("the message did not come: %v", w.store.seen())
		}
		time.Sleep(10 * time.Millisecond)
	}
	if !l.Open() || len(m.terminal()) != 0 {
		t.Errorf("the line has ended: %+v", m.terminal())
	}
}
