package whatsapp

import (
	"testing"
	"time"
)

func TestTheServicesClock(t *testing.T) {
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	s, err := NewService(ServiceConfig{Now: func() time.Time { return now }})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	for _, step := range []struct{ said, want time.Duration }{
		{0, 0}, {3 * time.Second, 0}, {-9 * time.Second, 0}, // whole seconds, and the way
		{2 * time.Hour, 2 * time.Hour}, {-20 * time.Minute, -20 * time.Minute}, {time.Second, 0},
	} {
		s.noteClock(now.Add(step.said))
		if got := s.ClockOffset(); got != step.want {
			t.Errorf("told %v: %v, want %v", step.said, got, step.want)
		}
	}
	s.noteClock(now.Add(time.Hour))
	s.noteClock(time.Time{}) // not told
	if got := s.ClockOffset(); got != time.Hour {
		t.Errorf("forgot what it knew: %v", got)
	}
}
