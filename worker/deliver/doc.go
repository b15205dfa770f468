// Package deliver takes events out of the sessions' stored queues to their
// sinks: standard output as NDJSON, and webhooks.
//
//	journal ──commit──▶ EV#seq records ──▶ lane "ndjson"  ──▶ NDJSON
//	   │                      ▲      └───▶ lane "webhook" ──▶ Webhook
//	   └──Committed(events)──▶ tail (in memory, bounded)
//
// The queue is the record of events in the store; what is in memory is only a
// short tail of it, so that a receiver which keeps up costs no reads. Each
// session has one lane per sink. A lane delivers in order of sequence number,
// one batch at a time, and moves its cursor behind what the sink took: at
// least once, in order per session, ids for deduplication. Lanes do not wait
// for each other.
//
// There is one Dispatcher a process. A lane without work costs no goroutine and
// no event in memory; one with work gets a goroutine for a turn, then goes to
// the back of the line. Lanes whose receiver failed last time have at most half
// of the places, so that the hanging receivers of some sessions leave room for
// the others.
//
// A receiver that fails is tried again after a growing pause for as long as
// the queue keeps its events. One that refuses an event for good (see Refused)
// has it put aside as a dead letter, and gets the next one.
package deliver
