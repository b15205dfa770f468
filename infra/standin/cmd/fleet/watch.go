package main

import (
	"context"
	"fmt"
	"path/filepath"
	"slices"
	"time"
)

// invite says what can be typed in another terminal.
func (s *stage) invite(v view) {
	dir, h := s.o.dir, s.o.binary
	for id, name := range v.tasks {
		s.say("%s is %s", name, id)
	}
	fmt.Fprintf(s.out, "\nIn another terminal, to look:\n\n  . %s\n  %s workers\n  %s sessions ls\n  %s sessions watch\n",
		filepath.Join(dir, "client.env"), h, h, h)
	fmt.Fprintf(s.out, "\nand to make something happen; what follows is told here:\n\n")
	for _, p := range s.crew.Workers {
		runs := p.Runs()
		fmt.Fprintf(s.out, "  kill -9 %-7d # %s dies: the others take its sessions over after %s\n", runs[len(runs)-1].PID, p.Name, s.o.settings["HOLDFAST_TAKEOVER"])
	}
	first := s.crew.Workers[0]
	runs := first.Runs()
	fmt.Fprintf(s.out, "  kill -TERM %-4d # %s is asked to end: it hands its sessions over first\n", runs[len(runs)-1].PID, first.Name)
	fmt.Fprintf(s.out, "  (. %s; %s worker)   # a worker more: it is given its share\n", filepath.Join(dir, spare+".env"), h)
	fmt.Fprintf(s.out, "  (. %s; %s worker)   # or one that was ended, again\n", filepath.Join(dir, first.Name+".env"), h)
	fmt.Fprintf(s.out, "\nCtrl-C ends everything.\n\n")
}

// watch tells of each change of owner and state until ctx ends.
func (s *stage) watch(ctx context.Context) {
	var last view
	for pause(ctx, 200*time.Millisecond) {
		v, err := s.look(ctx)
		if err != nil {
			continue
		}
		s.tell(last, v)
		last = v
	}
	fmt.Fprintln(s.out)
	s.say("ending")
}

// tell says what has changed between two looks.
func (s *stage) tell(before, now view) {
	if before.owner == nil {
		return
	}
	states := map[string]string{}
	for _, x := range before.sessions {
		states[x.Name] = x.State
	}
	var lines []string
	for _, x := range now.sessions {
		from, to := before.owner[x.Name], now.owner[x.Name]
		switch {
		case from != to:
			lines = append(lines, fmt.Sprintf("%s: %s → %s, %s", x.Name, nobody(from), nobody(to), x.State))
		case states[x.Name] != x.State:
			lines = append(lines, fmt.Sprintf("%s: %s at %s", x.Name, x.State, nobody(to)))
		}
	}
	for id, name := range now.tasks {
		_, known := before.tasks[id]
		switch {
		case !known:
			lines = append(lines, fmt.Sprintf("%s joined the fleet as %s", name, id))
		case before.alive[id] && !now.alive[id]:
			lines = append(lines, fmt.Sprintf("%s has ended, or its heartbeat stands still", name))
		}
	}
	slices.Sort(lines)
	for _, l := range lines {
		s.say("%s", l)
	}
}

func nobody(name string) string {
	if name == "" {
		return "nobody"
	}
	return name
}
