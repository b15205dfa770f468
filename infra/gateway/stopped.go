package gateway

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"github.com/oklog/ulid/v2"

	"github.com/holdfast-wa/holdfast/infra/emf"
	"github.com/holdfast-wa/holdfast/state"
)

const (
	// panicked is the exit code of a Go program that ended in a panic.
	panicked = 2
	// killed is that of one that ended by SIGKILL: its memory was not enough, or it
	// did not end within its stopTimeout.
	killed = 128 + 9
)

// taskChange is what is read of an ECS Task State Change.
type taskChange struct {
	TaskARN    string `json:"taskArn"`
	LastStatus string `json:"lastStatus"`
	StopCode   string `json:"stopCode"`
	Containers []struct {
		Name     string `json:"name"`
		ExitCode *int   `json:"exitCode"` // absent: it never ran, or nobody knows
	} `json:"containers"`
}

// TaskStopped is what was done about a task's end.
type TaskStopped struct {
	Event    string   `json:"event"`   // task_stopped, or task_running
	Workers  []string `json:"workers"` // incarnations that ran in it, all dead now
	Declared int      `json:"declared"`
	ExitCode *int     `json:"exitCode,omitempty"`
	Panicked bool     `json:"panicked,omitempty"`
	Killed   bool     `json:"killed,omitempty"`
}

// exit is the exit code of the worker's container: the one of that name, or the
// only one that there is.
func (t taskChange) exit(container string) *int {
	for _, c := range t.Containers {
		if c.Name == container || len(t.Containers) == 1 {
			return c.ExitCode
		}
	}
	return nil
}

// taskChanged takes the platform's word that a task has ended.
func (g *Gateway) taskChanged(ctx context.Context, detail json.RawMessage) (TaskStopped, error) {
	done := TaskStopped{Event: "task_stopped", Workers: []string{}}
	var t taskChange
	if err := json.Unmarshal(detail, &t); err != nil || t.TaskARN == "" || t.LastStatus == "" {
		return done, fmt.Errorf("%w: an ECS Task State Change without a task or its status", ErrEvent)
	}
	if t.LastStatus != "STOPPED" {
		done.Event = "task_running" // also one that is about to stop: its worker gives its sessions away
		return done, nil
	}
	done.ExitCode = t.exit(g.cfg.Container)
	done.Panicked = done.ExitCode != nil && *done.ExitCode == panicked
	done.Killed = done.ExitCode != nil && *done.ExitCode == killed
	roster, err := g.cfg.Store.Roster(ctx)
	if err != nil {
		return done, fmt.Errorf("reading the roster: %w", err)
	}
	for _, m := range roster.Members {
		if m.Info.Task != t.TaskARN {
			continue
		}
		if err := g.ended(ctx, m, done); err != nil {
			return done, err // the event is sent again
		}
		done.Workers = append(done.Workers, m.Incarnation)
		if !m.Dead {
			done.Declared++
		}
	}
	if done.Declared > 0 {
		g.cfg.Log.Warn("the platform has stopped a task: its worker is declared dead", "worker", strings.Join(done.Workers, " "),
			"exitCode", code(done.ExitCode), "stopCode", oneLine(t.StopCode))
		g.emit(emf.One("WorkersStopped", float64(done.Declared), "Count"), emf.One("WorkersPanicked", count(done.Panicked), "Count"),
			emf.One("WorkersKilled", count(done.Killed), "Count"))
	}
	return done, nil
}

func code(exit *int) string {
	if exit == nil {
		return "unknown"
	}
	return fmt.Sprint(*exit)
}

func count(b bool) float64 {
	if b {
		return 1
	}
	return 0
}

// ended tells how a worker has ended, and declares it dead.
func (g *Gateway) ended(ctx context.Context, m state.Member, t TaskStopped) error {
	var writes []state.Write
	if t.ExitCode != nil {
		value, err := state.Encode(state.Death{V: state.Format, Panicked: t.Panicked})
		if err != nil {
			return err
		}
		key := state.DeathKey(m.Incarnation)
		w := state.Put(key.Kind, key.ID, value)
		// What the next process on the same host tells is better: it has the session.
		w.If, w.Expires = state.Absent(), g.cfg.Store.Now().Add(state.DeathKept)
		writes = append(writes, w)
	}
	// The note first: whoever sees the death may look for it.
	if len(writes) > 0 {
		if err := g.cfg.Store.Update(ctx, state.Fleet, writes); err != nil && !errors.Is(err, state.ErrConflict) {
			return fmt.Errorf("telling how worker %s ended: %w", m.Incarnation, err)
		}
	}
	if m.Dead {
		return nil
	}
	if err := g.audit(ctx, "stopped", "alive "+m.Incarnation, "dead, exit code "+code(t.ExitCode)); err != nil {
		return err
	}
	if err := g.cfg.Store.DeclareStopped(ctx, m.Incarnation); err != nil && !errors.Is(err, state.ErrNotFound) {
		return fmt.Errorf("declaring worker %s dead: %w", m.Incarnation, err)
	}
	return nil
}

// audit records what is about to be done to the fleet on the platform's word.
func (g *Gateway) audit(ctx context.Context, action, before, after string) error {
	now := g.cfg.Now().UTC()
	value, err := state.Encode(state.Audit{V: state.Format, At: now, By: "ecs", Role: "platform", Action: action, Before: before, After: after})
	if err != nil {
		return err
	}
	id := ulid.MustNew(ulid.Timestamp(now), rand.Reader).String()
	w := state.Put(state.KindAudit, now.Format("2006-01-02T15:04:05.000Z")+"#"+id, value)
	if err := g.cfg.Store.Update(ctx, state.Fleet, []state.Write{w}); err != nil {
		return fmt.Errorf("recording that a task stopped: %w", err)
	}
	return nil
}
