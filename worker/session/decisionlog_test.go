package session

import (
	"bytes"
	"log/slog"
	"strings"
	"testing"

	"github.com/holdfast-wa/holdfast/state"
	"github.com/holdfast-wa/holdfast/worker/policy"
)

// The line of a disconnect that waits for somebody says what to do; one that
// passes by itself does not.
func TestWhatWaitsForSomebodySaysWhatToDo(t *testing.T) {
	for cause, says := range map[state.Cause]bool{
		state.CausePairingFailed: true, state.CauseReplaced: true, state.CauseLoggedOut: true,
		state.CauseNetwork: false, state.CauseStopped: false,
	} {
		var log bytes.Buffer
		a := &actor{log: slog.New(slog.NewTextHandler(&log, nil))}
		rule := policy.RuleOf(cause)
		a.logDecision(policy.Decision{Cause: cause, Action: rule.Action, State: rule.State, Credentials: rule.Credentials, Advice: rule.Advice}, policy.Event{Cause: cause})
		if got := strings.Contains(log.String(), "advice="); got != says || strings.Count(log.String(), "\n") != 1 {
			t.Errorf("%s is logged as: %s", cause, log.String())
		}
	}
}
