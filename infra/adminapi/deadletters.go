package adminapi

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"github.com/holdfast-wa/holdfast/state"
)

// DeadLetter is an event that a receiver refused for good.
type DeadLetter struct {
	ID      string          `json:"id"`
	Sink    string          `json:"sink" example:"webhook"`
	Seq     uint64          `json:"seq"`
	EventID string          `json:"eventId"`
	Type    state.EventType `json:"type"`
	At      time.Time       `json:"at" doc:"of the event"`
	DiedAt  time.Time       `json:"diedAt"`
	Status  int             `json:"status,omitempty" doc:"HTTP status of the refusal"`
	Reason  string          `json:"reason"`
	Tries   int             `json:"tries"`
	Corrupt bool            `json:"corrupt,omitempty" doc:"the stored event cannot be opened"`
}

// DeadLetterPage is a page of dead letters in order of seq.
type DeadLetterPage struct {
	DeadLetters []DeadLetter `json:"deadLetters" nullable:"false"`
	Next        string       `json:"next,omitempty"`
}

type deadLettersInput struct {
	SessionPath
	PageParams
}

type redriveInput struct {
	VerbParams
	ID string `path:"id" maxLength:"128" doc:"of the dead letter"`
}

func (a *API) deadLetterRoutes() {
	tags := []string{"Dead letters"}
	route(a, Viewer, huma.Operation{OperationID: "list-dead-letters", Method: http.MethodGet, Path: "/api/sessions/{name}/dead-letters", Tags: tags,
		Summary: "List events that a receiver refused for good", Errors: []int{404}}, a.deadLetters)
	route(a, Operator, huma.Operation{OperationID: "redrive-dead-letters", Method: http.MethodPost, Path: "/api/sessions/{name}/dead-letters/redrive", Tags: tags,
		Summary: "Deliver all dead letters again", DefaultStatus: http.StatusAccepted, Errors: []int{404, 409, 412}},
		func(ctx context.Context, in *VerbParams) (*commandOutput, error) {
			return a.order(ctx, *in, order{verb: state.VerbRedrive}, func(*stored) ([]state.Write, string, string, error) {
				return nil, "", "all dead letters", nil
			})
		})
	route(a, Operator, huma.Operation{OperationID: "redrive-dead-letter", Method: http.MethodPost, Path: "/api/sessions/{name}/dead-letters/{id}/redrive", Tags: tags,
		Summary: "Deliver a dead letter again", DefaultStatus: http.StatusAccepted, Errors: []int{404, 409, 412}}, a.redrive)
}

func (a *API) deadLetters(ctx context.Context, in *deadLettersInput) (*struct{ Body DeadLetterPage }, error) {
	if _, err := a.cfg.Store.Owner(ctx, in.Name); err != nil {
		return nil, fmt.Errorf("session %q: %w", in.Name, err)
	}
	after, err := fromCursor(in.Cursor)
	if err != nil {
		return nil, err
	}
	got, err := a.cfg.Store.Query(ctx, state.OfSession(in.Name), state.Query{Kind: state.KindDead, After: after, Limit: in.Limit})
	if err != nil {
		return nil, err
	}
	page := DeadLetterPage{DeadLetters: []DeadLetter{}}
	for _, r := range got.Records {
		var d state.DeadLetter
		if err := state.Decode(r.Value, &d); err != nil {
			d = state.DeadLetter{Reason: "the record cannot be read", Corrupt: true}
		}
		page.DeadLetters = append(page.DeadLetters, DeadLetter{ID: r.Key.ID, Sink: d.Sink, Seq: d.Seq, EventID: d.EventID, Type: d.Type,
			At: d.At, DiedAt: d.DiedAt, Status: d.Status, Reason: d.Reason, Tries: d.Tries, Corrupt: d.Corrupt})
		if got.More {
			page.Next = toCursor(r.Key.ID)
		}
	}
	return &struct{ Body DeadLetterPage }{page}, nil
}

func (a *API) redrive(ctx context.Context, in *redriveInput) (*commandOutput, error) {
	_, err := a.cfg.Store.Get(ctx, state.OfSession(in.Name), state.Key{Kind: state.KindDead, ID: in.ID})
	if err != nil {
		if errors.Is(err, state.ErrNotFound) {
			return nil, fmt.Errorf("dead letter %q of %q: %w", in.ID, in.Name, err)
		}
		return nil, err
	}
	o := order{verb: state.VerbRedrive, args: map[string]string{"deadLetter": in.ID}}
	return a.order(ctx, in.VerbParams, o, func(*stored) ([]state.Write, string, string, error) {
		return nil, "", "dead letter " + in.ID, nil
	})
}
