package device_test

import (
	"path/filepath"
	"testing"
	"time"

	"go.mau.fi/whatsmeow/store"

	"github.com/holdfast-wa/holdfast/state"
	"github.com/holdfast-wa/holdfast/state/device"
	"github.com/holdfast-wa/holdfast/state/memory"
	"github.com/holdfast-wa/holdfast/state/sqlite"
	"github.com/holdfast-wa/holdfast/state/statetest/libtest"
)

// TestLibrary runs what the library expects on our store, with a cache of the
// usual size and with one that holds next to nothing.
func TestLibrary(t *testing.T) {
	for name, open := range map[string]func(t *testing.T) state.Store{
		"memory": func(*testing.T) state.Store { return memory.New(time.Now) },
		"sqlite": func(t *testing.T) state.Store {
			s, err := sqlite.Open(filepath.Join(t.TempDir(), "state.db"), sqlite.Options{})
			must(t, err)
			t.Cleanup(func() { s.Close() })
			return s
		},
	} {
		for size, bytes := range map[string]int{"cached": 0, "uncached": 1} {
			t.Run(name+" "+size, func(t *testing.T) {
				libtest.Library(t, func(t *testing.T) *store.Device {
					w := newWorld(t, open(t))
					w.tune = func(c *device.Config) { c.CacheBytes = bytes }
					d := w.paired()
					t.Cleanup(func() {
						if p := w.poisoned(); len(p) > 0 {
							t.Errorf("poisoned: %v", p)
						}
					})
					return d.Library()
				})
			})
		}
	}
}
