//go:build unix

package dynamolocal

import (
	"os/exec"
	"syscall"
)

// apart keeps an interrupt typed at a terminal from the process: it ends when
// the program that started it has ended what talks to it.
func apart(cmd *exec.Cmd) { cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} }
