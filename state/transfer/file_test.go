package transfer

import (
	"bytes"
	"context"
	"os"
	"strings"
	"testing"

	"filippo.io/age"

	"github.com/holdfast-wa/holdfast/state"
)

// TestPassphrase: a file opens with its passphrase alone.
func TestPassphrase(t *testing.T) {
	home, cloud, file := newMemory(t, "home"), newMemory(t, "cloud"), temp(t)
	home.furnished()
	if _, err := LockWithPassphrase("too short"); err == nil {
		t.Error("a short passphrase was taken")
	}
	if _, err := LockWithPassphrase("long enough, this one"); err != nil {
		t.Error(err)
	}
	lock, err := lockWith("correct horse battery staple", 10)
	must(t, err)
	right, err := KeyFromPassphrase("correct horse battery staple")
	must(t, err)
	wrong, err := KeyFromPassphrase("correct horse battery stable")
	must(t, err)
	_, err = exportTo(home, file, key{lock: lock})
	must(t, err)
	for _, k := range []key{{key: wrong}, newKey(t)} {
		_, err = importFrom(cloud, file, k)
		wantErr(t, err, ErrKey)
	}
	if _, err := cloud.store.Owner(context.Background(), shop); err == nil {
		t.Error("a file that did not open has left something")
	}
	_, err = importFrom(cloud, file, key{key: right})
	must(t, err)
}

// TestDamagedFiles: a file that is cut short or altered anywhere, or is none, is
// refused with what is wrong, and nothing is written.
func TestDamagedFiles(t *testing.T) {
	home, cloud, file, k := newMemory(t, "home"), newMemory(t, "cloud"), temp(t), newKey(t)
	home.furnished()
	_, err := exportTo(home, file, k)
	must(t, err)
	whole, err := os.ReadFile(file)
	must(t, err)
	try := func(content []byte) error {
		t.Helper()
		must(t, os.WriteFile(file, content, 0o600))
		_, err := importFrom(cloud, file, k)
		if _, ownerErr := cloud.store.Owner(context.Background(), shop); ownerErr == nil {
			t.Fatal("something was written")
		}
		return err
	}
	for n := 0; n < len(whole); n += 1 + n/3 {
		err := try(whole[:n])
		if n == 0 {
			wantErr(t, err, ErrNotOne)
		} else {
			wantErr(t, err, ErrDamaged)
		}
	}
	wantErr(t, try(whole[:len(whole)-1]), ErrDamaged)
	for n := 0; n < len(whole); n += 1 + n/3 {
		altered := bytes.Clone(whole)
		altered[n] ^= 0x10
		if err := try(altered); err == nil {
			t.Fatalf("byte %d of %d is another and nobody minds", n, len(whole))
		}
	}
	wantErr(t, try(append(bytes.Clone(whole), 'x')), ErrDamaged)
	wantErr(t, try([]byte("just a text\nwith lines\n")), ErrNotOne)
	wantErr(t, try(bytes.Replace(whole, []byte("holdfast-export/1"), []byte("holdfast-export/2"), 1)), ErrNewer)
	must(t, os.Remove(file))
	_, err = importFrom(cloud, file, k)
	wantErr(t, err, os.ErrNotExist)
	must(t, os.WriteFile(file, whole, 0o600))
	_, err = importFrom(cloud, file, k)
	must(t, err)
}

// TestForeignFiles: what is sealed well and makes no sense is refused as well,
// before anything is written: anybody can seal for a recipient.
func TestForeignFiles(t *testing.T) {
	home, file := newMemory(t, "home"), temp(t)
	home.furnished()
	identity, err := age.GenerateX25519Identity()
	must(t, err)
	lock, err := LockFor(identity.Recipient().String())
	must(t, err)
	open, err := KeyFromIdentities(strings.NewReader(identity.String()))
	must(t, err)
	_, err = exportTo(home, file, key{lock: lock})
	must(t, err)
	var entries []entry
	must(t, readFile(file, open, func(e entry) error { entries = append(entries, e); return nil }))
	for name, change := range map[string]func(e *entry) bool{
		"another session":  func(e *entry) bool { return e.Head != nil && set(&e.Head.Session, "shop-2") },
		"a bad name":       func(e *entry) bool { return e.Head != nil && set(&e.Head.Session, "../../x") },
		"another keyset":   func(e *entry) bool { return e.Head != nil && set(&e.Head.KeysetID, "x") },
		"no keyset":        func(e *entry) bool { return e.Head != nil && set(&e.Head.Keyset, nil) },
		"a newer format":   func(e *entry) bool { return e.Head != nil && set(&e.Head.Format, state.Format+1) },
		"another id":       func(e *entry) bool { return e.Head != nil && set(&e.Head.ID, newID()) },
		"a control record": func(e *entry) bool { return e.Record != nil && set(&e.Record.Kind, state.KindMeta) },
		"a huge record":    func(e *entry) bool { return e.Record != nil && set(&e.Record.Value, make([]byte, 400<<10)) },
		"an object's name": func(e *entry) bool { return e.Object != nil && set(&e.Object.Name, "../x") },
		"other credentials": func(e *entry) bool {
			return e.Object != nil && strings.HasPrefix(e.Object.Name, "credential-") && set(&e.Object.Body, []byte("x"))
		},
		"no credentials": func(e *entry) bool {
			return e.Object != nil && strings.HasPrefix(e.Object.Name, "credential-") && set(&e.Object.Name, "other")
		},
		"no head": func(e *entry) bool { return e.Head != nil && set(&e.Head, nil) },
	} {
		t.Run(name, func(t *testing.T) {
			forged := temp(t)
			w, err := newWriter(forged, entries[0].Head.ID, lock)
			must(t, err)
			changed := false
			for _, e := range entries {
				e = copied(e)
				changed = !changed && change(&e) || changed
				if e != (entry{}) {
					must(t, w.put(e))
				}
			}
			if !changed {
				t.Fatal("nothing was changed")
			}
			_, err = w.publish(false)
			must(t, err)
			cloud := newMemory(t, "cloud")
			_, err = importFrom(cloud, forged, key{key: open})
			if err == nil {
				t.Fatal("taken in")
			}
			if list, _ := cloud.store.Sessions(context.Background(), "", 10); len(list) > 0 {
				t.Error("something was written")
			}
			if strings.Contains(err.Error(), "\n") {
				t.Errorf("not one line: %v", err)
			}
		})
	}
}

func set[T any](at *T, v T) bool { *at = v; return true }

func copied(e entry) entry {
	if e.Head != nil {
		h := *e.Head
		e.Head = &h
	}
	if e.Object != nil {
		o := *e.Object
		e.Object = &o
	}
	if e.Record != nil {
		r := *e.Record
		e.Record = &r
	}
	return e
}

// TestKeys: what is no key is said so.
func TestKeys(t *testing.T) {
	if _, err := LockFor(); err == nil {
		t.Error("sealed for nobody")
	}
	if _, err := LockFor("age1nonsense"); err == nil {
		t.Error("sealed for nonsense")
	}
	if _, err := KeyFromIdentities(strings.NewReader("AGE-SECRET-KEY-1SECRET")); err == nil || strings.Contains(err.Error(), "SECRET") {
		t.Errorf("got %v", err)
	}
	if _, err := KeyFromPassphrase(""); err == nil {
		t.Error("opened with nothing")
	}
	ctx := context.Background()
	p := newMemory(t, "home")
	if _, err := Export(ctx, p.config(), ExportConfig{Session: shop, Path: "x"}); err == nil {
		t.Error("exported in the clear")
	}
	if _, err := Export(ctx, Config{}, ExportConfig{}); err == nil {
		t.Error("exported from nowhere")
	}
}
