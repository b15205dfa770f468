package adminapi

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"github.com/holdfast-wa/holdfast/infra/fleet"
	"github.com/holdfast-wa/holdfast/state"
)

// Offline carries out the open disconnect or delete of a session while no worker
// is alive; false where it is left to a worker. See package fleet.
type Offline interface {
	Try(ctx context.Context, session string) (bool, error)
}

// Worker is a worker incarnation as the API shows it.
type Worker struct {
	ID           string         `json:"id" doc:"its incarnation: new at each start"`
	Standing     fleet.Standing `json:"standing" enum:"alive,stale,dead" doc:"stale: its heartbeat has not moved for a while; dead is for good"`
	Alive        bool           `json:"alive" doc:"standing is alive"`
	Draining     bool           `json:"draining" doc:"it takes nothing more and gives away what it has, or did before it died"`
	DrainWanted  bool           `json:"drainWanted" doc:"an operator asked for that"`
	Tool         bool           `json:"tool,omitempty" doc:"not a worker: a program that has a session for a moment"`
	Since        time.Time      `json:"since,omitzero" doc:"by its own clock, like all times here"`
	SeenAt       time.Time      `json:"seenAt,omitzero" doc:"when it sent its last heartbeat"`
	Sessions     int            `json:"sessions" doc:"that it has"`
	Online       int            `json:"online" doc:"of those"`
	Capacity     int            `json:"capacity,omitempty" doc:"that it takes at most; absent: no bound"`
	TrustSeconds float64        `json:"trustSeconds" doc:"how long it could still have gone on without the store, when it last said so"`
	Version      string         `json:"version,omitempty"`
	Format       int            `json:"format,omitempty" doc:"of the documents that it writes"`
	Deployment   string         `json:"deployment,omitempty" doc:"the revision that it was deployed with"`
	Task         string         `json:"task,omitempty" doc:"what the platform calls it: an ECS task's ARN"`
	Host         string         `json:"host,omitempty"`
}

// WorkerList is the fleet in the order in which it joined.
type WorkerList struct {
	Workers []Worker `json:"workers" nullable:"false"`
	Next    string   `json:"next,omitempty" doc:"cursor of the next page; absent on the last one"`
}

type workersInput struct {
	Limit  int    `query:"limit" minimum:"1" maximum:"1000" default:"1000"`
	Cursor string `query:"cursor" maxLength:"128" doc:"next of the page before"`
}

// Drain is the body of drain.
type Drain struct {
	Wanted *bool `json:"wanted,omitempty" doc:"false takes it back; true by itself"`
}

// WorkerPath is the worker that a route is about.
type WorkerPath struct {
	ID string `path:"id" maxLength:"64" pattern:"^[A-Za-z0-9-]+$" patternDescription:"1 to 64 letters, digits and -" doc:"its incarnation"`
}

type drainInput struct {
	WorkerPath
	Body *Drain `required:"false"`
}

// StoppedPath is who is said to have stopped.
type StoppedPath struct {
	ID string `path:"id" minLength:"1" maxLength:"2048" doc:"an incarnation, or the ARN of a task, URL-escaped"`
}

func (a *API) workerRoutes() {
	tags := []string{"Fleet"}
	route(a, Viewer, huma.Operation{OperationID: "list-workers", Method: http.MethodGet, Path: "/api/workers", Tags: tags,
		Summary:     "List workers",
		Description: "All incarnations that are remembered, dead ones for a while. What each says of itself is as old as its heartbeat."}, a.workers)
	route(a, Admin, huma.Operation{OperationID: "drain-worker", Method: http.MethodPost, Path: "/api/workers/{id}/drain", Tags: tags,
		Summary: "Drain a worker", DefaultStatus: http.StatusAccepted, Errors: []int{400, 404, 409, 413, 415},
		Description: "It takes nothing more and gives its sessions to others, one by one; it goes on running. `{\"wanted\": false}` takes it back."},
		func(ctx context.Context, in *drainInput) (*struct{ Body Worker }, error) {
			return a.drain(ctx, in.ID, in.Body == nil || in.Body.Wanted == nil || *in.Body.Wanted)
		})
	route(a, Admin, huma.Operation{OperationID: "undrain-worker", Method: http.MethodDelete, Path: "/api/workers/{id}/drain", Tags: tags,
		Summary: "Take a drain back", DefaultStatus: http.StatusAccepted, Errors: []int{404, 409}},
		func(ctx context.Context, in *WorkerPath) (*struct{ Body Worker }, error) {
			return a.drain(ctx, in.ID, false)
		})
	route(a, Admin, huma.Operation{OperationID: "stopped-worker", Method: http.MethodPost, Path: "/api/workers/{id}/stopped", Tags: tags,
		Summary: "Say that a worker's process has ended", Errors: []int{404, 409},
		Description: "For what the platform reports: the worker is dead for good, and others take its sessions at once instead of after the takeover time. " +
			"Say it of a process that has ended only: one that still runs would hold its lines for a few seconds beside those of its successor."}, a.stopped)
}

// workers lists the roster, with what is known fresher in this process.
func (a *API) workers(ctx context.Context, in *workersInput) (*struct{ Body WorkerList }, error) {
	after, err := fromCursor(in.Cursor)
	if err != nil {
		return nil, err
	}
	sight, err := a.cfg.View.Read(ctx)
	if err != nil {
		return nil, err
	}
	list := WorkerList{Workers: make([]Worker, 0, len(sight.Members))}
	for _, m := range sight.Members {
		list.Workers = append(list.Workers, a.worker(sight, m))
	}
	if a.cfg.Workers != nil {
		here, err := a.cfg.Workers(ctx)
		if err != nil {
			return nil, err
		}
		for _, w := range here {
			i := slices.IndexFunc(list.Workers, func(known Worker) bool { return known.ID == w.ID })
			if i < 0 {
				list.Workers = append(list.Workers, standing(w))
				continue
			}
			list.Workers[i] = overlaid(list.Workers[i], w)
		}
	}
	if after != "" {
		// One that is forgotten since has left its place: ids are in order of time too.
		i := slices.IndexFunc(list.Workers, func(w Worker) bool { return w.ID == after })
		if i < 0 {
			i = slices.IndexFunc(list.Workers, func(w Worker) bool { return w.ID > after }) - 1
		}
		list.Workers = list.Workers[max(i+1, 0):]
	}
	if len(list.Workers) > in.Limit {
		list.Workers = list.Workers[:in.Limit]
		list.Next = toCursor(list.Workers[in.Limit-1].ID)
	}
	return &struct{ Body WorkerList }{list}, nil
}

// worker shows a member as the store has it.
func (a *API) worker(s fleet.Sight, m state.Member) Worker {
	st := s.Standing(m.Incarnation)
	if st == fleet.Stale && a.cfg.Alive(m.Incarnation) {
		st = fleet.Alive
	}
	return Worker{ID: m.Incarnation, Standing: st, Alive: st == fleet.Alive,
		Draining: m.Load.Draining, DrainWanted: m.Drain, Tool: m.Info.Tool,
		Since: m.Info.Since, SeenAt: m.Load.At, Sessions: m.Load.Sessions, Online: m.Load.Online, Capacity: m.Info.Capacity,
		TrustSeconds: m.Load.Trust.Seconds(), Version: m.Info.Version, Format: m.Info.Format,
		Deployment: m.Info.Deployment, Task: m.Info.Task, Host: m.Info.Host}
}

// standing fills in what a worker of this process that the roster does not have
// is taken for.
func standing(w Worker) Worker {
	if w.Standing == "" {
		w.Standing = fleet.Alive
		if !w.Alive {
			w.Standing = fleet.Dead
		}
	}
	return w
}

// overlaid is what the roster says of a worker with what this process knows
// better. What the store has declared dead stays dead.
func overlaid(known, here Worker) Worker {
	if known.Standing == fleet.Dead {
		return known
	}
	known.Draining, known.Sessions, known.Online = here.Draining, here.Sessions, here.Online
	if here.Alive {
		known.Standing, known.Alive = fleet.Alive, true
	}
	if here.SeenAt.After(known.SeenAt) {
		known.SeenAt = here.SeenAt
	}
	if here.TrustSeconds != 0 {
		known.TrustSeconds = here.TrustSeconds
	}
	return known
}

// member finds who a route is about, in the roster as it is now.
func (a *API) member(ctx context.Context, id string) (fleet.Sight, state.Member, error) {
	sight, err := a.cfg.View.Fresh(ctx)
	if err != nil {
		return sight, state.Member{}, err
	}
	m, found := sight.Find(id)
	if !found {
		return sight, m, noWorker(id)
	}
	return sight, m, nil
}

func noWorker(id string) error {
	return problem(CodeNotFound, "worker %q: is not known, or forgotten since it died", id)
}

func (a *API) drain(ctx context.Context, id string, wanted bool) (*struct{ Body Worker }, error) {
	sight, m, err := a.member(ctx, id)
	if err != nil {
		return nil, err
	}
	if m.Dead {
		return nil, problem(CodeWorkerDead, "worker %s is dead: there is nothing to drain, others have its sessions or take them", id)
	}
	if m.Drain != wanted {
		action := "drain"
		if !wanted {
			action = "undrain"
		}
		if err := a.auditFleet(ctx, action, fmt.Sprintf("worker %s, drain %t", id, m.Drain), fmt.Sprintf("drain %t", wanted)); err != nil {
			return nil, err
		}
	}
	// Also where it is that already: another change may be under way.
	err = a.cfg.Store.Drain(ctx, id, wanted)
	switch {
	case errors.Is(err, state.ErrDead):
		return nil, problem(CodeWorkerDead, "worker %s has died meanwhile: others take its sessions", id)
	case errors.Is(err, state.ErrNotFound):
		return nil, noWorker(id)
	case err != nil:
		return nil, err
	}
	m.Drain = wanted
	_, _ = a.cfg.View.Fresh(ctx) // as in stopped
	a.cfg.Log.Info("drain of a worker", "worker", id, "wanted", wanted, "by", caller(ctx).name)
	return &struct{ Body Worker }{a.worker(sight, m)}, nil
}

// stopped takes the platform's word that a process has ended. A task may have
// had several incarnations.
func (a *API) stopped(ctx context.Context, in *StoppedPath) (*struct{ Body WorkerList }, error) {
	sight, err := a.cfg.View.Fresh(ctx)
	if err != nil {
		return nil, err
	}
	var about []state.Member
	for _, m := range sight.Members {
		if m.Incarnation == in.ID || m.Info.Task != "" && m.Info.Task == in.ID {
			about = append(about, m)
		}
	}
	if len(about) == 0 {
		return nil, problem(CodeNotFound, "worker %q: is neither an incarnation nor a task that is known", in.ID)
	}
	var ended []string
	for _, m := range about {
		if !m.Dead && a.cfg.Alive(m.Incarnation) {
			return nil, problem(CodeWorkerAlive, "worker %s has not ended: it is the process that answers this", m.Incarnation)
		}
		if !m.Dead {
			ended = append(ended, m.Incarnation)
		}
	}
	if len(ended) > 0 {
		if err := a.auditFleet(ctx, "stopped", "alive "+strings.Join(ended, ", "), "dead"); err != nil {
			return nil, err
		}
	}
	list := WorkerList{Workers: []Worker{}}
	for _, m := range about {
		err := a.cfg.Store.DeclareStopped(ctx, m.Incarnation)
		if err != nil && !errors.Is(err, state.ErrNotFound) { // forgotten since: dead all the same
			return nil, err
		}
		if !m.Dead {
			a.cfg.Log.Warn("a worker is said to have ended: it is declared dead", "worker", m.Incarnation, "by", caller(ctx).name)
		}
		w := a.worker(sight, m)
		w.Standing, w.Alive = fleet.Dead, false
		list.Workers = append(list.Workers, w)
	}
	_, _ = a.cfg.View.Fresh(ctx) // what is shown next knows of it; if not, a moment later
	return &struct{ Body WorkerList }{list}, nil
}

// auditFleet records what is about to be done to the fleet: an act without its
// record would be worse than the record of one that failed.
func (a *API) auditFleet(ctx context.Context, action, before, after string) error {
	w, err := a.audit(caller(ctx), a.cfg.Now().UTC(), action, before, after)
	if err != nil {
		return err
	}
	return a.cfg.Store.Update(ctx, state.Fleet, []state.Write{w})
}

// withoutWorker carries an order out that must not wait where no worker is left
// to do it. What fails here is left to the next worker.
func (a *API) withoutWorker(ctx context.Context, session string, verb state.Verb) {
	done, err := a.cfg.Offline.Try(ctx, session)
	switch {
	case err != nil && ctx.Err() == nil:
		a.cfg.Log.Warn("could not be done without a worker; it waits for one", "session", session, "verb", verb, "error", err)
	case done:
		a.cfg.Bell.Ring(session)
	}
}
