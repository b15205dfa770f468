package kms

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/aws/retry"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/kms"
)

const keyARN = "arn:aws:kms:eu-west-1:111122223333:key/1234abcd-12ab-34cd-56ef-1234567890ab"

// fakeKMS is a fake: AES-GCM with one key for all ARNs that it is told, and the
// encryption context as additional data, behind the real SDK client. It checks
// no signature and no permission; no other stand-in for KMS was to be had.
type fakeKMS struct {
	aead cipher.AEAD
	// before may answer a request in place of the service.
	before func(w http.ResponseWriter, operation string) bool

	mu    sync.Mutex
	calls []fakeCall
}

type fakeCall struct {
	Operation         string `json:"-"`
	KeyId             string
	Plaintext         []byte `json:",omitempty"`
	CiphertextBlob    []byte `json:",omitempty"`
	EncryptionContext map[string]string
}

func (f *fakeKMS) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	call := fakeCall{Operation: strings.TrimPrefix(r.Header.Get("X-Amz-Target"), "TrentService.")}
	if err := json.NewDecoder(r.Body).Decode(&call); err != nil {
		fail(w, http.StatusBadRequest, "SerializationException", err.Error())
		return
	}
	f.mu.Lock()
	f.calls = append(f.calls, call)
	f.mu.Unlock()
	if f.before != nil && f.before(w, call.Operation) {
		return
	}
	bound, _ := json.Marshal(call.EncryptionContext) // sorts the names
	nonce := make([]byte, f.aead.NonceSize())
	switch call.Operation {
	case "Encrypt":
		rand.Read(nonce)
		blob := f.aead.Seal(nonce, nonce, call.Plaintext, bound)
		_ = json.NewEncoder(w).Encode(map[string]any{"KeyId": call.KeyId, "CiphertextBlob": blob})
	case "Decrypt":
		blob := call.CiphertextBlob
		if len(blob) < len(nonce) {
			fail(w, http.StatusBadRequest, "InvalidCiphertextException", "")
			return
		}
		plain, err := f.aead.Open(nil, blob[:len(nonce)], blob[len(nonce):], bound)
		if err != nil {
			fail(w, http.StatusBadRequest, "InvalidCiphertextException", "")
			return
		}
		_ = json.NewEncoder(w).Encode(map[string]any{"KeyId": call.KeyId, "Plaintext": plain})
	default:
		fail(w, http.StatusBadRequest, "UnknownOperationException", "")
	}
}

func fail(w http.ResponseWriter, status int, code, message string) {
	w.Header().Set("X-Amzn-RequestId", "REQ1")
	w.Header().Set("X-Amzn-ErrorType", code)
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(map[string]string{"__type": code, "message": message})
}

// count returns how often an operation was called.
func (f *fakeKMS) count(operation string) int {
	f.mu.Lock()
	defer f.mu.Unlock()
	n := 0
	for _, c := range f.calls {
		if c.Operation == operation {
			n++
		}
	}
	return n
}

func (f *fakeKMS) serve(t *testing.T) *httptest.Server {
	t.Helper()
	key := make([]byte, 32)
	rand.Read(key)
	block, err := aes.NewCipher(key)
	if err != nil {
		t.Fatal(err)
	}
	if f.aead, err = cipher.NewGCM(block); err != nil {
		t.Fatal(err)
	}
	server := httptest.NewServer(f)
	t.Cleanup(server.Close)
	return server
}

var testKey aws.CredentialsProvider = credentials.NewStaticCredentialsProvider("AKIDEXAMPLE", "not-a-real-secret", "")

// open returns a master of a service at an address, which does not wait long.
func open(t *testing.T, address, arn string) *Master {
	t.Helper()
	m, err := Open(t.Context(), Options{KeyARN: arn, Endpoint: address, Credentials: testKey})
	if err != nil {
		t.Fatal(err)
	}
	m.client = kms.New(m.client.Options(), func(o *kms.Options) {
		o.Retryer = retry.NewStandard(func(o *retry.StandardOptions) {
			o.Backoff = retry.NewExponentialJitterBackoff(time.Microsecond)
			o.MaxAttempts = 3
		})
	})
	return m
}
