package main

import (
	"context"
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/holdfast-wa/holdfast/state"
	"github.com/holdfast-wa/holdfast/state/device"
	"github.com/holdfast-wa/holdfast/state/journal"
	"github.com/holdfast-wa/holdfast/state/media"
	"github.com/holdfast-wa/holdfast/state/seal"
)

// verifyPage is how many sessions are listed at a time.
const verifyPage = 500

// Verified is what verify found out about one session.
type Verified struct {
	Session  string          `json:"session"`
	OK       bool            `json:"ok"`
	Findings []VerifyFinding `json:"findings"`
}

// VerifyFinding is a record or an object that is not as it should be.
type VerifyFinding struct {
	Where   string `json:"where"`
	Problem string `json:"problem"`
}

func (a *app) verifyCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "verify [SESSION]",
		Short: "Read and open everything that is kept of a session, or of all; on a SQLite file holdfast must be stopped",
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) > 1 {
				return fmt.Errorf("%s: takes one session or none and has %d arguments; run it once for each", path(cmd), len(args))
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			cfg, err := a.config(cmd, nil)
			if err != nil {
				return err
			}
			found, err := verify(cmd.Context(), cfg, args)
			if err != nil {
				return err
			}
			return a.printVerified(found)
		},
	}
	settingFlags(cmd, storeSettings)
	a.jsonFlag(cmd)
	return cmd
}

// verify looks through the named sessions, or all, on the store itself. It
// takes the lock of a data folder with a SQLite file. On another store workers may
// run meanwhile: what they have just changed may then be told of as damaged.
func verify(ctx context.Context, cfg Config, names []string) ([]Verified, error) {
	if info := sealedAlready(cfg); cfg.State.Scheme == "sqlite" && info == "" {
		return nil, fmt.Errorf("verify: %s is not there or is empty; check --data-dir and --state", cfg.State.Path)
	}
	o, err := openTool(ctx, cfg, alone)
	if err != nil {
		return nil, err
	}
	defer o.close()
	if len(names) == 0 {
		if names, err = sessionNames(ctx, o.store); err != nil {
			return nil, err
		}
	}
	all := []Verified{}
	for _, name := range names {
		findings, err := verifyOne(ctx, device.Config{Store: o.store, Vault: o.vault, Master: o.master, Session: name}, o.keyset)
		if err != nil {
			return nil, fmt.Errorf("verify %s: %w", name, err)
		}
		v := Verified{Session: name, OK: len(findings) == 0, Findings: []VerifyFinding{}}
		for _, f := range findings {
			v.Findings = append(v.Findings, VerifyFinding{f.Where, oneLine(f.Problem)})
		}
		all = append(all, v)
	}
	return all, nil
}

// unwritten is a store that takes writes and does nothing with them: looking must
// not change what another process owns.
type unwritten struct{ state.Store }

func (unwritten) Commit(context.Context, state.Fence, string, []state.Write) error { return nil }

func (unwritten) Update(context.Context, state.Partition, []state.Write) error { return nil }

// verifyOne looks through one session. The journal is there for the events.
func verifyOne(ctx context.Context, c device.Config, fleet *seal.Keyset) ([]device.Finding, error) {
	c.Store = unwritten{c.Store}
	owner, err := c.Store.Owner(ctx, c.Session)
	if err != nil {
		return nil, err
	}
	c.Journal, err = journal.Open(ctx, journal.Config{Store: c.Store, Fence: owner.Fence(), Fleet: fleet})
	if err != nil {
		return nil, err
	}
	defer c.Journal.Close()
	findings, err := device.Verify(ctx, c)
	if err != nil {
		return nil, err
	}
	uploads, err := verifyUploads(ctx, c, fleet)
	return append(findings, uploads...), err
}

// verifyUploads opens the files that wait to be sent.
func verifyUploads(ctx context.Context, c device.Config, fleet *seal.Keyset) ([]device.Finding, error) {
	shelf := media.Shelf{Store: c.Store, Vault: c.Vault, Fleet: fleet}
	var findings []device.Finding
	for q := (state.Query{Kind: state.KindMedia}); ; {
		page, err := c.Store.Query(ctx, state.OfSession(c.Session), q)
		if err != nil {
			return nil, err
		}
		for _, r := range page.Records {
			q.After = r.Key.ID
			_, _, err := shelf.Open(ctx, c.Session, r.Key.ID)
			switch {
			case errors.Is(err, state.ErrCorrupt), errors.Is(err, state.ErrNotFound):
				findings = append(findings, device.Finding{Where: r.Key.String(), Problem: err.Error(), Err: err})
			case err != nil:
				return nil, err
			}
		}
		if !page.More || len(page.Records) == 0 {
			return findings, nil
		}
	}
}

func sessionNames(ctx context.Context, store state.Owners) ([]string, error) {
	var names []string
	for after := ""; ; {
		page, err := store.Sessions(ctx, after, verifyPage)
		if err != nil {
			return nil, fmt.Errorf("listing sessions: %w", err)
		}
		for _, o := range page {
			names = append(names, o.Session)
			after = o.Session
		}
		if len(page) < verifyPage {
			return names, nil
		}
	}
}

// printVerified shows what was found; anything at all is exit code 1.
func (a *app) printVerified(all []Verified) error {
	damaged := 0
	for _, v := range all {
		if !v.OK {
			damaged++
		}
	}
	switch {
	case a.asJSON:
		if err := printJSON(a.io.Out, all); err != nil {
			return err
		}
	default:
		for _, v := range all {
			if v.OK {
				fmt.Fprintf(a.io.Out, "ok    %s\n", v.Session)
			}
			for _, f := range v.Findings {
				fmt.Fprintf(a.io.Out, "fail  %s  %s: %s\n", v.Session, f.Where, f.Problem)
			}
		}
	}
	if damaged > 0 {
		return silentError{exitFailed}
	}
	return nil
}
