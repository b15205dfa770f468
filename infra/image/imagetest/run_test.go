package imagetest

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"
)

const (
	phone   = "491700000001"
	contact = "491700000002"
	key     = "key-of-the-test-0123456789abcdef"
)

// call asks for JSON. What is not answered with 2xx is false.
func call(t *testing.T, method, url string, body any, into any) bool {
	t.Helper()
	var sent io.Reader
	if body != nil {
		b, err := json.Marshal(body)
		if err != nil {
			t.Fatal(err)
		}
		sent = bytes.NewReader(b)
	}
	req, err := http.NewRequestWithContext(t.Context(), method, url, sent)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("X-Api-Key", key)
	req.Header.Set("Content-Type", "application/json")
	client := http.Client{Timeout: within}
	resp, err := client.Do(req)
	if err != nil {
		return false
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode/100 != 2 {
		return false
	}
	if into != nil {
		if err := json.Unmarshal(answer, into); err != nil {
			t.Fatalf("%s %s: %v: %s", method, url, err, answer)
		}
	}
	return true
}

// simulated is a service that runs beside the container.
type simulated struct{ URL, ControlURL, RootKey string }

func simulate(t *testing.T) simulated {
	t.Helper()
	cmd := exec.Command(program(t), "sim")
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Signal(syscall.SIGTERM)
		_ = cmd.Wait()
	})
	var s simulated
	line, err := bufio.NewReader(out).ReadBytes('\n')
	if err == nil {
		err = json.Unmarshal(line, &s)
	}
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// dataFolder is an empty one for a container, owned by whoever runs the test.
func dataFolder(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp(folder, "data-")
	if err != nil {
		t.Fatal(err)
	}
	return dir
}

// TestLifeOfASession pairs a session in one container and takes it up in another
// one, over the same volume.
func TestLifeOfASession(t *testing.T) {
	sim := simulate(t)
	digest := sha256.Sum256([]byte(key))
	// U gives the folder to the container's user, as a volume's would be.
	opts := []string{"--volume", dataFolder(t) + ":/data:U", "--memory", "256m",
		"--env", "HOLDFAST_WHATSAPP_URL=" + sim.URL, "--env", "HOLDFAST_WHATSAPP_ROOT_KEY=" + sim.RootKey,
		"--env", "HOLDFAST_API_KEYS=test:admin:" + hex.EncodeToString(digest[:]), "--env", "TZ=Asia/Tokyo"}

	dev := start(t, opts, "dev")
	healthy(t, dev)
	confined(t, dev)
	measured(t, dev)
	if log := dev.logs(); !strings.Contains(log, `+09:00"`) {
		t.Errorf("TZ=Asia/Tokyo has no effect on %s", log)
	}
	if strings.Contains(dev.logs(), "hf_") {
		t.Error("the API key that it made is in its log")
	}
	pair(t, dev, sim)
	talk(t, dev, sim)
	stopped(t, dev)

	// What is written while nothing runs waits.
	write(t, sim, "are you there?")
	worker := start(t, opts) // the image's own command: worker
	healthy(t, worker)
	until(t, "being online again", func() bool {
		var h struct{ Status string }
		return call(t, "GET", "http://"+worker.listen+"/health", nil, &h) && h.Status == "connected"
	})
	until(t, "the message that waited", func() bool { return holds(worker.events("message.received"), "are you there?") })
	if paired := worker.events("session.paired"); len(paired) > 0 {
		t.Errorf("it was paired again: %s", paired)
	}
	var devices []struct{ JID string }
	if !call(t, "GET", sim.ControlURL+"/devices", nil, &devices) || len(devices) != 1 {
		t.Errorf("the service knows of %v, wanted one device", devices)
	}
	if call(t, "GET", "http://"+worker.listen+"/api/sessions", nil, nil) {
		t.Error("a worker serves the admin API")
	}
	stopped(t, worker)
}

func holds(lines []string, text string) bool {
	for _, l := range lines {
		if strings.Contains(l, text) {
			return true
		}
	}
	return false
}

// healthy waits as a platform does, by the command of the image's health check.
func healthy(t *testing.T, c *container) {
	t.Helper()
	until(t, "being healthy", func() bool {
		if state := c.inspect("{{.State.Status}}"); state != "running" {
			t.Fatalf("the container is %s", state)
		}
		return c.exec("healthcheck").code == 0
	})
}

// confined looks at what the kernel lets the process do.
func confined(t *testing.T, c *container) {
	t.Helper()
	for what, is := range map[string][2]string{
		"user":                   {c.of("status", "Uid:"), "65532 65532 65532 65532"},
		"group":                  {c.of("status", "Gid:"), "65532 65532 65532 65532"},
		"capabilities":           {c.of("status", "CapEff:"), "0000000000000000"},
		"capabilities to gain":   {c.of("status", "CapBnd:"), "0000000000000000"},
		"may gain no privileges": {c.of("status", "NoNewPrivs:"), "1"},
		"process id":             {c.of("status", "NSpid:"), fmt.Sprint(c.pid, " 1")},
	} {
		if is[0] != is[1] {
			t.Errorf("%s: %q, wanted %q", what, is[0], is[1])
		}
	}
	// Of mountinfo's fields the fifth is where, the sixth how.
	for line := range strings.Lines(run(t, asRoot("cat", fmt.Sprintf("/proc/%d/mountinfo", c.pid))...).out) {
		if f := strings.Fields(line); len(f) > 5 && f[4] == "/" && !strings.HasPrefix(f[5], "ro,") {
			t.Errorf("the root can be written: %s", line)
		}
	}
}

// measured looks at what the process knows of its bounds.
func measured(t *testing.T, c *container) {
	t.Helper()
	var m struct{ Limit, SoftLimit, RSS int64 }
	if !call(t, "GET", "http://"+c.listen+"/health/memory", nil, &m) {
		t.Fatal("/health/memory does not answer")
	}
	if m.Limit != 256<<20 || m.SoftLimit < m.Limit/2 || m.SoftLimit >= m.Limit {
		t.Errorf("with --memory 256m: %+v", m)
	}
	t.Logf("with --memory 256m: %+v", m)
}

// pair has a simulated phone scan the code.
func pair(t *testing.T, c *container, sim simulated) {
	t.Helper()
	session := "http://" + c.listen + "/api/sessions/default"
	var qr struct{ Code string }
	until(t, "showing a code", func() bool { return call(t, "GET", session+"/qr", nil, &qr) && qr.Code != "" })
	if !call(t, "POST", sim.ControlURL+"/scan", map[string]any{"qr": qr.Code, "number": phone, "waitSeconds": 30}, nil) {
		t.Fatal("the phone could not pair")
	}
	until(t, "being online", func() bool {
		var s struct{ State string }
		return call(t, "GET", session, nil, &s) && s.State == "online"
	})
}

func write(t *testing.T, sim simulated, text string) {
	t.Helper()
	if !call(t, "POST", sim.ControlURL+"/contacts/"+contact+"/send", map[string]string{"to": phone, "text": text}, nil) {
		t.Fatal("the contact could not write")
	}
}

// talk has one message go each way.
func talk(t *testing.T, c *container, sim simulated) {
	t.Helper()
	write(t, sim, "hello from outside")
	until(t, "the message", func() bool { return holds(c.events("message.received"), "hello from outside") })
	if !call(t, "POST", "http://"+c.listen+"/api/sessions/default/messages", map[string]string{"to": contact, "text": "hello from inside"}, nil) {
		t.Fatal("the answer was not taken")
	}
	if !call(t, "GET", sim.ControlURL+"/contacts/"+contact+"/received?waitSeconds=30&text="+url.QueryEscape("hello from inside"), nil, nil) {
		t.Error("the answer did not arrive")
	}
}

// stopped ends it by SIGTERM.
func stopped(t *testing.T, c *container) {
	t.Helper()
	code, took := c.stop()
	if code != "0" || !strings.Contains(c.logs(), "worker stopped: all sessions released") {
		t.Errorf("SIGTERM: exit code %s after %v", code, took)
	}
	t.Logf("SIGTERM: ended after %v", took.Round(time.Millisecond))
}

func TestVersionInTheImage(t *testing.T) {
	r := once(t, nil, "version", "--json")
	var v struct {
		Version, Commit string
		Modified        bool
	}
	if err := json.Unmarshal([]byte(r.out), &v); err != nil || r.code != 0 {
		t.Fatalf("%v: %+v", err, r)
	}
	commit := strings.TrimSpace(run(t, "git", "-C", built(t)[0], "rev-parse", "HEAD").out)
	if v.Version != release || v.Commit != commit || v.Modified {
		t.Errorf("%+v, wanted %s at %s", v, release, commit)
	}
}

// TestTemporaryFiles: the demo makes them, and there is no place for them but the
// volume.
func TestTemporaryFiles(t *testing.T) {
	data := dataFolder(t)
	r := once(t, []string{"--volume", data + ":/data:U"}, "demo")
	if r.code != 0 || !strings.Contains(r.out, "online without a QR code") {
		t.Errorf("demo: %+v", r)
	}
	left := run(t, asRoot("ls", "-A", data)...)
	if left.out != "" {
		t.Errorf("it left %s", left.out)
	}
}

func TestWrongUse(t *testing.T) {
	foreign := dataFolder(t) // of root, or of who runs the test, but not of 65532
	if err := os.Chmod(foreign, 0o755); err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		opts, args []string
		code       int
		says       []string
	}{
		"a flag that is none":      {nil, []string{"worker", "--keepalive-intervall", "20s"}, 2, []string{"there is no flag --keepalive-intervall; did you mean --keepalive-interval?"}},
		"a variable that is none":  {[]string{"--env", "HOLDFAST_KEEPALIVE=20s"}, nil, 2, []string{"HOLDFAST_KEEPALIVE"}},
		"a value that is none":     {[]string{"--env", "HOLDFAST_LISTEN=everywhere"}, nil, 2, []string{"listen (HOLDFAST_LISTEN)", "write HOST:PORT"}},
		"a volume to read only":    {[]string{"--volume", foreign + ":/data:ro"}, nil, 1, []string{"data folder /data", "read-only"}},
		"a volume of another user": {[]string{"--volume", foreign + ":/data"}, nil, 1, []string{"data folder /data", "give the folder to user 65532 (chown)"}},
		"a folder without volume":  {[]string{"--env", "HOLDFAST_DATA_DIR=/elsewhere"}, nil, 1, []string{"data folder /elsewhere: cannot be made", "read-only"}},
	} {
		t.Run(name, func(t *testing.T) {
			r := once(t, append([]string{"--env", "HOLDFAST_LISTEN=127.0.0.1:0"}, c.opts...), c.args...)
			lines := strings.Count(r.err, "\n")
			if r.code != c.code || lines != 1 || r.out != "" || !strings.HasPrefix(r.err, "holdfast: ") {
				t.Errorf("exit code %d, %d lines: %s%s", r.code, lines, r.err, r.out)
			}
			for _, part := range c.says {
				if !strings.Contains(r.err, part) {
					t.Errorf("%q does not say %q", r.err, part)
				}
			}
		})
	}
}
