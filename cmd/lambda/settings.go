package main

import (
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/holdfast-wa/holdfast/infra/adminapi"
	"github.com/holdfast-wa/holdfast/infra/gateway"
	"github.com/holdfast-wa/holdfast/state/awsclient"
	"github.com/holdfast-wa/holdfast/worker/deliver/safedial"
	"github.com/holdfast-wa/holdfast/worker/policy"
)

// config is all that the function can be told.
type config struct {
	tables    string   // prefix of their names
	bucket    string   // and below it
	prefix    string   // the vault
	master    string   // ARN
	former    []string // ARNs
	takeover  time.Duration
	policy    policy.Settings
	reach     safedial.Policy // of webhooks
	media     safedial.Policy // of files to send
	rate      float64         // requests a second of each caller, in each process
	endpoints map[string]string
	logLevel  slog.Level

	auth         gateway.Auth
	keys         []adminapi.Key
	container    string
	unownedAfter time.Duration
	pairingAfter time.Duration
}

var tablePrefix = regexp.MustCompile(`^[A-Za-z0-9_.-]{3,200}$`)

// onlyAWS ends the errors about places on a machine: a function has none.
const onlyAWS = "a function keeps nothing on a disk of its own"

// defaultRate is the one of the other programs.
const defaultRate = 500

// parsers are those of the variables, less the prefix HOLDFAST_. Their errors are
// the second and third part of a line: why it is wrong, and what to do.
func parsers(c *config) map[string]func(string) error {
	all := map[string]func(string) error{
		"STATE": func(v string) error {
			scheme, prefix, _ := strings.Cut(v, ":")
			switch {
			case scheme == "sqlite":
				return fmt.Errorf("SQLite is a file beside one worker, and %s; use dynamodb:PREFIX, the store of the workers", onlyAWS)
			case scheme != "dynamodb" || !tablePrefix.MatchString(prefix):
				return fmt.Errorf("%q is no place for it; write dynamodb:PREFIX, with 3 to 200 letters, digits, dots, - and _", v)
			}
			c.tables = prefix
			return nil
		},
		"VAULT": func(v string) error {
			rest, ok := strings.CutPrefix(v, "s3://")
			if !ok || rest == "" || rest[0] == '/' {
				return fmt.Errorf("%q is no bucket, and %s; write s3://BUCKET/PREFIX", v, onlyAWS)
			}
			c.bucket, c.prefix, _ = strings.Cut(rest, "/")
			return nil
		},
		"MASTER_KEY": func(v string) (err error) {
			c.master, err = keyARN(v)
			return err
		},
		"MASTER_KEY_OLD": func(v string) error {
			for one := range strings.SplitSeq(v, ",") {
				arn, err := keyARN(strings.TrimSpace(one))
				if err != nil {
					return err
				}
				c.former = append(c.former, arn)
			}
			return nil
		},
		"TAKEOVER":              duration(&c.takeover),
		"PROFILE":               func(string) error { return nil }, // read before the rest
		"WEBHOOK_ALLOW_PRIVATE": reach(&c.reach),
		"MEDIA_ALLOW_PRIVATE":   reach(&c.media),
		"API_RATE": func(v string) (err error) {
			if c.rate, err = strconv.ParseFloat(v, 64); err != nil || c.rate < 0 || c.rate > 100_000 || c.rate > 0 && c.rate < 0.1 {
				return fmt.Errorf("%q is neither a number of requests a second from 0.1 to 100000 nor 0", v)
			}
			return nil
		},
		"LOG_LEVEL": func(v string) error {
			if c.logLevel.UnmarshalText([]byte(v)) != nil {
				return fmt.Errorf("%q is none; use debug, info, warn or error", v)
			}
			return nil
		},
		"GATEWAY_AUTH": func(v string) (err error) {
			c.auth, err = gateway.ParseAuth(v)
			return err
		},
		"API_KEYS": func(v string) (err error) {
			c.keys, err = adminapi.ParseKeys(v)
			return err
		},
		"IAM_ROLES":        func(string) error { return nil }, // after the list of authorizers
		"WORKER_CONTAINER": func(v string) error { c.container = v; return nil },
		"UNOWNED_AFTER":    duration(&c.unownedAfter),
		"PAIRING_AFTER":    duration(&c.pairingAfter),
	}
	for _, service := range []string{"dynamodb", "s3", "kms"} {
		all["AWS_ENDPOINT_"+strings.ToUpper(service)] = func(v string) error {
			c.endpoints[service] = v
			return awsclient.CheckEndpoint(v)
		}
	}
	for _, d := range policy.Names() {
		all[strings.TrimPrefix(d.Env, "HOLDFAST_")] = func(v string) error { return c.policy.Set(d.Name, v) }
	}
	return all
}

func reach(into *safedial.Policy) func(string) error {
	return func(v string) (err error) {
		if v != "auto" { // with DynamoDB: the internet only
			*into, err = safedial.Parse(v)
		}
		return err
	}
}

func keyARN(v string) (string, error) {
	arn, ok := strings.CutPrefix(v, "awskms:")
	if !ok || !strings.HasPrefix(arn, "arn:") {
		return "", fmt.Errorf("%q is no key in KMS, and %s; write awskms:arn:aws:kms:REGION:ACCOUNT:key/ID", v, onlyAWS)
	}
	return arn, nil
}

func duration(into *time.Duration) func(string) error {
	return func(v string) error {
		d, err := time.ParseDuration(v)
		if err != nil || d <= 0 {
			return fmt.Errorf("%q is no time above 0; write a number with a unit, such as 12s", v)
		}
		*into = d
		return nil
	}
}

// fromEnvironment reads the settings. Every fault is in its error, one a line.
func fromEnvironment(environ []string) (config, error) {
	c := config{policy: policy.Guide(), endpoints: map[string]string{}, auth: gateway.Auth{Keys: true}, rate: defaultRate}
	given := map[string]string{}
	for _, e := range environ {
		name, value, _ := strings.Cut(e, "=")
		if name, ours := strings.CutPrefix(name, "HOLDFAST_"); ours {
			given[name] = value // an empty one is not set
		}
	}
	var faults []error
	fault := func(name string, err error) { faults = append(faults, fmt.Errorf("HOLDFAST_%s: %w", name, err)) }
	if v := given["PROFILE"]; v != "" {
		set, err := policy.For(v)
		if err != nil {
			fault("PROFILE", err)
		} else {
			c.policy = set
		}
	}
	known := parsers(&c)
	for _, name := range slices.Sorted(maps.Keys(given)) {
		if given[name] == "" {
			continue
		}
		parse := known[name]
		if parse == nil {
			fault(name, errors.New("there is no such setting of the function; remove it, or see the package's documentation for the names"))
			continue
		}
		if err := parse(given[name]); err != nil {
			fault(name, err)
		}
	}
	for _, name := range []string{"STATE", "VAULT", "MASTER_KEY"} {
		if given[name] == "" {
			fault(name, errors.New("is not set; give the function the workers' value"))
		}
	}
	if c.auth.Keys && len(c.keys) == 0 && given["API_KEYS"] == "" {
		fault("API_KEYS", errors.New("none are set, so nobody could use the API; set it to NAME:ROLE:SHA256HEX, or HOLDFAST_GATEWAY_AUTH to jwt or iam"))
	}
	if v := given["IAM_ROLES"]; v != "" {
		roles, err := gateway.ParseARNRoles(v)
		if err != nil {
			fault("IAM_ROLES", err)
		}
		c.auth.Roles = roles
	} else if c.auth.IAM {
		fault("IAM_ROLES", errors.New("none are set, so nobody who signs with IAM could use the API; set it to ARN-PATTERN=ROLE"))
	}
	if err := c.policy.Validate(); err != nil {
		faults = append(faults, err)
	}
	return c, errors.Join(faults...)
}
