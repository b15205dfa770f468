package main

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/holdfast-wa/holdfast/state/transfer"
)

// importingFile is what import was asked for.
type importingFile struct {
	passphraseFile, identityFile, as string
	takeBack                         bool
}

func (a *app) importFileCommand() *cobra.Command {
	var x importingFile
	cmd := &cobra.Command{
		Use:   "import FILE",
		Short: "Take in a session that holdfast export wrote, without a new QR",
		Long: "Takes in a session from a file of holdfast export: with its credentials, encryption\n" +
			"state, settings, events and messages to send. A running worker then connects it,\n" +
			"without a QR. The session keeps its name. A file is taken in once; an import that was\n" +
			"broken off is run again in the same way.\n\n" +
			"For devices of other programs that are built on whatsmeow see import-sqlstore.",
		Args: exactly("FILE"),
		RunE: func(cmd *cobra.Command, args []string) error {
			cfg, err := a.config(cmd, nil)
			if err != nil {
				return err
			}
			if err := x.check(cmd.Flags().Changed("as")); err != nil {
				return usageError{fmt.Errorf("import: %w", err)}
			}
			report, err := a.importFile(cmd.Context(), cfg, args[0], x)
			if err != nil {
				return fmt.Errorf("import: %w", err)
			}
			return a.printMoved(report, "imported", "it connects as soon as a worker has it; remove the file, which is the account")
		},
	}
	cmd.Flags().StringVar(&x.passphraseFile, "passphrase-file", "", "file whose first line is the passphrase that the file was sealed with; - for standard input")
	cmd.Flags().StringVar(&x.identityFile, "identity-file", "", "file of age-keygen with the identity that the file was sealed for; - for standard input")
	cmd.Flags().BoolVar(&x.takeBack, "take-back", false, "also a file that was exported from here, if it was imported nowhere else; two live copies break each other's keys")
	cmd.Flags().StringVar(&x.as, "as", "", "is refused: a session keeps its name")
	_ = cmd.Flags().MarkHidden("as")
	settingFlags(cmd, storeSettings)
	a.jsonFlag(cmd)
	return cmd
}

func (x importingFile) check(as bool) error {
	switch {
	case as:
		return errors.New("--as: a session keeps its name, because all it has is sealed for that name; import it without --as")
	case x.passphraseFile == "" && x.identityFile == "":
		return errors.New("what opens the file is missing; give --passphrase-file or --identity-file")
	case x.passphraseFile != "" && x.identityFile != "":
		return errors.New("--passphrase-file and --identity-file: give the one that the file was sealed with")
	}
	return nil
}

func (a *app) importFile(ctx context.Context, cfg Config, file string, x importingFile) (transfer.Report, error) {
	key, err := a.keyOf(x)
	if err != nil {
		return transfer.Report{}, err
	}
	o, err := openTool(ctx, cfg, shared)
	if err != nil {
		return transfer.Report{}, err
	}
	defer o.close()
	return transfer.Import(ctx, transferConfig(o), transfer.ImportConfig{Path: file, Key: key, TakeBack: x.takeBack})
}

func (a *app) keyOf(x importingFile) (transfer.Key, error) {
	if x.passphraseFile != "" {
		passphrase, err := a.passphrase(x.passphraseFile)
		if err != nil {
			return transfer.Key{}, err
		}
		return transfer.KeyFromPassphrase(passphrase)
	}
	text, err := a.secretFile("identity file", x.identityFile)
	if err != nil {
		return transfer.Key{}, err
	}
	key, err := transfer.KeyFromIdentities(strings.NewReader(text))
	if err != nil {
		return transfer.Key{}, fmt.Errorf("%w; name the file that age-keygen wrote", err)
	}
	return key, nil
}
