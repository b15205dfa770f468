package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"
)

// The wait before a live stream is opened again: at first, and at most.
const (
	followRetry    = time.Second
	followRetryMax = 15 * time.Second
)

// follow calls each with the data of every event of a live stream until ctx
// ends or each fails. A stream that breaks is opened again where it was left;
// lost tells about it if that fails. What the server refuses (a wrong key, no such session)
// ends it.
func (c *client) follow(ctx context.Context, path string, lost func(error, time.Duration), each func(data []byte) error) error {
	last, wait := "", followRetry
	for {
		err := c.stream(ctx, path, &last, func(data []byte) error {
			wait = followRetry
			return each(data)
		})
		var stop stopError
		var refused *refusal
		switch {
		case errors.As(err, &stop):
			return stop.error
		case ctx.Err() != nil:
			return nil
		case errors.As(err, &refused) && refused.Status/100 == 4 && refused.Status != http.StatusTooManyRequests:
			return err
		}
		// The server ends streams now and then; that is nothing to tell about.
		if !errors.Is(err, io.ErrUnexpectedEOF) {
			lost(err, wait)
		}
		timer := time.NewTimer(wait)
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return nil
		}
		wait = min(2*wait, followRetryMax)
	}
}

// stopError carries an error of the callback out of a stream.
type stopError struct{ error }

// stream reads one connection's worth of server-sent events.
func (c *client) stream(ctx context.Context, path string, last *string, each func(data []byte) error) error {
	r := request{method: http.MethodGet, path: path, accept: "text/event-stream"}
	if *last != "" {
		r.lastEvent = *last
	}
	resp, err := c.open(ctx, r)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if kind := resp.Header.Get("Content-Type"); !strings.HasPrefix(kind, "text/event-stream") {
		return stopError{fmt.Errorf("%s sends %q instead of events; check --url", c.base, kind)}
	}
	lines := bufio.NewScanner(resp.Body)
	lines.Buffer(nil, maxAnswer)
	var data []string
	id := *last
	for lines.Scan() {
		line := lines.Text()
		if line == "" {
			*last = id
			if len(data) > 0 {
				if err := each([]byte(strings.Join(data, "\n"))); err != nil {
					return stopError{err}
				}
			}
			data = nil
			continue
		}
		field, text, _ := strings.Cut(line, ":")
		text = strings.TrimPrefix(text, " ")
		switch field {
		case "id":
			id = text
		case "data":
			data = append(data, text)
		}
	}
	if err := lines.Err(); err != nil {
		return err
	}
	return io.ErrUnexpectedEOF
}
