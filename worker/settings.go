package worker

import (
	"errors"
	"fmt"

	"github.com/holdfast-wa/holdfast/state"
	"github.com/holdfast-wa/holdfast/worker/deliver"
	"github.com/holdfast-wa/holdfast/worker/deliver/safedial"
	"github.com/holdfast-wa/holdfast/worker/policy"
	"github.com/holdfast-wa/holdfast/worker/whatsapp"
)

// Effective lays a session's own settings over the worker's, checked.
func (w *Worker) Effective(own state.SessionSettings) (policy.Settings, error) {
	return EffectiveSettings(w.cfg.Settings, own)
}

// EffectiveSettings lays a session's own settings over the given ones, checked.
// A profile of its own replaces them all.
func EffectiveSettings(base policy.Settings, own state.SessionSettings) (policy.Settings, error) {
	set := base
	if own.Profile != "" && own.Profile != base.Profile {
		var err error
		if set, err = policy.For(own.Profile); err != nil {
			return policy.Settings{}, err
		}
	}
	return set.With(own.Override)
}

// FieldError is what is wrong with one of a session's settings, by its name in
// JSON. Its text never repeats a URL or a secret.
type FieldError struct {
	Name string
	Err  error
}

func (e *FieldError) Error() string { return e.Err.Error() }
func (e *FieldError) Unwrap() error { return e.Err }

// Field is the setting's name, for whoever shows the error beside a form.
func (e *FieldError) Field() string { return e.Name }

// CheckSettings tells whether a session may have these settings where workers run
// with base and reach. Its error joins *FieldErrors.
func CheckSettings(base policy.Settings, reach safedial.Policy, own state.SessionSettings) error {
	var faults []error
	fault := func(name string, err error) {
		if err != nil {
			faults = append(faults, &FieldError{name, err})
		}
	}
	if _, err := EffectiveSettings(base, state.SessionSettings{Profile: own.Profile}); err != nil {
		fault("profile", err)
	} else if _, err := EffectiveSettings(base, own); err != nil {
		fault("override", err)
	}
	if own.Proxy != "" {
		if err := whatsapp.CheckProxy(own.Proxy); err != nil {
			fault("proxy", err)
		} else if err := reach.Trusted().CheckURL(own.Proxy); err != nil { // proxies are often in the network, never at a metadata service
			fault("proxy", fmt.Errorf("proxy: %w", err))
		}
	}
	switch {
	case own.WebhookURL == "" && own.WebhookSecret == "":
	case deliver.CheckWebhook(own.WebhookURL, "") != nil:
		fault("webhookUrl", deliver.CheckWebhook(own.WebhookURL, ""))
	case deliver.CheckWebhook(own.WebhookURL, own.WebhookSecret) != nil:
		fault("webhookSecret", deliver.CheckWebhook(own.WebhookURL, own.WebhookSecret))
	default:
		if err := reach.CheckURL(own.WebhookURL); err != nil {
			fault("webhookUrl", fmt.Errorf("webhook URL: %w; use a public one, or have webhook-allow-private changed where the workers run", err))
		}
	}
	return errors.Join(faults...)
}
