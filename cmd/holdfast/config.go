package main

import (
	"errors"
	"fmt"
	"log/slog"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/holdfast-wa/holdfast/infra/adminapi"
	"github.com/holdfast-wa/holdfast/worker/deliver/safedial"
	"github.com/holdfast-wa/holdfast/worker/policy"
)

// Config is all that the program can be told, as one value: defaults, then the
// file, then the environment, then flags, checked as a whole. It prints without
// its secrets.
type Config struct {
	DataDir   string
	State     Place // sqlite, dynamodb
	Vault     Place // dir, s3
	MasterKey Place // file, awskms
	// MasterKeysOld still open what was wrapped with them; nothing new is.
	MasterKeysOld []Place
	Listen        string
	APIKeys       []adminapi.Key

	Profile string
	Policy  policy.Settings // the profile with the single values that were given

	Heartbeat  time.Duration // below Trust
	Trust      time.Duration // below Takeover
	Takeover   time.Duration
	Poll       time.Duration // how often sessions that nobody owns are looked for
	Drain      time.Duration // what a worker that ends may take to give its sessions away
	LoginRate  float64       // logins a second that the worker makes at most
	LoginBurst int           // logins at once, when none were made for a while
	Capacity   int           // sessions; 0: as many as memory and login rate allow

	DeviceName     string
	DevicePlatform string
	HistorySync    bool

	WebhookURL    string
	WebhookSecret Secret
	WebhookReach  safedial.Policy // where webhooks of sessions may lead beside the internet

	MediaReach     safedial.Policy // where files to send may be fetched beside the internet
	MediaRedirects bool            // they may be redirected
	MediaLimit     int64           // of a file to send, bytes
	APIRate        float64         // requests a second of one API key; 0: no bound

	WhatsAppURL     string   // empty: WhatsApp's own
	WhatsAppRootKey [32]byte // zero: WhatsApp's own
	Proxy           string
	AWSEndpoints    map[string]string // by service: dynamodb, s3, kms

	Deployment  string // the revision that this process was deployed with; empty: see member
	Task        string // what the platform calls this process; empty: likewise
	ecsMetadata string // where ECS tells of the task; empty: it is none

	EMFInterval time.Duration // between lines of metrics for CloudWatch; 0: none
	onRetry     func(string)  // is told why the store repeats a request; nil: nobody is

	LogLevel  slog.Level
	LogFormat string // text, json, auto

	// Of the client commands.
	URL        string
	APIKey     Secret
	APIKeyFile string

	given layers
}

// Place is where something is kept: a scheme and what stands behind it, such as
// sqlite and the path of the file, or s3 and bucket/prefix.
type Place struct {
	Scheme string
	Path   string
}

func (p Place) String() string {
	if p.Scheme == "s3" {
		return "s3://" + p.Path
	}
	return p.Scheme + ":" + p.Path
}

// Secret is text that is never printed. Reveal gives it.
type Secret string

// Reveal returns the secret itself.
func (s Secret) Reveal() string { return string(s) }

func (s Secret) String() string {
	if s == "" {
		return ""
	}
	return "(set)"
}

// GoString keeps the secret out of %#v.
func (s Secret) GoString() string { return s.String() }

// LogValue keeps the secret out of the log.
func (s Secret) LogValue() slog.Value { return slog.StringValue(s.String()) }

// MarshalText keeps the secret out of JSON and YAML.
func (s Secret) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// Described is one setting as doctor shows it.
type Described struct {
	Name   string `json:"name"`
	Value  string `json:"value"`
	Source string `json:"source"`
}

// Describe lists every setting of the worker with its value, secrets left out,
// and where the value comes from.
func (c Config) Describe() []Described {
	var all []Described
	worker := workerSettings()
	for _, s := range settings() {
		if !slices.Contains(worker, s.name) {
			continue
		}
		v := c.given.get(s, c.DataDir)
		text := v.text
		switch {
		case text == "" && isPolicy(s.name):
			text, v.source = policyValue(c.Policy, s.name), "profile "+c.Profile
		case text == "":
			text = "none"
		case s.secret:
			text = "(set)"
		case s.holdsURL:
			text = withoutUser(text)
		}
		all = append(all, Described{s.name, text, v.source})
	}
	return all
}

// String shows the settings that differ from the defaults, without secrets.
func (c Config) String() string {
	var b strings.Builder
	for _, d := range c.Describe() {
		if d.Source == "default" || strings.HasPrefix(d.Source, "profile ") {
			continue
		}
		fmt.Fprintf(&b, "%s=%s ", d.Name, d.Value)
	}
	return strings.TrimSpace(b.String())
}

// GoString keeps secrets out of %#v as String does out of %v.
func (c Config) GoString() string { return "Config{" + c.String() + "}" }

// LogValue keeps secrets out of the log.
func (c Config) LogValue() slog.Value { return slog.StringValue(c.String()) }

// withoutUser hides user and password of a URL.
func withoutUser(raw string) string {
	u, err := url.Parse(raw)
	if err != nil || u.User == nil {
		return raw
	}
	u.User = nil
	return strings.Replace(u.String(), "://", "://***@", 1)
}

// newConfig parses the layers. Every fault is in the error, each with the place
// that the value came from; only names the settings that are looked at (nil: all).
func newConfig(given layers, only []string) (Config, error) {
	c := Config{given: given, AWSEndpoints: map[string]string{}}
	var faults []error
	for _, s := range settings() {
		if only != nil && !slices.Contains(only, s.name) {
			continue
		}
		v := given.get(s, c.DataDir)
		if v.text == "" {
			continue
		}
		if err := s.parse(&c, v.text); err != nil {
			what := s.name
			if v.source != "default" {
				what += " (" + v.source + ")"
			}
			faults = append(faults, fmt.Errorf("%s: %w", what, err))
		}
	}
	if c.Poll == 0 {
		c.Poll = min(2*time.Second, max(c.Takeover/6, 100*time.Millisecond))
	}
	if c.Drain == 0 {
		c.Drain = drainEmbedded
		if c.State.Scheme == "dynamodb" {
			c.Drain = drainFleet
		}
	}
	if len(faults) == 0 && only == nil {
		faults = c.validate()
	}
	if len(faults) > 0 {
		return c, usageError{errors.Join(faults...)}
	}
	return c, nil
}

// How long sessions may take to end, where nothing else is set. A process on
// one's own machine ends within 10 s of SIGTERM. One of a fleet gives its sessions
// away one by one; ECS allows 120 s at most before it kills, of which what follows
// the drain needs some.
const (
	drainEmbedded = 7 * time.Second
	drainFleet    = 90 * time.Second
	drainMost     = 110 * time.Second
)

// validate checks what concerns several settings at once.
func (c Config) validate() []error {
	var faults []error
	bad := func(format string, args ...any) { faults = append(faults, fmt.Errorf(format, args...)) }
	if c.Heartbeat*2 > c.Trust {
		bad("heartbeat: %v is more than half of trust (%v); a worker must have missed several before it lets go", c.Heartbeat, c.Trust)
	}
	if c.Takeover < c.Trust+c.Trust/5 {
		bad("trust: %v is not a fifth below takeover (%v); two workers would hold one session", c.Trust, c.Takeover)
	}
	if c.Poll >= c.Takeover/2 {
		bad("poll: %v is not below half of takeover (%v); a worker that stands still would not be noticed", c.Poll, c.Takeover)
	}
	if slices.Contains(c.MasterKeysOld, c.MasterKey) {
		bad("master-key-old: %s is the present master-key; list the former ones only", c.MasterKey)
	}
	if c.WhatsAppRootKey != [32]byte{} && c.WhatsAppURL == "" {
		bad("whatsapp-root-key: there is no whatsapp-url; WhatsApp's own endpoint is trusted by its own key only, set both or none")
	}
	return append(faults, c.validatePolicy()...)
}
