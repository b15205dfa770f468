package crew

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// APICommand is the command that serves the admin API over the store.
const APICommand = "admin"

// Config says what a crew is made of.
type Config struct {
	Binary  string // of holdfast
	Dir     string // for logs and each process's data folder
	Workers []string
	// Spares are workers that Start leaves alone, as a platform's next tasks.
	Spares []string
	// Settings are common to all processes, as environment.
	Settings map[string]string
	// Own are those of one process, by its name; "admin" is the API's.
	Own map[string]map[string]string
	Key string // the API key
}

// Crew is some workers and the admin API.
type Crew struct {
	Workers []*Process // then the spares
	Admin   *Process
	API     *API

	byName map[string]*Process
	health map[string]string // addresses
	guard  *Guard
	logs   []*os.File
	cfg    Config
}

// Admin is the name of the process that serves the API.
const Admin = "admin"

// New makes a crew; nothing is started.
func New(c Config) (*Crew, error) {
	guard, err := NewGuard()
	if err != nil {
		return nil, err
	}
	w := &Crew{cfg: c, guard: guard, byName: map[string]*Process{}, health: map[string]string{}}
	for _, name := range slices.Concat(c.Workers, c.Spares) {
		p, err := w.Add(name, "worker")
		if err != nil {
			return nil, errors.Join(err, w.Close())
		}
		w.Workers = append(w.Workers, p)
	}
	if w.Admin, err = w.Add(Admin, APICommand); err != nil {
		return nil, errors.Join(err, w.Close())
	}
	w.API = &API{Base: "http://" + w.health[Admin], Key: c.Key, HTTP: &http.Client{Timeout: 60 * time.Second,
		Transport: &http.Transport{MaxIdleConnsPerHost: 32, DialContext: (&net.Dialer{Timeout: 2 * time.Second}).DialContext}}}
	return w, nil
}

// Add makes one more process of a command of the binary.
func (w *Crew) Add(name, command string, args ...string) (*Process, error) {
	listen, err := freeAddress()
	if err != nil {
		return nil, err
	}
	data := filepath.Join(w.cfg.Dir, name)
	if err := os.MkdirAll(data, 0o700); err != nil {
		return nil, err
	}
	log, err := os.OpenFile(filepath.Join(w.cfg.Dir, name+".log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, err
	}
	w.logs = append(w.logs, log)
	settings := map[string]string{
		"HOLDFAST_DATA_DIR": data, "HOLDFAST_LISTEN": listen, "HOLDFAST_API_KEYS": KeySetting(w.cfg.Key),
		"HOLDFAST_LOG_FORMAT": "json", "HOLDFAST_TASK": name,
		// What is looked at is what becomes of messages, as fast as they can go.
		"HOLDFAST_SEND_PACE": "0", "HOLDFAST_SEND_PACE_CHAT": "0", "HOLDFAST_API_RATE": "0",
	}
	maps.Copy(settings, w.cfg.Settings)
	maps.Copy(settings, w.cfg.Own[name])
	p := &Process{Name: name, Path: w.cfg.Binary, Args: append([]string{command}, args...), Env: Environ(settings), Log: log, Guard: w.guard}
	w.byName[name], w.health[name] = p, listen
	return p, nil
}

// Environ is this process's environment with settings in the place of all that
// concerns Holdfast and AWS.
func Environ(settings map[string]string) []string {
	var env []string
	for _, e := range os.Environ() {
		if !strings.HasPrefix(e, "HOLDFAST_") && !strings.HasPrefix(e, "AWS_") {
			env = append(env, e)
		}
	}
	for k, v := range settings {
		env = append(env, k+"="+v)
	}
	return env
}

// Start starts the API and all workers but the spares, and waits until they
// answer.
func (w *Crew) Start(ctx context.Context) error {
	for _, p := range append([]*Process{w.Admin}, w.Workers[:len(w.cfg.Workers)]...) {
		if err := p.Start(); err != nil {
			return err
		}
		// One after the other: the first makes what a fleet has in common.
		if err := w.Live(ctx, p); err != nil {
			return err
		}
	}
	return nil
}

// Live waits until a process answers its health check.
func (w *Crew) Live(ctx context.Context, p *Process) error {
	ctx, cancel := context.WithTimeout(ctx, 60*time.Second)
	defer cancel()
	client := &http.Client{Timeout: 2 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}}
	for {
		resp, err := client.Get("http://" + w.health[p.Name] + "/health/live")
		if err == nil {
			_ = resp.Body.Close()
			if resp.StatusCode == http.StatusOK {
				return nil
			}
		}
		if !p.Running() {
			return fmt.Errorf("%s: has ended: %s", p.Name, w.Tail(p, 600))
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%s: does not answer: %w; its log ends with: %s", p.Name, ctx.Err(), w.Tail(p, 600))
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// Address is where a process listens.
func (w *Crew) Address(name string) string { return w.health[name] }

// Log is the path of a process's log.
func (w *Crew) Log(p *Process) string { return filepath.Join(w.cfg.Dir, p.Name+".log") }

// Tail is the end of a process's log, n bytes at most.
func (w *Crew) Tail(p *Process, n int) string {
	b, err := os.ReadFile(w.Log(p))
	if err != nil {
		return err.Error()
	}
	return strings.TrimSpace(string(b[max(0, len(b)-n):]))
}

// Stop ends all workers kindly and at the same time, then the API. Whoever takes
// longer than ctx is killed by Close.
func (w *Crew) Stop(ctx context.Context) error {
	errs := make(chan error, len(w.Workers))
	n := 0
	for _, p := range w.Workers {
		if !p.Running() {
			continue
		}
		n++
		go func() {
			_ = p.Thaw()
			_, err := p.Terminate(ctx)
			errs <- err
		}()
	}
	var err error
	for range n {
		err = errors.Join(err, <-errs)
	}
	if w.Admin.Running() {
		_, ended := w.Admin.Terminate(ctx)
		err = errors.Join(err, ended)
	}
	return err
}

// Close kills whatever still runs.
func (w *Crew) Close() error {
	for _, p := range w.byName {
		if p.Running() {
			_ = p.Kill()
		}
	}
	if w.API != nil {
		w.API.HTTP.CloseIdleConnections()
	}
	err := w.guard.Close()
	for _, log := range w.logs {
		err = errors.Join(err, log.Close())
	}
	return err
}

// freeAddress is one on loopback that nobody listens at now.
func freeAddress() (string, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	return l.Addr().String(), l.Close()
}
