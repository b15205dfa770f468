package main

import (
	"errors"
	"fmt"
	"io"
	"net/rpc"
	"net/rpc/jsonrpc"
	"os"
	"os/exec"
	"runtime"
	"runtime/pprof"
	"sync"
	"syscall"
	"time"
)

// The roles of a process.
const (
	roleService  = "service"
	roleLibrary  = "library"
	roleHoldfast = "holdfast"
)

// process is a subject in a process of its own. It is told what to do over two
// pipes; its standard output and error are the bench's log.
type process struct {
	role string
	cmd  *exec.Cmd
	rpc  *rpc.Client
	once sync.Once

	incarnation string // of a worker that has joined
}

// pipes is both ends of a conversation.
type pipes struct {
	io.ReadCloser
	io.WriteCloser
}

// Close ends the conversation.
func (p pipes) Close() error { return errors.Join(p.ReadCloser.Close(), p.WriteCloser.Close()) }

// start starts a process of a role.
func (b *bench) start(role string) (*process, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	inR, inW, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	outR, outW, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	cmd := exec.Command(self, "-role", role) //nolint:gosec // itself
	cmd.Stdout, cmd.Stderr = b.log, b.log
	cmd.ExtraFiles = []*os.File{inR, outW}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	_, _ = inR.Close(), outW.Close()
	return &process{role: role, cmd: cmd, rpc: jsonrpc.NewClient(pipes{outR, inW})}, nil
}

// serveRole is the other end: it serves until the bench goes.
func serveRole(role string) int {
	server := rpc.NewServer()
	var err error
	switch role {
	case roleService:
		err = server.RegisterName("role", &service{})
	case roleLibrary:
		err = server.RegisterName("role", &library{})
	case roleHoldfast:
		err = server.RegisterName("role", &fleet{})
	default:
		err = fmt.Errorf("no role %q", role)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		return 2
	}
	server.ServeCodec(jsonrpc.NewServerCodec(pipes{os.NewFile(3, "requests"), os.NewFile(4, "answers")}))
	return 0
}

// call has a subject do something and waits for its answer.
func call[T any](p *process, method string, args any) (T, error) {
	var reply T
	if err := p.rpc.Call("role."+method, args, &reply); err != nil {
		return reply, fmt.Errorf("%s %s: %w", p.role, method, err)
	}
	return reply, nil
}

// do is call of what has no answer.
func do(p *process, method string, args any) error {
	_, err := call[None](p, method, args)
	return err
}

// kill ends a process as kill -9 does, and waits for its end.
func (p *process) kill() {
	p.once.Do(func() {
		_ = p.cmd.Process.Kill()
		_ = p.cmd.Wait()
		_ = p.rpc.Close()
	})
}

// terminate asks a process to end, as a platform does, and waits until it has.
// An error tells that it did not end well; it is killed after a time that none
// may take.
func (p *process) terminate(within time.Duration) error {
	err := errors.New("it had ended before")
	p.once.Do(func() {
		late := time.AfterFunc(within, func() { _ = p.cmd.Process.Kill() })
		defer late.Stop()
		err = errors.Join(p.cmd.Process.Signal(syscall.SIGTERM), p.cmd.Wait())
		_ = p.rpc.Close()
	})
	return err
}

// None is an argument or an answer that says nothing.
type None struct{}

// common is what all roles can do.
type common struct {
	cpu *os.File
}

// Stats looks at the process.
func (*common) Stats(gc bool, reply *Stats) error {
	*reply = stats(gc)
	return nil
}

// Heap writes a heap profile.
func (*common) Heap(path string, _ *None) error {
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	runtime.GC()
	return errors.Join(pprof.Lookup("heap").WriteTo(f, 0), f.Close())
}

// CPU begins a CPU profile, or ends it if path is empty.
func (c *common) CPU(path string, _ *None) (err error) {
	if path == "" {
		pprof.StopCPUProfile()
		return c.cpu.Close()
	}
	if c.cpu, err = os.Create(path); err != nil {
		return err
	}
	return pprof.StartCPUProfile(c.cpu)
}
