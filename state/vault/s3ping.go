package vault

import (
	"context"
	"errors"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"

	"github.com/holdfast-wa/holdfast/state"
	"github.com/holdfast-wa/holdfast/state/awsclient"
)

// probe is the object that Ping writes once and reads. No session's name begins
// with a dot.
const (
	probe     = ".holdfast"
	probeText = "Holdfast keeps credential objects here. Ping reads this one.\n"
)

// Ping implements state.Vault. The first time, and after each failure, it writes
// and reads a small object of its own and looks whether the bucket keeps
// versions; after that it asks only whether the bucket is there.
func (v *S3) Ping(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, v.limit)
	defer cancel()
	if err := v.reach(ctx); err != nil {
		v.proven.Store(false)
		return v.failure("reach", "s3:ListBucket", err)
	}
	if v.proven.Load() {
		return nil
	}
	key := v.path(probe)
	if _, err := v.put(ctx, key, []byte(probeText)); err != nil && !errors.Is(err, state.ErrExists) {
		return v.failure("write into", "s3:PutObject", err)
	}
	if _, err := v.get(ctx, key, ""); err != nil {
		return v.failure("read from", "s3:GetObject", err)
	}
	v.adviseVersions(ctx)
	v.proven.Store(true)
	return nil
}

// reach asks for the bucket. The answer to a HEAD request has no room for what is
// wrong, so after a failure it asks by a list, which costs more.
func (v *S3) reach(ctx context.Context) error {
	_, err := v.client.HeadBucket(ctx, &s3.HeadBucketInput{Bucket: &v.o.Bucket})
	if status, _ := awsclient.Status(err); err == nil || status == 0 || status >= 500 {
		return err
	}
	_, err = v.client.ListObjectsV2(ctx, &s3.ListObjectsV2Input{Bucket: &v.o.Bucket, Prefix: aws.String(v.path(probe)), MaxKeys: aws.Int32(1)})
	return err
}

// adviseVersions warns if the bucket keeps no versions. A role that may not ask
// is no fault.
func (v *S3) adviseVersions(ctx context.Context) {
	out, err := v.client.GetBucketVersioning(ctx, &s3.GetBucketVersioningInput{Bucket: &v.o.Bucket})
	switch {
	case err != nil:
		v.log.Debug("whether the vault's bucket keeps versions is not known", "bucket", v.o.Bucket, "err", awsclient.Short(err))
	case out.Status != types.BucketVersioningStatusEnabled:
		v.log.Warn("the vault's bucket keeps no versions: turn versioning on, so that a credential object that somebody deletes or overwrites can be got back", "bucket", v.o.Bucket)
	}
}
