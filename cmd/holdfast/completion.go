package main

import (
	"github.com/spf13/cobra"
)

func (a *app) completionCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "completion SHELL",
		Short: "Print the completion script for bash, zsh or fish",
		Long: "Prints a script that makes the shell complete commands, flags and session names:\n\n" +
			"  bash  source <(holdfast completion bash)\n" +
			"  zsh   source <(holdfast completion zsh)\n" +
			"  fish  holdfast completion fish | source",
		Args:      exactly("SHELL"),
		ValidArgs: []string{"bash", "zsh", "fish"},
		RunE: func(cmd *cobra.Command, args []string) error {
			root := cmd.Root()
			switch args[0] {
			case "bash":
				return root.GenBashCompletionV2(a.io.Out, true)
			case "zsh":
				return root.GenZshCompletion(a.io.Out)
			case "fish":
				return root.GenFishCompletion(a.io.Out, true)
			}
			return usagef("completion: the shell %q is not known; use bash, zsh or fish", args[0])
		},
	}
}
