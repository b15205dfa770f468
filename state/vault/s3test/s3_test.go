package s3test

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"
	"github.com/versity/versitygw/backend/meta"
	"github.com/versity/versitygw/backend/posix"
	"github.com/versity/versitygw/embedgw"

	"github.com/holdfast-wa/holdfast/state"
	"github.com/holdfast-wa/holdfast/state/statetest"
	"github.com/holdfast-wa/holdfast/state/vault"
)

const (
	region = "eu-west-1"
	access = "holdfasttest"
	secret = "only-for-this-process"
)

// gateway is the one server of this process: versitygw has globals.
var gateway struct {
	address string
	client  *http.Client
	buckets atomic.Int32
}

func TestMain(m *testing.M) { os.Exit(run(m)) }

func run(m *testing.M) int {
	dir, err := os.MkdirTemp("", "s3test-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir)
	stop, err := serve(dir)
	if err != nil {
		fmt.Fprintln(os.Stderr, "versitygw:", err)
		return 1
	}
	defer stop()
	return m.Run()
}

// serve starts the server and waits until it answers.
func serve(dir string) (stop func(), err error) {
	data, versions := filepath.Join(dir, "data"), filepath.Join(dir, "versions")
	for _, d := range []string{data, versions} {
		if err := os.Mkdir(d, 0o700); err != nil {
			return nil, err
		}
	}
	cert, key, pool, err := certificate(dir)
	if err != nil {
		return nil, err
	}
	backend, err := posix.New(data, meta.XattrMeta{}, posix.PosixOpts{VersioningDir: versions})
	if err != nil {
		return nil, err
	}
	socket := filepath.Join(dir, "s3.sock")
	gateway.address = "https://127.0.0.1"
	gateway.client = &http.Client{Transport: &http.Transport{
		TLSClientConfig: &tls.Config{RootCAs: pool, MinVersion: tls.VersionTLS12},
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "unix", socket)
		},
	}}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() {
		ended <- embedgw.RunVersityGW(ctx, backend, &embedgw.Config{
			RootUserAccess: access, RootUserSecret: secret, Region: region, Ports: []string{socket},
			CertFile: cert, KeyFile: key, Quiet: true, KeepAlive: true,
			MaxConnections: 1000, MaxRequests: 500, MultipartMaxParts: 100,
		})
	}()
	for deadline := time.Now().Add(20 * time.Second); time.Now().Before(deadline); {
		answer, err := gateway.client.Get(gateway.address)
		if err == nil {
			return func() {
				gateway.client.CloseIdleConnections() // it waits for those
				cancel()
				if err := <-ended; err != nil {
					fmt.Fprintln(os.Stderr, "versitygw ended:", err)
				}
			}, answer.Body.Close()
		}
		select {
		case err := <-ended:
			cancel()
			return nil, fmt.Errorf("it ended: %w", err)
		case <-time.After(20 * time.Millisecond):
		}
	}
	cancel()
	return nil, errors.New("it did not answer within 20 s")
}

// certificate makes one for 127.0.0.1 that only this process trusts.
func certificate(dir string) (certFile, keyFile string, pool *x509.CertPool, err error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return "", "", nil, err
	}
	now := time.Now()
	template := &x509.Certificate{
		SerialNumber: big.NewInt(now.UnixNano()), Subject: pkix.Name{CommonName: "s3test"},
		NotBefore: now.Add(-time.Hour), NotAfter: now.Add(24 * time.Hour),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, IsCA: true, BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		return "", "", nil, err
	}
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return "", "", nil, err
	}
	certFile, keyFile = filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
	certPEM := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	keyPEM := pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: private})
	pool = x509.NewCertPool()
	pool.AppendCertsFromPEM(certPEM)
	return certFile, keyFile, pool, errors.Join(os.WriteFile(certFile, certPEM, 0o600), os.WriteFile(keyFile, keyPEM, 0o600))
}

func keys() aws.CredentialsProvider {
	return credentials.NewStaticCredentialsProvider(access, secret, "")
}

// admin is a client for what the vault itself does not do.
func admin() *s3.Client {
	return s3.New(s3.Options{BaseEndpoint: &gateway.address, UsePathStyle: true, Region: region, Credentials: keys(), HTTPClient: gateway.client})
}

// bucket makes a bucket with or without versions.
func bucket(t *testing.T, versioned bool) string {
	t.Helper()
	name := fmt.Sprintf("vault-%d", gateway.buckets.Add(1))
	if _, err := admin().CreateBucket(t.Context(), &s3.CreateBucketInput{Bucket: &name,
		CreateBucketConfiguration: &types.CreateBucketConfiguration{LocationConstraint: region}}); err != nil {
		t.Fatal(err)
	}
	if versioned {
		if _, err := admin().PutBucketVersioning(t.Context(), &s3.PutBucketVersioningInput{Bucket: &name,
			VersioningConfiguration: &types.VersioningConfiguration{Status: types.BucketVersioningStatusEnabled}}); err != nil {
			t.Fatal(err)
		}
	}
	return name
}

func open(t *testing.T, o vault.S3Options) *vault.S3 {
	t.Helper()
	o.Endpoint, o.HTTPClient = gateway.address, gateway.client
	if o.Region == "" {
		o.Region = region
	}
	if o.Credentials == nil {
		o.Credentials = keys()
	}
	v, err := vault.OpenS3(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

func TestSuite(t *testing.T) {
	for name, c := range map[string]struct {
		versioned bool
		prefix    string
	}{"versions": {true, "fleet/one"}, "no versions": {false, "fleet/one"}, "no prefix": {true, ""}} {
		t.Run(name, func(t *testing.T) {
			statetest.Vault(t, func(t *testing.T) state.Vault {
				return open(t, vault.S3Options{Bucket: bucket(t, c.versioned), Prefix: c.prefix})
			})
		})
	}
}

// What is deleted is gone with its versions, also what others have made of it.
func TestVersions(t *testing.T) {
	ctx, name := t.Context(), bucket(t, true)
	v := open(t, vault.S3Options{Bucket: name, Prefix: "fleet"})
	key := "fleet/shop/cred-1"
	version, err := v.PutObject(ctx, "shop", "cred-1", []byte("first"))
	if err != nil || version == "" {
		t.Fatalf("version %q, %v", version, err)
	}
	foreign, err := admin().PutObject(ctx, &s3.PutObjectInput{Bucket: &name, Key: &key, Body: bytes.NewReader([]byte("foreign"))})
	if err != nil {
		t.Fatal(err)
	}
	if body, err := v.GetObject(ctx, "shop", "cred-1", ""); err != nil || string(body) != "foreign" {
		t.Errorf("the newest: %q, %v", body, err)
	}
	if _, err := admin().DeleteObject(ctx, &s3.DeleteObjectInput{Bucket: &name, Key: &key}); err != nil {
		t.Fatal(err)
	}
	if body, err := v.GetObject(ctx, "shop", "cred-1", version); err != nil || string(body) != "first" {
		t.Errorf("by version, overwritten and hidden: %q, %v", body, err)
	}
	for _, none := range []string{"", "01JZZZZZZZZZZZZZZZZZZZZZZZ"} {
		if _, err := v.GetObject(ctx, "shop", "cred-1", none); !errors.Is(err, state.ErrNotFound) {
			t.Errorf("version %q: %v", none, err)
		}
	}
	if err := v.DeleteObject(ctx, "shop", "cred-1", ""); err != nil {
		t.Fatal(err)
	}
	for _, old := range []string{version, *foreign.VersionId} {
		if _, err := v.GetObject(ctx, "shop", "cred-1", old); !errors.Is(err, state.ErrNotFound) {
			t.Errorf("deleted for good, but version %s is there: %v", old, err)
		}
	}
}

// The server keeps the checksum that was sent and gives it back.
func TestChecksum(t *testing.T) {
	ctx, name := t.Context(), bucket(t, true)
	v := open(t, vault.S3Options{Bucket: name})
	if _, err := v.PutObject(ctx, "shop", "cred-1", []byte("sealed")); err != nil {
		t.Fatal(err)
	}
	key := "shop/cred-1"
	head, err := admin().HeadObject(ctx, &s3.HeadObjectInput{Bucket: &name, Key: &key, ChecksumMode: types.ChecksumModeEnabled})
	if err != nil || head.ChecksumSHA256 == nil || *head.ContentType != "application/octet-stream" {
		t.Errorf("%+v, %v", head, err)
	}
}

func TestPing(t *testing.T) {
	ctx, name := t.Context(), bucket(t, true)
	for range 2 {
		v := open(t, vault.S3Options{Bucket: name, Prefix: "fleet"})
		for range 2 {
			if err := v.Ping(ctx); err != nil {
				t.Fatal(err)
			}
		}
	}
	for words, o := range map[string]vault.S3Options{
		"no bucket of that name": {Bucket: "there-is-none"},
		"check the access key":   {Bucket: name, Credentials: credentials.NewStaticCredentialsProvider(access, "wrong", "")},
		"another region":         {Bucket: name, Region: "us-west-2"},
	} {
		err := open(t, o).Ping(ctx)
		if !errors.Is(err, state.ErrUnavailable) || !strings.Contains(err.Error(), words) || strings.Contains(err.Error(), "\n") {
			t.Errorf("%v; want one line with %q", err, words)
		}
	}
	wrong := open(t, vault.S3Options{Bucket: name, Credentials: credentials.NewStaticCredentialsProvider(access, "wrong", "")})
	if _, err := wrong.GetObject(ctx, "shop", "cred-1", ""); !errors.Is(err, state.ErrUnavailable) || !strings.Contains(err.Error(), "check the access key") {
		t.Errorf("with a wrong secret: %v", err)
	}
}
