package state_test

import (
	"errors"
	"fmt"
	"math"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/holdfast-wa/holdfast/state"
)

func TestConditions(t *testing.T) {
	for _, c := range []struct {
		name                         string
		cond                         state.Condition
		absent, at0, at7             bool // whether it holds of nothing, and of records at rev 0 and 7
		always, none, some, compared bool // what Split says
	}{
		{name: "always", absent: true, at0: true, at7: true, always: true},
		{name: "absent", cond: state.Absent(), absent: true, none: true},
		{name: "exists", cond: state.Exists(), at0: true, at7: true, some: true},
		{name: "rev 7", cond: state.AtRev(7), at7: true, some: true, compared: true},
		{name: "rev 0", cond: state.AtRev(0), at0: true, some: true, compared: true},
	} {
		got := []bool{c.cond.Holds(false, 0), c.cond.Holds(true, 0), c.cond.Holds(true, 7)}
		if want := []bool{c.absent, c.at0, c.at7}; fmt.Sprint(got) != fmt.Sprint(want) {
			t.Errorf("%s holds of nothing, rev 0, rev 7: %v, want %v", c.name, got, want)
		}
		if c.cond.Always() != c.always {
			t.Errorf("%s: Always is %v", c.name, c.cond.Always())
		}
		always, none, some, compared, _ := c.cond.Split()
		if always != c.always || none != c.none || some != c.some || compared != c.compared {
			t.Errorf("%s splits into %v %v %v %v", c.name, always, none, some, compared)
		}
	}
	if _, _, _, _, rev := state.AtRev(math.MaxUint64).Split(); rev != math.MaxUint64 {
		t.Errorf("the rev is %d", rev)
	}
}

// Split says the same as Holds.
func TestSplitAgrees(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		rev := rapid.Uint64Range(0, 3).Draw(t, "rev")
		c := rapid.SampledFrom([]state.Condition{{}, state.Absent(), state.Exists(), state.AtRev(rev)}).Draw(t, "condition")
		found, stored := rapid.Bool().Draw(t, "found"), rapid.Uint64Range(0, 3).Draw(t, "stored")
		always, absent, present, compare, want := c.Split()
		holds := always || absent && !found || present && found && (!compare || stored == want)
		if c.Holds(found, stored) != holds {
			t.Fatalf("Holds(%v, %d) is %v", found, stored, !holds)
		}
	})
}

func TestCheck(t *testing.T) {
	many := func(n, size int) (ws []state.Write) {
		for i := range n {
			ws = append(ws, state.Put(state.KindEvent, fmt.Sprintf("%04d", i), make([]byte, size)))
		}
		return ws
	}
	// A key of "EV#0000" has 7 bytes.
	const each = state.MaxBytes/16 - 7
	for _, c := range []struct {
		name   string
		writes []state.Write
		want   error // nil: good
	}{
		{"nothing", nil, nil},
		{"all items", many(state.MaxItems, 0), nil},
		{"an item too many", many(state.MaxItems+1, 0), state.ErrTooLarge},
		{"the largest value", many(1, state.MaxValue), nil},
		{"a larger value", many(1, state.MaxValue+1), state.ErrTooLarge},
		{"all bytes", many(16, each), nil},
		{"a byte too many", append(many(15, each), state.Put(state.KindEvent, "last", make([]byte, each+1))), state.ErrTooLarge},
		{"the longest id", []state.Write{state.Del(state.KindEvent, strings.Repeat("i", state.MaxKeyID))}, nil},
		{"a longer id", []state.Write{state.Del(state.KindEvent, strings.Repeat("i", state.MaxKeyID+1))}, state.ErrTooLarge},
		{"one kind, two ids", []state.Write{state.Del(state.KindEvent, "1"), state.Put(state.KindEvent, "2", nil)}, nil},
		{"one id, two kinds", []state.Write{state.Del(state.KindEvent, "1"), state.Put(state.KindOutbox, "1", nil)}, nil},
	} {
		err := state.Check(c.writes, true)
		if c.want == nil && err != nil || c.want != nil && !errors.Is(err, c.want) {
			t.Errorf("%s: %v, want %v", c.name, err, c.want)
		}
	}
	for name, writes := range map[string][]state.Write{
		"no kind":      {state.Put("", "1", nil)},
		"a # in it":    {state.Put("E#V", "1", nil)},
		"a key twice":  {state.Put(state.KindEvent, "1", nil), state.Del(state.KindEvent, "1")},
		"no id, twice": {state.Put(state.KindMeta, "", nil), state.Put(state.KindMeta, "", nil)},
	} {
		if state.Check(writes, true) == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}

func TestDeviceStateIsFenced(t *testing.T) {
	for kind, device := range map[state.Kind]bool{
		state.KindSpec: false, state.KindStatus: false, state.KindMeta: false, state.KindCommand: false, state.KindAudit: false,
		state.KindEvent: false, state.KindCursor: false, state.KindDead: false, state.KindOutbox: false, state.KindQR: false, state.KindFleet: false,
		state.KindDevice: true, state.KindSignal: true, state.KindPreKey: true, state.KindSenderKey: true, state.KindAppStateKey: true,
		state.KindAppStateVer: true, state.KindAppStateMAC: true, state.KindEventHash: true, state.KindOutgoing: true, state.KindContact: true,
		state.KindChat: true, state.KindSecret: true, state.KindPrivacyToken: true, state.KindNCT: true, state.KindLID: true,
	} {
		if kind.DeviceState() != device {
			t.Errorf("%s: device state %v, want %v", kind, !device, device)
		}
		w := []state.Write{state.Put(kind, "1", nil)}
		if err := state.Check(w, true); err != nil {
			t.Errorf("%s under a fence: %v", kind, err)
		}
		if err := state.Check(w, false); (err != nil) != device {
			t.Errorf("%s without a fence: %v", kind, err)
		}
	}
}

func TestKeyString(t *testing.T) {
	for want, key := range map[string]state.Key{"SPEC": {Kind: state.KindSpec}, "EV#1": {Kind: state.KindEvent, ID: "1"}} {
		if got := key.String(); got != want {
			t.Errorf("%+v is %q, want %q", key, got, want)
		}
	}
}
