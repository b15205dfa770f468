package vault

import (
	"errors"
	"io/fs"
	"strings"
	"syscall"
	"testing"

	"github.com/holdfast-wa/holdfast/state"
)

// What the operating system says becomes a line that says what to do.
func TestFailure(t *testing.T) {
	d := &Dir{root: "/data/vault"}
	for errno, words := range map[syscall.Errno]string{
		syscall.ENOSPC: "disk is full", syscall.EDQUOT: "disk is full", syscall.EROFS: "read-only",
		syscall.EACCES: "give this user the right", syscall.ENOTDIR: "move it away", syscall.EIO: "input/output error",
	} {
		err := d.failure("store", &fs.PathError{Op: "write", Path: "x", Err: errno})
		if !errors.Is(err, state.ErrUnavailable) || !errors.Is(err, errno) {
			t.Errorf("%v became %v", errno, err)
		}
		if text := err.Error(); !strings.Contains(text, words) || !strings.HasPrefix(text, "vault /data/vault: cannot store: ") || strings.Contains(text, "\n") {
			t.Errorf("%v must say %q: %s", errno, words, text)
		}
	}
}
