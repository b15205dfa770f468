package policy

import "time"

// DecryptSpan is the time over which undecryptable messages are counted.
const DecryptSpan = 10 * time.Minute

// What a window holds at most: 8 KiB of times, and so many peers.
const (
	decryptKept      = 1000
	decryptPeersKept = 64
)

// DecryptWindow counts the messages of one session that could not be decrypted,
// in the last 10 min. One alone is healed by a retry receipt; many from several
// peers mean that the ratchets are gone. Messages that the sender made
// unavailable on purpose do not belong here. It is not safe for concurrent use.
type DecryptWindow struct {
	limit, peers int
	times        []time.Time // ascending, the last decryptKept
	seen         map[string]time.Time
}

// NewDecryptWindow takes its thresholds from the settings.
func NewDecryptWindow(s Settings) *DecryptWindow {
	return &DecryptWindow{limit: s.DecryptLimit, peers: s.DecryptPeers}
}

// Add counts a message of a peer, which is any string that names it, and says
// whether this makes a storm (SignalDecryptStorm).
func (w *DecryptWindow) Add(peer string, now time.Time) (storm bool) {
	w.prune(now)
	if len(w.times) == decryptKept {
		w.times = append(w.times[:0], w.times[1:]...)
	}
	w.times = append(w.times, now)
	if w.seen == nil {
		w.seen = make(map[string]time.Time)
	}
	if _, known := w.seen[peer]; !known && len(w.seen) == decryptPeersKept {
		w.forgetOldest()
	}
	w.seen[peer] = now
	return len(w.times) >= w.limit && len(w.seen) >= w.peers
}

// Count is the number of messages in the last 10 min, at most 1000.
func (w *DecryptWindow) Count(now time.Time) int {
	w.prune(now)
	return len(w.times)
}

// Reset forgets everything, as after a new pairing. There may be no window.
func (w *DecryptWindow) Reset() {
	if w != nil {
		w.times, w.seen = nil, nil
	}
}

func (w *DecryptWindow) prune(now time.Time) {
	from := now.Add(-DecryptSpan)
	old := 0
	for old < len(w.times) && !w.times[old].After(from) {
		old++
	}
	if old == len(w.times) {
		w.Reset() // give the memory back: this is how nearly all sessions are
		return
	}
	w.times = append(w.times[:0], w.times[old:]...)
	for peer, at := range w.seen {
		if !at.After(from) {
			delete(w.seen, peer)
		}
	}
}

func (w *DecryptWindow) forgetOldest() {
	var oldest string
	var when time.Time
	for peer, at := range w.seen {
		if when.IsZero() || at.Before(when) {
			oldest, when = peer, at
		}
	}
	delete(w.seen, oldest)
}
