package standin

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/holdfast-wa/holdfast/state"
	"github.com/holdfast-wa/holdfast/state/dynamo"
	"github.com/holdfast-wa/holdfast/state/dynamo/dynamolocal"
	"github.com/holdfast-wa/holdfast/state/seal"
	"github.com/holdfast-wa/holdfast/state/seal/kms"
	"github.com/holdfast-wa/holdfast/state/vault"
)

// begin starts stand-ins in a folder. As with the tests of the store, a machine
// without Java or DynamoDB Local may leave these out, unless
// HOLDFAST_REQUIRE_ALL is 1.
func begin(t *testing.T, o Options) *Standin {
	t.Helper()
	required := os.Getenv("HOLDFAST_REQUIRE_ALL") == "1"
	o.Offline = !required
	s, err := Start(t.Context(), o)
	if err != nil && !required && (errors.Is(err, dynamolocal.ErrMissing) || errors.Is(err, exec.ErrNotFound)) {
		t.Skip(err)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { end(t, s) })
	return s
}

func end(t *testing.T, s *Standin) {
	t.Helper()
	if err := s.Close(); err != nil {
		t.Error(err)
	}
}

// caller is what a worker opens: each of the real adapters, through a line.
type caller struct {
	store  *dynamo.Store
	vault  *vault.S3
	master *kms.Master
}

func call(t *testing.T, s *Standin, line string) caller {
	t.Helper()
	env, err := s.Environment(line)
	if err != nil {
		t.Fatal(err)
	}
	for k, v := range env {
		t.Setenv(k, v)
	}
	var c caller
	if c.store, err = dynamo.Open(t.Context(), dynamo.Options{Prefix: strings.TrimPrefix(env["HOLDFAST_STATE"], "dynamodb:"),
		Endpoint: env["HOLDFAST_AWS_ENDPOINT_DYNAMODB"], RetryFor: 3 * time.Second}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.store.Close() })
	bucket, prefix, _ := strings.Cut(strings.TrimPrefix(env["HOLDFAST_VAULT"], "s3://"), "/")
	if c.vault, err = vault.OpenS3(t.Context(), vault.S3Options{Bucket: bucket, Prefix: prefix, Endpoint: env["HOLDFAST_AWS_ENDPOINT_S3"]}); err != nil {
		t.Fatal(err)
	}
	if c.master, err = kms.Open(t.Context(), kms.Options{KeyARN: strings.TrimPrefix(env["HOLDFAST_MASTER_KEY"], "awskms:"),
		Endpoint: env["HOLDFAST_AWS_ENDPOINT_KMS"]}); err != nil {
		t.Fatal(err)
	}
	return c
}

// The real adapters work through a line; what they wrote is there for a second
// run in the same folder.
func TestKept(t *testing.T) {
	o := Options{Dir: t.TempDir(), Keep: true, Lines: []string{"w1", "w2"}}
	s := begin(t, o)
	keyset, err := seal.NewKeyset()
	if err != nil {
		t.Fatal(err)
	}
	c := call(t, s, "w1")
	if err := c.store.Check(t.Context()); err != nil {
		t.Error(err)
	}
	if err := c.store.CreateSession(t.Context(), "shop", nil); err != nil {
		t.Fatal(err)
	}
	version, err := c.vault.PutObject(t.Context(), "shop", "one", []byte("sealed"))
	if err != nil {
		t.Fatal(err)
	}
	if version == "" {
		t.Error("the bucket keeps no versions")
	}
	if err := c.master.Ping(t.Context()); err != nil {
		t.Error(err)
	}
	wrapped, err := keyset.Wrap(t.Context(), c.master, "S/shop")
	if err != nil {
		t.Fatal(err)
	}
	end(t, s)

	s = begin(t, o)
	c = call(t, s, "w2")
	if all, err := c.store.Sessions(t.Context(), "", 10); err != nil || len(all) != 1 || all[0].Session != "shop" {
		t.Errorf("sessions: %+v, %v", all, err)
	}
	if b, err := c.vault.GetObject(t.Context(), "shop", "one", version); err != nil || string(b) != "sealed" {
		t.Errorf("the object: %q, %v", b, err)
	}
	if _, err := seal.Unwrap(t.Context(), c.master, "S/shop", wrapped); err != nil {
		t.Errorf("the keyset: %v", err)
	}
	if _, err := seal.Unwrap(t.Context(), c.master, "S/other", wrapped); !errors.Is(err, state.ErrCorrupt) {
		t.Errorf("the keyset of another session: %v", err)
	}
	if got := strings.Join(s.Contexts(), " "); !strings.Contains(got, "S/shop") || !strings.Contains(got, "S/other") {
		t.Errorf("contexts: %s", got)
	}
}

// Each fault of a line does what it says, to that line alone, and goes away.
func TestLines(t *testing.T) {
	s := begin(t, Options{Dir: t.TempDir(), Lines: []string{"w1", "w2"}})
	c, other := call(t, s, "w1"), call(t, s, "w2")
	ping := func(c caller) error {
		ctx, cancel := context.WithTimeout(t.Context(), 1500*time.Millisecond)
		defer cancel()
		return c.store.Ping(ctx)
	}
	if err := ping(c); err != nil {
		t.Fatal(err)
	}
	for i, f := range []Fault{{Kind: Refuse}, {Kind: Hole}, {Kind: LoseRequests}, {Kind: LoseReplies}, {Kind: Throttle}} {
		if err := s.Break("w1", DynamoDB, f); err != nil {
			t.Fatal(err)
		}
		if err := ping(c); err == nil {
			t.Errorf("%s: the store answers", f.Kind)
		}
		if err := ping(other); err != nil {
			t.Errorf("%s: it strikes another line too: %v", f.Kind, err)
		}
		if _, err := c.vault.ListObjects(t.Context(), "shop"); err != nil {
			t.Errorf("%s: it strikes another service too: %v", f.Kind, err)
		}
		name := "s" + string(rune('a'+i))
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		if err := c.store.Update(ctx, state.Fleet, []state.Write{state.Put(state.KindFleet, name, []byte("x"))}); err == nil {
			t.Errorf("%s: a record could be written", f.Kind)
		}
		cancel()
		// What was asked has happened only where just the answer was lost.
		if _, err := other.store.Get(t.Context(), state.Fleet, state.Key{Kind: state.KindFleet, ID: name}); (err == nil) != (f.Kind == LoseReplies) {
			t.Errorf("%s: afterwards the record is: %v", f.Kind, err)
		}
		if got := s.State()["w1"][DynamoDB]; got != f {
			t.Errorf("%s: the state is %+v", f.Kind, got)
		}
		if err := s.Heal("w1", DynamoDB); err != nil {
			t.Fatal(err)
		}
		if err := ping(c); err != nil {
			t.Errorf("%s: healed, and %v", f.Kind, err)
		}
	}
	if err := s.Break("w1", DynamoDB, Fault{Kind: Late, DelayMS: 300}); err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	if err := ping(c); err != nil || time.Since(began) < 300*time.Millisecond {
		t.Errorf("late: %v after %v", err, time.Since(began))
	}
	for _, service := range []Service{S3, KMS} {
		if err := s.Break("w1", service, Fault{Kind: Refuse}); err != nil {
			t.Fatal(err)
		}
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	if _, err := c.vault.ListObjects(ctx, "shop"); !errors.Is(err, state.ErrUnavailable) {
		t.Errorf("the vault: %v", err)
	}
	if err := c.master.Ping(ctx); !errors.Is(err, state.ErrUnavailable) {
		t.Errorf("the master key: %v", err)
	}
	if err := s.HealAll(); err != nil || len(s.State()) > 0 {
		t.Errorf("healed: %v, %v", s.State(), err)
	}
	if _, err := c.vault.ListObjects(t.Context(), "shop"); err != nil {
		t.Error(err)
	}
	control(t, s)
}

// control drives the same over HTTP.
func control(t *testing.T, s *Standin) {
	server := httptest.NewServer(s.Handler())
	defer server.Close()
	ask := func(method, path, body string, want int) {
		t.Helper()
		r, err := http.NewRequestWithContext(t.Context(), method, server.URL+path, strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		resp, err := http.DefaultClient.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		if resp.StatusCode != want {
			t.Errorf("%s %s %s: %s", method, path, body, resp.Status)
		}
	}
	ask("PUT", "/lines/w2/all", `{"kind":"hole"}`, 200)
	if got := s.State(); len(got["w2"]) != len(Services) || len(got) != 1 {
		t.Errorf("broken: %v", got)
	}
	ask("DELETE", "/lines/w2/s3", "", 200)
	if got := s.State(); len(got["w2"]) != len(Services)-1 {
		t.Errorf("broken: %v", got)
	}
	for body, path := range map[string]string{`{"kind":"hole"}`: "/lines/w9/s3", `{"kind":"none"}`: "/lines/w1/s3", `{"kind":"late"}`: "/lines/w1/s3",
		`{"kind":"hole","delayMs":5}`: "/lines/w1/s3", `{"what":1}`: "/lines/w1/s3", `{"kind":"refuse"}`: "/lines/w1/sqs", `{"kind":"throttle"}`: "/lines/w1/kms"} {
		ask("PUT", path, body, 400)
	}
	ask("DELETE", "/lines", "", 200)
	ask("GET", "/", "", 200)
	if got := s.State(); len(got) > 0 {
		t.Errorf("broken: %v", got)
	}
}
