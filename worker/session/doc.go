// Package session is the actor: one goroutine that owns one session.
//
// Everything that happens to a session comes into its mailbox: what the client
// saw, commands, the answer of a ping. The goroutine takes one item at a time, so
// nothing of a session's state needs a lock. It is always in one phase:
//
//	             ┌────────────── command ──────────────┐
//	             ▼                                     │
//	begin ─► connecting ─► pairing ─► (515) ─┐         │
//	   │      │  ▲   ▲        │              │         │
//	   │      │  │   └────────┼── waiting ◄──┤ redial  │
//	   │      ▼  │            │      ▲       │         │
//	   │    online ───────────┼──────┘       │         │
//	   │      │               ▼              ▼         │
//	   └──────┴──────────► parked (until a deadline or a command)
//
//	any phase ─► leaving, when the lease's context ends
//	any phase ─► stranded, when the store does not answer: the line is cut,
//	             nothing is acknowledged; back to begin when it does
//
// What follows from a signal is policy.Decide's to say. The actor carries it
// out: it cuts the line, commits the new status with the events that tell of it,
// retires credentials, and waits. A deadline is stored before it is waited for, so
// that the next owner goes on with it.
//
// Callbacks of the library run elsewhere and only post. Each connection has a
// number; what an older connection still says is dropped.
package session
