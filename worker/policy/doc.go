// Package policy decides what happens to a connection: which cause a signal
// has, what a cause does, how long a wait is, when a connection is sick, when
// silence is a stall, when many failures are one outage. It is data and pure
// functions: no goroutine, no I/O, no clock of its own. The time is passed in,
// and so is the jitter.
//
//	library event, failed dial, monitor verdict, command
//	        │  Signal
//	        ▼
//	    Observe ──────► Event{Cause, Code …}          classify.go
//	        │
//	        ▼
//	    Decide(Snapshot, Event, now) ──► Decision     decide.go, rules.go
//	        │
//	        ▼
//	the session acts, and stores what the decision says
//
// Beside that line stand the judges that make signals or show them: Monitor
// (is the socket alive), Stall (does anything arrive), DecryptWindow (are the
// ratchets gone), Deaths (does this session kill its process), Breaker (is it
// us all), Judge (what to call it), and the tallies of availability.
//
// Everything that an operator can tune is a field of Settings, and every cause
// has exactly one Rule. Both tables are what the reference pages are made from.
package policy
