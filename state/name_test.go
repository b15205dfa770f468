package state_test

import (
	"errors"
	"strings"
	"testing"

	"github.com/holdfast-wa/holdfast/state"
)

func TestCheckName(t *testing.T) {
	for _, name := range []string{"a", "default", "shop-1", "shop_1", "1a", "4917612345678x", "0-0-a", strings.Repeat("a", 63)} {
		if err := state.CheckName(name); err != nil {
			t.Errorf("%q: %v", name, err)
		}
	}
	for _, name := range []string{"", "-a", "_a", "A", "a b", "a/b", "a.b", "..", "ä", "a\n", "a\x00", "4917612345678", "49-176_123", "1", strings.Repeat("a", 64)} {
		err := state.CheckName(name)
		if !errors.Is(err, state.ErrName) {
			t.Errorf("%q: %v, want an error about the name", name, err)
		} else if strings.Contains(err.Error(), "\n") {
			t.Errorf("%q: the error has more than one line", name)
		}
	}
}

func TestCheckObject(t *testing.T) {
	for _, name := range []string{"a", "A1", "cred-7.bin", "0_1", strings.Repeat("a", 128)} {
		if err := state.CheckObject(name); err != nil {
			t.Errorf("%q: %v", name, err)
		}
	}
	for _, name := range []string{"", ".", "..", ".a", "-a", "_a", "a/b", "/a", "a b", "é", "a\x00", strings.Repeat("a", 129)} {
		if err := state.CheckObject(name); !errors.Is(err, state.ErrName) {
			t.Errorf("%q: %v, want an error about the name", name, err)
		}
	}
}

func FuzzCheckName(f *testing.F) {
	f.Add("shop-1")
	f.Add("../x")
	f.Fuzz(func(t *testing.T, name string) {
		if state.CheckName(name) != nil {
			return
		}
		if name == "" || len(name) > 63 || strings.ContainsAny(name, "/\\.#%\x00 \n") || strings.ToLower(name) != name {
			t.Errorf("%q is accepted", name)
		}
		if got, ok := state.OfSession(name).Session(); !ok || got != name {
			t.Errorf("the partition of %q is that of %q, %v", name, got, ok)
		}
	})
}

func TestPartitions(t *testing.T) {
	if _, ok := state.Fleet.Session(); ok {
		t.Error("the fleet's partition is a session's")
	}
	if got := state.OfSession("shop"); got != "S/shop" {
		t.Errorf("the partition of shop is %q", got)
	}
}
