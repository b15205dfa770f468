package worker

import (
	"errors"

	"github.com/holdfast-wa/holdfast/state"
	"github.com/holdfast-wa/holdfast/worker/deliver"
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

// CheckSettings tells whether a session may have these settings.
func CheckSettings(base policy.Settings, own state.SessionSettings) error {
	var faults []error
	if _, err := EffectiveSettings(base, own); err != nil {
		faults = append(faults, err)
	}
	if own.Proxy != "" {
		if err := whatsapp.CheckProxy(own.Proxy); err != nil {
			faults = append(faults, err)
		}
	}
	if own.WebhookURL != "" || own.WebhookSecret != "" {
		if err := deliver.CheckWebhook(own.WebhookURL, own.WebhookSecret); err != nil {
			faults = append(faults, err)
		}
	}
	return errors.Join(faults...)
}
