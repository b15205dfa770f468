//go:build !unix

package follow

import "os/exec"

func apart(*exec.Cmd) {}

func interrupt(int) {}

func kill(int) {}

func lives(int) bool { return false }
