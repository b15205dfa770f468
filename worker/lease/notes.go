package lease

import (
	"context"
	"errors"
	"maps"
	"slices"
	"strings"

	"github.com/holdfast-wa/holdfast/state"
)

// Notes are how a giver and a target get ready for a hand-over. They say what
// is intended and never who owns a session: one that is lost, late or made up
// costs time and nothing else.

// offerNote is what a giver has for one target (record HAND#target#giver).
type offerNote struct {
	V        int               `json:"v"`
	Sessions map[string]string `json:"sessions"` // each is offered or closing
}

const (
	noteOffered = "offered"
	noteClosing = "closing"
)

// replyNote is a target's answer (record READY#giver#target).
type replyNote struct {
	V       int      `json:"v"`
	Ready   []string `json:"ready,omitempty"`
	Refused []string `json:"refused,omitempty"`
}

func (a replyNote) equal(b replyNote) bool {
	return slices.Equal(a.Ready, b.Ready) && slices.Equal(a.Refused, b.Refused)
}

func offerKey(target, giver string) string { return "HAND#" + target + "#" + giver }
func replyKey(giver, target string) string { return "READY#" + giver + "#" + target }

// writeNote stores a note, which vanishes by itself when nobody is left to
// remove it.
func (k *Keeper) writeNote(ctx context.Context, id string, doc any) error {
	value, err := state.Encode(doc)
	if err != nil {
		return err
	}
	w := state.Put(state.KindFleet, id, value)
	w.Expires = k.clock.Now().Add(k.pace.noteLife)
	return k.bounded(ctx, func(ctx context.Context) error { return k.cfg.Store.Update(ctx, state.Fleet, []state.Write{w}) })
}

func (k *Keeper) removeNote(ctx context.Context, id string) error {
	return k.bounded(ctx, func(ctx context.Context) error {
		return k.cfg.Store.Update(ctx, state.Fleet, []state.Write{state.Del(state.KindFleet, id)})
	})
}

// readNotes reads the notes whose ids begin with a prefix and returns them by
// what follows it. What cannot be read is left out: its writer is of another
// release.
func readNotes[T any](ctx context.Context, k *Keeper, prefix string) (map[string]T, error) {
	notes := make(map[string]T)
	after := ""
	for {
		var page state.Page
		err := k.bounded(ctx, func(ctx context.Context) (err error) {
			page, err = k.cfg.Store.Query(ctx, state.Fleet, state.Query{Kind: state.KindFleet, Prefix: prefix, After: after})
			return err
		})
		if err != nil {
			return nil, err
		}
		for _, r := range page.Records {
			after = r.Key.ID
			var note T
			if err := state.Decode(r.Value, &note); err != nil {
				if !errors.Is(err, state.ErrCorrupt) {
					return nil, err
				}
				continue
			}
			notes[strings.TrimPrefix(r.Key.ID, prefix)] = note
		}
		if !page.More || len(page.Records) == 0 {
			return notes, nil
		}
	}
}

func sortedKeys[V any](m map[string]V) []string { return slices.Sorted(maps.Keys(m)) }
