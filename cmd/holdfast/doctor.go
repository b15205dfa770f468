package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/holdfast-wa/holdfast/state/seal"
)

// The levels of a finding.
const (
	levelOK   = "ok"
	levelWarn = "warn"
	levelFail = "fail"
)

// Finding is one line of doctor.
type Finding struct {
	Check string `json:"check"`
	Level string `json:"level"` // ok, warn or fail
	Found string `json:"found"`
	Do    string `json:"do,omitempty"` // what to do about it
}

// doctor looks whether a worker could run with a configuration.
type doctor struct {
	cfg      Config
	now      func() time.Time
	client   *http.Client // goes through the proxy
	resolver interface {
		LookupHost(ctx context.Context, host string) ([]string, error)
	}
	alive func(ctx context.Context, listen string) error

	createTables bool
	master       seal.Master // once it was opened

	findings []Finding
}

func (d *doctor) say(check, level, do, format string, args ...any) {
	d.findings = append(d.findings, Finding{check, level, oneLine(fmt.Sprintf(format, args...)), do})
}

// fault notes an error of the form "what: why; what to do".
func (d *doctor) fault(check string, err error) {
	found, do, _ := strings.Cut(oneLine(err.Error()), "; ")
	if do == "" {
		do = "see the message"
	}
	d.say(check, levelFail, do, "%s", found)
}

func (d *doctor) examine(ctx context.Context) {
	d.memory()
	d.dataFolder()
	d.aws(ctx)
	d.masterKey(ctx)
	d.apiKey()
	d.store(ctx)
	d.vault(ctx)
	d.listener(ctx)
	d.network(ctx)
}

func (a *app) doctorCommand() *cobra.Command {
	create := false
	cmd := &cobra.Command{
		Use:   "doctor",
		Short: "Check settings, data folder, tables, bucket, key, clock, DNS and reach; say what to do",
		Args:  exactly(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			cfg, err := a.config(cmd, nil)
			d := &doctor{cfg: cfg, now: a.now, resolver: net.DefaultResolver, alive: a.alive, createTables: create}
			if err != nil {
				for _, fault := range faults(err) {
					d.fault("settings", fault)
				}
			} else {
				d.say("settings", levelOK, "", "%d given, the others have their defaults", len(cfg.given))
				d.client = probeClient(cfg)
				d.examine(cmd.Context())
			}
			return a.printFindings(cfg, d.findings, err == nil)
		},
	}
	cmd.Flags().BoolVar(&create, "create-tables", false, "make the DynamoDB tables that are missing; Terraform does it better, with backups, protection and tags")
	settingFlags(cmd, workerSettings())
	a.jsonFlag(cmd)
	return cmd
}

// printFindings shows what doctor found. A fail among it is exit code 1.
func (a *app) printFindings(cfg Config, findings []Finding, usable bool) error {
	settings := []Described{}
	if usable {
		settings = cfg.Describe()
	}
	failed := 0
	for _, f := range findings {
		if f.Level == levelFail {
			failed++
		}
	}
	if a.asJSON {
		err := printJSON(a.io.Out, struct {
			OK       bool        `json:"ok"`
			Findings []Finding   `json:"findings"`
			Settings []Described `json:"settings"`
		}{failed == 0, findings, settings})
		if err != nil {
			return err
		}
	} else {
		w := tabwriter.NewWriter(a.io.Out, 0, 0, 2, ' ', 0)
		for _, s := range settings {
			fmt.Fprintf(w, "%s\t%s\t%s\n", s.Name, s.Value, s.Source)
		}
		if usable {
			fmt.Fprintln(w)
		}
		w.Flush()
		w = tabwriter.NewWriter(a.io.Out, 0, 0, 2, ' ', 0)
		for _, f := range findings {
			line := f.Found
			if f.Do != "" {
				line += "; " + f.Do
			}
			fmt.Fprintf(w, "%s\t%s\t%s\n", f.Level, f.Check, line)
		}
		if err := w.Flush(); err != nil {
			return err
		}
	}
	if failed > 0 {
		return silentError{exitFailed}
	}
	return nil
}

// probeClient makes requests the way a session's connection goes: through the
// proxy or not at all.
func probeClient(cfg Config) *http.Client {
	t := &http.Transport{DisableKeepAlives: true, TLSHandshakeTimeout: 10 * time.Second}
	if proxy, err := url.Parse(cfg.Proxy); err == nil && cfg.Proxy != "" {
		t.Proxy = http.ProxyURL(proxy)
	}
	return &http.Client{Transport: t, Timeout: 15 * time.Second,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
}

// endpoint is where WhatsApp's page is, or that of the own endpoint.
func (c Config) endpoint() *url.URL {
	if c.WhatsAppURL == "" {
		return &url.URL{Scheme: "https", Host: "web.whatsapp.com", Path: "/"}
	}
	u, err := url.Parse(c.WhatsAppURL)
	if err != nil { // Config was checked
		return &url.URL{Scheme: "https", Host: "invalid", Path: "/"}
	}
	scheme := "https"
	if u.Scheme == "ws" {
		scheme = "http"
	}
	return &url.URL{Scheme: scheme, Host: u.Host, Path: "/"}
}

// network looks at DNS, reach and clock of the endpoint.
func (d *doctor) network(ctx context.Context) {
	u := d.cfg.endpoint()
	if !d.dns(ctx, u.Hostname()) {
		return
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, u.String(), nil)
	if err != nil {
		d.say("reach", levelFail, "check whatsapp-url", "%v", err)
		return
	}
	resp, err := d.client.Do(req)
	if err != nil {
		do := "check the network, the firewall, and whether a proxy is needed"
		if d.cfg.Proxy != "" {
			do = "check the proxy; sessions never connect without it"
		}
		d.say("reach", levelFail, do, "%s does not answer: %v", u, cause(err))
		return
	}
	resp.Body.Close()
	if resp.StatusCode >= 500 {
		d.say("reach", levelWarn, "try again in some minutes", "%s answers %s", u, resp.Status)
	} else {
		d.say("reach", levelOK, "", "%s answers %s", u, resp.Status)
	}
	d.clock(resp.Header.Get("Date"))
}

// dns tells whether it makes sense to go on.
func (d *doctor) dns(ctx context.Context, host string) bool {
	if d.cfg.Proxy != "" {
		d.say("dns", levelOK, "", "left to the proxy")
		return true
	}
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	addresses, err := d.resolver.LookupHost(ctx, host)
	if err != nil {
		d.say("dns", levelFail, "check /etc/resolv.conf and the network", "%s is not resolved: %v", host, cause(err))
		return false
	}
	d.say("dns", levelOK, "", "addresses of %s: %d", host, len(addresses))
	return true
}

// The skew of the clock from which on it is worth a word, and from which on
// certificates of the server may be taken for expired.
const (
	skewWarn = 30 * time.Second
	skewFail = 10 * time.Minute
)

func (d *doctor) clock(date string) {
	server, err := http.ParseTime(date)
	if err != nil {
		d.say("clock", levelWarn, "compare it by hand", "the endpoint names no time to compare with")
		return
	}
	skew := d.now().Sub(server)
	d.skew("clock", skew, "the endpoint", "connecting will fail")
}

func (d *doctor) skew(check string, skew time.Duration, with, then string) {
	const do = "set it with NTP (timedatectl set-ntp true)"
	switch word := skew.Abs().Round(time.Second); {
	case skew.Abs() >= skewFail:
		d.say(check, levelFail, do, "is off by %v; %s", word, then)
	case skew.Abs() >= skewWarn:
		d.say(check, levelWarn, do, "is off by %v", word)
	default:
		d.say(check, levelOK, "", "agrees with %s to %v", with, max(word, time.Second))
	}
}

func (d *doctor) listener(ctx context.Context) {
	l, err := net.Listen("tcp", d.cfg.Listen)
	if err == nil {
		l.Close()
		d.say("listen", levelOK, "", "%s is free", d.cfg.Listen)
		return
	}
	if d.alive(ctx, d.cfg.Listen) == nil {
		d.say("listen", levelOK, "", "holdfast is running at %s", d.cfg.Listen)
		return
	}
	d.say("listen", levelFail, "stop what listens there, or set --listen to another port", "%s cannot be used: %v", d.cfg.Listen, cause(err))
}

// cause is the innermost error worth telling a person, without the addresses
// and URLs that the outer ones repeat.
func cause(err error) error {
	var dns *net.DNSError
	if errors.As(err, &dns) {
		return errors.New(dns.Err)
	}
	for {
		inner := errors.Unwrap(err)
		if inner == nil {
			return err
		}
		switch err.(type) { //nolint:errorlint // each turn looks at one error of the chain
		case *url.Error, *net.OpError:
			if errors.Is(inner, context.DeadlineExceeded) {
				return errors.New("no answer in time")
			}
			err = inner
		default:
			return err
		}
	}
}
