package main

import "time"

// plan is how much is measured, and how far a figure may be off.
type plan struct {
	sessions int           // of the memory figure
	settle   time.Duration // from the last login to the look at an idle process
	latency  []time.Duration
	many     int           // sessions that receive at once
	fleets   []int         // sessions of a process that is killed
	slow     bool          // also what takes long because a time is fixed: the wait after a rate limit, T
	crowd    int           // sessions of a worker that is killed while others go on
	fleet    int           // sessions of three workers that are replaced
	written  float64       // messages a second while they are
	beating  int           // sessions of a worker whose heartbeats are watched
	arriving float64       // messages a second meanwhile
	busy     time.Duration // and for how long
	count    countingSize

	ratio      float64       // most memory, of the library's
	goroutines float64       // most a session, over the library's 4
	rate       float64       // least messages a second of one session at 5 ms
	late       time.Duration // most between the logged delay and the one that was waited
	burst      time.Duration // most from the death of a worker to the last login
	hint       time.Duration // the same from its kill, if the others are told
	gap        time.Duration // most between the sockets of a session that is handed over, p99
}

// The bounds of the contract.
var fullPlan = plan{
	sessions: 1000, settle: 20 * time.Second,
	latency: []time.Duration{0, 5 * time.Millisecond, 20 * time.Millisecond},
	many:    100, fleets: []int{1, 200}, slow: true,
	ratio: 1.25, goroutines: 2, rate: 150, late: 100 * time.Millisecond,
	crowd: 200, fleet: 300, written: 60, beating: 1000, arriving: 50, busy: time.Minute,
	count: countingSize{sessions: 10, messages: 20, window: time.Minute},
	burst: 6 * time.Second, hint: 4 * time.Second, gap: 1500 * time.Millisecond,
}

// At 100 sessions what a process has once weighs ten times as much in the figure
// of each, and the machine of a smoke test has other things to do.
var shortPlan = plan{
	sessions: 100, settle: 4 * time.Second,
	latency: []time.Duration{5 * time.Millisecond},
	many:    20, fleets: []int{1, 20},
	ratio: 3, goroutines: 3, rate: 75, late: time.Second,
	crowd: 10, fleet: 30, written: 10, beating: 50, arriving: 25, busy: 8 * time.Second,
	burst: 12 * time.Second, hint: 8 * time.Second, gap: 4 * time.Second,
}

// batch is how many messages a session is sent for one figure: enough for some
// seconds at the rate that is to be expected, few enough not to wait for minutes.
func batch(s subject, sessions int, latency time.Duration) int {
	const atRest = time.Millisecond / 2 // what a message costs without any latency
	trips := 1
	if s != holdfast {
		trips = 14 // statements of sqlstore, one after the other
	}
	each := atRest + time.Duration(trips)*latency
	n := int(3 * time.Second / each)
	if sessions > 1 {
		n = min(n, 10_000/sessions)
	}
	return min(max(n, 10), 1500)
}
