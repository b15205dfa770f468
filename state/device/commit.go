package device

import (
	"bytes"
	"context"
	"errors"

	"github.com/holdfast-wa/holdfast/state"
	"github.com/holdfast-wa/holdfast/state/journal"
)

// apply commits changes and a batch, in one commit if they fit into one. If they
// do not, those that may go early go first, in commits of their own; the rest is
// one commit still if whole is set, and several otherwise, the batch with the
// last. The cache follows.
func (d *Device) apply(ctx context.Context, changes []change, b journal.Batch, whole bool) error {
	if err := d.check(); err != nil {
		return err
	}
	if len(changes) == 0 && b.Empty() {
		return nil
	}
	ctx = context.WithoutCancel(ctx)
	if len(changes) > 0 && !d.ring.Load().stored.Load() {
		if err := d.storeRing(ctx); err != nil {
			return d.fail(err)
		}
	}
	for attempt := 0; ; attempt++ {
		err := d.applyOnce(ctx, changes, b, whole)
		switch {
		case err == nil:
			return nil
		case !errors.Is(err, state.ErrConflict) || attempt == 3:
			return d.fail(err)
		}
		// Something that was to be written only if absent is there.
		if changes, err = d.withoutPresent(ctx, changes); err != nil {
			return err
		}
	}
}

func (d *Device) applyOnce(ctx context.Context, changes []change, b journal.Batch, whole bool) error {
	writes := make([]state.Write, len(changes))
	size, extra := 0, len(b.Writes)+len(b.Events)
	for i, c := range changes {
		w, err := d.sealed(ctx, c)
		if err != nil {
			return err
		}
		writes[i] = w
		size += weight(w)
	}
	for _, w := range b.Writes {
		size += weight(w)
	}
	if len(writes)+extra <= state.MaxItems && size <= state.MaxBytes*3/4 {
		b.Writes = append(append(make([]state.Write, 0, len(writes)+len(b.Writes)), writes...), b.Writes...)
		if err := d.cfg.Journal.Commit(ctx, b); err != nil {
			return err
		}
		d.remember(changes)
		return nil
	}
	var early, rest []int
	for i, c := range changes {
		if c.early || !whole {
			early = append(early, i)
		} else {
			rest = append(rest, i)
		}
	}
	if parts := chunks(writes, early); len(parts) > 1 {
		if err := d.withdrawVersions(ctx, changes, early); err != nil {
			return err
		}
	}
	for _, chunk := range chunks(writes, early) {
		part := journal.Batch{}
		for _, i := range chunk {
			part.Writes = append(part.Writes, writes[i])
		}
		if err := d.cfg.Journal.Commit(ctx, part); err != nil {
			return err
		}
		for _, i := range chunk {
			d.remember(changes[i : i+1])
		}
	}
	last := journal.Batch{Events: b.Events}
	for _, i := range rest {
		last.Writes = append(last.Writes, writes[i])
	}
	last.Writes = append(last.Writes, b.Writes...)
	if last.Empty() {
		return nil
	}
	if err := d.cfg.Journal.Commit(ctx, last); err != nil {
		return err
	}
	for _, i := range rest {
		d.remember(changes[i : i+1])
	}
	return nil
}

func weight(w state.Write) int { return len(w.Key.String()) + len(w.Value) }

// chunks divides writes into commits within the bounds. Of app state, whose
// version says that its MACs are complete, the version is taken away first and
// written last: a crash between leaves no version, on which the library syncs
// anew.
func chunks(writes []state.Write, which []int) [][]int {
	var first, middle, last []int
	for _, i := range which {
		switch w := writes[i]; {
		case w.Key.Kind != state.KindAppStateVer:
			middle = append(middle, i)
		case w.Delete:
			first = append(first, i)
		default:
			last = append(last, i)
		}
	}
	var out [][]int
	var now []int
	size := 0
	for _, i := range append(append(first, middle...), last...) {
		n := weight(writes[i])
		if len(now) == state.MaxItems || size+n > state.MaxBytes*3/4 {
			out, now, size = append(out, now), nil, 0
		}
		now = append(now, i)
		size += n
	}
	if len(now) > 0 {
		out = append(out, now)
	}
	return out
}

// withdrawVersions deletes the app state versions that are about to be written
// in several commits.
func (d *Device) withdrawVersions(ctx context.Context, changes []change, which []int) error {
	var gone []change
	part := journal.Batch{}
	for _, i := range which {
		if c := changes[i]; c.key.Kind == state.KindAppStateVer && !c.del {
			gone = append(gone, change{key: c.key, del: true})
			part.Writes = append(part.Writes, state.Del(c.key.Kind, c.key.ID))
		}
	}
	if part.Empty() {
		return nil
	}
	if err := d.cfg.Journal.Commit(ctx, part); err != nil {
		return err
	}
	d.remember(gone)
	return nil
}

// remember takes committed changes into the cache.
func (d *Device) remember(changes []change) {
	for _, c := range changes {
		switch c.key.Kind {
		case state.KindEventHash, state.KindOutgoing, state.KindSecret:
			d.cache.remove(c.key) // one a message, and read next to never
			continue
		}
		d.cache.put(c.key, bytes.Clone(c.value), !c.del)
	}
}

// withoutPresent leaves out what is to be written only if absent, and is there.
func (d *Device) withoutPresent(ctx context.Context, changes []change) ([]change, error) {
	var ask []state.Key
	for _, c := range changes {
		if c.absent {
			ask = append(ask, c.key)
		}
	}
	there, err := d.fetch(ctx, ask)
	if err != nil {
		return nil, err
	}
	kept := make([]change, 0, len(changes))
	for _, c := range changes {
		if _, ok := there[c.key]; !c.absent || !ok {
			kept = append(kept, c)
		}
	}
	return kept, nil
}

// lazily writes a survivable record with one of the next commits.
func (d *Device) lazily(ctx context.Context, c change) error {
	if err := d.check(); err != nil {
		return err
	}
	if r := d.ring.Load(); !r.stored.Load() {
		if err := d.storeRing(context.WithoutCancel(ctx)); err != nil {
			return d.fail(err)
		}
	}
	w, err := d.sealed(ctx, c)
	if err != nil {
		return d.fail(err)
	}
	d.cfg.Journal.Lazy(w)
	d.remember([]change{c})
	return nil
}
