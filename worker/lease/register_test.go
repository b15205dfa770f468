package lease

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/anishathalye/porcupine"

	"github.com/holdfast-wa/holdfast/state"
)

// deed is what a client did to the ownership of one session.
type deed struct {
	kind    string // claim, hand over, release, commit, read
	session string
	to      string // whom it makes the owner
	from    state.Owner
}

// outcome is what the client learned of it.
type outcome struct {
	unknown bool
	fenced  bool
	owner   state.Owner // of a read
}

// register is the history of ownership as the clients saw it.
type register struct {
	mu   sync.Mutex
	tick int64
	ops  []porcupine.Operation
}

// note records what happened around a call. Errors that say nothing of the
// register, such as the death of a claimer, are not part of its history.
func (r *register) note(client int, deeds []deed, do func() ([]state.Owner, error)) ([]state.Owner, error) {
	r.mu.Lock()
	r.tick++
	called := r.tick
	r.mu.Unlock()
	got, err := do()
	out := outcome{}
	switch {
	case err == nil:
	case errors.Is(err, state.ErrFenced):
		out.fenced = true
	case errors.Is(err, state.ErrDead), errors.Is(err, state.ErrNotFound), errors.Is(err, state.ErrConflict):
		return got, err
	default:
		out.unknown = true
	}
	if out.fenced && len(deeds) > 1 {
		return got, err // which of them was refused is not told
	}
	if out.unknown && deeds[0].kind == "read" {
		return got, err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.tick++
	returned := r.tick
	if out.unknown {
		returned = 1 << 62 // it may happen at any time, or never
	}
	for i, d := range deeds {
		o := out
		if d.kind == "read" {
			o.owner = got[i]
		}
		r.ops = append(r.ops, porcupine.Operation{ClientId: client, Input: d, Call: called, Output: o, Return: returned})
	}
	return got, err
}

// model is what the register may do: an owner and an epoch, which a claim, a
// hand-over and a release raise if they name them exactly, and which a commit
// needs to be as it says.
var model = (&porcupine.NondeterministicModel{
	Partition: func(history []porcupine.Operation) [][]porcupine.Operation {
		parts := make(map[string][]porcupine.Operation)
		for _, op := range history {
			name := op.Input.(deed).session
			parts[name] = append(parts[name], op)
		}
		var all [][]porcupine.Operation
		for _, name := range sortedKeys(parts) {
			all = append(all, parts[name])
		}
		return all
	},
	Init: func() []any { return []any{state.Owner{Epoch: 1}} },
	Step: func(s, in, out any) []any {
		now, d, o := s.(state.Owner), in.(deed), out.(outcome)
		fits := now.Incarnation == d.from.Incarnation && now.Epoch == d.from.Epoch
		moved := state.Owner{Incarnation: d.to, Epoch: now.Epoch + 1}
		switch {
		case d.kind == "read":
			if o.owner.Incarnation != now.Incarnation || o.owner.Epoch != now.Epoch {
				return nil
			}
			return []any{now}
		case o.fenced && fits:
			return nil
		case o.fenced:
			return []any{now}
		case d.kind == "commit":
			if !o.unknown && !fits {
				return nil
			}
			return []any{now}
		case o.unknown && fits:
			return []any{now, moved}
		case o.unknown:
			return []any{now}
		case fits:
			return []any{moved}
		}
		return nil
	},
}).ToModel()

// check tells whether the history is that of one register a session.
func (r *register) check(within time.Duration) error {
	switch porcupine.CheckOperationsTimeout(model, r.ops, within) {
	case porcupine.Illegal:
		return errors.New("the owners that the clients saw are those of no single register")
	case porcupine.Unknown:
		return fmt.Errorf("%d operations could not be checked within %s", len(r.ops), within)
	}
	return nil
}

func (v *way) Claim(ctx context.Context, to string, from ...state.Owner) ([]state.Owner, error) {
	deeds := make([]deed, 0, len(from))
	for _, o := range from {
		deeds = append(deeds, deed{kind: "claim", session: o.Session, to: to, from: o})
	}
	return v.n.w.register.note(v.n.number(), deeds, func() ([]state.Owner, error) {
		return call(ctx, v, func(ctx context.Context) ([]state.Owner, error) { return v.Store.Claim(ctx, to, from...) })
	})
}

func (v *way) HandOver(ctx context.Context, f state.Fence, to string) (state.Owner, error) {
	got, err := v.n.w.register.note(v.n.number(), []deed{{kind: "hand over", session: f.Session, to: to, from: ownerOf(f)}}, func() ([]state.Owner, error) {
		o, err := call(ctx, v, func(ctx context.Context) (state.Owner, error) { return v.Store.HandOver(ctx, f, to) })
		return []state.Owner{o}, err
	})
	return got[0], err
}

func (v *way) Release(ctx context.Context, f state.Fence) error {
	_, err := v.n.w.register.note(v.n.number(), []deed{{kind: "release", session: f.Session, from: ownerOf(f)}}, func() ([]state.Owner, error) {
		return nil, tell(ctx, v, func(ctx context.Context) error { return v.Store.Release(ctx, f) })
	})
	return err
}

func (v *way) Commit(ctx context.Context, f state.Fence, token string, writes []state.Write) error {
	_, err := v.n.w.register.note(v.n.number(), []deed{{kind: "commit", session: f.Session, from: ownerOf(f)}}, func() ([]state.Owner, error) {
		return nil, tell(ctx, v, func(ctx context.Context) error { return v.Store.Commit(ctx, f, token, writes) })
	})
	return err
}

func (v *way) Owner(ctx context.Context, session string) (state.Owner, error) {
	got, err := v.n.w.register.note(v.n.number(), []deed{{kind: "read", session: session}}, func() ([]state.Owner, error) {
		o, err := call(ctx, v, func(ctx context.Context) (state.Owner, error) { return v.Store.Owner(ctx, session) })
		return []state.Owner{o}, err
	})
	return got[0], err
}

func ownerOf(f state.Fence) state.Owner {
	return state.Owner{Session: f.Session, Incarnation: f.Owner, Epoch: f.Epoch}
}

func (n *node) number() int {
	var i int
	_, _ = fmt.Sscanf(n.name, "n%d", &i)
	return i
}
