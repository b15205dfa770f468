package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"

	"github.com/holdfast-wa/holdfast/state"
	"github.com/holdfast-wa/holdfast/state/seal"
	"github.com/holdfast-wa/holdfast/worker"
)

// metasAtOnce bounds the records that are read at a time.
const metasAtOnce = 16

// KeyUse is what one keyset, or a session with those in quarantine, is wrapped
// with.
type KeyUse struct {
	Session string   `json:"session,omitempty"` // empty: the fleet's
	With    []string `json:"with"`              // ids of master keys
	Present bool     `json:"present"`           // all of it with the present one
	Problem string   `json:"problem,omitempty"`
}

// KeysStatus is what keys status prints.
type KeysStatus struct {
	MasterKey string   `json:"masterKey"` // the present one's id
	Former    []string `json:"former"`    // what else is still needed
	Fleet     KeyUse   `json:"fleet"`
	Sessions  []KeyUse `json:"sessions"` // those with a keyset
}

func (a *app) keysCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "keys",
		Short: "Show and change what the keysets are wrapped with, and their keys",
		Long: "A master key wraps a keyset for each session and one for the fleet; a keyset's keys seal\n" +
			"the records. To change the master key: set master-key to the new one and list the old\n" +
			"one in master-key-old, restart the workers, run keys rewrap, and take the old one out\n" +
			"of master-key-old when keys status names it no more. keys new makes one in a file.",
		Args: group,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(a.keysNewCommand(), a.keysStatusCommand(), a.keysRewrapCommand(), a.keysRotateCommand())
	return cmd
}

func (a *app) keysNewCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "new FILE",
		Short: "Make a new master key in a file of its own, to change to",
		Args:  exactly("FILE"),
		RunE: func(_ *cobra.Command, args []string) error {
			m, err := seal.CreateFile(args[0])
			switch {
			case errors.Is(err, fs.ErrExist):
				return fmt.Errorf("keys: %s: is there already; name a file that is not", args[0])
			case err != nil:
				return fmt.Errorf("keys: %w; name a file in a folder of yours", err)
			}
			_, err = fmt.Fprintf(a.io.Out, "%s is made; set master-key to file:%s and master-key-old to the present one, and keep a copy of it apart from the data\n", m.ID(), args[0])
			return err
		},
	}
}

func (a *app) keysStatusCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "status",
		Short: "List which master key each keyset is wrapped with",
		Args:  exactly(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			return a.withKeys(cmd, func(ctx context.Context, o *opened) error {
				s, err := keysStatus(ctx, o.store, o.master.ID())
				if err != nil {
					return err
				}
				return a.printKeys(s)
			})
		},
	}
	settingFlags(cmd, storeSettings)
	a.jsonFlag(cmd)
	return cmd
}

// withKeys opens the store beside the workers that use it.
func (a *app) withKeys(cmd *cobra.Command, do func(context.Context, *opened) error) error {
	cfg, err := a.config(cmd, nil)
	if err != nil {
		return err
	}
	if cfg.State.Scheme == "sqlite" && sealedAlready(cfg) == "" {
		return fmt.Errorf("keys: %s is not there or is empty; check --data-dir and --state", cfg.State.Path)
	}
	o, err := openTool(cmd.Context(), cfg, shared)
	if err != nil {
		return err
	}
	defer o.close()
	return do(cmd.Context(), o)
}

// keysStatus reads what everything is wrapped with.
func keysStatus(ctx context.Context, store state.Store, present string) (KeysStatus, error) {
	s := KeysStatus{MasterKey: present, Former: []string{}, Sessions: []KeyUse{}}
	with, err := worker.KeysetMaster(ctx, store)
	if err != nil {
		return s, err
	}
	s.Fleet = KeyUse{With: []string{with}, Present: with == present}
	names, err := sessionNames(ctx, store)
	if err != nil {
		return s, err
	}
	uses := make([]KeyUse, len(names))
	reads, within := errgroup.WithContext(ctx)
	reads.SetLimit(metasAtOnce)
	for i, name := range names {
		reads.Go(func() (err error) {
			uses[i], err = keyUse(within, store, name, present)
			return err
		})
	}
	if err := reads.Wait(); err != nil {
		return s, err
	}
	former := map[string]bool{}
	for _, u := range append(uses, s.Fleet) {
		for _, id := range u.With {
			if id != present && !former[id] {
				former[id] = true
				s.Former = append(s.Former, id)
			}
		}
		if u.Session != "" && (len(u.With) > 0 || u.Problem != "") {
			s.Sessions = append(s.Sessions, u)
		}
	}
	return s, nil
}

// keyUse reads what a session's keysets are wrapped with; none if it has none.
func keyUse(ctx context.Context, store state.Records, session, present string) (KeyUse, error) {
	u := KeyUse{Session: session, With: []string{}, Present: true}
	rec, err := store.Get(ctx, state.OfSession(session), state.Key{Kind: state.KindMeta})
	switch {
	case errors.Is(err, state.ErrNotFound):
		return u, nil
	case err != nil:
		return u, fmt.Errorf("session %s: %w", session, err)
	}
	var m state.Meta
	if err := state.Decode(rec.Value, &m); err != nil {
		u.Present, u.Problem = false, oneLine(err.Error())
		return u, nil
	}
	wrapped := [][]byte{m.Keyset}
	for _, q := range m.Quarantined {
		wrapped = append(wrapped, q.Keyset)
	}
	for _, w := range wrapped {
		if len(w) == 0 {
			continue
		}
		id, _, err := seal.WrappedWith(w)
		if err != nil {
			u.Present, u.Problem = false, oneLine(err.Error())
			continue
		}
		u.With = append(u.With, id)
		u.Present = u.Present && id == present
	}
	return u, nil
}

func (a *app) printKeys(s KeysStatus) error {
	if a.asJSON {
		return printJSON(a.io.Out, s)
	}
	w := tabwriter.NewWriter(a.io.Out, 0, 4, 2, ' ', 0)
	fmt.Fprintln(w, "KEYSET\tMASTER KEY\tWHICH IS")
	line := func(name string, u KeyUse) {
		is := "the present one"
		if !u.Present {
			is = "a former one"
		}
		if u.Problem != "" {
			is = u.Problem
		}
		fmt.Fprintf(w, "%s\t%s\t%s\n", name, strings.Join(u.With, " "), is)
	}
	line("(fleet)", s.Fleet)
	present := 0
	for _, u := range s.Sessions {
		line(u.Session, u)
		if u.Present {
			present++
		}
	}
	if err := w.Flush(); err != nil {
		return err
	}
	fmt.Fprintf(a.io.Out, "\n%d of %d sessions with the present master key %s\n", present, len(s.Sessions), s.MasterKey)
	for _, id := range s.Former {
		fmt.Fprintf(a.io.Out, "still needed: %s; keep it in master-key-old and run holdfast keys rewrap\n", id)
	}
	return nil
}

// rekeyWithin is how long keys waits for the owners of sessions by itself.
const rekeyWithin = 2 * time.Minute

func (a *app) keysRewrapCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "rewrap",
		Short: "Wrap all keysets with the present master key",
		Long: "Wraps the fleet's keyset with the present master key, and has the owner of each session\n" +
			"wrap its own. What they have sealed is not touched, and sessions stay connected. It can\n" +
			"be broken off and run again.",
		Args: exactly(),
	}
	wait := cmd.Flags().Duration("wait", rekeyWithin, "how long to wait for the workers")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		return a.withKeys(cmd, func(ctx context.Context, o *opened) error { return a.rewrapKeys(ctx, o, *wait) })
	}
	settingFlags(cmd, storeSettings)
	a.jsonFlag(cmd)
	return cmd
}

func (a *app) rewrapKeys(ctx context.Context, o *opened, wait time.Duration) error {
	changed, err := worker.RewrapKeyset(ctx, o.store, o.master)
	if err != nil {
		return err
	}
	s, err := keysStatus(ctx, o.store, o.master.ID())
	if err != nil {
		return err
	}
	var names []string
	for _, u := range s.Sessions {
		if !u.Present {
			names = append(names, u.Session)
		}
	}
	return a.rekey(ctx, o, state.VerbRewrap, names, changed, wait)
}

func (a *app) keysRotateCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "rotate [SESSION…]",
		Short: "Give keysets a new key to seal with: those of the sessions, or all and the fleet's",
		Long: "Gives keysets a new key to seal with. Records are sealed with it as they are written;\n" +
			"what older keys have sealed stays readable, and is not rewritten for that. A keyset can\n" +
			"be rotated some thirty times; a new pairing begins a new one.",
	}
	wait := cmd.Flags().Duration("wait", rekeyWithin, "how long to wait for the workers")
	cmd.RunE = func(cmd *cobra.Command, names []string) error {
		for _, name := range names {
			if err := state.CheckName(name); err != nil {
				return usageError{err}
			}
		}
		return a.withKeys(cmd, func(ctx context.Context, o *opened) error { return a.rotateKeys(ctx, o, names, *wait) })
	}
	settingFlags(cmd, storeSettings)
	a.jsonFlag(cmd)
	return cmd
}

func (a *app) rotateKeys(ctx context.Context, o *opened, names []string, wait time.Duration) error {
	all := len(names) == 0
	if all {
		s, err := keysStatus(ctx, o.store, o.master.ID())
		if err != nil {
			return err
		}
		for _, u := range s.Sessions {
			names = append(names, u.Session)
		}
		if err := worker.RotateKeyset(ctx, o.store, o.master); err != nil {
			return err
		}
	}
	return a.rekey(ctx, o, state.VerbRotate, names, all, wait)
}
