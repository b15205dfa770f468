package adminapi

import (
	"encoding/base64"
	"errors"
	"maps"
	"net/url"
	"slices"
	"strings"

	"github.com/holdfast-wa/holdfast/state"
	"github.com/holdfast-wa/holdfast/state/seal"
)

// Settings are a session's own settings as they are set; empty fields take the
// worker's.
type Settings struct {
	Profile       string            `json:"profile,omitempty" maxLength:"32" example:"guide" doc:"guide or gentle"`
	Override      map[string]string `json:"override,omitempty" doc:"single values by name, such as keepalive-interval: 20s"`
	Proxy         string            `json:"proxy,omitempty" maxLength:"2048" doc:"http, https or socks5 URL"`
	WebhookURL    string            `json:"webhookUrl,omitempty" maxLength:"2048" doc:"http or https URL that events are posted to"`
	WebhookSecret string            `json:"webhookSecret,omitempty" maxLength:"512" doc:"whsec_ and base64, or the bytes as they are; never shown again"`
	Labels        map[string]string `json:"labels,omitempty" doc:"yours; at most 32"`
}

// SettingsPatch changes settings: a field that is absent stays, an empty one is
// taken away, and so is an empty value within override and labels.
type SettingsPatch struct {
	Profile       *string           `json:"profile,omitempty" maxLength:"32"`
	Override      map[string]string `json:"override,omitempty"`
	Proxy         *string           `json:"proxy,omitempty" maxLength:"2048"`
	WebhookURL    *string           `json:"webhookUrl,omitempty" maxLength:"2048"`
	WebhookSecret *string           `json:"webhookSecret,omitempty" maxLength:"512"`
	Labels        map[string]string `json:"labels,omitempty"`
}

func patched(s state.SessionSettings, p SettingsPatch) state.SessionSettings {
	set := func(field *string, value *string) {
		if value != nil {
			*field = *value
		}
	}
	set(&s.Profile, p.Profile)
	set(&s.Proxy, p.Proxy)
	set(&s.WebhookURL, p.WebhookURL)
	set(&s.WebhookSecret, p.WebhookSecret)
	s.Override = merged(s.Override, p.Override)
	s.Labels = merged(s.Labels, p.Labels)
	return s
}

func merged(old, change map[string]string) map[string]string {
	m := maps.Clone(old)
	for k, v := range change {
		if m == nil {
			m = map[string]string{}
		}
		if v == "" {
			delete(m, k)
		} else {
			m[k] = v
		}
	}
	return m
}

// named lists the fields that a patch touches, for the audit.
func named(p SettingsPatch) []string {
	var names []string
	for name, touched := range map[string]bool{"profile": p.Profile != nil, "override": p.Override != nil, "proxy": p.Proxy != nil,
		"webhookUrl": p.WebhookURL != nil, "webhookSecret": p.WebhookSecret != nil, "labels": p.Labels != nil} {
		if touched {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names
}

func (a *API) sealSettings(spec *state.Spec, settings state.SessionSettings) error {
	sealed, err := a.sealJSON(seal.Place{Partition: state.OfSession(spec.Name), Kind: state.KindSpec}, settings)
	spec.Settings = sealed
	return err
}

// checkSettings checks what can be checked here, then what the worker knows.
// No value is repeated in an error: it may be a secret.
func (a *API) checkSettings(s state.SessionSettings) error {
	if len(s.Labels) > 32 {
		return invalid("body.settings.labels", "has %d; at most 32", len(s.Labels))
	}
	for k, v := range s.Labels {
		if k == "" || len(k) > 63 || len(v) > 256 {
			return invalid("body.settings.labels", "names have 1 to 63 bytes, values at most 256")
		}
	}
	if len(s.Override) > 64 {
		return invalid("body.settings.override", "has %d; at most 64", len(s.Override))
	}
	if !isURL(s.Proxy, "http", "https", "socks5") {
		return invalid("body.settings.proxy", "must be http://HOST:PORT, https://HOST:PORT or socks5://HOST:PORT")
	}
	if !isURL(s.WebhookURL, "http", "https") {
		return invalid("body.settings.webhookUrl", "must be http://HOST/PATH or https://HOST/PATH")
	}
	if encoded, ok := strings.CutPrefix(s.WebhookSecret, "whsec_"); ok {
		if key, err := base64.StdEncoding.DecodeString(encoded); err != nil || len(key) == 0 {
			return invalid("body.settings.webhookSecret", "what follows whsec_ is not base64; copy it whole, with its = at the end")
		}
	}
	if err := a.cfg.ValidateSettings(s); err != nil {
		return settingFaults(err)
	}
	return nil
}

// settingFaults is the problem of an error of ValidateSettings: of each error in
// it that names its field, that field.
func settingFaults(err error) *Problem {
	list := []error{err}
	if joined, ok := err.(interface{ Unwrap() []error }); ok {
		list = joined.Unwrap()
	}
	p := problem(CodeInvalid, "body.settings: %s", err)
	for _, e := range list {
		f := Fault{Field: "body.settings", Message: e.Error()}
		var named interface{ Field() string }
		if errors.As(e, &named) {
			f.Field += "." + named.Field()
		}
		p.Errors = append(p.Errors, f)
	}
	return p
}

// isURL accepts the empty string too.
func isURL(s string, schemes ...string) bool {
	if s == "" {
		return true
	}
	u, err := url.Parse(s)
	return err == nil && u.Hostname() != "" && contains(schemes, u.Scheme)
}
