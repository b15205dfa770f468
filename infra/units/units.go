// Package units holds what Holdfast asks of AWS, as it was counted: requests and
// capacity units of DynamoDB by whole workers over DynamoDB Local, as the SDK tells
// what each request consumed, and what they ask of the master key and the vault.
// cmd/bench counts anew and compares; cmd/cost computes a bill of it.
package units

import (
	"fmt"
	"math"
)

// Use is what some requests cost together.
type Use struct {
	Requests float64 // to DynamoDB
	Read     float64 // units: 4 KiB read consistently is 1, else a half
	Write    float64 // units: 1 KiB written is 1, within a transaction 2
	Keys     float64 // requests to the master key: KMS
	Fetched  float64 // objects read from the vault: S3 GET
	Stored   float64 // objects written to it or listed: S3 PUT, LIST
}

// Plus adds.
func (u Use) Plus(o Use) Use {
	return Use{u.Requests + o.Requests, u.Read + o.Read, u.Write + o.Write, u.Keys + o.Keys, u.Fetched + o.Fetched, u.Stored + o.Stored}
}

// Minus subtracts.
func (u Use) Minus(o Use) Use { return u.Plus(o.Times(-1)) }

// Times multiplies.
func (u Use) Times(n float64) Use {
	return Use{u.Requests * n, u.Read * n, u.Write * n, u.Keys * n, u.Fetched * n, u.Stored * n}
}

// any says whether there is anything.
func (u Use) any() bool { return u != Use{} }

// Counts are the costs of what happens.
type Counts struct {
	// A message that a session receives, with its delivery to a webhook, and one
	// that it sends, from the call of the API to the contact's delivery receipt:
	// one of many, and one after which nothing follows for a minute, so that what
	// may wait for another commit is written by itself.
	Received, ReceivedAlone, Sent, SentAlone Use
	// An hour of a connected session without messages.
	SessionHour Use
	// An hour of a worker that is alone and has no session; what each other one
	// adds that it watches, and what each one adds that is remembered.
	WorkerHour, WatchedHour, MemberHour Use
	// The start of a worker, until it has looked around.
	WorkerStart Use
	// A session's first login after its pairing, with the prekeys that it uploads.
	FirstLogin Use
	// A session that is released to nobody, and taken up by a worker that starts.
	Release, Resume Use
	// A session that is handed over to another worker, and one that is taken over
	// from a dead one; both with the login.
	HandOver, Takeover Use
}

// Named is one of the costs and what it is called.
type Named struct {
	Name string
	Use
	// Waits: some of its requests ask whether others are ready, or come by the
	// clock, so that they are the more the longer that takes; and what is written
	// meanwhile is written together.
	Waits bool
}

// List names all.
func (c Counts) List() []Named {
	return []Named{
		{Name: "message received", Use: c.Received},
		{Name: "message received, none follows", Use: c.ReceivedAlone},
		{Name: "message sent", Use: c.Sent},
		{Name: "message sent, none follows", Use: c.SentAlone},
		{Name: "idle session, an hour", Use: c.SessionHour},
		{Name: "worker alone, an hour", Use: c.WorkerHour},
		{Name: "each worker it watches, an hour", Use: c.WatchedHour},
		{Name: "each member of the roster, an hour", Use: c.MemberHour},
		{Name: "start of a worker", Use: c.WorkerStart, Waits: true},
		{Name: "first login after a pairing", Use: c.FirstLogin},
		{Name: "release", Use: c.Release},
		{Name: "resume", Use: c.Resume},
		{Name: "hand-over", Use: c.HandOver, Waits: true},
		{Name: "takeover", Use: c.Takeover, Waits: true},
	}
}

// tolerance is how far a count may be off, waiting how far requests and reads of
// what waits for others, merging its writes, and slack how many requests or units beyond that: those
// that a moment's order of things decides.
const tolerance, waiting, merging, slack = 0.10, 0.35, 0.20, 0.5

// Drift compares what was counted now with what is noted, and names what is off.
// What was not counted now is left out.
func Drift(now, noted Counts) []string {
	var off []string
	was := noted.List()
	for i, n := range now.List() {
		if !n.any() {
			continue
		}
		reads, writes := tolerance, tolerance
		if n.Waits {
			reads, writes = waiting, merging
		}
		for _, v := range []struct {
			what           string
			now, then, off float64
		}{
			{"requests", n.Requests, was[i].Requests, reads},
			{"read units", n.Read, was[i].Read, reads},
			{"write units", n.Write, was[i].Write, writes},
			{"requests to the master key", n.Keys, was[i].Keys, 0},
			{"objects read", n.Fetched, was[i].Fetched, 0},
			{"objects written", n.Stored, was[i].Stored, 0},
		} {
			if math.Abs(v.now-v.then) > v.off*v.then+slack {
				off = append(off, fmt.Sprintf("%s: %.2f %s, noted are %.2f", n.Name, v.now, v.what, v.then))
			}
		}
	}
	return off
}
