package vault

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"
	"github.com/aws/smithy-go/middleware"
	smithyhttp "github.com/aws/smithy-go/transport/http"

	"github.com/holdfast-wa/holdfast/state"
	"github.com/holdfast-wa/holdfast/state/awsclient"
)

// MaxObject is how large an object in a bucket may be, in bytes. Credentials
// take a few KiB; a record too large for the store may take some MiB.
const MaxObject = 16 << 20

const (
	// callTime bounds one method with all its attempts.
	callTime = 30 * time.Second
	// tries is how often a put is begun again while another of the same name is
	// under way, and a read that was cut off.
	tries  = 5
	binary = "application/octet-stream"
)

// S3Options says which bucket is the vault.
type S3Options struct {
	Bucket string
	// Prefix is put before all names, with a slash between; it may be empty.
	Prefix string
	// Region is the bucket's. Empty means that of the environment, or us-east-1
	// for a service at an Endpoint.
	Region string
	// Endpoint is the address of an S3 service that is not AWS's, as
	// https://host:port. Buckets are then named in the path.
	Endpoint string
	// KMSKeyID has S3 encrypt the objects once more with this key. It is no
	// substitute for their sealing: S3 decrypts for whoever may read.
	KMSKeyID    string
	HTTPClient  aws.HTTPClient          // nil: one that does not wait long
	Credentials aws.CredentialsProvider // nil: those of the environment, the task or the machine
	Log         *slog.Logger            // nil: none
}

// S3 is a state.Vault in an S3 bucket: the object NAME of SESSION has the key
// PREFIX/SESSION/NAME. An object is written once, with If-None-Match, and its
// SHA-256 goes with it and is compared at each read.
//
// The bucket should keep versions: an object that is deleted or overwritten by
// somebody else can then be got back. What is deleted here is deleted with its
// versions.
//
// The role needs s3:PutObject, s3:GetObject, s3:GetObjectVersion,
// s3:DeleteObject and s3:DeleteObjectVersion on the objects, and s3:ListBucket,
// s3:ListBucketVersions and s3:GetBucketVersioning on the bucket; with a KMS key
// also kms:GenerateDataKey and kms:Decrypt on that. Without s3:ListBucket, S3
// calls a missing object forbidden, and it would not be told from a fault.
//
// Errors of the service wrap state.ErrUnavailable and say in one line what to
// do. Each call is bounded: about 30 s with all its attempts.
type S3 struct {
	o      S3Options
	client *s3.Client
	log    *slog.Logger
	limit  time.Duration // of a call
	pause  time.Duration // before the first retry of a put; doubles
	proven atomic.Bool   // Ping has written and read
}

var _ state.Vault = (*S3)(nil)

// OpenS3 checks the options and makes a client. It asks nothing of the bucket,
// so that a worker can start while that is out of reach: Ping tells.
func OpenS3(ctx context.Context, o S3Options) (*S3, error) {
	o.Prefix = strings.Trim(o.Prefix, "/")
	switch {
	case o.Bucket == "":
		return nil, errors.New("vault: no bucket is named: set one")
	case strings.ContainsAny(o.Bucket, "/: \t\n") && !strings.HasPrefix(o.Bucket, "arn:"):
		return nil, fmt.Errorf("vault: %q is not a bucket's name: give the name alone, and the prefix apart from it", o.Bucket)
	case strings.ContainsFunc(o.Prefix, func(r rune) bool { return r <= ' ' || r > '~' }) || len(o.Prefix) > 512:
		return nil, fmt.Errorf("vault s3://%s: the prefix %q is not one: use up to 512 letters, digits and slashes", o.Bucket, o.Prefix)
	}
	if err := awsclient.CheckEndpoint(o.Endpoint); err != nil {
		return nil, fmt.Errorf("vault s3://%s: %w", o.Bucket, err)
	}
	known := awsclient.Options{Region: o.Region, HTTPClient: o.HTTPClient, Credentials: o.Credentials}
	cfg, err := awsclient.Config(ctx, known)
	if err != nil && o.Endpoint != "" && o.Region == "" { // the environment has none, and that service minds none
		known.Region = "us-east-1"
		cfg, err = awsclient.Config(ctx, known)
	}
	if err != nil {
		return nil, fmt.Errorf("vault s3://%s: %w", o.Bucket, err)
	}
	client := s3.NewFromConfig(cfg, func(c *s3.Options) {
		if o.Endpoint != "" {
			c.BaseEndpoint = aws.String(o.Endpoint)
		}
		c.UsePathStyle = c.BaseEndpoint != nil
		// The SHA-256 that is sent and compared here is the only checksum.
		c.RequestChecksumCalculation = aws.RequestChecksumCalculationWhenRequired
		c.ResponseChecksumValidation = aws.ResponseChecksumValidationWhenRequired
	})
	log := o.Log
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	return &S3{o: o, client: client, log: log, limit: callTime, pause: 100 * time.Millisecond}, nil
}

// PutObject implements state.Vault. The version id is empty if the bucket keeps
// no versions. state.ErrTooLarge if the body is longer than MaxObject.
func (v *S3) PutObject(ctx context.Context, session, name string, body []byte) (string, error) {
	key, err := v.key(session, name)
	if err != nil {
		return "", err
	}
	if len(body) > MaxObject {
		return "", fmt.Errorf("object %s of %s: %w: it has %d bytes, a vault takes %d", name, session, state.ErrTooLarge, len(body), MaxObject)
	}
	ctx, cancel := context.WithTimeout(ctx, v.limit)
	defer cancel()
	version, err := v.put(ctx, key, body)
	if errors.Is(err, state.ErrExists) {
		return "", taken(session, name)
	} else if err != nil {
		return "", v.failure("store", "s3:PutObject", err)
	}
	return version, nil
}

// put returns state.ErrExists or an error of the SDK.
func (v *S3) put(ctx context.Context, key string, body []byte) (version string, err error) {
	sum := checksum(body)
	in := &s3.PutObjectInput{
		Bucket: &v.o.Bucket, Key: &key, IfNoneMatch: aws.String("*"),
		ContentLength: aws.Int64(int64(len(body))), ContentType: aws.String(binary), ChecksumSHA256: &sum,
	}
	if v.o.KMSKeyID != "" {
		in.ServerSideEncryption, in.SSEKMSKeyId, in.BucketKeyEnabled = types.ServerSideEncryptionAwsKms, &v.o.KMSKeyID, aws.Bool(true)
	}
	var sent atomic.Int32
	for try := 0; ; try++ {
		in.Body = bytes.NewReader(body)
		out, err := v.client.PutObject(ctx, in, counting(&sent))
		if err == nil {
			return aws.ToString(out.VersionId), nil
		}
		status, _ := awsclient.Status(err)
		switch {
		case status == http.StatusPreconditionFailed:
			// An attempt whose answer was lost may be what took the name.
			if sent.Load() > 1 {
				if version, ours, err := v.same(ctx, key, sum); ours || err != nil {
					return version, err
				}
			}
			return "", state.ErrExists
		case status == http.StatusConflict && try+1 < tries:
			// Another put of the name is under way, maybe an attempt of ours.
			if err := v.wait(ctx, try); err != nil {
				return "", err
			}
		default:
			return "", err
		}
	}
}

// counting counts what is really sent, retries within the SDK included.
func counting(sent *atomic.Int32) func(*s3.Options) {
	count := middleware.FinalizeMiddlewareFunc("CountAttempts", func(ctx context.Context, in middleware.FinalizeInput, next middleware.FinalizeHandler) (middleware.FinalizeOutput, middleware.Metadata, error) {
		sent.Add(1)
		return next.HandleFinalize(ctx, in)
	})
	return s3.WithAPIOptions(func(stack *middleware.Stack) error { return stack.Finalize.Add(count, middleware.After) })
}

// same tells whether the object under a key is the one with this checksum. One
// that is gone again is not.
func (v *S3) same(ctx context.Context, key, sum string) (version string, is bool, err error) {
	out, err := v.client.HeadObject(ctx, &s3.HeadObjectInput{Bucket: &v.o.Bucket, Key: &key, ChecksumMode: types.ChecksumModeEnabled})
	if absent(err, "") {
		return "", false, nil
	} else if err != nil {
		return "", false, err
	}
	return aws.ToString(out.VersionId), aws.ToString(out.ChecksumSHA256) == sum, nil
}

// wait pauses before the next try, longer each time, with jitter.
func (v *S3) wait(ctx context.Context, try int) error {
	d := v.pause << try
	t := time.NewTimer(d/2 + rand.N(d/2+1))
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// GetObject implements state.Vault. state.ErrCorrupt if the object is not what
// was once stored.
func (v *S3) GetObject(ctx context.Context, session, name, versionID string) ([]byte, error) {
	key, err := v.key(session, name)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, v.limit)
	defer cancel()
	body, err := v.get(ctx, key, versionID)
	switch {
	case absent(err, versionID):
		return nil, fmt.Errorf("object %s of %s: %w", name, session, state.ErrNotFound)
	case errors.Is(err, state.ErrCorrupt):
		return nil, fmt.Errorf("object %s of %s: %w", name, session, err)
	case err != nil:
		return nil, v.failure("read", "s3:GetObject and s3:GetObjectVersion", err)
	}
	return body, nil
}

// get returns an error that wraps state.ErrCorrupt, or one of the SDK or the
// network.
func (v *S3) get(ctx context.Context, key, versionID string) ([]byte, error) {
	in := &s3.GetObjectInput{Bucket: &v.o.Bucket, Key: &key}
	if versionID != "" {
		in.VersionId = &versionID
	}
	// Setting ChecksumMode would have the SDK compare, with an error that cannot
	// be told from one of the network. So the header alone is set.
	askSum := s3.WithAPIOptions(smithyhttp.SetHeaderValue("x-amz-checksum-mode", string(types.ChecksumModeEnabled)))
	for try := 0; ; try++ {
		out, err := v.client.GetObject(ctx, in, askSum)
		if err != nil {
			return nil, err
		}
		body, err := readObject(out)
		if err == nil || errors.Is(err, state.ErrCorrupt) || try+1 == tries || ctx.Err() != nil {
			return body, err
		}
		if err := v.wait(ctx, try); err != nil {
			return nil, err
		}
	}
}

// readObject reads an answer to its end and compares its checksum. An object
// without a SHA-256 was put there by something else, such as a copy made by
// hand; the pointer to it has its hash too.
func readObject(out *s3.GetObjectOutput) ([]byte, error) {
	defer out.Body.Close()
	body, err := io.ReadAll(io.LimitReader(out.Body, MaxObject+1))
	switch sum := aws.ToString(out.ChecksumSHA256); {
	case err != nil:
		return nil, err
	case len(body) > MaxObject:
		return nil, fmt.Errorf("%w: it is larger than %d bytes, so it was not stored by Holdfast", state.ErrCorrupt, MaxObject)
	case sum != "" && out.ChecksumType != types.ChecksumTypeComposite && sum != checksum(body):
		return nil, fmt.Errorf("%w: its checksum is not the one that it was stored with", state.ErrCorrupt)
	}
	return body, nil
}

func checksum(body []byte) string {
	sum := sha256.Sum256(body)
	return base64.StdEncoding.EncodeToString(sum[:])
}

// DeleteObject implements state.Vault. Without a version id all versions of the
// object are deleted: a bucket that keeps versions would else only hide it.
func (v *S3) DeleteObject(ctx context.Context, session, name, versionID string) error {
	key, err := v.key(session, name)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, v.limit)
	defer cancel()
	versions := []string{versionID}
	if versionID == "" {
		if versions, err = v.versions(ctx, key); err != nil {
			return v.failure("delete", "s3:ListBucketVersions", err)
		}
	}
	for _, version := range versions {
		if err := v.remove(ctx, key, version); err != nil {
			return v.failure("delete", "s3:DeleteObject and s3:DeleteObjectVersion", err)
		}
	}
	return nil
}

// remove deletes one version; that it is absent is no error.
func (v *S3) remove(ctx context.Context, key, version string) error {
	_, err := v.client.DeleteObject(ctx, &s3.DeleteObjectInput{Bucket: &v.o.Bucket, Key: &key, VersionId: &version})
	if absent(err, version) {
		return nil
	}
	return err
}

// versions returns the ids of all versions and delete markers of a key. In a
// bucket without versions an object is the version "null".
func (v *S3) versions(ctx context.Context, key string) ([]string, error) {
	var ids []string
	pages := s3.NewListObjectVersionsPaginator(v.client, &s3.ListObjectVersionsInput{Bucket: &v.o.Bucket, Prefix: &key})
	for pages.HasMorePages() {
		page, err := pages.NextPage(ctx)
		if err != nil {
			return nil, err
		}
		for _, o := range page.Versions {
			if aws.ToString(o.Key) == key {
				ids = append(ids, aws.ToString(o.VersionId))
			}
		}
		for _, m := range page.DeleteMarkers {
			if aws.ToString(m.Key) == key {
				ids = append(ids, aws.ToString(m.VersionId))
			}
		}
	}
	return ids, nil
}

// ListObjects implements state.Vault.
func (v *S3) ListObjects(ctx context.Context, session string) ([]string, error) {
	key, err := v.key(session, "x")
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, v.limit)
	defer cancel()
	folder := strings.TrimSuffix(key, "x")
	var names []string
	pages := s3.NewListObjectsV2Paginator(v.client, &s3.ListObjectsV2Input{Bucket: &v.o.Bucket, Prefix: &folder})
	for pages.HasMorePages() {
		page, err := pages.NextPage(ctx)
		if err != nil {
			return nil, v.failure("list", "s3:ListBucket", err)
		}
		for _, o := range page.Contents {
			if name := strings.TrimPrefix(aws.ToString(o.Key), folder); state.CheckObject(name) == nil {
				names = append(names, name)
			}
		}
	}
	slices.Sort(names)
	return names, nil
}

// key is an object's. Both names are checked, so that none leads elsewhere.
func (v *S3) key(session, name string) (string, error) {
	if err := state.CheckName(session); err != nil {
		return "", err
	}
	if err := state.CheckObject(name); err != nil {
		return "", err
	}
	return v.path(session + "/" + name), nil
}

func (v *S3) path(rest string) string {
	if v.o.Prefix == "" {
		return rest
	}
	return v.o.Prefix + "/" + rest
}
