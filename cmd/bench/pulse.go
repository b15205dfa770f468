package main

import (
	"context"
	"sync"
	"time"

	"github.com/holdfast-wa/holdfast/state"
	"github.com/holdfast-wa/holdfast/worker/lease"
)

// pulse is a store that watches the heartbeats that pass through it.
type pulse struct {
	state.Store

	mu    sync.Mutex
	last  time.Time // when the last one that was answered was sent
	beats Beats
}

// Beats is what was seen of heartbeats over some time.
type Beats struct {
	Count    int // that were answered well
	Failed   int
	Apart    time.Duration // the most between two of them, from sending to sending
	Answered time.Duration // the most that an answer took
	// Trust is the least that was left of the trust, which runs from the sending
	// of one until the answer of the next.
	Trust time.Duration
}

func newPulse(s state.Store) *pulse { return &pulse{Store: s, beats: Beats{Trust: lease.DefaultTrust}} }

// Beat implements state.Members.
func (p *pulse) Beat(ctx context.Context, incarnation string, load state.Load) error {
	sent := time.Now()
	err := p.Store.Beat(ctx, incarnation, load)
	p.note(sent, time.Now(), err)
	return err
}

func (p *pulse) note(sent, answered time.Time, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if err != nil {
		p.beats.Failed++
		return
	}
	p.beats.Count++
	p.beats.Answered = max(p.beats.Answered, answered.Sub(sent))
	if !p.last.IsZero() {
		p.beats.Apart = max(p.beats.Apart, sent.Sub(p.last))
		p.beats.Trust = min(p.beats.Trust, lease.DefaultTrust-answered.Sub(p.last))
	}
	p.last = sent
}

// take returns what was seen and begins anew.
func (p *pulse) take() Beats {
	p.mu.Lock()
	defer p.mu.Unlock()
	seen := p.beats
	p.beats = Beats{Trust: lease.DefaultTrust}
	return seen
}
