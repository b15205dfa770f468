// Package fleet is what can be said and done about the workers from outside of
// them: by the admin API, which may be a process of its own or a Lambda.
//
// A View tells who is alive. Three things are certain from one read of the
// store: an incarnation that is declared dead, one that is not remembered, and a
// session that nobody owns. That a heartbeat stands still is certain only for an
// observer who has watched it for the takeover time on its own clock; before
// that, the time that came with the beat is compared with the clock here, and
// what follows from it is shown and never acted on.
//
// Offline carries out what must not wait for a worker. An operator who
// disconnects a session wants its credentials gone, also where no worker is left
// to do it:
//
//	open disconnect ─ a worker is alive ──────────────► left to it
//	               └─ none, and nobody or a dead one owns the session
//	                  join as a tool ─ Claim ─ one fenced commit: keyset, pointer,
//	                  status, command ─ objects ─ Release ─ the tool is forgotten
//
// Whatever the point at which this process dies: the tool does not beat, so the
// next worker declares it dead, claims the session and finds either the wish as
// it was, or the wish carried out.
package fleet
