package main

import (
	"context"
	"encoding/json"
	"os"
	"strings"
	"testing"

	"github.com/holdfast-wa/holdfast/state"
	"github.com/holdfast-wa/holdfast/state/sqlite"
	"github.com/holdfast-wa/holdfast/state/statetest"
)

// stored makes a data folder with one session of which there is nothing but a
// spec, and what else is given.
func stored(t *testing.T, writes ...state.Write) []string {
	t.Helper()
	cfg := inFolder(t, t.TempDir())
	if _, _, err := masterKey(t.Context(), cfg, func() (string, error) { return "", nil }); err != nil {
		t.Fatal(err)
	}
	store, err := sqlite.Open(cfg.State.Path, sqlite.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer store.Close()
	ctx := context.Background()
	spec, err := state.Encode(state.Spec{V: state.Format, Name: "shop", Wanted: state.WantRunning, Generation: 1})
	if err != nil {
		t.Fatal(err)
	}
	if err := store.CreateSession(ctx, "shop", []state.Write{state.Put(state.KindSpec, "", spec)}); err != nil {
		t.Fatal(err)
	}
	owner, err := statetest.Take(ctx, store, "shop", incarnation)
	if err != nil {
		t.Fatal(err)
	}
	if err := store.Commit(ctx, owner.Fence(), "", writes); err != nil {
		t.Fatal(err)
	}
	return []string{"HOLDFAST_DATA_DIR=" + cfg.DataDir}
}

func TestVerifyOfASoundSession(t *testing.T) {
	environ := stored(t)
	for _, args := range [][]string{{"shop"}, nil} {
		if r := drive(t, environ, append([]string{"sessions", "verify"}, args...)...); r.code != exitDone || r.out != "ok    shop\n" || r.err != "" {
			t.Errorf("%v: exit code %d, %s%s", args, r.code, r.out, r.err)
		}
	}
	if r := drive(t, environ, "sessions", "verify", "nobody"); r.code != exitFailed || !strings.Contains(r.err, "verify nobody: ") {
		t.Errorf("no such session: exit code %d, %s", r.code, r.err)
	}
}

func TestVerifyOfADamagedSession(t *testing.T) {
	environ := stored(t, state.Put(state.KindMeta, "", []byte("garbage")))
	r := drive(t, environ, "sessions", "verify", "shop", "--json")
	var found []Verified
	if err := json.Unmarshal([]byte(r.out), &found); err != nil || r.code != exitFailed || r.err != "" {
		t.Fatalf("exit code %d, %v: %s%s", r.code, err, r.out, r.err)
	}
	if len(found) != 1 || found[0].OK || len(found[0].Findings) == 0 || found[0].Findings[0].Where != "META" {
		t.Errorf("found %+v", found)
	}
	if r := drive(t, environ, "sessions", "verify"); r.code != exitFailed || !strings.HasPrefix(r.out, "fail  shop  META: ") {
		t.Errorf("exit code %d: %s", r.code, r.out)
	}
}

func TestVerifyLeavesARunningWorkerAlone(t *testing.T) {
	environ := stored(t)
	cfg, err := configOf(t, environ)
	if err != nil {
		t.Fatal(err)
	}
	d, err := openDataDir(cfg, shared)
	if err != nil {
		t.Fatal(err)
	}
	defer d.close()
	if r := drive(t, environ, "sessions", "verify"); r.code != exitFailed || !strings.Contains(r.err, "is using it; stop that one first") {
		t.Errorf("exit code %d: %s%s", r.code, r.out, r.err)
	}
}

func TestVerifyMakesNothing(t *testing.T) {
	dir := t.TempDir()
	if r := drive(t, []string{"HOLDFAST_DATA_DIR=" + dir}, "sessions", "verify"); r.code != exitFailed || !strings.Contains(r.err, "is not there or is empty") {
		t.Errorf("exit code %d: %s%s", r.code, r.out, r.err)
	}
	if left, err := os.ReadDir(dir); err != nil || len(left) > 0 {
		t.Errorf("made %v, %v", left, err)
	}
}
