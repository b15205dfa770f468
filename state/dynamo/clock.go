package dynamo

import (
	"net/http"
	"sync"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
)

// clock is the store's: the host's, corrected by as little as makes it agree
// with the Date of DynamoDB's answers. A Date tells the time to the second, at
// some moment between request and answer; each answer therefore bounds how far
// the host's clock is off, and the bounds of several are narrower than one's.
type clock struct {
	host func() time.Time

	mu    sync.Mutex
	known bool
	least time.Duration // to be added to the host's clock, at least
	most  time.Duration // and at most
}

func (c *clock) now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	// In UTC and without a monotonic reading: it is compared with stored times.
	return c.host().Add(min(max(0, c.least), c.most)).Round(0).UTC()
}

// observe learns from an answer that was asked for at sent, came in at received
// by the host's clock and says that it was written at date.
func (c *clock) observe(sent, received, date time.Time) {
	// Round drops the monotonic readings, which know nothing of the wall clock.
	least := date.Sub(received.Round(0))
	most := date.Add(time.Second).Sub(sent.Round(0))
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.known {
		narrow, wide := max(least, c.least), min(most, c.most)
		if narrow <= wide {
			c.least, c.most = narrow, wide
			return
		}
		// A clock was set or has drifted: what was known before is void.
	}
	c.known, c.least, c.most = true, least, most
}

// timed is an HTTP client that tells the clock what answers say.
type timed struct {
	aws.HTTPClient
	clock *clock
}

func (t timed) Do(r *http.Request) (*http.Response, error) {
	sent := t.clock.host()
	resp, err := t.HTTPClient.Do(r)
	if err != nil {
		return resp, err
	}
	if date, err := http.ParseTime(resp.Header.Get("Date")); err == nil {
		t.clock.observe(sent, t.clock.host(), date)
	}
	return resp, nil
}
