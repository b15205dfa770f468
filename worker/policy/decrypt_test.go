package policy

import (
	"fmt"
	"testing"
	"time"
)

func TestDecryptStorm(t *testing.T) {
	tests := []struct {
		name  string
		peers int
		count int
		every time.Duration
		want  bool
	}{
		{"one alone", 1, 1, time.Second, false},
		{"many from one peer", 1, 500, time.Second, false},
		{"many from two peers", 2, 500, time.Second, false},
		{"19 from three peers", 3, 19, time.Second, false},
		{"20 from three peers", 3, 20, time.Second, true},
		{"20 from three peers in 9 min 30 s", 3, 20, 30 * time.Second, true},
		{"20 from three peers in 19 min", 3, 20, time.Minute, false},
		{"slowly for ever", 9, 900, 35 * time.Second, false},
	}
	for _, tt := range tests {
		w := NewDecryptWindow(Guide())
		storm := false
		for i := range tt.count {
			storm = w.Add(fmt.Sprint("peer", i%tt.peers), t0.Add(time.Duration(i)*tt.every)) || storm
		}
		if storm != tt.want {
			t.Errorf("%s: %v", tt.name, storm)
		}
	}
}

func TestDecryptCountIsOfTheLast10Minutes(t *testing.T) {
	w := NewDecryptWindow(Guide())
	for i := range 5 {
		w.Add("a", t0.Add(time.Duration(i)*time.Minute))
	}
	for after, want := range map[time.Duration]int{4 * time.Minute: 5, 9*time.Minute + 59*time.Second: 5} {
		if got := w.Count(t0.Add(after)); got != want {
			t.Errorf("after %s: %d, want %d", after, got, want)
		}
	}
	if got := w.Count(t0.Add(12 * time.Minute)); got != 2 {
		t.Errorf("after 12 min: %d, want 2", got)
	}
	if got := w.Count(t0.Add(15 * time.Minute)); got != 0 || w.seen != nil {
		t.Errorf("after 15 min: %d, and the memory is kept: %v", got, w.seen != nil)
	}
}

func TestDecryptWindowIsBounded(t *testing.T) {
	w := NewDecryptWindow(Guide())
	for i := range 20_000 {
		w.Add(fmt.Sprint("peer", i), t0.Add(time.Duration(i)*time.Millisecond))
	}
	if len(w.times) > decryptKept || cap(w.times) > 2*decryptKept || len(w.seen) > decryptPeersKept {
		t.Errorf("%d times (room for %d), %d peers", len(w.times), cap(w.times), len(w.seen))
	}
	if w.Reset(); w.Count(t0.Add(20*time.Second)) != 0 {
		t.Error("not forgotten")
	}
	(*DecryptWindow)(nil).Reset() // a session that has counted nothing has none
}
