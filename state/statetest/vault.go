package statetest

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"

	"github.com/holdfast-wa/holdfast/state"
)

// Vault runs the suite for vaults. open makes an empty vault.
func Vault(t *testing.T, open func(t *testing.T) state.Vault) {
	for name, test := range map[string]func(*vaultEnv){
		"an object is read as it was stored": testObjectRoundTrip,
		"a name is used once":                testObjectOnce,
		"one of many writers wins":           testObjectRace,
		"objects are listed and deleted":     testObjectList,
		"sessions are apart":                 testObjectApart,
		"names that are none are refused":    testObjectNames,
	} {
		t.Run(name, func(t *testing.T) { test(&vaultEnv{env{T: t, ctx: t.Context()}, open(t)}) })
	}
}

type vaultEnv struct {
	env
	v state.Vault
}

func (e *vaultEnv) put(session, name, body string) string {
	e.Helper()
	version, err := e.v.PutObject(e.ctx, session, name, []byte(body))
	e.ok(err)
	return version
}

func (e *vaultEnv) body(session, name, version string) string {
	e.Helper()
	b, err := e.v.GetObject(e.ctx, session, name, version)
	e.ok(err)
	return string(b)
}

func testObjectRoundTrip(e *vaultEnv) {
	e.ok(e.v.Ping(e.ctx))
	large := string(bytes.Repeat([]byte{0, 1, 2, 0xff}, 256<<10))
	for name, body := range map[string]string{"empty": "", "small": "x", "large-1.bin": large} {
		version := e.put("a", name, body)
		if got := e.body("a", name, version); got != body {
			e.Errorf("%s: %d bytes read, %d stored", name, len(got), len(body))
		}
		if got := e.body("a", name, ""); got != body {
			e.Errorf("%s without a version: %d bytes read, %d stored", name, len(got), len(body))
		}
	}
	mine := []byte("mine")
	_, err := e.v.PutObject(e.ctx, "a", "mine", mine)
	e.ok(err)
	copy(mine, "XXXX")
	e.same("the stored body", e.body("a", "mine", ""), "mine")
	_, err = e.v.GetObject(e.ctx, "a", "none", "")
	e.fails(err, state.ErrNotFound)
	_, err = e.v.GetObject(e.ctx, "nobody", "none", "")
	e.fails(err, state.ErrNotFound)
}

func testObjectOnce(e *vaultEnv) {
	e.put("a", "x", "first")
	_, err := e.v.PutObject(e.ctx, "a", "x", []byte("second"))
	e.fails(err, state.ErrExists)
	e.same("the body", e.body("a", "x", ""), "first")
}

func testObjectRace(e *vaultEnv) {
	for round := range 10 {
		name := fmt.Sprintf("o%d", round)
		var mu sync.Mutex
		var won []string
		var wg sync.WaitGroup
		for i := range 8 {
			body := strings.Repeat(fmt.Sprint(i), 1000)
			wg.Go(func() {
				_, err := e.v.PutObject(e.ctx, "a", name, []byte(body))
				mu.Lock()
				defer mu.Unlock()
				if err == nil {
					won = append(won, body)
				} else if !errors.Is(err, state.ErrExists) {
					e.Errorf("a writer that lost: %v", err)
				}
			})
		}
		wg.Wait()
		if len(won) != 1 {
			e.Fatalf("%d writers won", len(won))
		}
		e.same("the body", e.body("a", name, ""), won[0])
	}
}

func testObjectList(e *vaultEnv) {
	list := func(want ...string) {
		e.Helper()
		got, err := e.v.ListObjects(e.ctx, "a")
		e.ok(err)
		e.same("names", append([]string{}, got...), append([]string{}, want...))
	}
	list()
	for _, name := range []string{"b", "a", "c-1", "C", "10", "9"} {
		e.put("a", name, name)
	}
	list("10", "9", "C", "a", "b", "c-1")
	e.ok(e.v.DeleteObject(e.ctx, "a", "b", ""))
	e.ok(e.v.DeleteObject(e.ctx, "a", "b", ""))
	e.ok(e.v.DeleteObject(e.ctx, "nobody", "b", ""))
	list("10", "9", "C", "a", "c-1")
	_, err := e.v.GetObject(e.ctx, "a", "b", "")
	e.fails(err, state.ErrNotFound)
	version := e.put("a", "versioned", "x")
	e.ok(e.v.DeleteObject(e.ctx, "a", "versioned", version))
	_, err = e.v.GetObject(e.ctx, "a", "versioned", version)
	e.fails(err, state.ErrNotFound)
}

func testObjectApart(e *vaultEnv) {
	e.put("a", "x", "of a")
	e.put("ab", "x", "of ab")
	e.ok(e.v.DeleteObject(e.ctx, "a", "x", ""))
	e.same("ab's", e.body("ab", "x", ""), "of ab")
	names, err := e.v.ListObjects(e.ctx, "a")
	e.ok(err)
	e.same("names of a", len(names), 0)
}

func testObjectNames(e *vaultEnv) {
	for _, c := range []struct{ session, name string }{
		{"..", "x"}, {".", "x"}, {"", "x"}, {"a/b", "x"}, {"/etc", "x"}, {"a\x00", "x"},
		{"a", ".."}, {"a", "."}, {"a", ""}, {"a", "../x"}, {"a", "b/c"}, {"a", "/etc/passwd"}, {"a", ".hidden"},
		{"a", "x\x00"}, {"a", "a b"}, {"a", strings.Repeat("x", 129)},
	} {
		_, putErr := e.v.PutObject(e.ctx, c.session, c.name, []byte("x"))
		_, getErr := e.v.GetObject(e.ctx, c.session, c.name, "")
		for how, err := range map[string]error{"put": putErr, "get": getErr, "delete": e.v.DeleteObject(e.ctx, c.session, c.name, "")} {
			if !errors.Is(err, state.ErrName) {
				e.Errorf("%s of %q in %q: %v, want an error about the name", how, c.name, c.session, err)
			}
		}
	}
}
