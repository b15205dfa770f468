package policy

import (
	"errors"
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"
)

// setting is one row: how a value is described, read, written and checked.
type setting struct {
	doc   SettingDoc
	set   func(s *Settings, value string) error
	get   func(s *Settings) string
	check func(s *Settings) string // what is wrong; empty: nothing
}

const (
	fromGuide = "the connection guide (guide)"
	fromFix   = "the closure fix (gentle)"
	bothOf    = "guide: the connection guide; gentle: the closure fix"
	ours      = "ours"
)

// settingTable is every row of the contract's settings, defaults included: a
// profile is made by setting each from its text.
var settingTable = []setting{
	span("keepalive-interval", "10s", "60s", 100*time.Millisecond, 10*time.Minute, false, bothOf,
		"Time between two pings, each 10 % less to 10 % more.",
		func(s *Settings) *time.Duration { return &s.KeepAliveInterval }),
	span("keepalive-deadline", "10s", "10s", 100*time.Millisecond, 2*time.Minute, false, "the library's own deadline",
		"How long the answer to a ping may take.",
		func(s *Settings) *time.Duration { return &s.KeepAliveDeadline }),
	span("monitor-tick", "15s", "15s", 100*time.Millisecond, 5*time.Minute, false, fromGuide,
		"How often the monitor looks at a connection that is online.",
		func(s *Settings) *time.Duration { return &s.MonitorTick }),
	count("socket-ticks", 2, 2, 1, 20, fromGuide,
		"The socket was not open at so many looks of the monitor in a row: reconnect.",
		func(s *Settings) *int { return &s.SocketTicks }),
	span("pong-timeout", "60s", "150s", 200*time.Millisecond, time.Hour, false,
		"guide: the connection guide; gentle: ours, since the closure fix pings every 60 s only",
		"The last pong is older than this: ping by hand. More than keepalive-interval + keepalive-deadline.",
		func(s *Settings) *time.Duration { return &s.PongTimeout }),
	count("pong-ticks", 3, 3, 1, 20, fromGuide,
		"The last pong was too old at so many looks of the monitor in a row: reconnect.",
		func(s *Settings) *int { return &s.PongTicks }),
	span("activity-timeout", "3m", "3m", time.Second, 24*time.Hour, true, fromGuide,
		"No stanza but pongs for this long: a health ping. 0: none.",
		func(s *Settings) *time.Duration { return &s.ActivityTimeout }),
	stallRow(),
	span("reachability-interval", "2m", "2m", time.Second, 24*time.Hour, true, fromGuide,
		"How often https://web.whatsapp.com is tried, once a process and proxy. It never disconnects by itself. 0: not tried.",
		func(s *Settings) *time.Duration { return &s.ReachabilityInterval }),
	span("qr-timeout", "3m", "3m", time.Second, time.Hour, false, fromGuide,
		"How long a pairing shows QR codes in all before it ends.",
		func(s *Settings) *time.Duration { return &s.QRTimeout }),
	span("connect-timeout", "2m", "60s", time.Second, 10*time.Minute, false, bothOf,
		"From the dial to WhatsApp's success.",
		func(s *Settings) *time.Duration { return &s.ConnectTimeout }),
	span("query-timeout", "2m", "60s", time.Second, 10*time.Minute, false, bothOf,
		"For sends and our own queries. The library's own queries stay at 75 s.",
		func(s *Settings) *time.Duration { return &s.QueryTimeout }),
	span("query-pause", "1s", "1s", 10*time.Millisecond, time.Minute, false, fromFix+", retryRequestDelayMs",
		"Before an own query or send that failed for a passing reason is repeated.",
		func(s *Settings) *time.Duration { return &s.QueryPause }),
	span("send-pace", "0", "3s", 10*time.Millisecond, time.Hour, true, ours+": accounts that write faster than people are banned",
		"Pause between two messages that the session sends, drawn up to half as long again. 0: none.",
		func(s *Settings) *time.Duration { return &s.SendPace }),
	span("send-pace-chat", "0", "6s", 10*time.Millisecond, time.Hour, true, ours,
		"The same between two messages to one chat. 0: none.",
		func(s *Settings) *time.Duration { return &s.SendPaceChat }),
	backoffRow(),
	networkRow(),
	span("restart-delay", "2s", "2s", 100*time.Millisecond, 10*time.Minute, false, fromGuide,
		"Before the redial that the server asks for (515), as it does after a pairing.",
		func(s *Settings) *time.Duration { return &s.RestartDelay }),
	count("max-attempts", 0, 10, 0, 1_000_000, "guide: the connection guide names no such limit; gentle: the closure fix",
		"Redials in a row, whatever the causes, before the session rests. 0: no limit.",
		func(s *Settings) *int { return &s.MaxAttempts }),
	count("max-attempts-500", 10, 10, 0, 1_000_000, bothOf,
		"Redials in a row for server_error (500) before the session rests. 0: max-attempts alone counts.",
		func(s *Settings) *int { return &s.MaxAttempts500 }),
	count("max-attempts-408", 20, 10, 0, 1_000_000, bothOf,
		"Redials in a row for timed_out (408) before the session rests. 0: max-attempts alone counts.",
		func(s *Settings) *int { return &s.MaxAttempts408 }),
	count("max-attempts-405", 10, 10, 0, 1_000_000, "the contract; gentle: the closure fix",
		"Redials in a row for client_outdated (405) with an unchanged version before the session rests. 0: max-attempts alone counts.",
		func(s *Settings) *int { return &s.MaxAttempts405 }),
	span("rest-after-exhaustion", "15m", "15m", time.Second, 7*24*time.Hour, true, ours+"; the connection guide stops for good",
		"How long a session rests when its attempts are used up, before one fresh cycle. 0: until a command.",
		func(s *Settings) *time.Duration { return &s.RestAfterExhaustion }),
	span("cooldown-logged-out", "5m", "5m", 0, 7*24*time.Hour, true, fromGuide,
		"Before a session that was logged out or whose ratchets are gone may pair again. Survives restarts.",
		func(s *Settings) *time.Duration { return &s.CooldownLoggedOut }),
	span("quarantine", "7d", "7d", time.Second, 365*24*time.Hour, true, ours,
		"How long retired credentials are kept, sealed, so that they can be restored. 0: destroyed at once.",
		func(s *Settings) *time.Duration { return &s.Quarantine }),
	count("decrypt-limit", 20, 20, 2, decryptKept, ours+"; the connection guide gives up at the first",
		"So many messages that could not be decrypted in 10 min mean that the ratchets are gone (bad_mac).",
		func(s *Settings) *int { return &s.DecryptLimit }),
	count("decrypt-peers", 3, 3, 1, decryptPeersKept, ours,
		"And only if they came from at least so many peers.",
		func(s *Settings) *int { return &s.DecryptPeers }),
	boolean("mark-online", "false", "true", "guide: so that phones keep their notifications; gentle: the closure fix",
		"Show the account as online when connected.",
		func(s *Settings) *bool { return &s.MarkOnline }),
}

func settingByName(name string) (setting, bool) {
	for _, row := range settingTable {
		if row.doc.Name == name {
			return row, true
		}
	}
	return setting{}, false
}

// nearestSetting says which name was probably meant.
func nearestSetting(name string) string {
	best, distance := "", 4 // more slips than three are another word
	plain := strings.ReplaceAll(strings.ToLower(strings.TrimPrefix(strings.ToUpper(name), "HOLDFAST_")), "_", "-")
	for _, row := range settingTable {
		if d := slips(plain, row.doc.Name); d < distance {
			best, distance = row.doc.Name, d
		}
	}
	if best == "" {
		return "the reference lists them"
	}
	return "did you mean " + best + "?"
}

// slips is the Levenshtein distance.
func slips(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		corner := row[0]
		row[0] = i + 1
		for j := range len(b) {
			cost := corner
			if a[i] != b[j] {
				cost++
			}
			corner = row[j+1]
			row[j+1] = min(cost, row[j]+1, row[j+1]+1)
		}
	}
	return row[len(b)]
}

func describe(name, guide, gentle, allowed, source, meaning string) SettingDoc {
	return SettingDoc{Name: name, Env: "HOLDFAST_" + strings.ReplaceAll(strings.ToUpper(name), "-", "_"),
		Guide: guide, Gentle: gentle, Range: allowed, Meaning: meaning, Source: source}
}

// span is a row for a duration within [low, high]; zero says that 0 is allowed too.
func span(name, guide, gentle string, low, high time.Duration, zero bool, source, meaning string,
	field func(*Settings) *time.Duration) setting {
	allowed := show(low) + " to " + show(high)
	if zero && low > 0 {
		allowed += ", or 0"
	}
	return setting{
		doc: describe(name, guide, gentle, allowed, source, meaning),
		set: func(s *Settings, value string) error {
			d, err := parseDuration(value)
			if err != nil {
				return err
			}
			*field(s) = d
			return nil
		},
		get: func(s *Settings) string { return show(*field(s)) },
		check: func(s *Settings) string {
			d := *field(s)
			if (d < low || d > high) && (!zero || d != 0) {
				return "is " + show(d)
			}
			return ""
		},
	}
}

// count is a row for a whole number within [low, high].
func count(name string, guide, gentle, low, high int, source, meaning string, field func(*Settings) *int) setting {
	return setting{
		doc: describe(name, strconv.Itoa(guide), strconv.Itoa(gentle), fmt.Sprintf("%d to %d", low, high), source, meaning),
		set: func(s *Settings, value string) error {
			n, err := strconv.Atoi(strings.TrimSpace(value))
			if err != nil {
				return fmt.Errorf("%q is not a whole number", value)
			}
			*field(s) = n
			return nil
		},
		get: func(s *Settings) string { return strconv.Itoa(*field(s)) },
		check: func(s *Settings) string {
			if n := *field(s); n < low || n > high {
				return fmt.Sprintf("is %d", n)
			}
			return ""
		},
	}
}

func boolean(name, guide, gentle, source, meaning string, field func(*Settings) *bool) setting {
	return setting{
		doc: describe(name, guide, gentle, "true or false", source, meaning),
		set: func(s *Settings, value string) error {
			switch strings.ToLower(strings.TrimSpace(value)) {
			case "true", "yes", "on", "1":
				*field(s) = true
			case "false", "no", "off", "0":
				*field(s) = false
			default:
				return fmt.Errorf("%q is neither true nor false", value)
			}
			return nil
		},
		get:   func(s *Settings) string { return strconv.FormatBool(*field(s)) },
		check: func(*Settings) string { return "" },
	}
}

func stallRow() setting {
	const low, high = time.Second, 30 * 24 * time.Hour
	return setting{
		doc: describe("inbound-stall", "adaptive", "adaptive", "adaptive, "+show(low)+" to "+show(high)+", or 0", ours,
			"Pings are answered and nothing arrives for this long: one controlled reconnect, at most one in 6 h. "+
				"adaptive: three times the session's own longest silence of 7 days, at least 30 min, 12 h while nothing is known. 0: off."),
		set: func(s *Settings, value string) error {
			if strings.EqualFold(strings.TrimSpace(value), "adaptive") {
				s.InboundStall = StallSetting{Adaptive: true}
				return nil
			}
			d, err := parseDuration(value)
			if err != nil {
				return fmt.Errorf("%q is neither adaptive nor a duration", value)
			}
			s.InboundStall = StallSetting{Fixed: d}
			return nil
		},
		get: func(s *Settings) string {
			if s.InboundStall.Adaptive {
				return "adaptive"
			}
			return show(s.InboundStall.Fixed)
		},
		check: func(s *Settings) string {
			if d := s.InboundStall.Fixed; !s.InboundStall.Adaptive && d != 0 && (d < low || d > high) {
				return "is " + show(d)
			}
			return ""
		},
	}
}

// The bounds of a single wait before a redial. The lower one is what makes a
// hot loop impossible, whatever is configured.
const (
	shortestWait = 100 * time.Millisecond
	longestWait  = time.Hour
	mostSteps    = 50
)

func backoffRow() setting {
	return setting{
		doc: describe("backoff", "5s,10s,20s,40s,60s", "2s,4s,8s,16s,32s,60s",
			fmt.Sprintf("1 to %d durations, %s to %s each, none shorter than the one before", mostSteps, show(shortestWait), show(longestWait)),
			bothOf, "Waits before the redials in a row, each less 0 to 10 %; the last one repeats."),
		set: func(s *Settings, value string) error {
			var steps []time.Duration
			for part := range strings.SplitSeq(value, ",") {
				d, err := parseDuration(part)
				if err != nil {
					return err
				}
				steps = append(steps, d)
			}
			s.Backoff = steps
			return nil
		},
		get: func(s *Settings) string {
			parts := make([]string, len(s.Backoff))
			for i, d := range s.Backoff {
				parts[i] = show(d)
			}
			return strings.Join(parts, ",")
		},
		check: func(s *Settings) string {
			switch n := len(s.Backoff); {
			case n == 0:
				return "is empty"
			case n > mostSteps:
				return fmt.Sprintf("has %d steps", n)
			}
			for i, d := range s.Backoff {
				switch {
				case d < shortestWait || d > longestWait:
					return fmt.Sprintf("step %d is %s", i+1, show(d))
				case i > 0 && d < s.Backoff[i-1]:
					return fmt.Sprintf("step %d (%s) is shorter than step %d (%s)", i+1, show(d), i, show(s.Backoff[i-1]))
				}
			}
			return ""
		},
	}
}

func networkRow() setting {
	return setting{
		doc: describe("network-delay", "3s-5s", "3s-5s",
			"a range such as 3s-5s, or one duration, "+show(shortestWait)+" to "+show(longestWait), fromGuide,
			"Before a redial after network trouble; drawn from the range."),
		set: func(s *Settings, value string) error {
			low, high, isRange := strings.Cut(value, "-")
			if !isRange {
				high = low
			}
			from, err := parseDuration(low)
			if err != nil {
				return err
			}
			to, err := parseDuration(high)
			if err != nil {
				return err
			}
			s.NetworkDelay = Range{Min: from, Max: to}
			return nil
		},
		get: func(s *Settings) string {
			if s.NetworkDelay.Min == s.NetworkDelay.Max {
				return show(s.NetworkDelay.Min)
			}
			return show(s.NetworkDelay.Min) + "-" + show(s.NetworkDelay.Max)
		},
		check: func(s *Settings) string {
			switch r := s.NetworkDelay; {
			case r.Min > r.Max:
				return fmt.Sprintf("begins at %s, above its end %s", show(r.Min), show(r.Max))
			case r.Min < shortestWait:
				return "begins at " + show(r.Min)
			case r.Max > longestWait:
				return "ends at " + show(r.Max)
			}
			return ""
		},
	}
}

var errNegative = errors.New("is negative")

// parseDuration reads Go's form, a number of days ("7d") or of seconds ("90").
func parseDuration(text string) (time.Duration, error) {
	text = strings.TrimSpace(text)
	unit, number := time.Second, text
	if days, ok := strings.CutSuffix(text, "d"); ok {
		unit, number = 24*time.Hour, days
	}
	if n, err := strconv.ParseFloat(number, 64); err == nil {
		d := n * float64(unit)
		switch {
		case d < 0:
			return 0, errNegative
		case math.IsNaN(d) || d > math.MaxInt64/2:
			return 0, fmt.Errorf("%q is not a time", text)
		}
		return time.Duration(d), nil
	}
	d, err := time.ParseDuration(text)
	switch {
	case err != nil:
		return 0, fmt.Errorf("%q is not a duration", text)
	case d < 0:
		return 0, errNegative
	}
	return d, nil
}

// show writes a duration in the shortest form that parseDuration reads back:
// 1m0s is 1m, 168h0m0s is 7d.
func show(d time.Duration) string {
	const day = 24 * time.Hour
	switch {
	case d == 0:
		return "0"
	case d >= 2*day && d%day == 0:
		return strconv.FormatInt(int64(d/day), 10) + "d"
	}
	text := d.String()
	if strings.HasSuffix(text, "m0s") {
		text = strings.TrimSuffix(text, "0s")
	}
	if strings.HasSuffix(text, "h0m") {
		text = strings.TrimSuffix(text, "0m")
	}
	return text
}
