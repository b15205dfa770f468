package vault

import (
	"errors"
	"fmt"
	"net/http"
	"strings"

	"github.com/aws/smithy-go"

	"github.com/holdfast-wa/holdfast/state"
	"github.com/holdfast-wa/holdfast/state/awsclient"
)

// regionHeader is how S3 says where a bucket really is.
const regionHeader = "X-Amz-Bucket-Region"

// absent tells whether an error means that there is no such object, or no such
// version of it.
func absent(err error, versionID string) bool {
	if err == nil {
		return false
	}
	status, header := awsclient.Status(err)
	switch awsclient.Code(err) {
	case "NoSuchBucket":
		return false
	case "NoSuchKey", "NoSuchVersion":
		return true
	case "InvalidArgument":
		// The version id is not of a form that this bucket gives out.
		return versionID != ""
	}
	// HEAD has no code. A delete marker answers 405 to its own version id.
	return status == http.StatusNotFound || status == http.StatusMethodNotAllowed && header.Get("X-Amz-Delete-Marker") == "true"
}

// failure says in one line what could not be done with which bucket, and what
// would help. need is the permission that the call takes.
func (v *S3) failure(doing, need string, err error) error {
	text := fmt.Sprintf("vault s3://%s: cannot %s: %s: %s", v.where(), doing, state.ErrUnavailable, awsclient.Short(err))
	if advice := v.advice(need, err); advice != "" {
		text += ": " + advice
	}
	return &awsclient.Fault{Text: text, Kind: state.ErrUnavailable, Err: err}
}

// where names the vault as in s3://BUCKET/PREFIX.
func (v *S3) where() string {
	return strings.TrimSuffix(v.o.Bucket+"/"+v.o.Prefix, "/")
}

func (v *S3) advice(need string, err error) string {
	status, header := awsclient.Status(err)
	code := awsclient.Code(err)
	if region := header.Get(regionHeader); region != "" && region != v.client.Options().Region {
		return "the bucket is in the region " + region + "; set the vault's region to that"
	}
	switch {
	case errors.Is(err, state.ErrCorrupt):
		return "the object " + v.path(probe) + " is not what was stored; delete it, it is made again"
	case code == "NoSuchBucket":
		return "there is no bucket of that name; create it, or correct the name"
	case code == "InvalidBucketName":
		return "correct the name"
	case status == http.StatusMovedPermanently, status == http.StatusTemporaryRedirect, code == "AuthorizationHeaderMalformed", code == "IllegalLocationConstraintException":
		return "the bucket is in another region; set the vault's region to that"
	case strings.HasPrefix(code, "KMS."):
		return "the key with which S3 encrypts the bucket cannot be used; check that it exists, is enabled, and is in the bucket's region"
	case status == http.StatusConflict:
		return "another writer is storing the same name; try again"
	}
	if awsclient.Denied(err) && aboutKMS(err) {
		return "allow kms:GenerateDataKey and kms:Decrypt for this role on the key with which S3 encrypts the bucket"
	}
	return awsclient.Advice(err, need+" on "+v.where())
}

// aboutKMS tells whether S3 was refused by the key and not by the bucket.
func aboutKMS(err error) bool {
	var answer smithy.APIError
	return errors.As(err, &answer) && strings.Contains(answer.ErrorMessage(), "kms:")
}
