package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"time"

	"github.com/holdfast-wa/holdfast/infra/standin/crew"
	"github.com/holdfast-wa/holdfast/infra/wasim"
)

const (
	tourStep   = time.Minute // each part of it, at most
	contact    = "491700009999"
	writeEvery = 500 * time.Millisecond
)

// tour shows a takeover, a hand-over and a rebalance, while a contact writes to
// all sessions, and then what the service has seen.
func (s *stage) tour(ctx context.Context) error {
	if err := s.show(ctx, "sessions", "ls"); err != nil {
		return err
	}
	writing, stop := context.WithCancel(ctx)
	wrote := make(chan int, 1)
	go func() { wrote <- s.write(writing) }()
	err := s.acts(ctx)
	stop()
	n := <-wrote
	if err != nil {
		return err
	}
	return s.verdict(ctx, n)
}

func (s *stage) acts(ctx context.Context) error {
	killed, err := s.busiest(ctx)
	if err != nil {
		return err
	}
	s.say("kill -9 of %s: nothing is said to anybody, its sockets just end", killed.Name)
	if err := s.act(ctx, killed, killed.Kill); err != nil {
		return err
	}
	if err := s.show(ctx, "workers"); err != nil {
		return err
	}

	s.say("%s is started again: it is given its share, slowly, by those who have more", killed.Name)
	if err := killed.Start(); err != nil {
		return err
	}
	share := s.o.sessions / len(workers)
	if err := s.change(ctx, "a rebalance", func(v view) bool { return v.has[killed.Name] >= max(1, share-1) && v.online == s.o.sessions }); err != nil {
		return err
	}

	asked, err := s.busiest(ctx)
	if err != nil {
		return err
	}
	s.say("SIGTERM to %s, as in a deployment: it hands its sessions over and ends", asked.Name)
	if err := s.act(ctx, asked, func() error {
		within, cancel := context.WithTimeout(ctx, tourStep)
		defer cancel()
		took, err := asked.Terminate(within)
		if err == nil {
			if e := asked.Runs()[asked.Current()-1].Error; e != "" {
				err = errors.New(e)
			}
			s.say("%s has ended after %.1f s", asked.Name, took.Seconds())
		}
		return err
	}); err != nil {
		return err
	}
	return s.show(ctx, "workers")
}

// busiest is the worker with most sessions online.
func (s *stage) busiest(ctx context.Context) (*crew.Process, error) {
	v, err := s.look(ctx)
	if err != nil {
		return nil, err
	}
	most := s.crew.Workers[0]
	for _, p := range s.crew.Workers {
		if v.has[p.Name] > v.has[most.Name] {
			most = p
		}
	}
	return most, nil
}

// act does something to a worker, tells what follows, and waits until all its
// sessions are online elsewhere. How long the service missed each socket is the
// service's own record.
func (s *stage) act(ctx context.Context, p *crew.Process, do func() error) error {
	began := time.Now()
	done := make(chan error, 1)
	go func() { done <- do() }()
	err := s.change(ctx, "all sessions online elsewhere", func(v view) bool { return v.online == s.o.sessions && v.has[p.Name] == 0 })
	if err = errors.Join(err, <-done); err != nil {
		return err
	}
	var truth wasim.Truth
	if err := s.control(ctx, http.MethodGet, "/truth", nil, &truth); err != nil {
		return err
	}
	n, longest := gaps(truth, began)
	s.say("all online again: %d sessions were without a socket for %.1f s at most", n, longest.Seconds())
	return nil
}

// gaps counts the devices that lost their socket since a moment, and the longest
// time until the next login of one.
func gaps(truth wasim.Truth, since time.Time) (n int, longest time.Duration) {
	ended := map[string]time.Time{}
	for _, x := range truth.Sockets {
		if x.LoggedIn == nil {
			continue
		}
		if at, ok := ended[x.Device]; ok {
			n++
			longest = max(longest, x.LoggedIn.Sub(at)) // it may see the end a moment after the next login
			delete(ended, x.Device)
		}
		if x.Closed != nil && x.Closed.After(since) {
			ended[x.Device] = *x.Closed
		}
	}
	return n, longest
}

// change tells what happens until it is as wanted.
func (s *stage) change(ctx context.Context, what string, wanted func(view) bool) error {
	ctx, cancel := context.WithTimeout(ctx, tourStep)
	defer cancel()
	var last view
	_, err := s.until(ctx, what, func(v view) bool {
		s.tell(last, v)
		last = v
		return wanted(v)
	})
	return err
}

// control asks the simulated service.
func (s *stage) control(ctx context.Context, method, path string, body, answer any) error {
	b, err := json.Marshal(body)
	if err != nil {
		return err
	}
	r, err := http.NewRequestWithContext(ctx, method, s.sim.Control+path, bytes.NewReader(b))
	if err != nil {
		return err
	}
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		said, _ := io.ReadAll(io.LimitReader(resp.Body, 1000))
		return fmt.Errorf("the simulated service: %s: %s", resp.Status, bytes.TrimSpace(said))
	}
	if answer == nil {
		return nil
	}
	return json.NewDecoder(resp.Body).Decode(answer)
}

// write has a contact write to every account in turn, and counts.
func (s *stage) write(ctx context.Context) int {
	var accounts []struct {
		Number string `json:"number"`
	}
	if s.control(ctx, http.MethodGet, "/accounts", nil, &accounts) != nil || len(accounts) == 0 {
		return 0
	}
	for n := 0; ; n++ {
		if !pause(ctx, writeEvery) {
			return n
		}
		to := accounts[n%len(accounts)].Number
		if s.control(ctx, http.MethodPost, "/contacts/"+contact+"/send", map[string]string{"to": to, "text": fmt.Sprintf("message %d", n)}, nil) != nil {
			return n
		}
	}
}

// verdict waits until all messages are acknowledged and says what the service
// has seen.
func (s *stage) verdict(ctx context.Context, wrote int) error {
	ctx, cancel := context.WithTimeout(ctx, tourStep)
	defer cancel()
	for {
		var truth wasim.Truth
		if err := s.control(ctx, http.MethodGet, "/truth", nil, &truth); err != nil {
			return err
		}
		acked, pairings := 0, 0
		for _, m := range truth.Incoming {
			if m.Acked != nil && m.From[:len(contact)] == contact {
				acked++
			}
		}
		for _, p := range truth.Pairings {
			if p.Error == "" {
				pairings++
			}
		}
		if acked < wrote {
			if !pause(ctx, 200*time.Millisecond) {
				return fmt.Errorf("%d of %d messages were acknowledged", acked, wrote)
			}
			continue
		}
		s.say("the service's record: %d messages written meanwhile, all acknowledged; %d pairings of %d sessions; %d moments with two sockets of one session",
			wrote, pairings, s.o.sessions, len(truth.Overlaps))
		if pairings != s.o.sessions || len(truth.Overlaps) > 0 {
			return errors.New("the service's record is not clean; this is a fault of holdfast, please report it")
		}
		return nil
	}
}
