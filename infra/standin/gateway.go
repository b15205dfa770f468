package standin

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"time"

	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"
	"github.com/versity/versitygw/backend/meta"
	"github.com/versity/versitygw/backend/posix"
	"github.com/versity/versitygw/embedgw"
)

// Quiet makes os.Stdout the null device and returns what it was: versitygw says
// there that it starts. A command calls it first and prints to what it returns.
func Quiet() (*os.File, error) {
	nowhere, err := os.OpenFile(os.DevNull, os.O_WRONLY, 0)
	if err != nil {
		return nil, err
	}
	out := os.Stdout
	os.Stdout = nowhere
	return out, nil
}

// gateway is S3: versitygw, over TLS, signatures checked.
type gateway struct {
	address string // host:port
	client  *http.Client
	cancel  context.CancelFunc
	ended   chan error
}

// startGateway starts it and makes the bucket, which keeps versions.
func startGateway(dir string, certs certificates) (*gateway, error) {
	data, versions := filepath.Join(dir, "objects"), filepath.Join(dir, "versions")
	for _, d := range []string{data, versions} {
		if err := os.MkdirAll(d, 0o700); err != nil {
			return nil, err
		}
	}
	backend, err := posix.New(data, meta.XattrMeta{}, posix.PosixOpts{VersioningDir: versions})
	if err != nil {
		return nil, fmt.Errorf("%s: %w; the file system must keep extended attributes", data, err)
	}
	g := &gateway{ended: make(chan error, 1), client: &http.Client{Timeout: 10 * time.Second,
		Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: certs.pool, MinVersion: tls.VersionTLS12}}}}
	if g.address, err = freeAddress(); err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(context.Background())
	g.cancel = cancel
	go func() {
		g.ended <- embedgw.RunVersityGW(ctx, backend, &embedgw.Config{
			RootUserAccess: AccessKey, RootUserSecret: secretKey, Region: Region, Ports: []string{g.address},
			CertFile: certs.cert, KeyFile: certs.key, Quiet: true, KeepAlive: true,
			MaxConnections: 1000, MaxRequests: 500, MultipartMaxParts: 100,
		})
	}()
	if err := g.ready(); err != nil {
		cancel()
		return nil, err
	}
	if err := g.makeBucket(); err != nil {
		return nil, errors.Join(err, g.stop())
	}
	return g, nil
}

func (g *gateway) ready() error {
	for deadline := time.Now().Add(20 * time.Second); time.Now().Before(deadline); {
		if answer, err := g.client.Get("https://" + g.address); err == nil {
			return answer.Body.Close()
		}
		select {
		case err := <-g.ended:
			return fmt.Errorf("it ended: %w", err)
		case <-time.After(20 * time.Millisecond):
		}
	}
	return errors.New("it did not answer within 20 s")
}

func (g *gateway) makeBucket() error {
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	endpoint, bucket := "https://"+g.address, Bucket
	client := s3.New(s3.Options{BaseEndpoint: &endpoint, UsePathStyle: true, Region: Region, HTTPClient: g.client,
		Credentials: credentials.NewStaticCredentialsProvider(AccessKey, secretKey, "")})
	_, err := client.CreateBucket(ctx, &s3.CreateBucketInput{Bucket: &bucket,
		CreateBucketConfiguration: &types.CreateBucketConfiguration{LocationConstraint: Region}})
	if mine := (*types.BucketAlreadyOwnedByYou)(nil); err != nil && !errors.As(err, &mine) {
		return fmt.Errorf("bucket %s: %w", bucket, err)
	}
	_, err = client.PutBucketVersioning(ctx, &s3.PutBucketVersioningInput{Bucket: &bucket,
		VersioningConfiguration: &types.VersioningConfiguration{Status: types.BucketVersioningStatusEnabled}})
	if err != nil {
		return fmt.Errorf("versions of bucket %s: %w", bucket, err)
	}
	return nil
}

func (g *gateway) stop() error {
	g.client.CloseIdleConnections() // it waits for those
	g.cancel()
	return <-g.ended
}

// freeAddress is one on loopback that nobody listens at now.
func freeAddress() (string, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	return l.Addr().String(), l.Close()
}
