package adminapi

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"github.com/holdfast-wa/holdfast/state"
)

// VerbParams are what every order takes. (Embedded types are exported because the
// library looks into no others.)
type VerbParams struct {
	SessionPath
	WaitParam
	KeyParam
	MatchParam
}

// Repair is the body of repair.
type Repair struct {
	Force bool `json:"force,omitempty" doc:"also during a cooldown; for admins"`
}

type repairInput struct {
	VerbParams
	Body *Repair `required:"false"`
}

// Debug is the body of debug.
type Debug struct {
	On  bool   `json:"on" doc:"whether the session logs what it does in detail"`
	For string `json:"for,omitempty" maxLength:"16" example:"15m" doc:"then off by itself; 1s to 24h, default 15m"`
}

type debugInput struct {
	VerbParams
	Body Debug
}

type commandInput struct {
	WaitParam
	ID string `path:"id" maxLength:"160" doc:"as a write answered it"`
}

func (a *API) verbRoutes() {
	verb := func(v state.Verb, summary, description string, apply change) {
		route(a, Operator, huma.Operation{OperationID: string(v) + "-session", Method: http.MethodPost, Path: "/api/sessions/{name}/" + string(v),
			Tags: []string{"Sessions"}, Summary: summary, Description: description, DefaultStatus: http.StatusAccepted, Errors: []int{404, 409, 412}},
			func(ctx context.Context, in *VerbParams) (*commandOutput, error) {
				return a.order(ctx, *in, order{verb: v}, apply)
			})
	}
	verb(state.VerbStart, "Start", "Connects it, with the credentials that it has, or shows a QR where it has none. Resumes one that waits for a command.", a.want(state.WantRunning))
	verb(state.VerbStop, "Stop", "Closes its connection. Credentials stay; start resumes.", a.want(state.WantStopped))
	verb(state.VerbRestart, "Restart", "Closes its connection and connects again. Credentials stay.", a.want(state.WantRunning))
	verb(state.VerbDisconnect, "Disconnect", "Unlinks the device at WhatsApp and destroys its credentials, at once and for good. It may pair again at once.", a.want(state.WantDisconnected))
	verb(state.VerbRestore, "Restore", "Brings credentials back that were taken out of use and are not destroyed yet.", func(s *stored) ([]state.Write, string, string, error) {
		now := a.cfg.Now()
		for _, q := range s.meta.Quarantined {
			if q.Until.After(now) {
				_, before, _, err := a.want(state.WantRunning)(s)
				return nil, before, "restore of those taken out for " + string(q.Cause), err
			}
		}
		return nil, "", "", problem(CodeNothingToRestore, "no credentials of %q are kept: pair it anew", s.owner.Session)
	})

	route(a, Operator, huma.Operation{OperationID: "repair-session", Method: http.MethodPost, Path: "/api/sessions/{name}/repair", Tags: []string{"Sessions"},
		Summary: "Repair", DefaultStatus: http.StatusAccepted, Errors: []int{400, 404, 409, 412, 413, 415},
		Description: "Clears its credentials and shows a fresh QR. Refused during a cooldown, with the time left, unless an admin forces it."}, a.repair)
	route(a, Admin, huma.Operation{OperationID: "debug-session", Method: http.MethodPost, Path: "/api/sessions/{name}/debug", Tags: []string{"Sessions"},
		Summary: "Switch detailed logging", DefaultStatus: http.StatusAccepted, Errors: []int{400, 404, 409, 412, 413, 415}}, a.debug)
	route(a, Viewer, huma.Operation{OperationID: "get-command", Method: http.MethodGet, Path: "/api/commands/{id}", Tags: []string{"Commands"},
		Summary: "Show a command", Errors: []int{404},
		Description: "Commands are kept for a week after their end."}, a.getCommand)
	route(a, Viewer, huma.Operation{OperationID: "list-commands", Method: http.MethodGet, Path: "/api/sessions/{name}/commands", Tags: []string{"Commands"},
		Summary: "List a session's commands", Errors: []int{404},
		Description: "In order of id, the newest first; those that were given an idempotency key stand anywhere between."}, a.commands)
}

// order carries an order out and answers with its command.
func (a *API) order(ctx context.Context, in VerbParams, o order, apply change) (*commandOutput, error) {
	wait, err := in.duration()
	if err != nil {
		return nil, err
	}
	o.key, o.match = in.Key, in.IfMatch
	if o.args == nil {
		o.args = map[string]string{}
	}
	c, err := a.carry(ctx, in.Name, o, func(s *stored) ([]state.Write, string, string, error) {
		extra, before, after, err := apply(s)
		o.args["generation"] = strconv.FormatUint(s.spec.Generation, 10) // of what is wanted with it
		return extra, before, after, err
	})
	if err != nil {
		return nil, err
	}
	v, err := a.carried(ctx, c, wait)
	return &commandOutput{Status: http.StatusAccepted, Body: v}, err
}

// want is the change that makes something the wanted state.
func (a *API) want(w state.Wanted) change {
	return func(s *stored) ([]state.Write, string, string, error) {
		before := fmt.Sprintf("wanted %s, generation %d", s.spec.Wanted, s.spec.Generation)
		if s.spec.Wanted != w {
			s.spec.Wanted = w
			a.advance(s)
		}
		return nil, before, fmt.Sprintf("wanted %s, generation %d", w, s.spec.Generation), nil
	}
}

// cooling says how long the session must not pair yet.
func (a *API) cooling(s *stored) time.Duration { return s.status.CooldownUntil.Sub(a.cfg.Now()) }

func (a *API) repair(ctx context.Context, in *repairInput) (*commandOutput, error) {
	force := in.Body != nil && in.Body.Force
	if force && caller(ctx).role < Admin {
		p := problem(CodeForbidden, "body.force: needs the role admin: the key %q has %s", caller(ctx).name, caller(ctx).role)
		p.Errors = []Fault{{Field: "body.force", Message: "is for admins"}}
		return nil, p
	}
	o := order{verb: state.VerbRepair, args: map[string]string{"force": strconv.FormatBool(force)}}
	return a.order(ctx, in.VerbParams, o, func(s *stored) ([]state.Write, string, string, error) {
		if left := a.cooling(s); left > 0 && !force {
			return nil, "", "", problem(CodeCooldown, "%q cools down after %s until %s: wait, or have an admin force it",
				s.owner.Session, s.status.Cause, s.status.CooldownUntil.UTC().Format(time.RFC3339)).after(left)
		}
		before := fmt.Sprintf("wanted %s, repair %d", s.spec.Wanted, s.spec.RepairGeneration)
		s.spec.Wanted = state.WantRunning
		s.spec.RepairGeneration++
		a.advance(s)
		return nil, before, fmt.Sprintf("wanted running, repair %d, force %t", s.spec.RepairGeneration, force), nil
	})
}

func (a *API) debug(ctx context.Context, in *debugInput) (*commandOutput, error) {
	d := 15 * time.Minute
	if in.Body.For != "" {
		var err error
		if d, err = time.ParseDuration(in.Body.For); err != nil || d < time.Second || d > 24*time.Hour {
			return nil, invalid("body.for", "must be a time from 1s to 24h, such as 15m")
		}
	}
	o := order{verb: state.VerbDebug, args: map[string]string{"on": strconv.FormatBool(in.Body.On), "for": d.String()}}
	return a.order(ctx, in.VerbParams, o, func(*stored) ([]state.Write, string, string, error) {
		return nil, "", fmt.Sprintf("on %t for %s", in.Body.On, d), nil
	})
}

// CommandPage is a page of commands.
type CommandPage struct {
	Commands []Command `json:"commands" nullable:"false"`
	Next     string    `json:"next,omitempty" doc:"cursor of the next page; absent on the last one"`
}

type commandsInput struct {
	SessionPath
	PageParams
}

func (a *API) commands(ctx context.Context, in *commandsInput) (*struct{ Body CommandPage }, error) {
	if _, err := a.cfg.Store.Owner(ctx, in.Name); err != nil {
		return nil, fmt.Errorf("session %q: %w", in.Name, err)
	}
	after, err := fromCursor(in.Cursor)
	if err != nil {
		return nil, err
	}
	got, err := a.cfg.Store.Query(ctx, state.OfSession(in.Name), state.Query{Kind: state.KindCommand, After: after, Limit: in.Limit, Descending: true})
	if err != nil {
		return nil, err
	}
	page := CommandPage{Commands: []Command{}}
	for _, r := range got.Records {
		var c state.Command
		if err := state.Decode(r.Value, &c); err != nil {
			c = state.Command{ID: r.Key.ID, Session: in.Name, State: state.CommandFailed, Code: string(CodeCorrupt), Problem: "its record cannot be read"}
		}
		page.Commands = append(page.Commands, a.commandView(ctx, c))
		if got.More {
			page.Next = toCursor(r.Key.ID)
		}
	}
	return &struct{ Body CommandPage }{page}, nil
}

func (a *API) getCommand(ctx context.Context, in *commandInput) (*struct{ Body Command }, error) {
	wait, err := in.duration()
	if err != nil {
		return nil, err
	}
	session, id, err := state.ParseCommandRef(in.ID)
	if err != nil {
		return nil, err
	}
	c, err := a.command(ctx, session, id)
	if err != nil {
		return nil, err
	}
	v, err := a.ended(ctx, c, wait)
	if errors.Is(err, state.ErrNotFound) {
		return nil, fmt.Errorf("command %s: %w", in.ID, state.ErrNotFound)
	}
	return &struct{ Body Command }{v}, err
}
