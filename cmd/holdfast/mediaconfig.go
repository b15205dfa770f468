package main

import (
	"fmt"
	"math"
	"strconv"
	"strings"

	"github.com/holdfast-wa/holdfast/worker/deliver/safedial"
	"github.com/holdfast-wa/holdfast/worker/fetch"
)

// The bounds of media-limit, bytes: a worker holds about three times as much for
// each file under way.
const (
	leastMedia = 64 << 10
	mostMedia  = 64 << 20
)

// parseMediaReach comes after the state, as parseWebhookReach does.
func parseMediaReach(c *Config, v string) (err error) {
	switch {
	case v != "auto":
		c.MediaReach, err = safedial.Parse(v)
	case c.State.Scheme == "sqlite":
		c.MediaReach = safedial.Loopback
	}
	return err
}

func parseMediaLimit(c *Config, v string) error {
	number, unit := strings.TrimSpace(v), int64(1)
	for suffix, bytes := range map[string]int64{"KiB": 1 << 10, "MiB": 1 << 20} {
		if rest, ok := strings.CutSuffix(number, suffix); ok {
			number, unit = strings.TrimSpace(rest), bytes
			break
		}
	}
	n, err := strconv.ParseInt(number, 10, 64)
	if err != nil || n < 1 || n > mostMedia || n*unit < leastMedia || n*unit > mostMedia {
		return fmt.Errorf("%q is no size from 64KiB to 64MiB; write it like 16MiB, or in bytes", v)
	}
	c.MediaLimit = n * unit
	return nil
}

func parseAPIRate(c *Config, v string) error {
	n, err := strconv.ParseFloat(v, 64)
	if err != nil || math.IsNaN(n) || n < 0 || n > 100_000 || n > 0 && n < 0.1 {
		return fmt.Errorf("%q is neither a number of requests a second from 0.1 to 100000 nor 0", v)
	}
	c.APIRate = n
	return nil
}

// mediaFetcher is what fetches files to send.
func mediaFetcher(cfg Config) *fetch.Fetcher {
	return fetch.New(fetch.Config{Allow: cfg.MediaReach, Redirects: cfg.MediaRedirects, Limit: cfg.MediaLimit})
}
