package state

// State is what a session is in, as operators see it.
type State string

// The states. Unowned is never stored: it is what readers show when a session
// that ought to run has no live owner.
const (
	Unpaired     State = "unpaired"
	Pairing      State = "pairing"
	Connecting   State = "connecting"
	Online       State = "online"
	Reconnecting State = "reconnecting"
	Restarting   State = "restarting"
	Conflict     State = "conflict"
	Banned       State = "banned"
	Failing      State = "error"
	Failed       State = "failed"
	Stopped      State = "stopped"
	Disconnected State = "disconnected"
	Unowned      State = "unowned"
)

// States lists them all.
func States() []State {
	return []State{Unpaired, Pairing, Connecting, Online, Reconnecting, Restarting, Conflict, Banned,
		Failing, Failed, Stopped, Disconnected, Unowned}
}

// Cause is why a session is in its state. The set is closed and the names are
// stable: log, metric, API, event and console use the same ones. What each
// means and does is the table in worker/policy.
type Cause string

// The causes. CauseNone is that of a session which is as it should be.
const (
	CauseNone                Cause = ""
	CauseLoggedOut           Cause = "logged_out"
	CauseAccountLocked       Cause = "account_locked"
	CauseAccountBanned       Cause = "account_banned"
	CauseTemporaryBan        Cause = "temporary_ban"
	CauseReplaced            Cause = "replaced"
	CauseClientOutdated      Cause = "client_outdated"
	CausePairingFailed       Cause = "pairing_failed"
	CauseConnectionLost      Cause = "connection_lost"
	CauseRestartRequired     Cause = "restart_required"
	CauseServerError         Cause = "server_error"
	CauseUnavailable         Cause = "unavailable"
	CauseTimedOut            Cause = "timed_out"
	CauseNetwork             Cause = "network"
	CauseMultideviceMismatch Cause = "multidevice_mismatch"
	CauseQRExpired           Cause = "qr_expired"
	CausePasskeyRequired     Cause = "passkey_required"
	CauseBadMAC              Cause = "bad_mac"
	CauseStaleCredentials    Cause = "stale_credentials"
	CauseDisconnected        Cause = "disconnected"
	CauseStopped             Cause = "stopped"
	CauseRateLimited         Cause = "rate_limited"
	CauseRejected            Cause = "rejected"
	CauseInboundStalled      Cause = "inbound_stalled"
	CausePoisoned            Cause = "poisoned"
	CauseReachoutRestricted  Cause = "reachout_restricted"
	CauseLeaseLost           Cause = "lease_lost"
	CauseStoreUnavailable    Cause = "store_unavailable"
	CauseMoved               Cause = "moved"
)

// Causes lists them all but CauseNone.
func Causes() []Cause {
	return []Cause{CauseLoggedOut, CauseAccountLocked, CauseAccountBanned, CauseTemporaryBan, CauseReplaced,
		CauseClientOutdated, CausePairingFailed, CauseConnectionLost, CauseRestartRequired, CauseServerError,
		CauseUnavailable, CauseTimedOut, CauseNetwork, CauseMultideviceMismatch, CauseQRExpired,
		CausePasskeyRequired, CauseBadMAC, CauseStaleCredentials, CauseDisconnected, CauseStopped,
		CauseRateLimited, CauseRejected, CauseInboundStalled, CausePoisoned, CauseReachoutRestricted,
		CauseLeaseLost, CauseStoreUnavailable, CauseMoved}
}

// Wanted is what the operator wants a session to be.
type Wanted string

// The wanted states. Disconnected unlinks the device and destroys credentials.
const (
	WantRunning      Wanted = "running"
	WantStopped      Wanted = "stopped"
	WantDisconnected Wanted = "disconnected"
)

// Health is the judgement of a connection.
type Health string

// The three levels; see worker/policy for what makes each.
const (
	Healthy   Health = "healthy"
	Unhealthy Health = "unhealthy"
	Dead      Health = "dead"
)
