package adminapi

import (
	"sync"
	"time"

	"golang.org/x/time/rate"
)

// limits bounds how often each caller may ask. It is of this process: several of
// them, as in the Lambda, allow as much each.
type limits struct {
	every rate.Limit // 0: no bound
	burst int

	mu sync.Mutex
	by map[string]*rate.Limiter // by the caller's name
}

// callersKept bounds the callers that are remembered; whom a gateway vouches for
// may be anybody.
const callersKept = 10_000

func newLimits(perSecond float64, burst int) *limits {
	if perSecond <= 0 {
		return &limits{}
	}
	if burst <= 0 {
		burst = max(int(2*perSecond), 1)
	}
	return &limits{every: rate.Limit(perSecond), burst: burst, by: map[string]*rate.Limiter{}}
}

// take counts a request of a caller; how long he has to wait if it is one too many.
func (l *limits) take(name string, now time.Time) time.Duration {
	if l.every == 0 {
		return 0
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	one := l.by[name]
	if one == nil {
		if len(l.by) >= callersKept {
			clear(l.by)
		}
		one = rate.NewLimiter(l.every, l.burst)
		l.by[name] = one
	}
	r := one.ReserveN(now, 1)
	wait := r.DelayFrom(now)
	if wait > 0 {
		r.CancelAt(now)
	}
	return wait
}
