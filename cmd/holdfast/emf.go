package main

import (
	"fmt"
	"log/slog"
	"sync/atomic"
	"time"

	"github.com/holdfast-wa/holdfast/infra/emf"
	"github.com/holdfast-wa/holdfast/worker"
)

// emfLongest bounds the setting: an alarm that looks at an hour would be late.
const emfLongest = time.Hour

// parseEMFInterval takes whole minutes, since CloudWatch keeps one point a minute,
// or 0 for none.
func parseEMFInterval(c *Config, v string) error {
	d, err := time.ParseDuration(v)
	if err != nil || d < 0 || d > emfLongest || d%time.Minute != 0 {
		return fmt.Errorf("%q is neither 0 nor a number of whole minutes up to %v; write 1m, or 0 for none", v, emfLongest)
	}
	c.EMFInterval = d
	return nil
}

// emfLines writes the worker's metrics for CloudWatch to where the log goes, and
// is nil where none are wanted. me is under which id the worker has joined last. A file takes each line in one piece, whoever else
// writes to it.
func emfLines(cfg Config, me *atomic.Pointer[string], m *worker.Metrics, io IO, log *slog.Logger) *emf.Exporter {
	if cfg.EMFInterval == 0 || io.Err == nil {
		return nil
	}
	return emf.New(emf.Config{From: m.Registry, Rows: emf.WorkerRows(), Fleet: fleetName(cfg), To: io.Err, Every: cfg.EMFInterval,
		Properties: func() map[string]any {
			return map[string]any{"Worker": *me.Load(), "Version": buildVersion().Version}
		}, Log: log})
}

// fleetName is what the metrics call the fleet: the prefix of its tables, as the
// function of the admin side does. A worker with SQLite is a fleet of its own.
func fleetName(cfg Config) string {
	if cfg.State.Scheme == "dynamodb" {
		return cfg.State.Path
	}
	return "local"
}
