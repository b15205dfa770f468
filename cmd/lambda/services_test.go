package main

import (
	"bytes"
	"context"
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/credentials"

	"github.com/holdfast-wa/holdfast/infra/adminapi"
	"github.com/holdfast-wa/holdfast/state"
	"github.com/holdfast-wa/holdfast/state/dynamo"
	"github.com/holdfast-wa/holdfast/state/dynamo/dynamotest"
	"github.com/holdfast-wa/holdfast/state/seal"
	"github.com/holdfast-wa/holdfast/state/seal/kms"
	"github.com/holdfast-wa/holdfast/state/statetest"
	"github.com/holdfast-wa/holdfast/worker"
)

const (
	masterARN = "arn:aws:kms:eu-west-1:111122223333:key/1234abcd-12ab-34cd-56ef-1234567890ab"
	taskARN   = "arn:aws:ecs:eu-west-1:111122223333:task/holdfast/0123456789abcdef0123456789abcdef"
)

// services are what the function talks to: DynamoDB Local, and a fake of KMS and
// S3 that knows the few requests which are sent, and checks no signature and no
// permission.
type services struct {
	t      testing.TB
	store  *dynamo.Store
	keyset *seal.Keyset
	env    []string

	mu      sync.Mutex
	aead    cipher.AEAD
	objects map[string][]byte
	asked   map[string]int
	denied  bool // what is asked of KMS
}

// newServices makes empty tables and a fleet's keyset in them.
func newServices(t testing.TB) *services {
	t.Helper()
	s := &services{t: t, objects: map[string][]byte{}, asked: map[string]int{}}
	key := make([]byte, 32)
	rand.Read(key)
	block, err := aes.NewCipher(key)
	if err != nil {
		t.Fatal(err)
	}
	if s.aead, err = cipher.NewGCM(block); err != nil {
		t.Fatal(err)
	}
	o := dynamotest.Options(t)
	s.store = dynamotest.Reopen(t, o)
	if err := s.store.Create(context.Background()); err != nil {
		t.Fatal(err)
	}
	server := httptest.NewServer(s)
	t.Cleanup(server.Close)
	who, err := o.Credentials.Retrieve(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	s.env = []string{"AWS_REGION=" + o.Region, "AWS_ACCESS_KEY_ID=" + who.AccessKeyID, "AWS_SECRET_ACCESS_KEY=" + who.SecretAccessKey,
		"HOLDFAST_STATE=dynamodb:" + o.Prefix, "HOLDFAST_VAULT=s3://bucket/fleet", "HOLDFAST_MASTER_KEY=awskms:" + masterARN,
		"HOLDFAST_AWS_ENDPOINT_DYNAMODB=" + o.Endpoint, "HOLDFAST_AWS_ENDPOINT_S3=" + server.URL, "HOLDFAST_AWS_ENDPOINT_KMS=" + server.URL,
		"HOLDFAST_LOG_LEVEL=debug", "HOLDFAST_API_KEYS=" + strings.Join(keyList(), ",")}
	master, err := kms.Open(context.Background(), kms.Options{KeyARN: masterARN, Endpoint: server.URL, Region: o.Region, Credentials: credentials.NewStaticCredentialsProvider("a", "b", "")})
	if err != nil {
		t.Fatal(err)
	}
	if s.keyset, err = worker.OpenKeyset(context.Background(), s.store, master); err != nil {
		t.Fatal(err)
	}
	s.mu.Lock()
	clear(s.asked)
	s.mu.Unlock()
	return s
}

// keyList has a key for each role, whose secret is its name and -secret.
func keyList() []string {
	var list []string
	for _, role := range []string{"viewer", "operator", "admin"} {
		list = append(list, role+"-key:"+role+":"+adminapi.HashKey(role+"-secret"))
	}
	return list
}

// start runs the function over the services; environ has the last word.
func (s *services) start(environ ...string) *function {
	return start(s.t, append(append([]string{}, s.env...), environ...)...)
}

func (s *services) count(operation string) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.asked[operation]
}

// ServeHTTP is the fake of KMS and S3.
func (s *services) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, operation, ok := strings.Cut(r.Header.Get("X-Amz-Target"), "."); ok {
		s.asked["kms."+operation]++
		s.kms(w, operation, body)
		return
	}
	s.asked["s3."+r.Method]++
	s.s3(w, r, body)
}

func (s *services) kms(w http.ResponseWriter, operation string, body []byte) {
	if s.denied {
		w.Header().Set("X-Amzn-ErrorType", "AccessDeniedException")
		w.WriteHeader(http.StatusBadRequest)
		fmt.Fprint(w, `{"__type":"AccessDeniedException","message":"not authorized"}`)
		return
	}
	var call struct {
		KeyId                     string
		Plaintext, CiphertextBlob []byte
		EncryptionContext         map[string]string
	}
	if json.Unmarshal(body, &call) != nil {
		w.WriteHeader(http.StatusBadRequest)
		return
	}
	bound, _ := json.Marshal(call.EncryptionContext) // sorts the names
	nonce := make([]byte, s.aead.NonceSize())
	answer := map[string]any{"KeyId": call.KeyId}
	switch operation {
	case "Encrypt":
		rand.Read(nonce)
		answer["CiphertextBlob"] = s.aead.Seal(nonce, nonce, call.Plaintext, bound)
	case "Decrypt":
		plain, err := s.aead.Open(nil, call.CiphertextBlob[:len(nonce)], call.CiphertextBlob[len(nonce):], bound)
		if err != nil {
			w.Header().Set("X-Amzn-ErrorType", "InvalidCiphertextException")
			w.WriteHeader(http.StatusBadRequest)
			return
		}
		answer["Plaintext"] = plain
	}
	_ = json.NewEncoder(w).Encode(answer)
}

func (s *services) s3(w http.ResponseWriter, r *http.Request, body []byte) {
	have, there := s.objects[r.URL.Path]
	switch {
	case r.Method == http.MethodPut && there:
		w.WriteHeader(http.StatusPreconditionFailed)
		fmt.Fprint(w, "<Error><Code>PreconditionFailed</Code></Error>")
	case r.Method == http.MethodPut:
		s.objects[r.URL.Path] = body
	case r.Method == http.MethodDelete:
		delete(s.objects, r.URL.Path)
	case r.URL.Query().Has("prefix"):
		var list bytes.Buffer
		for path := range s.objects {
			key := strings.TrimPrefix(path, "/bucket/")
			if strings.HasPrefix(key, r.URL.Query().Get("prefix")) {
				fmt.Fprintf(&list, "<Version><Key>%s</Key><VersionId>null</VersionId></Version><Contents><Key>%s</Key></Contents>", key, key)
			}
		}
		fmt.Fprintf(w, "<ListResult>%s</ListResult>", list.String())
	case r.URL.Query().Has("versioning"):
		fmt.Fprint(w, "<VersioningConfiguration><Status>Enabled</Status></VersioningConfiguration>")
	case there:
		sum := sha256.Sum256(have)
		w.Header().Set("X-Amz-Checksum-Sha256", base64.StdEncoding.EncodeToString(sum[:]))
		_, _ = w.Write(have)
	default:
		w.WriteHeader(http.StatusNotFound)
		fmt.Fprint(w, "<Error><Code>NoSuchKey</Code></Error>")
	}
}

// request is the event of a request as an HTTP API sends it, changed by more.
func request(method, path, key, body string, more ...func(map[string]any)) string {
	path, query, _ := strings.Cut(path, "?")
	e := map[string]any{
		"version": "2.0", "routeKey": "$default", "rawPath": path, "rawQueryString": query,
		"headers": map[string]any{
			"accept": "*/*", "content-length": fmt.Sprint(len(body)), "content-type": "application/json", "host": "a1b2c3d4e5.execute-api.eu-west-1.amazonaws.com",
			"user-agent": "curl/8.5.0", "x-amzn-trace-id": "Root=1-5bef4de7-ad49b0e87f6ef6c87fc2e700", "x-forwarded-for": "203.0.113.7",
			"x-forwarded-port": "443", "x-forwarded-proto": "https", "x-api-key": key,
		},
		"requestContext": map[string]any{
			"accountId": "111122223333", "apiId": "a1b2c3d4e5", "domainName": "a1b2c3d4e5.execute-api.eu-west-1.amazonaws.com", "domainPrefix": "a1b2c3d4e5",
			"http":      map[string]any{"method": method, "path": path, "protocol": "HTTP/1.1", "sourceIp": "203.0.113.7", "userAgent": "curl/8.5.0"},
			"requestId": "JKJaXmPLvHcESHA=", "routeKey": "$default", "stage": "$default", "time": "06/May/2026:07:08:09 +0000", "timeEpoch": 1778051289000,
		},
		"body": body, "isBase64Encoded": false,
	}
	if key == "" {
		delete(e["headers"].(map[string]any), "x-api-key")
	}
	for _, change := range more {
		change(e)
	}
	b, err := json.Marshal(e)
	if err != nil {
		panic(err)
	}
	return string(b)
}

// header sets a header of a request.
func header(name, value string) func(map[string]any) {
	return func(e map[string]any) { e["headers"].(map[string]any)[name] = value }
}

// authorizer sets what an authorizer says.
func authorizer(by map[string]any) func(map[string]any) {
	return func(e map[string]any) { e["requestContext"].(map[string]any)["authorizer"] = by }
}

// session makes one that a worker of that name owns.
func (s *services) session(name, incarnation string) state.Owner {
	s.t.Helper()
	ctx := context.Background()
	spec, err := state.Encode(state.Spec{V: state.Format, Name: name, Wanted: state.WantRunning, Generation: 1, CreatedAt: time.Now(), ChangedAt: time.Now()})
	if err != nil {
		s.t.Fatal(err)
	}
	w := state.Put(state.KindSpec, "", spec)
	w.Rev = 1
	if err := s.store.CreateSession(ctx, name, []state.Write{w}); err != nil {
		s.t.Fatal(err)
	}
	if incarnation == "" {
		return state.Owner{Session: name}
	}
	o, err := statetest.Take(ctx, s.store, name, incarnation)
	if err != nil {
		s.t.Fatal(err)
	}
	return o
}

// commit writes as the owner.
func (s *services) commit(o state.Owner, kind state.Kind, id string, doc any) {
	s.t.Helper()
	value, err := state.Encode(doc)
	if err != nil {
		s.t.Fatal(err)
	}
	if err := s.store.Commit(context.Background(), o.Fence(), "", []state.Write{state.Put(kind, id, value)}); err != nil {
		s.t.Fatal(err)
	}
}
