package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/holdfast-wa/holdfast/infra/adminapi"
	"github.com/holdfast-wa/holdfast/state"
)

const (
	// qrWait is how long the server is asked to wait for a code.
	qrWait = 30 * time.Second
	// qrLook is how often a shown code is compared with what the session is.
	qrLook = time.Second
)

func (a *app) qrCommand() *cobra.Command {
	png, once := "", false
	var most time.Duration
	cmd := &cobra.Command{
		Use:   "qr",
		Short: "Show the QR code in the terminal until the session is paired",
		Long: "Draws the QR code, and the next one as soon as there is one, until the session is paired.\n" +
			"A pairing ends after three minutes; it is then started again, until --for is over.",
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := a.client(cmd)
			if err != nil {
				return err
			}
			r := request{method: http.MethodGet, path: sessionPath(args[0], "qr"), wait: qrWait}
			switch {
			case png != "":
				return a.writePNG(cmd.Context(), c, r, args[0], png)
			case a.asJSON:
				return a.passOn(cmd.Context(), c, r, args[0])
			}
			if once {
				most = 0
			}
			return a.showQR(cmd.Context(), c, args[0], once, a.now().Add(most))
		},
	}
	cmd.Flags().StringVar(&png, "png", "", "write a picture to this file instead")
	cmd.Flags().BoolVar(&once, "once", false, "show one code and end")
	cmd.Flags().DurationVar(&most, "for", 15*time.Minute, "how long a pairing that nobody scans is started again")
	return a.sessionCommand(cmd)
}

func (a *app) writePNG(ctx context.Context, c *client, r request, session, file string) error {
	r.accept = "image/png"
	var picture []byte
	if err := c.call(ctx, r, &picture); err != nil {
		return fmt.Errorf("%s: %w", session, err)
	}
	// Whoever has the picture can be linked to by the account that scans it.
	if err := os.WriteFile(file, picture, 0o600); err != nil {
		return writeFault(file, "cannot be written", err)
	}
	_, err := fmt.Fprintf(a.io.Out, "the QR code of %s is in %s; it is valid for less than a minute\n", session, file)
	return err
}

// showQR draws the valid code, again whenever it changes, until the session is
// paired. A pairing that has run out is started again before until.
func (a *app) showQR(ctx context.Context, c *client, session string, once bool, until time.Time) error {
	screen := qrScreen{io: a.io}
	for {
		var shown qrView
		err := c.call(ctx, request{method: http.MethodGet, path: sessionPath(session, "qr"), wait: qrWait}, &shown)
		var p *refusal
		switch {
		case errors.Is(err, context.Canceled):
			return nil
		case errors.As(err, &p):
			// Paired between two looks, or for longer than we have been asked.
			s, lookErr := c.session(ctx, session)
			if lookErr == nil && s.Paired {
				return a.pairedNow(&screen, s)
			}
			if again, err := a.pairAgain(ctx, c, s, &screen, until); again || err != nil {
				if err != nil {
					return err
				}
				continue
			}
			return fmt.Errorf("%s: %w", session, err)
		case err != nil:
			return fmt.Errorf("%s: %w", session, err)
		}
		left := shown.ExpiresAt.Sub(a.now()).Round(time.Second)
		if err := screen.draw(shown.Code, fmt.Sprintf("Scan this with WhatsApp: Settings, Linked devices, Link a device. Valid for %v.", max(left, 0))); err != nil {
			return err
		}
		if once {
			return nil
		}
		done, err := a.untilChanged(ctx, c, session, shown, &screen, until)
		if done || err != nil {
			return err
		}
	}
}

// pairAgain starts a pairing again that has run out, before until.
func (a *app) pairAgain(ctx context.Context, c *client, s sessionView, screen *qrScreen, until time.Time) (bool, error) {
	if s.Cause != state.CauseQRExpired || s.State != state.Unpaired || !a.now().Before(until) {
		return false, nil
	}
	screen.wipe()
	fmt.Fprintf(a.io.Err, "nobody has scanned the code of %s; showing another one\n", s.Name)
	if err := c.call(ctx, request{method: http.MethodPost, path: sessionPath(s.Name, "start"), wait: 10 * time.Second}, nil); err != nil {
		return false, fmt.Errorf("%s: %w", s.Name, err)
	}
	return true, nil
}

// untilChanged looks at the session while a code is shown: done when it is
// paired, an error when it no longer pairs, neither when there is another code.
func (a *app) untilChanged(ctx context.Context, c *client, session string, shown qrView, screen *qrScreen, until time.Time) (done bool, err error) {
	tick := time.NewTicker(qrLook)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return true, nil
		case <-tick.C:
		}
		s, err := c.session(ctx, session)
		switch {
		case errors.Is(err, context.Canceled):
			return true, nil
		case err != nil:
			return false, err
		case s.Paired:
			return true, a.pairedNow(screen, s)
		case s.State != state.Pairing && s.State != state.Connecting && s.State != state.Reconnecting && s.State != state.Restarting:
			if again, err := a.pairAgain(ctx, c, s, screen, until); again || err != nil {
				return false, err
			}
			screen.wipe()
			return false, fmt.Errorf("%s: the pairing has ended: %s; start it again with: holdfast sessions start %s", session, why(s), session)
		case !a.now().Before(shown.ExpiresAt):
			return false, nil
		}
	}
}

func why(s sessionView) string {
	if s.Cause != "" {
		return string(s.State) + ", " + string(s.Cause)
	}
	return string(s.State)
}

func (a *app) pairedNow(screen *qrScreen, s sessionView) error {
	screen.wipe()
	who := oneLine(s.PushName)
	if who != "" {
		who = " with " + who
	}
	_, err := fmt.Fprintf(a.io.Out, "%s is paired%s.\n", s.Name, who)
	return err
}

// qrScreen draws codes over each other on a terminal, below each other
// elsewhere.
type qrScreen struct {
	io    IO
	lines int // of the last drawing
	last  string
}

func (q *qrScreen) draw(code, caption string) error {
	if code == q.last {
		return nil
	}
	drawing, err := drawQR(code, terminal(q.io.Out))
	if err != nil {
		return err
	}
	if narrow := tooNarrow(q.io.Out, drawing); narrow != "" {
		return fmt.Errorf("the QR code does not fit: %s", strings.Replace(narrow, "; ", ", so ", 1))
	}
	q.wipe()
	q.last, q.lines = code, strings.Count(drawing, "\n")+1
	_, err = fmt.Fprint(q.io.Out, drawing, caption, "\n")
	return err
}

// wipe takes the last drawing off the terminal: a code that has been used or
// has run out only misleads.
func (q *qrScreen) wipe() {
	if q.lines > 0 && terminal(q.io.Out) {
		fmt.Fprintf(q.io.Out, "\x1b[%dA\x1b[J", q.lines)
	}
	q.lines, q.last = 0, ""
}

func (a *app) pairCodeCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "pair-code", Short: "Pair by typing eight characters on the phone instead of a QR code"}
	w := waitFlag(cmd)
	*w = 30 * time.Second
	cmd.Flags().Lookup("wait").DefValue = "30s"
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		return a.command(cmd, args[0], "pair-code", request{method: http.MethodPost, path: sessionPath(args[0], "pair-code"),
			body: adminapi.PairCode{Phone: args[1]}, wait: *w})
	}
	return a.sessionCommand(cmd, "PHONE")
}
