package policy

import "time"

// DeathsToPoison is how many deaths of a process while it held a session make
// that session poisoned.
const DeathsToPoison = 3

// UnexplainedToPoison is how many deaths that nobody can explain make a session
// poisoned. When a worker vanishes with its host, nothing tells a stanza that
// killed it from a power cut, and each of its hundreds of sessions was held: three
// such deaths must not park them all, and a stanza that kills one worker after the
// other must not go on for ever.
const UnexplainedToPoison = 10

// UnexplainedForgotten is how long a session must be online for those to be
// forgotten: a stanza that kills comes again with the next login, within seconds.
const UnexplainedForgotten = 30 * time.Second

// DeathsForgotten is how long a session must be online for its deaths to be
// forgotten.
const DeathsForgotten = 10 * time.Minute

// Deaths counts in a session's record (state.Status.DeathsHolding) how often a
// process took the session up and never came to a clean end. It is raised, and
// stored, before the first dial of each process, since a dead one cannot count:
//
//	take up:           Poisoned? park : store Begin, then dial
//	10 min online:     store 0
//	hand-over, stop,
//	orderly end:       store End
//	after the parking
//	or by a command:   store Pardon().Begin(), then dial
type Deaths int

// Poisoned says that this session has killed its process too often to be
// connected just so.
func (d Deaths) Poisoned() bool { return d >= DeathsToPoison }

// Begin is the count to store before a process connects the session for the
// first time. Redials of the same process do not count again.
func (d Deaths) Begin() Deaths { return max(d, 0) + 1 }

// End is the count to store when the process gives the session up in order.
func (d Deaths) End() Deaths { return max(d-1, 0) }

// Online is the count to store when the session has been online for so long.
func (d Deaths) Online(online time.Duration) Deaths {
	if online >= DeathsForgotten {
		return 0
	}
	return d
}

// Pardon is the count with which a poisoned session gets one more try: one more
// death parks it again.
func (d Deaths) Pardon() Deaths { return min(max(d, 0), DeathsToPoison-1) }

// Unexplained counts in a session's record the deaths of workers that held it and
// left no word of why.
type Unexplained int

// Poisoned says that this session has been held at too many of them.
func (u Unexplained) Poisoned() bool { return u >= UnexplainedToPoison }

// Online is the count to store when the session has been online for so long.
func (u Unexplained) Online(online time.Duration) Unexplained {
	if online >= UnexplainedForgotten {
		return 0
	}
	return u
}

// Pardon is the count with which a poisoned session gets one more try.
func (u Unexplained) Pardon() Unexplained { return min(max(u, 0), UnexplainedToPoison-1) }
