package crew

import (
	"fmt"
	"io"
	"os/exec"
	"sync"
	"syscall"
)

// Guard kills processes when the program that started them ends without having
// ended them, whatever ended it. A nil Guard does nothing.
type Guard struct {
	mu  sync.Mutex
	in  io.WriteCloser
	cmd *exec.Cmd
}

// guardScript reads "+ PID" and "- PID", and at the end of its input, which the
// system brings about, kills those that are left.
const guardScript = `pids=" "
while read -r what pid; do
	case $what in
	+) pids="$pids$pid " ;;
	-) case $pids in *" $pid "*) pids="${pids%% $pid *} ${pids#* $pid }" ;; esac ;;
	esac
done
[ "$pids" = " " ] || kill -9 $pids 2>/dev/null`

// NewGuard starts one.
func NewGuard() (*Guard, error) {
	g := &Guard{cmd: exec.Command("sh", "-c", guardScript)}
	g.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	var err error
	if g.in, err = g.cmd.StdinPipe(); err != nil {
		return nil, err
	}
	if err := g.cmd.Start(); err != nil {
		return nil, fmt.Errorf("guard: %w", err)
	}
	return g, nil
}

func (g *Guard) tell(what string, pid int) {
	if g == nil {
		return
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	_, _ = fmt.Fprintf(g.in, "%s %d\n", what, pid)
}

func (g *Guard) watch(pid int)  { g.tell("+", pid) }
func (g *Guard) forget(pid int) { g.tell("-", pid) }

// Close kills whatever was not forgotten, and ends the guard.
func (g *Guard) Close() error {
	if g == nil {
		return nil
	}
	g.mu.Lock()
	err := g.in.Close()
	g.mu.Unlock()
	_ = g.cmd.Wait() // its status is that of kill
	return err
}
