package adminapi

import (
	"cmp"
	"context"
	"fmt"
	"net/http"
	"slices"
	"sync"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"github.com/holdfast-wa/holdfast/state"
)

// keepAudit is how long it is kept who did what.
const keepAudit = 400 * 24 * time.Hour

// AuditEntry is one act of somebody.
type AuditEntry struct {
	At      time.Time `json:"at"`
	By      string    `json:"by" doc:"the API key, or whom the gateway vouched for"`
	Role    string    `json:"role"`
	Action  string    `json:"action" example:"repair"`
	Session string    `json:"session,omitempty" doc:"absent: it was done to the fleet"`
	Before  string    `json:"before,omitempty"`
	After   string    `json:"after,omitempty"`
}

// AuditPage is a page of the audit, the newest first.
type AuditPage struct {
	Entries []AuditEntry `json:"entries" nullable:"false"`
	Next    string       `json:"next,omitempty" doc:"cursor of the next page; absent on the last one"`
}

type auditInput struct {
	PageParams
	Session string `query:"session" maxLength:"63" doc:"only what was done to this session; without it that of all there are, and of the fleet"`
	By      string `query:"by" maxLength:"128" doc:"only what this key did"`
	Action  string `query:"action" maxLength:"64" doc:"only this"`
}

func (a *API) auditRoutes() {
	route(a, Admin, huma.Operation{OperationID: "list-audit", Method: http.MethodGet, Path: "/api/audit", Tags: []string{"Access"},
		Summary: "Who did what, the newest first", Errors: []int{404},
		Description: "Kept for 400 days; what was done to a session goes with it, but that it was deleted stays. A filtered page may be short, or empty, and still have a next one."}, a.audits)
}

// audit makes the record of an act.
func (a *API) audit(who principal, now time.Time, action, before, after string) (state.Write, error) {
	value, err := state.Encode(state.Audit{V: state.Format, At: now, By: who.name, Role: who.role.String(), Action: action, Before: before, After: after})
	if err != nil {
		return state.Write{}, err
	}
	w := state.Put(state.KindAudit, now.Format("2006-01-02T15:04:05.000Z")+"#"+a.newID(), value)
	w.Expires = now.Add(keepAudit)
	return w, nil
}

// audited is an act with the place of its record, by which pages go on.
type audited struct {
	id string
	AuditEntry
}

func (a *API) audits(ctx context.Context, in *auditInput) (*struct{ Body AuditPage }, error) {
	before, err := fromCursor(in.Cursor)
	if err != nil {
		return nil, err
	}
	var mu sync.Mutex
	var found []audited
	floor := "" // the lowest id down to which a partition was looked through, the highest of all
	look := func(p state.Partition) error {
		got, end, err := a.auditsOf(ctx, p, before, in)
		mu.Lock()
		defer mu.Unlock()
		found = append(found, got...)
		floor = max(floor, end)
		return err
	}
	if in.Session != "" {
		if _, err := a.cfg.Store.Owner(ctx, in.Session); err != nil {
			return nil, fmt.Errorf("session %q: %w", in.Session, err)
		}
		err = look(state.OfSession(in.Session))
	} else if err = look(state.Fleet); err == nil {
		err = a.eachSession(ctx, func(name string) error { return look(state.OfSession(name)) })
	}
	if err != nil {
		return nil, err
	}
	slices.SortFunc(found, func(x, y audited) int { return cmp.Compare(y.id, x.id) })
	page := AuditPage{Entries: []AuditEntry{}}
	for _, e := range found {
		if e.id < floor {
			break // somewhere else there may be what is newer
		}
		if len(page.Entries) == in.Limit {
			break
		}
		page.Entries = append(page.Entries, e.AuditEntry)
		before = e.id
	}
	switch {
	case len(page.Entries) == in.Limit && len(found) > in.Limit:
		page.Next = toCursor(before)
	case floor != "":
		page.Next = toCursor(floor)
	}
	return &struct{ Body AuditPage }{page}, nil
}

// auditsOf reads the acts of a partition before an id, one more than a page. end is
// where it stopped looking though there is more; empty: it has seen all.
func (a *API) auditsOf(ctx context.Context, p state.Partition, before string, in *auditInput) (found []audited, end string, err error) {
	session, of := p.Session()
	if !of {
		session = ""
	}
	q := state.Query{Kind: state.KindAudit, After: before, Descending: true, Limit: in.Limit + 1}
	for looked := 0; ; {
		got, err := a.cfg.Store.Query(ctx, p, q)
		if err != nil {
			return nil, "", err
		}
		for i, r := range got.Records {
			q.After = r.Key.ID
			looked++
			var e state.Audit
			if state.Decode(r.Value, &e) != nil || in.By != "" && e.By != in.By || in.Action != "" && e.Action != in.Action {
				continue
			}
			found = append(found, audited{r.Key.ID, AuditEntry{At: e.At, By: e.By, Role: e.Role, Action: e.Action, Session: session, Before: e.Before, After: e.After}})
			if len(found) > in.Limit {
				if got.More || i+1 < len(got.Records) {
					return found, r.Key.ID, nil
				}
				return found, "", nil
			}
		}
		if !got.More || len(got.Records) == 0 {
			return found, "", nil
		}
		if looked >= scanned {
			return found, q.After, nil
		}
	}
}
