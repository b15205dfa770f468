package policy

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/holdfast-wa/holdfast/state"
)

// The numbers of stall detection; the contract sets them.
const (
	stallTimes        = 3                // the bound, in longest silences
	stallLeast        = 30 * time.Minute // the least adaptive bound
	stallUnknown      = 12 * time.Hour   // the bound while no silence is known
	stallDays         = 7                // days of silences that are kept
	stallPause        = 6 * time.Hour    // between two reconnects for this cause
	handlerBlockLimit = 60 * time.Second
	// stallMargin is how much older than the cut a message must be to prove
	// something: WhatsApp's times are whole seconds, and a message that was on
	// its way at the cut is none.
	stallMargin = 2 * time.Second
)

// StallRecord is what a stall detector remembers over restarts: the fields
// InboundGaps, StallBound and LastStallAt of state.Status.
type StallRecord struct {
	Gaps   []state.DayGap // longest silence of each day (UTC) while online, the last 7
	Bound  time.Duration  // in force after a proved stall; 0: derived from the setting and the silences
	LastAt time.Time      // of the last reconnect for this cause
}

// Stall tells silence from a stall: pings are answered and nothing arrives any
// more. A quiet session is not a stalled one, so the bound is the session's own.
// It is not safe for concurrent use.
//
//	Connected ─► Inbound … Inbound ─► Check: stalled ─► Reconnecting
//	    ▲                                                    │
//	    └── OfflineMessage … OfflineDone ◄── Connected ◄─────┘
type Stall struct {
	setting StallSetting
	rec     StallRecord
	online  bool
	heard   time.Time // last inbound stanza, or the start of the connection

	cut     time.Time     // of the reconnect that waits for its proof; zero: none
	silence time.Duration // that led to it
	bound   time.Duration // that was in force then
	proved  bool
}

// NewStall goes on from what was recorded.
func NewStall(setting StallSetting, rec StallRecord, now time.Time) *Stall {
	rec.Gaps = slices.Clone(rec.Gaps)
	s := &Stall{setting: setting, rec: rec}
	s.rec.Gaps = recentGaps(s.rec.Gaps, now)
	return s
}

// Record is what to store.
func (s *Stall) Record() StallRecord {
	rec := s.rec
	rec.Gaps = slices.Clone(rec.Gaps)
	return rec
}

// Connected begins to listen: time offline is no silence.
func (s *Stall) Connected(now time.Time) { s.online, s.heard = true, now }

// Disconnected ends it.
func (s *Stall) Disconnected(now time.Time) {
	if s.online {
		s.note(now.Sub(s.heard), now)
	}
	s.online = false
}

// Inbound tells of a stanza that came in, pongs and acks of our own pings not
// counted.
func (s *Stall) Inbound(now time.Time) {
	if !s.online || !now.After(s.heard) {
		return
	}
	s.note(now.Sub(s.heard), now)
	s.heard = now
}

// Bound is how long a silence may be now, and where that comes from. 0: silence
// is never judged.
func (s *Stall) Bound(now time.Time) (time.Duration, string) {
	switch {
	case s.setting.Off():
		return 0, "off"
	case s.rec.Bound > 0:
		return s.rec.Bound, "halved after a proved stall"
	}
	return s.derived(now)
}

// derived is the bound without what a proof has made of it.
func (s *Stall) derived(now time.Time) (time.Duration, string) {
	if !s.setting.Adaptive {
		return s.setting.Fixed, "set by inbound-stall"
	}
	gaps := recentGaps(slices.Clone(s.rec.Gaps), now)
	if len(gaps) == 0 {
		return stallUnknown, "no silence of this session is known yet"
	}
	longest := slices.MaxFunc(gaps, func(a, b state.DayGap) int { return cmp.Compare(a.Gap, b.Gap) })
	if longest.Gap > stallUnknown*stallDays { // no sane record holds more; and it must not overflow
		return stallTimes * stallUnknown * stallDays, "a silence of days"
	}
	return max(stallTimes*longest.Gap, stallLeast),
		fmt.Sprintf("%d times its longest silence of %s on %s, at least %s",
			stallTimes, show(longest.Gap.Round(time.Second)), longest.Day, show(stallLeast))
}

// Check says whether the session has stalled: SignalInboundStalled where it has
// been silent for longer than its bound, SignalHandlerBlocked where a handler
// has held the queue for over 60 s, empty where all is well or the last
// reconnect for this cause is less than 6 h ago. The caller then calls
// Reconnecting and redials.
func (s *Stall) Check(now time.Time, handlerBlocked time.Duration) (kind SignalKind, why string) {
	if !s.online || s.setting.Off() || !s.due(now) {
		return "", ""
	}
	if handlerBlocked > handlerBlockLimit {
		return SignalHandlerBlocked, "a handler has blocked the queue for " + show(handlerBlocked.Round(time.Second))
	}
	bound, from := s.Bound(now)
	if silence := now.Sub(s.heard); silence >= bound {
		return SignalInboundStalled, fmt.Sprintf("nothing arrived for %s; the bound is %s: %s",
			show(silence.Round(time.Second)), show(bound.Round(time.Second)), from)
	}
	return "", ""
}

// due says that a reconnect for this cause is allowed. A last one in the future
// is a clock that was set back, and does not count.
func (s *Stall) due(now time.Time) bool {
	since := now.Sub(s.rec.LastAt)
	return s.rec.LastAt.IsZero() || since >= stallPause || since < 0
}

// Reconnecting notes that the line is cut now, for what Check has said. The
// silence joins the record only if the reconnect proves nothing. After a blocked
// handler no proof is waited for: what was held up then is known.
func (s *Stall) Reconnecting(kind SignalKind, now time.Time) {
	s.silence = 0
	if s.online {
		s.silence = now.Sub(s.heard)
	}
	s.bound, _ = s.Bound(now)
	s.online, s.cut, s.proved, s.rec.LastAt = false, time.Time{}, false, now
	if kind == SignalInboundStalled {
		s.cut = now
	}
}

// OfflineMessage tells of a message in the burst after a reconnect, by the time
// at which it was sent. True if it proves the stall, which it does once: the
// server had it while the line looked healthy. The bound is halved then; raise
// session.inbound_stalled.
func (s *Stall) OfflineMessage(sent time.Time) (proved bool) {
	if s.cut.IsZero() || s.proved || sent.After(s.cut.Add(-stallMargin)) {
		return false
	}
	s.proved = true
	least := stallLeast
	if !s.setting.Adaptive {
		least = min(least, s.setting.Fixed)
	}
	s.rec.Bound = max(s.bound/2, least)
	return true
}

// OfflineDone ends the burst. If it has proved no stall, the session was just
// quiet: the silence is recorded as its own, and the bound is derived again.
func (s *Stall) OfflineDone(now time.Time) {
	if !s.cut.IsZero() && !s.proved {
		s.rec.Bound = 0
		s.note(s.silence, s.cut)
		s.rec.Gaps = recentGaps(s.rec.Gaps, now)
	}
	s.cut, s.proved = time.Time{}, false
}

// note records a silence that ended at a time, if it is the longest of its day.
func (s *Stall) note(gap time.Duration, at time.Time) {
	if gap <= 0 {
		return
	}
	day := at.UTC().Format(time.DateOnly)
	i, found := slices.BinarySearchFunc(s.rec.Gaps, day, func(g state.DayGap, day string) int { return strings.Compare(g.Day, day) })
	if found {
		s.rec.Gaps[i].Gap = max(s.rec.Gaps[i].Gap, gap)
		return
	}
	s.rec.Gaps = recentGaps(slices.Insert(s.rec.Gaps, i, state.DayGap{Day: day, Gap: gap}), at)
}

// recentGaps drops the days that are too old. It changes the slice it is given.
func recentGaps(gaps []state.DayGap, now time.Time) []state.DayGap {
	oldest := now.UTC().AddDate(0, 0, -stallDays+1).Format(time.DateOnly)
	return slices.DeleteFunc(gaps, func(g state.DayGap) bool { return g.Day < oldest })
}
