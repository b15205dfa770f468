package policy

import (
	"slices"
	"testing"

	"github.com/holdfast-wa/holdfast/state"
)

func TestEveryCauseHasOneRuleAndEveryRuleACause(t *testing.T) {
	rules := Rules()
	if len(rules) != len(ruleTable) || len(rules) != len(state.Causes()) {
		t.Fatalf("%d rules, %d in the table, %d causes", len(rules), len(ruleTable), len(state.Causes()))
	}
	for i, cause := range state.Causes() {
		if rules[i].Cause != cause {
			t.Errorf("rule %d is of %s, want %s", i, rules[i].Cause, cause)
		}
	}
}

func TestRulesAreWhole(t *testing.T) {
	waits := []Wait{WaitNone, WaitBackoff, WaitNetwork, WaitRestart, WaitRateLimit, WaitExpire, WaitFixed, WaitStore}
	fates := []Fate{Kept, Quarantined, Destroyed, Discarded, NoFate}
	for _, r := range Rules() {
		switch {
		case r.Title == "" || r.Signal == "" || r.Advice == "":
			t.Errorf("%s: title, signal or advice is missing", r.Cause)
		case !slices.Contains(Actions(), r.Action), !slices.Contains(fates, r.Credentials),
			!slices.Contains(waits, r.Wait), !slices.Contains(state.States(), r.State):
			t.Errorf("%s: unknown word in %+v", r.Cause, r)
		case r.State == state.Unowned && r.Cause != state.CauseLeaseLost:
			t.Errorf("%s: shows a state that is never stored", r.Cause)
		case r.Event == "" && r.Cause != state.CauseLeaseLost:
			t.Errorf("%s: raises no event", r.Cause)
		case r.Action == Redial && r.Wait == WaitNone:
			t.Errorf("%s: redials without a wait", r.Cause)
		case r.Action == Redial && r.Credentials != Kept:
			t.Errorf("%s: redials with credentials %s", r.Cause, r.Credentials)
		case r.Action == Retire && !slices.Contains([]Fate{Quarantined, Destroyed, Discarded}, r.Credentials):
			t.Errorf("%s: retires and the credentials are %s", r.Cause, r.Credentials)
		case r.Action != Retire && r.Credentials != Kept && r.Credentials != NoFate:
			t.Errorf("%s: does not retire and the credentials are %s", r.Cause, r.Credentials)
		case r.Wait == WaitFixed && r.Fixed <= 0:
			t.Errorf("%s: a fixed wait of nothing", r.Cause)
		case r.ServerSide && !r.Charged:
			t.Errorf("%s: nothing to spare in an outage", r.Cause)
		}
	}
}

// The causes of an outage, as the contract lists them: 405, 500, 503, network.
func TestServerSideCauses(t *testing.T) {
	want := []state.Cause{state.CauseClientOutdated, state.CauseServerError, state.CauseUnavailable, state.CauseNetwork}
	for _, cause := range state.Causes() {
		if ServerSide(cause) != slices.Contains(want, cause) {
			t.Errorf("%s: server side %v", cause, ServerSide(cause))
		}
	}
}

func TestFatalCauses(t *testing.T) {
	want := []state.Cause{state.CauseLoggedOut, state.CauseAccountLocked, state.CauseAccountBanned, state.CauseTemporaryBan,
		state.CauseReplaced, state.CauseBadMAC, state.CauseStaleCredentials, state.CausePoisoned}
	if got := FatalCauses(); !slices.Equal(got, want) {
		t.Errorf("%v", got)
	}
}

func TestAnUnknownCauseKeepsTheCredentials(t *testing.T) {
	r := RuleOf("of a later release")
	if r.Action != Redial || r.Credentials != Kept || r.Wait != WaitBackoff {
		t.Errorf("%+v", r)
	}
}
