package main

import (
	"github.com/spf13/cobra"
)

// runCommand is holdfast dev or holdfast worker.
func (a *app) runCommand(mode Mode) *cobra.Command {
	cmd := &cobra.Command{
		Use:   string(mode),
		Short: "Run worker and admin API in one process, state in ./data",
		Long: "Runs the worker and the admin API in one process with its state in ./data. At the\n" +
			"first start it makes a session named default and shows its QR code.\n\n" +
			"Every flag is also a HOLDFAST_ variable and a key of the YAML file.",
		Args: exactly(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			cfg, err := a.config(cmd, nil)
			if err != nil {
				return err
			}
			return runWorker(cmd.Context(), cfg, mode, a.io)
		},
	}
	if mode == ModeWorker {
		cmd.Short = "Run the worker alone"
		cmd.Long = "Runs the worker alone, with health and metrics on its own listener. On SIGTERM it\n" +
			"hands its sessions over and ends with 0.\n\n" +
			"Every flag is also a HOLDFAST_ variable and a key of the YAML file."
	}
	settingFlags(cmd, workerSettings())
	return cmd
}
