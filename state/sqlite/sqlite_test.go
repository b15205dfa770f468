package sqlite_test

import (
	"fmt"
	"path/filepath"
	"testing"

	"github.com/holdfast-wa/holdfast/state"
	"github.com/holdfast-wa/holdfast/state/sqlite"
	"github.com/holdfast-wa/holdfast/state/statetest"
)

func open(t testing.TB, path string) *sqlite.Store {
	t.Helper()
	s, err := sqlite.Open(path, sqlite.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

func TestStore(t *testing.T) {
	statetest.Store(t, func(t *testing.T) state.Store { return open(t, filepath.Join(t.TempDir(), "state.db")) })
}

// Random histories mean the same here and in memory.
func TestModel(t *testing.T) {
	dir, n := t.TempDir(), 0
	statetest.Model(t, func(t *testing.T) state.Store {
		n++
		s, err := sqlite.Open(filepath.Join(dir, fmt.Sprint(n)), sqlite.Options{})
		if err != nil {
			t.Fatal(err)
		}
		return s
	})
}
