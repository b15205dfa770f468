package main

import (
	"fmt"
	"net/url"
	"strconv"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/holdfast-wa/holdfast/infra/adminapi"
)

// auditCommand shows who did what.
func (a *app) auditCommand() *cobra.Command {
	var session, by, action string
	limit := 0
	cmd := &cobra.Command{
		Use: "audit", Short: "Show who did what, the newest first (admin)", Args: exactly(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if limit < 1 {
				return usagef("audit: --limit %d is too low; use 1 or more", limit)
			}
			c, err := a.client(cmd)
			if err != nil {
				return err
			}
			list := []adminapi.AuditEntry{}
			query := url.Values{}
			for name, v := range map[string]string{"session": session, "by": by, "action": action} {
				if v != "" {
					query.Set(name, v)
				}
			}
			for {
				query.Set("limit", strconv.Itoa(min(limit-len(list), 500)))
				var page adminapi.AuditPage
				if err := c.get(cmd.Context(), "/api/audit", query, &page); err != nil {
					return fmt.Errorf("audit: %w", err)
				}
				list = append(list, page.Entries...)
				if page.Next == "" || len(list) >= limit {
					break
				}
				query.Set("cursor", page.Next)
			}
			if a.asJSON {
				return printJSON(a.io.Out, list)
			}
			return a.printAudit(list)
		},
	}
	cmd.Flags().StringVar(&session, "session", "", "only what was done to this session")
	cmd.Flags().StringVar(&by, "by", "", "only what this key did")
	cmd.Flags().StringVar(&action, "action", "", "only this")
	cmd.Flags().IntVar(&limit, "limit", 100, "how many at most")
	_ = cmd.RegisterFlagCompletionFunc("session", func(cmd *cobra.Command, _ []string, text string) ([]string, cobra.ShellCompDirective) {
		return a.sessionCompletion(cmd, nil, text)
	}) // the flag is there
	return a.clientCommand(cmd)
}

func (a *app) printAudit(list []adminapi.AuditEntry) error {
	w := tabwriter.NewWriter(a.io.Out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "TIME\tBY\tACTION\tSESSION\tBEFORE\tAFTER")
	for _, e := range list {
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\n", e.At.Local().Format(time.DateTime), e.By, e.Action, dash(e.Session), dash(e.Before), dash(e.After))
	}
	return w.Flush()
}
