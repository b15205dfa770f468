package policy

import (
	"errors"
	"fmt"
	"slices"
	"time"
)

// The profiles: named sets of values for every setting.
const (
	ProfileGuide  = "guide"  // the default: lively
	ProfileGentle = "gentle" // few pings, few attempts
)

// Settings are the values by which one session lives. A Settings is a value:
// copying it is cheap and safe, since Set never changes a slice in place.
//
// The rows of the table in settingtable.go say for each field its name,
// range and meaning.
type Settings struct {
	Profile string // what the values started from: guide or gentle

	KeepAliveInterval time.Duration // between pings, each ± 10 %; see KeepAlive
	KeepAliveDeadline time.Duration // for the answer to a ping

	MonitorTick     time.Duration // in the online phase only
	SocketTicks     int           // reconnect when the socket was not open for so many ticks in a row
	PongTimeout     time.Duration // a pong older than this is a fault
	PongTicks       int           // reconnect when the pong was too old for so many ticks in a row
	ActivityTimeout time.Duration // without activity for so long: a health ping; 0: none
	InboundStall    StallSetting

	ReachabilityInterval time.Duration // 0: not checked

	QRTimeout      time.Duration // of a pairing in all, over all QR codes
	ConnectTimeout time.Duration // from the dial to <success>
	QueryTimeout   time.Duration // our own queries and sends
	QueryPause     time.Duration // before a query or send that failed for a passing reason is repeated

	SendPace     time.Duration // between two messages of the session, up to half as much again; 0: none. See Pace
	SendPaceChat time.Duration // between two messages to one chat, likewise

	Backoff        []time.Duration // by attempt; the last one repeats
	NetworkDelay   Range           // before a redial after network trouble
	RestartDelay   time.Duration   // before the redial that the server asked for (515)
	MaxAttempts    int             // redials in a row, whatever the causes; 0: no limit
	MaxAttempts500 int             // redials in a row for server_error; 0: MaxAttempts alone counts
	MaxAttempts408 int             // likewise for timed_out
	MaxAttempts405 int             // likewise for client_outdated

	RestAfterExhaustion time.Duration // once the attempts are used up; 0: until a command
	CooldownLoggedOut   time.Duration // before a retired session may pair again
	Quarantine          time.Duration // how long retired credentials can be restored; 0: destroyed at once

	DecryptLimit int // undecryptable messages in 10 min that mean bad_mac
	DecryptPeers int // and from at least so many peers

	MarkOnline bool // show the account as online when connected
}

// Range is a span of which a value is drawn, both ends included.
type Range struct{ Min, Max time.Duration }

// At is the value at a share of the range, 0 to 1.
func (r Range) At(share float64) time.Duration {
	return r.Min + time.Duration(float64(r.Max-r.Min)*share)
}

// StallSetting says when silence is a stall: after a bound of the session's own
// (Adaptive), after a fixed time, or never (the zero value).
type StallSetting struct {
	Adaptive bool
	Fixed    time.Duration
}

// Off says that silence is never judged.
func (s StallSetting) Off() bool { return !s.Adaptive && s.Fixed == 0 }

// Guide returns the default profile.
func Guide() Settings { return profile(ProfileGuide) }

// Gentle returns the profile with few pings and few attempts.
func Gentle() Settings { return profile(ProfileGentle) }

// For returns a profile by name; the empty name is the default. Another one is
// a *SettingError.
func For(name string) (Settings, error) {
	switch name {
	case "", ProfileGuide:
		return Guide(), nil
	case ProfileGentle:
		return Gentle(), nil
	}
	return Settings{}, &SettingError{Name: "profile", Why: fmt.Sprintf("%q is not one", name), Want: "write guide or gentle"}
}

func profile(name string) Settings {
	s := Settings{Profile: name}
	for _, row := range settingTable {
		value := row.doc.Guide
		if name == ProfileGentle {
			value = row.doc.Gentle
		}
		if err := row.set(&s, value); err != nil {
			panic("policy: default of " + row.doc.Name + ": " + err.Error()) // a slip in the table; the tests walk it
		}
	}
	return s
}

// SettingError says what is wrong with a setting, and what would be right.
type SettingError struct {
	Name string // of the setting, in lower case with dashes
	Why  string
	Want string
}

func (e *SettingError) Error() string {
	if e.Want == "" {
		return e.Name + ": " + e.Why
	}
	return e.Name + ": " + e.Why + "; " + e.Want
}

// Set changes one value by its name in lower case with dashes, from the form in
// which people write it: "10s", "5s,10s,20s", "3s-5s", "adaptive", "true". A
// number alone is seconds where a duration is wanted; "7d" are days. A name or
// form that is not known is a *SettingError and changes nothing. Ranges are
// Validate's.
func (s *Settings) Set(name, value string) error {
	row, ok := settingByName(name)
	if !ok {
		return &SettingError{Name: name, Why: "no setting of this name", Want: nearestSetting(name)}
	}
	if err := row.set(s, value); err != nil {
		return &SettingError{Name: name, Why: err.Error(), Want: "write it like " + row.doc.Guide + " (" + row.doc.Range + ")"}
	}
	return nil
}

// Get returns a value in the form that Set reads, and false for an unknown name.
func (s Settings) Get(name string) (string, bool) {
	row, ok := settingByName(name)
	if !ok {
		return "", false
	}
	return row.get(&s), true
}

// With returns the settings with the given values set over them, checked. All
// faults are named at once, in the order of the table; the result counts only
// if there are none.
func (s Settings) With(override map[string]string) (Settings, error) {
	var faults []error
	names := make([]string, 0, len(override))
	for name := range override {
		names = append(names, name)
	}
	slices.Sort(names)
	for _, name := range names {
		if err := s.Set(name, override[name]); err != nil {
			faults = append(faults, err)
		}
	}
	if err := s.Validate(); err != nil {
		faults = append(faults, err)
	}
	return s, errors.Join(faults...)
}

// Validate names every fault at once: each a *SettingError under errors.Join,
// one a line. Nil if the settings can be lived by.
func (s Settings) Validate() error {
	var faults []error
	fault := func(name, want, why string, args ...any) {
		faults = append(faults, &SettingError{Name: name, Why: fmt.Sprintf(why, args...), Want: want})
	}
	for _, row := range settingTable {
		if why := row.check(&s); why != "" {
			fault(row.doc.Name, "use "+row.doc.Range, "%s", why)
		}
	}
	if least := s.KeepAliveInterval + s.KeepAliveDeadline; s.PongTimeout <= least {
		fault("pong-timeout", "raise it, or lower the other two",
			"is %s, not over keepalive-interval + keepalive-deadline (%s), so that a healthy connection would look dead",
			show(s.PongTimeout), show(least))
	}
	if s.Profile != ProfileGuide && s.Profile != ProfileGentle {
		fault("profile", "write guide or gentle", "%q is not one", s.Profile)
	}
	return errors.Join(faults...)
}

// KeepAlive is the time to the next ping: the interval less or plus up to 10 %.
// jitter is in [0,1).
func (s Settings) KeepAlive(jitter float64) time.Duration {
	return time.Duration(float64(s.KeepAliveInterval) * (0.9 + 0.2*jitter))
}

// Pace is the pause that follows a message: as set, up to half as much again.
// jitter is in [0,1).
func Pace(pause time.Duration, jitter float64) time.Duration {
	return pause + time.Duration(float64(pause)/2*jitter)
}

// RenewQR says what happens when the codes of a QR have run out, which is about
// 160 s after the first: true means reconnect once for fresh ones, false that the
// pairing ends (SignalQRExpired). started is when the first code of this
// pairing was shown, renewals how often it was renewed.
func (s Settings) RenewQR(started time.Time, renewals int, now time.Time) bool {
	return renewals == 0 && now.Sub(started) < s.QRTimeout
}

// SettingDoc describes a setting, for the reference, for help texts and for forms.
type SettingDoc struct {
	Name    string // in lower case with dashes: the flag and the YAML key
	Env     string // the environment variable
	Guide   string // default in profile guide
	Gentle  string // default in profile gentle
	Range   string // what is allowed, in words
	Meaning string
	Source  string // where the number comes from
}

// Names lists the settings in the order of the contract.
func Names() []SettingDoc {
	docs := make([]SettingDoc, len(settingTable))
	for i, row := range settingTable {
		docs[i] = row.doc
	}
	return docs
}
