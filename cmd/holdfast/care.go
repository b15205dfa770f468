package main

import (
	"net/http"
	"time"

	"github.com/spf13/cobra"

	"github.com/holdfast-wa/holdfast/infra/adminapi"
)

func (a *app) debugCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "debug", Short: "Switch the debug log of a session on or off while it runs"}
	w := waitFlag(cmd)
	length := cmd.Flags().Duration("for", 15*time.Minute, "when it goes off by itself, 1s to 24h")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if args[1] != "on" && args[1] != "off" {
			return usagef("sessions debug: %q is neither on nor off; write one of them", args[1])
		}
		return a.command(cmd, args[0], "debug", request{method: http.MethodPost, path: sessionPath(args[0], "debug"),
			body: adminapi.Debug{On: args[1] == "on", For: length.String()}, wait: *w})
	}
	return a.sessionCommand(cmd, "on|off")
}
