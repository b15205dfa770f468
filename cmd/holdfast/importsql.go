package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/holdfast-wa/holdfast/state"
	"github.com/holdfast-wa/holdfast/state/device"
	"github.com/holdfast-wa/holdfast/state/journal"
)

// Imported is one device that was taken over.
type Imported struct {
	Session string `json:"session"`
	Device  string `json:"device"` // its number within the account, not the phone number
}

// importCommand takes over what another program of the same library has paired.
func (a *app) importCommand() *cobra.Command {
	as, only := "", ""
	cmd := &cobra.Command{
		Use:   "import-sqlstore FILE",
		Short: "Take over the devices of a whatsmeow sqlstore database, without a new QR",
		Long: "Takes over the devices of the SQLite database of another program that is built on\n" +
			"whatsmeow. That program must be stopped for good first: two clients with one device\n" +
			"kick each other and break its keys. The file is read only. holdfast must be stopped\n" +
			"as well; at its next start the sessions come online.",
		Args: exactly("FILE"),
		RunE: func(cmd *cobra.Command, args []string) error {
			cfg, err := a.config(cmd, nil)
			if err != nil {
				return err
			}
			if as != "" {
				if err := state.CheckName(as); err != nil {
					return usageError{err}
				}
			}
			done, err := importSQLStore(cmd.Context(), cfg, args[0], as, only)
			if len(done) > 0 || err == nil {
				if printErr := a.printImported(done); printErr != nil {
					return errors.Join(err, printErr)
				}
			}
			return err
		},
	}
	cmd.Flags().StringVar(&as, "as", "", "name of the session; with several devices -2, -3 … follow it (imported)")
	cmd.Flags().StringVar(&only, "jid", "", "take over this device alone, such as 491700000001:12@s.whatsapp.net")
	settingFlags(cmd, storeSettings)
	a.jsonFlag(cmd)
	return cmd
}

func (a *app) printImported(done []Imported) error {
	if a.asJSON {
		return printJSON(a.io.Out, done)
	}
	w := tabwriter.NewWriter(a.io.Out, 0, 4, 2, ' ', 0)
	fmt.Fprintln(w, "SESSION\tDEVICE")
	for _, d := range done {
		fmt.Fprintf(w, "%s\t%s\n", d.Session, d.Device)
	}
	return w.Flush()
}

// importSQLStore returns what was taken over, also beside an error.
func importSQLStore(ctx context.Context, cfg Config, file, as, only string) ([]Imported, error) {
	if _, err := os.Stat(file); err != nil {
		return nil, fmt.Errorf("import-sqlstore: %s: %w; give the path of the SQLite file", file, bare(err))
	}
	jids, err := device.ListSQLStore(ctx, file)
	if err != nil {
		return nil, fmt.Errorf("import-sqlstore: %w", err)
	}
	if only != "" {
		found := jids[:0]
		for _, jid := range jids {
			if jid == only {
				found = append(found, jid)
			}
		}
		jids = found
	}
	if len(jids) == 0 {
		return nil, fmt.Errorf("import-sqlstore: %s: holds no such device; nothing was done", file)
	}
	o, err := openTool(ctx, cfg, alone)
	if err != nil {
		return nil, err
	}
	defer o.close()
	t, err := joinAsTool(ctx, o.store, cfg.Takeover)
	if err != nil {
		return nil, fmt.Errorf("import-sqlstore: %w", err)
	}
	// What is imported is imported, whatever becomes of the membership.
	defer func() { _ = t.leave() }()
	var done []Imported
	for i, jid := range jids {
		name := as
		if name == "" {
			name = "imported"
		}
		if i > 0 {
			name = fmt.Sprintf("%s-%d", name, i+1)
		}
		if err := importOne(ctx, o, t, name, file, jid); err != nil {
			return done, fmt.Errorf("import-sqlstore: session %s: %w", name, err)
		}
		done = append(done, Imported{name, deviceNumber(jid)})
	}
	return done, nil
}

// deviceNumber is the part of a device's JID that is no phone number.
func deviceNumber(jid string) string {
	user, _, _ := strings.Cut(jid, "@")
	_, number, _ := strings.Cut(user, ":")
	return number
}

// importOne makes a session and fills it. One that a failed import left behind
// is unpaired and taken again; one that is in use is left alone.
func importOne(ctx context.Context, o *opened, t *tool, name, file, jid string) error {
	if err := o.store.CreateSession(ctx, name, nil); err != nil && !errors.Is(err, state.ErrExists) {
		return err
	}
	owner, err := t.claim(ctx, name)
	if err != nil {
		return err
	}
	// The other program has logged in with it: the pairing has ended.
	value, err := state.Encode(state.Status{V: state.Format, State: state.Connecting, Paired: true, Since: time.Now()})
	if err != nil {
		return err
	}
	status := state.Put(state.KindStatus, "", value)
	jrn, err := journal.Open(ctx, journal.Config{Store: o.store, Fence: owner.Fence(), Fleet: o.keyset})
	if err != nil {
		return err
	}
	err = device.ImportSQLStore(ctx, device.Config{Journal: jrn, Store: o.store, Vault: o.vault, Master: o.master, Session: name}, file, jid)
	if err == nil {
		err = jrn.Commit(ctx, journal.Batch{Writes: []state.Write{status}})
	}
	jrn.Close()
	if err != nil {
		return err
	}
	if _, err := o.store.Get(ctx, state.OfSession(name), state.Key{Kind: state.KindSpec}); errors.Is(err, state.ErrNotFound) {
		w, err := wantRunning(name)
		if err != nil {
			return err
		}
		if err := o.store.Update(ctx, state.OfSession(name), []state.Write{w}); err != nil {
			return err
		}
	}
	return o.store.Release(ctx, owner.Fence())
}
