package transfer

import (
	"context"
	"fmt"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"go.mau.fi/whatsmeow"
	waBinary "go.mau.fi/whatsmeow/binary"
	"go.mau.fi/whatsmeow/proto/waE2E"
	"go.mau.fi/whatsmeow/types/events"
	waLog "go.mau.fi/whatsmeow/util/log"
	"google.golang.org/protobuf/proto"

	"github.com/holdfast-wa/holdfast/infra/wasim"
	"github.com/holdfast-wa/holdfast/infra/wasim/wasimtest"
	"github.com/holdfast-wa/holdfast/state"
	"github.com/holdfast-wa/holdfast/state/device"
	"github.com/holdfast-wa/holdfast/state/journal"
	"github.com/holdfast-wa/holdfast/state/sqlite"
	"github.com/holdfast-wa/holdfast/state/vault"
)

// hooks is a logger that hands each node which leaves to BeforeSend.
type hooks struct {
	waLog.Logger
	d    *device.Device
	send bool
}

func (h hooks) Sub(module string) waLog.Logger { return hooks{waLog.Noop, h.d, module == "Send"} }

func (h hooks) Debugf(_ string, args ...any) {
	if !h.send || len(args) != 1 {
		return
	}
	if node, ok := args[0].(*waBinary.Node); ok {
		_ = h.d.BeforeSend(node.Tag)
	}
}

// client is the library's own client on a device.
func client(s *wasim.Server, d *device.Device, received *atomic.Int64) *whatsmeow.Client {
	wasimtest.Trust(s)
	cli := whatsmeow.NewClient(d.Library(), hooks{waLog.Noop, d, false})
	cli.SynchronousAck, cli.EnableDecryptedEventBuffer, cli.UseRetryMessageStore = true, true, true
	cli.EnableAutoReconnect, cli.DisableLoginAutoReconnect = false, true
	wasimtest.Point(cli, wasimtest.Transport(s.Host(), false))
	cli.AddEventHandlerWithSuccessStatus(func(evt any) bool {
		m, ok := evt.(*events.Message)
		if !ok {
			return true
		}
		if d.Stage(journal.Batch{Events: []journal.Draft{{Type: state.EventMessage, ID: m.Info.ID, Data: m.Message.GetConversation()}}}) != nil {
			d.Drop()
			return false
		}
		received.Add(1)
		return true
	})
	return cli
}

// newSQLite is a place on disk, as at home.
func newSQLite(t *testing.T, name string) *place {
	t.Helper()
	dir := t.TempDir()
	store, err := sqlite.Open(filepath.Join(dir, "holdfast.db"), sqlite.Options{})
	must(t, err)
	t.Cleanup(func() { _ = store.Close() })
	v, err := vault.OpenDir(filepath.Join(dir, "vault"))
	must(t, err)
	return newPlace(t, name, store, v)
}

// TestClientMoves has the library's own client pair at home, and go on in another
// store with another master key, and at home again: without a QR, with messages
// both ways, and without one that somebody could not read.
func TestClientMoves(t *testing.T) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	s, err := wasim.New(wasim.Options{QuietPhone: true})
	must(t, err)
	must(t, s.Start())
	defer s.Close()
	home, cloud := newSQLite(t, "home"), newSQLite(t, "cloud")
	home.create()
	ann := s.Contact("491700000002")
	var received atomic.Int64
	sent := 0
	text := func(cli *whatsmeow.Client, d *device.Device) {
		t.Helper()
		ctx, done := d.Sending(ctx)
		defer done()
		sent++
		if _, err := cli.SendMessage(ctx, ann.PN(), &waE2E.Message{Conversation: proto.String(fmt.Sprint("out ", sent))}); err != nil {
			t.Fatal(err)
		}
	}
	written := int64(0)
	write := func() {
		t.Helper()
		written++
		if _, err := ann.SendText(ctx, "491700000001", fmt.Sprint("in ", written)); err != nil {
			t.Fatal(err)
		}
	}

	j := home.own()
	d, err := home.device(j)
	must(t, err)
	cli := client(s, d, &received)
	line, err := wasimtest.Pair(ctx, s, "491700000001", cli)
	must(t, err)
	stay := func(cli *whatsmeow.Client, d *device.Device) {
		t.Helper()
		for range 5 {
			text(cli, d)
			write()
		}
		must(t, ann.WaitCount(ctx, sent))
		must(t, line.WaitDrained(ctx))
		cli.Disconnect()
		must(t, line.WaitOffline(ctx))
		d.Close()
	}
	stay(cli, d)
	home.report(j, state.Status{State: state.Online, Paired: true})
	must(t, j.Flush(ctx))
	j.Close()
	home.release()

	from, to := home, cloud
	for n := range 3 {
		write() // while nobody is connected
		k, file := newKey(t), temp(t)
		_, err := exportTo(from, file, k)
		must(t, err)
		from.refuses(device.ErrMoved)
		_, err = importFrom(to, file, k)
		must(t, err)
		j := to.own()
		d, err := to.device(j)
		must(t, err)
		if !d.Paired() {
			t.Fatal("another QR is wanted")
		}
		cli := client(s, d, &received)
		must(t, wasimtest.Connect(ctx, cli))
		stay(cli, d)
		if received.Load() != written {
			t.Errorf("move %d: %d messages written, %d received", n+1, written, received.Load())
		}
		must(t, j.Flush(ctx))
		for i, e := range to.history() {
			if e.Seq != uint64(i+1) {
				t.Fatalf("move %d: event %d has number %d", n+1, i+1, e.Seq)
			}
		}
		j.Close()
		to.release()
		from, to = to, from
	}
	if failed := ann.Undecryptable(); len(failed) > 0 {
		t.Errorf("the contact could not read %d: %+v", len(failed), failed[0])
	}
	truth := s.Truth()
	if len(truth.Anomalies) > 0 {
		t.Errorf("the server saw %v", truth.Anomalies)
	}
	for _, m := range truth.Incoming {
		if m.Retries > 0 || m.Acked == nil {
			t.Errorf("a message was not taken at once: %+v", m)
		}
	}
	if len(truth.Pairings) != 1 || len(truth.Overlaps) > 0 {
		t.Errorf("pairings %v, overlaps %v", truth.Pairings, truth.Overlaps)
	}
	ids := make(map[string]int)
	for _, p := range []*place{home, cloud} {
		for _, e := range p.events {
			if e.Type == state.EventMessage {
				ids[e.ID]++
			}
		}
	}
	if int64(len(ids)) != written {
		t.Errorf("%d events of %d messages", len(ids), written)
	}
}
