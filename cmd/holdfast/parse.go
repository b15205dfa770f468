package main

import (
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/holdfast-wa/holdfast/infra/adminapi"
	"github.com/holdfast-wa/holdfast/worker/deliver"
	"github.com/holdfast-wa/holdfast/worker/deliver/safedial"
)

// Parsers of single settings. Their errors are the second and third part of a
// line: why it is wrong, and what to write instead.

func parseDataDir(c *Config, v string) error {
	c.DataDir = v
	return nil
}

// place splits SCHEME:PATH and refuses other schemes than the given ones.
func place(v string, schemes ...string) (Place, error) {
	scheme, path, found := strings.Cut(v, ":")
	shapes := strings.Join(schemes, " or ")
	var known []string
	for _, s := range schemes {
		known = append(known, s[:strings.Index(s, ":")])
	}
	switch {
	case !found:
		return Place{}, fmt.Errorf("%q says not what it is; write %s", v, shapes)
	case !slices.Contains(known, scheme):
		return Place{}, fmt.Errorf("%q is not known; write %s", scheme, shapes)
	case scheme == "s3":
		rest, ok := strings.CutPrefix(path, "//")
		if !ok || rest == "" || strings.HasPrefix(rest, "/") {
			return Place{}, fmt.Errorf("%q has no bucket; write s3://BUCKET/PREFIX", v)
		}
		path = rest
	case path == "":
		return Place{}, fmt.Errorf("%q ends too early; write %s", v, shapes)
	}
	return Place{scheme, path}, nil
}

var tablePrefix = regexp.MustCompile(`^[A-Za-z0-9_.-]{3,200}$`)

func parseState(c *Config, v string) (err error) {
	c.State, err = place(v, "sqlite:PATH", "dynamodb:PREFIX")
	if err == nil && c.State.Scheme == "dynamodb" && !tablePrefix.MatchString(c.State.Path) {
		err = fmt.Errorf("%q is no prefix of table names; use 3 to 200 letters, digits, dots, - and _", c.State.Path)
	}
	return err
}

func parseVault(c *Config, v string) (err error) {
	c.Vault, err = place(v, "dir:PATH", "s3://BUCKET/PREFIX")
	return err
}

func parseMasterKey(c *Config, v string) (err error) {
	c.MasterKey, err = masterKeyPlace(v)
	return err
}

func masterKeyPlace(v string) (Place, error) {
	p, err := place(v, "file:PATH", "awskms:ARN")
	if err == nil && p.Scheme == "awskms" && !strings.HasPrefix(p.Path, "arn:") {
		err = fmt.Errorf("%q is no ARN; write awskms:arn:aws:kms:REGION:ACCOUNT:key/ID", p.Path)
	}
	return p, err
}

func parseMasterKeysOld(c *Config, v string) error {
	for one := range strings.SplitSeq(v, ",") {
		p, err := masterKeyPlace(strings.TrimSpace(one))
		if err != nil {
			return err
		}
		if slices.Contains(c.MasterKeysOld, p) {
			return fmt.Errorf("%s is listed twice; keep one", p)
		}
		c.MasterKeysOld = append(c.MasterKeysOld, p)
	}
	return nil
}

func parseListen(c *Config, v string) error {
	_, port, err := net.SplitHostPort(v)
	if err != nil {
		return fmt.Errorf("%q is no address; write HOST:PORT, such as 127.0.0.1:8080", v)
	}
	if n, err := strconv.Atoi(port); err != nil || n < 0 || n > 65535 {
		return fmt.Errorf("port %q is not from 0 to 65535; write HOST:PORT, such as 127.0.0.1:8080", port)
	}
	c.Listen = v
	return nil
}

func parseAPIKeys(c *Config, v string) (err error) {
	c.APIKeys, err = adminapi.ParseKeys(v)
	return err
}

// duration parses a time above 0.
func duration(field func(*Config) *time.Duration) func(*Config, string) error {
	return func(c *Config, v string) error {
		d, err := time.ParseDuration(v)
		if err != nil || d <= 0 {
			return fmt.Errorf("%q is no time above 0; write a number with a unit, such as 2s or 500ms", v)
		}
		*field(c) = d
		return nil
	}
}

// between parses a time within bounds.
func between(least, most time.Duration, field func(*Config) *time.Duration) func(*Config, string) error {
	return func(c *Config, v string) error {
		d, err := time.ParseDuration(v)
		if err != nil || d < least || d > most {
			return fmt.Errorf("%q is no time from %v to %v; write a number with a unit, such as 2s", v, least, most)
		}
		*field(c) = d
		return nil
	}
}

// parsePoll takes auto for what fits the takeover time.
func parsePoll(c *Config, v string) error {
	if v == "auto" {
		c.Poll = 0
		return nil
	}
	err := between(100*time.Millisecond, time.Minute, func(c *Config) *time.Duration { return &c.Poll })(c, v)
	if err != nil {
		return fmt.Errorf("%w, or auto", err)
	}
	return nil
}

// parseDrain takes auto for what fits the store.
func parseDrain(c *Config, v string) error {
	if v == "auto" {
		c.Drain = 0
		return nil
	}
	err := between(time.Second, drainMost, func(c *Config) *time.Duration { return &c.Drain })(c, v)
	if err != nil {
		return fmt.Errorf("%w, or auto", err)
	}
	return nil
}

// plainText parses what people and platforms call something: one line, for show.
func plainText(field func(*Config) *string) func(*Config, string) error {
	return func(c *Config, v string) error {
		if len(v) > 256 || strings.ContainsFunc(v, func(r rune) bool { return r < ' ' || r == 0x7f }) {
			return errors.New("is too long or has control characters; write at most 256 plain characters")
		}
		*field(c) = v
		return nil
	}
}

// yesNo parses true or false.
func yesNo(field func(*Config) *bool) func(*Config, string) error {
	return func(c *Config, v string) error {
		b, err := strconv.ParseBool(v)
		if err != nil {
			return fmt.Errorf("%q is neither yes nor no; write true or false", v)
		}
		*field(c) = b
		return nil
	}
}

func parseCapacity(c *Config, v string) error {
	if v == "auto" {
		c.Capacity = 0
		return nil
	}
	n, err := strconv.Atoi(v)
	if err != nil || n < 1 || n > 100_000 {
		return fmt.Errorf("%q is no number of sessions; write 1 to 100000, or auto", v)
	}
	c.Capacity = n
	return nil
}

func parseLoginRate(c *Config, v string) error {
	r, err := strconv.ParseFloat(v, 64)
	if err != nil || !(r > 0 && r <= 10_000) {
		return fmt.Errorf("%q is no rate; write logins a second, above 0 and at most 10000, such as 20", v)
	}
	c.LoginRate = r
	return nil
}

func parseLoginBurst(c *Config, v string) error {
	n, err := strconv.Atoi(v)
	if err != nil || n < 1 || n > 100_000 {
		return fmt.Errorf("%q is no number of logins; write 1 to 100000", v)
	}
	c.LoginBurst = n
	return nil
}

// platforms are what a companion may say it is, as far as they make sense for
// a program like this one.
var platforms = []string{"Chrome", "Firefox", "Opera", "Safari", "Edge", "Desktop", "iPad"}

func parseDevicePlatform(c *Config, v string) error {
	for _, p := range platforms {
		if strings.EqualFold(p, v) {
			c.DevicePlatform = p
			return nil
		}
	}
	return fmt.Errorf("%q is not known; write one of %s", v, strings.Join(platforms, ", "))
}

func parseDeviceName(c *Config, v string) error {
	if len(v) > 100 || strings.ContainsFunc(v, func(r rune) bool { return r < ' ' }) {
		return errors.New("is too long or has control characters; write at most 100 plain characters")
	}
	c.DeviceName = v
	return nil
}

// webURL checks a URL with a host, of one of the schemes.
func webURL(v string, schemes ...string) (*url.URL, error) {
	shape := "write " + strings.Join(schemes, "://… or ") + "://…"
	u, err := url.Parse(v)
	if err != nil || u.Host == "" || u.Hostname() == "" {
		// The value itself stays out: it may hold a password.
		return nil, fmt.Errorf("is no URL with a host; %s", shape)
	}
	if !slices.Contains(schemes, u.Scheme) {
		return nil, fmt.Errorf("has the scheme %q; %s", u.Scheme, shape)
	}
	return u, nil
}

func parseWebhookURL(c *Config, v string) error {
	c.WebhookURL = v
	return deliver.CheckWebhook(v, "")
}

func parseWebhookSecret(c *Config, v string) error {
	c.WebhookSecret = Secret(v)
	return deliver.CheckWebhook("https://receiver.invalid", v)
}

// parseWebhookReach comes after the state: an embedded one is on one machine with
// what uses it, where a bot at 127.0.0.1 is the normal case.
func parseWebhookReach(c *Config, v string) (err error) {
	switch {
	case v != "auto":
		c.WebhookReach, err = safedial.Parse(v)
	case c.State.Scheme == "sqlite":
		c.WebhookReach = safedial.Loopback
	}
	return err
}

func parseWhatsAppURL(c *Config, v string) error {
	u, err := webURL(v, "wss", "ws")
	if err != nil {
		return err
	}
	if u.User != nil {
		return errors.New("has a user in it; write wss://HOST/PATH")
	}
	c.WhatsAppURL = v
	return nil
}

func parseWhatsAppRootKey(c *Config, v string) error {
	b, err := hex.DecodeString(v)
	if err != nil || len(b) != 32 {
		return fmt.Errorf("has %d characters that are not 64 hex digits; holdfast sim prints the right one as rootKey", len(v))
	}
	c.WhatsAppRootKey = [32]byte(b)
	if c.WhatsAppRootKey == [32]byte{} {
		return errors.New("is all zeros; holdfast sim prints the right one as rootKey")
	}
	return nil
}

func parseProxy(c *Config, v string) error {
	_, err := webURL(v, "http", "https", "socks5")
	c.Proxy = v
	return err
}

func awsEndpoint(service string) func(*Config, string) error {
	return func(c *Config, v string) error {
		_, err := webURL(v, "https", "http")
		c.AWSEndpoints[service] = v
		return err
	}
}

func parseLogLevel(c *Config, v string) error {
	level, ok := map[string]slog.Level{"debug": slog.LevelDebug, "info": slog.LevelInfo, "warn": slog.LevelWarn, "error": slog.LevelError}[strings.ToLower(v)]
	if !ok {
		return fmt.Errorf("%q is no level; write debug, info, warn or error", v)
	}
	c.LogLevel = level
	return nil
}

func parseLogFormat(c *Config, v string) error {
	if !slices.Contains([]string{"auto", "text", "json"}, v) {
		return fmt.Errorf("%q is no format; write text, json or auto", v)
	}
	c.LogFormat = v
	return nil
}

func parseURL(c *Config, v string) error {
	u, err := webURL(v, "http", "https")
	if err != nil {
		return err
	}
	c.URL = strings.TrimSuffix(u.String(), "/")
	return nil
}

func parseAPIKey(c *Config, v string) error {
	if strings.ContainsFunc(v, func(r rune) bool { return r <= ' ' || r > '~' }) {
		return errors.New("has spaces or other characters that no key has; copy it again")
	}
	c.APIKey = Secret(v)
	return nil
}

func parseAPIKeyFile(c *Config, v string) error {
	c.APIKeyFile = v
	return nil
}
