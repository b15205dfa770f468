// Package crew runs Holdfast as whole processes, as a platform would, and worse:
// it starts them, ends them kindly, kills them, freezes them, and keeps the
// record of what it did to them.
package crew

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"
)

// How a run ended, where it did.
const (
	Killed     = "killed"     // SIGKILL from here
	Terminated = "terminated" // SIGTERM from here
	ByItself   = "by itself"  // which no worker should
)

// Span is a time between two moments; a zero To means that it lasts.
type Span struct {
	From time.Time `json:"from"`
	To   time.Time `json:"to,omitzero"`
}

// Run is one run of a process.
type Run struct {
	Process string    `json:"process"`
	N       int       `json:"n"` // from 1
	PID     int       `json:"pid"`
	Started time.Time `json:"started"`
	Asked   time.Time `json:"asked,omitzero"` // when a signal that ends it was sent
	Ended   time.Time `json:"ended,omitzero"`
	How     string    `json:"how,omitempty"`
	Error   string    `json:"error,omitempty"` // of Wait, such as its exit status
	Frozen  []Span    `json:"frozen,omitempty"`
}

// Process is one program that is started again and again. Its methods are for
// several goroutines, but not at a time.
type Process struct {
	Name  string
	Path  string // of the binary
	Args  []string
	Env   []string // all of it
	Log   *os.File // what it writes to standard error
	Out   *os.File // and to standard output; nil: nowhere
	Guard *Guard   // nil: an orphan lives on

	mu    sync.Mutex
	runs  []*Run
	cmd   *exec.Cmd
	ended chan struct{}
}

// ErrRuns and ErrDown: the process runs already, or does not run.
var (
	ErrRuns = errors.New("it runs already")
	ErrDown = errors.New("it does not run")
)

// Start starts a run.
func (p *Process) Start() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.cmd != nil {
		return fmt.Errorf("%s: %w", p.Name, ErrRuns)
	}
	cmd := exec.Command(p.Path, p.Args...) //nolint:gosec // the binary that was built for this
	cmd.Env, cmd.Stderr, cmd.Stdout = p.Env, p.Log, p.Out
	if p.Out == nil {
		cmd.Stdout = nil
	}
	// An interrupt typed at the terminal is for whoever runs all this.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("%s: %w", p.Name, err)
	}
	p.Guard.watch(cmd.Process.Pid)
	run := &Run{Process: p.Name, N: len(p.runs) + 1, PID: cmd.Process.Pid, Started: time.Now()}
	p.runs, p.cmd, p.ended = append(p.runs, run), cmd, make(chan struct{})
	go p.wait(cmd, run, p.ended)
	return nil
}

func (p *Process) wait(cmd *exec.Cmd, run *Run, ended chan struct{}) {
	err := cmd.Wait()
	p.Guard.forget(cmd.Process.Pid)
	p.mu.Lock()
	defer p.mu.Unlock()
	run.Ended = time.Now()
	if n := len(run.Frozen); n > 0 && run.Frozen[n-1].To.IsZero() {
		run.Frozen[n-1].To = run.Ended
	}
	if run.How == "" {
		run.How = ByItself
	}
	if err != nil {
		run.Error = err.Error()
	}
	p.cmd = nil
	close(ended)
}

// signal sends one to the run; before notes it, under the lock.
func (p *Process) signal(s syscall.Signal, note func(*Run)) (ended chan struct{}, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.cmd == nil {
		return nil, fmt.Errorf("%s: %w", p.Name, ErrDown)
	}
	note(p.runs[len(p.runs)-1])
	if err := p.cmd.Process.Signal(s); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return nil, fmt.Errorf("%s: %w", p.Name, err)
	}
	return p.ended, nil
}

// Kill ends the run with SIGKILL and waits until it is gone.
func (p *Process) Kill() error {
	ended, err := p.signal(syscall.SIGKILL, func(r *Run) { r.Asked, r.How = time.Now(), Killed })
	if err == nil {
		<-ended
	}
	return err
}

// Terminate ends the run with SIGTERM and waits for it, or until ctx ends, and
// tells how long it took.
func (p *Process) Terminate(ctx context.Context) (time.Duration, error) {
	began := time.Now()
	ended, err := p.signal(syscall.SIGTERM, func(r *Run) { r.Asked, r.How = began, Terminated })
	if err != nil {
		return 0, err
	}
	select {
	case <-ended:
		return time.Since(began), nil
	case <-ctx.Done():
		return time.Since(began), fmt.Errorf("%s: has not ended %s after SIGTERM: %w", p.Name, time.Since(began).Round(time.Second), ctx.Err())
	}
}

// Freeze stops the run with SIGSTOP: it does nothing more, and its connections
// stay.
func (p *Process) Freeze() error {
	_, err := p.signal(syscall.SIGSTOP, func(r *Run) { r.Frozen = append(r.Frozen, Span{From: time.Now()}) })
	return err
}

// Thaw lets a frozen run go on. One that is not frozen takes no notice.
func (p *Process) Thaw() error {
	_, err := p.signal(syscall.SIGCONT, func(r *Run) {
		if n := len(r.Frozen); n > 0 && r.Frozen[n-1].To.IsZero() {
			r.Frozen[n-1].To = time.Now()
		}
	})
	return err
}

// Set gives a setting another value, from the next run on.
func (p *Process) Set(name, value string) {
	p.Env = append(slices.DeleteFunc(slices.Clone(p.Env), func(e string) bool { return strings.HasPrefix(e, name+"=") }), name+"="+value)
}

// Running tells whether a run is under way, frozen or not.
func (p *Process) Running() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.cmd != nil
}

// Runs are all runs so far, as they are now.
func (p *Process) Runs() []Run {
	p.mu.Lock()
	defer p.mu.Unlock()
	out := make([]Run, len(p.runs))
	for i, r := range p.runs {
		out[i] = *r
		out[i].Frozen = slices.Clone(r.Frozen)
	}
	return out
}

// Current is the number of the run under way, or of the last one.
func (p *Process) Current() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.runs)
}
