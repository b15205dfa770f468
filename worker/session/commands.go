package session

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/holdfast-wa/holdfast/state"
	"github.com/holdfast-wa/holdfast/state/device"
	"github.com/holdfast-wa/holdfast/state/journal"
	"github.com/holdfast-wa/holdfast/state/seal"
	"github.com/holdfast-wa/holdfast/worker/policy"
)

const (
	// unlinkWithin bounds the attempt to unlink the device at the server: a
	// disconnect must not hang on a dead line.
	unlinkWithin = 10 * time.Second
	// commandKept is how long a finished command can be looked up.
	commandKept = 7 * 24 * time.Hour
	// pairCodeWithin bounds the request for a pairing code.
	pairCodeWithin = 30 * time.Second
)

// Order is a command together with the revision of its record.
type Order struct {
	state.Command
	Rev uint64
}

// outcome is how a command ended.
type outcome struct {
	state   state.CommandState
	code    string // stable, of the problem
	problem string
	result  string
	secret  *state.CommandSecret
}

func done(result string) outcome { return outcome{state: state.CommandDone, result: result} }

func failed(code, format string, args ...any) outcome {
	return outcome{state: state.CommandFailed, code: code, problem: fmt.Sprintf(format, args...)}
}

// command runs one command. A command is taken in hand once; one that an owner
// before this one had begun is run again, since all of them may be repeated.
func (a *actor) command(ctx context.Context, o Order) phase {
	if _, seen := a.open[o.ID]; seen || o.State.Final() {
		return nil
	}
	if _, late := a.ended[o.ID]; late {
		return nil // read from the store before it had ended
	}
	a.open[o.ID] = struct{}{}
	now := time.Now()
	if !o.ExpiresAt.IsZero() && now.After(o.ExpiresAt) && o.State != state.CommandRunning {
		return a.finish(o, outcome{state: state.CommandExpired, code: "expired",
			problem: "nobody owned the session before the command expired"}, nil)
	}
	if err := a.loadSpec(ctx); err != nil {
		return a.strand(err)
	}
	a.log.Info("command", "verb", o.Verb, "by", o.By, "command", o.ID)
	if takesTime(o.Verb) {
		if err := a.began(&o); err != nil {
			return a.strand(err)
		}
	}
	if serves, wish := wishOf(o.Verb); serves && a.spec.Wanted != wish {
		// Something else has been asked for since. Commands may be found in any order,
		// so what is wanted now decides, and not who comes last.
		switch o.Verb {
		case state.VerbStart, state.VerbRestart, state.VerbStop:
			return a.finish(o, done("overtaken: the session is wanted "+string(a.spec.Wanted)), a.followSpec(ctx))
		}
		a.box.post(follow{}) // its effect on the credentials is due all the same
	}
	switch o.Verb {
	case state.VerbReconcile:
		return a.finish(o, done(""), a.followSpec(ctx))
	case state.VerbStart, state.VerbRestart:
		if refusal, ok := a.cooling(o); ok {
			return a.finish(o, refusal, nil)
		}
		switch {
		case o.Verb == state.VerbRestart:
		case a.online != nil:
			return a.finish(o, done("the session is online already"), nil)
		case a.phase == "connecting" || a.phase == "pairing":
			return a.finish(o, done("the session is connecting already"), nil)
		}
		return a.finish(o, done(""), a.freshCycle())
	case state.VerbStop:
		return a.finish(o, done(""), a.signal(ctx, policy.Signal{Kind: policy.SignalUserStop}))
	case state.VerbDisconnect:
		return a.disconnect(a.unlink(ctx)).with(a, o)(ctx)
	case state.VerbRepair:
		if refusal, ok := a.cooling(o); ok && o.Args["force"] != "true" {
			return a.finish(o, refusal, nil)
		}
		return a.finish(o, done("a fresh QR will be shown"), a.repair(ctx))
	case state.VerbRestore:
		return a.restore(ctx, o)
	case state.VerbPairCode:
		return a.pairCode(ctx, o)
	case state.VerbSend:
		a.startOutbox(ctx)
		return a.finish(o, done(""), nil)
	case state.VerbRedrive:
		return a.redrive(ctx, o)
	case state.VerbDebug:
		return a.debug(o)
	case state.VerbDelete:
		return a.remove(ctx)
	case state.VerbRewrap, state.VerbRotate:
		return a.rekey(ctx, o)
	case state.VerbHandOver:
		return a.handOver(o)
	}
	return a.finish(o, failed("unknown_verb", "this release does not know %q", o.Verb), nil)
}

// takesTime tells for which commands it is worth a commit to say that they run:
// those that wait for somebody else.
func takesTime(v state.Verb) bool {
	switch v {
	case state.VerbDisconnect, state.VerbRepair, state.VerbRestart, state.VerbRestore, state.VerbPairCode, state.VerbRedrive:
		return true
	}
	return false
}

// began stores that a command runs, and under which epoch. It stays in the index
// of its owner until it has ended.
func (a *actor) began(o *Order) error {
	fence := a.cfg.Lease.Fence()
	c := o.Command
	c.State, c.Epoch = state.CommandRunning, fence.Epoch
	value, err := state.Encode(c)
	if err != nil {
		return err
	}
	w := state.Put(state.KindCommand, c.ID, value)
	w.Rev, w.If, w.Index = o.Rev+1, state.AtRev(o.Rev), state.CommandIndex(fence.Owner)
	w.Expires = c.ExpiresAt.Add(commandKept)
	err = a.jrn.Commit(context.Background(), journal.Batch{Writes: []state.Write{w}})
	if errors.Is(err, state.ErrConflict) {
		return nil // changed meanwhile: its end will meet the same and say so
	}
	if err == nil {
		o.Command, o.Rev = c, w.Rev
	}
	return err
}

// rekey changes what the session's keyset is wrapped with, or its primary key.
func (a *actor) rekey(ctx context.Context, o Order) phase {
	idle := a.dev == nil
	if err := a.openDevice(ctx); err != nil {
		a.dropDevice()
		return a.finish(o, failed("credentials_unreadable", "%v", err), nil)
	}
	change, told := a.dev.Rotate, "the keyset has a new primary key; records take it as they are written"
	if o.Verb == state.VerbRewrap {
		change, told = a.dev.Rewrap, "the keyset is wrapped with the present master key"
	}
	err := change(ctx)
	if err != nil && a.jrn.Err() != nil {
		return a.strand(a.jrn.Err())
	}
	if idle {
		a.dropDevice()
	}
	if err != nil {
		return a.finish(o, failed("keyset_not_changed", "%v", err), nil)
	}
	return a.finish(o, done(told), nil)
}

// handOver gives the session to one incarnation by name: to a tool that moves or
// mends it. The command ends first, or the session would come back with it.
func (a *actor) handOver(o Order) phase {
	to := o.Args["to"]
	if err := state.CheckIncarnation(to); err != nil {
		return a.finish(o, failed("bad_command", "%v", err), nil)
	}
	return func(ctx context.Context) phase {
		if next := a.finish(o, done("given to "+to), nil); next != nil {
			return next
		}
		a.cfg.Lease.Recall(to)
		return a.leave
	}
}

// cooling refuses what a running cooldown forbids.
func (a *actor) cooling(o Order) (outcome, bool) {
	left := a.st.CooldownUntil.Sub(a.cfg.Fleet.Clock())
	if left <= 0 || policy.RuleOf(a.st.Cause).Overridable && o.Verb != state.VerbRepair {
		return outcome{}, false
	}
	return failed("cooldown", "%s is cooling down for another %s; wait, or force a repair as admin",
		a.st.Cause, left.Round(time.Second)), true
}

// endedKept is how long an ended command is remembered: longer than one that was
// read before its end can lie in the mailbox.
const endedKept = 5 * time.Minute

// freshCycle connects now, with all attempts at hand again.
func (a *actor) freshCycle() phase {
	a.cutCurrent()
	a.endOnline(time.Now())
	a.dropLine()
	a.hideQR() // before anybody is told that the command is done, and asks for the fresh one
	a.applySnapshot(&a.st, a.snapshot().Settled())
	a.fresh = true
	return a.pardon(a.connecting)
}

// unlink asks the server to forget this device, as far as that can be done now.
func (a *actor) unlink(ctx context.Context) string {
	if !a.st.Paired {
		return ""
	}
	if a.line == nil || a.online == nil {
		return "unlinking at the server was not done: not connected; remove the device on the phone"
	}
	ctx, cancel := context.WithTimeout(ctx, unlinkWithin)
	defer cancel()
	if err := a.line.Logout(ctx); err != nil {
		a.log.Warn("unlinking at the server failed", "error", err)
		return "unlinking at the server failed; remove the device on the phone"
	}
	return "unlinked at the server"
}

// disconnect destroys the credentials and parks. unlinked says what became of
// the device at the server.
func (a *actor) disconnect(unlinked string) phase {
	a.unlinked = unlinked
	return func(ctx context.Context) phase {
		return a.signal(ctx, policy.Signal{Kind: policy.SignalUserDisconnect})
	}
}

// repair clears the credentials and pairs anew.
func (a *actor) repair(ctx context.Context) phase {
	if err := device.GiveUp(ctx, a.deviceConfig()); err != nil { // what was exported lives on elsewhere
		return a.strand(err)
	}
	if a.st.Paired { // else there is nothing to clear, and what is in quarantine stays there
		a.unlinked = a.unlink(ctx)
		next := a.signal(ctx, policy.Signal{Kind: policy.SignalUserDisconnect})
		if a.jrn.Err() != nil {
			return next
		}
	}
	a.st.RepairObserved = a.spec.RepairGeneration
	return a.freshCycle()
}

// restore brings the newest quarantined credentials back and connects.
func (a *actor) restore(ctx context.Context, o Order) phase {
	if a.st.Paired {
		return a.finish(o, failed("already_paired", "the session has credentials; disconnect it first if the old ones are wanted"), nil)
	}
	var stale *device.StaleError
	switch err := device.Restorable(ctx, a.deviceConfig()); {
	case err == nil:
	case errors.Is(err, device.ErrNothingToRestore), errors.Is(err, device.ErrPaired), errors.As(err, &stale):
		return a.finish(o, failed("nothing_to_restore", "%v", err), nil) // a code that is shown stays good
	default:
		return a.strand(err)
	}
	a.cutCurrent()
	a.dropLine()
	a.dropDevice()
	if err := device.Restore(ctx, a.deviceConfig()); err != nil {
		return a.strand(err) // another owner, or the store
	}
	a.st.Paired = true
	return a.finish(o, done("the quarantined credentials are in use again"), a.freshCycle())
}

// pairCode asks the server for a code to be typed on the phone. It needs a
// pairing that is under way, and starts one where there is none.
func (a *actor) pairCode(ctx context.Context, o Order) phase {
	if a.st.Paired {
		return a.finish(o, failed("already_paired", "the session is paired; disconnect it first"), nil)
	}
	var secret state.CommandSecret
	place := seal.Place{Partition: state.OfSession(a.cfg.Name), Kind: state.KindCommand, ID: o.ID}
	body, err := a.cfg.Keyset.Open(place, o.Sealed)
	if err == nil {
		err = json.Unmarshal(body, &secret)
	}
	if err != nil || secret.Phone == "" {
		return a.finish(o, failed("bad_command", "the command holds no phone number"), nil)
	}
	if a.line == nil || !a.codesShown {
		a.codeFor = &o // asked for as soon as the server has sent its codes
		delete(a.open, o.ID)
		if a.phase == "pairing" || a.phase == "connecting" {
			return nil
		}
		if refusal, ok := a.cooling(o); ok {
			a.codeFor = nil
			return a.finish(o, refusal, nil)
		}
		return a.freshCycle()
	}
	a.codeFor = nil
	line := a.line
	go func() {
		ctx, cancel := context.WithTimeout(context.Background(), pairCodeWithin)
		defer cancel()
		code, err := line.PairPhone(ctx, secret.Phone)
		a.box.post(coded{o, secret.Phone, code, err})
	}()
	return nil
}

// coded is the answer to the request for a pairing code.
type coded struct {
	order Order
	phone string
	code  string
	err   error
}

func (a *actor) coded(c coded) phase {
	if c.err != nil {
		return a.finish(c.order, failed("pair_code_refused", "%v", c.err), nil)
	}
	end := done("")
	end.secret = &state.CommandSecret{Phone: c.phone, PairCode: c.code}
	return a.finish(c.order, end, nil)
}

func (a *actor) redrive(ctx context.Context, o Order) phase {
	if a.cfg.Redrive == nil {
		return a.finish(o, failed("no_receiver", "this worker delivers nothing"), nil)
	}
	n, err := a.cfg.Redrive(ctx, a.cfg.Name, o.Args["deadLetter"])
	if err != nil {
		return a.finish(o, failed("redrive_failed", "%v", err), nil)
	}
	return a.finish(o, done(fmt.Sprintf("%d delivered again", n)), nil)
}

// remove ends the session for good: credentials, records and all.
func (a *actor) remove(ctx context.Context) phase {
	a.unlinked = a.unlink(ctx)
	a.signal(ctx, policy.Signal{Kind: policy.SignalUserDisconnect})
	a.close()
	err := a.cfg.Store.RemoveSession(context.WithoutCancel(ctx), a.cfg.Lease.Fence())
	if err != nil {
		a.log.Error("removing the session failed; trying again", "error", err)
		return a.strand(err) // the command is open in the store, and is found again
	}
	if err := device.Purge(context.WithoutCancel(ctx), a.cfg.Vault, a.cfg.Name); err != nil {
		a.log.Warn("what the removed session had in the vault is still there; it is sealed with keys that are gone", "error", err)
	}
	a.log.Info("session removed", "unlink", a.unlinked)
	a.removed = true
	return func(context.Context) phase { return nil }
}
