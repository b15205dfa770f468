package main

import (
	"context"
	"fmt"
	"net/url"
	"strconv"

	"github.com/holdfast-wa/holdfast/infra/adminapi"
)

// What the admin API answers, by the names that the commands use.
type (
	sessionView = adminapi.Session
	messageView = adminapi.Message
	qrView      = adminapi.QR
)

// session reads one session.
func (c *client) session(ctx context.Context, name string) (sessionView, error) {
	var s sessionView
	if err := c.get(ctx, sessionPath(name), nil, &s); err != nil {
		return s, fmt.Errorf("%s: %w", name, err)
	}
	return s, nil
}

// sessions reads all sessions that match a filter, page by page.
func (c *client) sessions(ctx context.Context, filter url.Values) ([]sessionView, error) {
	all := []sessionView{}
	query := url.Values{"limit": {"500"}}
	for k, v := range filter {
		query[k] = v
	}
	for {
		var page adminapi.SessionPage
		if err := c.get(ctx, "/api/sessions", query, &page); err != nil {
			return nil, err
		}
		all = append(all, page.Sessions...)
		if page.Next == "" {
			return all, nil
		}
		query.Set("cursor", page.Next)
	}
}

// messages reads the newest messages of a session's outbox, at most limit,
// page by page.
func (c *client) messages(ctx context.Context, session string, filter url.Values, limit int) ([]messageView, error) {
	all := []messageView{}
	query := url.Values{}
	for k, v := range filter {
		query[k] = v
	}
	for {
		query.Set("limit", strconv.Itoa(min(limit-len(all), 500)))
		var page adminapi.MessagePage
		if err := c.get(ctx, sessionPath(session, "messages"), query, &page); err != nil {
			return nil, err
		}
		all = append(all, page.Messages...)
		if page.Next == "" || len(all) >= limit {
			return all, nil
		}
		query.Set("cursor", page.Next)
	}
}

// workers reads the fleet.
func (c *client) workers(ctx context.Context) ([]adminapi.Worker, error) {
	all := []adminapi.Worker{}
	query := url.Values{}
	for {
		var page adminapi.WorkerList
		if err := c.get(ctx, "/api/workers", query, &page); err != nil {
			return nil, err
		}
		all = append(all, page.Workers...)
		if page.Next == "" {
			return all, nil
		}
		query.Set("cursor", page.Next)
	}
}
