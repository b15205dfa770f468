package main

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"time"

	"github.com/spf13/cobra"
)

// healthTimeout bounds the health check: below the 5 s that container platforms
// give one.
const healthTimeout = 3 * time.Second

func (a *app) healthcheckCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "healthcheck",
		Short: "End with 0 if the process that listens here is alive, for containers",
		Args:  exactly(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			cfg, err := a.config(cmd, []string{"listen"})
			if err != nil {
				return err
			}
			return a.alive(cmd.Context(), cfg.Listen)
		},
	}
	settingFlags(cmd, []string{"listen"})
	return cmd
}

// alive asks the process that listens at an address whether it lives.
func (a *app) alive(ctx context.Context, listen string) error {
	ctx, cancel := context.WithTimeout(ctx, healthTimeout)
	defer cancel()
	base := "http://" + dialable(listen)
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, base+"/health/live", nil)
	if err != nil {
		return fmt.Errorf("healthcheck: %w", err)
	}
	resp, err := a.http.Do(req)
	if err != nil {
		return fmt.Errorf("healthcheck: %s does not answer: %w; is holdfast running with this --listen?", base, cause(err))
	}
	resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("healthcheck: %s/health/live answers %d; is it holdfast that listens there?", base, resp.StatusCode)
	}
	return nil
}

// dialable is the address under which a listener is reached from this machine.
func dialable(listen string) string {
	host, port, err := net.SplitHostPort(listen)
	if err != nil {
		return listen
	}
	if ip := net.ParseIP(host); host == "" || ip != nil && ip.IsUnspecified() {
		host = "127.0.0.1"
		if ip != nil && ip.To4() == nil {
			host = "::1"
		}
	}
	return net.JoinHostPort(host, port)
}
