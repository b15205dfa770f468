//go:build unix

package follow

import (
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
)

// apart gives a command a process group of its own, which can be ended whole.
func apart(cmd *exec.Cmd) { cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} }

// interrupt does what Ctrl-C does in a terminal: each process of the group is told.
func interrupt(group int) { _ = syscall.Kill(-group, syscall.SIGINT) }

func kill(group int) { _ = syscall.Kill(-group, syscall.SIGKILL) }

// lives tells whether a process of the group runs. In a container nobody may
// wait for those whose parent has died, so on Linux the dead are left out.
func lives(group int) bool {
	if syscall.Kill(-group, 0) != nil {
		return false
	}
	stats, _ := filepath.Glob("/proc/[0-9]*/stat")
	for _, file := range stats {
		b, err := os.ReadFile(file)
		if err != nil {
			continue
		}
		// PID (NAME) STATE PARENT GROUP …; a name may hold anything.
		fields := strings.Fields(string(b[strings.LastIndexByte(string(b), ')')+1:]))
		if len(fields) > 2 && fields[2] == strconv.Itoa(group) && fields[0] != "Z" && fields[0] != "X" {
			return true
		}
	}
	return len(stats) == 0
}
