package main

import (
	"fmt"
	"time"
)

// resume measures the time from the start of a process to all sessions online,
// after kill -9 of the one before it.
func (b *bench) resume() error {
	svc, where, err := b.service()
	if err != nil {
		return err
	}
	defer svc.kill()
	t := table{title: "After kill -9 of the worker's process: from the start of the next one to online",
		head: []string{"sessions", "all online after", "CPU of the process"}}
	for _, n := range b.plan.fleets {
		b.progress("%d sessions, killed", n)
		took, cpu, err := b.killed(svc, where, n)
		if err != nil {
			return err
		}
		t.row(fmt.Sprint(n), took.Round(time.Millisecond).String(), cpu.Round(10*time.Millisecond).String())
	}
	t.print(b.out)
	return nil
}

func (b *bench) killed(svc *process, where Where, n int) (took, cpu time.Duration, err error) {
	accounts, err := call[[]Account](svc, "Enrol", n)
	if err != nil {
		return 0, 0, err
	}
	numbers := numbersOf(accounts)
	dir, err := b.folder(fmt.Sprintf("resume-%d", n), holdfast, Fleet{Accounts: accounts})
	if err != nil {
		return 0, 0, err
	}
	first, _, err := b.launch(where, holdfast, accounts, dir, options{})
	if err != nil {
		return 0, 0, err
	}
	defer first.kill()
	if _, err := call[time.Time](svc, "AwaitOnline", numbers); err != nil {
		return 0, 0, err
	}
	first.kill()
	if err := do(svc, "AwaitOffline", numbers); err != nil {
		return 0, 0, err
	}
	began := time.Now()
	second, _, err := b.launch(where, holdfast, accounts, dir, options{})
	if err != nil {
		return 0, 0, err
	}
	defer second.kill()
	online, err := call[time.Time](svc, "AwaitOnline", numbers)
	if err != nil {
		return 0, 0, err
	}
	used, err := call[Stats](second, "Stats", false)
	return online.Sub(began), used.CPU, err
}
