package fleet

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"github.com/holdfast-wa/holdfast/state"
	"github.com/holdfast-wa/holdfast/state/memory"
	"github.com/holdfast-wa/holdfast/state/statetest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func join(t *testing.T, s state.Store, id string, info state.MemberInfo) {
	t.Helper()
	if _, err := s.Join(t.Context(), id, info); err != nil {
		t.Fatal(err)
	}
}

func beat(t *testing.T, s state.Store, id string, at time.Time) {
	t.Helper()
	if err := s.Beat(t.Context(), id, state.Load{At: at}); err != nil {
		t.Fatal(err)
	}
}

// look reads the roster and tells what a member is, and whether it was watched
// standing still for long enough.
func look(t *testing.T, v *View, id string) (Standing, bool) {
	t.Helper()
	s, err := v.Fresh(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	m, _ := s.Find(id)
	return s.Standing(id), s.StoodStill(m)
}

func TestStandingFromOneRead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := memory.New(time.Now)
		now := time.Now()
		for id, at := range map[string]time.Time{"new": now, "bound": now.Add(-22 * time.Second), "old": now.Add(-22*time.Second - 1), "ahead": now.Add(time.Hour)} {
			join(t, s, id, state.MemberInfo{})
			beat(t, s, id, at)
		}
		join(t, s, "quiet-new", state.MemberInfo{Since: now})
		join(t, s, "quiet-old", state.MemberInfo{Since: now.Add(-time.Minute)})
		join(t, s, "timeless", state.MemberInfo{})
		join(t, s, "dead", state.MemberInfo{})
		beat(t, s, "dead", now)
		if err := s.DeclareStopped(t.Context(), "dead"); err != nil {
			t.Fatal(err)
		}
		for id, want := range map[string]Standing{"new": Alive, "bound": Alive, "old": Stale, "ahead": Alive, "quiet-new": Alive, "quiet-old": Stale,
			"timeless": Alive, "dead": Dead, "none": Unknown, "": Nobody} {
			v := NewView(ViewConfig{Members: s})
			got, still := look(t, v, id)
			if got != want {
				t.Errorf("%q is %s, want %s", id, got, want)
			}
			if still {
				t.Errorf("%q: one read says that it stood still", id)
			}
		}
	})
}

func TestWhatIsWatchedIsJudgedByOnesOwnClock(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := memory.New(time.Now)
		v := NewView(ViewConfig{Members: s, Takeover: 12 * time.Second})
		join(t, s, "w", state.MemberInfo{})
		late := func() time.Time { return time.Now().Add(-time.Hour) } // of a host whose clock is an hour late
		beat(t, s, "w", late())
		if got, _ := look(t, v, "w"); got != Stale {
			t.Errorf("at first sight it is %s", got)
		}
		time.Sleep(2 * time.Second)
		beat(t, s, "w", late())
		if got, _ := look(t, v, "w"); got != Alive {
			t.Errorf("seen to move it is %s", got)
		}
		time.Sleep(12*time.Second - 1)
		if got, still := look(t, v, "w"); got != Alive || still {
			t.Errorf("just before the takeover time: %s %t", got, still)
		}
		time.Sleep(time.Nanosecond)
		if got, still := look(t, v, "w"); got != Stale || !still {
			t.Errorf("after the takeover time: %s %t", got, still)
		}
		// One beat, even with a time far ahead, begins it anew.
		beat(t, s, "w", time.Now().Add(time.Hour))
		if got, still := look(t, v, "w"); got != Alive || still {
			t.Errorf("after a beat: %s %t", got, still)
		}
		// Time ahead does not hide that it stands.
		time.Sleep(12 * time.Second)
		if got, still := look(t, v, "w"); got != Stale || !still {
			t.Errorf("standing, with a clock ahead: %s %t", got, still)
		}
	})
}

// slow is a store whose answers to the roster arrive when they are let go.
type slow struct {
	state.Store
	answers chan chan struct{}
}

func (s *slow) Roster(ctx context.Context) (state.Roster, error) {
	r, err := s.Store.Roster(ctx)
	if s.answers != nil {
		let := make(chan struct{})
		s.answers <- let
		<-let
	}
	return r, err
}

func TestAnAnswerThatTookLongProvesNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &slow{Store: memory.New(time.Now)}
		v := NewView(ViewConfig{Members: s, Takeover: 12 * time.Second})
		join(t, s, "w", state.MemberInfo{})
		if _, err := v.Fresh(t.Context()); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Second)
		s.answers = make(chan chan struct{}, 1)
		got := make(chan bool)
		go func() {
			sight, err := v.Fresh(t.Context())
			m, _ := sight.Find("w")
			got <- err == nil && sight.StoodStill(m)
		}()
		let := <-s.answers
		time.Sleep(20 * time.Second) // it beat meanwhile, for all we know
		close(let)
		if <-got {
			t.Error("an answer of 20 s ago is taken for one of now")
		}
	})
}

func TestReadsAreSharedAndKeptForAMoment(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := statetest.Fault(memory.New(time.Now))
		v := NewView(ViewConfig{Members: s})
		for range 50 {
			if _, err := v.Read(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
		if n := s.Calls(); n != 1 {
			t.Errorf("%d reads in one moment", n)
		}
		// An owner that the kept roster does not have is looked for once more.
		join(t, s, "w", state.MemberInfo{})
		for range 3 {
			if st, err := v.Standing(t.Context(), "w"); err != nil || st != Alive {
				t.Errorf("just joined: %s, %v", st, err)
			}
		}
		before := s.Calls()
		for range 20 {
			if st, err := v.Standing(t.Context(), "gone"); err != nil || st != Unknown {
				t.Errorf("not remembered: %s, %v", st, err)
			}
		}
		if n := s.Calls() - before; n != 1 {
			t.Errorf("%d reads for one that nobody remembers", n)
		}
		time.Sleep(DefaultMaxAge)
		s.FailBefore(statetest.Of(statetest.Roster), 1, state.ErrUnavailable)
		if _, err := v.Read(t.Context()); !errors.Is(err, state.ErrUnavailable) {
			t.Errorf("a store that does not answer: %v", err)
		}
		if _, err := v.Read(t.Context()); err != nil {
			t.Errorf("afterwards: %v", err)
		}
		for i := range 3 * maxGone {
			if st, err := v.Standing(t.Context(), fmt.Sprint("gone-", i)); err != nil || st != Unknown {
				t.Fatal(st, err)
			}
		}
		if n := len(v.gone); n > maxGone {
			t.Errorf("%d names are kept", n)
		}
	})
}
