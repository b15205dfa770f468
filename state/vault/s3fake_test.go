package vault

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/xml"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws/retry"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/s3"
)

// fakeBucket is a fake: it answers the few requests that the vault sends as S3's
// documentation says, checks no signature, and can be made to fail. s3test runs
// the suite against a real S3 server.
type fakeBucket struct {
	// before may answer a request in place of the bucket.
	before func(w http.ResponseWriter, r *http.Request) bool
	// lose tells whether the answer to a request is lost after it took effect.
	lose func(r *http.Request) bool

	mu          sync.Mutex
	unversioned bool
	next        int
	versions    map[string][]fakeVersion // by key, the newest last
	requests    []string
}

type fakeVersion struct {
	ID     string
	Body   []byte
	SHA256 string
	Marker bool
	Header http.Header
}

func (f *fakeBucket) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	key := strings.TrimPrefix(strings.TrimPrefix(r.URL.Path, "/bucket"), "/")
	f.requests = append(f.requests, strings.TrimSuffix(r.Method+" "+key+"?"+r.URL.RawQuery, "?"))
	if f.before != nil && f.before(w, r) {
		return
	}
	out := httptest.NewRecorder()
	switch query := r.URL.Query(); {
	case key == "" && r.Method == http.MethodHead:
	case key == "" && query.Has("versioning"):
		status := "<Status>Enabled</Status>"
		if f.unversioned {
			status = ""
		}
		fmt.Fprintf(out, "<VersioningConfiguration>%s</VersioningConfiguration>", status)
	case key == "" && query.Has("versions"):
		f.listVersions(out, query.Get("prefix"), query.Get("key-marker"), query.Get("version-id-marker"))
	case key == "":
		f.list(out, query.Get("prefix"), query.Get("continuation-token"))
	case r.Method == http.MethodPut:
		f.put(out, r, key, body)
	case r.Method == http.MethodDelete:
		f.delete(out, key, query.Get("versionId"))
	default:
		f.get(out, key, query.Get("versionId"))
	}
	if f.lose != nil && f.lose(r) {
		panic(http.ErrAbortHandler)
	}
	for name, values := range out.Header() {
		w.Header()[name] = values
	}
	w.WriteHeader(out.Code)
	if r.Method != http.MethodHead {
		_, _ = w.Write(out.Body.Bytes())
	}
}

func (f *fakeBucket) latest(key string) (fakeVersion, bool) {
	all := f.versions[key]
	if len(all) == 0 || all[len(all)-1].Marker {
		return fakeVersion{}, false
	}
	return all[len(all)-1], true
}

func (f *fakeBucket) put(w http.ResponseWriter, r *http.Request, key string, body []byte) {
	sum := sha256.Sum256(body)
	if _, there := f.latest(key); there && r.Header.Get("If-None-Match") == "*" {
		refuse(w, http.StatusPreconditionFailed, "PreconditionFailed", "At least one of the pre-conditions you specified did not hold")
		return
	}
	sent := r.Header.Get("X-Amz-Checksum-Sha256")
	if sent != base64.StdEncoding.EncodeToString(sum[:]) {
		refuse(w, http.StatusBadRequest, "BadDigest", "The SHA256 you specified did not match")
		return
	}
	v := fakeVersion{ID: "null", Body: body, SHA256: sent, Header: r.Header}
	if f.unversioned {
		f.versions[key] = nil
	} else {
		f.next++
		v.ID = fmt.Sprintf("v%d", f.next)
		w.Header().Set("X-Amz-Version-Id", v.ID)
	}
	f.versions[key] = append(f.versions[key], v)
}

func (f *fakeBucket) get(w http.ResponseWriter, key, version string) {
	v, there := f.latest(key)
	if version != "" {
		i := slices.IndexFunc(f.versions[key], func(v fakeVersion) bool { return v.ID == version })
		switch {
		case !strings.HasPrefix(version, "v") && version != "null":
			refuse(w, http.StatusBadRequest, "InvalidArgument", "Invalid version id specified")
			return
		case i < 0:
			refuse(w, http.StatusNotFound, "NoSuchVersion", "The specified version does not exist.")
			return
		case f.versions[key][i].Marker:
			w.Header().Set("X-Amz-Delete-Marker", "true")
			refuse(w, http.StatusMethodNotAllowed, "MethodNotAllowed", "The specified method is not allowed against this resource.")
			return
		}
		v, there = f.versions[key][i], true
	}
	if !there {
		refuse(w, http.StatusNotFound, "NoSuchKey", "The specified key does not exist.")
		return
	}
	if v.ID != "null" {
		w.Header().Set("X-Amz-Version-Id", v.ID)
	}
	if v.SHA256 != "" {
		w.Header().Set("X-Amz-Checksum-Sha256", v.SHA256)
	}
	_, _ = w.Write(v.Body)
}

// delete without a version hides the object behind a marker, as S3 does.
func (f *fakeBucket) delete(w http.ResponseWriter, key, version string) {
	switch {
	case version != "":
		f.versions[key] = slices.DeleteFunc(f.versions[key], func(v fakeVersion) bool { return v.ID == version })
	case f.unversioned:
		f.versions[key] = nil
	default:
		f.hide(key)
	}
	w.WriteHeader(http.StatusNoContent)
}

func (f *fakeBucket) hide(key string) {
	f.next++
	f.versions[key] = append(f.versions[key], fakeVersion{ID: fmt.Sprintf("v%d", f.next), Marker: true})
}

// pageSize makes even short lists take several pages.
const pageSize = 2

type listed struct{ Key, VersionId string }

type listPage struct {
	XMLName               xml.Name `xml:"ListResult"`
	IsTruncated           bool
	NextContinuationToken string `xml:",omitempty"`
	NextKeyMarker         string `xml:",omitempty"`
	NextVersionIdMarker   string `xml:",omitempty"`
	Contents              []listed
	Version               []listed
	DeleteMarker          []listed
}

func (f *fakeBucket) keys(prefix string) []string {
	var keys []string
	for key := range f.versions {
		if strings.HasPrefix(key, prefix) {
			keys = append(keys, key)
		}
	}
	slices.Sort(keys)
	return keys
}

func (f *fakeBucket) list(w io.Writer, prefix, after string) {
	var page listPage
	for _, key := range f.keys(prefix) {
		if _, there := f.latest(key); !there || key <= after {
			continue
		}
		if len(page.Contents) == pageSize {
			page.IsTruncated, page.NextContinuationToken = true, page.Contents[pageSize-1].Key
			break
		}
		page.Contents = append(page.Contents, listed{Key: key})
	}
	_ = xml.NewEncoder(w).Encode(page)
}

func (f *fakeBucket) listVersions(w io.Writer, prefix, afterKey, afterVersion string) {
	var page listPage
	found := afterKey == ""
	for _, key := range f.keys(prefix) {
		for _, v := range f.versions[key] {
			if !found {
				found = key == afterKey && v.ID == afterVersion
				continue
			}
			if len(page.Version)+len(page.DeleteMarker) == pageSize {
				page.IsTruncated = true
				_ = xml.NewEncoder(w).Encode(page)
				return
			}
			page.NextKeyMarker, page.NextVersionIdMarker = key, v.ID
			if v.Marker {
				page.DeleteMarker = append(page.DeleteMarker, listed{key, v.ID})
			} else {
				page.Version = append(page.Version, listed{key, v.ID})
			}
		}
	}
	_ = xml.NewEncoder(w).Encode(page)
}

func refuse(w http.ResponseWriter, status int, code, message string) {
	w.Header().Set("X-Amz-Request-Id", "REQ1")
	w.WriteHeader(status)
	if code != "" {
		fmt.Fprintf(w, "<Error><Code>%s</Code><Message>%s</Message><RequestId>REQ1</RequestId></Error>", code, message)
	}
}

// open serves the fake and returns a vault in it that does not wait long.
func (f *fakeBucket) open(t *testing.T, change ...func(*S3Options)) *S3 {
	t.Helper()
	f.versions = map[string][]fakeVersion{}
	server := httptest.NewUnstartedServer(f)
	server.Config.ErrorLog = nil
	server.Start()
	t.Cleanup(server.Close)
	o := S3Options{Bucket: "bucket", Prefix: "fleet/one", Region: "eu-west-1", Endpoint: server.URL, HTTPClient: server.Client(),
		Credentials: credentials.NewStaticCredentialsProvider("AKIDEXAMPLE", "not-a-real-secret", "")}
	for _, c := range change {
		c(&o)
	}
	v, err := OpenS3(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	hurry(v)
	return v
}

// hurry shortens the pauses between attempts.
func hurry(v *S3) {
	v.pause = 1000
	v.client = s3.New(v.client.Options(), func(o *s3.Options) {
		o.Retryer = retry.NewStandard(func(o *retry.StandardOptions) {
			o.Backoff = retry.NewExponentialJitterBackoff(1000)
			o.MaxAttempts = 3
		})
	})
}
