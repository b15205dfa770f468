package adminapi

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"github.com/holdfast-wa/holdfast/state"
)

// CreateSession is the body of POST /api/sessions.
type CreateSession struct {
	Name     string       `json:"name" maxLength:"63" minLength:"1" example:"shop" doc:"1 to 63 of a-z, 0-9, - and _; not digits alone"`
	Wanted   state.Wanted `json:"wanted,omitempty" enum:"running,stopped" default:"running"`
	Settings Settings     `json:"settings,omitempty"`
}

// PatchSession is the body of PATCH /api/sessions/{name}.
type PatchSession struct {
	Settings SettingsPatch `json:"settings,omitempty"`
}

// ChangedSession is a session together with the command that a write left.
type ChangedSession struct {
	Session
	Command string `json:"command" doc:"id of the command that tells its owner"`
}

// SessionPage is a page of sessions in order of name.
type SessionPage struct {
	Sessions []Session `json:"sessions" nullable:"false"`
	Next     string    `json:"next,omitempty" doc:"cursor of the next page; absent on the last one"`
}

type sessionOutput struct {
	ETag string `header:"ETag"`
	Body Session
}

type changedOutput struct {
	Status   int
	ETag     string `header:"ETag"`
	Location string `header:"Location"`
	Body     ChangedSession
}

type commandOutput struct {
	Status int
	Body   Command
}

func (a *API) sessionRoutes() {
	tags := []string{"Sessions"}
	route(a, Operator, huma.Operation{OperationID: "create-session", Method: http.MethodPost, Path: "/api/sessions", Tags: tags,
		Summary: "Create a session", DefaultStatus: http.StatusAccepted, Errors: []int{400, 409, 413, 415},
		Description: "It is there at once; a worker takes it and shows a QR. Its name may have been that of a deleted one."}, a.create)
	route(a, Viewer, huma.Operation{OperationID: "list-sessions", Method: http.MethodGet, Path: "/api/sessions", Tags: tags,
		Summary: "List sessions", Errors: []int{422},
		Description: "In order of name. A filtered page may be short, or empty, and still have a next one."}, a.list)
	route(a, Viewer, huma.Operation{OperationID: "get-session", Method: http.MethodGet, Path: "/api/sessions/{name}", Tags: tags,
		Summary: "Show a session", Errors: []int{404}}, a.get)
	route(a, Operator, huma.Operation{OperationID: "patch-session", Method: http.MethodPatch, Path: "/api/sessions/{name}", Tags: tags,
		Summary: "Change a session's settings", DefaultStatus: http.StatusAccepted, Errors: []int{400, 404, 409, 412, 413, 415},
		Description: "With If-Match only if the session is still at that version."}, a.patch)
	route(a, Admin, huma.Operation{OperationID: "delete-session", Method: http.MethodDelete, Path: "/api/sessions/{name}", Tags: tags,
		Summary: "Delete a session", DefaultStatus: http.StatusAccepted, Errors: []int{404, 409, 412},
		Description: "Unlinks it at WhatsApp where it can, destroys its credentials, and removes all of its records."}, a.remove)
}

type createInput struct {
	KeyParam
	Body CreateSession
}

func (a *API) create(ctx context.Context, in *createInput) (*changedOutput, error) {
	name := in.Body.Name
	if err := state.CheckName(name); err != nil {
		return nil, invalid("body.name", "%s", strings.TrimPrefix(err.Error(), state.ErrName.Error()+": "))
	}
	settings := state.SessionSettings(in.Body.Settings)
	if err := a.checkSettings(settings); err != nil {
		return nil, err
	}
	now := a.cfg.Now().UTC()
	wanted := in.Body.Wanted
	if wanted == "" {
		wanted = state.WantRunning
	}
	spec := state.Spec{V: state.Format, Name: name, Wanted: wanted, Generation: 1, CreatedAt: now, ChangedAt: now}
	if err := a.sealSettings(&spec, settings); err != nil {
		return nil, err
	}
	s := stored{owner: state.Owner{Session: name}, spec: spec, settings: settings}
	verb := state.VerbStart
	if wanted == state.WantStopped {
		verb = state.VerbStop
	}
	id := a.newID()
	if in.Key != "" {
		id = keyedID(name, in.Key)
	}
	o := order{verb: verb, action: "create", args: generationArg(spec)}
	o.args[requestArg] = in.Body.Settings.fingerprint(wanted)
	c, writes, err := a.ordered(ctx, s, id, o, "", "wanted "+string(wanted))
	if err != nil {
		return nil, err
	}
	w, err := specWrite(spec)
	if err != nil {
		return nil, err
	}
	if err := a.cfg.Store.CreateSession(ctx, name, append(writes, w)); err != nil {
		if errors.Is(err, state.ErrExists) {
			if in.Key != "" {
				if before, err := a.command(ctx, name, id); err == nil { // made by this request, which is repeated
					if !o.sameArgs(before) {
						return nil, keyUsed(verb)
					}
					return a.created(ctx, name, id)
				}
			}
			p := problem(CodeExists, "body.name: there is a session %q already", name)
			p.Errors = []Fault{{Field: "body.name", Message: "is taken"}}
			return nil, p
		}
		return nil, err
	}
	a.told(name)
	return a.created(ctx, name, c.ID)
}

// created is the answer to the creation of a session.
func (a *API) created(ctx context.Context, name, command string) (*changedOutput, error) {
	s, err := a.read(ctx, name)
	if err != nil {
		return nil, err
	}
	return &changedOutput{Status: http.StatusAccepted, ETag: etag(s.spec), Location: "/api/sessions/" + name,
		Body: ChangedSession{a.view(ctx, s), state.CommandRef(name, command)}}, nil
}

type listInput struct {
	State  string `query:"state" maxLength:"32" doc:"only those in this state"`
	Cause  string `query:"cause" maxLength:"64" doc:"only those with this cause"`
	Owner  string `query:"owner" maxLength:"128" doc:"only those that this worker incarnation has"`
	Limit  int    `query:"limit" minimum:"1" maximum:"500" default:"100"`
	Cursor string `query:"cursor" maxLength:"128" doc:"next of the page before"`
}

// scanned is how many sessions one filtered request looks at, at most.
const scanned = 2000

func (a *API) list(ctx context.Context, in *listInput) (*struct{ Body SessionPage }, error) {
	if in.State != "" && !contains(state.States(), state.State(in.State)) {
		return nil, invalid("query.state", "is no state; use one of %v", state.States())
	}
	if in.Cause != "" && !contains(state.Causes(), state.Cause(in.Cause)) {
		return nil, invalid("query.cause", "is no cause; use one of %v", state.Causes())
	}
	after, err := fromCursor(in.Cursor)
	if err != nil {
		return nil, err
	}
	page := SessionPage{Sessions: []Session{}}
	for seen := 0; ; {
		owners, err := a.cfg.Store.Sessions(ctx, after, min(in.Limit, 100))
		if err != nil {
			return nil, err
		}
		if len(owners) == 0 {
			return &struct{ Body SessionPage }{page}, nil
		}
		found, err := a.readAll(ctx, owners, in.Owner)
		if err != nil {
			return nil, err
		}
		for i, s := range found {
			after = owners[i].Session
			seen++
			if s == nil {
				continue
			}
			v := a.view(ctx, *s)
			if in.State != "" && v.State != state.State(in.State) || in.Cause != "" && v.Cause != state.Cause(in.Cause) {
				continue
			}
			page.Sessions = append(page.Sessions, v)
			if len(page.Sessions) == in.Limit {
				break
			}
		}
		if len(page.Sessions) == in.Limit || seen >= scanned {
			more, err := a.cfg.Store.Sessions(ctx, after, 1)
			if err != nil {
				return nil, err
			}
			if len(more) > 0 {
				page.Next = toCursor(after)
			}
			return &struct{ Body SessionPage }{page}, nil
		}
	}
}

// readAll reads sessions, some at a time; nil for those that are gone or that
// somebody else than owner has, where owner is not empty.
func (a *API) readAll(ctx context.Context, owners []state.Owner, owner string) ([]*stored, error) {
	found := make([]*stored, len(owners))
	errs := make([]error, len(owners))
	places := make(chan struct{}, 8)
	var all sync.WaitGroup
	for i, o := range owners {
		if owner != "" && o.Incarnation != owner {
			continue
		}
		places <- struct{}{}
		all.Go(func() {
			defer func() { <-places }()
			s, err := a.readOwned(ctx, o)
			switch {
			case errors.Is(err, state.ErrNotFound):
			case errors.Is(err, state.ErrCorrupt):
				found[i] = &stored{owner: o, spec: state.Spec{Name: o.Session}, bad: []string{"spec"}}
			case err != nil:
				errs[i] = err
			default:
				found[i] = &s
			}
		})
	}
	all.Wait()
	return found, errors.Join(errs...)
}

func contains[T comparable](list []T, item T) bool {
	for _, x := range list {
		if x == item {
			return true
		}
	}
	return false
}

func toCursor(s string) string { return base64.RawURLEncoding.EncodeToString([]byte(s)) }

func fromCursor(c string) (string, error) {
	b, err := base64.RawURLEncoding.DecodeString(c)
	if err != nil {
		return "", invalid("query.cursor", "is not the next of a page before")
	}
	return string(b), nil
}

func (a *API) get(ctx context.Context, in *SessionPath) (*sessionOutput, error) {
	s, err := a.read(ctx, in.Name)
	if err != nil {
		return nil, err
	}
	return &sessionOutput{ETag: etag(s.spec), Body: a.view(ctx, s)}, nil
}

type patchInput struct {
	SessionPath
	KeyParam
	MatchParam
	Body PatchSession
}

func (a *API) patch(ctx context.Context, in *patchInput) (*changedOutput, error) {
	var after stored
	args := map[string]string{requestArg: in.Body.Settings.fingerprint()}
	c, err := a.carry(ctx, in.Name, order{verb: state.VerbReconcile, key: in.Key, match: in.IfMatch, action: "patch", args: args}, func(s *stored) ([]state.Write, string, string, error) {
		if contains(s.bad, "settings") {
			return nil, "", "", fmt.Errorf("settings of %q: %w", in.Name, state.ErrCorrupt)
		}
		settings := patched(s.settings, in.Body.Settings)
		if err := a.checkSettings(settings); err != nil {
			return nil, "", "", err
		}
		a.advance(s)
		s.settings = settings
		if err := a.sealSettings(&s.spec, settings); err != nil {
			return nil, "", "", err
		}
		after = *s
		maps.Copy(args, generationArg(s.spec))
		return nil, "", "settings: " + strings.Join(named(in.Body.Settings), ", "), nil
	})
	if err != nil {
		return nil, err
	}
	if after.spec.V == 0 { // a repetition
		if after, err = a.read(ctx, in.Name); err != nil {
			return nil, err
		}
	}
	return &changedOutput{Status: http.StatusAccepted, ETag: etag(after.spec), Body: ChangedSession{a.view(ctx, after), state.CommandRef(in.Name, c.ID)}}, nil
}

// advance marks the spec as changed.
func (a *API) advance(s *stored) {
	s.spec.Generation++
	s.spec.ChangedAt = a.cfg.Now().UTC()
}

// generationArg tells the owner which generation a command is about: it is done
// when that one is observed.
func generationArg(spec state.Spec) map[string]string {
	return map[string]string{"generation": strconv.FormatUint(spec.Generation, 10)}
}

type removeInput struct {
	SessionPath
	WaitParam
	KeyParam
	MatchParam
}

// removeUnreadable asks for the end of a session whose spec cannot be read: there
// is nothing to change in it, so the command alone is put.
func (a *API) removeUnreadable(ctx context.Context, name string, wait time.Duration) (*commandOutput, error) {
	owner, err := a.cfg.Store.Owner(ctx, name)
	if err != nil {
		return nil, err
	}
	c, writes, err := a.ordered(ctx, stored{owner: owner, spec: state.Spec{Name: name}}, a.newID(), order{verb: state.VerbDelete}, "unreadable", "deleted")
	if err != nil {
		return nil, err
	}
	if err := a.auditFleet(ctx, "delete", "session "+name, "deleted, unreadable as it was"); err != nil {
		return nil, err
	}
	if err := a.cfg.Store.Update(ctx, state.OfSession(name), writes); err != nil {
		return nil, err
	}
	a.told(name)
	v, err := a.carried(ctx, c, wait)
	return &commandOutput{Status: http.StatusAccepted, Body: v}, err
}

func (a *API) remove(ctx context.Context, in *removeInput) (*commandOutput, error) {
	wait, err := in.duration()
	if err != nil {
		return nil, err
	}
	s, err := a.read(ctx, in.Name)
	if errors.Is(err, state.ErrCorrupt) {
		return a.removeUnreadable(ctx, in.Name, wait)
	}
	if err != nil {
		return nil, err
	}
	if err := checkVersion(in.IfMatch, s.spec); err != nil {
		return nil, err
	}
	// The session's own audit goes with it.
	if err := a.auditFleet(ctx, "delete", "session "+in.Name+", wanted "+string(s.spec.Wanted), "deleted"); err != nil {
		return nil, err
	}
	if s.owner.Incarnation == "" && !s.status.Paired && s.meta.Credential == nil && len(s.meta.Quarantined) == 0 && !contains(s.bad, "meta") {
		// Nobody has it and there is nothing to unlink or destroy.
		if err := a.cfg.Store.RemoveSession(ctx, s.owner.Fence()); err == nil {
			a.purgeUploads(ctx, in.Name)
			a.told(in.Name)
			now := a.cfg.Now().UTC()
			a.cfg.Log.Info("session deleted", "session", in.Name, "by", caller(ctx).name)
			return &commandOutput{Status: http.StatusAccepted, Body: Command{ID: state.CommandRef(in.Name, a.newID()), Session: in.Name, Verb: state.VerbDelete,
				State: state.CommandDone, By: caller(ctx).name, At: now, ExpiresAt: now, EndedAt: now, Result: "deleted"}}, nil
		} else if !errors.Is(err, state.ErrFenced) {
			return nil, err
		}
	}
	c, err := a.carry(ctx, in.Name, order{verb: state.VerbDelete, key: in.Key}, func(s *stored) ([]state.Write, string, string, error) {
		before := "wanted " + string(s.spec.Wanted)
		if s.spec.Wanted != state.WantDisconnected {
			s.spec.Wanted = state.WantDisconnected
			a.advance(s)
		}
		return nil, before, "deleted", nil
	})
	if err != nil {
		return nil, err
	}
	v, err := a.carried(ctx, c, wait)
	return &commandOutput{Status: http.StatusAccepted, Body: v}, err
}
