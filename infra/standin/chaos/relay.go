package chaos

import (
	"io"
	"net"
	"sync"
	"time"
)

// relay passes one worker's connections on to the simulated service and keeps
// which of them is whose, since all come from the same host. It adds nothing:
// when one side ends, so does the other.
type relay struct {
	listener net.Listener
	target   string
	whose    func() (process string, run int)

	mu     sync.Mutex
	opened []Conn
	open   map[net.Conn]struct{}
	wg     sync.WaitGroup
}

func openRelay(target string, whose func() (string, int)) (*relay, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	r := &relay{listener: l, target: target, whose: whose, open: map[net.Conn]struct{}{}}
	r.wg.Go(r.accept)
	return r, nil
}

func (r *relay) address() string { return r.listener.Addr().String() }

func (r *relay) accept() {
	for {
		c, err := r.listener.Accept()
		if err != nil {
			return
		}
		r.wg.Go(func() { r.pass(c) })
	}
}

func (r *relay) pass(c net.Conn) {
	defer c.Close()
	process, run := r.whose()
	up, err := net.DialTimeout("tcp", r.target, 5*time.Second)
	if err != nil {
		return
	}
	defer up.Close()
	r.mu.Lock()
	if r.open == nil {
		r.mu.Unlock()
		return
	}
	// The service may see the connection a moment before this line.
	r.opened = append(r.opened, Conn{up.LocalAddr().String(), process, run, time.Now().Add(-time.Second)})
	r.open[c], r.open[up] = struct{}{}, struct{}{}
	r.mu.Unlock()
	defer func() {
		r.mu.Lock()
		defer r.mu.Unlock()
		delete(r.open, c)
		delete(r.open, up)
	}()
	var both sync.WaitGroup
	for _, way := range [][2]net.Conn{{c, up}, {up, c}} {
		both.Go(func() {
			_, _ = io.Copy(way[1], way[0])
			_ = way[0].Close()
			_ = way[1].Close()
		})
	}
	both.Wait()
}

// conns are all connections so far.
func (r *relay) conns() []Conn {
	r.mu.Lock()
	defer r.mu.Unlock()
	return append([]Conn(nil), r.opened...)
}

// live is how many connections there are now.
func (r *relay) live() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.open) / 2
}

func (r *relay) close() {
	_ = r.listener.Close()
	r.mu.Lock()
	for c := range r.open {
		_ = c.Close()
	}
	r.open = nil
	r.mu.Unlock()
	r.wg.Wait()
}
