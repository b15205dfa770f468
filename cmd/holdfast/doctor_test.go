package main

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// endpointAt serves a page as WhatsApp's endpoint does, with its clock off by
// so much.
func endpointAt(t *testing.T, skew time.Duration) string {
	t.Helper()
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Date", time.Now().Add(skew).UTC().Format(http.TimeFormat))
	}))
	t.Cleanup(s.Close)
	return "ws" + strings.TrimPrefix(s.URL, "http") + "/ws/chat"
}

// diagnose runs doctor and returns its findings by check.
func diagnose(t *testing.T, environ []string, args ...string) (int, map[string]Finding) {
	t.Helper()
	r := drive(t, environ, append([]string{"doctor", "--json", "--listen", "127.0.0.1:0"}, args...)...)
	var answer struct {
		OK       bool
		Findings []Finding
		Settings []Described
	}
	if err := json.Unmarshal([]byte(r.out), &answer); err != nil {
		t.Fatalf("%v in %s%s", err, r.out, r.err)
	}
	found := map[string]Finding{}
	for _, f := range answer.Findings {
		found[f.Check] = f
		if f.Level == levelFail && f.Do == "" {
			t.Errorf("%s fails without a word on what to do: %s", f.Check, f.Found)
		}
	}
	if answer.OK != (r.code == exitDone) {
		t.Errorf("ok is %v and the exit code %d", answer.OK, r.code)
	}
	return r.code, found
}

func TestDoctorOnAFolderThatIsNotThereYet(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "data")
	code, found := diagnose(t, []string{"HOLDFAST_DATA_DIR=" + dir, "HOLDFAST_WHATSAPP_URL=" + endpointAt(t, 0)})
	if code != exitDone {
		t.Errorf("exit code %d: %v", code, found)
	}
	for _, check := range []string{"settings", "data folder", "master key", "api key", "state", "vault", "listen", "dns", "reach", "clock"} {
		if found[check].Level != levelOK {
			t.Errorf("%s: %+v", check, found[check])
		}
	}
	if _, err := os.Stat(dir); !os.IsNotExist(err) {
		t.Errorf("doctor has made the folder: %v", err)
	}
}

func TestDoctorOnASoundFolder(t *testing.T) {
	dir := t.TempDir()
	environ := []string{"HOLDFAST_DATA_DIR=" + dir, "HOLDFAST_WHATSAPP_URL=" + endpointAt(t, 0)}
	makeDatabase(t, filepath.Join(dir, "holdfast.db"))
	cfg := inFolder(t, dir)
	cfg.State.Path = filepath.Join(dir, "none.db") // the key is older than the database
	if _, _, err := masterKey(t.Context(), cfg, func() (string, error) { return "", nil }); err != nil {
		t.Fatal(err)
	}
	if _, _, err := apiKey(dir); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(filepath.Join(dir, "vault"), 0o700); err != nil {
		t.Fatal(err)
	}
	code, found := diagnose(t, environ)
	if code != exitDone || !strings.Contains(found["state"].Found, "is sound") || !strings.Contains(found["master key"].Found, "for this user alone") {
		t.Errorf("exit code %d: %+v", code, found)
	}
}

func makeDatabase(t *testing.T, path string) {
	t.Helper()
	db, err := sql.Open("sqlite", "file:"+path+"?_pragma=journal_mode(wal)")
	if err != nil {
		t.Fatal(err)
	}
	for _, q := range []string{"CREATE TABLE t (a PRIMARY KEY, b)", "INSERT INTO t WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i+1 FROM n WHERE i<500) SELECT i, hex(randomblob(100)) FROM n"} {
		if _, err := db.Exec(q); err != nil {
			t.Fatal(err)
		}
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
}

func TestDoctorOnABrokenFolder(t *testing.T) {
	dir := t.TempDir()
	database := filepath.Join(dir, "holdfast.db")
	makeDatabase(t, database)
	f, err := os.OpenFile(database, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.WriteAt([]byte(strings.Repeat("garbage!", 1024)), 8192); err != nil {
		t.Fatal(err)
	}
	f.Close()
	for name, text := range map[string]string{apiKeyFile: "hf_key", "vault": "not a folder"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	environ := []string{"HOLDFAST_DATA_DIR=" + dir, "HOLDFAST_WHATSAPP_URL=" + endpointAt(t, -time.Hour)}
	code, found := diagnose(t, environ)
	if code != exitFailed {
		t.Errorf("exit code %d", code)
	}
	for check, want := range map[string]string{
		"state":      "holdfast.db:",
		"vault":      "cannot be written",
		"api key":    "others may read it",
		"master key": "is missing, but",
		"clock":      "is off by 1h0m",
	} {
		if f := found[check]; f.Level != levelFail || !strings.Contains(f.Found, want) {
			t.Errorf("%s: %+v, want fail with %q", check, f, want)
		}
	}
	r := drive(t, environ, "doctor", "--listen", "127.0.0.1:0")
	if r.code != exitFailed || r.err != "" || !strings.Contains(r.out, "fail  state") || !strings.Contains(r.out, "HOLDFAST_DATA_DIR") {
		t.Errorf("exit code %d, %s\n%s", r.code, r.err, r.out)
	}
}

func TestDoctorOnAKeyThatOthersCanRead(t *testing.T) {
	dir := t.TempDir()
	cfg := inFolder(t, dir)
	if _, _, err := masterKey(t.Context(), cfg, func() (string, error) { return "", nil }); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(cfg.MasterKey.Path, 0o640); err != nil {
		t.Fatal(err)
	}
	_, found := diagnose(t, []string{"HOLDFAST_DATA_DIR=" + dir, "HOLDFAST_WHATSAPP_URL=" + endpointAt(t, 0)})
	if f := found["master key"]; f.Level != levelFail || !strings.Contains(f.Found, "0640") {
		t.Errorf("master key: %+v", f)
	}
}

func TestDoctorOnWrongSettings(t *testing.T) {
	code, found := diagnose(t, []string{"HOLDFAST_TRUSTT=1s", "HOLDFAST_HEARTBEAT=1h"})
	if code != exitFailed || found["settings"].Level != levelFail {
		t.Errorf("exit code %d: %+v", code, found)
	}
}

type noNames struct{}

func (noNames) LookupHost(context.Context, string) ([]string, error) {
	return nil, &net.DNSError{Err: "no such host", Name: "web.whatsapp.com"}
}

func TestDoctorWithoutNetwork(t *testing.T) {
	d := &doctor{cfg: Config{}, now: time.Now, resolver: noNames{}, client: &http.Client{}}
	d.network(t.Context())
	if len(d.findings) != 1 || d.findings[0].Level != levelFail || !strings.Contains(d.findings[0].Found, "web.whatsapp.com is not resolved: no such host") {
		t.Errorf("no DNS: %+v", d.findings)
	}
	// A proxy that is dead: DNS is its job, and there is no way around it.
	dead := deadAddress(t)
	cfg, err := configOf(t, []string{"HOLDFAST_PROXY=http://user:hidden@" + dead, "HOLDFAST_WHATSAPP_URL=" + endpointAt(t, 0)})
	if err != nil {
		t.Fatal(err)
	}
	d = &doctor{cfg: cfg, now: time.Now, resolver: noNames{}, client: probeClient(cfg)}
	d.network(t.Context())
	last := d.findings[len(d.findings)-1]
	if last.Check != "reach" || last.Level != levelFail || !strings.Contains(last.Do, "check the proxy") || strings.Contains(last.Found, "hidden") {
		t.Errorf("a dead proxy: %+v", d.findings)
	}
}

// deadAddress is an address that nobody listens at.
func deadAddress(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

func TestTheListenerThatIsTaken(t *testing.T) {
	stranger := httptest.NewServer(http.NotFoundHandler())
	defer stranger.Close()
	own := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/health/live" {
			w.WriteHeader(http.StatusNotFound)
		}
	}))
	defer own.Close()
	for _, c := range []struct {
		server *httptest.Server
		level  string
		code   int
		says   string
	}{{stranger, levelFail, exitFailed, "answers 404"}, {own, levelOK, exitDone, ""}} {
		address := c.server.Listener.Addr().String()
		d := &doctor{cfg: Config{Listen: address}, alive: (&app{http: newHTTPClient()}).alive}
		d.listener(t.Context())
		if d.findings[0].Level != c.level {
			t.Errorf("doctor: %+v, want %s", d.findings[0], c.level)
		}
		r := drive(t, []string{"HOLDFAST_LISTEN=" + address}, "healthcheck")
		if r.code != c.code || !strings.Contains(r.err, c.says) {
			t.Errorf("healthcheck: exit code %d, %s", r.code, r.err)
		}
	}
	r := drive(t, nil, "healthcheck", "--listen", deadAddress(t))
	if r.code != exitFailed || !strings.Contains(r.err, "does not answer: ") || strings.Count(r.err, "\n") != 1 {
		t.Errorf("nobody listens: exit code %d, %s", r.code, r.err)
	}
}

func TestAListenerIsReachedFromItsOwnMachine(t *testing.T) {
	for listen, want := range map[string]string{
		"0.0.0.0:80": "127.0.0.1:80", ":80": "127.0.0.1:80", "[::]:80": "[::1]:80", "10.0.0.1:80": "10.0.0.1:80", "host:80": "host:80",
	} {
		if got := dialable(listen); got != want {
			t.Errorf("%s is dialled as %s, want %s", listen, got, want)
		}
	}
}

func TestTheCauseIsToldOnce(t *testing.T) {
	_, err := net.Dial("tcp", deadAddress(t))
	if got := cause(err).Error(); got != "connect: connection refused" {
		t.Errorf("got %q", got)
	}
	if got := cause(errors.New("plain")).Error(); got != "plain" {
		t.Errorf("got %q", got)
	}
}
