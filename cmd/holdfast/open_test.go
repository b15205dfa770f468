package main

import (
	"context"
	"encoding/pem"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/holdfast-wa/holdfast/state"
	"github.com/holdfast-wa/holdfast/state/seal"
)

func quiet() *slog.Logger { return slog.New(slog.DiscardHandler) }

// settingsOf reads a configuration that is right.
func settingsOf(t *testing.T, environ ...string) Config {
	t.Helper()
	cfg, err := configOf(t, environ)
	if err != nil {
		t.Fatal(err)
	}
	return cfg
}

// refusedAtStart tries to open, and compares the one line that it says.
func refusedAtStart(t *testing.T, cfg Config, want ...string) {
	t.Helper()
	o, err := openState(t.Context(), cfg, quiet())
	if err == nil {
		o.close()
		t.Fatalf("it starts; want %q", want)
	}
	for _, w := range want {
		if !strings.Contains(err.Error(), w) {
			t.Errorf("it says %q, want %q", err, w)
		}
	}
	if strings.Contains(err.Error(), "\n") || strings.Contains(err.Error(), "not-a-real-secret") || strings.Contains(err.Error(), "AKIDEXAMPLE") {
		t.Errorf("not a line for people: %q", err)
	}
}

// What DynamoDB says at the start when something about it is wrong. The answers
// are a fake's: DynamoDB Local knows no permissions and no expiry.
func TestStartsThatDynamoDBRefuses(t *testing.T) {
	missing := refusing(http.StatusBadRequest, "ResourceNotFoundException", "Requested resource not found")
	for name, c := range map[string]struct {
		answer map[string]func(http.ResponseWriter)
		want   []string
	}{
		"no tables": {map[string]func(http.ResponseWriter){"dynamodb.DescribeTable": missing},
			[]string{"state dynamodb:fleet: ", "fleet-fleet and fleet-signal do not exist in region eu-west-1", "holdfast doctor --create-tables"}},
		"an expired credential": {map[string]func(http.ResponseWriter){"dynamodb": refusing(http.StatusBadRequest, "ExpiredTokenException", "The security token included in the request is expired")},
			[]string{"state dynamodb:fleet: DynamoDB in region eu-west-1", "is expired", "renew them"}},
		"a key that is none": {map[string]func(http.ResponseWriter){"dynamodb": refusing(http.StatusBadRequest, "UnrecognizedClientException", "The security token included in the request is invalid.")},
			[]string{"are not accepted; check the access key"}},
		"no permission": {map[string]func(http.ResponseWriter){"dynamodb": refusing(http.StatusBadRequest, "AccessDeniedException", "User is not authorized to perform it")},
			[]string{"state dynamodb:fleet: table fleet-fleet: ", "allow"}},
		"another table": {map[string]func(http.ResponseWriter){"dynamodb.DescribeTable": func(w http.ResponseWriter) {
			fmt.Fprint(w, `{"Table":{"TableStatus":"ACTIVE","TableId":"t","KeySchema":[{"AttributeName":"id","KeyType":"HASH"}],"AttributeDefinitions":[{"AttributeName":"id","AttributeType":"S"}]}}`)
		}, "dynamodb.DescribeTimeToLive": func(w http.ResponseWriter) {
			fmt.Fprint(w, `{"TimeToLiveDescription":{"TimeToLiveStatus":"DISABLED"}}`)
		},
			"dynamodb": missing},
			[]string{"table fleet-fleet: its key is id (S), not pk (S), sk (S)", "its index by-index is missing", "TTL is off"}},
	} {
		t.Run(name, func(t *testing.T) {
			f := newFakeAWS(t)
			for operation, do := range c.answer {
				f.on(operation, do)
			}
			cfg := settingsOf(t, "HOLDFAST_DATA_DIR="+t.TempDir(), "HOLDFAST_STATE=dynamodb:fleet", "HOLDFAST_AWS_ENDPOINT_DYNAMODB="+f.serve(t))
			began := time.Now()
			refusedAtStart(t, cfg, c.want...)
			if took := time.Since(began); took > 15*time.Second {
				t.Errorf("it took %v to say so", took)
			}
			if _, err := os.Stat(cfg.MasterKey.Path); err == nil {
				t.Error("a master key was made for a store that was not there")
			}
		})
	}
}

// A store that does not answer is asked again for a while, because it may be the
// network of a task that is just starting.
func TestStartsBesideADynamoDBThatIsSilent(t *testing.T) {
	f := newFakeAWS(t)
	cfg := settingsOf(t, "HOLDFAST_DATA_DIR="+t.TempDir(), "HOLDFAST_STATE=dynamodb:fleet", "HOLDFAST_AWS_ENDPOINT_DYNAMODB="+f.serve(t))
	for name, answer := range map[string]func(http.ResponseWriter){
		"throttles": refusing(http.StatusBadRequest, "ThrottlingException", "Rate exceeded"),
		"is broken": refusing(http.StatusInternalServerError, "InternalServerError", ""),
	} {
		f.on("dynamodb", answer)
		before := f.count("dynamodb.DescribeTable")
		_, err := openPlaces(t.Context(), cfg, shared, time.Second, quiet())
		if err == nil || !strings.Contains(err.Error(), "(asked for 1s)") || strings.Contains(err.Error(), "\n") {
			t.Errorf("%s: %v", name, err)
		}
		if n := f.count("dynamodb.DescribeTable") - before; n < 2 {
			t.Errorf("%s: asked %d times", name, n)
		}
	}
	cfg.AWSEndpoints["dynamodb"] = "http://" + deadAddress(t)
	if _, err := openPlaces(t.Context(), cfg, shared, 300*time.Millisecond, quiet()); err == nil ||
		!strings.Contains(err.Error(), "cannot be reached; check the endpoint") {
		t.Errorf("nobody there: %v", err)
	}
	silent := newServer(t, http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body) // else the server does not see that the client has left
		<-r.Context().Done()
	}))
	cfg.AWSEndpoints["dynamodb"] = silent
	if _, err := openPlaces(t.Context(), cfg, shared, 300*time.Millisecond, quiet()); err == nil ||
		!strings.Contains(err.Error(), "it did not answer in time; check the region, and the way there") {
		t.Errorf("no answer: %v", err)
	}
	began := time.Now()
	if r := drive(t, []string{"HOLDFAST_DATA_DIR=" + t.TempDir(), "HOLDFAST_STATE=dynamodb:fleet", "HOLDFAST_AWS_ENDPOINT_DYNAMODB=http://" + deadAddress(t)},
		"sessions", "verify"); r.code != exitFailed || strings.Count(r.err, "\n") != 1 || !strings.Contains(r.err, "cannot be reached") {
		t.Errorf("a command: exit code %d, %s", r.code, r.err)
	}
	if took := time.Since(began); took > 15*time.Second {
		t.Errorf("a command took %v to say so", took)
	}
}

func TestStartsWithoutCredentials(t *testing.T) {
	f := newFakeAWS(t)
	cfg := settingsOf(t, "HOLDFAST_DATA_DIR="+t.TempDir(), "HOLDFAST_STATE=dynamodb:fleet", "HOLDFAST_AWS_ENDPOINT_DYNAMODB="+f.serve(t))
	t.Setenv("AWS_ACCESS_KEY_ID", "")
	t.Setenv("AWS_SECRET_ACCESS_KEY", "")
	refusedAtStart(t, cfg, "no usable credentials were found; give the task a role")
	t.Setenv("AWS_REGION", "")
	refusedAtStart(t, cfg, "no region: set one, or AWS_REGION")
}

// Vault and master key that say no at the start, over a SQLite store: a setting, a
// permission or a resource is missing, and somebody has to see to it.
func TestStartsThatS3AndKMSRefuse(t *testing.T) {
	for name, c := range map[string]struct {
		operation string
		answer    func(http.ResponseWriter)
		want      []string
	}{
		"no bucket": {"s3", refusing(http.StatusNotFound, "NoSuchBucket", "The specified bucket does not exist"),
			[]string{"vault s3://bucket/one: cannot reach: ", "there is no bucket of that name; create it"}},
		"a bucket that must not be read": {"s3", refusing(http.StatusForbidden, "AccessDenied", "Access Denied"),
			[]string{"allow s3:ListBucket on bucket/one"}},
		"a bucket that must not be written": {"s3.PutObject", refusing(http.StatusForbidden, "AccessDenied", "Access Denied"),
			[]string{"cannot write into", "allow s3:PutObject on bucket/one"}},
		"a bucket elsewhere": {"s3", func(w http.ResponseWriter) {
			w.Header().Set("X-Amz-Bucket-Region", "us-west-2")
			refusing(http.StatusMovedPermanently, "PermanentRedirect", "moved")(w)
		}, []string{"the bucket is in the region us-west-2"}},
		"another fleet's bucket": {"s3.mark", nil, []string{"vault s3://bucket/one: belongs to another fleet; give each fleet a prefix of its own"}},
		"an expired credential":  {"s3", refusing(http.StatusBadRequest, "ExpiredToken", "The provided token has expired."), []string{"the credentials have expired"}},
		"no key": {"kms", refusing(http.StatusBadRequest, "NotFoundException", "Key is not found"),
			[]string{"master key " + keyARN + ": cannot wrap", "there is no such key in this region and account"}},
		"a disabled key":              {"kms", refusing(http.StatusBadRequest, "DisabledException", "is disabled"), []string{"the key is disabled; enable it"}},
		"a key that must not be used": {"kms.Decrypt", refusing(http.StatusBadRequest, "AccessDeniedException", "not authorized"), []string{"allow kms:Decrypt on the key"}},
	} {
		t.Run(name, func(t *testing.T) {
			f := newFakeAWS(t)
			f.on(c.operation, c.answer)
			f.objects["/bucket/one/.holdfast-fleet"] = []byte("x\n")
			if c.operation != "s3.mark" {
				clear(f.objects)
			}
			url := f.serve(t)
			cfg := settingsOf(t, "HOLDFAST_DATA_DIR="+t.TempDir(), "HOLDFAST_VAULT=s3://bucket/one", "HOLDFAST_MASTER_KEY=awskms:"+keyARN,
				"HOLDFAST_AWS_ENDPOINT_S3="+url, "HOLDFAST_AWS_ENDPOINT_KMS="+url)
			refusedAtStart(t, cfg, c.want...)
		})
	}
}

// A vault or a KMS that is down is no reason to end: the process waits for it,
// and is not ready until it has answered.
func TestStartsWhileVaultOrKMSIsDown(t *testing.T) {
	for _, service := range []string{"s3", "kms"} {
		t.Run(service, func(t *testing.T) {
			f := newFakeAWS(t)
			url := f.serve(t)
			cfg := settingsOf(t, "HOLDFAST_DATA_DIR="+t.TempDir(), "HOLDFAST_VAULT=s3://bucket/one", "HOLDFAST_MASTER_KEY=awskms:"+keyARN,
				"HOLDFAST_AWS_ENDPOINT_S3="+url, "HOLDFAST_AWS_ENDPOINT_KMS="+url)
			f.on(service, refusing(http.StatusServiceUnavailable, "ServiceUnavailable", "down"))
			o, err := openState(t.Context(), cfg, quiet())
			if err != nil {
				t.Fatalf("it does not start: %v", err)
			}
			defer o.close()
			soon, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
			defer cancel()
			if err := o.ready(soon); err == nil || !passing(err) || strings.Contains(err.Error(), "\n") {
				t.Errorf("still down: %v", err)
			}
			if _, err := o.keyset.Seal(seal.Place{}, nil); err == nil || o.keyset.There() {
				t.Error("there is a keyset already")
			}
			soon, cancel = context.WithTimeout(t.Context(), 200*time.Millisecond)
			defer cancel()
			if o, err := openTool(soon, cfg, shared); err == nil {
				o.close()
				t.Error("a command goes on without")
			}

			f.on(service, nil)
			if err := o.ready(t.Context()); err != nil {
				t.Fatalf("it is up again: %v", err)
			}
			if _, err := o.keyset.Seal(seal.Place{}, nil); err != nil {
				t.Errorf("ready, and no keyset: %v", err)
			}
			// What is down later is no matter of readiness.
			f.on(service, refusing(http.StatusServiceUnavailable, "ServiceUnavailable", "down"))
			if err := o.ready(t.Context()); err != nil {
				t.Errorf("down again later: %v", err)
			}
		})
	}
}

// The same with a whole worker: it says that it is not ready and why, and claims
// nothing; then it does, and goes on when the vault is down again.
func TestAWorkerThatIsNotReady(t *testing.T) {
	f := newFakeAWS(t)
	url := f.serve(t)
	f.on("s3", refusing(http.StatusServiceUnavailable, "ServiceUnavailable", "down"))
	listen := deadAddress(t)
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	var errs lockedBuffer
	ended := make(chan int, 1)
	go func() {
		ended <- run(ctx, []string{"dev"}, []string{"HOLDFAST_DATA_DIR=" + t.TempDir(), "HOLDFAST_LISTEN=" + listen,
			"HOLDFAST_VAULT=s3://bucket/one", "HOLDFAST_MASTER_KEY=awskms:" + keyARN, "HOLDFAST_AWS_ENDPOINT_S3=" + url, "HOLDFAST_AWS_ENDPOINT_KMS=" + url,
			"HOLDFAST_WHATSAPP_URL=ws://" + deadAddress(t) + "/ws", "HOLDFAST_REACHABILITY_INTERVAL=0"}, IO{In: strings.NewReader(""), Out: io.Discard, Err: &errs})
	}()
	get := func(path string) (int, string) {
		resp, err := http.Get("http://" + listen + path)
		if err != nil {
			return 0, err.Error()
		}
		defer resp.Body.Close()
		body, err := io.ReadAll(resp.Body)
		if err != nil {
			return 0, err.Error()
		}
		return resp.StatusCode, string(body)
	}
	until := func(what string, ok func() bool) {
		t.Helper()
		for deadline := time.Now().Add(30 * time.Second); !ok(); time.Sleep(20 * time.Millisecond) {
			if time.Now().After(deadline) {
				_, ready := get("/health/ready")
				t.Fatalf("not seen: %s; ready says %s; the log:\n%s", what, ready, errs.String())
			}
		}
	}
	until("not ready because of the vault", func() bool {
		code, body := get("/health/ready")
		return code == http.StatusServiceUnavailable && strings.Contains(body, "vault s3://bucket/one: cannot reach")
	})
	if code, body := get("/health/live"); code != http.StatusOK {
		t.Errorf("live answers %d %s", code, body)
	}
	if strings.Contains(errs.String(), "session taken up") {
		t.Error("a session was claimed")
	}
	f.on("s3", nil)
	until("ready", func() bool { code, _ := get("/health/ready"); return code == http.StatusOK })
	until("the session is taken up", func() bool { return strings.Contains(errs.String(), "session taken up") })
	f.on("s3", refusing(http.StatusServiceUnavailable, "ServiceUnavailable", "down"))
	if code, body := get("/health/ready"); code != http.StatusOK {
		t.Errorf("down again later: ready answers %d %s", code, body)
	}
	stop()
	if code := <-ended; code != exitDone {
		t.Errorf("exit code %d:\n%s", code, errs.String())
	}
}

// Objects are encrypted once more by S3 where the master key is in KMS.
func TestTheVaultIsEncryptedWithTheMasterKey(t *testing.T) {
	f := newFakeAWS(t)
	var mine, none *http.Request
	note := func(r **http.Request) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
			if req.Method == http.MethodPut {
				*r = req.Clone(context.Background())
			}
			f.ServeHTTP(w, req)
		})
	}
	for _, c := range []struct {
		key  string
		seen **http.Request
	}{{"awskms:" + keyARN, &mine}, {"file:" + filepath.Join(t.TempDir(), "master.key"), &none}} {
		server := newServer(t, note(c.seen))
		cfg := settingsOf(t, "HOLDFAST_VAULT=s3://bucket/"+c.key[:4], "HOLDFAST_MASTER_KEY="+c.key, "HOLDFAST_AWS_ENDPOINT_S3="+server)
		v, err := newS3(t.Context(), cfg, quiet())
		if err != nil {
			t.Fatal(err)
		}
		if _, err := v.PutObject(t.Context(), "shop", "x", []byte("body")); err != nil {
			t.Fatal(err)
		}
	}
	const header = "X-Amz-Server-Side-Encryption-Aws-Kms-Key-Id"
	if mine.Header.Get(header) != keyARN || none.Header.Get(header) != "" {
		t.Errorf("with a key in KMS %q, with one in a file %q", mine.Header.Get(header), none.Header.Get(header))
	}
}

// Stand-ins have certificates of their own.
func TestAnAuthorityOfOnesOwn(t *testing.T) {
	f := newFakeAWS(t)
	server := f.serveTLS(t)
	bundle := filepath.Join(t.TempDir(), "ca.pem")
	text := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw})
	if err := os.WriteFile(bundle, text, 0o600); err != nil {
		t.Fatal(err)
	}
	environ := []string{"HOLDFAST_DATA_DIR=" + t.TempDir(), "HOLDFAST_VAULT=s3://bucket/one", "HOLDFAST_MASTER_KEY=awskms:" + keyARN,
		"HOLDFAST_STATE=dynamodb:fleet", "HOLDFAST_AWS_ENDPOINT_S3=" + server.URL, "HOLDFAST_AWS_ENDPOINT_KMS=" + server.URL, "HOLDFAST_AWS_ENDPOINT_DYNAMODB=" + server.URL}
	f.on("dynamodb.DescribeTable", refusing(http.StatusBadRequest, "ResourceNotFoundException", ""))
	for _, with := range []bool{false, true} {
		if with {
			t.Setenv("AWS_CA_BUNDLE", bundle)
		}
		cfg := settingsOf(t, environ...)
		store, err := newDynamo(t.Context(), cfg)
		if err != nil {
			t.Fatal(err)
		}
		err = store.Reach(t.Context())
		if !with {
			if err == nil || !strings.Contains(err.Error(), "AWS_CA_BUNDLE") {
				t.Errorf("without the authority: %v", err)
			}
			continue // the others ask again and again
		}
		v, vaultErr := newS3(t.Context(), cfg, quiet())
		m, _, keyErr := masterKey(t.Context(), cfg, nil)
		if vaultErr != nil || keyErr != nil {
			t.Fatal(vaultErr, keyErr)
		}
		for name, err := range map[string]error{"dynamodb": err, "s3": v.Ping(t.Context()), "kms": seal.Ping(t.Context(), m)} {
			if err != nil {
				t.Errorf("%s: %v", name, err)
			}
		}
	}
}

// Two fleets in one place: the second one's key is another.
func TestAStoreOfAnotherFleet(t *testing.T) {
	dir := t.TempDir()
	theirs := settingsOf(t, "HOLDFAST_DATA_DIR="+dir)
	o, err := openState(t.Context(), theirs, quiet())
	if err != nil {
		t.Fatal(err)
	}
	o.close()
	other := filepath.Join(t.TempDir(), "master.key")
	if _, err := seal.CreateFile(other); err != nil {
		t.Fatal(err)
	}
	refusedAtStart(t, settingsOf(t, "HOLDFAST_DATA_DIR="+dir, "HOLDFAST_MASTER_KEY=file:"+other),
		"state sqlite:"+dir+"/holdfast.db: belongs to a fleet with another master key: its keyset is wrapped with \"file:", "list it in master-key-old")
	// With the old key beside the new one it is a change of keys, and no other fleet.
	o, err = openState(t.Context(), settingsOf(t, "HOLDFAST_DATA_DIR="+dir, "HOLDFAST_MASTER_KEY=file:"+other, "HOLDFAST_MASTER_KEY_OLD=file:"+theirs.MasterKey.Path), quiet())
	if err != nil {
		t.Fatal(err)
	}
	o.close()
	refusedAtStart(t, settingsOf(t, "HOLDFAST_DATA_DIR="+dir, "HOLDFAST_MASTER_KEY_OLD=file:/nowhere/old.key"), "master-key-old: master key /nowhere/old.key: ")
}

// What is told of this process to the others.
func TestWhatTheFleetIsTold(t *testing.T) {
	metadata := newServer(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/v4/abc/task" {
			w.WriteHeader(http.StatusNotFound)
			return
		}
		fmt.Fprint(w, `{"Cluster":"c","TaskARN":"arn:aws:ecs:eu-west-1:1:task/c/t","Family":"holdfast","Revision":"12"}`)
	}))
	info := func(environ ...string) state.MemberInfo {
		t.Helper()
		a := &app{environ: environ, now: time.Now}
		cfg := settingsOf(t, environ...)
		cfg.ecsMetadata = variableOf(a.environ, "ECS_CONTAINER_METADATA_URI_V4")
		return memberInfo(t.Context(), cfg, quiet())
	}
	version := buildVersion().Version
	for _, c := range []struct {
		environ          []string
		deployment, task string
	}{
		{nil, version, ""},
		{[]string{"ECS_CONTAINER_METADATA_URI_V4=" + metadata + "/v4/abc"}, "holdfast:12", "arn:aws:ecs:eu-west-1:1:task/c/t"},
		{[]string{"ECS_CONTAINER_METADATA_URI_V4=" + metadata + "/v4/abc", "HOLDFAST_DEPLOYMENT=blue"}, "blue", "arn:aws:ecs:eu-west-1:1:task/c/t"},
		{[]string{"ECS_CONTAINER_METADATA_URI_V4=" + metadata + "/other"}, version, ""},
		{[]string{"ECS_CONTAINER_METADATA_URI_V4=http://" + deadAddress(t), "HOLDFAST_TASK=pod-1"}, version, "pod-1"},
	} {
		m := info(c.environ...)
		if m.Deployment != c.deployment || m.Task != c.task || m.Version != version || m.Format != state.Format || m.Since.IsZero() || m.Tool {
			t.Errorf("%v: %+v, want %s and %s", c.environ, m, c.deployment, c.task)
		}
	}
}
