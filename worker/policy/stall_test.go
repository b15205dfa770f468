package policy

import (
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/holdfast-wa/holdfast/state"
)

func adaptive() StallSetting { return StallSetting{Adaptive: true} }

func TestStallBound(t *testing.T) {
	day := func(ago int, gap time.Duration) state.DayGap {
		return state.DayGap{Day: t0.AddDate(0, 0, -ago).Format(time.DateOnly), Gap: gap}
	}
	tests := []struct {
		name    string
		setting StallSetting
		rec     StallRecord
		want    time.Duration
	}{
		{"nothing known", adaptive(), StallRecord{}, 12 * time.Hour},
		{"lively", adaptive(), StallRecord{Gaps: []state.DayGap{day(0, time.Minute)}}, 30 * time.Minute},
		{"three times the longest", adaptive(), StallRecord{Gaps: []state.DayGap{day(2, 2*time.Hour), day(0, time.Hour)}}, 6 * time.Hour},
		{"the last 7 days only", adaptive(), StallRecord{Gaps: []state.DayGap{day(7, 9*time.Hour), day(6, time.Hour)}}, 3 * time.Hour},
		{"all too old", adaptive(), StallRecord{Gaps: []state.DayGap{day(30, time.Hour)}}, 12 * time.Hour},
		{"a mad record", adaptive(), StallRecord{Gaps: []state.DayGap{day(0, 1<<62)}}, 252 * time.Hour},
		{"fixed", StallSetting{Fixed: 45 * time.Minute}, StallRecord{Gaps: []state.DayGap{day(0, 9*time.Hour)}}, 45 * time.Minute},
		{"halved before", adaptive(), StallRecord{Bound: time.Hour, Gaps: []state.DayGap{day(0, 9*time.Hour)}}, time.Hour},
		{"off", StallSetting{}, StallRecord{Bound: time.Hour}, 0},
	}
	for _, tt := range tests {
		got, why := NewStall(tt.setting, tt.rec, t0).Bound(t0)
		if got != tt.want || why == "" {
			t.Errorf("%s: %s (%s), want %s", tt.name, got, why, tt.want)
		}
	}
}

func TestStallLearnsTheSilencesOfTheConnection(t *testing.T) {
	s := NewStall(adaptive(), StallRecord{}, t0)
	s.Connected(t0)
	s.Inbound(t0.Add(20 * time.Minute))
	s.Inbound(t0.Add(25 * time.Minute))
	s.Disconnected(t0.Add(26 * time.Minute))
	// Five hours offline are no silence, and neither are stanzas from then.
	s.Inbound(t0.Add(3 * time.Hour))
	s.Connected(t0.Add(5 * time.Hour))
	s.Inbound(t0.Add(5*time.Hour + time.Minute))
	want := []state.DayGap{{Day: "2026-09-19", Gap: 20 * time.Minute}}
	if got := s.Record().Gaps; !slices.Equal(got, want) {
		t.Errorf("%v, want %v", got, want)
	}
	if b, _ := s.Bound(t0.Add(6 * time.Hour)); b != time.Hour {
		t.Errorf("bound %s", b)
	}
}

func TestASilenceOverTheBoundIsAStallAndAtMostOneIn6Hours(t *testing.T) {
	s := NewStall(StallSetting{Fixed: time.Hour}, StallRecord{}, t0)
	if kind, _ := s.Check(t0.Add(9*time.Hour), 0); kind != "" {
		t.Errorf("offline: %s", kind)
	}
	s.Connected(t0)
	if kind, _ := s.Check(t0.Add(time.Hour-time.Second), 0); kind != "" {
		t.Errorf("before the bound: %s", kind)
	}
	at := t0.Add(time.Hour)
	kind, why := s.Check(at, 0)
	if kind != SignalInboundStalled || !strings.Contains(why, "nothing arrived for 1h; the bound is 1h") {
		t.Fatalf("%s: %s", kind, why)
	}
	s.Reconnecting(kind, at)
	s.Connected(at.Add(10 * time.Second))
	s.OfflineDone(at.Add(11 * time.Second))
	if kind, _ := s.Check(at.Add(6*time.Hour-time.Second), time.Hour); kind != "" {
		t.Errorf("again within 6 h: %s", kind)
	}
	if kind, _ := s.Check(at.Add(6*time.Hour), 0); kind != SignalInboundStalled {
		t.Errorf("after 6 h: %q", kind)
	}
	// The pause holds over a restart too, and a clock that went back does not make it endless.
	again := NewStall(StallSetting{Fixed: time.Hour}, s.Record(), at)
	again.Connected(at)
	if kind, _ := again.Check(at.Add(2*time.Hour), 0); kind != "" {
		t.Errorf("after a restart: %s", kind)
	}
	early := t0.Add(-24 * time.Hour)
	back := NewStall(StallSetting{Fixed: time.Hour}, s.Record(), early)
	back.Connected(early)
	if kind, _ := back.Check(early.Add(2*time.Hour), 0); kind != SignalInboundStalled {
		t.Errorf("with a clock set back: %q", kind)
	}
}

func TestABlockedHandlerIsAStall(t *testing.T) {
	s := NewStall(adaptive(), StallRecord{}, t0)
	s.Connected(t0)
	if kind, _ := s.Check(t0.Add(time.Minute), 60*time.Second); kind != "" {
		t.Errorf("at 60 s: %s", kind)
	}
	kind, _ := s.Check(t0.Add(time.Minute), 61*time.Second)
	if kind != SignalHandlerBlocked {
		t.Fatalf("at 61 s: %q", kind)
	}
	s.Reconnecting(kind, t0.Add(time.Minute))
	if s.OfflineMessage(t0) {
		t.Error("what a handler held up proves a stall of the line")
	}
	off := NewStall(StallSetting{}, StallRecord{}, t0)
	off.Connected(t0)
	if kind, _ := off.Check(t0.Add(99*time.Hour), time.Hour); kind != "" {
		t.Errorf("off: %s", kind)
	}
}

func TestAProvedStallHalvesTheBound(t *testing.T) {
	cut := t0.Add(13 * time.Hour)
	stalled := func(setting StallSetting) *Stall {
		s := NewStall(setting, StallRecord{}, t0)
		s.Connected(t0)
		kind, _ := s.Check(cut, 0)
		if kind == "" {
			t.Fatal("no stall")
		}
		s.Reconnecting(kind, cut)
		s.Connected(cut.Add(5 * time.Second))
		return s
	}
	s := stalled(adaptive())
	if s.OfflineMessage(cut.Add(time.Second)) || s.OfflineMessage(cut.Add(-time.Second)) {
		t.Error("a message from the time of the reconnect proves nothing")
	}
	if !s.OfflineMessage(cut.Add(-time.Hour)) {
		t.Error("a message older than the reconnect proves the stall")
	}
	if s.OfflineMessage(cut.Add(-2 * time.Hour)) {
		t.Error("one stall is counted twice")
	}
	s.OfflineDone(cut.Add(10 * time.Second))
	rec := s.Record()
	if rec.Bound != 6*time.Hour || !rec.LastAt.Equal(cut) || len(rec.Gaps) != 0 {
		t.Errorf("%+v, want half of 12 h and no silence noted", rec)
	}
	if s.OfflineMessage(cut.Add(-time.Hour)) {
		t.Error("proved after the burst")
	}

	// Not below 30 min, or what is configured where that is less.
	for fixed, want := range map[time.Duration]time.Duration{2 * time.Hour: time.Hour, 40 * time.Minute: 30 * time.Minute, time.Minute: time.Minute} {
		s := stalled(StallSetting{Fixed: fixed})
		s.OfflineMessage(cut.Add(-time.Hour))
		if got := s.Record().Bound; got != want {
			t.Errorf("fixed %s: halved to %s, want %s", fixed, got, want)
		}
	}
}

func TestAReconnectThatProvesNothingMakesItPatient(t *testing.T) {
	rec := StallRecord{Bound: time.Hour, Gaps: []state.DayGap{{Day: "2026-09-19", Gap: 20 * time.Minute}}}
	s := NewStall(adaptive(), rec, t0)
	s.Connected(t0)
	kind, _ := s.Check(t0.Add(time.Hour), 0)
	s.Reconnecting(kind, t0.Add(time.Hour))
	s.Connected(t0.Add(time.Hour + 5*time.Second))
	s.OfflineDone(t0.Add(time.Hour + 6*time.Second))
	if b, why := s.Bound(t0.Add(time.Hour)); b != 3*time.Hour {
		t.Errorf("%s (%s), want three times the hour of silence", b, why)
	}
}

func TestStallRecordStaysBounded(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s, now := NewStall(adaptive(), StallRecord{}, t0), t0
		for range rapid.IntRange(1, 60).Draw(t, "steps") {
			now = now.Add(time.Duration(rapid.Int64Range(0, int64(30*time.Hour)).Draw(t, "pass")))
			switch rapid.IntRange(0, 5).Draw(t, "what") {
			case 0:
				s.Connected(now)
			case 1:
				s.Disconnected(now)
			case 2, 3:
				s.Inbound(now)
			case 4:
				if kind, _ := s.Check(now, 0); kind != "" {
					s.Reconnecting(kind, now)
					s.OfflineMessage(now.Add(-time.Duration(rapid.Int64Range(0, int64(time.Hour)).Draw(t, "age"))))
				}
			case 5:
				s.OfflineDone(now)
			}
			rec := s.Record()
			bound, _ := s.Bound(now)
			if len(rec.Gaps) > stallDays || bound < stallLeast {
				t.Fatalf("%d days, bound %s", len(rec.Gaps), bound)
			}
			if !slices.IsSortedFunc(rec.Gaps, func(a, b state.DayGap) int { return strings.Compare(a.Day, b.Day) }) {
				t.Fatalf("out of order: %v", rec.Gaps)
			}
			again, _ := NewStall(adaptive(), rec, now).Bound(now)
			if again != bound {
				t.Fatalf("bound %s, after a restart %s", bound, again)
			}
		}
	})
}
