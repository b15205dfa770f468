package adminapi

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"fmt"
	"time"

	"github.com/oklog/ulid/v2"

	"github.com/holdfast-wa/holdfast/state"
	"github.com/holdfast-wa/holdfast/state/seal"
)

// How long commands live. One that has not begun by then is never run; its
// record is kept another day, and with it the idempotency key.
const (
	commandLife  = 10 * time.Minute
	pairCodeLife = 2 * time.Minute
	keepCommand  = 24 * time.Hour
)

// tries is how often a change is made again when another writer was faster.
const tries = 8

// Command is a command as the API shows it.
type Command struct {
	ID        string             `json:"id" example:"shop.01JD8Q3W2N5C7G9K1M4P6R8T0V" doc:"ask GET /api/commands/{id}"`
	Session   string             `json:"session"`
	Verb      state.Verb         `json:"verb"`
	State     state.CommandState `json:"state" enum:"pending,running,done,failed,expired"`
	By        string             `json:"by" doc:"the API key that asked for it"`
	At        time.Time          `json:"at"`
	ExpiresAt time.Time          `json:"expiresAt" doc:"not begun after this"`
	EndedAt   time.Time          `json:"endedAt,omitzero"`
	Epoch     uint64             `json:"epoch,omitempty" doc:"of the owner that ran it"`
	Args      map[string]string  `json:"args,omitempty"`
	Result    string             `json:"result,omitempty"`
	Code      string             `json:"code,omitempty" doc:"stable name of what went wrong"`
	Problem   string             `json:"problem,omitempty" doc:"what went wrong, in words"`

	RetryAfter int `json:"retryAfter,omitempty" doc:"of one that was refused for a cooldown: seconds until that ends"`

	PairCode string `json:"pairCode,omitempty" doc:"result of pair-code, for operators: type it on the phone"`
}

// commandView shows a command. One that was not begun in time is expired,
// whether or not its owner has said so yet.
func (a *API) commandView(ctx context.Context, c state.Command) Command {
	v := Command{ID: state.CommandRef(c.Session, c.ID), Session: c.Session, Verb: c.Verb, State: c.State, By: c.By, At: c.At,
		ExpiresAt: c.ExpiresAt, EndedAt: c.EndedAt, Epoch: c.Epoch, Args: c.Args, Result: c.Result, Code: c.Code, Problem: c.Problem}
	if c.State == state.CommandPending && !a.cfg.Now().Before(c.ExpiresAt) {
		v.State, v.EndedAt = state.CommandExpired, c.ExpiresAt
		v.Code, v.Problem = "expired", "no worker took it in time: is one running?"
	}
	if len(c.Sealed) > 0 && c.State == state.CommandDone && caller(ctx).role >= Operator {
		var secret state.CommandSecret
		if err := a.openJSON(commandPlace(c.Session, c.ID), c.Sealed, &secret); err == nil {
			v.PairCode = secret.PairCode
		}
	}
	return v
}

func commandPlace(session, id string) seal.Place {
	return seal.Place{Partition: state.OfSession(session), Kind: state.KindCommand, ID: id}
}

// order is a command that is asked for.
type order struct {
	verb   state.Verb
	key    string // of idempotency; empty: none
	match  string // If-Match; empty: whatever it is
	life   time.Duration
	args   map[string]string
	secret state.CommandSecret
	action string // for the audit, where it is not the verb
}

// change is what an order does beside leaving its command. It may alter the
// spec, refuse with an error, and add writes; before and after are for the
// audit and hold nothing personal.
type change func(s *stored) (extra []state.Write, before, after string, err error)

// sameArgs tells whether a command of before was asked for with the same arguments.
// Those that are made here differ each time.
func (o order) sameArgs(c state.Command) bool {
	for name, v := range o.args {
		if name != "generation" && name != "message" && c.Args[name] != v {
			return false
		}
	}
	return true
}

// sameSecret tells whether a command of before has the secret that this one has. One
// that cannot be read any more, or says nothing, differs in nothing.
func (a *API) sameSecret(ctx context.Context, o order, c state.Command) bool {
	if o.secret == (state.CommandSecret{}) || len(c.Sealed) == 0 {
		return true
	}
	var before state.CommandSecret
	if err := a.openJSON(commandPlace(c.Session, c.ID), c.Sealed, &before); err != nil {
		a.cfg.Log.WarnContext(ctx, "a command's secret cannot be read", "command", state.CommandRef(c.Session, c.ID), "error", err)
		return true
	}
	return before.Phone == "" || before.Phone == o.secret.Phone
}

func keyUsed(before state.Verb) error {
	return problem(CodeIdempotencyMismatch, "header.Idempotency-Key: was used for another %s: use a new key", before)
}

// carry writes an order with its change in one update, and returns the command:
// the one of the first time where the idempotency key was used before.
func (a *API) carry(ctx context.Context, name string, o order, apply change) (state.Command, error) {
	id := a.newID()
	if o.key != "" {
		id = keyedID(name, o.key)
	}
	for range tries {
		s, err := a.read(ctx, name)
		if err != nil {
			return state.Command{}, err
		}
		if o.key != "" {
			c, err := a.command(ctx, name, id)
			if err == nil {
				if c.Verb != o.verb || !o.sameArgs(c) || !a.sameSecret(ctx, o, c) {
					return c, keyUsed(c.Verb)
				}
				return c, nil
			}
			if !errors.Is(err, state.ErrNotFound) {
				return c, err
			}
		}
		if err := checkVersion(o.match, s.spec); err != nil {
			return state.Command{}, err
		}
		generation := s.spec.Generation
		extra, before, after, err := apply(&s)
		if err != nil {
			return state.Command{}, err
		}
		c, writes, err := a.ordered(ctx, s, id, o, before, after)
		if err != nil {
			return state.Command{}, err
		}
		writes = append(writes, extra...)
		if s.spec.Generation != generation {
			w, err := specWrite(s.spec)
			if err != nil {
				return state.Command{}, err
			}
			w.If = state.AtRev(s.specRev)
			writes = append(writes, w)
		}
		switch err := a.cfg.Store.Update(ctx, state.OfSession(name), writes); {
		case errors.Is(err, state.ErrConflict):
			continue
		case err != nil:
			return c, err
		}
		a.told(name)
		return c, nil
	}
	return state.Command{}, fmt.Errorf("changing %q: %w", name, state.ErrConflict)
}

// ordered makes the records of an order: the command and the audit.
func (a *API) ordered(ctx context.Context, s stored, id string, o order, before, after string) (state.Command, []state.Write, error) {
	now := a.cfg.Now().UTC()
	who := caller(ctx)
	name := s.owner.Session
	if o.life <= 0 {
		o.life = commandLife
	}
	c := state.Command{V: state.Format, ID: id, Session: name, Verb: o.verb, State: state.CommandPending, By: who.name,
		At: now, ExpiresAt: now.Add(o.life), Args: o.args}
	if o.secret != (state.CommandSecret{}) {
		sealed, err := a.sealJSON(commandPlace(name, id), o.secret)
		if err != nil {
			return c, nil, err
		}
		c.Sealed = sealed
	}
	value, err := state.Encode(c)
	if err != nil {
		return c, nil, err
	}
	cmd := state.Put(state.KindCommand, id, value)
	cmd.Rev, cmd.If = 1, state.Absent()
	cmd.Index = state.CommandIndex(s.owner.Incarnation)
	cmd.Expires = c.ExpiresAt.Add(keepCommand)
	action := o.action
	if action == "" {
		action = string(o.verb)
	}
	audit, err := a.audit(who, now, action, before, after)
	if err != nil {
		return c, nil, err
	}
	return c, []state.Write{cmd, audit}, nil
}

func specWrite(spec state.Spec) (state.Write, error) {
	value, err := state.Encode(spec)
	if err != nil {
		return state.Write{}, err
	}
	w := state.Put(state.KindSpec, "", value)
	w.Rev = spec.Generation
	return w, nil
}

// told wakes who waits for the session, and the worker in this process.
func (a *API) told(session string) {
	if a.cfg.Nudge != nil {
		a.cfg.Nudge(session)
	}
	a.cfg.Bell.Ring(session)
}

// newID is a new ULID.
func (a *API) newID() string {
	return ulid.MustNew(ulid.Timestamp(a.cfg.Now()), rand.Reader).String()
}

// keyedID is the record id of the command that an idempotency key stands for.
func keyedID(session, key string) string {
	sum := sha256.Sum256([]byte(session + "\x00" + key))
	var id ulid.ULID
	copy(id[:], sum[:])
	return id.String()
}

// command reads a command. ErrNotFound if there is none.
func (a *API) command(ctx context.Context, session, id string) (state.Command, error) {
	var c state.Command
	r, err := a.cfg.Store.Get(ctx, state.OfSession(session), state.Key{Kind: state.KindCommand, ID: id})
	if err != nil {
		if errors.Is(err, state.ErrNotFound) {
			return c, fmt.Errorf("command %s: %w", state.CommandRef(session, id), state.ErrNotFound)
		}
		return c, err
	}
	if err := state.Decode(r.Value, &c); err != nil {
		return c, fmt.Errorf("command %s: %w", state.CommandRef(session, id), err)
	}
	return c, nil
}

// offlineEvery is how often a write that waits asks again whether its order is to
// be carried out without a worker: the last one may turn out to be dead.
const offlineEvery = 2 * time.Second

// carried is ended for the order itself: what must not wait for a worker is done
// here where none is alive.
func (a *API) carried(ctx context.Context, c state.Command, wait time.Duration) (Command, error) {
	if c.State.Final() || a.cfg.Offline == nil || c.Verb != state.VerbDisconnect && c.Verb != state.VerbDelete {
		return a.ended(ctx, c, wait)
	}
	end := time.Now().Add(wait)
	for {
		a.withoutWorker(ctx, c.Session, c.Verb)
		left := time.Until(end)
		// Even without a wait it is read once more: it may have been done just now.
		v, err := a.ended(ctx, c, max(min(left, offlineEvery), time.Nanosecond))
		if err != nil || v.State.Final() || left <= offlineEvery {
			return v, err
		}
	}
}

// ended waits for a command to end, at most so long, and shows it as it then
// is. A command whose session is gone was one to delete it.
func (a *API) ended(ctx context.Context, c state.Command, wait time.Duration) (Command, error) {
	err := a.await(ctx, c.Session, wait, func() (bool, error) {
		if wait > 0 {
			got, err := a.command(ctx, c.Session, c.ID)
			switch {
			case errors.Is(err, state.ErrNotFound) && c.Verb == state.VerbDelete:
				c.State, c.EndedAt, c.Result = state.CommandDone, a.cfg.Now().UTC(), "deleted"
				return true, nil
			case err != nil:
				return false, err
			}
			c = got
		}
		return a.commandView(ctx, c).State.Final(), nil
	})
	v := a.commandView(ctx, c)
	if v.Code == string(CodeCooldown) && err == nil {
		if s, err := a.read(ctx, c.Session); err == nil {
			v.RetryAfter = max(0, int((a.cooling(&s)+time.Second-1)/time.Second))
		}
	}
	return v, err
}
