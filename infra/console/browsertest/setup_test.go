package browsertest

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// browsers are the names that Chromium goes by.
var browsers = []string{"chromium", "chromium-browser", "google-chrome", "google-chrome-stable"}

var (
	browserPath string // empty: there is none
	programPath string
)

func TestMain(m *testing.M) { os.Exit(run(m)) }

func run(m *testing.M) int {
	if browserPath = os.Getenv("HOLDFAST_CHROMIUM"); browserPath == "" {
		for _, name := range browsers {
			if found, err := exec.LookPath(name); err == nil {
				browserPath = found
				break
			}
		}
	}
	if browserPath == "" {
		return m.Run() // each test says that it is skipped, and why
	}
	if programPath = os.Getenv("HOLDFAST_BINARY"); programPath == "" {
		dir, err := os.MkdirTemp("", "browsertest-")
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		defer os.RemoveAll(dir)
		programPath = filepath.Join(dir, "holdfast")
		build := exec.Command("go", "build", "-o", programPath, "./cmd/holdfast")
		build.Dir = filepath.Join("..", "..", "..")
		build.Env = append(os.Environ(), "CGO_ENABLED=0")
		if out, err := build.CombinedOutput(); err != nil {
			fmt.Fprintf(os.Stderr, "building holdfast: %v\n%s", err, out)
			return 1
		}
	}
	return m.Run()
}

// needBrowser skips the test where there is no browser.
func needBrowser(t *testing.T) {
	t.Helper()
	if browserPath != "" {
		return
	}
	const why = "no Chromium is installed: apt-get install chromium, or set HOLDFAST_CHROMIUM"
	if os.Getenv("HOLDFAST_REQUIRE_ALL") == "1" {
		t.Fatal(why)
	}
	t.Skip(why)
}

// drawings are the lines of a QR code in a terminal.
var drawings = regexp.MustCompile(`(?m)^.*[▀▄█]{4}.*\n`)

// program is holdfast with some arguments, as a process.
type program struct {
	t    *testing.T
	args []string
	env  []string

	cmd   *exec.Cmd
	first chan string // line of standard output
	ended chan struct{}

	mu  sync.Mutex
	log bytes.Buffer
}

func startProgram(t *testing.T, env []string, args ...string) *program {
	t.Helper()
	p := &program{t: t, args: args}
	for _, e := range os.Environ() {
		if !strings.HasPrefix(e, "HOLDFAST_") {
			p.env = append(p.env, e)
		}
	}
	p.env = append(p.env, env...)
	p.start()
	t.Cleanup(func() {
		p.stop()
		if t.Failed() {
			p.mu.Lock()
			defer p.mu.Unlock()
			log := drawings.ReplaceAllString(p.log.String(), "")
			t.Logf("the end of the log of holdfast %s:\n%s", args[0], log[max(0, len(log)-8000):])
		}
	})
	return p
}

func (p *program) start() {
	p.t.Helper()
	p.cmd = exec.Command(programPath, p.args...)
	p.cmd.Env = p.env
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
	p.first, p.ended = make(chan string, 1), make(chan struct{})
	var read sync.WaitGroup
	read.Go(func() {
		lines := bufio.NewReader(out)
		if line, err := lines.ReadString('\n'); err == nil {
			p.first <- line
		}
		_, _ = io.Copy(io.Discard, lines)
	})
	read.Go(func() {
		lines := bufio.NewScanner(errs)
		lines.Buffer(nil, 1<<20)
		for lines.Scan() {
			p.mu.Lock()
			p.log.Write(lines.Bytes())
			p.log.WriteByte('\n')
			p.mu.Unlock()
		}
	})
	ended, cmd := p.ended, p.cmd
	go func() {
		read.Wait()
		_ = cmd.Wait() // it is ended by a signal
		close(ended)
	}()
}

func (p *program) stop() {
	_ = p.cmd.Process.Signal(syscall.SIGTERM)
	select {
	case <-p.ended:
	case <-time.After(10 * time.Second):
		_ = p.cmd.Process.Kill()
		<-p.ended
	}
}

// The keys of the tests, by role.
var keys = map[string]string{"viewer": "viewer-key-of-the-test", "operator": "operator-key-of-the-test", "admin": "admin-key-of-the-test"}

// stage is holdfast with its console, beside a simulated service.
type stage struct {
	t       *testing.T
	url     string // of holdfast
	control string // of the simulated service
	program *program
	env     []string
}

// newStage starts holdfast dev and the service. Env is added to its settings.
func newStage(t *testing.T, env ...string) *stage {
	t.Helper()
	needBrowser(t)
	t.Parallel()
	sim := startProgram(t, nil, "sim")
	var told struct{ URL, ControlURL, RootKey string }
	select {
	case line := <-sim.first:
		if err := json.Unmarshal([]byte(line), &told); err != nil {
			t.Fatalf("holdfast sim said %q: %v", line, err)
		}
	case <-time.After(within):
		t.Fatal("holdfast sim says nothing")
	}
	listen := freeAddress(t)
	var list []string
	for role, key := range keys {
		sum := sha256.Sum256([]byte(key))
		list = append(list, role+":"+role+":"+hex.EncodeToString(sum[:]))
	}
	s := &stage{t: t, url: "http://" + listen, control: strings.TrimSuffix(told.ControlURL, "/"),
		env: []string{"HOLDFAST_DATA_DIR=" + t.TempDir(), "HOLDFAST_LISTEN=" + listen, "HOLDFAST_API_KEYS=" + strings.Join(list, ",")}}
	s.program = startProgram(t, slices.Concat(s.env, []string{"HOLDFAST_WHATSAPP_URL=" + told.URL, "HOLDFAST_WHATSAPP_ROOT_KEY=" + told.RootKey}, env), "dev")
	s.answers()
	return s
}

// admin ends holdfast dev and starts holdfast admin in its place: no worker is left.
func (s *stage) admin() {
	s.t.Helper()
	s.program.stop()
	s.program = startProgram(s.t, s.env, "admin")
	s.answers()
}

func (s *stage) answers() {
	s.t.Helper()
	s.until("holdfast answers", func() bool {
		status, _ := s.try("GET", "/api/sessions/default", nil)
		return status == http.StatusOK
	})
}

func freeAddress(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

// within is how long the tests wait for what must come. Machines of tests are slow.
const within = 45 * time.Second

// until asks until it is so.
func (s *stage) until(what string, so func() bool) {
	s.t.Helper()
	for end := time.Now().Add(within); !so(); time.Sleep(100 * time.Millisecond) {
		if time.Now().After(end) {
			s.t.Fatalf("in vain: %s", what)
		}
	}
}

// try sends a request to the admin API as the admin; status 0: it did not answer.
func (s *stage) try(method, path string, body any) (int, []byte) {
	return s.request(s.url+path, method, body)
}

func (s *stage) request(url, method string, body any) (int, []byte) {
	s.t.Helper()
	var sent io.Reader
	if body != nil {
		b, err := json.Marshal(body)
		if err != nil {
			s.t.Fatal(err)
		}
		sent = bytes.NewReader(b)
	}
	ctx, cancel := context.WithTimeout(context.Background(), within)
	defer cancel()
	r, err := http.NewRequestWithContext(ctx, method, url, sent)
	if err != nil {
		s.t.Fatal(err)
	}
	r.Header.Set("X-Api-Key", keys["admin"])
	if body != nil {
		r.Header.Set("Content-Type", "application/json")
	}
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		return 0, nil
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		return 0, nil
	}
	return resp.StatusCode, b
}

// api is try for what must succeed.
func (s *stage) api(method, path string, body any) []byte {
	s.t.Helper()
	status, b := s.try(method, path, body)
	if status/100 != 2 {
		s.t.Fatalf("%s %s: %d: %s", method, path, status, b)
	}
	return b
}

// sim sends a request to the control of the simulated service.
func (s *stage) sim(method, path string, body any) []byte {
	s.t.Helper()
	status, b := s.request(s.control+path, method, body)
	if status/100 != 2 {
		s.t.Fatalf("simulated service: %s %s: %d: %s", method, path, status, b)
	}
	return b
}

// state is a session's state as the API has it.
func (s *stage) state(name string) string {
	s.t.Helper()
	var v struct{ State string }
	_, b := s.try("GET", "/api/sessions/"+name, nil)
	_ = json.Unmarshal(b, &v) // what is no session has no state
	return v.State
}

// pair pairs a session without the browser.
func (s *stage) pair(name, number string) {
	s.t.Helper()
	var shown struct{ Code string }
	s.until(name+" shows a code", func() bool {
		status, b := s.try("GET", "/api/sessions/"+name+"/qr?format=json&wait=5s", nil)
		return status == http.StatusOK && json.Unmarshal(b, &shown) == nil
	})
	s.sim("POST", "/scan", map[string]any{"qr": shown.Code, "number": number})
	s.until(name+" is online", func() bool { return s.state(name) == "online" })
}
