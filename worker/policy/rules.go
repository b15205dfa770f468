package policy

import (
	"slices"
	"time"

	"github.com/holdfast-wa/holdfast/state"
)

// Action is what a cause makes of the connection. There are no others.
type Action string

// The actions.
const (
	Stay   Action = "stay"   // the connection goes on
	Redial Action = "redial" // connect again at NextAttemptAt
	Park   Action = "park"   // no connection until NextAttemptAt, or until a command where that is zero
	Retire Action = "retire" // the credentials go; a new QR is needed, and only a command asks for one
)

// Actions lists them all.
func Actions() []Action { return []Action{Stay, Redial, Park, Retire} }

// Fate is what becomes of the credentials.
type Fate string

// The fates. Quarantined credentials can be restored for a while; discarded are
// the keys of a device that was never fully paired; none means that there are
// none to speak of yet.
const (
	Kept        Fate = "kept"
	Quarantined Fate = "quarantined"
	Destroyed   Fate = "destroyed"
	Discarded   Fate = "discarded"
	NoFate      Fate = "none"
)

// Wait is how the time until the next attempt is found.
type Wait string

// The waits.
const (
	WaitNone      Wait = "none"       // there is no next attempt by itself
	WaitBackoff   Wait = "backoff"    // the backoff list, by attempt
	WaitNetwork   Wait = "network"    // a short random wait, network-delay
	WaitRestart   Wait = "restart"    // restart-delay
	WaitRateLimit Wait = "rate-limit" // 60 s, doubling to 15 min
	WaitExpire    Wait = "expire"     // the time that the server named
	WaitFixed     Wait = "fixed"      // Rule.Fixed
	WaitStore     Wait = "store"      // the backoff list, by failures of the store in a row, and until it answers
)

// Cooldown is how long pairing or connecting is barred, also for commands.
type Cooldown string

// The cooldowns.
const (
	CooldownNone      Cooldown = "none"
	CooldownLoggedOut Cooldown = "logged-out" // cooldown-logged-out
	CooldownWait      Cooldown = "wait"       // as long as the wait
)

// Limit is which of the settings bounds the redials in a row for a cause, beside
// max-attempts, which bounds them whatever the causes.
type Limit string

// The limits.
const (
	Unlimited Limit = "" // max-attempts alone
	Limit500  Limit = "max-attempts-500"
	Limit408  Limit = "max-attempts-408"
	Limit405  Limit = "max-attempts-405"
)

// Rule is what one cause means and does.
type Rule struct {
	Cause       state.Cause
	Code        int    // as people know it, which is mostly the protocol's; 0: it has none
	Title       string // a few words for a list
	Signal      string // what is seen, in words
	Action      Action
	Credentials Fate
	State       state.State // shown
	Wait        Wait
	Fixed       time.Duration // where Wait is WaitFixed
	Cooldown    Cooldown
	Limit       Limit
	Charged     bool // a redial counts as an attempt
	Overridable bool // a start or restart command cuts the wait and the cooldown short
	ServerSide  bool // many sessions with it at once are one outage
	Fatal       bool // makes the health dead
	Event       state.EventType
	Advice      string // to an operator: what to do now
}

// Rules returns the whole table, in the order of state.Causes.
func Rules() []Rule {
	rules := make([]Rule, 0, len(ruleTable))
	for _, cause := range state.Causes() {
		if r, ok := ruleTable[cause]; ok {
			r.Cause = cause
			rules = append(rules, r)
		}
	}
	return rules
}

// RuleOf returns the rule of a cause. An unknown cause, as an older release may
// read in a record of a newer one, gets a rule that redials with backoff and
// keeps the credentials.
func RuleOf(cause state.Cause) Rule {
	r, ok := ruleTable[cause]
	if !ok {
		r = Rule{Title: "Unknown cause", Signal: "a cause that this release does not know",
			Action: Redial, Credentials: Kept, State: state.Reconnecting, Wait: WaitBackoff, Cooldown: CooldownNone,
			Charged: true, Event: state.EventState,
			Advice: "Nothing: it reconnects by itself. If it lasts, compare the releases of the workers."}
	}
	r.Cause = cause
	return r
}

// Fatal says that a session with this cause is dead until somebody acts.
func Fatal(cause state.Cause) bool { return ruleTable[cause].Fatal }

// ServerSide says that the cause lies with WhatsApp or the way to it, so that
// many sessions having it at once are one outage.
func ServerSide(cause state.Cause) bool { return ruleTable[cause].ServerSide }

// Waits of single causes. The contract sets them; they are no settings.
const (
	rejectedWait      = 15 * time.Minute
	poisonedWait      = time.Hour
	rateLimitFirst    = 60 * time.Second
	rateLimitLongest  = 15 * time.Minute
	banWithoutExpire  = 24 * time.Hour
	restartsQuick     = 10               // redials in a row after which a restart waits as long as the backoff
	lockWithoutExpire = 24 * time.Hour   // reachout_restricted without an end
	lastingConnection = 60 * time.Second // a connection that lasted so long has proved itself
)

var ruleTable = map[state.Cause]Rule{
	state.CauseLoggedOut: {Code: 401, Title: "Logged out",
		Signal: "LoggedOut with 401; stream:error 401 with conflict device_removed",
		Action: Retire, Credentials: Quarantined, State: state.Conflict, Wait: WaitNone, Cooldown: CooldownLoggedOut,
		Fatal: true, Event: state.EventState,
		Advice: "Somebody removed this device on the phone, or WhatsApp did. After the cooldown, pair again with `repair` and scan the QR; if it was a mistake of ours or of the server, `restore` brings the credentials back."},
	state.CauseAccountLocked: {Code: 403, Title: "Account locked",
		Signal: "LoggedOut with 403 (LOCKED)",
		Action: Retire, Credentials: Quarantined, State: state.Banned, Wait: WaitNone, Cooldown: CooldownLoggedOut,
		Fatal: true, Event: state.EventState,
		Advice: "WhatsApp has locked the account or logged the phone out. Open WhatsApp on the phone and follow what it says; then pair again with `repair`."},
	state.CauseAccountBanned: {Code: 406, Title: "Account banned",
		Signal: "LoggedOut with 406 (BANNED)",
		Action: Retire, Credentials: Quarantined, State: state.Banned, Wait: WaitNone, Cooldown: CooldownLoggedOut,
		Fatal: true, Event: state.EventState,
		Advice: "WhatsApp has banned the account. Ask for a review in WhatsApp on the phone; pairing again makes sense only once it works there."},
	state.CauseTemporaryBan: {Code: 402, Title: "Temporary ban",
		Signal: "TemporaryBan",
		Action: Park, Credentials: Kept, State: state.Banned, Wait: WaitExpire, Cooldown: CooldownWait,
		Fatal: true, Event: state.EventState,
		Advice: "Wait: the session connects by itself when the ban ends. Send fewer messages to people who do not know this number."},
	state.CauseReplaced: {Code: 440, Title: "Replaced by another connection",
		Signal: "StreamReplaced; stream:error with conflict replaced",
		Action: Park, Credentials: Kept, State: state.Conflict, Wait: WaitNone, Cooldown: CooldownNone,
		Fatal: true, Event: state.EventState,
		Advice: "Another program connected with the same credentials. Stop that one, then `start` this session: it resumes without a QR. It never reconnects by itself, or the two would throw each other out for ever."},
	state.CauseClientOutdated: {Code: 405, Title: "Client version outdated",
		Signal: "ClientOutdated of a paired session",
		Action: Redial, Credentials: Kept, State: state.Reconnecting, Wait: WaitBackoff, Cooldown: CooldownNone,
		Limit: Limit405, Charged: true, ServerSide: true, Overridable: true, Event: state.EventState,
		Advice: "Nothing at first: the newest WhatsApp version is fetched and the session redials. If it lasts, update Holdfast."},
	state.CausePairingFailed: {Code: 405, Title: "Pairing failed",
		Signal: "PairError, or any failure before the pairing has ended",
		Action: Retire, Credentials: Discarded, State: state.Unpaired, Wait: WaitNone, Cooldown: CooldownNone,
		Event:  state.EventState,
		Advice: "`start` the session again: it shows a fresh QR at once. If it fails before a QR is shown, check the network, the proxy and the firewall with `holdfast doctor`."},
	state.CauseConnectionLost: {Code: 428, Title: "Connection lost",
		Signal: "Disconnected after the end of the stream, a close frame or xmlstreamend; the socket not open at two ticks of the monitor",
		Action: Redial, Credentials: Kept, State: state.Reconnecting, Wait: WaitBackoff, Cooldown: CooldownNone,
		Charged: true, Overridable: true, Event: state.EventState,
		Advice: "Nothing: it reconnects by itself."},
	state.CauseRestartRequired: {Code: 515, Title: "Restart required",
		Signal: "ManualLoginReconnect; stream:error 515",
		Action: Redial, Credentials: Kept, State: state.Restarting, Wait: WaitRestart, Cooldown: CooldownNone,
		Charged: true, Overridable: true, Event: state.EventState,
		Advice: "Nothing: the server asks for this after a pairing, and no new QR is needed."},
	state.CauseServerError: {Code: 500, Title: "Server error",
		Signal: "failure or stream:error 500; stream:error of an unknown code; the certificate or the answer of the server cannot be used",
		Action: Redial, Credentials: Kept, State: state.Reconnecting, Wait: WaitBackoff, Cooldown: CooldownNone,
		Limit: Limit500, Charged: true, ServerSide: true, Overridable: true, Event: state.EventState,
		Advice: "Nothing: it reconnects by itself. If the text names a certificate, check this machine's clock."},
	state.CauseUnavailable: {Code: 503, Title: "Service unavailable",
		Signal: "failure or stream:error 503; the websocket upgrade refused with HTTP 502, 503 or 504",
		Action: Redial, Credentials: Kept, State: state.Reconnecting, Wait: WaitBackoff, Cooldown: CooldownNone,
		Charged: true, ServerSide: true, Overridable: true, Event: state.EventState,
		Advice: "Nothing: WhatsApp restarts or is overloaded, and the session reconnects by itself."},
	state.CauseTimedOut: {Code: 408, Title: "Timed out",
		Signal: "no pong up to the monitor's limit; no answer in the handshake; connect timeout",
		Action: Redial, Credentials: Kept, State: state.Reconnecting, Wait: WaitBackoff, Cooldown: CooldownNone,
		Limit: Limit408, Charged: true, Overridable: true, Event: state.EventState,
		Advice: "Nothing: it reconnects by itself. If it comes back often, the network drops idle connections: try profile guide, or a smaller keepalive-interval."},
	state.CauseNetwork: {Title: "Network trouble",
		Signal: "the connection's own last error: dial, DNS, proxy, TLS, reset, timeout (ECONNRESET, ETIMEDOUT, ENOTFOUND)",
		Action: Redial, Credentials: Kept, State: state.Reconnecting, Wait: WaitNetwork, Cooldown: CooldownNone,
		Charged: true, ServerSide: true, Overridable: true, Event: state.EventState,
		Advice: "It reconnects by itself when the network is back. If it lasts, check DNS, firewall and proxy with `holdfast doctor`."},
	state.CauseMultideviceMismatch: {Code: 411, Title: "Phone without multi-device",
		Signal: "QRScannedWithoutMultidevice",
		Action: Stay, Credentials: NoFate, State: state.Pairing, Wait: WaitNone, Cooldown: CooldownNone,
		Event:  state.EventState,
		Advice: "Update WhatsApp on the phone, open Linked devices and turn multi-device on; then scan the same QR again, which is still valid."},
	state.CauseQRExpired: {Title: "QR expired",
		Signal: "the time for showing QR codes is over",
		Action: Park, Credentials: NoFate, State: state.Unpaired, Wait: WaitNone, Cooldown: CooldownNone,
		Event:  state.EventState,
		Advice: "`start` the session again when somebody can scan the QR."},
	state.CausePasskeyRequired: {Title: "Passkey required",
		Signal: "PairPasskeyRequest",
		Action: Stay, Credentials: NoFate, State: state.Pairing, Wait: WaitNone, Cooldown: CooldownNone,
		Event:  state.EventState,
		Advice: "This account confirms new devices with a passkey, which a server cannot do alone. Turn the passkey off on the phone for the pairing, or confirm there if it asks."},
	state.CauseBadMAC: {Title: "Messages cannot be decrypted",
		Signal: "UndecryptableMessage, many in 10 min from several peers; one alone is healed by the library's retry receipt",
		Action: Retire, Credentials: Quarantined, State: state.Failing, Wait: WaitNone, Cooldown: CooldownLoggedOut,
		Fatal: true, Event: state.EventState,
		Advice: "The encryption state is gone, as after an old copy of the data was put back. After the cooldown, pair again with `repair`."},
	state.CauseStaleCredentials: {Title: "Credentials cannot be used",
		Signal: "the credential object is missing, corrupt, sealed with another key, or older than the session's record says",
		Action: Park, Credentials: Kept, State: state.Failing, Wait: WaitNone, Cooldown: CooldownNone,
		Fatal: true, Event: state.EventState,
		Advice: "Look with `sessions verify`. Bring the right vault or master key back and `start`, or give the device up with `repair`."},
	state.CauseDisconnected: {Title: "Disconnected by command",
		Signal: "the disconnect command",
		Action: Retire, Credentials: Destroyed, State: state.Disconnected, Wait: WaitNone, Cooldown: CooldownNone,
		Event:  state.EventState,
		Advice: "Nothing. `start` pairs the session again, at once."},
	state.CauseStopped: {Title: "Stopped by command",
		Signal: "the stop command",
		Action: Park, Credentials: Kept, State: state.Stopped, Wait: WaitNone, Cooldown: CooldownNone,
		Event:  state.EventState,
		Advice: "Nothing. `start` resumes without a QR."},
	state.CauseRateLimited: {Code: 429, Title: "Rate limited",
		Signal: "failure 429; the websocket upgrade refused with HTTP 429",
		Action: Redial, Credentials: Kept, State: state.Reconnecting, Wait: WaitRateLimit, Cooldown: CooldownWait,
		Charged: true, Event: state.EventState,
		Advice: "Wait: it connects by itself. Do not restart it meanwhile; that makes the wait longer."},
	state.CauseRejected: {Title: "Connection rejected",
		Signal: "failure 400, 409, 413, 414, 415, 418, 501 or of an unknown code",
		Action: Park, Credentials: Kept, State: state.Failed, Wait: WaitFixed, Fixed: rejectedWait, Cooldown: CooldownWait,
		Overridable: true, Event: state.EventState,
		Advice: "WhatsApp refuses this login and does not say for how long. It is tried once more after 15 min; if it is refused again, update Holdfast and look at the code and the text."},
	state.CauseInboundStalled: {Title: "Nothing arrives",
		Signal: "pings are answered, but no stanza came for longer than this session's bound, or a handler has blocked the queue for over 60 s",
		Action: Redial, Credentials: Kept, State: state.Reconnecting, Wait: WaitBackoff, Cooldown: CooldownNone,
		Charged: true, Overridable: true, Event: state.EventState,
		Advice: "Nothing: it reconnects once, under control. If the session is simply quiet, raise inbound-stall."},
	state.CausePoisoned: {Title: "Kills its process",
		Signal: "the process died three times while it held this session",
		Action: Park, Credentials: Kept, State: state.Failing, Wait: WaitFixed, Fixed: poisonedWait, Cooldown: CooldownWait,
		Fatal: true, Overridable: true, Event: state.EventState,
		Advice: "A stanza may be crashing the library. Look at the last panic in the log, update Holdfast, then `start`; it is tried again after an hour in any case."},
	state.CauseReachoutRestricted: {Code: 463, Title: "New chats restricted",
		Signal: "NotifyAccountReachoutTimelock",
		Action: Stay, Credentials: Kept, State: state.Online, Wait: WaitNone, Cooldown: CooldownNone,
		Event:  state.EventState,
		Advice: "The connection is healthy. Messages to people who never wrote to this number fail until the restriction ends; write to known chats only."},
	state.CauseLeaseLost: {Title: "Another worker owns the session",
		Signal: "this worker's lease has run out or the session has another owner",
		Action: Park, Credentials: Kept, State: state.Unowned, Wait: WaitNone, Cooldown: CooldownNone,
		Event:  "", // it may not say anything any more
		Advice: "Nothing: the new owner goes on."},
	state.CauseStoreUnavailable: {Title: "State store unavailable",
		Signal: "a write of state failed, so nothing may be acknowledged any more",
		Action: Redial, Credentials: Kept, State: state.Reconnecting, Wait: WaitStore, Cooldown: CooldownNone,
		Overridable: true, Event: state.EventState,
		Advice: "Bring the store back: disk space, permissions, the database service. The session reconnects by itself, and WhatsApp keeps what it has not acknowledged."},
	state.CauseMoved: {Title: "Moved to another store",
		Signal: "an export took the session to another store",
		Action: Park, Credentials: Kept, State: state.Stopped, Wait: WaitNone, Cooldown: CooldownNone,
		Event:  state.EventState,
		Advice: "It lives where its file was imported; `import` brings it back from there. If that file was lost before it was imported anywhere, `holdfast export --take-back`. `repair` gives the moved device up here and pairs another one."},
}

// FatalCauses lists the causes that make a session dead, in order.
func FatalCauses() []state.Cause {
	return slices.DeleteFunc(state.Causes(), func(c state.Cause) bool { return !Fatal(c) })
}
