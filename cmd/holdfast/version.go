package main

import (
	"encoding/json"
	"fmt"
	"io"
	"runtime"
	"runtime/debug"
	"strings"

	"github.com/spf13/cobra"
)

// release and commit are set by the linker: -ldflags "-X main.release=v1.2.3".
// Go notes the commit by itself, too, but together with the tags and files that the
// clone happens to have, which would give a release other bytes elsewhere.
var (
	release string
	commit  string // with -dirty behind it where the work tree was changed
)

// Version is what this binary was made from.
type Version struct {
	Version   string `json:"version"`
	Commit    string `json:"commit,omitempty"`
	Modified  bool   `json:"modified,omitempty"` // built from a changed work tree
	Go        string `json:"go"`
	Platform  string `json:"platform"`
	Whatsmeow string `json:"whatsmeow"`
}

func buildVersion() Version {
	v := Version{Version: release, Go: runtime.Version(), Platform: runtime.GOOS + "/" + runtime.GOARCH}
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return v
	}
	for _, s := range info.Settings {
		switch s.Key {
		case "vcs.revision":
			v.Commit = s.Value
		case "vcs.modified":
			v.Modified = s.Value == "true"
		}
	}
	if commit != "" {
		v.Commit, v.Modified = strings.CutSuffix(commit, "-dirty")
	}
	for _, d := range info.Deps {
		if d.Path == "go.mau.fi/whatsmeow" {
			v.Whatsmeow = d.Version
			if d.Replace != nil {
				v.Whatsmeow = d.Replace.Path + " " + d.Replace.Version
			}
		}
	}
	if v.Version == "" {
		v.Version = info.Main.Version
	}
	if v.Version == "" {
		v.Version = "(devel)"
	}
	return v
}

func (a *app) versionCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "version",
		Short: "Show what this binary was made from",
		Args:  exactly(),
		RunE: func(*cobra.Command, []string) error {
			v := buildVersion()
			if a.asJSON {
				return printJSON(a.io.Out, v)
			}
			commit := v.Commit
			if v.Modified {
				commit += " (changed)"
			}
			if commit == "" {
				commit = "unknown"
			}
			_, err := fmt.Fprintf(a.io.Out, "holdfast %s\ncommit    %s\ngo        %s %s\nwhatsmeow %s\n", v.Version, commit, v.Go, v.Platform, v.Whatsmeow)
			return err
		},
	}
	a.jsonFlag(cmd)
	return cmd
}

// printJSON writes a value for programs and for people who read JSON.
func printJSON(w io.Writer, v any) error {
	enc := json.NewEncoder(w)
	enc.SetIndent("", "  ")
	enc.SetEscapeHTML(false)
	return enc.Encode(v)
}
