//go:build unix

package wasim

import (
	"errors"
	"net"
	"syscall"
)

// alive tells whether the other end has not closed yet, as far as the kernel
// knows: a close that our reader has not come to see is not an overlap. It
// does not wait for the reader, which sits in a read.
func alive(c net.Conn) bool {
	sc, ok := c.(syscall.Conn)
	if !ok {
		return true
	}
	raw, err := sc.SyscallConn()
	if err != nil {
		return false
	}
	live := true
	err = raw.Control(func(fd uintptr) {
		var one [1]byte
		n, _, err := syscall.Recvfrom(int(fd), one[:], syscall.MSG_PEEK|syscall.MSG_DONTWAIT)
		switch {
		case errors.Is(err, syscall.EAGAIN), errors.Is(err, syscall.EINTR):
		case err != nil || n == 0:
			live = false
		}
	})
	return live && err == nil
}
