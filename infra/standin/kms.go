package standin

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/google/uuid"
)

// fakeKMS is a fake, because no stand-in for KMS is to be had: AES-256-GCM with
// one key, and the encryption context, as JSON with sorted names, as additional
// data. It checks no signature and no permission; it only wants to be called
// with the access key of the stand-ins.
type fakeKMS struct {
	arn     string
	address string // host:port
	aead    cipher.AEAD
	server  *http.Server
	ended   chan error

	mu    sync.Mutex
	calls map[string]int      // by operation
	bound map[string]struct{} // encryption contexts
}

// kmsKey is the file that the key is kept in, so that what it wrapped opens in
// another run.
type kmsKey struct {
	Note string `json:"note"`
	ARN  string `json:"arn"`
	Key  []byte `json:"key"`
}

func loadKMSKey(path string) (k kmsKey, err error) {
	b, err := os.ReadFile(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		k = kmsKey{Note: "of a fake KMS: protects nothing", ARN: "arn:aws:kms:" + Region + ":000000000000:key/" + uuid.NewString(), Key: make([]byte, 32)}
		_, _ = rand.Read(k.Key)
		if b, err = json.Marshal(k); err != nil {
			return k, err
		}
		return k, os.WriteFile(path, b, 0o600)
	case err != nil:
		return k, err
	}
	if err := json.Unmarshal(b, &k); err != nil || len(k.Key) != 32 {
		return k, fmt.Errorf("%s: is damaged; remove the folder and start anew", path)
	}
	return k, nil
}

func startKMS(dir string, certs certificates) (*fakeKMS, error) {
	k, err := loadKMSKey(filepath.Join(dir, "kms.json"))
	if err != nil {
		return nil, err
	}
	block, err := aes.NewCipher(k.Key)
	if err != nil {
		return nil, err
	}
	f := &fakeKMS{arn: k.ARN, calls: map[string]int{}, bound: map[string]struct{}{}, ended: make(chan error, 1)}
	if f.aead, err = cipher.NewGCM(block); err != nil {
		return nil, err
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	f.address = l.Addr().String()
	f.server = &http.Server{Handler: f, ReadHeaderTimeout: 10 * time.Second}
	go func() { f.ended <- f.server.ServeTLS(l, certs.cert, certs.key) }()
	return f, nil
}

func (f *fakeKMS) stop() error {
	err := f.server.Close()
	if ended := <-f.ended; !errors.Is(ended, http.ErrServerClosed) {
		err = errors.Join(err, ended)
	}
	return err
}

// kmsCall is what a request of any operation holds.
type kmsCall struct {
	KeyID             string `json:"KeyId"`
	Plaintext         []byte
	CiphertextBlob    []byte
	EncryptionContext map[string]string
	KeySpec           string
	NumberOfBytes     int
}

// kmsFailure is an error as KMS answers it.
type kmsFailure struct{ code, message string }

func (f *fakeKMS) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	operation := strings.TrimPrefix(r.Header.Get("X-Amz-Target"), "TrentService.")
	var c kmsCall
	out, failure := map[string]any(nil), &kmsFailure{"SerializationException", "the body is not JSON"}
	if json.NewDecoder(io.LimitReader(r.Body, 1<<20)).Decode(&c) == nil {
		out, failure = f.answer(operation, r.Header.Get("Authorization"), c)
	}
	w.Header().Set("Content-Type", "application/x-amz-json-1.1")
	w.Header().Set("X-Amzn-RequestId", uuid.NewString())
	w.Header().Set("X-Holdfast", "fake KMS")
	if failure != nil {
		w.Header().Set("X-Amzn-ErrorType", failure.code)
		w.WriteHeader(http.StatusBadRequest)
		out = map[string]any{"__type": failure.code, "message": failure.message + " (a fake KMS says so)"}
	}
	_ = json.NewEncoder(w).Encode(out)
}

// answer carries out one call.
func (f *fakeKMS) answer(operation, authorization string, c kmsCall) (map[string]any, *kmsFailure) {
	if !strings.Contains(authorization, "Credential="+AccessKey+"/") {
		return nil, &kmsFailure{"UnrecognizedClientException", "the security token included in the request is invalid"}
	}
	bound, _ := json.Marshal(c.EncryptionContext) // sorts the names
	f.mu.Lock()
	f.calls[operation]++
	if len(c.EncryptionContext) > 0 {
		f.bound[string(bound)] = struct{}{}
	}
	f.mu.Unlock()
	id := f.arn[strings.LastIndex(f.arn, "/")+1:]
	if c.KeyID != f.arn && c.KeyID != id && (c.KeyID != "" || operation != "Decrypt") {
		return nil, &kmsFailure{"NotFoundException", fmt.Sprintf("Key '%.100s' does not exist", c.KeyID)}
	}
	switch operation {
	case "Encrypt":
		if len(c.Plaintext) == 0 || len(c.Plaintext) > 4096 {
			return nil, &kmsFailure{"ValidationException", "plaintext must have 1 to 4096 bytes"}
		}
		return map[string]any{"KeyId": f.arn, "CiphertextBlob": f.seal(c.Plaintext, bound), "EncryptionAlgorithm": "SYMMETRIC_DEFAULT"}, nil
	case "Decrypt":
		plain, ok := f.open(c.CiphertextBlob, bound)
		if !ok {
			return nil, &kmsFailure{"InvalidCiphertextException", ""}
		}
		return map[string]any{"KeyId": f.arn, "Plaintext": plain, "EncryptionAlgorithm": "SYMMETRIC_DEFAULT"}, nil
	case "GenerateDataKey":
		size, ok := map[string]int{"AES_256": 32, "AES_128": 16, "": c.NumberOfBytes}[c.KeySpec]
		if !ok || size <= 0 || size > 1024 {
			return nil, &kmsFailure{"ValidationException", "KeySpec must be AES_256 or AES_128, or NumberOfBytes 1 to 1024"}
		}
		plain := make([]byte, size)
		_, _ = rand.Read(plain)
		return map[string]any{"KeyId": f.arn, "Plaintext": plain, "CiphertextBlob": f.seal(plain, bound)}, nil
	case "DescribeKey":
		return map[string]any{"KeyMetadata": map[string]any{"AWSAccountId": "000000000000", "Arn": f.arn, "KeyId": id, "Enabled": true,
			"KeyState": "Enabled", "KeyUsage": "ENCRYPT_DECRYPT", "KeySpec": "SYMMETRIC_DEFAULT", "KeyManager": "CUSTOMER", "Origin": "AWS_KMS",
			"MultiRegion": false, "Description": "a fake", "EncryptionAlgorithms": []string{"SYMMETRIC_DEFAULT"}}}, nil
	}
	return nil, &kmsFailure{"UnknownOperationException", fmt.Sprintf("%.100q is not faked", operation)}
}

func (f *fakeKMS) seal(plain, bound []byte) []byte {
	nonce := make([]byte, f.aead.NonceSize())
	_, _ = rand.Read(nonce)
	return f.aead.Seal(nonce, nonce, plain, bound)
}

func (f *fakeKMS) open(blob, bound []byte) ([]byte, bool) {
	n := f.aead.NonceSize()
	if len(blob) < n {
		return nil, false
	}
	plain, err := f.aead.Open(nil, blob[:n], blob[n:], bound)
	return plain, err == nil
}

func (f *fakeKMS) contexts() []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	var out []string
	for c := range f.bound {
		out = append(out, c)
	}
	slices.Sort(out)
	return out
}
