package chaos

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/holdfast-wa/holdfast/infra/standin"
	"github.com/holdfast-wa/holdfast/infra/standin/crew"
	"github.com/holdfast-wa/holdfast/infra/wasim"
)

// Options say what is run.
type Options struct {
	Binary   string        // of holdfast
	Dir      string        // for logs and data
	Seed     uint64        // of the plan and of the traffic
	Length   time.Duration // of the faults
	Sessions int
	Workers  int
	In, Out  float64 // messages a second, all sessions together
	Orders   float64 // commands a second, likewise
	Timing   Timing
	Bound    time.Duration // from the last fault to all sessions being online
	Say      func(format string, args ...any)
}

// Defaults are what `make chaos` runs with. The times are a fourth of the
// defaults of the settings, or the trust would be over before a plan is.
var Defaults = Options{
	Length: 2 * time.Minute, Sessions: 60, Workers: 3, In: 4, Out: 1.5, Orders: 0.4, Bound: time.Minute,
	Timing: Timing{Heartbeat: 500 * time.Millisecond, Trust: 2500 * time.Millisecond, Takeover: 4 * time.Second, Poll: 500 * time.Millisecond},
}

const (
	pairWithin = 3 * time.Minute // all sessions, DynamoDB Local being slow
	pairAtOnce = 6
	patience   = 3 * time.Minute // until nothing waits any more, after the sessions are online
	apiKey     = "of-the-chaos-harness"
	deployment = "HOLDFAST_DEPLOYMENT"
)

// harness is what a run is made of.
type harness struct {
	o        Options
	began    time.Time
	stand    *standin.Standin
	sim      *wasim.Server
	sink     *sink
	crew     *crew.Crew
	relays   map[string]*relay
	accounts []Account
	devices  []*wasim.Device
	traffic  *traffic

	// spares are workers beside those of the options; idle are those of all that do
	// not run for now, as they are meant to.
	spares  []string
	idle    map[string]bool
	offline bool // nothing is fetched

	mu    sync.Mutex
	lines []LineFault
	bans  []Banned
	done  []string // steps, as they were done
	count map[What]int
	busy  map[string]bool
	rev   int
}

// script is what is done to a fleet whose sessions are paired, with messages on
// their way.
type script struct {
	spares []string
	do     func(context.Context, *harness) error
	// look adds to the history what is seen once all have ended; nil: nothing.
	look func(context.Context, *harness, *History) error
}

func accountNumber(i int) string { return fmt.Sprintf("49155501%04d", i) }
func contactNumber(i int) string { return fmt.Sprintf("49166601%04d", i) }

// contacts is how many there are.
func (h *harness) contacts() int { return max(4, h.o.Sessions/5) }

// Run breaks a fleet as the options say and reports what came of it. The error
// is about the harness; what the fleet did wrong stands in the report.
func Run(ctx context.Context, o Options) (r Report, err error) {
	return play(ctx, o, script{do: func(ctx context.Context, h *harness) error {
		return h.carryOut(ctx, MakePlan(o.Seed, o.Length, h.workers(), o.Timing))
	}})
}

// play does to a fleet what a script says.
func play(ctx context.Context, o Options, s script) (r Report, err error) {
	h := &harness{o: o, began: time.Now(), relays: map[string]*relay{}, count: map[What]int{}, busy: map[string]bool{}, spares: s.spares, idle: map[string]bool{}}
	for _, name := range s.spares {
		h.idle[name] = true
	}
	defer func() { err = errors.Join(err, h.close()) }()
	if err := h.start(ctx); err != nil {
		return r, err
	}
	if err := h.pair(ctx); err != nil {
		return r, err
	}
	paired := time.Now()
	t := h.startTraffic(ctx)
	h.traffic = t
	history := History{Timing: o.Timing, Began: paired, Bound: o.Bound, Sessions: h.accounts}
	broken := s.do(ctx, h)
	if err := errors.Join(broken, h.mend(ctx), t.end(), ctx.Err()); err != nil {
		return r, err
	}
	history.Healed = time.Now()
	h.rest(ctx, t, &history)
	if err := h.gather(ctx, t, &history); err != nil {
		return r, err
	}
	if s.look != nil {
		if err := s.look(ctx, h, &history); err != nil {
			return r, err
		}
	}
	return h.report(history), nil
}

func (h *harness) workers() []string {
	var names []string
	for i := range h.o.Workers {
		names = append(names, fmt.Sprintf("w%d", i+1))
	}
	return names
}

func (h *harness) everybody() []string { return append(h.workers(), h.spares...) }

// start brings up the stand-ins, the service, the receiver and the crew.
func (h *harness) start(ctx context.Context) (err error) {
	if h.stand, err = standin.Start(ctx, standin.Options{Dir: filepath.Join(h.o.Dir, "aws"), Offline: h.offline, Lines: append(h.everybody(), crew.Admin)}); err != nil {
		return err
	}
	if h.sim, err = wasim.New(wasim.Options{Control: "off"}); err == nil {
		err = h.sim.Start()
	}
	if err != nil {
		return fmt.Errorf("the simulated service: %w", err)
	}
	if h.sink, err = openSink(); err != nil {
		return err
	}
	own := map[string]map[string]string{}
	for _, name := range append(h.everybody(), crew.Admin) {
		if own[name], err = h.stand.Environment(name); err != nil {
			return err
		}
		if name == crew.Admin {
			continue
		}
		if h.relays[name], err = openRelay(h.sim.Host(), func() (string, int) { return name, h.process(name).Current() }); err != nil {
			return err
		}
		own[name]["HOLDFAST_WHATSAPP_URL"] = "ws://" + h.relays[name].address() + "/ws/chat"
		own[name]["HOLDFAST_WHATSAPP_ROOT_KEY"] = h.sim.RootKeyHex()
	}
	logs := filepath.Join(h.o.Dir, "workers")
	if err := os.MkdirAll(logs, 0o700); err != nil {
		return err
	}
	t := h.o.Timing
	made, err := crew.New(crew.Config{Binary: h.o.Binary, Dir: logs, Workers: h.workers(), Spares: h.spares, Own: own, Key: apiKey, Settings: map[string]string{
		"HOLDFAST_WEBHOOK_URL": h.sink.url, "HOLDFAST_HEARTBEAT": t.Heartbeat.String(), "HOLDFAST_TRUST": t.Trust.String(),
		"HOLDFAST_TAKEOVER": t.Takeover.String(), "HOLDFAST_POLL": t.Poll.String(), deployment: "rev-0",
	}})
	if err != nil {
		return err
	}
	h.mu.Lock()
	h.crew = made
	h.mu.Unlock()
	return made.Start(ctx)
}

// process is a worker's; the relays ask for it too.
func (h *harness) process(name string) *crew.Process {
	h.mu.Lock()
	made := h.crew
	h.mu.Unlock()
	for _, p := range made.Workers {
		if p.Name == name {
			return p
		}
	}
	return nil
}

// close ends everything.
func (h *harness) close() error {
	var err error
	if h.crew != nil {
		err = errors.Join(err, h.crew.Close())
	}
	for _, r := range h.relays {
		r.close()
	}
	if h.sink != nil {
		h.sink.close()
	}
	if h.sim != nil {
		h.sim.Close()
	}
	if h.stand != nil {
		err = errors.Join(err, h.stand.Close())
	}
	return err
}

// pair makes the sessions and has a phone scan the code of each.
func (h *harness) pair(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, pairWithin)
	defer cancel()
	for i := range h.contacts() {
		h.sim.Contact(contactNumber(i)).SetName(fmt.Sprintf("Zebrafish %d", i))
	}
	h.accounts, h.devices = make([]Account, h.o.Sessions), make([]*wasim.Device, h.o.Sessions)
	all, ctx := errgroup.WithContext(ctx)
	all.SetLimit(pairAtOnce)
	for i := range h.o.Sessions {
		all.Go(func() error {
			a := Account{Session: fmt.Sprintf("chaos-%03d", i), Number: accountNumber(i)}
			phone := h.sim.Phone(a.Number)
			phone.Contact().SetName(fmt.Sprintf("Zebrafish himself %d", i))
			d, err := Pair(ctx, h.crew.API, phone, a.Session)
			if err != nil {
				return err
			}
			a.Device, h.devices[i] = d.JID().String(), d
			h.accounts[i] = a
			return nil
		})
	}
	if err := all.Wait(); err != nil {
		return err
	}
	h.say("%d sessions are paired and online", h.o.Sessions)
	return nil
}

// Pair makes a session, has a phone scan its code, and waits until it is online.
func Pair(ctx context.Context, api *crew.API, phone *wasim.Phone, session string) (*wasim.Device, error) {
	again := func() error {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(200 * time.Millisecond):
			return nil
		}
	}
	for {
		err := api.CreateSession(ctx, session)
		var refused *crew.Refused
		if err == nil || errors.As(err, &refused) && refused.Code == "exists" {
			break
		}
		if again() != nil {
			return nil, fmt.Errorf("session %s: cannot be made: %w", session, err)
		}
	}
	for {
		code, err := api.QR(ctx, session, 10*time.Second)
		if err == nil {
			d, scanned := phone.Scan(ctx, code)
			if scanned == nil {
				if err := d.WaitOnline(ctx); err != nil {
					return nil, fmt.Errorf("session %s: is paired and does not come online: %w", session, err)
				}
				return d, nil
			}
			err = scanned
		}
		if again() != nil {
			return nil, fmt.Errorf("session %s: cannot be paired: %w", session, err)
		}
	}
}

func (h *harness) say(format string, args ...any) {
	h.o.Say("%6.1f s  %s", time.Since(h.began).Seconds(), fmt.Sprintf(format, args...))
}
