package state

import "time"

// DeathKept is how long it is remembered how a worker ended: its sessions are
// taken over within seconds, or when somebody has room for them.
const DeathKept = 24 * time.Hour

// Death is the fleet's record under DeathKey: how a worker ended, as told by the
// next process on its host or by the platform. Who takes its sessions over knows
// by it which of them to blame. Where there is none, nobody can tell.
type Death struct {
	V        int    `json:"v"`
	Panicked bool   `json:"panicked"`
	Session  string `json:"session,omitempty"` // whose goroutine panicked; empty: of none, or not known
}

// DeathKey is the key of an incarnation's Death in the fleet's partition.
func DeathKey(incarnation string) Key {
	return Key{Kind: KindFleet, ID: "DEATH#" + incarnation}
}
