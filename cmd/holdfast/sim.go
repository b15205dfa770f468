package main

import (
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net/http"
	"os"
	"time"

	"github.com/spf13/cobra"

	"github.com/holdfast-wa/holdfast/infra/wasim"
)

// simNumber is the phone number of the first simulated phone that --autoscan
// makes. The next ones count on from it.
const simNumber = 491700000001

func (a *app) simCommand() *cobra.Command {
	var (
		opt            wasim.Options
		seed, autoscan string
		config         string
		verbose        bool
	)
	cmd := &cobra.Command{
		Use:   "sim",
		Short: "Run a simulated WhatsApp service, with simulated phones and contacts",
		Long: "Runs a simulated WhatsApp service that an unmodified client can pair with, and prints\n" +
			"one JSON line with its url, controlUrl and rootKey. Point a worker at it with\n" +
			"HOLDFAST_WHATSAPP_URL and HOLDFAST_WHATSAPP_ROOT_KEY, or with --write-config FILE\n" +
			"here and --config FILE there.",
		Args: exactly(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if seed != "" {
				b, err := hex.DecodeString(seed)
				if err != nil || len(b) != 32 {
					return usagef("--seed: is not 64 hex digits; use the output of: openssl rand -hex 32")
				}
				opt.RootSeed = b
			}
			if verbose {
				level := new(slog.LevelVar)
				level.Set(slog.LevelDebug)
				opt.Log = newLog(a.io.Err, "auto", level)
			}
			var watched func() (*client, error)
			if cmd.Flags().Changed("autoscan") {
				if autoscan != "auto" {
					if err := cmd.Flags().Set("url", autoscan); err != nil {
						return err
					}
				}
				watched = func() (*client, error) { return a.client(cmd) }
				// Its key may be made later, by the holdfast that is watched; other
				// faults do not pass.
				if _, err := watched(); err != nil && !errors.Is(err, fs.ErrNotExist) {
					return err
				}
			}
			return a.sim(cmd.Context(), opt, config, watched)
		},
	}
	f := cmd.Flags()
	f.StringVar(&opt.Listen, "listen", "127.0.0.1:0", "HOST:PORT of the service; port 0: a free one")
	f.StringVar(&opt.Control, "control", "127.0.0.1:0", "HOST:PORT of the control API; off: none")
	f.StringVar(&autoscan, "autoscan", "", "let simulated phones scan every QR code that a holdfast shows: its URL, or no value for the one on this machine")
	f.Lookup("autoscan").NoOptDefVal = "auto"
	f.StringVar(&seed, "seed", "", "64 hex digits that the root key is made from, so that it stays the same; by itself random")
	f.StringVar(&config, "write-config", "", "write a YAML file that points a worker here, for its --config")
	f.BoolVar(&verbose, "verbose", false, "log what happens to stderr")
	settingFlags(cmd, []string{"url", "api-key", "api-key-file", "data-dir"})
	f.Lookup("url").Hidden = true
	return cmd
}

// sim runs the service until ctx ends. With watched, phones scan what that
// holdfast shows. With config, that file gets the settings of a worker.
func (a *app) sim(ctx context.Context, opt wasim.Options, config string, watched func() (*client, error)) error {
	s, err := wasim.New(opt)
	if err != nil {
		return fmt.Errorf("sim: %w", err)
	}
	if err := s.Start(); err != nil {
		return fmt.Errorf("sim: cannot start: %w; is the port in use? choose another with --listen and --control", cause(err))
	}
	defer s.Close()
	if config != "" {
		text := fmt.Sprintf("# Of holdfast sim, while it runs.\nwhatsapp-url: %s\nwhatsapp-root-key: %s\n", s.URL(), s.RootKeyHex())
		if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
			return fmt.Errorf("sim: --write-config %s: cannot be written: %w; name a file in a folder that is there and yours", config, bare(err))
		}
	}
	line, err := json.Marshal(struct {
		URL        string `json:"url"`
		ControlURL string `json:"controlUrl"`
		RootKey    string `json:"rootKey"`
	}{s.URL(), s.ControlURL(), s.RootKeyHex()})
	if err != nil {
		return err
	}
	if _, err := fmt.Fprintf(a.io.Out, "%s\n", line); err != nil {
		return err
	}
	if watched == nil {
		<-ctx.Done()
		return nil
	}
	a.scanAll(ctx, s, watched)
	return nil
}

// scanEvery is how often --autoscan looks for sessions that show a code.
const scanEvery = time.Second

// scanAll scans every code that the sessions of a holdfast show, with a phone
// of its own for each, until ctx ends. The holdfast may be started later.
func (a *app) scanAll(ctx context.Context, s *wasim.Server, watched func() (*client, error)) {
	phones, scanned := map[string]string{}, map[string]string{}
	tick := time.NewTicker(scanEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		c, err := watched() // anew, since a data folder that was removed has another key
		if err != nil {
			continue
		}
		sessions, err := c.sessions(ctx, nil)
		if err != nil {
			continue // it may not be up yet, or be starting again
		}
		for _, v := range sessions {
			if v.Paired || v.State != "pairing" {
				continue
			}
			var shown qrView
			if c.call(ctx, request{method: http.MethodGet, path: sessionPath(v.Name, "qr")}, &shown) != nil || shown.Code == scanned[v.Name] {
				continue
			}
			scanned[v.Name] = shown.Code
			if phones[v.Name] == "" {
				phones[v.Name] = fmt.Sprint(simNumber + len(phones))
			}
			if _, err := s.Phone(phones[v.Name]).Scan(ctx, shown.Code); err != nil && ctx.Err() == nil {
				fmt.Fprintf(a.io.Err, "holdfast: sim: the phone of %s could not pair: %s\n", v.Name, oneLine(err.Error()))
				continue
			}
			fmt.Fprintf(a.io.Err, "sim: a phone has scanned the code of %s\n", v.Name)
		}
	}
}
