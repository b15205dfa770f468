package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"slices"
	"time"

	"github.com/aws/aws-sdk-go-v2/credentials"

	"github.com/holdfast-wa/holdfast/infra/units"
	"github.com/holdfast-wa/holdfast/infra/wasim"
	"github.com/holdfast-wa/holdfast/state"
	"github.com/holdfast-wa/holdfast/state/dynamo"
	"github.com/holdfast-wa/holdfast/state/seal"
	"github.com/holdfast-wa/holdfast/state/statetest"
	"github.com/holdfast-wa/holdfast/state/vault"
	"github.com/holdfast-wa/holdfast/worker"
	"github.com/holdfast-wa/holdfast/worker/policy"
	"github.com/holdfast-wa/holdfast/worker/whatsapp"
)

// counting is workers, sessions and the service in one process, over DynamoDB
// Local.
type counting struct {
	house
	size     countingSize
	tell     func(format string, args ...any)
	ledger   ledger
	service  service
	svc      *whatsapp.Service
	sink     string
	accounts []Account
	clerks   []*clerk
	alone    byMethod // an hour of a worker without sessions
	sent     int      // answers of each session so far
	ended    int      // workers

	counts units.Counts
	detail []detail
}

// countingSize is how much is counted.
type countingSize struct {
	sessions int
	messages int           // of each session, in each direction
	window   time.Duration // for what comes by the hour: over a minute; 0: that is left out
}

// detail is the requests behind a count.
type detail struct {
	name string
	byMethod
}

// clerk is a worker in this process.
type clerk struct {
	worker *worker.Worker
	fault  *statetest.FaultStore
	stop   context.CancelFunc
	ended  chan error
}

// leastWindow is enough for what comes each second.
const leastWindow = 6 * time.Second

const (
	// settleWrites is how long what follows a change may take.
	settleWrites = 2 * time.Second
	// lazyAtMost is more than how long a lazy write may wait for a commit.
	lazyAtMost = 65 * time.Second
	// sweepsHourly is how often in an hour commands are looked for under each
	// worker that has ended and is remembered.
	sweepsHourly = 120.0
	// rosterHourly is how often the roster is read in an hour where nothing
	// happens, and rosterRequests what that takes.
	rosterHourly, rosterRequests = 120, 2
)

// count counts over a DynamoDB Local that answers at endpoint.
func count(endpoint, dir string, size countingSize, tell func(format string, args ...any)) (c *counting, err error) {
	c = &counting{size: size, tell: tell}
	ctx := context.Background()
	if err := c.open(ctx, endpoint, dir); err != nil {
		return c, err
	}
	defer c.service.s.Close()
	defer c.svc.Close()
	defer func() { err = errors.Join(err, c.dismiss()) }()
	for _, step := range []func(context.Context) error{
		c.idleWorkers, c.firstLogins, c.messages, c.restart, c.handOver, c.takeOver,
	} {
		if err := step(ctx); err != nil {
			return c, err
		}
	}
	return c, nil
}

func (c *counting) open(ctx context.Context, endpoint, dir string) error {
	store, err := dynamo.Open(ctx, dynamo.Options{
		Prefix: "bench", Region: "us-east-1", Endpoint: endpoint, OnCapacity: c.ledger.consumed,
		// DynamoDB Local keeps a database for each access key.
		Credentials: credentials.NewStaticCredentialsProvider(fmt.Sprintf("B%d", time.Now().UnixNano()), "secret", ""),
	})
	if err != nil {
		return err
	}
	if err := store.Create(ctx); err != nil {
		return err
	}
	c.store = store
	master, err := seal.CreateFile(filepath.Join(dir, "master.key"))
	if err != nil {
		return err
	}
	objects, err := vault.OpenDir(filepath.Join(dir, "vault"))
	if err != nil {
		return err
	}
	c.master, c.vault = notedMaster{master, &c.ledger}, notedVault{objects, &c.ledger}
	if c.keyset, err = worker.OpenKeyset(ctx, store, c.master); err != nil {
		return err
	}
	if c.service.s, err = wasim.New(wasim.Options{Control: "off", QuietPhone: true}); err != nil {
		return err
	}
	if err := c.service.s.Start(); err != nil {
		return err
	}
	if err := c.service.Sink(None{}, &c.sink); err != nil {
		return err
	}
	c.svc, err = whatsapp.NewService(whatsapp.ServiceConfig{Endpoint: c.service.s.URL(), RootKey: c.service.s.RootKeyHex()})
	return err
}

// hire starts a worker, and waits until it has looked around.
func (c *counting) hire() (*clerk, error) {
	k := &clerk{fault: statetest.Fault(c.store), ended: make(chan error, 1)}
	set := policy.Guide()
	set.SendPace, set.SendPaceChat = 0, 0 // messages are counted, not their pauses
	var err error
	k.worker, err = worker.New(worker.Config{
		Store: k.fault, Vault: c.vault, Master: c.master, Keyset: c.keyset, Service: c.svc, Settings: set,
		Info: state.MemberInfo{Deployment: "bench", Host: "bench", Format: state.Format}, Drain: 30 * time.Second,
		Webhook: worker.Webhook{URL: c.sink}, Log: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		return nil, err
	}
	var ctx context.Context
	ctx, k.stop = context.WithCancel(context.Background())
	go func() { k.ended <- k.worker.Run(ctx) }()
	c.clerks = append(c.clerks, k)
	for deadline := time.Now().Add(gatherWithin); k.worker.Incarnation() == ""; time.Sleep(20 * time.Millisecond) {
		if time.Now().After(deadline) {
			return nil, errors.New("a worker has not joined")
		}
	}
	time.Sleep(settleWrites)
	return k, nil
}

// fire ends a worker in order.
func (c *counting) fire(k *clerk) error {
	c.clerks = slices.DeleteFunc(c.clerks, func(o *clerk) bool { return o == k })
	k.stop()
	c.ended++
	return <-k.ended
}

// dismiss ends all workers.
func (c *counting) dismiss() error {
	var errs []error
	for _, k := range slices.Clone(c.clerks) {
		errs = append(errs, c.fire(k))
	}
	return errors.Join(errs...)
}

// ofWorkers are the methods by which a worker comes, goes on and ends whatever its
// sessions do: what they cost in the meantime is no session's.
var ofWorkers = []string{"Beat", "Watch", "Roster", "OwnedBy", "Sessions", "Join", "DeclareStopped", "DeclareDead", "Forget"}

// during counts what is done, per one of n, without what workers do by the hour.
func (c *counting) during(name string, n int, into *units.Use, do func() error) error {
	c.tell("counting: %s", name)
	c.ledger.take()
	began := time.Now()
	if err := do(); err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	hours := time.Since(began).Hours() * float64(len(c.clerks))
	c.note(name, c.sessions(sum(c.ledger.take()), hours).times(1/float64(n)), into)
	return nil
}

// sessions leaves what sessions cost, of what was spent in some hours of workers.
func (c *counting) sessions(spent byMethod, hours float64) byMethod {
	for _, method := range ofWorkers {
		delete(spent, method)
	}
	// And of the looks for commands, also for those under workers that have ended,
	// with what a rate is off by.
	looks := c.alone["Indexed"].Plus(units.Use{Requests: sweepsHourly, Read: sweepsHourly / 2}.Times(float64(c.ended)))
	return spent.minus(byMethod{"Indexed": looks.Times(hours * 1.02)})
}

func (c *counting) note(name string, spent byMethod, into *units.Use) {
	*into = spent.total()
	c.detail = append(c.detail, detail{name, spent})
}

// idle is what goes on in an hour.
func (c *counting) idle() byMethod {
	window := max(c.size.window, leastWindow)
	c.ledger.take()
	time.Sleep(window)
	return hourly(c.ledger.take(), window)
}

// roster is what an hour of reading it costs: too seldom to be counted by its
// times.
func roster(m byMethod) units.Use {
	u := m["Roster"]
	if u.Requests == 0 {
		return u
	}
	return u.Times(rosterHourly * rosterRequests / u.Requests)
}

// idleWorkers counts workers without sessions.
func (c *counting) idleWorkers(context.Context) error {
	c.ledger.take()
	if _, err := c.hire(); err != nil {
		return err
	}
	began := sum(c.ledger.take())
	c.tell("counting: a worker without sessions")
	c.alone = c.idle()
	if c.size.window == 0 {
		return c.fire(c.clerks[0]) // it was for the commands that it looks for
	}
	c.alone["Roster"] = roster(c.alone)
	c.note("worker alone, an hour", c.alone, &c.counts.WorkerHour)
	c.note("start of a worker", began.minus(c.alone.times(settleWrites.Hours())), &c.counts.WorkerStart)
	for range 2 {
		if _, err := c.hire(); err != nil {
			return err
		}
	}
	c.tell("counting: three workers without sessions")
	three := c.idle()
	each := three.times(1.0 / 3).minus(c.alone)
	watched := each["Watch"]
	watched.Requests = 0 // it is asked for with the others; what is left over is noise
	c.note("each worker it watches, an hour", byMethod{"Watch": watched}.times(1.0/2), &c.counts.WatchedHour)
	c.note("each member of the roster, an hour", byMethod{"Roster": roster(three).Minus(roster(c.alone))}.times(1.0/2), &c.counts.MemberHour)
	return c.dismiss()
}

// firstLogins makes sessions and starts a worker, which takes them.
func (c *counting) firstLogins(ctx context.Context) error {
	if err := c.service.Enrol(c.size.sessions, &c.accounts); err != nil {
		return err
	}
	if err := c.fill(ctx, c.accounts, nil); err != nil {
		return err
	}
	return c.during("first login after a pairing", len(c.accounts), &c.counts.FirstLogin, func() error {
		if _, err := c.hire(); err != nil {
			return err
		}
		return c.online()
	})
}

// online waits until all sessions are, and what follows is written.
func (c *counting) online() error {
	var at time.Time
	if err := c.service.AwaitOnline(numbersOf(c.accounts), &at); err != nil {
		return err
	}
	time.Sleep(settleWrites)
	return nil
}

// write has each contact write n messages to its session, one at a time, and
// waits until they are at the webhook.
func (c *counting) write(n int) error {
	var toll Toll
	t := Traffic{numbersOf(c.accounts), 10, n * len(c.accounts)}
	if err := c.service.Begin(t, nil); err != nil {
		return err
	}
	if err := c.service.End(None{}, &toll); err != nil {
		return err
	}
	if toll.Unacked+toll.Lost+toll.Unread > 0 || toll.Sent != t.Most {
		return fmt.Errorf("messages have gone astray: %+v", toll)
	}
	time.Sleep(settleWrites)
	return nil
}

// reply has each session send n messages, one at a time, and waits until its
// contacts' receipts are stored.
func (c *counting) reply(ctx context.Context, n int) error {
	for i := range n {
		for _, a := range c.accounts {
			contact, err := c.service.contact(a.Number)
			if err != nil {
				return err
			}
			text := fmt.Sprintf("answer %d of a text of usual length, neither short nor long", c.sent+i)
			if err := c.put(ctx, Reply{a.Name, contact.Number(), text}); err != nil {
				return err
			}
			c.clerks[0].worker.Nudge(a.Name)
			late, cancel := context.WithTimeout(ctx, time.Minute)
			_, err = contact.WaitText(late, text)
			cancel()
			if err != nil {
				return err
			}
		}
	}
	c.sent += n
	time.Sleep(settleWrites)
	return nil
}

// messages counts them, once the contacts know one another, and what sessions
// cost that have none.
func (c *counting) messages(ctx context.Context) error {
	c.tell("counting: sessions get to know their contacts")
	if err := errors.Join(c.write(1), c.reply(ctx, 1), c.write(1)); err != nil {
		return err
	}
	if c.size.window > 0 {
		if err := c.alones(ctx); err != nil {
			return err
		}
	}
	n := c.size.messages
	err := c.during("message received", n*len(c.accounts), &c.counts.Received, func() error { return c.write(n) })
	if err != nil {
		return err
	}
	return c.during("message sent", n*len(c.accounts), &c.counts.Sent, func() error { return c.reply(ctx, n) })
}

// alones counts sessions without messages, and messages that none follows.
func (c *counting) alones(ctx context.Context) error {
	time.Sleep(lazyAtMost)
	c.tell("counting: %d sessions without messages", len(c.accounts))
	n := len(c.accounts)
	c.note("idle session, an hour", c.sessions(c.idle(), 1).times(1/float64(n)), &c.counts.SessionHour)
	wait := func(err error) error {
		time.Sleep(lazyAtMost)
		return err
	}
	return errors.Join(
		c.during("message received, none follows", n, &c.counts.ReceivedAlone, func() error { return wait(c.write(1)) }),
		c.during("message sent, none follows", n, &c.counts.SentAlone, func() error { return wait(c.reply(ctx, 1)) }))
}

// restart stops the worker and starts another one.
func (c *counting) restart(context.Context) error {
	n := len(c.accounts)
	if err := c.during("release", n, &c.counts.Release, func() error { return c.fire(c.clerks[0]) }); err != nil {
		return err
	}
	return c.during("resume", n, &c.counts.Resume, func() error {
		if _, err := c.hire(); err != nil {
			return err
		}
		return c.online()
	})
}

// handOver starts a second worker and stops the first.
func (c *counting) handOver(context.Context) error {
	if _, err := c.hire(); err != nil {
		return err
	}
	return c.during("hand-over", len(c.accounts), &c.counts.HandOver, func() error {
		if err := c.fire(c.clerks[0]); err != nil {
			return err
		}
		return c.online()
	})
}

// takeOver starts a second worker and parts the first from the store.
func (c *counting) takeOver(ctx context.Context) error {
	if _, err := c.hire(); err != nil {
		return err
	}
	first := c.clerks[0]
	return c.during("takeover", len(c.accounts), &c.counts.Takeover, func() error {
		at := time.Now()
		first.fault.FailBefore(nil, -1, nil)
		if err := c.store.DeclareStopped(ctx, first.worker.Incarnation()); err != nil {
			return err
		}
		var moved []Move
		err := c.service.AwaitMoved(Moved{numbersOf(c.accounts), at}, &moved)
		time.Sleep(settleWrites)
		first.fault.Heal() // it may end now
		return err
	})
}
