package vault

import (
	"context"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"

	"github.com/holdfast-wa/holdfast/state/awsclient"
)

// BucketFacts are what concerns operators of a vault's bucket. A field whose
// error is not nil is not known.
type BucketFacts struct {
	Versions      bool // it keeps versions of what is overwritten or deleted
	VersionsErr   error
	Encryption    string // with what S3 encrypts by itself: AES256, aws:kms, …; empty: nothing
	EncryptionErr error
	Public        bool // not all four of S3's blocks of public access are on
	PublicErr     error
}

// Facts looks at the bucket, for doctor. It takes s3:GetBucketVersioning,
// s3:GetEncryptionConfiguration and s3:GetBucketPublicAccessBlock, of which the
// vault itself needs none.
func (v *S3) Facts(ctx context.Context) BucketFacts {
	ctx, cancel := context.WithTimeout(ctx, v.limit)
	defer cancel()
	var f BucketFacts
	kept, err := v.client.GetBucketVersioning(ctx, &s3.GetBucketVersioningInput{Bucket: &v.o.Bucket})
	if err != nil {
		f.VersionsErr = v.failure("look at the versioning of", "s3:GetBucketVersioning", err)
	} else {
		f.Versions = kept.Status == types.BucketVersioningStatusEnabled
	}
	sealed, err := v.client.GetBucketEncryption(ctx, &s3.GetBucketEncryptionInput{Bucket: &v.o.Bucket})
	switch {
	case awsclient.Code(err) == "ServerSideEncryptionConfigurationNotFoundError":
	case err != nil:
		f.EncryptionErr = v.failure("look at the encryption of", "s3:GetEncryptionConfiguration", err)
	case sealed.ServerSideEncryptionConfiguration != nil:
		for _, r := range sealed.ServerSideEncryptionConfiguration.Rules {
			if r.ApplyServerSideEncryptionByDefault != nil {
				f.Encryption = string(r.ApplyServerSideEncryptionByDefault.SSEAlgorithm)
			}
		}
	}
	open, err := v.client.GetPublicAccessBlock(ctx, &s3.GetPublicAccessBlockInput{Bucket: &v.o.Bucket})
	switch {
	case awsclient.Code(err) == "NoSuchPublicAccessBlockConfiguration":
		f.Public = true
	case err != nil:
		f.PublicErr = v.failure("look at the public access of", "s3:GetBucketPublicAccessBlock", err)
	case open.PublicAccessBlockConfiguration != nil:
		b := open.PublicAccessBlockConfiguration
		f.Public = !aws.ToBool(b.BlockPublicAcls) || !aws.ToBool(b.IgnorePublicAcls) || !aws.ToBool(b.BlockPublicPolicy) || !aws.ToBool(b.RestrictPublicBuckets)
	}
	return f
}
