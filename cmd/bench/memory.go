package main

import (
	"fmt"
	"os"
	"path/filepath"
	"time"
)

// subject is what a figure is of.
type subject string

// The subjects.
const (
	libraryPrimer subject = "primer" // measured nowhere
	libraryMemory subject = "library, store in memory"
	librarySQL    subject = "library, sqlstore"
	holdfast      subject = "Holdfast"
)

// use is what a process with idle sessions uses.
type use struct {
	base  Stats // before anything was opened
	plain Stats // idle, as it is
	after Stats // idle, after a collection
	start time.Duration
	cpu   time.Duration
}

// memory measures what an idle connected session costs, and what starting all
// of them at once takes: in their second process, so that no session has to
// upload all its prekeys first.
func (b *bench) memory() error {
	svc, where, err := b.service()
	if err != nil {
		return err
	}
	defer svc.kill()
	n := b.plan.sessions
	accounts, err := call[[]Account](svc, "Enrol", n)
	if err != nil {
		return err
	}
	uses := map[subject]use{}
	for _, s := range []subject{libraryPrimer, libraryMemory, librarySQL, holdfast} {
		dir, err := b.folder(fmt.Sprintf("memory-%d", len(uses)), s, Fleet{Accounts: accounts})
		if err != nil {
			return err
		}
		runs := 1
		if s == librarySQL || s == holdfast {
			runs = 2 // the first one makes what the second one finds
		}
		for run := range runs {
			measured := run == runs-1 && s != libraryPrimer
			b.progress("%s: %d sessions, process %d of %d", s, n, run+1, runs)
			u, err := b.idle(svc, where, s, accounts, dir, measured)
			if err != nil {
				return err
			}
			uses[s] = u
		}
	}
	b.memoryTable(uses, n)
	return nil
}

// service starts the simulated service.
func (b *bench) service() (*process, Where, error) {
	p, err := b.start(roleService)
	if err != nil {
		return nil, Where{}, err
	}
	where, err := call[Where](p, "Open", None{})
	if err != nil {
		p.kill()
	}
	return p, where, err
}

// options are how a subject runs.
type options struct {
	latency  time.Duration
	apart    bool              // library: a file for each client
	settings map[string]string // Holdfast's
	pairNew  bool              // Holdfast: sessions without credentials show QR codes
}

// launch starts the process of a subject over a data folder and begins to
// connect all accounts. Of Holdfast the folder has been made.
func (b *bench) launch(where Where, s subject, accounts []Account, dir string, o options) (*process, Stats, error) {
	role := roleLibrary
	if s == holdfast {
		role = roleHoldfast
	}
	p, err := b.start(role)
	if err != nil {
		return nil, Stats{}, err
	}
	base, err := call[Stats](p, "Stats", true)
	if err == nil && s == holdfast {
		err = do(p, "Run", Run{Where: where, Dir: dir, Latency: o.latency, Settings: o.settings, PairNew: o.pairNew, HostLocks: true})
	} else if err == nil {
		err = do(p, "Open", Clients{Where: where, Store: s, Accounts: accounts, Dir: dir, Latency: o.latency, Apart: o.apart})
	}
	if err != nil {
		p.kill()
		return nil, Stats{}, err
	}
	return p, base, nil
}

// folder makes a data folder, with what the first process of a subject is to
// find in it. Holdfast's is made in a process of its own.
func (b *bench) folder(name string, s subject, f Fleet) (dir string, err error) {
	dir = filepath.Join(b.dir, name)
	if err := os.Mkdir(dir, 0o700); err != nil || s != holdfast {
		return dir, err
	}
	f.Dir = dir
	p, err := b.start(roleHoldfast)
	if err != nil {
		return "", err
	}
	defer p.kill()
	return dir, do(p, "Make", f)
}

// idle is one process with all accounts online, and its end.
func (b *bench) idle(svc *process, where Where, s subject, accounts []Account, dir string, measured bool) (u use, err error) {
	numbers := numbersOf(accounts)
	began := time.Now()
	p, base, err := b.launch(where, s, accounts, dir, options{})
	if err != nil {
		return u, err
	}
	defer p.kill()
	online, err := call[time.Time](svc, "AwaitOnline", numbers)
	if err != nil {
		return u, err
	}
	then, err := call[Stats](p, "Stats", false)
	if err != nil {
		return u, err
	}
	u.base, u.start, u.cpu = base, online.Sub(began), then.CPU
	if measured {
		time.Sleep(b.plan.settle)
		if u.plain, err = call[Stats](p, "Stats", false); err != nil {
			return u, err
		}
		if u.after, err = call[Stats](p, "Stats", true); err != nil {
			return u, err
		}
		if err := b.heapProfile(p, s); err != nil {
			return u, err
		}
	}
	if err := do(p, "Stop", None{}); err != nil {
		return u, err
	}
	p.kill()
	return u, do(svc, "AwaitOffline", numbers)
}

func numbersOf(accounts []Account) []string {
	out := make([]string, len(accounts))
	for i, a := range accounts {
		out[i] = a.Number
	}
	return out
}

// heapProfile takes one, where profiles are wanted.
func (b *bench) heapProfile(p *process, s subject) error {
	if b.prof == "" {
		return nil
	}
	name := map[subject]string{libraryMemory: "library-memory", librarySQL: "library-sqlstore", holdfast: "holdfast"}[s]
	path, err := filepath.Abs(filepath.Join(b.prof, name+".heap"))
	if err != nil {
		return err
	}
	return do(p, "Heap", path)
}

// memoryTable prints what the subjects use, and holds Holdfast against the
// library with a store in memory.
func (b *bench) memoryTable(uses map[subject]use, n int) {
	t := table{title: fmt.Sprintf("An idle connected session, of %d in one process: KiB and goroutines each, over an empty process", n),
		head: []string{"", "RSS", "live heap", "heap spans", "stacks", "runtime", "RSS as it was", "goroutines", "process, MiB"}}
	each := func(idle, base int64) float64 { return float64(idle-base) / float64(n) / 1024 }
	rss, extra := map[subject]float64{}, map[subject]float64{}
	for _, s := range []subject{libraryMemory, librarySQL, holdfast} {
		u := uses[s]
		rss[s] = each(u.after.RSS, u.base.RSS)
		extra[s] = float64(u.after.Goroutines-u.base.Goroutines) / float64(n)
		t.row(string(s), f1(rss[s]), f1(each(u.after.Heap, u.base.Heap)), f1(each(u.after.Spans, u.base.Spans)),
			f1(each(u.after.Stacks, u.base.Stacks)), f1(each(u.after.Runtime, u.base.Runtime)), f1(each(u.plain.RSS, u.base.RSS)), f2(extra[s]),
			f1(float64(u.after.RSS)/(1<<20)))
	}
	t.print(b.out)
	ratio := rss[holdfast] / rss[libraryMemory]
	b.bound("memory: RSS of Holdfast against the library with a store in memory", fmt.Sprintf("%.2f times", ratio),
		fmt.Sprintf("at most %.2f times", b.plan.ratio), ratio <= b.plan.ratio)
	more := extra[holdfast] - extra[libraryMemory]
	b.bound("memory: goroutines of a session over the library's", f2(more),
		fmt.Sprintf("at most %.0f", b.plan.goroutines), more <= b.plan.goroutines+0.05) // those that a process has once

	t = table{title: fmt.Sprintf("%d sessions starting in one process, login bucket open: from the start of the process", n),
		head: []string{"", "all online after", "CPU of the process"}}
	for _, s := range []subject{libraryMemory, librarySQL, holdfast} {
		t.row(string(s), uses[s].start.Round(10*time.Millisecond).String(), uses[s].cpu.Round(10*time.Millisecond).String())
	}
	t.print(b.out)
}
