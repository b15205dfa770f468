package libtest_test

import (
	"context"
	"path/filepath"
	"testing"

	"go.mau.fi/whatsmeow/store"
	"go.mau.fi/whatsmeow/store/sqlstore"
	_ "modernc.org/sqlite"

	"github.com/holdfast-wa/holdfast/state/statetest/libtest"
)

// TestOracle runs the suite on the library's own store.
func TestOracle(t *testing.T) {
	libtest.Library(t, func(t *testing.T) *store.Device {
		file := filepath.Join(t.TempDir(), "oracle.db")
		c, err := sqlstore.New(context.Background(), "sqlite", "file:"+file+"?_pragma=foreign_keys(1)&_pragma=synchronous(0)&_txlock=immediate", nil)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
		dev := c.NewDevice()
		libtest.Pair(t, dev)
		return dev
	})
}
