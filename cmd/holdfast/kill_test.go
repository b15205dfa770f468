package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/holdfast-wa/holdfast/infra/adminapi"
	"github.com/holdfast-wa/holdfast/infra/wasim"
	"github.com/holdfast-wa/holdfast/state"
)

// childVariable makes the test binary be the program itself: what is killed is
// a whole process.
const childVariable = "HOLDFAST_TEST_CHILD"

func asChild() {
	environ := make([]string, 0, len(os.Environ()))
	for _, e := range os.Environ() {
		if !strings.HasPrefix(e, "HOLDFAST_") {
			environ = append(environ, e)
		}
	}
	ctx, stop := interruptible(context.Background())
	defer stop()
	os.Exit(run(ctx, os.Args[1:], environ, IO{In: os.Stdin, Out: os.Stdout, Err: os.Stderr}))
}

// process is holdfast dev as a child process.
type process struct {
	t       *testing.T
	args    []string
	listen  string
	dir     string
	started time.Time

	mu     sync.Mutex
	events []state.Event // from standard output, over all runs
	log    bytes.Buffer
	cmd    *exec.Cmd
	read   sync.WaitGroup
}

func newProcess(t *testing.T, sim *wasim.Server, extra ...string) *process {
	t.Helper()
	listen, err := freeAddress()
	if err != nil {
		t.Fatal(err)
	}
	p := &process{t: t, listen: listen, dir: t.TempDir()}
	p.args = append([]string{"dev", "--data-dir", p.dir, "--listen", listen, "--whatsapp-url", sim.URL(),
		"--whatsapp-root-key", sim.RootKeyHex(), "--log-format", "json"}, extra...)
	t.Cleanup(func() {
		if p.cmd != nil {
			p.kill()
		}
		if t.Failed() {
			log := p.log.String()
			t.Logf("the end of the log:\n%s", log[max(0, len(log)-6000):])
		}
	})
	return p
}

func (p *process) start() {
	p.t.Helper()
	p.cmd = exec.Command(os.Args[0], p.args...)
	p.cmd.Env = append(os.Environ(), childVariable+"=1")
	out, err := p.cmd.StdoutPipe()
	if err != nil {
		p.t.Fatal(err)
	}
	errs, err := p.cmd.StderrPipe()
	if err != nil {
		p.t.Fatal(err)
	}
	if err := p.cmd.Start(); err != nil {
		p.t.Fatal(err)
	}
	p.started = time.Now()
	p.read.Go(func() {
		lines := bufio.NewScanner(out)
		lines.Buffer(nil, 4<<20)
		for lines.Scan() {
			var e state.Event
			if json.Unmarshal(lines.Bytes(), &e) != nil {
				continue // torn by the kill; it comes again
			}
			p.mu.Lock()
			p.events = append(p.events, e)
			p.mu.Unlock()
		}
	})
	p.read.Go(func() {
		lines := bufio.NewReader(errs)
		for {
			line, err := lines.ReadString('\n')
			p.mu.Lock()
			p.log.WriteString(line)
			p.mu.Unlock()
			if err != nil {
				return
			}
		}
	})
}

func (p *process) kill() {
	_ = p.cmd.Process.Kill()
	p.read.Wait()
	_ = p.cmd.Wait()
	p.cmd = nil
}

// terminate ends the process as the platform does and returns how long it took.
func (p *process) terminate() time.Duration {
	p.t.Helper()
	begun := time.Now()
	if err := p.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		p.t.Fatal(err)
	}
	p.read.Wait()
	if err := p.cmd.Wait(); err != nil {
		p.t.Errorf("SIGTERM: %v", err)
	}
	p.cmd = nil
	return time.Since(begun)
}

// ask does one request; it fails while the process is down.
func (p *process) ask(ctx context.Context, method, path string, body, answer any) (int, error) {
	key, err := os.ReadFile(filepath.Join(p.dir, apiKeyFile))
	if err != nil {
		return 0, err
	}
	var in io.Reader
	if body != nil {
		b, err := json.Marshal(body)
		if err != nil {
			return 0, err
		}
		in = bytes.NewReader(b)
	}
	req, err := http.NewRequestWithContext(ctx, method, "http://"+p.listen+path, in)
	if err != nil {
		return 0, err
	}
	req.Header.Set("X-Api-Key", strings.TrimSpace(string(key)))
	req.Header.Set("Accept", "application/json")
	req.Header.Set("Content-Type", "application/json")
	req.Close = true
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return 0, err
	}
	defer resp.Body.Close()
	if answer != nil && resp.StatusCode < 300 {
		return resp.StatusCode, json.NewDecoder(resp.Body).Decode(answer)
	}
	return resp.StatusCode, nil
}

// pair scans the QR of the default session.
func (p *process) pair(ctx context.Context, sim *wasim.Server) *wasim.Device {
	p.t.Helper()
	for {
		var qr adminapi.QR
		if status, err := p.ask(ctx, "GET", "/api/sessions/default/qr?wait=10s", nil, &qr); err == nil && status == 200 {
			dev, err := sim.Phone("491700000001").Scan(ctx, qr.Code)
			if err != nil {
				p.t.Fatal(err)
			}
			return dev
		}
		if ctx.Err() != nil {
			p.t.Fatal("no QR was shown")
		}
		time.Sleep(50 * time.Millisecond)
	}
}

func startSim(t *testing.T, o wasim.Options) *wasim.Server {
	t.Helper()
	o.Control = "off"
	sim, err := wasim.New(o)
	if err == nil {
		err = sim.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(sim.Close)
	return sim
}

// TestKillNine kills the process at random moments with messages on their way
// in and out. The service's own record then says: one pairing, no two sockets
// at once, every message acknowledged and told of exactly once, everything sent
// read by the contact once.
func TestKillNine(t *testing.T) {
	kills := 8
	if n, err := strconv.Atoi(os.Getenv("HOLDFAST_KILLS")); err == nil && n > 0 {
		kills = n
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute+time.Duration(kills)*5*time.Second)
	defer cancel()
	sim := startSim(t, wasim.Options{QuietPhone: true})
	p := newProcess(t, sim)
	p.start()
	dev := p.pair(ctx, sim)
	if err := dev.WaitOnline(ctx); err != nil {
		t.Fatal(err)
	}

	ada := sim.Contact("491700000002")
	stop := make(chan struct{})
	var traffic sync.WaitGroup
	var in, out int
	traffic.Go(func() {
		for ; ; in++ {
			if _, err := ada.SendText(ctx, "491700000001", fmt.Sprintf("in %d", in)); err != nil {
				t.Errorf("the contact could not send: %v", err)
				return
			}
			select {
			case <-stop:
				in++
				return
			case <-time.After(15 * time.Millisecond):
			}
		}
	})
	traffic.Go(func() {
		for ; ; out++ {
			body := map[string]string{"to": "491700000002", "text": fmt.Sprintf("out %d", out), "idempotencyKey": fmt.Sprintf("key-%d", out)}
			for {
				status, err := p.ask(ctx, "POST", "/api/sessions/default/messages", body, nil)
				if err == nil && status == http.StatusAccepted {
					break
				}
				if ctx.Err() != nil {
					t.Error("a message was never accepted")
					return
				}
				time.Sleep(20 * time.Millisecond) // the process is down; the same key again
			}
			select {
			case <-stop:
				out++
				return
			case <-time.After(60 * time.Millisecond):
			}
		}
	})
	for i := range kills {
		time.Sleep(time.Duration(100+rand.IntN(1200)) * time.Millisecond)
		p.kill()
		p.start()
		if i%4 == 3 {
			if err := dev.WaitOnline(ctx); err != nil {
				t.Fatalf("after kill %d: %v", i+1, err)
			}
		}
	}
	if err := dev.WaitOnline(ctx); err != nil {
		t.Fatal(err)
	}
	close(stop)
	traffic.Wait()
	if err := ada.WaitCount(ctx, out); err != nil {
		t.Errorf("the contact has read %d of %d: %v", len(ada.Received()), out, err)
	}
	if err := dev.WaitDrained(ctx); err != nil {
		t.Errorf("messages were never acknowledged: %v", err)
	}
	time.Sleep(300 * time.Millisecond)
	if took := p.terminate(); took > 10*time.Second {
		t.Errorf("SIGTERM took %v", took)
	}

	truth := sim.Truth()
	if len(truth.Pairings) != 1 {
		t.Errorf("%d pairings", len(truth.Pairings))
	}
	if len(truth.Overlaps) != 0 {
		t.Errorf("two sockets at once: %+v", truth.Overlaps)
	}
	for _, a := range truth.Anomalies {
		t.Errorf("the server saw: %+v", a)
	}
	for _, f := range ada.Undecryptable() {
		t.Errorf("the contact could not read: %+v", f)
	}
	read := map[string]int{}
	for _, r := range ada.Received() {
		read[r.Text]++
	}
	for i := range out {
		if n := read[fmt.Sprintf("out %d", i)]; n != 1 {
			t.Errorf("out %d was read %d times", i, n)
		}
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	told := map[string]map[string]bool{} // text → ids of events
	for _, e := range p.events {
		if e.Type != state.EventMessage {
			continue
		}
		var data struct {
			Text string `json:"text"`
		}
		if err := json.Unmarshal(e.Data, &data); err != nil {
			t.Fatal(err)
		}
		if told[data.Text] == nil {
			told[data.Text] = map[string]bool{}
		}
		told[data.Text][e.ID] = true
	}
	for i := range in {
		if n := len(told[fmt.Sprintf("in %d", i)]); n != 1 {
			t.Errorf("in %d was told of under %d ids", i, n)
		}
	}
	t.Logf("%d kills, %d messages in, %d out", kills, in, out)
}
