package main

import (
	"context"
	"fmt"
	"log/slog"

	"github.com/spf13/cobra"

	"github.com/holdfast-wa/holdfast/state/vault"
	"github.com/holdfast-wa/holdfast/worker"
)

// adoptCommand makes a restored store usable.
func (a *app) adoptCommand() *cobra.Command {
	restored, yes := false, false
	cmd := &cobra.Command{
		Use:   "adopt --restored",
		Short: "Go on with a store that was restored from a backup: every session must be paired anew",
		Long: "Makes a store usable that was restored from a backup. Its ratchets are older than what\n" +
			"phones and contacts know, and old ones cannot be used again: so every session's\n" +
			"credentials are put away for good, and it demands a new pairing. Messages that were\n" +
			"due to be sent count as failed, because they may have been sent since.\n\n" +
			"DynamoDB's tables tell by themselves that they were restored, and workers refuse them\n" +
			"until this was run. A SQLite file cannot tell: run it when an old copy was put back.\n\n" +
			"All workers must be stopped. It can be broken off and run again.",
		Args: exactly(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			cfg, err := a.config(cmd, nil)
			if err != nil {
				return err
			}
			if !restored {
				return usagef("adopt: what to adopt is missing; use holdfast adopt --restored")
			}
			question := "Put the credentials of all sessions in " + cfg.State.String() + " away for good, so that each must be paired anew?"
			if !yes && !terminalIn(a.io.In) {
				return usagef("adopt: there is nobody to ask; use --yes")
			}
			if err := a.confirmed(yes, question); err != nil {
				return err
			}
			level := new(slog.LevelVar)
			level.Set(cfg.LogLevel)
			done, err := adoptRestored(cmd.Context(), cfg, newLog(a.io.Err, cfg.LogFormat, level))
			if err != nil {
				return fmt.Errorf("adopt: %w", err)
			}
			if a.asJSON {
				return printJSON(a.io.Out, done)
			}
			fmt.Fprintf(a.io.Out, "adopted %s: %d sessions, %d of them to be paired anew, %d unreadable; %d messages marked as failed\n",
				cfg.State, done.Sessions, done.Unpaired, done.Unreadable, done.Messages)
			return nil
		},
	}
	cmd.Flags().BoolVar(&restored, "restored", false, "the store was restored from a backup")
	cmd.Flags().BoolVar(&yes, "yes", false, "do not ask")
	settingFlags(cmd, storeSettings)
	a.jsonFlag(cmd)
	return cmd
}

func adoptRestored(ctx context.Context, cfg Config, log *slog.Logger) (worker.Adopted, error) {
	var done worker.Adopted
	if cfg.State.Scheme == "sqlite" && sealedAlready(cfg) == "" {
		return done, fmt.Errorf("%s is not there or is empty; check --data-dir and --state", cfg.State.Path)
	}
	o, err := openPlaces(ctx, cfg, alone, storeWithinTool, slog.New(slog.DiscardHandler))
	if err != nil {
		return done, err
	}
	defer o.close()
	first, cancel := context.WithTimeout(ctx, readyWithin)
	defer cancel()
	keyset, err := o.unlock(first)
	if err != nil {
		return done, err
	}
	identity, _, err := identityOf(first, o.tables)
	if err != nil {
		return done, err
	}
	// The guard of the store would refuse what is adopted here.
	t, err := joinAsTool(ctx, o.tables, cfg.Takeover)
	if err != nil {
		return done, err
	}
	defer func() { _ = t.leave() }() // what is done is done, whatever becomes of the membership
	c := worker.AdoptConfig{
		Store: o.tables, Vault: o.vault, Master: o.master, Keyset: keyset,
		Identity: identity, Incarnation: t.incarnation, Takeover: cfg.Takeover, Quarantine: cfg.Policy.Quarantine, Log: log,
		Told: func(n int) { log.Info("sessions done", "sessions", n) },
	}
	if v, ok := o.vault.(marked); ok {
		c.Seize = func(ctx context.Context) error { return v.Seize(ctx, vault.FleetMark(keyset.ID(), identity)) }
	}
	return worker.Adopt(ctx, c)
}
