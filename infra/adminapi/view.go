package adminapi

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"time"

	"github.com/holdfast-wa/holdfast/infra/fleet"
	"github.com/holdfast-wa/holdfast/state"
	"github.com/holdfast-wa/holdfast/state/seal"
)

// Session is a session as the API shows it.
type Session struct {
	Name   string       `json:"name"`
	Wanted state.Wanted `json:"wanted" enum:"running,stopped,disconnected" doc:"what the operator wants"`
	State  state.State  `json:"state" doc:"what it is; unowned where no live worker has it"`
	Cause  state.Cause  `json:"cause,omitempty" doc:"why, where it is not as it should be"`
	Code   int          `json:"code,omitempty" doc:"WhatsApp's number for the cause"`
	Text   string       `json:"text,omitempty" doc:"WhatsApp's own words for the cause"`
	Since  time.Time    `json:"since,omitzero"`
	Health state.Health `json:"health,omitempty" doc:"healthy, unhealthy or dead"`
	Paired bool         `json:"paired"`

	Attempt         int       `json:"attempt" doc:"redials since the last connection that lasted"`
	NextAttemptAt   time.Time `json:"nextAttemptAt,omitzero"`
	CooldownUntil   time.Time `json:"cooldownUntil,omitzero" doc:"no pairing before this"`
	RestrictedUntil time.Time `json:"restrictedUntil,omitzero" doc:"no messages to new chats before this"`
	Decision        string    `json:"decision,omitempty" doc:"the last decision, in words"`
	Phase           string    `json:"phase,omitempty"`

	LastConnectedAt time.Time `json:"lastConnectedAt,omitzero"`
	LastPongAt      time.Time `json:"lastPongAt,omitzero"`
	LastInboundAt   time.Time `json:"lastInboundAt,omitzero"`
	LastActivityAt  time.Time `json:"lastActivityAt,omitzero"`
	LastStallAt     time.Time `json:"lastStallAt,omitzero"`
	ObservedAt      time.Time `json:"observedAt,omitzero" doc:"how fresh these times are"`
	FailuresInARow  int       `json:"failuresInARow"`
	Undecryptable   int       `json:"undecryptable" doc:"in the last 10 minutes"`
	LastSeq         uint64    `json:"lastSeq" doc:"of its events, when the status was written"`

	Owner   string         `json:"owner,omitempty" doc:"the worker incarnation that has it"`
	OwnerIs fleet.Standing `json:"ownerIs" enum:"alive,stale,dead,unknown,nobody" doc:"what its owner is; stale: its heartbeat has not moved for long enough that others may be about to take over"`
	Epoch   uint64         `json:"epoch" doc:"grows with each change of the owner"`

	JID           string    `json:"jid,omitempty"`
	LID           string    `json:"lid,omitempty"`
	PushName      string    `json:"pushName,omitempty"`
	Platform      string    `json:"platform,omitempty"`
	PhoneLastSeen time.Time `json:"phoneLastSeen,omitzero" doc:"WhatsApp unlinks a device whose phone is away for 14 days"`
	PhoneAbsent   bool      `json:"phoneAbsent,omitempty" doc:"the phone was not seen for 12 days: switch it on"`

	Day         Span                `json:"day" doc:"the last 24 hours"`
	Week        Span                `json:"week" doc:"the last 7 days"`
	Disconnects map[state.Cause]int `json:"disconnects,omitempty" doc:"since it was created, by cause"`

	Generation         uint64    `json:"generation" doc:"of what is wanted; grows with every change"`
	ObservedGeneration uint64    `json:"observedGeneration" doc:"that the owner has carried out"`
	RepairGeneration   uint64    `json:"repairGeneration"`
	RepairObserved     uint64    `json:"repairObserved"`
	CreatedAt          time.Time `json:"createdAt"`
	ChangedAt          time.Time `json:"changedAt"`

	Settings    SettingsView  `json:"settings"`
	Quarantined []Quarantined `json:"quarantined,omitempty" doc:"credentials that restore can bring back"`
	Unreadable  []string      `json:"unreadable,omitempty" doc:"records of it that cannot be opened"`
}

// SettingsView are a session's own settings without its secrets.
type SettingsView struct {
	Profile          string            `json:"profile,omitempty"`
	Override         map[string]string `json:"override,omitempty"`
	Proxy            string            `json:"proxy,omitempty" doc:"without its password"`
	WebhookURL       string            `json:"webhookUrl,omitempty" doc:"without query and password for viewers"`
	WebhookSecretSet bool              `json:"webhookSecretSet"`
	Labels           map[string]string `json:"labels,omitempty"`
}

// Quarantined is one set of credentials that was taken out of use.
type Quarantined struct {
	Cause state.Cause `json:"cause"`
	At    time.Time   `json:"at"`
	Until time.Time   `json:"until" doc:"then it is destroyed"`
}

// stored is what is read of a session to show or change it.
type stored struct {
	owner    state.Owner
	spec     state.Spec
	specRev  uint64
	settings state.SessionSettings
	status   state.Status
	known    bool // there is a status
	meta     state.Meta
	identity state.Identity
	bad      []string // what could not be opened
}

// read reads a session. ErrNotFound if there is none.
func (a *API) read(ctx context.Context, name string) (stored, error) {
	owner, err := a.cfg.Store.Owner(ctx, name)
	if err != nil {
		if errors.Is(err, state.ErrNotFound) {
			return stored{}, fmt.Errorf("session %q: %w", name, state.ErrNotFound)
		}
		return stored{}, err
	}
	return a.readOwned(ctx, owner)
}

func (a *API) readOwned(ctx context.Context, owner state.Owner) (stored, error) {
	s := stored{owner: owner}
	p := state.OfSession(owner.Session)
	records, err := a.cfg.Store.GetMany(ctx, p, []state.Key{{Kind: state.KindSpec}, {Kind: state.KindStatus}, {Kind: state.KindMeta}})
	if err != nil {
		return s, err
	}
	hasSpec := false
	for _, r := range records {
		switch r.Key.Kind {
		case state.KindSpec:
			if err := state.Decode(r.Value, &s.spec); err != nil {
				return s, fmt.Errorf("session %q: spec: %w", owner.Session, err)
			}
			s.specRev, hasSpec = r.Rev, true
		case state.KindStatus:
			if err := state.Decode(r.Value, &s.status); err != nil {
				s.bad = append(s.bad, "status")
				s.status = state.Status{}
			} else {
				s.known = true
			}
		case state.KindMeta:
			if err := state.Decode(r.Value, &s.meta); err != nil {
				s.bad = append(s.bad, "meta")
				s.meta = state.Meta{}
			}
		}
	}
	if !hasSpec {
		return s, fmt.Errorf("session %q: has no spec: %w", owner.Session, state.ErrNotFound)
	}
	if len(s.spec.Settings) > 0 && a.openJSON(seal.Place{Partition: p, Kind: state.KindSpec}, s.spec.Settings, &s.settings) != nil {
		s.bad = append(s.bad, "settings")
	}
	if len(s.status.Sealed) > 0 && a.openJSON(seal.Place{Partition: p, Kind: state.KindStatus}, s.status.Sealed, &s.identity) != nil {
		s.bad = append(s.bad, "identity")
	}
	return s, nil
}

func (a *API) openJSON(place seal.Place, sealed []byte, into any) error {
	plain, err := a.cfg.Fleet.Open(place, sealed)
	if err != nil {
		return err
	}
	if err := json.Unmarshal(plain, into); err != nil {
		return fmt.Errorf("%w: %s", state.ErrCorrupt, place)
	}
	return nil
}

func (a *API) sealJSON(place seal.Place, v any) ([]byte, error) {
	plain, err := json.Marshal(v)
	if err != nil {
		return nil, fmt.Errorf("encoding for %s: %w", place, err)
	}
	return a.cfg.Fleet.Seal(place, plain)
}

// standing is what the owner of a session is. A roster that cannot be read says
// nothing against the owner.
func (a *API) standing(ctx context.Context, owner string) fleet.Standing {
	if owner == "" {
		return fleet.Nobody
	}
	if a.cfg.Alive(owner) {
		return fleet.Alive
	}
	st, err := a.cfg.View.Standing(ctx, owner)
	if err != nil {
		a.cfg.Log.Debug("the roster could not be read", "error", err)
		return fleet.Alive
	}
	return st
}

// shown is the state to show: the stored one, or unowned where nobody alive has
// a session that ought to run.
func (a *API) shown(s stored, owner fleet.Standing) state.State {
	switch {
	case owner != fleet.Alive && s.spec.Wanted == state.WantRunning:
		return state.Unowned
	case s.known:
		return s.status.State
	case s.spec.Wanted == state.WantStopped:
		return state.Stopped
	}
	return state.Unpaired
}

// view shows a session to a caller.
func (a *API) view(ctx context.Context, s stored) Session {
	now := a.cfg.Now().UTC()
	st, id := s.status, s.identity
	recorded := s.status // the hours in it reach to when it was observed
	if a.cfg.Live != nil {
		live, ok := a.cfg.Live(s.owner.Session)
		if ok && (live.Cause == state.CauseStoreUnavailable || live.State == state.Failing && st.State != state.Failing) {
			// The record cannot say so: it is what could not be written or read.
			st.State, st.Cause, st.Code, st.Health, st.ObservedAt = live.State, live.Cause, 0, live.Health, live.ObservedAt
			if live.Decision != "" {
				st.Decision = live.Decision
			}
			s.status.State, s.known = live.State, true
		} else if ok && live.State == st.State && live.ObservedAt.After(st.ObservedAt) {
			st.Health, st.ObservedAt = live.Health, live.ObservedAt
			st.LastPongAt, st.LastInboundAt, st.LastActivityAt = live.LastPongAt, live.LastInboundAt, live.LastActivityAt
			st.FailuresInARow, st.Undecryptable = live.FailuresInARow, live.Undecryptable
		}
	}
	standing := a.standing(ctx, s.owner.Incarnation)
	shown := a.shown(s, standing)
	online := shown == state.Online
	v := Session{
		Name: s.owner.Session, Wanted: s.spec.Wanted, State: shown, Cause: st.Cause, Code: st.Code, Text: id.Text,
		Since: st.Since, Health: st.Health, Paired: st.Paired,
		Attempt: st.Attempt, NextAttemptAt: st.NextAttemptAt, CooldownUntil: st.CooldownUntil,
		RestrictedUntil: st.RestrictedUntil, Decision: st.Decision, Phase: st.Phase,
		LastConnectedAt: st.LastConnectedAt, LastPongAt: st.LastPongAt, LastInboundAt: st.LastInboundAt,
		LastActivityAt: st.LastActivityAt, LastStallAt: st.LastStallAt, ObservedAt: st.ObservedAt,
		FailuresInARow: st.FailuresInARow, Undecryptable: st.Undecryptable, LastSeq: st.LastSeq,
		Owner: s.owner.Incarnation, OwnerIs: standing, Epoch: s.owner.Epoch,
		JID: id.JID, LID: id.LID, PushName: id.PushName, Platform: id.Platform, PhoneLastSeen: id.PhoneLastSeen,
		PhoneAbsent: st.Paired && !id.PhoneLastSeen.IsZero() && now.Sub(id.PhoneLastSeen) > 12*24*time.Hour,
		Day:         spanOf(recorded, s.spec.CreatedAt, now, 24*time.Hour, online),
		Week:        spanOf(recorded, s.spec.CreatedAt, now, 7*24*time.Hour, online),
		Disconnects: st.Disconnects,
		Generation:  s.spec.Generation, ObservedGeneration: st.ObservedGeneration,
		RepairGeneration: s.spec.RepairGeneration, RepairObserved: st.RepairObserved,
		CreatedAt: s.spec.CreatedAt, ChangedAt: s.spec.ChangedAt,
		Settings:   settingsView(s.settings, caller(ctx).role),
		Unreadable: s.bad,
	}
	if shown == state.Unowned {
		v.Health = ""
	}
	for _, q := range s.meta.Quarantined {
		if q.Until.After(now) {
			v.Quarantined = append(v.Quarantined, Quarantined{Cause: q.Cause, At: q.At, Until: q.Until})
		}
	}
	return v
}

func settingsView(s state.SessionSettings, role Role) SettingsView {
	v := SettingsView{Profile: s.Profile, Override: s.Override, Labels: s.Labels, WebhookSecretSet: s.WebhookSecret != "", WebhookURL: s.WebhookURL}
	if u, err := url.Parse(s.Proxy); err == nil {
		v.Proxy = u.Redacted()
	}
	if role < Operator && s.WebhookURL != "" {
		v.WebhookURL = ""
		if u, err := url.Parse(s.WebhookURL); err == nil {
			v.WebhookURL = u.Scheme + "://" + u.Host + "/…"
		}
	}
	return v
}
