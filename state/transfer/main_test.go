package transfer

import (
	"fmt"
	"os"
	"testing"
	"time"

	"go.uber.org/goleak"
)

// TestMain sees that no goroutine is left. A live client's socket may take some
// seconds to close, which is more than goleak waits by itself.
func TestMain(m *testing.M) {
	code := m.Run()
	if code == 0 {
		// The library's read loop hangs for good on a frame that nobody takes any
		// more, where a bare client is stopped at that moment.
		hung := goleak.IgnoreAnyFunction("go.mau.fi/whatsmeow/socket.(*FrameSocket).frameComplete")
		err := goleak.Find(hung)
		for deadline := time.Now().Add(10 * time.Second); err != nil && time.Now().Before(deadline); err = goleak.Find(hung) {
			time.Sleep(100 * time.Millisecond)
		}
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			code = 1
		}
	}
	os.Exit(code)
}
