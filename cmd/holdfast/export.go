package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/user"
	"strings"

	"github.com/spf13/cobra"

	"github.com/holdfast-wa/holdfast/state/transfer"
)

// maxSecretFile bounds what is read of a file that holds a passphrase or
// identities.
const maxSecretFile = 64 << 10

// exporting is what export was asked for.
type exporting struct {
	out, passphraseFile, to string
	recipients              []string
	again, takeBack         bool
}

func (a *app) exportCommand() *cobra.Command {
	var x exporting
	cmd := &cobra.Command{
		Use:   "export SESSION",
		Short: "Move a session to another store: write it into a sealed file, and connect it here no more",
		Long: "Writes a session with all that it has into a sealed file and marks it as moved:\n" +
			"it never connects here again. holdfast import takes it in somewhere else, where it\n" +
			"goes on without a QR. A worker that has the session gives it up first. An export\n" +
			"that was broken off is run again in the same way.\n\n" +
			"The file is the account: seal it with a passphrase, or for an age identity\n" +
			"(age-keygen), and remove it once it was imported.",
		Args: exactly("SESSION"),
		RunE: func(cmd *cobra.Command, args []string) error {
			cfg, err := a.config(cmd, nil)
			if err != nil {
				return err
			}
			if err := x.check(); err != nil {
				return usageError{fmt.Errorf("export: %w", err)}
			}
			if x.takeBack {
				if err := a.takeBack(cmd.Context(), cfg, args[0]); err != nil {
					return fmt.Errorf("export: %w", err)
				}
				return nil
			}
			report, err := a.export(cmd.Context(), cfg, args[0], x)
			if err != nil {
				return fmt.Errorf("export: %w", err)
			}
			return a.printMoved(report, "exported to "+x.out, "it connects here no more; where it is to go on, run holdfast import with the file")
		},
	}
	cmd.Flags().StringVar(&x.out, "out", "", "the file to write; it must not be there yet")
	cmd.Flags().StringVar(&x.passphraseFile, "passphrase-file", "", "file whose first line is the passphrase to seal with; - for standard input")
	cmd.Flags().StringArrayVar(&x.recipients, "recipient", nil, "age recipient to seal for (age1…), instead of a passphrase; may be repeated")
	cmd.Flags().StringVar(&x.to, "to", "", "whither it goes, in a few words, for whoever looks at it here")
	cmd.Flags().BoolVar(&x.again, "again", false, "write the file once more, if the first one was lost")
	cmd.Flags().BoolVar(&x.takeBack, "take-back", false, "undo an export whose file was lost before it was imported anywhere; two live copies break each other's keys")
	settingFlags(cmd, storeSettings)
	a.jsonFlag(cmd)
	return cmd
}

func (x exporting) check() error {
	switch {
	case x.takeBack:
		if x.out != "" || x.passphraseFile != "" || len(x.recipients) > 0 || x.again {
			return errors.New("--take-back: writes no file; give it alone")
		}
	case x.out == "":
		return errors.New("--out: is missing; name the file to write")
	case x.passphraseFile == "" && len(x.recipients) == 0:
		return errors.New("what to seal the file with is missing; give --passphrase-file or --recipient")
	case x.passphraseFile != "" && len(x.recipients) > 0:
		return errors.New("--passphrase-file and --recipient: give one of them; a file has a passphrase or recipients")
	}
	return nil
}

func (a *app) export(ctx context.Context, cfg Config, session string, x exporting) (transfer.Report, error) {
	if cfg.State.Scheme == "sqlite" && sealedAlready(cfg) == "" {
		return transfer.Report{}, fmt.Errorf("%s is not there or is empty; check --data-dir and --state", cfg.State.Path)
	}
	lock, err := a.lockOf(x)
	if err != nil {
		return transfer.Report{}, err
	}
	o, err := openTool(ctx, cfg, shared)
	if err != nil {
		return transfer.Report{}, err
	}
	defer o.close()
	return transfer.Export(ctx, transferConfig(o), transfer.ExportConfig{Session: session, Path: x.out, Lock: lock, To: x.to, Again: x.again})
}

func (a *app) takeBack(ctx context.Context, cfg Config, session string) error {
	o, err := openTool(ctx, cfg, shared)
	if err != nil {
		return err
	}
	defer o.close()
	if err := transfer.TakeBack(ctx, transferConfig(o), session); err != nil {
		return err
	}
	if a.asJSON {
		return printJSON(a.io.Out, map[string]string{"session": session, "takenBack": "true"})
	}
	_, err = fmt.Fprintf(a.io.Out, "%s: taken back; it connects as soon as a worker has it. Never import the file that it was exported to.\n", session)
	return err
}

// transferConfig is what export and import work on, with the workers' times.
func transferConfig(o *opened) transfer.Config {
	by := "holdfast"
	if u, err := user.Current(); err == nil && u.Username != "" {
		by = u.Username
	}
	return transfer.Config{Store: o.store, Vault: o.vault, Master: o.master, Fleet: o.keyset, By: by, Version: buildVersion().Version,
		Quarantine: o.cfg.Policy.Quarantine, Heartbeat: o.cfg.Heartbeat, Trust: o.cfg.Trust, Takeover: o.cfg.Takeover}
}

func (a *app) lockOf(x exporting) (transfer.Lock, error) {
	if x.passphraseFile == "" {
		return transfer.LockFor(x.recipients...)
	}
	passphrase, err := a.passphrase(x.passphraseFile)
	if err != nil {
		return transfer.Lock{}, err
	}
	return transfer.LockWithPassphrase(passphrase)
}

// passphrase is the first line of a file.
func (a *app) passphrase(path string) (string, error) {
	text, err := a.secretFile("passphrase file", path)
	if err != nil {
		return "", err
	}
	line, _, _ := strings.Cut(text, "\n")
	if line = strings.TrimSuffix(line, "\r"); line == "" {
		return "", fmt.Errorf("passphrase file %s: its first line is empty; write the passphrase there", path)
	}
	return line, nil
}

// secretFile reads a small file that others must not be able to read; - is
// standard input.
func (a *app) secretFile(what, path string) (string, error) {
	in := a.io.In
	if path != "-" {
		f, err := os.Open(path)
		switch {
		case errors.Is(err, fs.ErrNotExist):
			return "", fmt.Errorf("%s %s: is not there; check the path", what, path)
		case err != nil:
			return "", fmt.Errorf("%s %s: cannot be read: %w; check whose file it is", what, path, bare(err))
		}
		defer f.Close()
		if info, err := f.Stat(); err == nil && info.Mode().IsRegular() && info.Mode().Perm()&0o077 != 0 {
			return "", fmt.Errorf("%s %s: others may read it (mode %04o); run: chmod 600 %s", what, path, info.Mode().Perm(), path)
		}
		in = f
	}
	b, err := io.ReadAll(io.LimitReader(in, maxSecretFile+1))
	switch {
	case err != nil:
		return "", fmt.Errorf("%s %s: cannot be read: %w; check the path", what, path, bare(err))
	case len(b) > maxSecretFile:
		return "", fmt.Errorf("%s %s: has over %d bytes; name the right file", what, path, maxSecretFile)
	}
	return string(b), nil
}

// printMoved says what was moved.
func (a *app) printMoved(r transfer.Report, what, next string) error {
	if a.asJSON {
		return printJSON(a.io.Out, r)
	}
	fmt.Fprintf(a.io.Out, "%s: %s: %d records, %d objects, %d events, %d messages to send (export %s)\n%s: %s\n",
		r.Session, what, r.Records, r.Objects, r.Events, r.Unsent, r.ID, r.Session, next)
	if r.Left > 0 {
		fmt.Fprintf(a.io.Err, "%s: %d messages were queued after the file was written and stay here; queue them again where it goes on\n", r.Session, r.Left)
	}
	if r.Unread > 0 {
		fmt.Fprintf(a.io.Err, "%s: %d records cannot be opened and came along without their content; holdfast sessions verify names them\n", r.Session, r.Unread)
	}
	return nil
}
