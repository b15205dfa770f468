package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	"github.com/holdfast-wa/holdfast/infra/adminapi"
	"github.com/holdfast-wa/holdfast/infra/wasim"
	"github.com/holdfast-wa/holdfast/state"
)

const (
	demoPhone   = "491700000001" // pairs with the session
	demoContact = "491700000002" // writes and answers
	demoStep    = 45 * time.Second
	demoLook    = 100 * time.Millisecond
)

func (a *app) demoCommand() *cobra.Command {
	keep, verbose := "", false
	cmd := &cobra.Command{
		Use:   "demo",
		Short: "See it work in a minute: simulated service, phone and contact, no internet",
		Long: "Runs a worker against a simulated WhatsApp service: a simulated phone pairs with it,\n" +
			"messages go both ways, the line is cut, the server fails, the worker is stopped and\n" +
			"started again. Everything lies in a temporary folder and is removed at the end.",
		Args: exactly(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			dir := keep
			if dir == "" {
				temporary, err := os.MkdirTemp("", "holdfast-demo-")
				if err != nil {
					return writeFault("demo folder", "cannot be made", err)
				}
				defer os.RemoveAll(temporary)
				dir = temporary
			}
			// Flags alone: what the environment says is of another worker, with
			// data that a demo must not touch.
			d := &demo{app: a, given: fromFlags(cmd), verbose: verbose, began: a.now()}
			if err := d.run(cmd.Context(), dir); err != nil {
				if cmd.Context().Err() != nil {
					return errors.New("demo: interrupted")
				}
				return fmt.Errorf("demo: %w", err)
			}
			return nil
		},
	}
	cmd.Flags().StringVar(&keep, "keep", "", "use this folder and leave it there afterwards")
	cmd.Flags().BoolVar(&verbose, "verbose", false, "show the worker's log as well")
	names := []string{"profile"}
	for _, s := range policySettings() {
		names = append(names, s.name)
	}
	onlyFlags(cmd, names)
	return cmd
}

// demo is a worker and a simulated service in one process, and the story that
// is told with them.
type demo struct {
	*app
	given   layers
	verbose bool
	began   time.Time

	cfg    Config
	sim    *wasim.Server
	client *client
	stop   context.CancelFunc // of the worker
	ended  chan error         // of the worker
}

func (d *demo) say(format string, args ...any) {
	fmt.Fprintf(d.io.Out, "%5.1f s  %s\n", d.now().Sub(d.began).Seconds(), fmt.Sprintf(format, args...))
}

func (d *demo) run(ctx context.Context, dir string) (err error) {
	if d.sim, err = wasim.New(wasim.Options{Control: "off"}); err == nil {
		err = d.sim.Start()
	}
	if err != nil {
		return fmt.Errorf("the simulated service cannot start: %w", err)
	}
	defer d.sim.Close()
	d.say("a simulated WhatsApp service is at %s", d.sim.URL())

	listen, err := freeAddress()
	if err != nil {
		return err
	}
	for name, text := range map[string]string{"data-dir": dir, "listen": listen, "whatsapp-url": d.sim.URL(), "whatsapp-root-key": d.sim.RootKeyHex()} {
		d.given[name] = value{text, "demo"}
	}
	if d.cfg, err = newConfig(d.given, nil); err != nil {
		return err
	}
	d.start(ctx)
	defer func() { err = errors.Join(err, d.end()) }()
	return d.story(ctx)
}

// freeAddress is an address on loopback that nobody listens at now.
func freeAddress() (string, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", fmt.Errorf("no free port on 127.0.0.1: %w", cause(err))
	}
	defer l.Close()
	return l.Addr().String(), nil
}

// start runs the worker.
func (d *demo) start(ctx context.Context) {
	ctx, d.stop = context.WithCancel(ctx)
	// Of its own so that what it writes is not taken for a terminal's.
	io := IO{In: d.io.In, Out: discard{}, Err: discard{}}
	if d.verbose {
		io.Err = d.io.Err
	}
	ended := make(chan error, 1)
	d.ended = ended
	go func() { ended <- runWorker(ctx, d.cfg, ModeDev, io) }()
}

type discard struct{}

func (discard) Write(b []byte) (int, error) { return len(b), nil }

// end stops the worker, if it runs.
func (d *demo) end() error {
	if d.ended == nil {
		return nil
	}
	d.stop()
	err := <-d.ended
	d.ended = nil
	return err
}

// until looks at the session until it is as wanted.
func (d *demo) until(ctx context.Context, what string, wanted func(sessionView) bool) (sessionView, error) {
	ctx, cancel := context.WithTimeout(ctx, demoStep)
	defer cancel()
	tick := time.NewTicker(demoLook)
	defer tick.Stop()
	var s sessionView
	for {
		var err error
		if d.client != nil {
			s, err = d.client.session(ctx, "default")
		} else {
			err = d.connect()
		}
		if err == nil && d.client != nil && wanted(s) {
			return s, nil
		}
		select {
		case err := <-d.ended:
			d.ended = nil
			return s, fmt.Errorf("the worker has ended: %w", err)
		case <-ctx.Done():
			return s, fmt.Errorf("%s: not within %v, the session is %s; run it again with --verbose", what, demoStep, dash(why(s)))
		case <-tick.C:
		}
	}
}

// connect makes the client once the worker has made its key.
func (d *demo) connect() error {
	key, err := readKeyFile(filepath.Join(d.cfg.DataDir, apiKeyFile))
	if err == nil {
		d.client = &client{base: "http://" + d.cfg.Listen, key: key, http: d.http}
	}
	return err
}

func isOnline(s sessionView) bool { return s.State == state.Online }

func (d *demo) story(ctx context.Context) error {
	if _, err := d.until(ctx, "showing a QR code", func(s sessionView) bool { return s.State == state.Pairing }); err != nil {
		return err
	}
	d.say("holdfast is up, and its session \"default\" shows a QR code")

	var shown qrView
	if err := d.client.call(ctx, request{method: http.MethodGet, path: sessionPath("default", "qr"), wait: qrWait}, &shown); err != nil {
		return fmt.Errorf("reading the QR code: %w", err)
	}
	phone, err := d.sim.Phone(demoPhone).Scan(ctx, shown.Code)
	if err != nil {
		return fmt.Errorf("scanning the QR code: %w", err)
	}
	if _, err := d.until(ctx, "pairing", isOnline); err != nil {
		return err
	}
	d.say("a simulated phone has scanned it: paired and online")

	ada := d.sim.Contact(demoContact)
	ada.SetName("Ada")
	if err := d.messages(ctx, ada, 1); err != nil {
		return err
	}
	for _, hit := range []struct {
		text  string
		cause func() error
	}{
		{"the line is cut (TCP reset)", func() error { return phone.Drop(wasim.DropReset) }},
		{"the server ends the stream with error 503", func() error {
			_, err := d.sim.Inject(wasim.Fault{Kind: wasim.StreamError, Code: 503, Now: true})
			return err
		}},
	} {
		if err := d.recover(ctx, hit.text, hit.cause); err != nil {
			return err
		}
	}
	if err := d.messages(ctx, ada, 2); err != nil {
		return err
	}
	return d.resume(ctx, ada)
}

// messages has one message go each way.
func (d *demo) messages(ctx context.Context, ada *wasim.Contact, n int) error {
	var before adminapi.EventPage
	if err := d.client.get(ctx, sessionPath("default", "events"), url.Values{"limit": {"1"}}, &before); err != nil {
		return fmt.Errorf("reading the events: %w", err)
	}
	after := uint64(0)
	for _, e := range before.Events {
		after = e.Seq
	}
	if _, err := ada.SendText(ctx, demoPhone, fmt.Sprintf("hello %d", n)); err != nil {
		return fmt.Errorf("a message from the contact: %w", err)
	}
	if err := d.received(ctx, after); err != nil {
		return err
	}
	d.say("Ada wrote: received and stored before it was acknowledged")
	text := fmt.Sprintf("answer %d", n)
	var m messageView
	if err := d.client.call(ctx, request{method: http.MethodPost, path: sessionPath("default", "messages"),
		body: adminapi.SendMessage{To: demoContact, Text: text}}, &m); err != nil {
		return fmt.Errorf("sending: %w", err)
	}
	wait, cancel := context.WithTimeout(ctx, demoStep)
	defer cancel()
	if _, err := ada.WaitText(wait, text); err != nil {
		return fmt.Errorf("the answer has not reached the contact: %w", err)
	}
	d.say("holdfast answered: Ada has decrypted it")
	return nil
}

// received waits until an event of a received message is there whose number is
// above after.
func (d *demo) received(ctx context.Context, after uint64) error {
	query := url.Values{"type": {string(state.EventMessage)}, "after": {strconv.FormatUint(after, 10)}}
	_, err := d.until(ctx, "receiving the message", func(sessionView) bool {
		var page adminapi.EventPage
		return d.client.get(ctx, sessionPath("default", "events"), query, &page) == nil && len(page.Events) > 0
	})
	return err
}

// recover breaks something and waits until the session is online again.
func (d *demo) recover(ctx context.Context, text string, hit func() error) error {
	before, err := d.until(ctx, "being online", isOnline)
	if err != nil {
		return err
	}
	if err := hit(); err != nil {
		return fmt.Errorf("%s: %w", text, err)
	}
	d.say("%s", text)
	down, err := d.until(ctx, "noticing", func(s sessionView) bool { return !isOnline(s) || s.LastConnectedAt.After(before.LastConnectedAt) })
	if err != nil {
		return err
	}
	if !isOnline(down) {
		d.say("  noticed: %s, %s; next attempt in %s", down.State, down.Cause, span(down.NextAttemptAt.Sub(d.now())))
	}
	if _, err := d.until(ctx, "recovering", isOnline); err != nil {
		return err
	}
	d.say("  online again, by itself")
	return nil
}

// resume stops the worker and starts it again on the same folder.
func (d *demo) resume(ctx context.Context, ada *wasim.Contact) error {
	if err := d.end(); err != nil {
		return err
	}
	d.say("the worker is stopped; Ada writes meanwhile")
	if _, err := ada.SendText(ctx, demoPhone, "are you there?"); err != nil {
		return fmt.Errorf("a message from the contact: %w", err)
	}
	d.start(ctx)
	again, err := d.until(ctx, "resuming", isOnline)
	if err != nil {
		return err
	}
	if err := d.drained(ctx); err != nil {
		return err
	}
	d.say("started again: online without a QR code, epoch %d, and Ada's message is in", again.Epoch)
	lost := len(ada.Undecryptable())
	overlaps := len(d.sim.Truth().Overlaps)
	d.say("the service's own record: %d messages that a contact could not read, %d moments with two sockets of one device", lost, overlaps)
	if lost > 0 || overlaps > 0 {
		return errors.New("the service's record is not clean; this is a fault of holdfast, please report it")
	}
	return nil
}

// drained waits until the device has acknowledged all that waited for it.
func (d *demo) drained(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, demoStep)
	defer cancel()
	for _, device := range d.sim.Phone(demoPhone).Devices() {
		if err := device.WaitDrained(ctx); err != nil {
			return fmt.Errorf("a message that waited was not acknowledged: %w", err)
		}
	}
	return nil
}
