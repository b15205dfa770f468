package main

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"net/http/httputil"
	"net/url"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/holdfast-wa/holdfast/state"
	"github.com/holdfast-wa/holdfast/state/dynamo/dynamotest"
	"github.com/holdfast-wa/holdfast/state/memory"
	"github.com/holdfast-wa/holdfast/state/statetest"
	"github.com/holdfast-wa/holdfast/worker"
)

// dynamoLocal returns the address of an empty DynamoDB Local, which ends its
// connections with the test.
func dynamoLocal(t *testing.T) string {
	t.Helper()
	endpoint, err := url.Parse(dynamotest.Endpoint(t))
	if err != nil {
		t.Fatal(err)
	}
	transport := http.DefaultTransport.(*http.Transport).Clone()
	t.Cleanup(transport.CloseIdleConnections)
	proxy := &httputil.ReverseProxy{Transport: transport, Rewrite: func(r *httputil.ProxyRequest) {
		r.SetURL(endpoint)
		r.Out.Host = r.In.Host // it is signed
	}}
	return newServer(t, proxy)
}

// A fleet's store from its first doctor to its restoration, with real tables and
// the stand-ins for S3 and KMS.
func TestTheLifeOfAFleetsStore(t *testing.T) {
	f := newFakeAWS(t)
	dynamodb := dynamoLocal(t)
	t.Setenv("AWS_ACCESS_KEY_ID", "T"+strings.Repeat("x", 8)+strings.ReplaceAll(t.Name(), "_", "")) // a database of its own
	url := f.serve(t)
	environ := []string{"HOLDFAST_DATA_DIR=" + t.TempDir(), "HOLDFAST_STATE=dynamodb:life", "HOLDFAST_VAULT=s3://bucket/life", "HOLDFAST_MASTER_KEY=awskms:" + keyARN,
		"HOLDFAST_AWS_ENDPOINT_DYNAMODB=" + dynamodb, "HOLDFAST_AWS_ENDPOINT_S3=" + url, "HOLDFAST_AWS_ENDPOINT_KMS=" + url,
		"HOLDFAST_WHATSAPP_URL=" + endpointAt(t, 0), "HOLDFAST_HEARTBEAT=200ms", "HOLDFAST_TRUST=500ms", "HOLDFAST_TAKEOVER=1s"}
	expect := func(found map[string]Finding, check, level, text string) {
		t.Helper()
		if got := found[check]; got.Level != level || !strings.Contains(got.Found+"; "+got.Do, text) {
			t.Errorf("%s: %+v; want %s with %q", check, got, level, text)
		}
	}

	code, found := diagnose(t, environ)
	if code != exitFailed {
		t.Errorf("without tables: exit code %d", code)
	}
	expect(found, "state", levelFail, "do not exist")
	expect(found, "credentials", levelOK, "from ")
	expect(found, "region", levelOK, "eu-west-1")
	expect(found, "master key", levelOK, "wraps and unwraps")
	expect(found, "vault", levelOK, "s3://bucket/life can be listed, written and read")
	expect(found, "bucket versions", levelOK, "are kept")
	expect(found, "bucket encryption", levelOK, "is on (aws:kms)")
	expect(found, "bucket access", levelOK, "closed to the public")

	code, found = diagnose(t, environ, "--create-tables")
	if code != exitDone {
		t.Errorf("with new tables: exit code %d: %+v", code, found)
	}
	expect(found, "create tables", levelOK, "have Terraform take them over")
	expect(found, "state", levelOK, "the tables of dynamodb:life are as they should be")
	expect(found, "identity", levelOK, "have not been used yet")
	expect(found, "fleet keyset", levelOK, "will be made at the first start")
	expect(found, "aws clock", levelOK, "agrees with DynamoDB")

	cfg := settingsOf(t, environ...)
	o, err := openState(t.Context(), cfg, quiet())
	if err != nil {
		t.Fatal(err)
	}
	if err := o.ready(t.Context()); err != nil || !o.keyset.There() {
		t.Fatalf("ready: %v", err)
	}
	if err := firstSession(t.Context(), o.store, quiet()); err != nil {
		t.Fatal(err)
	}
	if _, err := o.store.Join(t.Context(), "w-old", state.MemberInfo{}); err != nil {
		t.Fatal(err)
	}
	if mark := string(f.objects["/bucket/life/.holdfast-fleet"]); mark == "" {
		t.Error("the vault is not marked as this fleet's")
	}
	_, found = diagnose(t, environ)
	expect(found, "identity", levelOK, "are those of the first use on")
	expect(found, "fleet keyset", levelOK, "is wrapped with the master key")

	// Another fleet's key on these tables.
	r := drive(t, append(environ, "HOLDFAST_MASTER_KEY=file:"+writeKey(t)), "sessions", "verify")
	if r.code != exitFailed || strings.Count(r.err, "\n") != 1 || !strings.Contains(r.err, "state dynamodb:life: belongs to a fleet with another master key") {
		t.Errorf("another fleet's key: exit code %d, %s", r.code, r.err)
	}
	if r := drive(t, environ, "sessions", "verify"); r.code != exitDone || r.out != "ok    default\n" {
		t.Errorf("verify: exit code %d, %s%s", r.code, r.out, r.err)
	}

	// Not restored: there is nothing to adopt.
	if r := drive(t, environ, "adopt", "--restored", "--yes"); r.code != exitFailed || !strings.Contains(r.err, "is not restored from a backup") {
		t.Errorf("adopt: exit code %d, %s", r.code, r.err)
	}
	o.close()

	// The tables of a backup have the record of others.
	restore(t, cfg)
	refusedAtStart(t, cfg, "state dynamodb:life: was restored from a backup", "; stop all workers and run holdfast adopt --restored")
	code, found = diagnose(t, environ)
	if code != exitFailed {
		t.Errorf("restored: exit code %d", code)
	}
	expect(found, "identity", levelFail, "run holdfast adopt --restored")
	if r := drive(t, environ, "adopt"); r.code != exitUsage || !strings.Contains(r.err, "use holdfast adopt --restored") {
		t.Errorf("adopt alone: exit code %d, %s", r.code, r.err)
	}
	if r := drive(t, environ, "adopt", "--restored"); r.code == exitDone || !strings.Contains(r.err, "--yes") {
		t.Errorf("adopt without a yes: exit code %d, %s", r.code, r.err)
	}
	r = drive(t, environ, "adopt", "--restored", "--yes", "--json")
	var done worker.Adopted
	if err := json.Unmarshal([]byte(r.out), &done); err != nil || r.code != exitDone || done.Sessions != 1 {
		t.Fatalf("adopt: exit code %d, %v, %s%s", r.code, err, r.out, r.err)
	}
	o, err = openState(t.Context(), cfg, quiet())
	if err != nil {
		t.Fatalf("after it was adopted: %v", err)
	}
	defer o.close()
	if err := o.ready(t.Context()); err != nil {
		t.Errorf("after it was adopted: %v", err)
	}
	// The worker of the backup is dead, the tool has left.
	roster, err := o.store.Roster(t.Context())
	if err != nil || len(roster.Members) != 1 || !roster.Members[0].Dead {
		t.Errorf("members: %+v, %v", roster.Members, err)
	}
}

// restore makes the record of the first use another table's, which is how tables
// look that were restored.
func restore(t *testing.T, cfg Config) {
	t.Helper()
	store, err := newDynamo(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer store.Close()
	value, err := state.Encode(map[string]any{"v": state.Format, "identity": "another", "at": time.Now()})
	if err != nil {
		t.Fatal(err)
	}
	if err := store.Update(t.Context(), state.Fleet, []state.Write{state.Put(state.KindFleet, "TABLE", value)}); err != nil {
		t.Fatal(err)
	}
}

// Tables that are replaced by a backup's while a worker runs: it never trusts
// itself on them.
func TestAStoreThatIsReplacedWhileAWorkerRuns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		inner := statetest.Fault(memory.New(time.Now))
		var looks atomic.Int32
		var replaced, slow atomic.Bool
		genuine := func(ctx context.Context) error {
			looks.Add(1)
			if slow.Load() {
				<-ctx.Done()
				return state.ErrUnavailable
			}
			if replaced.Load() {
				return &worker.RestoredError{}
			}
			return nil
		}
		ctx, stop := context.WithCancel(t.Context())
		defer stop()
		failed := make(chan error, 1)
		g := newGuarded(ctx, inner, genuine, 8*time.Second, failed, quiet())
		if _, err := g.Join(ctx, "w-1", state.MemberInfo{}); err != nil {
			t.Fatal(err)
		}
		beat := func() error {
			time.Sleep(2 * time.Second)
			one, cancel := context.WithTimeout(ctx, time.Second)
			defer cancel()
			return g.Beat(one, "w-1", state.Load{})
		}
		for range 10 {
			if err := beat(); err != nil {
				t.Fatal(err)
			}
		}
		// An outage that is over within the time that it trusts itself.
		inner.FailBefore(statetest.Of(statetest.Beat), 2, nil)
		for range 4 {
			_ = beat() // some of them fail
		}
		if n := looks.Load(); n != 0 {
			t.Fatalf("%d looks without a reason", n)
		}
		// A longer one, with the same store behind it.
		inner.FailBefore(statetest.Of(statetest.Beat), 6, nil)
		for range 6 {
			if err := beat(); err == nil {
				t.Fatal("a beat that failed went well")
			}
		}
		if err := beat(); err != nil || looks.Load() == 0 {
			t.Fatalf("after an outage: %v, %d looks", err, looks.Load())
		}
		// The look takes longer than a heartbeat may: it goes on beside it.
		time.Sleep(time.Hour)
		slow.Store(true)
		if err := beat(); !errors.Is(err, state.ErrUnavailable) {
			t.Errorf("while it is not known: %v", err)
		}
		slow.Store(false)
		time.Sleep(lookWithin)
		synctest.Wait()
		if err := beat(); err != nil {
			t.Errorf("after it is known: %v", err)
		}
		// And with another store behind it, which knows the worker as alive.
		time.Sleep(time.Minute)
		replaced.Store(true)
		for range 3 {
			if err := beat(); !errors.Is(err, state.ErrUnavailable) {
				t.Errorf("on a restored store: %v", err)
			}
		}
		if _, err := g.Join(ctx, "w-2", state.MemberInfo{}); !errors.Is(err, state.ErrUnavailable) {
			t.Errorf("joined a restored store: %v", err)
		}
		var restored *worker.RestoredError
		select {
		case err := <-failed:
			if !errors.As(err, &restored) {
				t.Errorf("told %v", err)
			}
		default:
			t.Error("nobody was told")
		}
	})
}
