package main

import (
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"filippo.io/age"

	"github.com/holdfast-wa/holdfast/infra/adminapi"
	"github.com/holdfast-wa/holdfast/infra/wasim"
	"github.com/holdfast-wa/holdfast/state"
	"github.com/holdfast-wa/holdfast/state/transfer"
)

func secret(t *testing.T, text string) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

// TestExportImport moves a session from one running worker to another, on stores
// with master keys of their own, and back: without a QR, with messages both ways,
// and nobody at WhatsApp ever sees it twice.
func TestExportImport(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	sim := startSim(t, wasim.Options{QuietPhone: true})
	home, cloud := newProcess(t, sim), newProcess(t, sim)
	home.start()
	cloud.start()
	dev := home.create(ctx, t, sim, "shop", "491700000001")
	ada := sim.Contact("491700000002")
	identity, err := age.GenerateX25519Identity()
	if err != nil {
		t.Fatal(err)
	}
	opens := secret(t, identity.String()+"\n")
	talk := func(p *process, text string) {
		t.Helper()
		if _, err := p.until(ctx, "shop", func(s adminapi.Session) bool { return s.State == state.Online && s.Paired }); err != nil {
			t.Fatal(err)
		}
		if _, err := ada.SendText(ctx, "491700000001", "to "+text); err != nil {
			t.Fatal(err)
		}
		p.received(ctx, t, "to "+text)
		if status, err := p.ask(ctx, "POST", "/api/sessions/shop/messages", map[string]string{"to": "491700000002", "text": "from " + text}, nil); err != nil || status != 202 {
			t.Fatalf("%d %v", status, err)
		}
		if _, err := ada.WaitText(ctx, "from "+text); err != nil {
			t.Fatal(err)
		}
	}
	talk(home, "home")
	from, to := home, cloud
	for _, text := range []string{"the cloud", "home again"} {
		file := filepath.Join(t.TempDir(), "shop.holdfast")
		r := drive(t, nil, "export", "shop", "--data-dir", from.dir, "--out", file, "--recipient", identity.Recipient().String(), "--json")
		var out transfer.Report
		if err := json.Unmarshal([]byte(r.out), &out); r.code != exitDone || err != nil || out.Session != "shop" || out.Objects == 0 {
			t.Fatalf("exit code %d, %s%s", r.code, r.out, r.err)
		}
		if err := dev.WaitOffline(ctx); err != nil {
			t.Fatal(err)
		}
		parked := func(s adminapi.Session) bool {
			return s.Cause == state.CauseMoved && s.State == state.Stopped && s.Owner != "" && !s.Paired
		}
		if s, err := from.until(ctx, "shop", parked); err != nil {
			t.Fatalf("%+v, %v", s, err)
		}
		// The source refuses to connect.
		if status, err := from.ask(ctx, "POST", "/api/sessions/shop/start?wait=5s", nil, nil); err != nil || status != 202 {
			t.Fatalf("%d %v", status, err)
		}
		if s, err := from.until(ctx, "shop", parked); err != nil {
			t.Fatalf("after a start: %+v, %v", s, err)
		}
		if r = drive(t, nil, "import", file, "--data-dir", to.dir, "--identity-file", opens); r.code != exitDone || !strings.Contains(r.out, "shop: imported") {
			t.Fatalf("exit code %d, %s%s", r.code, r.out, r.err)
		}
		if err := dev.WaitOnline(ctx); err != nil {
			t.Fatal(err)
		}
		talk(to, text)
		from, to = to, from
	}
	if err := dev.WaitDrained(ctx); err != nil {
		t.Fatal(err)
	}
	// Where it was moved away from, another device can be paired under its name.
	if status, err := to.ask(ctx, "POST", "/api/sessions/shop/repair", nil, nil); err != nil || status != 202 {
		t.Fatalf("%d %v", status, err)
	}
	if _, err := to.until(ctx, "shop", func(s adminapi.Session) bool { return s.State == state.Pairing }); err != nil {
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

// TestExportWrongUse: each mistake is one line that says what to do.
func TestExportWrongUse(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	cfg, err := newConfig(layers{"data-dir": {dir, "test"}}, nil)
	if err != nil {
		t.Fatal(err)
	}
	pairedStore(t, cfg, "shop")
	o, err := openTool(t.Context(), cfg, shared)
	if err != nil {
		t.Fatal(err)
	}
	if err := o.store.DeclareStopped(t.Context(), "w-keys"); err != nil { // or it is waited for
		t.Fatal(err)
	}
	o.close()
	good := secret(t, "correct horse battery staple\n")
	open := secret(t, "correct horse battery staple\n")
	if err := os.Chmod(open, 0o644); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "shop.holdfast")
	if r := drive(t, nil, "export", "shop", "--data-dir", dir, "--out", file, "--passphrase-file", good); r.code != exitDone || r.err != "" {
		t.Fatalf("exit code %d, %s", r.code, r.err)
	}
	for _, tt := range []struct {
		args string
		code int
		want string
	}{
		{"export", exitUsage, "export: SESSION is missing"},
		{"export shop", exitUsage, "export: --out: is missing"},
		{"export shop --out x", exitUsage, "export: what to seal the file with is missing"},
		{"export shop --out x --passphrase-file a --recipient b", exitUsage, "export: --passphrase-file and --recipient: give one"},
		{"export shop --take-back --out x", exitUsage, "export: --take-back: writes no file"},
		{"export shop --out x --passphrase-file /nowhere", exitFailed, "export: passphrase file /nowhere: is not there"},
		{"export shop --out x --passphrase-file " + open, exitFailed, "export: passphrase file " + open + ": others may read it"},
		{"export shop --out x --passphrase-file " + secret(t, "short"), exitFailed, "export: passphrase: has 5 characters"},
		{"export shop --out x --passphrase-file " + secret(t, "\n"), exitFailed, "export: passphrase file"},
		{"export shop --out x --recipient nobody", exitFailed, "export: recipient \"nobody\": is none"},
		{"export shop --out x --recipient age1x", exitFailed, "export: recipient \"age1x\": is none"},
		{"export other --out x --passphrase-file " + good, exitFailed, "export: session other: not found"},
		{"export shop --out x --passphrase-file " + good, exitFailed, "export: session shop: the session was exported already at"},
		{"import", exitUsage, "import: FILE is missing"},
		{"import x", exitUsage, "import: what opens the file is missing"},
		{"import x --as other --passphrase-file y", exitUsage, "import: --as: a session keeps its name"},
		{"import x --identity-file y --passphrase-file y", exitUsage, "import: --passphrase-file and --identity-file: give the one"},
		{"import /nowhere/x --passphrase-file " + good, exitFailed, "import: file /nowhere/x: cannot be read"},
		{"import " + good + " --passphrase-file " + good, exitFailed, "import: file " + good + ": is no file of `holdfast export`"},
		{"import " + file + " --identity-file " + good, exitFailed, "import: identity file: is none of `age-keygen`"},
		{"import " + file + " --passphrase-file " + secret(t, "incorrect horse"), exitFailed, "import: file " + file + ": does not open; give the passphrase"},
		{"import " + file + " --passphrase-file " + good, exitFailed, "import: session shop: this file was exported from here"},
	} {
		t.Run(tt.want, func(t *testing.T) {
			args := strings.Fields(tt.args)
			r := drive(t, nil, append(args, "--data-dir", dir)...)
			if r.code != tt.code || !strings.HasPrefix(r.err, "holdfast: "+tt.want) || strings.Count(r.err, "\n") != 1 || r.out != "" {
				t.Errorf("exit code %d, out %q, err %q", r.code, r.out, r.err)
			}
		})
	}
	if r := drive(t, nil, "export", "shop", "--data-dir", filepath.Join(dir, "none"), "--out", "x", "--passphrase-file", good); r.code != exitFailed || !strings.Contains(r.err, "is not there or is empty") {
		t.Errorf("exit code %d, %s", r.code, r.err)
	}
	if r := drive(t, nil, "export", "shop", "--data-dir", dir, "--take-back"); r.code != exitDone || !strings.Contains(r.out, "taken back") {
		t.Errorf("exit code %d, %s%s", r.code, r.out, r.err)
	}
	if r := drive(t, nil, "export", "shop", "--data-dir", dir, "--take-back"); r.code != exitFailed || !strings.Contains(r.err, "was not exported from this store") {
		t.Errorf("exit code %d, %s%s", r.code, r.out, r.err)
	}
}
