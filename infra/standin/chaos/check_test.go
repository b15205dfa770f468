package chaos

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/holdfast-wa/holdfast/infra/standin"
	"github.com/holdfast-wa/holdfast/infra/standin/crew"
	"github.com/holdfast-wa/holdfast/infra/wasim"
)

// at is a moment of the histories below, in seconds from their beginning.
func at(seconds float64) time.Time {
	return time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC).Add(time.Duration(seconds * float64(time.Second)))
}

func moment(seconds float64) *time.Time {
	t := at(seconds)
	return &t
}

// clean is a history in which all is as it must be: w1 is killed at 10 s and its
// session goes to w2; w2 is frozen at 20 s, declared dead, and its socket is
// kicked by w3's; w3 loses the store at 40 s and closes its socket in time.
func clean() History {
	h := History{
		Timing: short, Began: at(0), Healed: at(60), Online: at(65), Rest: at(70), Bound: time.Minute,
		Sessions: []Account{{"shop", "4915550001", "4915550001:1@s.whatsapp.net"}},
		Runs: []crew.Run{
			{Process: "w1", N: 1, Started: at(0), Asked: at(10), Ended: at(10), How: crew.Killed, Error: "signal: killed"},
			{Process: "w2", N: 1, Started: at(0), Asked: at(80), Ended: at(81), How: crew.Terminated, Frozen: []crew.Span{{From: at(20), To: at(30)}}},
			{Process: "w3", N: 1, Started: at(0), Asked: at(80), Ended: at(81), How: crew.Terminated},
		},
		Conns: []Conn{{"a:1", "w1", 1, at(1)}, {"a:2", "w2", 1, at(14)}, {"a:3", "w3", 1, at(24)}, {"a:5", "w2", 1, at(42.4)}, {"a:1", "w2", 1, at(46)}},
		Lines: []LineFault{{"w3", standin.DynamoDB, standin.Hole, crew.Span{From: at(40), To: at(50)}},
			{"w2", standin.S3, standin.Hole, crew.Span{From: at(14), To: at(34)}},
			{"w2", standin.DynamoDB, standin.Late, crew.Span{From: at(47), To: at(58)}}},
		Final: []crew.Session{{Name: "shop", State: "online", Paired: true}},
	}
	device := h.Sessions[0].Device
	h.Bans = []Banned{{device, crew.Span{From: at(42), To: at(45)}, 3 * time.Second}}
	h.Truth = wasim.Truth{
		Sockets: []wasim.Socket{
			{N: 1, Remote: "a:1", Device: device, Opened: at(1), LoggedIn: moment(1.1), Closed: moment(10.01)},
			{N: 2, Remote: "a:2", Device: device, Opened: at(14), LoggedIn: moment(14.1), Ended: moment(24.1), Closed: moment(24.4)},
			{N: 3, Remote: "a:3", Device: device, Opened: at(24), LoggedIn: moment(24.1), Closed: moment(42.1)},
			{N: 5, Remote: "a:5", Device: device, Opened: at(42.4), Ended: moment(42.5), Closed: moment(42.6)},
			{N: 4, Remote: "a:1", Device: device, Opened: at(46), LoggedIn: moment(46.1)},
		},
		Overlaps: []wasim.Overlap{{Device: device, Older: 2, Newer: 3, At: at(24.1), Until: moment(24.4)}},
		Logins: []wasim.Login{
			{Socket: 1, At: at(1.1), Device: device, Outcome: "success"}, {Socket: 2, At: at(14.1), Device: device, Outcome: "success"},
			{Socket: 3, At: at(24.1), Device: device, Outcome: "success"}, {Socket: 5, At: at(42.5), Device: device, Outcome: string(wasim.Failure)},
			{Socket: 4, At: at(46.1), Device: device, Outcome: "success"},
		},
		Pairings: []wasim.Pairing{{Account: "4915550001", Device: device, By: "qr", At: at(0)}},
		Devices:  []wasim.Status{{JID: device, Account: "4915550001", Online: true}},
	}
	for i := range 4 {
		id, text := fmt.Sprintf("IN%d", i), fmt.Sprintf("in %d", i)
		h.Wrote = append(h.Wrote, Wrote{id, "shop", text, at(float64(i))})
		h.Truth.Incoming = append(h.Truth.Incoming, wasim.Incoming{ID: id, Device: device, Queued: at(float64(i)), Acked: moment(float64(i) + 1), By: "receipt"})
		h.Arrivals = append(h.Arrivals, Arrival{At: at(float64(i) + 2), Event: fmt.Sprintf("EV%d", i), Type: "message.received", Session: "shop",
			Epoch: uint64(1 + i/2), Seq: uint64(i + 1), Message: id, Text: text})
		out := fmt.Sprintf("out %d", i)
		h.Sent = append(h.Sent, Sent{"shop", "4916660001", out, fmt.Sprintf("ob%d", i), "3EB" + id, "delivered", ""})
		h.Read = append(h.Read, Read{"4916660001", device, "3EB" + id, out})
		h.Truth.Outgoing = append(h.Truth.Outgoing, wasim.Outgoing{ID: "3EB" + id, Device: device, Outcome: "decrypted", Copies: 1 + i%2})
	}
	h.Ordered = []Ordered{{Session: "shop", Verb: "restart", ID: "shop.C1", State: "done"}}
	h.Arrivals = append(h.Arrivals, Arrival{At: at(8), Event: "EV4", Type: "command.done", Session: "shop", Epoch: 2, Seq: 5, Command: "shop.C1"})
	h.Final[0].Generation, h.Final[0].ObservedGeneration = 3, 3
	h.Ordered = append(h.Ordered, Ordered{Session: "shop", Verb: "stop", ID: "shop.C0", State: "done"})
	h.Arrivals = append(h.Arrivals, Arrival{At: at(8), Event: "EV5", Type: "command.done", Session: "shop", Epoch: 2, Seq: 6, Command: "shop.C0"},
		Arrival{At: at(8), Event: "EV6", Type: stateEvent, Session: "shop", Epoch: 2, Seq: 7, State: "stopped", Cause: "stopped"})
	// At least once: one of them comes again, without its content.
	again := h.Arrivals[1]
	again.Text, again.At = "", at(30)
	h.Arrivals = append(h.Arrivals, again)
	return h
}

func TestCleanHistory(t *testing.T) {
	for _, f := range Check(clean()) {
		t.Errorf("%+v", f)
	}
}

// Each way in which a history can be wrong is found, under its rule.
func TestDoctoredHistories(t *testing.T) {
	for name, c := range map[string]struct {
		rule   string
		doctor func(h *History)
	}{
		"a kick of a worker that was never frozen":      {RuleKick, func(h *History) { h.Runs[1].Frozen = nil }},
		"a kick of a worker that was frozen too short":  {RuleKick, func(h *History) { h.Runs[1].Frozen[0] = crew.Span{From: at(22.5), To: at(25)} }},
		"a kick long after the worker could move again": {RuleKick, func(h *History) { h.Runs[1].Frozen[0].To = at(21) }},
		"a kick before anybody could be declared dead":  {RuleKick, func(h *History) { h.Runs[1].Frozen[0].From = at(23.9) }},
		"a kick of a socket that is nobody's":           {RuleKick, func(h *History) { h.Conns[1].Remote = "b:9" }},
		"a kick among two that work": {RuleKick, func(h *History) {
			h.Truth.Overlaps = append(h.Truth.Overlaps, wasim.Overlap{Device: h.Sessions[0].Device, Older: 3, Newer: 4, At: at(46.1)})
		}},
		"a socket that outlived the trust":     {RuleFence, func(h *History) { h.Truth.Sockets[2].Closed = moment(43.5) }},
		"a socket that never closed":           {RuleFence, func(h *History) { h.Truth.Sockets[2].Closed = nil }},
		"a login without trust":                {RuleFence, func(h *History) { h.Conns[4].Process = "w3" }},
		"an acknowledged message that is lost": {RuleLost, func(h *History) { h.Arrivals = slices.Delete(h.Arrivals, 3, 4) }},
		"the last message of a session lost":   {RuleLost, func(h *History) { h.Arrivals = slices.Delete(h.Arrivals, 0, 1) }},
		"a message for good unacknowledged":    {RulePending, func(h *History) { h.Truth.Incoming[2].Acked = nil }},
		"a message that was refused":           {RulePending, func(h *History) { h.Truth.Incoming[2].Error = "500" }},
		"a message unknown to the service":     {RulePending, func(h *History) { h.Truth.Incoming = h.Truth.Incoming[1:] }},
		"a message under two event ids":        {RuleTwice, func(h *History) { h.Arrivals[7].Event, h.Arrivals[7].Seq = "EV9", 8 }},
		"a message at another session":         {RuleForeign, func(h *History) { h.Arrivals[2].Session = "other" }},
		"a message with another text":          {RuleForeign, func(h *History) { h.Arrivals[2].Text = "in 0" }},
		"a message that nobody wrote":          {RuleForeign, func(h *History) { h.Wrote = h.Wrote[1:] }},
		"a number that is missing":             {RuleGap, func(h *History) { h.Arrivals[3].Seq = 5 }},
		"a number that two events have":        {RuleGap, func(h *History) { h.Arrivals[3].Seq = 3 }},
		"events out of order":                  {RuleOrder, func(h *History) { h.Arrivals[1], h.Arrivals[2] = h.Arrivals[2], h.Arrivals[1] }},
		"an epoch that goes back":              {RuleOrder, func(h *History) { h.Arrivals[3].Epoch = 1 }},
		"a text that failed":                   {RuleSend, func(h *History) { h.Sent[1].State = "failed" }},
		"a text that waits for ever":           {RuleSend, func(h *History) { h.Sent[1].State = "queued"; h.Read = slices.Delete(h.Read, 1, 2) }},
		"a text that was sent and not read":    {RuleRead, func(h *History) { h.Read = slices.Delete(h.Read, 1, 2) }},
		"a text that was read twice":           {RuleRead, func(h *History) { r := h.Read[1]; r.ID = "3EBOTHER"; h.Read = append(h.Read, r) }},
		"a text under another id":              {RuleRead, func(h *History) { h.Read[1].ID = "3EBOTHER" }},
		"a text from another device":           {RuleRead, func(h *History) { h.Read[1].From = "4915550002:1@s.whatsapp.net" }},
		"a text that nobody sent":              {RuleRead, func(h *History) { h.Read[1].Text = "out of nowhere" }},
		"a command that failed":                {RuleCommand, func(h *History) { h.Ordered[0].State = "failed" }},
		"a command that never ended":           {RuleCommand, func(h *History) { h.Ordered[0].State = "running" }},
		"a command whose end nobody told":      {RuleCommand, func(h *History) { h.Ordered[0].ID = "shop.C2" }},
		"a command that was carried out twice": {RuleCommand, func(h *History) {
			h.Arrivals = append(h.Arrivals, Arrival{At: at(9), Event: "EV5", Type: "command.done", Session: "shop", Epoch: 2, Seq: 6, Command: "shop.C1"})
		}},
		"a wish that no owner has seen":           {RuleCommand, func(h *History) { h.Final[0].ObservedGeneration = 2 }},
		"a ciphertext that a contact cannot open": {RuleCipher, func(h *History) { h.Unread = []Unread{{By: "4916660001", ID: "X"}} }},
		"one that was read after a retry":         {RuleCipher, func(h *History) { h.Truth.Outgoing[2].Healed = true }},
		"one to a device that is not there":       {RuleCipher, func(h *History) { h.Truth.Outgoing[2].Outcome = "undeliverable" }},
		"one that the session cannot open":        {RuleCipher, func(h *History) { h.Truth.Incoming[2].Retries = 1 }},
		"an event that says so":                   {RuleCipher, func(h *History) { h.Arrivals[7].Type = "message.undecryptable" }},
		"a second pairing":                        {RulePairing, func(h *History) { h.Truth.Pairings = append(h.Truth.Pairings, h.Truth.Pairings[0]) }},
		"no pairing":                              {RulePairing, func(h *History) { h.Truth.Pairings[0].Error = "refused" }},
		"a device that was unlinked":              {RulePairing, func(h *History) { h.Truth.Devices[0].Unlinked = moment(50) }},
		"a device that is gone":                   {RulePairing, func(h *History) { h.Truth.Devices = nil }},
		"what a right client does not do":         {RuleAnomaly, func(h *History) { h.Truth.Anomalies = []wasim.Anomaly{{What: "prekey"}} }},
		"sessions that stay away":                 {RuleOffline, func(h *History) { h.Online = time.Time{} }},
		"sessions that come back late":            {RuleOffline, func(h *History) { h.Online = at(125) }},
		"a session that is not online":            {RuleOffline, func(h *History) { h.Final[0].State = "reconnecting" }},
		"a session that wants a pairing":          {RuleOffline, func(h *History) { h.Final[0].Paired = false }},
		"a session that is not listed":            {RuleOffline, func(h *History) { h.Final = nil }},
		"something that waits in the end":         {RuleRestless, func(h *History) { h.Restless = []string{"shop: 2 messages"} }},
		"a worker that ended by itself":           {RuleExit, func(h *History) { h.Runs[2].How = crew.ByItself }},
		"a worker that ended badly":               {RuleExit, func(h *History) { h.Runs[2].Error = "exit status 1" }},
		"something in the clear":                  {RuleLeak, func(h *History) { h.Leaks = []Leak{{"table holdfast-fleet", "a phone number"}} }},
		"a session that waits for a person": {RuleParked, func(h *History) {
			h.Arrivals = append(h.Arrivals, Arrival{At: at(40), Event: "EV4", Type: stateEvent, Session: "shop", Epoch: 2, Seq: 5, State: "error", Cause: "stale_credentials"})
		}},
		"a session that stopped more often than it was told to": {RuleParked, func(h *History) {
			h.Ordered[0].Verb = "stop"
			for i := range 2 {
				h.Arrivals = append(h.Arrivals, Arrival{At: at(40), Event: fmt.Sprint("EVS", i), Type: stateEvent, Session: "shop", Epoch: 2, Seq: uint64(8 + i), State: "stopped", Cause: "stopped"})
			}
		}},
		"an acknowledgement of what cannot be stored": {RuleEarly, func(h *History) {
			h.Lines[0].Kind, h.Truth.Incoming[3].Acked, h.Truth.Incoming[3].Socket = standin.Throttle, moment(42.05), 3
		}},
		"a login before a ban is over": {RuleCooldown, func(h *History) { h.Truth.Logins[4].At = at(45.4) }},
		"one of the next owner":        {RuleCooldown, func(h *History) { h.Truth.Logins[4].At, h.Conns[4].Process = at(45), "w1" }},
		"a ban that nobody has spoken": {RuleParked, func(h *History) {
			h.Bans = nil
			h.Arrivals = append(h.Arrivals, Arrival{At: at(43), Event: "EVB", Type: stateEvent, Session: "shop", Epoch: 2, Seq: 8, State: "banned", Cause: "temporary_ban"})
		}},
		"a socket that was to live":                       {RuleCut, func(h *History) { h.Steady = []crew.Span{{From: at(40), To: at(43)}} }},
		"a record of another release that cannot be read": {RuleRelease, func(h *History) { h.Unreadable = []string{"shop"} }},
	} {
		t.Run(name, func(t *testing.T) {
			h := clean()
			c.doctor(&h)
			found := Check(h)
			if !slices.ContainsFunc(found, func(f Finding) bool { return f.Rule == c.rule }) {
				t.Errorf("no %s: %+v", c.rule, found)
			}
		})
	}
}

// What looks wrong and has its reason is not held against anybody.
func TestExcused(t *testing.T) {
	for name, doctor := range map[string]func(h *History){
		"a kick in the moment of the thaw": func(h *History) { h.Runs[1].Frozen[0].To = at(23.5) },
		"a kick of one that is frozen for good": func(h *History) {
			h.Runs[1].Frozen[0].To = time.Time{}
			h.Runs[1].How, h.Runs[1].Error = crew.Killed, "signal: killed"
		},
		"a socket without trust of a frozen worker": func(h *History) {
			h.Runs[2].Frozen = []crew.Span{{From: at(39), To: at(44)}}
			h.Truth.Sockets[2].Closed = moment(44.2)
		},
		"a socket that lives through a short fault": func(h *History) {
			h.Lines[0].Span.To = at(41.5)
			h.Truth.Sockets[2].Closed = moment(46)
		},
		"an acknowledgement that was on its way": func(h *History) { h.Truth.Incoming[3].Acked, h.Truth.Incoming[3].Socket = moment(41.5), 3 },
		"one of another worker":                  func(h *History) { h.Truth.Incoming[3].Acked, h.Truth.Incoming[3].Socket = moment(49), 4 },
		"a login before a ban is over that was not written down": func(h *History) {
			h.Truth.Logins[4].At = at(44)
			h.Lines = append(h.Lines, LineFault{"w2", standin.DynamoDB, standin.Refuse, crew.Span{From: at(43), To: at(43.4)}})
		},
		"one that its worker died of": func(h *History) {
			h.Truth.Logins[4].At, h.Conns[3].Process, h.Conns[3].Run = at(44), "w4", 1
			h.Runs = append(h.Runs, crew.Run{Process: "w4", N: 1, Started: at(0), Asked: at(43), Ended: at(43), How: crew.Killed, Error: "signal: killed"})
		},
		"a session that was banned": func(h *History) {
			h.Arrivals = append(h.Arrivals, Arrival{At: at(43), Event: "EVB", Type: stateEvent, Session: "shop", Epoch: 2, Seq: 8, State: "banned", Cause: "temporary_ban"})
		},
		"a state before it began": func(h *History) {
			h.Arrivals = append([]Arrival{{At: at(-1), Event: "EV-", Type: stateEvent, Session: "other", Seq: 1, State: "unpaired"}}, h.Arrivals...)
		},
		"a socket that closes after what was to be sat out": func(h *History) { h.Steady = []crew.Span{{From: at(30), To: at(41)}} },
	} {
		h := clean()
		doctor(&h)
		for _, f := range Check(h) {
			t.Errorf("%s: %+v", name, f)
		}
	}
}
