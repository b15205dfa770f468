package device_test

import (
	"context"
	"fmt"
	"sync"
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
	"github.com/holdfast-wa/holdfast/state/memory"
	"github.com/holdfast-wa/holdfast/state/statetest"
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

// realClient is the library's client on a device, with our settings and handler.
func realClient(s *wasim.Server, d *device.Device, received *atomic.Int64) *whatsmeow.Client {
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

// TestClient has the library's own client pair, talk both ways at once over a
// store that takes 5 ms a call, and come back under another owner: the contact
// can read every message, and each of its own becomes one event.
func TestClient(t *testing.T) {
	const n = 200
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	s, err := wasim.New(wasim.Options{QuietPhone: true})
	must(t, err)
	must(t, s.Start())
	defer s.Close()
	w := newWorld(t, statetest.Delay(memory.New(time.Now), 5*time.Millisecond))
	w.tune = func(c *device.Config) { c.LockWait = 30 * time.Second }
	var received atomic.Int64
	d := w.open()
	cli := realClient(s, d, &received)
	line, err := wasimtest.Pair(ctx, s, "491700000001", cli)
	must(t, err)
	ann := s.Contact("491700000002")
	text := func(cli *whatsmeow.Client, d *device.Device, text string) error {
		ctx, done := d.Sending(ctx)
		defer done()
		_, err := cli.SendMessage(ctx, ann.PN(), &waE2E.Message{Conversation: proto.String(text)})
		return err
	}
	must(t, text(cli, d, "first"))

	begun := time.Now()
	var both sync.WaitGroup
	both.Go(func() {
		for i := range n {
			if _, err := ann.SendText(ctx, "491700000001", fmt.Sprint("in", i)); err != nil {
				t.Error(err)
			}
		}
	})
	both.Go(func() {
		for i := range n {
			if err := text(cli, d, fmt.Sprint("out", i)); err != nil {
				t.Error(i, err)
			}
		}
	})
	both.Wait()
	must(t, ann.WaitCount(ctx, n+1))
	must(t, line.WaitDrained(ctx))
	t.Logf("%d messages each way in %s", n, time.Since(begun).Round(time.Millisecond))
	cli.Disconnect()
	must(t, line.WaitOffline(ctx))

	// The next owner goes on with the same ratchets.
	if _, err := ann.SendText(ctx, "491700000001", "meanwhile"); err != nil {
		t.Fatal(err)
	}
	d = w.open()
	cli = realClient(s, d, &received)
	must(t, wasimtest.Connect(ctx, cli))
	must(t, line.WaitDrained(ctx))
	must(t, text(cli, d, "last"))
	must(t, ann.WaitCount(ctx, n+2))
	cli.Disconnect()

	if failed := ann.Undecryptable(); len(failed) > 0 {
		t.Errorf("the contact could not read %d: %+v", len(failed), failed[0])
	}
	ids := make(map[string]int)
	for _, e := range w.committed() {
		if ids[e.ID]++; ids[e.ID] > 1 {
			t.Errorf("message %s became two events", e.ID)
		}
	}
	if len(ids) != n+1 {
		t.Errorf("%d events of %d messages", len(ids), n+1)
	}
	if p := w.poisoned(); len(p) > 0 {
		t.Errorf("poisoned: %v", p)
	}
	if truth := s.Truth(); len(truth.Anomalies) > 0 {
		t.Errorf("the server saw %v", truth.Anomalies)
	}
}
