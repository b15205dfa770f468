package main

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/holdfast-wa/holdfast/infra/units"
	"github.com/holdfast-wa/holdfast/state"
	"github.com/holdfast-wa/holdfast/state/dynamo"
	"github.com/holdfast-wa/holdfast/state/seal"
)

// ledger notes what each request cost, and when.
type ledger struct {
	mu      sync.Mutex
	entries []entry
}

type entry struct {
	at     time.Time
	method string
	units.Use
}

func (l *ledger) note(method string, u units.Use) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.entries = append(l.entries, entry{time.Now(), method, u})
}

// consumed is told of each request to DynamoDB.
func (l *ledger) consumed(c dynamo.Capacity) {
	l.note(c.Method, units.Use{Requests: 1, Read: c.Read, Write: c.Write})
}

// notedVault is a vault whose requests are noted.
type notedVault struct {
	state.Vault
	*ledger
}

// PutObject implements state.Vault.
func (v notedVault) PutObject(ctx context.Context, session, name string, body []byte) (string, error) {
	v.note("PutObject", units.Use{Stored: 1})
	return v.Vault.PutObject(ctx, session, name, body)
}

// GetObject implements state.Vault.
func (v notedVault) GetObject(ctx context.Context, session, name, versionID string) ([]byte, error) {
	v.note("GetObject", units.Use{Fetched: 1})
	return v.Vault.GetObject(ctx, session, name, versionID)
}

// ListObjects implements state.Vault.
func (v notedVault) ListObjects(ctx context.Context, session string) ([]string, error) {
	v.note("ListObjects", units.Use{Stored: 1})
	return v.Vault.ListObjects(ctx, session)
}

// notedMaster is a master key whose requests are noted.
type notedMaster struct {
	seal.Master
	*ledger
}

// Wrap implements seal.Master.
func (m notedMaster) Wrap(ctx context.Context, plain []byte, context map[string]string) ([]byte, error) {
	m.note("Wrap", units.Use{Keys: 1})
	return m.Master.Wrap(ctx, plain, context)
}

// Unwrap implements seal.Master.
func (m notedMaster) Unwrap(ctx context.Context, wrapped []byte, context map[string]string) ([]byte, error) {
	m.note("Unwrap", units.Use{Keys: 1})
	return m.Master.Unwrap(ctx, wrapped, context)
}

// take returns what was noted since it was last taken.
func (l *ledger) take() []entry {
	l.mu.Lock()
	defer l.mu.Unlock()
	out := l.entries
	l.entries = nil
	return out
}

// byMethod is what requests cost by the method of the store.
type byMethod map[string]units.Use

func sum(entries []entry) byMethod {
	out := byMethod{}
	for _, e := range entries {
		out[e.method] = out[e.method].Plus(e.Use)
	}
	return out
}

// hourly is what requests that come at their times cost in an hour. A window that
// begins and ends anywhere holds one more or one less of each kind than its
// length says, so that the times between them count where there are some.
func hourly(entries []entry, window time.Duration) byMethod {
	times := map[string][]time.Time{}
	for _, e := range entries {
		times[e.method] = append(times[e.method], e.at)
	}
	out := byMethod{}
	for method, use := range sum(entries) {
		at := times[method]
		perHour := float64(len(at)) * float64(time.Hour) / float64(window)
		if span := at[len(at)-1].Sub(at[0]); len(at) > 5 && span > window/2 {
			perHour = float64(len(at)-1) * float64(time.Hour) / float64(span)
		}
		out[method] = use.Times(perHour / float64(len(at)))
	}
	return out
}

// total adds all methods up.
func (m byMethod) total() units.Use {
	var all units.Use
	for _, u := range m {
		all = all.Plus(u)
	}
	return all
}

// minus subtracts, method by method, and leaves no method below nothing: what
// came a moment earlier or later is not saved.
func (m byMethod) minus(o byMethod) byMethod {
	out := byMethod{}
	for method, u := range m {
		if left := u.Minus(o[method]); left.Requests >= 0 {
			out[method] = left
		}
	}
	return out
}

func (m byMethod) times(n float64) byMethod {
	out := byMethod{}
	for method, u := range m {
		out[method] = u.Times(n)
	}
	return out
}

// String lists the methods, such as "2.0 Commit 10w": read and write units behind
// each.
func (m byMethod) String() string {
	var parts []string
	for _, method := range slices.Sorted(maps.Keys(m)) {
		u := m[method]
		n := u.Requests + u.Keys + u.Fetched + u.Stored
		if n < 0.05 {
			continue
		}
		text := fmt.Sprintf("%.1f %s", n, method)
		if u.Read >= 0.05 {
			text += fmt.Sprintf(" %.1fr", u.Read)
		}
		if u.Write >= 0.05 {
			text += fmt.Sprintf(" %.1fw", u.Write)
		}
		parts = append(parts, text)
	}
	return strings.Join(parts, ", ")
}
