package transfer

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"filippo.io/age"

	"github.com/holdfast-wa/holdfast/state"
	"github.com/holdfast-wa/holdfast/state/device"
	"github.com/holdfast-wa/holdfast/state/journal"
	"github.com/holdfast-wa/holdfast/state/memory"
	"github.com/holdfast-wa/holdfast/state/seal"
	"github.com/holdfast-wa/holdfast/state/statetest"
	"github.com/holdfast-wa/holdfast/state/statetest/libtest"
)

const shop = "shop-1"

var partition = state.OfSession(shop)

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func wantErr(t testing.TB, err, want error) {
	t.Helper()
	if !errors.Is(err, want) {
		t.Fatalf("got %v, want %v", err, want)
	}
	if err != nil && strings.Contains(err.Error(), "\n") {
		t.Errorf("not one line: %q", err)
	}
}

// place is a store with its vault and keys: one end of a move.
type place struct {
	t      testing.TB
	name   string
	store  state.Store
	vault  state.Vault
	master seal.Master
	fleet  *seal.Keyset
	tune   func(*Config)

	mu     sync.Mutex
	events []state.Event // committed, over all owners
}

func newPlace(t testing.TB, name string, store state.Store, vault state.Vault) *place {
	t.Helper()
	p := &place{t: t, name: name, store: store, vault: vault}
	var err error
	p.master = masterOf(t, name)
	p.fleet, err = seal.NewKeyset()
	must(t, err)
	return p
}

var masters sync.Map // by the name of a place: making a key file takes long, and it does nothing here

// masterOf is the master key of all places of a name.
func masterOf(t testing.TB, name string) seal.Master {
	t.Helper()
	if m, ok := masters.Load(name); ok {
		return m.(seal.Master)
	}
	m, err := seal.CreateFile(filepath.Join(t.TempDir(), "master.key"))
	must(t, err)
	masters.Store(name, m)
	return m
}

func newMemory(t testing.TB, name string) *place {
	return newPlace(t, name, memory.New(time.Now), memory.NewVault())
}

func (p *place) config() Config {
	c := Config{Store: p.store, Vault: p.vault, Master: p.master, Fleet: p.fleet, By: "tester", Quarantine: 24 * time.Hour}
	if p.tune != nil {
		p.tune(&c)
	}
	return c
}

// own makes a worker the owner, whoever has the session, and opens its journal.
func (p *place) own() *journal.Journal {
	p.t.Helper()
	o, err := statetest.Take(context.Background(), p.store, shop, fmt.Sprintf("w-%s-%d", p.name, time.Now().UnixNano()))
	must(p.t, err)
	j, err := journal.Open(context.Background(), journal.Config{Store: p.store, Fence: o.Fence(), Fleet: p.fleet, Vault: p.vault,
		Sinks: []string{"hook"}, Retry: 200 * time.Millisecond,
		Committed: func(events []state.Event) {
			p.mu.Lock()
			defer p.mu.Unlock()
			p.events = append(p.events, events...)
		}})
	must(p.t, err)
	p.t.Cleanup(j.Close)
	return j
}

func (p *place) device(j *journal.Journal) (*device.Device, error) {
	d, err := device.Open(context.Background(), device.Config{Journal: j, Store: p.store, Vault: p.vault, Master: p.master,
		Session: shop, Quarantine: time.Hour, ReadWait: 200 * time.Millisecond})
	if d != nil {
		p.t.Cleanup(d.Close)
	}
	return d, err
}

func (p *place) open() *device.Device {
	p.t.Helper()
	d, err := p.device(p.own())
	must(p.t, err)
	return d
}

// release gives the session up.
func (p *place) release() {
	p.t.Helper()
	o, err := p.store.Owner(context.Background(), shop)
	must(p.t, err)
	if o.Incarnation != "" {
		must(p.t, p.store.Release(context.Background(), o.Fence()))
	}
}

func (p *place) get(kind state.Kind, doc any) state.Record {
	p.t.Helper()
	r, err := p.store.Get(context.Background(), partition, state.Key{Kind: kind})
	must(p.t, err)
	must(p.t, state.Decode(r.Value, doc))
	return r
}

func (p *place) meta() state.Meta {
	p.t.Helper()
	var m state.Meta
	p.get(state.KindMeta, &m)
	return m
}

func (p *place) status() state.Status {
	p.t.Helper()
	var st state.Status
	p.get(state.KindStatus, &st)
	return st
}

func (p *place) spec() state.Spec {
	p.t.Helper()
	var s state.Spec
	p.get(state.KindSpec, &s)
	return s
}

// create makes the session with settings.
func (p *place) create() {
	p.t.Helper()
	settings, err := p.fleet.Seal(seal.Place{Partition: partition, Kind: state.KindSpec}, []byte(`{"webhookUrl":"https://example.com/x"}`))
	must(p.t, err)
	w, err := specWrite(state.Spec{V: state.Format, Name: shop, Wanted: state.WantRunning, Generation: 3, Settings: settings})
	must(p.t, err)
	must(p.t, p.store.CreateSession(context.Background(), shop, []state.Write{w}))
}

// report writes the status as an owner does.
func (p *place) report(j *journal.Journal, st state.Status) {
	p.t.Helper()
	var err error
	st.Sealed, err = p.fleet.Seal(seal.Place{Partition: partition, Kind: state.KindStatus}, []byte(`{"pushName":"Shop"}`))
	must(p.t, err)
	w, err := statusWrite(st)
	must(p.t, err)
	must(p.t, j.Commit(context.Background(), journal.Batch{Writes: []state.Write{w}}))
}

// queue puts a message to send into the outbox, as the admin side does.
func (p *place) queue(id, text string) {
	p.t.Helper()
	content, err := json.Marshal(state.OutboxContent{To: "491700000002@s.whatsapp.net", Text: text})
	must(p.t, err)
	item := state.Outbox{V: state.Format, ID: id, MessageID: "M" + id, State: state.OutQueued}
	item.Sealed, err = p.fleet.Seal(seal.Place{Partition: partition, Kind: state.KindOutbox, ID: id}, content)
	must(p.t, err)
	value, err := state.Encode(item)
	must(p.t, err)
	w := state.Put(state.KindOutbox, id, value)
	w.Rev, w.If, w.Index = 1, state.Absent(), state.OutboxDue(shop)
	must(p.t, p.store.Update(context.Background(), partition, []state.Write{w}))
}

// due lists the texts that are to be sent, by id.
func (p *place) due() map[string]string {
	p.t.Helper()
	page, err := p.store.Indexed(context.Background(), state.OutboxDue(shop), nil, 100)
	must(p.t, err)
	texts := make(map[string]string)
	for _, r := range page {
		var item state.Outbox
		must(p.t, state.Decode(r.Value, &item))
		body, err := p.fleet.Open(seal.Place{Partition: partition, Kind: state.KindOutbox, ID: item.ID}, item.Sealed)
		must(p.t, err)
		var c state.OutboxContent
		must(p.t, json.Unmarshal(body, &c))
		texts[item.ID] = c.Text
	}
	return texts
}

// history reads the events that are stored.
func (p *place) history() []state.Event {
	p.t.Helper()
	var all []state.Event
	must(p.t, eachRecord(context.Background(), p.store, partition, state.KindEvent, "", func(r state.Record) error {
		e, err := journal.OpenEvent(p.fleet, partition, r)
		all = append(all, e)
		return err
	}))
	return all
}

// furnished makes a paired session that has something of everything, and leaves
// it unowned.
func (p *place) furnished() {
	p.t.Helper()
	ctx := context.Background()
	p.create()
	j := p.own()
	d, err := p.device(j)
	must(p.t, err)
	dev := d.Library()
	libtest.Pair(p.t, dev)
	dev.PushName = "Shop"
	must(p.t, dev.Save(ctx))
	for i := range 120 {
		must(p.t, dev.Sessions.PutSession(ctx, fmt.Sprintf("%d:0", i), []byte(fmt.Sprint("ratchet ", i))))
	}
	must(p.t, dev.Sessions.PutSession(ctx, "large:0", largeRatchet()))
	must(p.t, dev.Identities.PutIdentity(ctx, "1:0", [32]byte{1}))
	_, err = dev.PreKeys.GetOrGenPreKeys(ctx, 30)
	must(p.t, err)
	for i := range 3 {
		must(p.t, j.Commit(ctx, event(fmt.Sprint("event ", i+1))))
	}
	j.Delivered("hook", 1)
	p.report(j, state.Status{State: state.Online, Paired: true, Holding: true, ObservedGeneration: 3, CooldownUntil: time.Unix(5000000000, 0)})
	must(p.t, j.Flush(ctx))
	p.queue("01A", "first")
	p.queue("01B", "second")
	d.Close()
	j.Close()
	p.release()
}

func event(text string) journal.Batch {
	return journal.Batch{Events: []journal.Draft{{Type: state.EventMessage, ID: text, Data: text}}}
}

// largeRatchet does not fit into a record.
func largeRatchet() []byte { return []byte(strings.Repeat("large ", 52_000)) }

// whole sees that a place has the furnished session, opens it as the next owner
// does, and leaves it unowned. events is how many are to be there.
func (p *place) whole(events ...string) {
	p.t.Helper()
	ctx := context.Background()
	d := p.open()
	dev := d.Library()
	if !d.Paired() || dev.ID.User != libtest.JID.User || dev.PushName != "Shop" {
		p.t.Fatalf("%s: paired %v as %q", p.name, d.Paired(), dev.PushName)
	}
	for _, i := range []int{0, 57, 119} {
		if got, err := dev.Sessions.GetSession(ctx, fmt.Sprintf("%d:0", i)); err != nil || string(got) != fmt.Sprint("ratchet ", i) {
			p.t.Errorf("%s: ratchet %d reads %q, %v", p.name, i, got, err)
		}
	}
	if got, err := dev.Sessions.GetSession(ctx, "large:0"); err != nil || string(got) != string(largeRatchet()) {
		p.t.Errorf("%s: the large ratchet has %d bytes, %v", p.name, len(got), err)
	}
	if trusted, err := dev.Identities.IsTrustedIdentity(ctx, "1:0", [32]byte{2}); err != nil || trusted {
		p.t.Errorf("%s: identity %v, %v", p.name, trusted, err)
	}
	if n, err := dev.PreKeys.UploadedPreKeyCount(ctx); err != nil || n != 0 {
		p.t.Errorf("%s: %d uploaded prekeys, %v", p.name, n, err)
	}
	j := p.own()
	findings, err := device.Verify(ctx, device.Config{Journal: j, Store: p.store, Vault: p.vault, Master: p.master, Session: shop})
	must(p.t, err)
	if len(findings) > 0 {
		p.t.Errorf("%s: %v", p.name, findings)
	}
	history := p.history()
	var texts []string
	for i, e := range history {
		if e.Seq != uint64(i+1) {
			p.t.Errorf("%s: event %d has number %d", p.name, i+1, e.Seq)
		}
		texts = append(texts, string(e.Data))
	}
	if got := strings.Join(texts, " "); got != strings.Join(events, " ") {
		p.t.Errorf("%s: events %s, want %s", p.name, got, strings.Join(events, " "))
	}
	if j.Seq() != uint64(len(events)) {
		p.t.Errorf("%s: sequence number %d with %d events", p.name, j.Seq(), len(events))
	}
	j.Close()
	d.Close()
	p.release()
}

// refuses sees that nobody here opens the credentials.
func (p *place) refuses(want error) {
	p.t.Helper()
	j := p.own()
	_, err := p.device(j)
	wantErr(p.t, err, want)
	if as := (*device.StaleError)(nil); !errors.As(err, &as) {
		p.t.Errorf("%v is no *StaleError", err)
	}
	ready, err := device.Prepare(context.Background(), device.PrepareConfig{Store: p.store, Vault: p.vault, Master: p.master, Session: shop})
	must(p.t, err)
	ready.Discard()
	j.Close()
	p.release()
}

// key is a lock and what opens it.
type key struct {
	lock Lock
	key  Key
}

func newKey(t testing.TB) key {
	t.Helper()
	i, err := age.GenerateX25519Identity()
	must(t, err)
	lock, err := LockFor(i.Recipient().String())
	must(t, err)
	k, err := KeyFromIdentities(strings.NewReader("# created: now\n" + i.String() + "\n"))
	must(t, err)
	return key{lock, k}
}

func exportTo(p *place, file string, k key) (Report, error) {
	return Export(context.Background(), p.config(), ExportConfig{Session: shop, Path: file, Lock: k.lock, To: "the cloud"})
}

func importFrom(p *place, file string, k key) (Report, error) {
	return Import(context.Background(), p.config(), ImportConfig{Path: file, Key: k.key})
}

func temp(t testing.TB) string { return filepath.Join(t.TempDir(), "shop.holdfast") }

// tidy sees that a folder holds the named files alone.
func tidy(t testing.TB, file string, want ...string) {
	t.Helper()
	entries, err := os.ReadDir(filepath.Dir(file))
	must(t, err)
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
		info, err := e.Info()
		must(t, err)
		if info.Mode().Perm() != 0o600 {
			t.Errorf("%s has mode %o", e.Name(), info.Mode().Perm())
		}
	}
	if strings.Join(names, " ") != strings.Join(want, " ") {
		t.Errorf("the folder holds %v, want %v", names, want)
	}
}
