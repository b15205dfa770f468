package chaos

import (
	"context"
	"errors"
	"fmt"
	"os/exec"
	"strings"
	"time"

	"github.com/holdfast-wa/holdfast/infra/standin/crew"
)

// Upgrade is two releases, and how long each state of the fleet is looked at.
type Upgrade struct {
	Old, New string        // binaries
	Mixed    time.Duration // while workers of both have sessions
	Whole    time.Duration // while all workers are of one
}

// RunUpgrade has a fleet of an older release upgraded, rolled back, and upgraded
// again, with messages on their way: worker by worker, as a platform does it. One
// of the next deployment joins, then one of the present is asked to end. The admin
// API changes last each time, so that each release's serves workers of the other.
//
// It is judged as chaos is, and by each release reading all that is kept at the
// end, which the newer one wrote last. Options.Binary is not looked at.
func RunUpgrade(ctx context.Context, o Options, u Upgrade) (Report, error) {
	o.Binary = u.Old
	s := script{do: u.do, look: u.look}
	for i := range o.Workers {
		s.spares = append(s.spares, fmt.Sprintf("w%d", o.Workers+i+1))
	}
	return play(ctx, o, s)
}

func (u Upgrade) do(ctx context.Context, h *harness) error {
	h.say("all workers are of the older release")
	sleep(ctx, u.Whole)
	one, other := h.workers(), h.spares
	for i, to := range []struct{ what, binary string }{{"upgrade", u.New}, {"rollback", u.Old}, {"upgrade again", u.New}} {
		if err := u.roll(ctx, h, to.what, fmt.Sprintf("rev-%d", i+1), to.binary, one, other); err != nil {
			return fmt.Errorf("%s: %w", to.what, err)
		}
		one, other = other, one
		sleep(ctx, u.Whole)
	}
	return ctx.Err()
}

// roll puts workers of a binary and a deployment in the place of others, one at a
// time.
func (u Upgrade) roll(ctx context.Context, h *harness, what, revision, binary string, from, to []string) error {
	for i := range from {
		next, last := h.process(to[i]), h.process(from[i])
		next.Path = binary
		next.Set(deployment, revision)
		h.idle[next.Name] = false
		if err := next.Start(); err != nil {
			return err
		}
		if err := h.crew.Live(ctx, next); err != nil {
			return err
		}
		// Whoever ends gives to those whom it has seen.
		sleep(ctx, 3*h.o.Timing.Poll)
		h.idle[last.Name] = true
		had := h.relays[last.Name].live()
		within, cancel := context.WithTimeout(ctx, endWithin)
		took, err := last.Terminate(within)
		cancel()
		if err != nil {
			return err
		}
		h.say("%s: %s has joined, %s has ended %.1f s after SIGTERM, which had %d sessions", what, next.Name, last.Name, took.Seconds(), had)
		if i == 0 {
			sleep(ctx, u.Mixed)
			if err := u.mixed(ctx, h, what, next.Name, from[1:]); err != nil {
				return err
			}
		}
	}
	within, cancel := context.WithTimeout(ctx, endWithin)
	defer cancel()
	if _, err := h.crew.Admin.Terminate(within); err != nil {
		return err
	}
	h.crew.Admin.Path = binary
	if err := h.crew.Admin.Start(); err != nil {
		return err
	}
	return h.crew.Live(ctx, h.crew.Admin)
}

// mixed makes sure that both releases have sessions, without which nothing would
// be tried.
func (u Upgrade) mixed(ctx context.Context, h *harness, what, next string, others []string) error {
	has := func() (mine, theirs int) {
		for _, name := range others {
			theirs += h.relays[name].live()
		}
		return h.relays[next].live(), theirs
	}
	within, cancel := context.WithTimeout(ctx, endWithin)
	defer cancel()
	for {
		mine, theirs := has()
		if mine > 0 && theirs > 0 {
			h.say("%s: mixed: %s has %d sessions, those of the other release have %d", what, next, mine, theirs)
			return nil
		}
		if !sleep(within, 100*time.Millisecond) {
			return fmt.Errorf("the fleet is not mixed: %s has %d sessions, the others have %d", next, mine, theirs)
		}
	}
}

// look has each release read all that is kept, once everything has ended.
func (u Upgrade) look(ctx context.Context, h *harness, to *History) error {
	env, err := h.stand.Environment(crew.Admin)
	if err != nil {
		return err
	}
	for name, binary := range map[string]string{"the older release": u.Old, "the newer release": u.New} {
		cmd := exec.CommandContext(ctx, binary, "sessions", "verify") //nolint:gosec // a binary that was built for this
		cmd.Env = crew.Environ(env)
		out, err := cmd.CombinedOutput()
		if exit := (*exec.ExitError)(nil); err != nil && !errors.As(err, &exit) {
			return fmt.Errorf("%s: sessions verify: %w", name, err)
		}
		to.Unreadable = append(to.Unreadable, unread(name, string(out), h.accounts)...)
		h.say("%s has read all that is kept of %d sessions", name, strings.Count(string(out), "ok    "))
	}
	return nil
}

// unread are the lines of verify that are not ok, and the sessions that it does
// not name.
func unread(release, out string, sessions []Account) (faults []string) {
	ok := map[string]bool{}
	for _, line := range strings.Split(strings.TrimSpace(out), "\n") {
		if name, good := strings.CutPrefix(line, "ok    "); good {
			ok[name] = true
			continue
		}
		faults = append(faults, release+": "+line)
	}
	for _, a := range sessions {
		if !ok[a.Session] {
			faults = append(faults, release+": "+a.Session+": was not read to its end")
		}
	}
	return faults
}
