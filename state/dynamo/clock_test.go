package dynamo

import (
	"testing"
	"time"
)

func TestClock(t *testing.T) {
	host := time.Date(2026, 1, 2, 3, 4, 5, 600e6, time.UTC)
	c := &clock{host: func() time.Time { return host }}
	is := func(when string, want time.Duration) {
		t.Helper()
		if got := c.now().Sub(host); got != want {
			t.Errorf("%s: the host's clock is corrected by %s, want %s", when, got, want)
		}
	}
	// answered sees an answer that took 20 ms, while the true time is the host's and off.
	answered := func(off time.Duration) {
		c.observe(host.Add(-20*time.Millisecond), host, host.Add(off-10*time.Millisecond).Truncate(time.Second))
	}
	is("before an answer", 0)
	answered(0)
	is("with a host that is right", 0)
	answered(300 * time.Millisecond)
	is("with one that may be right", 0)

	// A host that is 10 s slow: one answer tells that to a second, more of them better.
	c = &clock{host: c.host}
	off := 10 * time.Second
	answered(off)
	if got := c.now().Sub(host); got < off-time.Second || got > off {
		t.Errorf("the correction is %s", got)
	}
	for range 20 {
		host = host.Add(1050 * time.Millisecond)
		answered(off)
	}
	if got := c.now().Sub(host); got < off-100*time.Millisecond || got > off+100*time.Millisecond {
		t.Errorf("after more answers the correction is %s", got)
	}
	// It is set right.
	host = host.Add(off)
	answered(0)
	if got := c.now().Sub(host); got < -time.Second || got > time.Second {
		t.Errorf("after it was set the correction is %s", got)
	}
	// One that is fast.
	c = &clock{host: c.host}
	answered(-time.Hour)
	if got := c.now().Sub(host); got < -time.Hour-time.Second || got > -time.Hour+2*time.Second {
		t.Errorf("the correction is %s", got)
	}
	if loc := c.now().Location(); loc != time.UTC {
		t.Errorf("the time is in %s", loc)
	}
}

func TestMillis(t *testing.T) {
	for _, c := range []struct {
		at       time.Time
		down, up int64
	}{
		{time.Unix(1, 0), 1000, 1000},
		{time.Unix(1, 1), 1000, 1001},
		{time.Unix(1, 999_999), 1000, 1001},
		{time.Unix(1, 1_000_000), 1001, 1001},
		{time.Unix(-1, 1), -1000, -999},
	} {
		if down, up := millis(c.at, false), millis(c.at, true); down != c.down || up != c.up {
			t.Errorf("%s is %d and %d, want %d and %d", c.at, down, up, c.down, c.up)
		}
	}
}
