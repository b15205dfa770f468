package sqlite

import (
	"bytes"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/holdfast-wa/holdfast/state"
)

const (
	pageSize  = 1000             // of listings where the caller sets no limit
	pageBytes = 8 << 20          // a page ends early when its values have so many
	tokenLife = 10 * time.Minute // the contract's
)

// pastIDs is greater than any record id.
var pastIDs = bytes.Repeat([]byte{0xff}, state.MaxKeyID+1)

// Get implements state.Records.
func (s *Store) Get(ctx context.Context, p state.Partition, key state.Key) (state.Record, error) {
	r := state.Record{Key: key}
	row := s.read.get.QueryRowContext(ctx, string(p), string(key.Kind), blob(key.ID), s.now().UnixNano())
	switch err := row.Scan(scanned(&r)...); {
	case errors.Is(err, sql.ErrNoRows):
		return state.Record{}, fmt.Errorf("%s of %s: %w", key, p, state.ErrNotFound)
	case err != nil:
		return state.Record{}, s.failure("read", err)
	}
	return r, nil
}

// GetMany implements state.Records. All records are read at one moment.
func (s *Store) GetMany(ctx context.Context, p state.Partition, keys []state.Key) ([]state.Record, error) {
	if len(keys) == 0 {
		return nil, nil
	}
	tx, err := s.readers.BeginTx(ctx, &sql.TxOptions{ReadOnly: true})
	if err != nil {
		return nil, s.failure("read", err)
	}
	defer tx.Rollback() // nothing was written
	get := tx.StmtContext(ctx, s.read.get)
	now := s.now().UnixNano()
	seen := make(map[state.Key]struct{}, len(keys))
	var out []state.Record
	for _, key := range keys {
		if _, twice := seen[key]; twice {
			continue
		}
		seen[key] = struct{}{}
		r := state.Record{Key: key}
		err := get.QueryRowContext(ctx, string(p), string(key.Kind), blob(key.ID), now).Scan(scanned(&r)...)
		if errors.Is(err, sql.ErrNoRows) {
			continue
		}
		if err != nil {
			return nil, s.failure("read", err)
		}
		out = append(out, r)
	}
	return out, nil
}

// Query implements state.Records.
func (s *Store) Query(ctx context.Context, p state.Partition, q state.Query) (state.Page, error) {
	from, to := span(q)
	limit := limited(q.Limit)
	st := s.read.ascending
	if q.Descending {
		st = s.read.descending
	}
	rows, err := st.QueryContext(ctx, string(p), string(q.Kind), from, to, s.now().UnixNano(), limit+1)
	if err != nil {
		return state.Page{}, s.failure("read", err)
	}
	defer rows.Close()
	var page state.Page
	size := 0
	for rows.Next() {
		if len(page.Records) == limit || size > pageBytes {
			page.More = true
			break
		}
		r := state.Record{Key: state.Key{Kind: q.Kind}}
		var id []byte
		if err := rows.Scan(append([]any{&id}, scanned(&r)...)...); err != nil {
			return state.Page{}, s.failure("read", err)
		}
		r.Key.ID = string(id)
		size += len(r.Value)
		page.Records = append(page.Records, r)
	}
	if err := rows.Err(); err != nil {
		return state.Page{}, s.failure("read", err)
	}
	return page, nil
}

// span is the range of ids that a query asks for: from, and below to.
func span(q state.Query) (from, to []byte) {
	from, to = blob(q.Prefix), pastIDs
	if next := successor(q.Prefix); next != nil {
		to = next
	}
	if q.After == "" {
		return from, to
	}
	if q.Descending {
		if after := blob(q.After); bytes.Compare(after, to) < 0 {
			to = after
		}
		return from, to
	}
	// The least id greater than After is After and a zero byte.
	if after := append(blob(q.After), 0); bytes.Compare(after, from) > 0 {
		from = after
	}
	return from, to
}

// successor is the least string greater than all that begin with the prefix;
// nil if there is none.
func successor(prefix string) []byte {
	b := bytes.TrimRight([]byte(prefix), "\xff")
	if len(b) == 0 {
		return nil
	}
	b[len(b)-1]++
	return b
}

// Indexed implements state.Records.
func (s *Store) Indexed(ctx context.Context, index string, after *state.Indexed, limit int) ([]state.Indexed, error) {
	if after == nil {
		after = &state.Indexed{}
	}
	rows, err := s.read.listed.QueryContext(ctx, index, string(after.Partition), string(after.Key.Kind), blob(after.Key.ID),
		s.now().UnixNano(), limited(limit))
	if err != nil {
		return nil, s.failure("read", err)
	}
	defer rows.Close()
	var out []state.Indexed
	for rows.Next() {
		var r state.Indexed
		var id []byte
		if err := rows.Scan(append([]any{&r.Partition, &r.Key.Kind, &id}, scanned(&r.Record)...)...); err != nil {
			return nil, s.failure("read", err)
		}
		r.Key.ID = string(id)
		out = append(out, r)
	}
	if err := rows.Err(); err != nil {
		return nil, s.failure("read", err)
	}
	return out, nil
}

// Commit implements state.Records.
func (s *Store) Commit(ctx context.Context, f state.Fence, token string, writes []state.Write) error {
	if err := state.Check(writes, true); err != nil {
		return err
	}
	return s.writer.submit(ctx, "commit", func(ctx context.Context, w *writer) error {
		now := s.now()
		name := tokenName(f, token)
		if token != "" {
			switch done, err := w.spent(ctx, name); {
			case err != nil:
				return err
			case done:
				return nil
			}
		}
		if err := w.holds(ctx, f); err != nil {
			return err
		}
		if err := w.apply(ctx, state.OfSession(f.Session), writes, now); err != nil {
			return err
		}
		if token == "" {
			return nil
		}
		_, err := w.st.spend.ExecContext(ctx, now.UnixNano(), name)
		return err
	})
}

// tokenName puts the token before the fence that it belongs to, so that tokens
// that grow with time (ULIDs) are stored side by side.
func tokenName(f state.Fence, token string) string {
	return strings.Join([]string{token, f.Session, f.Owner, strconv.FormatUint(f.Epoch, 10)}, "\x00")
}

func (w *writer) spent(ctx context.Context, name string) (bool, error) {
	var at int64
	err := w.st.spent.QueryRowContext(ctx, name).Scan(&at)
	if errors.Is(err, sql.ErrNoRows) {
		return false, nil
	}
	return err == nil, err
}

// Update implements state.Records.
func (s *Store) Update(ctx context.Context, p state.Partition, writes []state.Write) error {
	if err := state.Check(writes, false); err != nil {
		return err
	}
	session, ok := p.Session()
	if !ok && p != state.Fleet {
		return fmt.Errorf("partition %q: is neither a session's nor the fleet's", p)
	}
	return s.writer.submit(ctx, "update", func(ctx context.Context, w *writer) error {
		if ok {
			o, err := w.owner(ctx, session)
			if err != nil {
				return err
			}
			if !o.there {
				return refusal{fmt.Errorf("session %s: %w", session, state.ErrNotFound)}
			}
		}
		return w.apply(ctx, p, writes, s.now())
	})
}

// apply makes all writes if all their conditions hold, else none.
func (w *writer) apply(ctx context.Context, p state.Partition, writes []state.Write, now time.Time) error {
	for _, c := range writes {
		if c.If.Always() {
			continue
		}
		var rev int64
		err := w.st.rev.QueryRowContext(ctx, string(p), string(c.Key.Kind), blob(c.Key.ID), now.UnixNano()).Scan(&rev)
		if err != nil && !errors.Is(err, sql.ErrNoRows) {
			return err
		}
		if !c.If.Holds(err == nil, uint64(rev)) {
			return refusal{fmt.Errorf("%s of %s: %w", c.Key, p, state.ErrConflict)}
		}
	}
	for _, c := range writes {
		var err error
		if c.Delete {
			_, err = w.st.del.ExecContext(ctx, string(p), string(c.Key.Kind), blob(c.Key.ID))
		} else {
			_, err = w.st.put.ExecContext(ctx, string(p), string(c.Key.Kind), blob(c.Key.ID),
				int64(c.Rev), expiry(c.Expires), c.Index, notNull(c.Value))
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// scanned are the places that the columns of a record go to.
func scanned(r *state.Record) []any {
	return []any{(*unsigned)(&r.Rev), (*instant)(&r.Expires), &r.Index, &r.Value}
}

// unsigned reads a uint64 from the int64 that has its bits.
type unsigned uint64

func (u *unsigned) Scan(v any) error {
	n, ok := v.(int64)
	if !ok {
		return fmt.Errorf("%w: %T where a number should be", state.ErrCorrupt, v)
	}
	*u = unsigned(n)
	return nil
}

// instant reads a time from nanoseconds since 1970, 0 being the zero time.
type instant time.Time

func (i *instant) Scan(v any) error {
	n, ok := v.(int64)
	if !ok {
		return fmt.Errorf("%w: %T where a time should be", state.ErrCorrupt, v)
	}
	*i = instant{}
	if n != 0 {
		*i = instant(time.Unix(0, n).UTC())
	}
	return nil
}

// farthest is the last year that nanoseconds in an int64 reach.
const farthest = 2262

func expiry(t time.Time) int64 {
	switch {
	case t.IsZero(), t.Year() >= farthest:
		return 0
	case t.Year() < 1970:
		return 1 // long ago
	}
	return t.UnixNano()
}

// blob is the bytes of an id: ids are stored as such because text ends at a
// zero byte in places, and because bytes sort bytewise.
func blob(id string) []byte { return notNull([]byte(id)) }

func notNull(b []byte) []byte {
	if b == nil {
		return []byte{}
	}
	return b
}

func limited(limit int) int {
	if limit <= 0 {
		return pageSize
	}
	return limit
}
