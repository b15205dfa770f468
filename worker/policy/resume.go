package policy

import (
	"time"

	"github.com/holdfast-wa/holdfast/state"
)

// Stored is what the record of a session says when a worker takes it up.
type Stored struct {
	Paired        bool
	State         state.State
	Cause         state.Cause
	NextAttemptAt time.Time
	CooldownUntil time.Time
	Deaths        Deaths
	Unexplained   Unexplained
}

// Resumption is what a worker does first with a session that is wanted running.
type Resumption struct {
	Poisoned bool      // decide for CausePoisoned before anything else
	Pardon   bool      // store Deaths.Pardon first: this is the try after the parking
	Parked   bool      // do nothing until a command, or until Until where that is set
	Until    time.Time // connect then; zero with Parked: only a command helps; zero without: connect now
	Why      string
}

// Resume says how a session goes on after a restart or a change of owner, so that
// deadlines hold across both. A session that is wanted stopped or disconnected is
// not asked for here. Unpaired and without a deadline it begins a pairing,
// unless the last one ended in a way that only a command undoes.
func Resume(st Stored, now time.Time) Resumption {
	rule := RuleOf(st.Cause)
	until := later(st.NextAttemptAt, st.CooldownUntil)
	pending := until.After(now)

	if st.Deaths.Poisoned() || st.Unexplained.Poisoned() {
		switch {
		case st.Cause != state.CausePoisoned:
			return Resumption{Poisoned: true, Why: "the process died too often while it held this session"}
		case pending:
			return Resumption{Parked: true, Until: until, Why: "poisoned: parked until the deadline"}
		}
		return Resumption{Pardon: true, Why: "poisoned: one more try"}
	}
	switch {
	case st.Cause == state.CauseNone, !known(st.Cause), st.Cause == state.CauseStopped, st.Cause == state.CauseLeaseLost:
		// As it should be, or the wanted state has changed since.
	case st.Cause == state.CauseDisconnected:
		if pending {
			return Resumption{Parked: true, Until: until, Why: "a cooldown is running"}
		}
	case st.Cause == state.CauseMoved:
		return Resumption{Parked: true, Why: "moved to another store: only a command goes on"}
	case st.State == state.Stopped:
		return Resumption{Parked: true, Why: "the attempts were used up; only a command starts it again"}
	case rule.Action == Retire, rule.Action == Park && rule.Wait == WaitNone:
		return Resumption{Parked: true, Why: "parked by " + string(st.Cause) + ": only a command goes on"}
	}
	switch {
	case !pending:
		return Resumption{Why: "nothing stands in the way"}
	case rule.Action == Park || st.CooldownUntil.After(now):
		return Resumption{Parked: true, Until: until, Why: "a deadline of " + string(st.Cause) + " is running"}
	}
	return Resumption{Until: until, Why: "the next attempt is due then"}
}

func known(cause state.Cause) bool {
	_, ok := ruleTable[cause]
	return ok
}
