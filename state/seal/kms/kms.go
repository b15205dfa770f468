// Package kms keeps the master key in AWS KMS. The key never leaves the service:
// keysets go there to be wrapped and unwrapped, once at each start of a session.
// What a session seals after that is sealed here, with its keyset.
package kms

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/kms"

	"github.com/holdfast-wa/holdfast/state"
	"github.com/holdfast-wa/holdfast/state/awsclient"
	"github.com/holdfast-wa/holdfast/state/seal"
)

const (
	// callTime bounds one method with all its attempts.
	callTime = 20 * time.Second
	// maxPlain is what KMS encrypts at most, in bytes. A keyset has 240, and 102
	// more for each key that rotation has added: 38 keys fit.
	maxPlain = 4096
	// maxBlob is what KMS decrypts at most. It calls more a wrong request, which
	// would look like a fault of ours.
	maxBlob  = 6144
	idPrefix = "kms:"
)

// Options says which key is the master.
type Options struct {
	// KeyARN is the key's, arn:aws:kms:REGION:ACCOUNT:key/ID. An alias is
	// refused: it can come to mean another key, and what the old one wrapped
	// would then not open.
	KeyARN string
	// Region is empty, or the one in the ARN.
	Region string
	// Endpoint is the address of a service that is not AWS's public one, such as
	// a VPC endpoint's, as https://host:port.
	Endpoint    string
	HTTPClient  aws.HTTPClient          // nil: one that does not wait long
	Credentials aws.CredentialsProvider // nil: those of the environment, the task or the machine
}

// Master is a seal.Master in KMS. Wrap is one kms:Encrypt, Unwrap one
// kms:Decrypt; the context is KMS's encryption context, which CloudTrail shows
// and key policies can name. The role needs both permissions on the key.
//
// That the service does not answer, refuses, or has the key disabled wraps
// state.ErrUnavailable: what is wrapped is sound. Only an answer that the
// ciphertext is not of this key and context wraps state.ErrCorrupt.
type Master struct {
	arn    string
	client *kms.Client
	limit  time.Duration // of a call
}

var _ seal.Master = (*Master)(nil)

// Open checks the options and makes a client. It asks nothing of KMS, so that a
// worker can start while that is out of reach: Ping tells.
func Open(ctx context.Context, o Options) (*Master, error) {
	region, err := regionOf(o.KeyARN)
	switch {
	case err != nil:
		return nil, err
	case o.Region != "" && o.Region != region:
		return nil, fmt.Errorf("master key %s: the region is set to %q: a key is used in its own region, leave the setting out", o.KeyARN, o.Region)
	}
	if err := awsclient.CheckEndpoint(o.Endpoint); err != nil {
		return nil, fmt.Errorf("master key %s: %w", o.KeyARN, err)
	}
	cfg, err := awsclient.Config(ctx, awsclient.Options{Region: region, HTTPClient: o.HTTPClient, Credentials: o.Credentials})
	if err != nil {
		return nil, fmt.Errorf("master key %s: %w", o.KeyARN, err)
	}
	client := kms.NewFromConfig(cfg, func(c *kms.Options) {
		if o.Endpoint != "" {
			c.BaseEndpoint = aws.String(o.Endpoint)
		}
	})
	return &Master{arn: o.KeyARN, client: client, limit: callTime}, nil
}

// regionOf checks a key's ARN.
func regionOf(arn string) (string, error) {
	part := strings.Split(arn, ":")
	const want = "write the key's ARN, arn:aws:kms:REGION:ACCOUNT:key/ID, as the console shows it"
	switch {
	case len(part) == 6 && part[2] == "kms" && strings.HasPrefix(part[5], "alias/"):
		return "", fmt.Errorf("master key %q: is an alias, which can come to mean another key: %s", arn, want)
	case len(part) != 6 || part[0] != "arn" || part[1] == "" || part[2] != "kms" || part[3] == "" || part[4] == "" ||
		!strings.HasPrefix(part[5], "key/") || part[5] == "key/" || len(arn) > seal.MaxMasterID-len(idPrefix) ||
		strings.ContainsFunc(arn, func(r rune) bool { return r <= ' ' || r > '~' }):
		return "", fmt.Errorf("master key %q: is not the ARN of a KMS key: %s", awsclient.OneLine(arn), want)
	}
	return part[3], nil
}

// ID implements seal.Master.
func (m *Master) ID() string { return idPrefix + m.arn }

// Wrap implements seal.Master.
func (m *Master) Wrap(ctx context.Context, plain []byte, bound map[string]string) ([]byte, error) {
	if len(plain) > maxPlain {
		return nil, fmt.Errorf("master key %s: %w: the keyset has %d bytes and KMS wraps %d: too many keys were added to it; pair the session anew for a fresh one", m.arn, state.ErrTooLarge, len(plain), maxPlain)
	}
	ctx, cancel := context.WithTimeout(ctx, m.limit)
	defer cancel()
	out, err := m.client.Encrypt(ctx, &kms.EncryptInput{KeyId: &m.arn, Plaintext: plain, EncryptionContext: bound})
	if err != nil {
		return nil, m.failure("wrap", "kms:Encrypt", err)
	}
	return seal.WrapHead(m.ID(), out.CiphertextBlob), nil
}

// Unwrap implements seal.Master.
func (m *Master) Unwrap(ctx context.Context, wrapped []byte, bound map[string]string) ([]byte, error) {
	id, blob, err := seal.WrappedWith(wrapped)
	switch {
	case err != nil:
		return nil, err
	case !sameKey(id, m.ID()):
		return nil, seal.WrongMaster(id, m.ID())
	case len(blob) == 0 || len(blob) > maxBlob:
		return nil, fmt.Errorf("%w: the wrapped keyset has a ciphertext of %d bytes, which KMS never makes", state.ErrCorrupt, len(blob))
	}
	ctx, cancel := context.WithTimeout(ctx, m.limit)
	defer cancel()
	out, err := m.client.Decrypt(ctx, &kms.DecryptInput{KeyId: &m.arn, CiphertextBlob: blob, EncryptionContext: bound})
	if err != nil {
		return nil, m.failure("unwrap", "kms:Decrypt", err)
	}
	return out.Plaintext, nil
}

// sameKey tells whether two ids name one key. A multi-Region key has the same id
// in each of its regions and an ARN of its own.
func sameKey(a, b string) bool {
	if a == b {
		return true
	}
	x, y := strings.Split(a, ":"), strings.Split(b, ":")
	const region = 4
	if len(x) != 7 || len(y) != 7 || !strings.HasPrefix(x[6], "key/mrk-") {
		return false
	}
	x[region], y[region] = "", ""
	return strings.Join(x, ":") == strings.Join(y, ":")
}

// Ping tells whether the key can be used: it wraps a few bytes and unwraps them.
func (m *Master) Ping(ctx context.Context) error {
	use := map[string]string{"holdfast:purpose": "check"}
	wrapped, err := m.Wrap(ctx, []byte("check"), use)
	if err != nil {
		return err
	}
	plain, err := m.Unwrap(ctx, wrapped, use)
	switch {
	case err != nil:
		return err
	case string(plain) != "check":
		return fmt.Errorf("master key %s: %w: it gives back something else than it was given; check the endpoint", m.arn, state.ErrUnavailable)
	}
	return nil
}

// failure says in one line what could not be done with which key, and what would
// help.
func (m *Master) failure(doing, need string, err error) error {
	var advice string
	switch awsclient.Code(err) {
	case "InvalidCiphertextException":
		return fmt.Errorf("%w: the wrapped keyset does not open with master key %q, which is the one that it names: damaged, or wrapped for another partition", state.ErrCorrupt, m.ID())
	case "IncorrectKeyException":
		return fmt.Errorf("%w: the wrapped keyset is of another key in KMS than master key %q, which it names: damaged", state.ErrCorrupt, m.ID())
	case "NotFoundException":
		advice = "there is no such key in this region and account; correct the ARN"
	case "DisabledException":
		advice = "the key is disabled; enable it"
	case "KMSInvalidStateException":
		advice = "the key cannot be used in its state; if its deletion is pending, cancel that at once: without it nothing that was sealed can be read"
	case "InvalidKeyUsageException", "UnsupportedOperationException":
		advice = "the key must be symmetric, for encrypting and decrypting"
	case "KeyUnavailableException", "DependencyTimeoutException":
		advice = "the service has a fault; nothing is lost, it is tried again"
	default:
		advice = awsclient.Advice(err, need+" on the key")
	}
	text := fmt.Sprintf("master key %s: cannot %s a keyset: %s: %s", m.arn, doing, state.ErrUnavailable, awsclient.Short(err))
	if advice != "" {
		text += ": " + advice
	}
	return &awsclient.Fault{Text: text, Kind: state.ErrUnavailable, Err: err}
}
