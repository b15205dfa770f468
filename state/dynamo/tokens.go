package dynamo

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"sync"
	"time"

	"github.com/holdfast-wa/holdfast/state"
)

const (
	tokenLife  = 10 * time.Minute // DynamoDB's and the contract's
	mostTokens = 20_000           // remembered, about 3 MB
)

// ledger remembers what is needed to make the same request of the same commit.
// DynamoDB compares the requests that bring a token, and conditions contain the
// time that records expire by: it must be that of the first request. And whether
// a refused transaction uses its token up is not written anywhere: so what is
// tried again after a refusal gets another.
//
// The memory of one process is enough, because the fence that a token belongs to
// is an incarnation's. A commit without conditions is the same without it.
type ledger struct {
	mu     sync.Mutex
	tokens map[tokenKey]*promise
	old    []*promise // in order of time, for forgetting
}

type tokenKey struct {
	fence state.Fence
	token string
}

// promise is what a commit under a token is made of, beside its writes.
type promise struct {
	key      tokenKey
	at       time.Time // that its conditions are about
	since    time.Time // that it has been remembered
	refusals int
}

// begin finds or makes the promise of a token. A new one is remembered only
// where keep says that its request could not be made again without it.
func (l *ledger) begin(f state.Fence, token string, now time.Time, keep bool) promise {
	key := tokenKey{f, token}
	l.mu.Lock()
	defer l.mu.Unlock()
	n := 0
	for n < len(l.old) && (now.Sub(l.old[n].since) > tokenLife || len(l.old)-n > mostTokens) {
		if l.tokens[l.old[n].key] == l.old[n] {
			delete(l.tokens, l.old[n].key)
		}
		n++
	}
	l.old = l.old[n:]
	p := l.tokens[key]
	if p == nil {
		p = &promise{key: key, since: now}
		if keep {
			l.keep(p)
		}
	}
	if p.at.IsZero() {
		p.at = now
	}
	return *p
}

func (l *ledger) keep(p *promise) {
	if l.tokens == nil {
		l.tokens = map[tokenKey]*promise{}
	}
	l.tokens[p.key] = p
	l.old = append(l.old, p)
}

// refused notes that nothing of a commit happened: the next one with its token
// is a new one, at another time.
func (l *ledger) refused(p promise, now time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if last := l.tokens[p.key]; last == nil || last.refusals == p.refusals {
		l.keep(&promise{key: p.key, since: now, refusals: p.refusals + 1})
	}
}

// requestToken is what DynamoDB gets: 32 characters of at most 36.
func (p promise) requestToken() string {
	f := p.key.fence
	sum := sha256.Sum256(fmt.Appendf(nil, "%q %q %d %q %d", f.Session, f.Owner, f.Epoch, p.key.token, p.refusals))
	return hex.EncodeToString(sum[:16])
}
