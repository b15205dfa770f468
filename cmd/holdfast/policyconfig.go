package main

import (
	"errors"
	"fmt"
	"strings"

	"github.com/holdfast-wa/holdfast/worker/policy"
)

// policySettings are the single values of a profile. Their defaults are the
// profile's, so they have none here.
func policySettings() []setting {
	var rows []setting
	for _, d := range policy.Names() {
		name := d.Name
		meaning := strings.TrimSuffix(d.Meaning, ".") + " (guide " + d.Guide
		if d.Gentle != d.Guide {
			meaning += ", gentle " + d.Gentle
		}
		rows = append(rows, setting{name: name, meaning: meaning + ")", boolean: d.Guide == "true" || d.Guide == "false",
			parse: func(c *Config, v string) error { return policyError(c.Policy.Set(name, v)) }})
	}
	return rows
}

func isPolicy(name string) bool {
	_, ok := policy.Guide().Get(name)
	return ok
}

func policyValue(s policy.Settings, name string) string {
	v, _ := s.Get(name)
	return v
}

func parseProfile(c *Config, v string) (err error) {
	c.Profile = v
	c.Policy, err = policy.For(v)
	return policyError(err)
}

// policyError leaves out the name that the caller puts before the error.
func policyError(err error) error {
	var e *policy.SettingError
	if !errors.As(err, &e) {
		return err
	}
	if e.Want == "" {
		return errors.New(e.Why)
	}
	return fmt.Errorf("%s; %s", e.Why, e.Want)
}

// validatePolicy checks the profile's values together. Each fault says where
// the value came from, as far as it was given.
func (c Config) validatePolicy() []error {
	err := c.Policy.Validate()
	if err == nil {
		return nil
	}
	all := []error{err}
	if joined, ok := err.(interface{ Unwrap() []error }); ok {
		all = joined.Unwrap()
	}
	for i, err := range all {
		var e *policy.SettingError
		if errors.As(err, &e) {
			what := e.Name
			if v, given := c.given[e.Name]; given {
				what += " (" + v.source + ")"
			}
			all[i] = fmt.Errorf("%s: %w", what, policyError(err))
		}
	}
	return all
}
