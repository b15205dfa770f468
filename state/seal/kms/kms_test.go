package kms

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/credentials"

	"github.com/holdfast-wa/holdfast/state"
	"github.com/holdfast-wa/holdfast/state/seal"
)

var place = seal.Place{Partition: "S/shop", Kind: state.KindSignal, ID: "abc"}

func newKeyset(t *testing.T) *seal.Keyset {
	t.Helper()
	k, err := seal.NewKeyset()
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func TestWrap(t *testing.T) {
	var f fakeKMS
	m := open(t, f.serve(t).URL, keyARN)
	k := newKeyset(t)
	sealed, err := k.Seal(place, []byte("secret"))
	if err != nil {
		t.Fatal(err)
	}
	wrapped, err := k.Wrap(t.Context(), m, place.Partition)
	if err != nil {
		t.Fatal(err)
	}
	got, err := seal.Unwrap(t.Context(), m, place.Partition, wrapped)
	if err != nil {
		t.Fatal(err)
	}
	for range 100 {
		if plain, err := got.Open(place, sealed); err != nil || string(plain) != "secret" {
			t.Fatalf("%q, %v", plain, err)
		}
	}
	if e, d := f.count("Encrypt"), f.count("Decrypt"); e != 1 || d != 1 || len(f.calls) != 2 {
		t.Errorf("%d calls, %d to encrypt and %d to decrypt; want one each, and none to open what is sealed", len(f.calls), e, d)
	}
	for _, c := range f.calls {
		if c.KeyId != keyARN || c.EncryptionContext["holdfast:partition"] != "S/shop" || c.EncryptionContext["holdfast:purpose"] != "keyset" {
			t.Errorf("%s with key %s and context %v", c.Operation, c.KeyId, c.EncryptionContext)
		}
	}
	if m.ID() != "kms:"+keyARN {
		t.Errorf("its id is %s", m.ID())
	}
	if err := m.Ping(t.Context()); err != nil {
		t.Error(err)
	}
}

// What is not of this key, this context or whole is corrupt. The error names the
// keys, and KMS is asked only where it has to be.
func TestUnwrapRefuses(t *testing.T) {
	var f fakeKMS
	server := f.serve(t)
	m, stranger := open(t, server.URL, keyARN), open(t, server.URL, strings.Replace(keyARN, "1234abcd", "9999ffff", 1))
	file, err := seal.CreateFile(filepath.Join(t.TempDir(), "master.key"))
	if err != nil {
		t.Fatal(err)
	}
	k := newKeyset(t)
	wrapped, err := k.Wrap(t.Context(), m, "S/shop")
	if err != nil {
		t.Fatal(err)
	}
	foreign, err := k.Wrap(t.Context(), file, "S/shop")
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		m       seal.Master
		p       state.Partition
		wrapped []byte
		words   []string
		asks    int
	}{
		"another session":     {m, "S/other", wrapped, []string{m.ID(), "another partition"}, 1},
		"the fleet":           {m, state.Fleet, wrapped, []string{m.ID()}, 1},
		"damaged":             {m, "S/shop", append(bytes.Clone(wrapped[:len(wrapped)-1]), wrapped[len(wrapped)-1]^1), []string{m.ID()}, 1},
		"cut short":           {m, "S/shop", wrapped[:20], []string{"cut short"}, 0},
		"cut behind its head": {m, "S/shop", wrapped[:2+len(m.ID())], []string{"0 bytes"}, 0},
		"too long":            {m, "S/shop", append(bytes.Clone(wrapped), make([]byte, 7000)...), []string{"never makes"}, 0},
		"another KMS key":     {stranger, "S/shop", wrapped, []string{m.ID(), stranger.ID()}, 0},
		"from a key file":     {m, "S/shop", foreign, []string{m.ID(), file.ID()}, 0},
		"for a key file":      {file, "S/shop", wrapped, []string{m.ID(), file.ID()}, 0},
	} {
		before := f.count("Decrypt")
		got, err := seal.Unwrap(t.Context(), c.m, c.p, c.wrapped)
		if got != nil || !errors.Is(err, state.ErrCorrupt) || errors.Is(err, state.ErrUnavailable) {
			t.Errorf("%s: %v", name, err)
			continue
		}
		for _, w := range c.words {
			if !strings.Contains(err.Error(), w) {
				t.Errorf("%s: the error must have %q: %v", name, w, err)
			}
		}
		if asked := f.count("Decrypt") - before; asked != c.asks {
			t.Errorf("%s: KMS was asked %d times, want %d", name, asked, c.asks)
		}
	}
}

// A key in several regions is one key: a fleet that moved goes on.
func TestMultiRegionKey(t *testing.T) {
	var f fakeKMS
	server := f.serve(t)
	const id = "key/mrk-1234abcd12ab34cd56ef1234567890ab"
	here := open(t, server.URL, "arn:aws:kms:eu-west-1:111122223333:"+id)
	there := open(t, server.URL, "arn:aws:kms:us-east-1:111122223333:"+id)
	wrapped, err := newKeyset(t).Wrap(t.Context(), here, "S/shop")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := seal.Unwrap(t.Context(), there, "S/shop", wrapped); err != nil {
		t.Errorf("in its other region: %v", err)
	}
	another := open(t, server.URL, "arn:aws:kms:us-east-1:444455556666:"+id)
	if _, err := seal.Unwrap(t.Context(), another, "S/shop", wrapped); !errors.Is(err, state.ErrCorrupt) {
		t.Errorf("in another account: %v", err)
	}
}

// None of these may pass for a corrupt keyset: that would cost a session its
// credentials.
func TestFaults(t *testing.T) {
	for name, c := range map[string]struct {
		status int
		code   string
		text   string
		words  string
	}{
		"no permission":       {400, "AccessDeniedException", "User: arn:aws:sts::1:assumed-role/task is not authorized to perform: kms:Decrypt", "allow kms:"},
		"no such key":         {400, "NotFoundException", "Key does not exist", "correct the ARN"},
		"a disabled key":      {400, "DisabledException", "key is disabled.", "enable it"},
		"pending deletion":    {400, "KMSInvalidStateException", "key is pending deletion.", "cancel that at once"},
		"an asymmetric key":   {400, "InvalidKeyUsageException", "", "must be symmetric"},
		"expired credentials": {400, "ExpiredTokenException", "The security token included in the request is expired", "have expired"},
		"an unknown key id":   {400, "UnrecognizedClientException", "The security token included in the request is invalid", "are not accepted"},
		"throttling":          {400, "ThrottlingException", "Rate exceeded", "throttling"},
		"a slow dependency":   {503, "DependencyTimeoutException", "", "nothing is lost"},
		"no key store":        {500, "KeyUnavailableException", "", "nothing is lost"},
		"a fault":             {500, "KMSInternalException", "", "has a fault"},
	} {
		t.Run(name, func(t *testing.T) {
			var f fakeKMS
			m := open(t, f.serve(t).URL, keyARN)
			k := newKeyset(t)
			wrapped, err := k.Wrap(t.Context(), m, "S/shop")
			if err != nil {
				t.Fatal(err)
			}
			f.before = func(w http.ResponseWriter, _ string) bool {
				fail(w, c.status, c.code, c.text)
				return true
			}
			_, wrapErr := k.Wrap(t.Context(), m, "S/shop")
			_, unwrapErr := seal.Unwrap(t.Context(), m, "S/shop", wrapped)
			for how, err := range map[string]error{"wrap": wrapErr, "unwrap": unwrapErr, "ping": m.Ping(t.Context())} {
				text := fmt.Sprint(err)
				if !errors.Is(err, state.ErrUnavailable) || errors.Is(err, state.ErrCorrupt) {
					t.Errorf("%s: %v", how, err)
				}
				if !strings.Contains(text, keyARN) || !strings.Contains(text, c.code) || !strings.Contains(text, c.words) || strings.Contains(text, "\n") {
					t.Errorf("%s: the error must name the key, the code and %q in one line: %s", how, c.words, text)
				}
			}
		})
	}
}

// A failure of the moment is tried again within the call.
func TestRetries(t *testing.T) {
	var f fakeKMS
	m := open(t, f.serve(t).URL, keyARN)
	left := 2
	f.before = func(w http.ResponseWriter, _ string) bool {
		if left == 0 {
			return false
		}
		left--
		fail(w, http.StatusBadRequest, "ThrottlingException", "Rate exceeded")
		return true
	}
	if _, err := newKeyset(t).Wrap(t.Context(), m, "S/shop"); err != nil || f.count("Encrypt") != 3 {
		t.Errorf("after %d calls: %v", f.count("Encrypt"), err)
	}
}

func TestOutOfReach(t *testing.T) {
	still := make(chan struct{})
	silent := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		select {
		case <-still:
		case <-r.Context().Done():
		}
	}))
	t.Cleanup(silent.Close)
	t.Cleanup(func() { close(still) })
	gone := httptest.NewServer(http.NotFoundHandler())
	gone.Close()
	keyless, err := Open(t.Context(), Options{KeyARN: keyARN, Endpoint: silent.URL, Credentials: credentials.NewStaticCredentialsProvider("", "", "")})
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		m     *Master
		words string
	}{
		"silent":         {open(t, silent.URL, keyARN), "did not answer in time"},
		"gone":           {open(t, gone.URL, keyARN), "cannot be reached"},
		"no credentials": {keyless, "no usable credentials"},
	} {
		c.m.limit = 300 * time.Millisecond
		if err := c.m.Ping(t.Context()); !errors.Is(err, state.ErrUnavailable) || errors.Is(err, state.ErrCorrupt) || !strings.Contains(err.Error(), c.words) {
			t.Errorf("%s: %v; want %q", name, err, c.words)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := open(t, silent.URL, keyARN).Ping(ctx); !errors.Is(err, state.ErrUnavailable) || !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
}

// Rotation adds keys to a keyset. How many KMS takes is a bound of ours to know.
func TestKeysetsFit(t *testing.T) {
	var f fakeKMS
	m := open(t, f.serve(t).URL, keyARN)
	k := newKeyset(t)
	var err error
	keys := 1
	for ; keys < 100; keys++ {
		if _, err = k.Wrap(t.Context(), m, "S/shop"); err != nil {
			break
		}
		if k, err = k.AddKey(); err != nil {
			t.Fatal(err)
		}
	}
	if keys <= 36 || keys > 40 || !errors.Is(err, state.ErrTooLarge) || !strings.Contains(err.Error(), "too many keys") {
		t.Errorf("a keyset of %d keys does not fit: %v; want some 38 that do", keys, err)
	}
}

// From a file to KMS and from one KMS key to the next.
func TestRewrap(t *testing.T) {
	var f fakeKMS
	server := f.serve(t)
	first, second := open(t, server.URL, keyARN), open(t, server.URL, strings.Replace(keyARN, "1234abcd", "9999ffff", 1))
	file, err := seal.CreateFile(filepath.Join(t.TempDir(), "master.key"))
	if err != nil {
		t.Fatal(err)
	}
	k := newKeyset(t)
	wrapped, err := k.Wrap(t.Context(), file, "S/shop")
	if err != nil {
		t.Fatal(err)
	}
	for _, step := range []struct{ from, to seal.Master }{{file, first}, {first, second}, {first, second}, {second, file}} {
		if wrapped, err = seal.Rewrap(t.Context(), step.from, step.to, "S/shop", wrapped); err != nil {
			t.Fatalf("from %s to %s: %v", step.from.ID(), step.to.ID(), err)
		}
		if got, err := seal.Unwrap(t.Context(), step.to, "S/shop", wrapped); err != nil || got.ID() != k.ID() {
			t.Fatalf("from %s to %s: %v", step.from.ID(), step.to.ID(), err)
		}
	}
	// Two wrapped with KMS, each checked once and read once later; and three looked at above.
	if e, d := f.count("Encrypt"), f.count("Decrypt"); e != 2 || d != 7 {
		t.Errorf("%d calls to encrypt, %d to decrypt", e, d)
	}
}

func TestOpenRefuses(t *testing.T) {
	for arn, words := range map[string]string{
		"":           "is not the ARN",
		"1234abcd":   "is not the ARN",
		keyARN + " ": "is not the ARN",
		"arn:aws:kms:eu-west-1:111122223333:alias/holdfast":                  "is an alias",
		"arn:aws:s3:eu-west-1:111122223333:key/1":                            "is not the ARN",
		"arn:aws:kms::111122223333:key/1":                                    "is not the ARN",
		"arn:aws:kms:eu-west-1:111122223333:key/":                            "is not the ARN",
		"arn:aws:kms:eu-west-1:111122223333:key/" + strings.Repeat("1", 300): "is not the ARN",
		"arn:aws:kms:eu-west-1:111122223333:key/1\nand more":                 "is not the ARN",
	} {
		if _, err := Open(t.Context(), Options{KeyARN: arn}); err == nil || !strings.Contains(err.Error(), words) || strings.Contains(err.Error(), "\n") {
			t.Errorf("%q: %v; want one line with %q", arn, err, words)
		}
	}
	if _, err := Open(t.Context(), Options{KeyARN: keyARN, Region: "us-east-1"}); err == nil || !strings.Contains(err.Error(), "us-east-1") {
		t.Errorf("a region that is not the key's: %v", err)
	}
	if _, err := Open(t.Context(), Options{KeyARN: keyARN, Endpoint: "kms"}); err == nil || !strings.Contains(err.Error(), "endpoint") {
		t.Errorf("an endpoint that is none: %v", err)
	}
	if m, err := Open(t.Context(), Options{KeyARN: keyARN, Region: "eu-west-1"}); err != nil || m.client.Options().Region != "eu-west-1" {
		t.Errorf("the key's own region: %v", err)
	}
}
