package main

import (
	"context"
	"net/http"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/holdfast-wa/holdfast/infra/adminapi"
	"github.com/holdfast-wa/holdfast/infra/wasim"
	"github.com/holdfast-wa/holdfast/state"
)

// copyFolder copies a data folder as an operator does: all of it, with its modes.
func copyFolder(t *testing.T, from, to string) {
	t.Helper()
	if out, err := exec.CommandContext(t.Context(), "cp", "-a", from, to).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
}

// TestAnOldCopyOfTheDataFolder is put back where the newer one was lost. Adopted,
// nothing in it connects with old ratchets, and the session is paired anew under
// its name, with all that it had else.
func TestAnOldCopyOfTheDataFolder(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	sim := startSim(t, wasim.Options{QuietPhone: true})
	p := newProcess(t, sim)
	p.start()
	old := p.create(ctx, t, sim, "shop", "491700000001")
	ada := sim.Contact("491700000002")
	talk := func(text string) {
		t.Helper()
		if _, err := ada.SendText(ctx, "491700000001", "to "+text); err != nil {
			t.Fatal(err)
		}
		p.received(ctx, t, "to "+text)
		if status, err := p.ask(ctx, "POST", "/api/sessions/shop/messages", map[string]string{"to": "491700000002", "text": "from " + text}, nil); err != nil || status != http.StatusAccepted {
			t.Fatalf("%d %v", status, err)
		}
		if _, err := ada.WaitText(ctx, "from "+text); err != nil {
			t.Fatal(err)
		}
	}
	talk("before the backup")
	p.terminate()
	backup := filepath.Join(t.TempDir(), "backup")
	copyFolder(t, p.dir, backup)
	p.start()
	if err := old.WaitOnline(ctx); err != nil {
		t.Fatal(err)
	}
	talk("after the backup") // ratchets that the backup does not know
	if err := old.WaitDrained(ctx); err != nil {
		t.Fatal(err)
	}
	p.terminate()

	// The folder is lost, and the old one is put in its place.
	p.dir = filepath.Join(t.TempDir(), "data")
	copyFolder(t, backup, p.dir)
	for i, arg := range p.args {
		if arg == "--data-dir" {
			p.args[i+1] = p.dir
		}
	}
	r := drive(t, nil, "adopt", "--restored", "--yes", "--data-dir", p.dir)
	if r.code != exitDone || !strings.Contains(r.out, "2 sessions, 1 of them to be paired anew, 0 unreadable") {
		t.Fatalf("exit code %d, %s%s", r.code, r.out, r.err)
	}
	logins := len(sim.Truth().Sockets)
	p.start()
	// It demands a new pairing, and holdfast dev shows a QR by itself.
	demands := func(s adminapi.Session) bool { return s.State == state.Pairing && !s.Paired }
	if s, err := p.until(ctx, "shop", demands); err != nil {
		t.Fatalf("%+v, %v", s, err)
	}
	// What is gone is not brought back, by nobody.
	var done struct {
		State string `json:"state"`
		Code  string `json:"code"`
	}
	if status, err := p.ask(ctx, "POST", "/api/sessions/shop/restore?wait=20s", nil, &done); err != nil || status < 300 && done.State != "failed" {
		t.Errorf("restore: %d %+v, %v", status, done, err)
	}
	for _, s := range sim.Truth().Sockets[logins:] {
		if s.Device == old.JID().String() {
			t.Errorf("the old device has logged in again: %+v", s)
		}
	}

	// The phone still lists the old device. Whoever pairs anew removes it there.
	old.Unlink()
	var again *wasim.Device
	for again == nil {
		var qr adminapi.QR
		status, err := p.ask(ctx, "GET", "/api/sessions/shop/qr?wait=20s", nil, &qr)
		if err == nil && status == http.StatusOK {
			// A code may have been followed by the next one meanwhile.
			again, err = sim.Phone("491700000001").Scan(ctx, qr.Code)
		}
		if ctx.Err() != nil {
			t.Fatalf("it could not be paired: status %d, %v", status, err)
		}
		if again == nil {
			time.Sleep(50 * time.Millisecond)
		}
	}
	if err := again.WaitOnline(ctx); err != nil {
		t.Fatal(err)
	}
	talk("after it was paired anew")
	if err := again.WaitDrained(ctx); err != nil {
		t.Fatal(err)
	}
	truth := sim.Truth()
	if len(truth.Overlaps) > 0 || len(truth.Anomalies) > 0 || len(ada.Undecryptable()) > 0 {
		t.Errorf("overlaps %v anomalies %v undecryptable %v", truth.Overlaps, truth.Anomalies, ada.Undecryptable())
	}
}
