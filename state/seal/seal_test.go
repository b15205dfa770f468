package seal_test

import (
	"bytes"
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/holdfast-wa/holdfast/state"
	"github.com/holdfast-wa/holdfast/state/seal"
)

func newKeyset(t testing.TB) *seal.Keyset {
	t.Helper()
	k, err := seal.NewKeyset()
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func newMaster(t testing.TB) (seal.Master, string) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "master.key")
	m, err := seal.CreateFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return m, path
}

func seals(t testing.TB, k *seal.Keyset, p seal.Place, plain string) []byte {
	t.Helper()
	sealed, err := k.Seal(p, []byte(plain))
	if err != nil {
		t.Fatal(err)
	}
	return sealed
}

var home = seal.Place{Partition: state.OfSession("shop"), Kind: state.KindSignal, ID: "abc"}

func TestOpensAtItsPlaceAlone(t *testing.T) {
	k, other := newKeyset(t), newKeyset(t)
	sealed := seals(t, k, home, "secret")
	if len(sealed) != len("secret")+seal.Overhead {
		t.Errorf("%d bytes sealed, want %d", len(sealed), len("secret")+seal.Overhead)
	}
	if got, err := k.Open(home, sealed); err != nil || string(got) != "secret" {
		t.Fatalf("at home: %q, %v", got, err)
	}
	for name, place := range map[string]seal.Place{
		"another session":              {Partition: state.OfSession("shop-2"), Kind: home.Kind, ID: home.ID},
		"the fleet":                    {Partition: state.Fleet, Kind: home.Kind, ID: home.ID},
		"another kind":                 {Partition: home.Partition, Kind: state.KindSenderKey, ID: home.ID},
		"another id":                   {Partition: home.Partition, Kind: home.Kind, ID: "abd"},
		"no id":                        {Partition: home.Partition, Kind: home.Kind},
		"kind and id, joined another":  {Partition: home.Partition, Kind: "SESSa", ID: "bc"},
		"partition and kind, likewise": {Partition: "S/shopS", Kind: "ESS", ID: home.ID},
	} {
		if got, err := k.Open(place, sealed); !errors.Is(err, state.ErrCorrupt) || got != nil {
			t.Errorf("%s: %q, %v", name, got, err)
		}
	}
	if _, err := other.Open(home, sealed); !errors.Is(err, state.ErrCorrupt) || !strings.Contains(err.Error(), other.ID()) {
		t.Errorf("another keyset: %v", err)
	}
	for i := range sealed {
		bad := bytes.Clone(sealed)
		bad[i] ^= 1
		if _, err := k.Open(home, bad); !errors.Is(err, state.ErrCorrupt) {
			t.Errorf("byte %d altered: %v", i, err)
		}
		if _, err := k.Open(home, sealed[:i]); !errors.Is(err, state.ErrCorrupt) {
			t.Errorf("cut to %d bytes: %v", i, err)
		}
	}
	if bytes.Equal(sealed, seals(t, k, home, "secret")) {
		t.Error("the same value was sealed to the same bytes twice")
	}
}

// A keyset that was rotated keeps its id, its names and what it can open.
func TestAddKey(t *testing.T) {
	k := newKeyset(t)
	before := seals(t, k, home, "old")
	next, err := k.AddKey()
	if err != nil {
		t.Fatal(err)
	}
	after := seals(t, next, home, "new")
	if next.ID() != k.ID() || next.Blind("a", "b") != k.Blind("a", "b") {
		t.Error("the id or the blinding changed")
	}
	for sealed, want := range map[string]string{string(before): "old", string(after): "new"} {
		if got, err := next.Open(home, []byte(sealed)); err != nil || string(got) != want {
			t.Errorf("%q, %v; want %q", got, err, want)
		}
	}
	if _, err := k.Open(home, after); !errors.Is(err, state.ErrCorrupt) {
		t.Errorf("the keyset without the new key: %v", err)
	}
	m, _ := newMaster(t)
	wrapped, err := next.Wrap(t.Context(), m, home.Partition)
	if err != nil {
		t.Fatal(err)
	}
	stored, err := seal.Unwrap(t.Context(), m, home.Partition, wrapped)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := stored.Open(home, before); err != nil || string(got) != "old" {
		t.Errorf("after storage: %q, %v", got, err)
	}
}

func TestSealProperties(t *testing.T) {
	k := newKeyset(t)
	place := rapid.Custom(func(t *rapid.T) seal.Place {
		return seal.Place{
			Partition: state.Partition(rapid.SampledFrom([]string{"S/a", "S/ab", "S/b", "FLEET"}).Draw(t, "partition")),
			Kind:      state.Kind(rapid.SampledFrom([]string{"SESS", "SES", "SK", "PK"}).Draw(t, "kind")),
			ID:        rapid.StringN(0, 8, 16).Draw(t, "id"),
		}
	})
	rapid.Check(t, func(t *rapid.T) {
		at, elsewhere := place.Draw(t, "at"), place.Draw(t, "elsewhere")
		plain := rapid.SliceOf(rapid.Byte()).Draw(t, "plain")
		sealed, err := k.Seal(at, plain)
		if err != nil {
			t.Fatal(err)
		}
		got, err := k.Open(at, sealed)
		if err != nil || !bytes.Equal(got, plain) {
			t.Fatalf("sealed %x, opened %x, %v", plain, got, err)
		}
		if _, err := k.Open(elsewhere, sealed); (err == nil) != (at == elsewhere) {
			t.Fatalf("sealed at %s, opened at %s: %v", at, elsewhere, err)
		}
	})
}

func FuzzOpen(f *testing.F) {
	k := newKeyset(f)
	whole := seals(f, k, home, "secret")
	f.Add([]byte(nil))
	f.Add(whole[:len(whole)-1])
	f.Add(append([]byte{2}, whole[1:]...))
	f.Add(append(bytes.Clone(whole), 0))
	f.Add(seals(f, newKeyset(f), home, "secret"))
	f.Fuzz(func(t *testing.T, sealed []byte) {
		if bytes.Equal(sealed, whole) {
			return
		}
		if got, err := k.Open(home, sealed); !errors.Is(err, state.ErrCorrupt) || got != nil {
			t.Fatalf("opened %x: %x, %v", sealed, got, err)
		}
	})
}

func FuzzUnwrap(f *testing.F) {
	m, _ := newMaster(f)
	k := newKeyset(f)
	whole, err := k.Wrap(f.Context(), m, home.Partition)
	if err != nil {
		f.Fatal(err)
	}
	f.Add([]byte{1})
	f.Add(whole[:len(whole)-1])
	f.Add([]byte{1, 255, 'f'})
	f.Fuzz(func(t *testing.T, wrapped []byte) {
		if bytes.Equal(wrapped, whole) {
			return
		}
		if _, err := seal.Unwrap(t.Context(), m, home.Partition, wrapped); !errors.Is(err, state.ErrCorrupt) {
			t.Fatalf("unwrapped %x: %v", wrapped, err)
		}
	})
}

func TestBlind(t *testing.T) {
	k, other := newKeyset(t), newKeyset(t)
	name := k.Blind("address", "4917612345678:1")
	if len(name) != 24 || strings.Trim(name, "abcdefghijklmnopqrstuvwxyz234567") != "" {
		t.Errorf("%q is not 24 characters of a-z and 2-7", name)
	}
	if again := k.Blind("address", "4917612345678:1"); again != name {
		t.Errorf("the same value is %q and %q", name, again)
	}
	for what, differs := range map[string]string{
		"another value":           k.Blind("address", "4917612345678:2"),
		"another label":           k.Blind("group", "4917612345678:1"),
		"another split of both":   k.Blind("address4", "917612345678:1"),
		"another session's names": other.Blind("address", "4917612345678:1"),
	} {
		if differs == name {
			t.Errorf("%s: the same name", what)
		}
	}
}

func TestWrap(t *testing.T) {
	ctx := t.Context()
	m, path := newMaster(t)
	k := newKeyset(t)
	p := state.OfSession("shop")
	wrapped, err := k.Wrap(ctx, m, p)
	if err != nil {
		t.Fatal(err)
	}
	reopened, err := seal.OpenFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if reopened.ID() != m.ID() {
		t.Errorf("the key's id is %s and %s", m.ID(), reopened.ID())
	}
	got, err := seal.Unwrap(ctx, reopened, p, wrapped)
	if err != nil {
		t.Fatal(err)
	}
	if got.ID() != k.ID() || got.Blind("a", "b") != k.Blind("a", "b") {
		t.Error("another keyset came back")
	}
	if plain, err := got.Open(home, seals(t, k, home, "secret")); err != nil || string(plain) != "secret" {
		t.Errorf("opened %q, %v", plain, err)
	}

	if _, err := seal.Unwrap(ctx, m, state.OfSession("other"), wrapped); !errors.Is(err, state.ErrCorrupt) {
		t.Errorf("in another partition: %v", err)
	}
	stranger, _ := newMaster(t)
	_, err = seal.Unwrap(ctx, stranger, p, wrapped)
	if !errors.Is(err, state.ErrCorrupt) || !strings.Contains(err.Error(), m.ID()) || !strings.Contains(err.Error(), stranger.ID()) {
		t.Errorf("the error must name the key that is wanted (%s) and the one that is had (%s): %v", m.ID(), stranger.ID(), err)
	}
}

// A master that stands for a key service: it proves that a keyset hands over
// its partition as context, and nothing else is asked of a master.
type service struct {
	seal.Master
	contexts []map[string]string
}

func (s *service) Wrap(ctx context.Context, plain []byte, c map[string]string) ([]byte, error) {
	s.contexts = append(s.contexts, c)
	return s.Master.Wrap(ctx, plain, c)
}

func (s *service) Unwrap(context.Context, []byte, map[string]string) ([]byte, error) {
	return nil, state.ErrUnavailable
}

func TestOtherMasters(t *testing.T) {
	file, _ := newMaster(t)
	s := &service{Master: file}
	k := newKeyset(t)
	wrapped, err := k.Wrap(t.Context(), s, "S/shop")
	if err != nil {
		t.Fatal(err)
	}
	if len(s.contexts) != 1 || s.contexts[0]["holdfast:partition"] != "S/shop" {
		t.Errorf("the context was %v", s.contexts)
	}
	if _, err := seal.Unwrap(t.Context(), s, "S/shop", wrapped); !errors.Is(err, state.ErrUnavailable) || errors.Is(err, state.ErrCorrupt) {
		t.Errorf("a master that does not answer: %v", err)
	}
}

func TestCreateFile(t *testing.T) {
	_, path := newMaster(t)
	info, err := os.Stat(path)
	if err != nil || info.Mode() != 0o600 {
		t.Errorf("mode %v, %v", info.Mode(), err)
	}
	before, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := seal.CreateFile(path); !errors.Is(err, fs.ErrExist) {
		t.Errorf("a key was made where there is one: %v", err)
	}
	after, err := os.ReadFile(path)
	if err != nil || !bytes.Equal(before, after) {
		t.Errorf("the key was changed: %v", err)
	}
	entries, err := os.ReadDir(filepath.Dir(path))
	if err != nil || len(entries) != 1 {
		t.Errorf("more than the key is there: %v, %v", entries, err)
	}
	if _, err := seal.CreateFile(filepath.Join(path, "below", "a", "file")); err == nil || !strings.Contains(err.Error(), path) {
		t.Errorf("a key was made below a file: %v", err)
	}
}

func TestOpenFileRefuses(t *testing.T) {
	_, path := newMaster(t)
	sound, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	header, body, _ := strings.Cut(string(sound), "\n")
	garbled := []byte(body)
	garbled[5] ^= 1
	for _, c := range []struct {
		name, text string
		mode       fs.FileMode
		want       error
		words      string
	}{
		{"readable by the group", string(sound), 0o640, nil, "chmod 600 "},
		{"readable by all", string(sound), 0o604, nil, "chmod 600 "},
		{"empty", "", 0o600, state.ErrCorrupt, "cut short"},
		{"half a header", header[:10], 0o600, state.ErrCorrupt, "cut short"},
		{"no key", header, 0o600, state.ErrCorrupt, "cut short"},
		{"half a key", string(sound[:len(sound)/2+12]), 0o600, state.ErrCorrupt, "cut short"},
		{"all but two characters", string(sound[:len(sound)-3]), 0o600, state.ErrCorrupt, "cut short"},
		{"altered", header + "\n" + string(garbled), 0o600, state.ErrCorrupt, "garbled"},
		{"too long", string(sound) + "AAAA", 0o600, state.ErrCorrupt, "garbled"},
		{"foreign", "-----BEGIN PRIVATE KEY-----\nAAAA\n", 0o600, state.ErrCorrupt, "not a master key file"},
		{"newer", "holdfast master key v2\nAAAA\n", 0o600, state.ErrCorrupt, "another version"},
		{"large", strings.Repeat("x", 1<<20), 0o600, state.ErrCorrupt, "not a master key file"},
	} {
		path := filepath.Join(t.TempDir(), "master.key")
		if err := os.WriteFile(path, []byte(c.text), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(path, c.mode); err != nil {
			t.Fatal(err)
		}
		_, err := seal.OpenFile(path)
		if err == nil || c.want != nil && !errors.Is(err, c.want) {
			t.Errorf("%s: %v, want %v", c.name, err, c.want)
			continue
		}
		text := err.Error()
		if strings.Contains(text, "\n") || !strings.Contains(text, path) || !strings.Contains(text, c.words) {
			t.Errorf("%s: the error must be one line with the file's name and %q: %s", c.name, c.words, text)
		}
		if strings.Contains(text, body[:12]) {
			t.Errorf("%s: the error shows the key", c.name)
		}
	}
	if _, err := seal.OpenFile(filepath.Join(t.TempDir(), "none")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a file that is not there: %v", err)
	}
	if _, err := seal.OpenFile(t.TempDir()); err == nil || !strings.Contains(err.Error(), "not a regular file") {
		t.Errorf("a folder: %v", err)
	}
}
