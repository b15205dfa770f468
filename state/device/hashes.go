package device

import (
	"context"
	"encoding/binary"
	"sync"
)

// hashSet tells quickly that a ciphertext has not been seen, which is nearly
// always so: it holds 32 bits of each known hash, five to eleven bytes an entry
// for 14 days of messages. A false alarm (one in 40,000 at 100,000 entries) costs
// one read. It is loaded at its first use.
type hashSet struct {
	mu      sync.Mutex
	loaded  bool
	loading chan struct{} // closed when the load under way has ended
	table   []uint32      // open addressing; 0 is free
	n       int
	added   []uint32 // since the load under way began
}

func fingerprint(hash [32]byte) uint32 {
	return max(1, binary.LittleEndian.Uint32(hash[:4]))
}

// has says whether the hash may be known, loading the set if it has to.
func (s *hashSet) has(ctx context.Context, hash [32]byte, load func(context.Context) ([]uint32, error)) (bool, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.loaded {
		if err := s.reload(ctx, load); err != nil {
			return false, err
		}
	}
	return s.contains(fingerprint(hash)), nil
}

// refresh forgets hashes that have expired. The old set serves until the new one
// is read.
func (s *hashSet) refresh(ctx context.Context, load func(context.Context) ([]uint32, error)) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.loaded {
		return nil
	}
	return s.reload(ctx, load)
}

// reload is called with mu held, and gives it up while it reads.
func (s *hashSet) reload(ctx context.Context, load func(context.Context) ([]uint32, error)) error {
	for s.loading != nil {
		ended := s.loading
		s.mu.Unlock()
		<-ended
		s.mu.Lock()
		if s.loaded {
			return nil
		}
	}
	ended := make(chan struct{})
	s.loading, s.added = ended, nil
	s.mu.Unlock()
	known, err := load(ctx)
	s.mu.Lock()
	s.loading = nil
	close(ended)
	if err != nil {
		return err
	}
	s.table, s.n = nil, 0
	for _, f := range known {
		s.insert(f)
	}
	for _, f := range s.added {
		s.insert(f)
	}
	s.added, s.loaded = nil, true
	return nil
}

// add makes a hash known.
func (s *hashSet) add(hash [32]byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.loading != nil {
		s.added = append(s.added, fingerprint(hash))
	}
	if s.loaded {
		s.insert(fingerprint(hash))
	}
}

func (s *hashSet) contains(f uint32) bool {
	for i := s.slot(f); len(s.table) > 0 && s.table[i] != 0; i = (i + 1) % len(s.table) {
		if s.table[i] == f {
			return true
		}
	}
	return false
}

func (s *hashSet) insert(f uint32) {
	if s.contains(f) {
		return
	}
	if 4*(s.n+1) > 3*len(s.table) {
		old := s.table
		s.table, s.n = make([]uint32, max(32, 2*len(old))), 0
		for _, g := range old {
			if g != 0 {
				s.place(g)
			}
		}
	}
	s.place(f)
}

func (s *hashSet) place(f uint32) {
	i := s.slot(f)
	for s.table[i] != 0 {
		i = (i + 1) % len(s.table)
	}
	s.table[i] = f
	s.n++
}

func (s *hashSet) slot(f uint32) int {
	if len(s.table) == 0 {
		return 0
	}
	return int(f*2654435769>>7) % len(s.table)
}

func (s *hashSet) clear() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.table, s.n, s.loaded, s.added = nil, 0, false, nil
}
