package vault

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/credentials"

	"github.com/holdfast-wa/holdfast/state"
	"github.com/holdfast-wa/holdfast/state/statetest"
)

func TestS3(t *testing.T) {
	for name, unversioned := range map[string]bool{"versions": false, "no versions": true} {
		t.Run(name, func(t *testing.T) {
			statetest.Vault(t, func(t *testing.T) state.Vault {
				return (&fakeBucket{unversioned: unversioned}).open(t)
			})
		})
	}
}

// counts returns how many requests begin with a method and key.
func (f *fakeBucket) count(prefix string) int {
	f.mu.Lock()
	defer f.mu.Unlock()
	n := 0
	for _, r := range f.requests {
		if strings.HasPrefix(r, prefix) {
			n++
		}
	}
	return n
}

// alter changes what is stored.
func (f *fakeBucket) alter(change func(map[string][]fakeVersion)) {
	f.mu.Lock()
	defer f.mu.Unlock()
	change(f.versions)
}

func put(t *testing.T, v *S3, name, body string) string {
	t.Helper()
	version, err := v.PutObject(t.Context(), "shop", name, []byte(body))
	if err != nil {
		t.Fatal(err)
	}
	return version
}

func TestS3Request(t *testing.T) {
	var f fakeBucket
	v := f.open(t, func(o *S3Options) { o.KMSKeyID, o.Prefix = "arn:aws:kms:eu-west-1:1:key/k", "/fleet/one/" })
	version := put(t, v, "cred-1", "sealed")
	f.alter(func(all map[string][]fakeVersion) {
		stored := all["fleet/one/shop/cred-1"]
		if len(stored) != 1 || stored[0].ID != version {
			t.Fatalf("stored under %v with version %q", all, version)
		}
		for name, want := range map[string]string{
			"If-None-Match":                                   "*",
			"X-Amz-Server-Side-Encryption":                    "aws:kms",
			"X-Amz-Server-Side-Encryption-Aws-Kms-Key-Id":     "arn:aws:kms:eu-west-1:1:key/k",
			"X-Amz-Server-Side-Encryption-Bucket-Key-Enabled": "true",
			"X-Amz-Checksum-Sha256":                           checksum([]byte("sealed")),
		} {
			if got := stored[0].Header.Get(name); got != want {
				t.Errorf("%s is %q, want %q", name, got, want)
			}
		}
	})
	plain := (&fakeBucket{})
	put(t, plain.open(t, func(o *S3Options) { o.Prefix = "" }), "cred-1", "sealed")
	plain.alter(func(all map[string][]fakeVersion) {
		if got := all["shop/cred-1"][0].Header.Get("X-Amz-Server-Side-Encryption"); got != "" {
			t.Errorf("encryption %q was asked for without a key", got)
		}
	})
}

func TestS3Versions(t *testing.T) {
	var f fakeBucket
	v := f.open(t)
	version := put(t, v, "cred-1", "first")
	// Somebody puts another object over it, by hand.
	f.alter(func(all map[string][]fakeVersion) {
		all["fleet/one/shop/cred-1"] = append(all["fleet/one/shop/cred-1"], fakeVersion{ID: "v90", Body: []byte("foreign")})
	})
	if body, err := v.GetObject(t.Context(), "shop", "cred-1", version); err != nil || string(body) != "first" {
		t.Errorf("by version: %q, %v", body, err)
	}
	if body, err := v.GetObject(t.Context(), "shop", "cred-1", ""); err != nil || string(body) != "foreign" {
		t.Errorf("the newest, which has no checksum: %q, %v", body, err)
	}
	for _, none := range []string{"v77", "not-a-version-id"} {
		if _, err := v.GetObject(t.Context(), "shop", "cred-1", none); !errors.Is(err, state.ErrNotFound) {
			t.Errorf("version %s: %v", none, err)
		}
		if err := v.DeleteObject(t.Context(), "shop", "cred-1", none); err != nil {
			t.Errorf("deleting version %s: %v", none, err)
		}
	}
	// Somebody deletes it by hand: it is hidden, and its version is there.
	f.alter(func(map[string][]fakeVersion) { f.hide("fleet/one/shop/cred-1") })
	if _, err := v.GetObject(t.Context(), "shop", "cred-1", ""); !errors.Is(err, state.ErrNotFound) {
		t.Errorf("behind a delete marker: %v", err)
	}
	if _, err := v.GetObject(t.Context(), "shop", "cred-1", "v2"); !errors.Is(err, state.ErrNotFound) {
		t.Errorf("the delete marker itself: %v", err)
	}
	if body, err := v.GetObject(t.Context(), "shop", "cred-1", version); err != nil || string(body) != "first" {
		t.Errorf("by version behind a delete marker: %q, %v", body, err)
	}
	put(t, v, "cred-10", "another whose name begins alike")
	before := f.count("DELETE ")
	if err := v.DeleteObject(t.Context(), "shop", "cred-1", ""); err != nil {
		t.Fatal(err)
	}
	if n := f.count("DELETE ") - before; n != 3 {
		t.Errorf("%d versions were deleted, want its 3", n)
	}
	f.alter(func(all map[string][]fakeVersion) {
		if left := all["fleet/one/shop/cred-1"]; len(left) != 0 {
			t.Errorf("deleted for good, but there are %d versions left", len(left))
		}
		if len(all["fleet/one/shop/cred-10"]) != 1 {
			t.Error("another object was deleted with it")
		}
	})
}

func TestS3Altered(t *testing.T) {
	var f fakeBucket
	v := f.open(t)
	version := put(t, v, "cred-1", "sealed")
	f.alter(func(all map[string][]fakeVersion) { all["fleet/one/shop/cred-1"][0].Body = []byte("SEALED") })
	_, err := v.GetObject(t.Context(), "shop", "cred-1", version)
	if !errors.Is(err, state.ErrCorrupt) || errors.Is(err, state.ErrUnavailable) {
		t.Errorf("an altered object: %v", err)
	}
	if n := f.count("GET fleet/one/shop/cred-1"); n != 1 {
		t.Errorf("it was read %d times", n)
	}
	f.alter(func(all map[string][]fakeVersion) {
		all["fleet/one/shop/huge"] = []fakeVersion{{ID: "v50", Body: make([]byte, MaxObject+1)}}
	})
	if _, err := v.GetObject(t.Context(), "shop", "huge", ""); !errors.Is(err, state.ErrCorrupt) {
		t.Errorf("an object that is too large: %v", err)
	}
	if _, err := v.PutObject(t.Context(), "shop", "huge-2", make([]byte, MaxObject+1)); !errors.Is(err, state.ErrTooLarge) || f.count("PUT fleet/one/shop/huge-2") != 0 {
		t.Errorf("a body that is too large: %v", err)
	}
}

// A put whose answer was lost has happened. Its second attempt finds the name
// taken, by itself.
func TestS3LostAnswer(t *testing.T) {
	var f fakeBucket
	v := f.open(t)
	lost := false
	f.lose = func(r *http.Request) bool {
		first := r.Method == http.MethodPut && !lost
		lost = lost || first
		return first
	}
	version := put(t, v, "cred-1", "sealed")
	if body, err := v.GetObject(t.Context(), "shop", "cred-1", version); err != nil || string(body) != "sealed" {
		t.Errorf("version %q: %q, %v", version, body, err)
	}
	if version != "v1" || f.count("PUT ") != 2 {
		t.Errorf("version %q after %d puts", version, f.count("PUT "))
	}
	// Another's object under the same name is not ours, however often we try.
	lost = false
	if _, err := v.PutObject(t.Context(), "shop", "cred-1", []byte("another")); !errors.Is(err, state.ErrExists) {
		t.Errorf("a name that is taken, found after a lost answer: %v", err)
	}
	// The same body again is a second put, not a repetition.
	if _, err := v.PutObject(t.Context(), "shop", "cred-1", []byte("sealed")); !errors.Is(err, state.ErrExists) {
		t.Errorf("the same body put twice: %v", err)
	}
}

// While puts of one name are under way at once, S3 answers some with a conflict
// that is to be tried again.
func TestS3Conflict(t *testing.T) {
	var f fakeBucket
	left := 2
	f.before = func(w http.ResponseWriter, r *http.Request) bool {
		if r.Method != http.MethodPut || left == 0 {
			return false
		}
		left--
		refuse(w, http.StatusConflict, "ConditionalRequestConflict", "The conditional request cannot succeed due to a conflicting operation")
		return true
	}
	v := f.open(t)
	put(t, v, "cred-1", "sealed")
	if n := f.count("PUT "); n != 3 {
		t.Errorf("%d puts, want 3", n)
	}
	left = 1000
	_, err := v.PutObject(t.Context(), "shop", "cred-2", []byte("sealed"))
	if !errors.Is(err, state.ErrUnavailable) || !strings.Contains(err.Error(), "another writer") {
		t.Errorf("conflicts without end: %v", err)
	}
}

// An answer that breaks off in the body is asked for again.
func TestS3CutOff(t *testing.T) {
	var f fakeBucket
	v := f.open(t)
	version := put(t, v, "cred-1", "sealed")
	left := 2
	f.before = func(w http.ResponseWriter, r *http.Request) bool {
		if r.Method != http.MethodGet || left == 0 {
			return false
		}
		left--
		w.Header().Set("Content-Length", "6")
		_, _ = w.Write([]byte("sea"))
		return true
	}
	if body, err := v.GetObject(t.Context(), "shop", "cred-1", version); err != nil || string(body) != "sealed" {
		t.Errorf("%q, %v", body, err)
	}
	left = 1000
	if _, err := v.GetObject(t.Context(), "shop", "cred-1", version); !errors.Is(err, state.ErrUnavailable) || errors.Is(err, state.ErrCorrupt) {
		t.Errorf("cut off each time: %v", err)
	}
}

// What is wrong with a bucket is said in one line, with what to do. None of it
// may pass for a missing object: that would cost a session its credentials.
func TestS3Faults(t *testing.T) {
	region := http.Header{"X-Amz-Bucket-Region": {"us-west-2"}}
	for name, c := range map[string]struct {
		status int
		code   string
		text   string
		header http.Header
		words  string
	}{
		"no permission":           {403, "AccessDenied", "User: arn:aws:sts::1:assumed-role/task is not authorized", nil, "allow s3:"},
		"no permission for a key": {403, "AccessDenied", "User is not authorized to perform: kms:GenerateDataKey on resource", nil, "allow kms:GenerateDataKey and kms:Decrypt"},
		"no bucket":               {404, "NoSuchBucket", "The specified bucket does not exist", nil, "no bucket of that name"},
		"another region":          {301, "PermanentRedirect", "The bucket must be addressed using the specified endpoint", region, "us-west-2"},
		"a region for signing":    {400, "AuthorizationHeaderMalformed", "the region 'eu-west-1' is wrong", region, "us-west-2"},
		"expired credentials":     {400, "ExpiredToken", "The provided token has expired.", nil, "credentials have expired"},
		"an unknown key":          {403, "InvalidAccessKeyId", "The AWS Access Key Id does not exist", nil, "check the access key"},
		"a wrong secret":          {403, "SignatureDoesNotMatch", "The signature does not match", nil, "check the access key"},
		"a disabled key":          {400, "KMS.DisabledException", "key is disabled", nil, "check that it exists, is enabled"},
		"throttling":              {503, "SlowDown", "Please reduce your request rate.", nil, "throttling"},
		"a fault":                 {500, "InternalError", "We encountered an internal error.\nPlease try again.", nil, "has a fault"},
	} {
		t.Run(name, func(t *testing.T) {
			var f fakeBucket
			v := f.open(t)
			f.before = func(w http.ResponseWriter, r *http.Request) bool {
				for name, values := range c.header {
					w.Header()[name] = values
				}
				refuse(w, c.status, c.code, c.text)
				return true
			}
			for how, err := range everyCall(t.Context(), v) {
				if how == "ping" {
					continue // HEAD has no body and so no code: see TestS3PingFaults
				}
				text := fmt.Sprint(err)
				if !errors.Is(err, state.ErrUnavailable) || errors.Is(err, state.ErrNotFound) || errors.Is(err, state.ErrCorrupt) {
					t.Errorf("%s: %v", how, err)
				}
				if !strings.Contains(text, "s3://bucket/fleet/one") || !strings.Contains(text, c.words) || !strings.Contains(text, c.code) || !strings.Contains(text, "REQ1") {
					t.Errorf("%s: the error must name the bucket, the code, the request and %q: %s", how, c.words, text)
				}
				if strings.Contains(text, "\n") || strings.Contains(text, "operation error") || len(text) > 500 {
					t.Errorf("%s: not one clear line: %s", how, text)
				}
			}
		})
	}
}

func everyCall(ctx context.Context, v *S3) map[string]error {
	_, putErr := v.PutObject(ctx, "shop", "cred-1", []byte("sealed"))
	_, getErr := v.GetObject(ctx, "shop", "cred-1", "v1")
	_, listErr := v.ListObjects(ctx, "shop")
	return map[string]error{
		"put": putErr, "get": getErr, "list": listErr, "ping": v.Ping(ctx),
		"delete": v.DeleteObject(ctx, "shop", "cred-1", "v1"), "delete all": v.DeleteObject(ctx, "shop", "cred-1", ""),
	}
}

// The bucket is asked for by HEAD, whose answer has a status and headers alone;
// what is wrong is found out by a second request.
func TestS3PingFaults(t *testing.T) {
	for name, c := range map[string]struct {
		method string
		status int
		code   string
		region string
		words  string
	}{
		"no bucket":      {http.MethodHead, 404, "NoSuchBucket", "", "no bucket of that name"},
		"no permission":  {http.MethodHead, 403, "AccessDenied", "eu-west-1", "allow s3:ListBucket"},
		"a wrong secret": {http.MethodHead, 403, "SignatureDoesNotMatch", "", "check the access key"},
		"another region": {http.MethodHead, 301, "PermanentRedirect", "us-west-2", "us-west-2"},
		"a wrong region": {http.MethodHead, 400, "AuthorizationHeaderMalformed", "", "another region"},
		"may not write":  {http.MethodPut, 403, "AccessDenied", "", "allow s3:PutObject"},
		"may not read":   {http.MethodGet, 403, "AccessDenied", "", "allow s3:GetObject"},
		"a fault":        {http.MethodHead, 503, "", "", "has a fault"},
	} {
		t.Run(name, func(t *testing.T) {
			var f fakeBucket
			v := f.open(t)
			failing := true
			f.before = func(w http.ResponseWriter, r *http.Request) bool {
				asks := r.Method == c.method || c.method == http.MethodHead && r.URL.Query().Has("list-type")
				if !asks || !failing {
					return false
				}
				if c.region != "" {
					w.Header().Set("X-Amz-Bucket-Region", c.region)
				}
				code := c.code
				if r.Method == http.MethodHead {
					code = ""
				}
				refuse(w, c.status, code, "")
				return true
			}
			err := v.Ping(t.Context())
			if !errors.Is(err, state.ErrUnavailable) || !strings.Contains(err.Error(), c.words) || strings.Contains(err.Error(), "\n") {
				t.Errorf("%v; want one line with %q", err, c.words)
			}
			f.mu.Lock()
			failing = false
			f.mu.Unlock()
			if err := v.Ping(t.Context()); err != nil {
				t.Errorf("after the fault: %v", err)
			}
		})
	}
}

func TestS3Ping(t *testing.T) {
	var f fakeBucket
	var log strings.Builder
	v := f.open(t, func(o *S3Options) { o.Log = slog.New(slog.NewTextHandler(&log, nil)) })
	f.unversioned = true
	for range 3 {
		if err := v.Ping(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	if n := f.count("PUT fleet/one/.holdfast"); n != 1 {
		t.Errorf("three pings wrote %d times, want 1: that costs", n)
	}
	if n := strings.Count(log.String(), "turn versioning on"); n != 1 {
		t.Errorf("%d warnings about versions, want 1: %s", n, log.String())
	}
	// After a failure it is not taken for granted that writing still works.
	f.mu.Lock()
	f.before = func(w http.ResponseWriter, _ *http.Request) bool {
		refuse(w, http.StatusForbidden, "AccessDenied", "")
		return true
	}
	f.mu.Unlock()
	if err := v.Ping(t.Context()); err == nil {
		t.Error("a bucket that refuses everything was found sound")
	}
	f.mu.Lock()
	f.before = nil
	f.mu.Unlock()
	if err := v.Ping(t.Context()); err != nil || f.count("PUT fleet/one/.holdfast") != 2 {
		t.Errorf("after a failure: %d writes, %v", f.count("PUT fleet/one/.holdfast"), err)
	}
	// A second worker finds the first one's object.
	if err := f.reopen(t, v).Ping(t.Context()); err != nil {
		t.Error(err)
	}
	if names, err := v.ListObjects(t.Context(), "shop"); err != nil || len(names) != 0 {
		t.Errorf("a session sees %v, %v", names, err)
	}
}

// reopen returns another vault on the same bucket.
func (f *fakeBucket) reopen(t *testing.T, v *S3) *S3 {
	t.Helper()
	again, err := OpenS3(t.Context(), v.o)
	if err != nil {
		t.Fatal(err)
	}
	hurry(again)
	return again
}

// A service that does not answer, is not there, or must not be called.
func TestS3OutOfReach(t *testing.T) {
	still := make(chan struct{})
	var calls atomic.Int32
	silent := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		calls.Add(1)
		select {
		case <-still:
		case <-r.Context().Done():
		}
	}))
	t.Cleanup(silent.Close)
	t.Cleanup(func() { close(still) })
	gone := httptest.NewServer(http.NotFoundHandler())
	gone.Close()
	key := credentials.NewStaticCredentialsProvider("AKIDEXAMPLE", "not-a-real-secret", "")
	open := func(o S3Options) *S3 {
		o.Bucket, o.Region = "bucket", "eu-west-1"
		v, err := OpenS3(t.Context(), o)
		if err != nil {
			t.Fatal(err)
		}
		hurry(v)
		v.limit = 200 * time.Millisecond
		return v
	}
	cancelled, cancel := context.WithCancel(t.Context())
	cancel()
	for name, c := range map[string]struct {
		ctx   context.Context
		v     *S3
		words string
	}{
		"silent":    {t.Context(), open(S3Options{Endpoint: silent.URL, Credentials: key}), "did not answer in time"},
		"gone":      {t.Context(), open(S3Options{Endpoint: gone.URL, Credentials: key}), "cannot be reached"},
		"untrusted": {t.Context(), open(S3Options{Endpoint: tlsServer(t), Credentials: key}), "certificate is not trusted"},
		"no key":    {t.Context(), open(S3Options{Endpoint: silent.URL, Credentials: credentials.NewStaticCredentialsProvider("", "", "")}), "no usable credentials"},
		"cancelled": {cancelled, open(S3Options{Endpoint: silent.URL, Credentials: key}), "canceled"},
	} {
		t.Run(name, func(t *testing.T) {
			for how, err := range everyCall(c.ctx, c.v) {
				text := fmt.Sprint(err)
				if !errors.Is(err, state.ErrUnavailable) || !strings.Contains(text, c.words) || strings.Contains(text, "\n") {
					t.Errorf("%s: %v; want one line with %q", how, err, c.words)
				}
				if strings.Contains(text, "shop") || strings.Contains(text, "cred-1") {
					t.Errorf("%s: the address is in the error: %s", how, text)
				}
			}
		})
	}
	if calls.Load() == 0 {
		t.Error("the silent service was not asked at all")
	}
}

func tlsServer(t *testing.T) string {
	server := httptest.NewUnstartedServer(http.NotFoundHandler())
	server.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelError)
	server.StartTLS()
	t.Cleanup(server.Close)
	return server.URL
}

func TestOpenS3Refuses(t *testing.T) {
	t.Setenv("AWS_REGION", "")
	t.Setenv("AWS_DEFAULT_REGION", "")
	for name, o := range map[string]S3Options{
		"no bucket is named":     {Region: "eu-west-1"},
		"is not a bucket's name": {Bucket: "s3://bucket/prefix", Region: "eu-west-1"},
		"the prefix":             {Bucket: "bucket", Prefix: "a b", Region: "eu-west-1"},
		"is not an address":      {Bucket: "bucket", Endpoint: "localhost:9000"},
		"no region: set one":     {Bucket: "bucket"},
		"has a user in it":       {Bucket: "bucket", Endpoint: "https://user:not-a-real-secret@host"},
	} {
		if _, err := OpenS3(t.Context(), o); err == nil || !strings.Contains(err.Error(), name) || strings.Contains(err.Error(), "\n") || strings.Contains(err.Error(), "not-a-real-secret") {
			t.Errorf("%+v: %v; want one line with %q", o, err, name)
		}
	}
	t.Setenv("AWS_PROFILE", "nobody-has-this-profile")
	if _, err := OpenS3(t.Context(), S3Options{Bucket: "bucket", Region: "eu-west-1"}); err == nil || !strings.Contains(err.Error(), "AWS_PROFILE") {
		t.Errorf("a profile that is not there: %v", err)
	}
}

// The bounds of the suite's own lists are small; a session's can be long.
func TestS3LongList(t *testing.T) {
	var f fakeBucket
	v := f.open(t)
	var want []string
	for i := range 7 {
		want = append(want, fmt.Sprintf("o%d", i))
		put(t, v, want[i], "x")
	}
	f.alter(func(all map[string][]fakeVersion) {
		all["fleet/one/shop/by/hand"] = []fakeVersion{{ID: "v80"}}
	})
	got, err := v.ListObjects(t.Context(), "shop")
	if err != nil || !slices.Equal(got, want) {
		t.Errorf("%v, %v", got, err)
	}
}

// The region is the given one, else that of the environment, else, for a service
// of somebody's own, any.
func TestS3Region(t *testing.T) {
	t.Setenv("AWS_CONFIG_FILE", os.DevNull)
	t.Setenv("AWS_SHARED_CREDENTIALS_FILE", os.DevNull)
	t.Setenv("AWS_DEFAULT_REGION", "")
	for _, c := range []struct{ given, environment, endpoint, want string }{
		{"eu-west-1", "eu-central-1", "", "eu-west-1"},
		{"eu-west-1", "eu-central-1", "https://127.0.0.1:9", "eu-west-1"},
		{"", "eu-central-1", "", "eu-central-1"},
		{"", "eu-central-1", "https://127.0.0.1:9", "eu-central-1"},
		{"", "", "https://127.0.0.1:9", "us-east-1"},
		{"", "", "", ""},
	} {
		t.Setenv("AWS_REGION", c.environment)
		v, err := OpenS3(t.Context(), S3Options{Bucket: "b", Region: c.given, Endpoint: c.endpoint})
		if (err == nil) != (c.want != "") {
			t.Errorf("%+v: %v", c, err)
			continue
		}
		if err == nil && v.client.Options().Region != c.want {
			t.Errorf("%+v: %s", c, v.client.Options().Region)
		}
	}
}
