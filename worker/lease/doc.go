// Package lease decides who runs which session, and holds that right.
//
// Liveness is per worker, fencing is per session. A Keeper speaks for one worker
// incarnation: it joins the store, beats, watches the others, claims sessions,
// gives them away and takes what it is given. There is no leader.
//
//	            ┌────────── beat answered ──────────┐
//	            ▼                                   │
//	join ──► trusted ── F after the last beat ──► fenced ── declared dead ──► dead
//	            │        that was answered was      (no line, no claim)        │
//	            │        sent                                                  ▼
//	            └── drain ──► draining ── nothing left ──► empty        a new incarnation
//
// A session at one worker:
//
//	unowned ┐
//	dead's  ├─ prepare ─ Claim ──► held ── recall ──► closing ── Release / HandOver ──► gone
//	own     ┘                       │ ▲
//	offered ── prepare ─ given ─────┘ └── Renew (own epoch raised after an unknown outcome)
//	                                │
//	                                └── Lose (trust is over, fenced): cut, cancel ──► gone
//
// The rules, with h, F and T the heartbeat, trust and takeover times:
//
//   - Trust runs for F from the moment at which the last successful beat was
//     sent, by the clock that counts suspended time too. When it ends, all lines
//     are cut first, then the leases' contexts are cancelled, and nothing connects
//     until a beat has been answered again.
//   - Who has seen a counter stand still for T on its own clock declares that
//     incarnation dead, for good; only then are its sessions claimed. A declared
//     death is the only way in which a session leaves a worker against its will.
//     Who was not trusted itself, or could not look, begins to count anew: after an
//     outage of the store nobody declares everybody dead.
//   - A session is prepared before it is claimed: what cannot be loaded now is
//     not claimed now.
//   - One queue a worker does all that checks a LIFE item, up to 25 sessions a
//     transaction, singly after a condition failed.
//   - A worker claims below its capacity and its fair share, what is nearest to it
//     first; what stays unowned for longer is claimed by whoever has room.
//   - Only an owner gives away: all it has when it drains, else slowly and only
//     beyond a dead band. The receiver prepares first.
//   - Only incarnations of the deployment that joined last receive, unless none of
//     them has room.
//   - An incarnation that learns that it was declared dead ends all it has, and
//     goes on under a new id.
//
// A hand-over, of which the store's owner item alone decides:
//
//	giver                          notes in the store                target
//	offers                ──►  HAND#target#giver: offered   ──►  prepares, asks for a login
//	closing, then recalls ◄──  READY#giver#target: ready    ◄──  is ready
//	                      ──►  HAND#target#giver: closing   ──►  reads the owner every 50 ms
//	closes, commits, HandOver ──────── the owner item ───────►   is the owner: starts
//
// Whatever is lost on the way is found again: an owner's own sessions that do not
// run are listed every few seconds and taken up under a raised epoch.
//
// The tests live through thousands of schedules of faults in virtual time
// (TestSchedules; HOLDFAST_SCHEDULES says how many, HOLDFAST_SEED shows one), and
// must find what is wrong with the protocol when a rule is taken out of it
// (TestMutations). ownership.pml is a model of the same rules for Spin.
package lease
