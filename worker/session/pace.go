package session

import (
	"context"
	"time"

	"github.com/holdfast-wa/holdfast/worker/policy"
)

const (
	// paceChats bounds the chats whose pauses are remembered.
	paceChats = 500
	// passAtMost is how long the outbox waits for the session's pace before it looks
	// at the store again: something scheduled earlier may have come due.
	passAtMost = time.Minute
)

// pace keeps the pauses between messages, against bans. It is of the goroutine
// that sends. A new owner begins without pauses.
type pace struct {
	next  time.Time            // when the session may send again
	chats map[string]time.Time // when it may write to a chat again
}

// sent notes that a message went out, or was tried.
func (p *pace) sent(chat string, set policy.Settings, now time.Time) {
	if set.SendPace > 0 {
		p.next = now.Add(policy.Pace(set.SendPace, jitter()))
	}
	if set.SendPaceChat <= 0 {
		return
	}
	if len(p.chats) >= paceChats {
		for other, until := range p.chats {
			if !until.After(now) {
				delete(p.chats, other)
			}
		}
	}
	if p.chats == nil || len(p.chats) >= paceChats {
		p.chats = make(map[string]time.Time)
	}
	p.chats[chat] = now.Add(policy.Pace(set.SendPaceChat, jitter()))
}

// chat is when a chat may be written to again.
func (p *pace) chat(to string, set policy.Settings) time.Time {
	if set.SendPaceChat <= 0 {
		return time.Time{}
	}
	return p.chats[to]
}

// wait waits until the session may send again, but not beyond until. false: it may
// not yet, or ctx has ended.
func (p *pace) wait(ctx context.Context, set policy.Settings, until time.Time) bool {
	left := time.Until(p.next)
	switch {
	case set.SendPace <= 0 || left <= 0:
		return true
	case p.next.After(until):
		return false
	}
	timer := time.NewTimer(left)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-timer.C:
		return true
	}
}
