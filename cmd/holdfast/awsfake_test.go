package main

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/holdfast-wa/holdfast/state/seal"
)

const keyARN = "arn:aws:kms:eu-west-1:111122223333:key/1234abcd-12ab-34cd-56ef-1234567890ab"

// fakeAWS is a fake: it answers the few requests that are sent at a start as the
// documentation of S3, KMS and DynamoDB says, checks no signature and no
// permission, and can be made to fail. DynamoDB it does not know beyond what it
// is told to answer.
type fakeAWS struct {
	mu      sync.Mutex
	answer  map[string]func(w http.ResponseWriter) // by operation, in place of the service
	objects map[string][]byte
	aead    cipher.AEAD
	asked   map[string]int
}

func newFakeAWS(t *testing.T) *fakeAWS {
	t.Helper()
	key := make([]byte, 32)
	rand.Read(key)
	block, err := aes.NewCipher(key)
	if err != nil {
		t.Fatal(err)
	}
	f := &fakeAWS{answer: map[string]func(http.ResponseWriter){}, objects: map[string][]byte{}, asked: map[string]int{}}
	if f.aead, err = cipher.NewGCM(block); err != nil {
		t.Fatal(err)
	}
	t.Setenv("AWS_ACCESS_KEY_ID", "AKIDEXAMPLE")
	t.Setenv("AWS_SECRET_ACCESS_KEY", "not-a-real-secret")
	t.Setenv("AWS_SESSION_TOKEN", "")
	t.Setenv("AWS_PROFILE", "")
	t.Setenv("AWS_CONFIG_FILE", "/nowhere/config")
	t.Setenv("AWS_SHARED_CREDENTIALS_FILE", "/nowhere/credentials")
	t.Setenv("AWS_EC2_METADATA_DISABLED", "true")
	t.Setenv("AWS_REGION", "eu-west-1")
	return f
}

// serve returns its address.
func (f *fakeAWS) serve(t *testing.T) string {
	t.Helper()
	server := httptest.NewServer(f)
	t.Cleanup(server.Close)
	return server.URL
}

func (f *fakeAWS) serveTLS(t *testing.T) *httptest.Server {
	t.Helper()
	server := httptest.NewUnstartedServer(f)
	server.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelError)
	server.StartTLS()
	t.Cleanup(server.Close)
	return server
}

// on has an operation answered by do; nil: by the fake again. An operation is
// SERVICE.Operation, such as s3.PutObject; s3 alone stands for all of S3.
func (f *fakeAWS) on(operation string, do func(w http.ResponseWriter)) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.answer[operation] = do
}

// refusing answers in the error format of the JSON services, or S3's.
func refusing(status int, code, message string) func(http.ResponseWriter) {
	return func(w http.ResponseWriter) {
		w.Header().Set("X-Amzn-RequestId", "REQ1")
		w.Header().Set("X-Amzn-ErrorType", code)
		w.WriteHeader(status)
		if w.Header().Get("X-Fake") == "s3" {
			fmt.Fprintf(w, "<Error><Code>%s</Code><Message>%s</Message><RequestId>REQ1</RequestId></Error>", code, message)
			return
		}
		_ = json.NewEncoder(w).Encode(map[string]string{"__type": code, "message": message})
	}
}

func (f *fakeAWS) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	service, operation, json := strings.Cut(r.Header.Get("X-Amz-Target"), ".")
	switch {
	case !json:
		service, operation = "s3", s3Operation(r)
		w.Header().Set("X-Fake", "s3")
	case strings.HasPrefix(service, "DynamoDB"):
		service = "dynamodb"
	default:
		service = "kms"
	}
	f.asked[service+"."+operation]++
	for _, name := range []string{service + "." + operation, service} {
		if do := f.answer[name]; do != nil {
			do(w)
			return
		}
	}
	switch service {
	case "s3":
		f.s3(w, r, operation, body)
	case "kms":
		f.kms(w, operation, body)
	default:
		refusing(http.StatusBadRequest, "UnknownOperationException", operation)(w)
	}
}

func s3Operation(r *http.Request) string {
	inBucket := strings.Contains(strings.Trim(r.URL.Path, "/"), "/")
	for query, operation := range map[string]string{"versioning": "GetBucketVersioning", "versions": "ListObjectVersions",
		"encryption": "GetBucketEncryption", "publicAccessBlock": "GetPublicAccessBlock"} {
		if r.URL.Query().Has(query) {
			return operation
		}
	}
	switch {
	case !inBucket && r.Method == http.MethodHead:
		return "HeadBucket"
	case !inBucket:
		return "ListObjectsV2"
	}
	return map[string]string{http.MethodPut: "PutObject", http.MethodGet: "GetObject", http.MethodHead: "HeadObject", http.MethodDelete: "DeleteObject"}[r.Method]
}

func (f *fakeAWS) s3(w http.ResponseWriter, r *http.Request, operation string, body []byte) {
	sum := func(b []byte) string {
		s := sha256.Sum256(b)
		return base64.StdEncoding.EncodeToString(s[:])
	}
	switch have, there := f.objects[r.URL.Path]; operation {
	case "HeadBucket", "DeleteObject":
		delete(f.objects, r.URL.Path)
	case "GetBucketVersioning":
		fmt.Fprint(w, "<VersioningConfiguration><Status>Enabled</Status></VersioningConfiguration>")
	case "GetBucketEncryption":
		fmt.Fprint(w, "<ServerSideEncryptionConfiguration><Rule><ApplyServerSideEncryptionByDefault><SSEAlgorithm>aws:kms</SSEAlgorithm></ApplyServerSideEncryptionByDefault></Rule></ServerSideEncryptionConfiguration>")
	case "GetPublicAccessBlock":
		fmt.Fprint(w, "<PublicAccessBlockConfiguration><BlockPublicAcls>true</BlockPublicAcls><IgnorePublicAcls>true</IgnorePublicAcls><BlockPublicPolicy>true</BlockPublicPolicy><RestrictPublicBuckets>true</RestrictPublicBuckets></PublicAccessBlockConfiguration>")
	case "ListObjectsV2", "ListObjectVersions":
		var list bytes.Buffer
		for path := range f.objects {
			_, key, _ := strings.Cut(strings.Trim(path, "/"), "/")
			if strings.HasPrefix(key, r.URL.Query().Get("prefix")) {
				fmt.Fprintf(&list, "<Version><Key>%s</Key><VersionId>null</VersionId></Version><Contents><Key>%s</Key></Contents>", key, key)
			}
		}
		fmt.Fprintf(w, "<ListResult>%s</ListResult>", list.String())
	case "PutObject":
		if there && r.Header.Get("If-None-Match") == "*" {
			refusing(http.StatusPreconditionFailed, "PreconditionFailed", "it exists")(w)
			return
		}
		f.objects[r.URL.Path] = body
	case "GetObject":
		if !there {
			refusing(http.StatusNotFound, "NoSuchKey", "no such key")(w)
			return
		}
		w.Header().Set("X-Amz-Checksum-Sha256", sum(have))
		_, _ = w.Write(have)
	default:
		refusing(http.StatusNotImplemented, "NotImplemented", operation)(w)
	}
}

func (f *fakeAWS) kms(w http.ResponseWriter, operation string, body []byte) {
	var call struct {
		KeyId                     string
		Plaintext, CiphertextBlob []byte
		EncryptionContext         map[string]string
	}
	if err := json.Unmarshal(body, &call); err != nil {
		refusing(http.StatusBadRequest, "SerializationException", err.Error())(w)
		return
	}
	bound, _ := json.Marshal(call.EncryptionContext) // sorts the names
	nonce := make([]byte, f.aead.NonceSize())
	switch operation {
	case "Encrypt":
		rand.Read(nonce)
		_ = json.NewEncoder(w).Encode(map[string]any{"KeyId": call.KeyId, "CiphertextBlob": f.aead.Seal(nonce, nonce, call.Plaintext, bound)})
	case "Decrypt":
		blob := call.CiphertextBlob
		plain, err := []byte(nil), io.ErrUnexpectedEOF
		if len(blob) > len(nonce) {
			plain, err = f.aead.Open(nil, blob[:len(nonce)], blob[len(nonce):], bound)
		}
		if err != nil {
			refusing(http.StatusBadRequest, "InvalidCiphertextException", "")(w)
			return
		}
		_ = json.NewEncoder(w).Encode(map[string]any{"KeyId": call.KeyId, "Plaintext": plain})
	default:
		refusing(http.StatusBadRequest, "UnknownOperationException", operation)(w)
	}
}

func (f *fakeAWS) count(operation string) int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.asked[operation]
}

// newServer serves a handler until the test ends.
func newServer(t *testing.T, h http.Handler) string {
	t.Helper()
	server := httptest.NewServer(h)
	t.Cleanup(server.Close)
	return server.URL
}

// writeKey makes a master key in a file and returns its path.
func writeKey(t *testing.T) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "master.key")
	if _, err := seal.CreateFile(path); err != nil {
		t.Fatal(err)
	}
	return path
}
