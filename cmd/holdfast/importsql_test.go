package main

import (
	"context"
	"path/filepath"
	"testing"
	"time"

	"go.mau.fi/whatsmeow/store/sqlstore"
	"go.mau.fi/whatsmeow/types/events"
	_ "modernc.org/sqlite" // what the other program keeps its devices in

	"github.com/holdfast-wa/holdfast/infra/adminapi"
	"github.com/holdfast-wa/holdfast/infra/wasim"
	"github.com/holdfast-wa/holdfast/infra/wasim/wasimtest"
	"github.com/holdfast-wa/holdfast/state"
)

// TestImportSQLStore takes a device over from a program that is built on the
// library alone: no new QR, and the ratchets go on.
func TestImportSQLStore(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	sim := startSim(t, wasim.Options{QuietPhone: true})
	file := filepath.Join(t.TempDir(), "other.db")
	container, err := sqlstore.New(ctx, "sqlite", "file:"+file+"?_pragma=foreign_keys(1)&_pragma=busy_timeout(5000)&_txlock=immediate", nil)
	if err != nil {
		t.Fatal(err)
	}
	wasimtest.Trust(sim)
	cli := wasimtest.Client(sim, container.NewDevice())
	got := make(chan string, 10)
	cli.AddEventHandler(func(e any) {
		if m, ok := e.(*events.Message); ok {
			got <- m.Message.GetConversation()
		}
	})
	dev, err := wasimtest.Pair(ctx, sim, "491700000001", cli)
	if err != nil {
		t.Fatal(err)
	}
	if err := dev.WaitOnline(ctx); err != nil {
		t.Fatal(err)
	}
	ada := sim.Contact("491700000002")
	if _, err := ada.SendText(ctx, "491700000001", "to the other program"); err != nil {
		t.Fatal(err)
	}
	if text := <-got; text != "to the other program" {
		t.Fatalf("got %q", text)
	}
	if err := dev.WaitDrained(ctx); err != nil {
		t.Fatal(err)
	}
	cli.Disconnect()
	if err := dev.WaitOffline(ctx); err != nil {
		t.Fatal(err)
	}
	if err := container.Close(); err != nil {
		t.Fatal(err)
	}

	p := newProcess(t, sim)
	cfg, err := newConfig(layers{"data-dir": {p.dir, "test"}}, nil)
	if err != nil {
		t.Fatal(err)
	}
	done, err := importSQLStore(ctx, cfg, file, "shop", "")
	if err != nil || len(done) != 1 || done[0].Session != "shop" {
		t.Fatalf("%v %v", done, err)
	}
	if _, err := importSQLStore(ctx, cfg, file, "shop", ""); err == nil {
		t.Error("a second import into the same session was not refused")
	}
	p.start()
	if err := dev.WaitOnline(ctx); err != nil {
		t.Fatal(err)
	}
	if _, err := p.until(ctx, "shop", func(s adminapi.Session) bool { return s.State == state.Online && s.Paired }); err != nil {
		t.Fatal(err)
	}
	if _, err := ada.SendText(ctx, "491700000001", "to holdfast"); err != nil {
		t.Fatal(err)
	}
	if err := dev.WaitDrained(ctx); err != nil {
		t.Fatal(err)
	}
	if status, err := p.ask(ctx, "POST", "/api/sessions/shop/messages", map[string]string{"to": "491700000002", "text": "from holdfast"}, nil); err != nil || status != 202 {
		t.Fatalf("%d %v", status, err)
	}
	if _, err := ada.WaitText(ctx, "from holdfast"); err != nil {
		t.Fatal(err)
	}
	truth := sim.Truth()
	if len(truth.Pairings) != 1 || len(truth.Overlaps) != 0 || len(truth.Anomalies) != 0 || len(ada.Undecryptable()) != 0 {
		t.Errorf("pairings %v overlaps %v anomalies %v undecryptable %v", truth.Pairings, truth.Overlaps, truth.Anomalies, ada.Undecryptable())
	}
	for _, m := range truth.Incoming {
		if m.Acked == nil || m.Retries > 0 {
			t.Errorf("a message was not taken at once: %+v", m)
		}
	}
}

func TestImportSQLStoreRefuses(t *testing.T) {
	cfg, err := newConfig(layers{"data-dir": {t.TempDir(), "test"}}, nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range []string{filepath.Join(t.TempDir(), "nowhere.db"), "importsql_test.go"} {
		if _, err := importSQLStore(t.Context(), cfg, file, "", ""); err == nil {
			t.Errorf("%s was taken for a database", file)
		} else {
			t.Log(err)
		}
	}
}
