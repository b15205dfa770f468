package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/holdfast-wa/holdfast/infra/standin"
	"github.com/holdfast-wa/holdfast/infra/standin/crew"
)

// workers are those that are started; spare is one that a user can start.
var (
	workers = []string{"w1", "w2", "w3"}
	spare   = "w4"
)

const (
	apiKey     = "fleet"
	simulator  = "sim"
	readyAfter = 2 * time.Minute // all sessions paired and online
)

// stage is everything that runs.
type stage struct {
	o     options
	out   io.Writer
	began time.Time

	stand *standin.Standin
	crew  *crew.Crew
	sim   service
}

// service is the simulated WhatsApp, as its process tells of itself.
type service struct {
	URL     string `json:"url"`
	Control string `json:"controlUrl"`
	RootKey string `json:"rootKey"`
}

func (s *stage) say(format string, args ...any) {
	fmt.Fprintf(s.out, "%5.1f s  %s\n", time.Since(s.began).Seconds(), fmt.Sprintf(format, args...))
}

// open starts everything and waits until all sessions are online.
func (s *stage) open(ctx context.Context) (err error) {
	s.say("starting DynamoDB Local, versitygw (S3) and a fake KMS; logs are in %s", s.o.dir)
	lines := append(slices.Clone(workers), spare, crew.Admin)
	if s.stand, err = standin.Start(ctx, standin.Options{Dir: filepath.Join(s.o.dir, "aws"), Lines: lines}); err != nil {
		return err
	}
	own := map[string]map[string]string{simulator: {"HOLDFAST_API_KEY": apiKey}}
	for _, name := range lines {
		if own[name], err = s.stand.Environment(name); err != nil {
			return err
		}
	}
	if s.crew, err = crew.New(crew.Config{Binary: s.o.binary, Dir: s.o.dir, Workers: workers, Settings: s.o.settings, Own: own, Key: apiKey}); err != nil {
		return err
	}
	if err := s.startSim(ctx); err != nil {
		return err
	}
	service := []string{"HOLDFAST_WHATSAPP_URL=" + s.sim.URL, "HOLDFAST_WHATSAPP_ROOT_KEY=" + s.sim.RootKey}
	for _, p := range s.crew.Workers {
		p.Env = append(p.Env, service...)
	}
	if err := s.crew.Start(ctx); err != nil {
		return err
	}
	if err := s.environments(own, service); err != nil {
		return err
	}
	s.say("three workers, the admin API at %s and a simulated WhatsApp at %s run", s.crew.API.Base, s.sim.URL)
	return s.pair(ctx)
}

// startSim starts the simulated service, whose phones scan what the API shows.
func (s *stage) startSim(ctx context.Context) error {
	p, err := s.crew.Add(simulator, "sim", "--autoscan="+s.crew.API.Base)
	if err != nil {
		return err
	}
	said := filepath.Join(s.o.dir, "sim.json")
	if p.Out, err = os.Create(said); err != nil {
		return err
	}
	defer p.Out.Close()
	if err := p.Start(); err != nil {
		return err
	}
	for deadline := time.Now().Add(20 * time.Second); ; {
		b, err := os.ReadFile(said)
		if err == nil && bytes.HasSuffix(b, []byte("\n")) {
			return json.Unmarshal(b, &s.sim)
		}
		if !p.Running() || time.Now().After(deadline) || !pause(ctx, 20*time.Millisecond) {
			return fmt.Errorf("the simulated service did not start: %s", s.crew.Tail(p, 600))
		}
	}
}

// environments writes for each worker what it needs in its environment, so that
// it can be started by hand.
func (s *stage) environments(own map[string]map[string]string, service []string) error {
	if _, err := s.crew.Add(spare, "worker"); err != nil { // its folder and its address
		return err
	}
	for _, name := range append(slices.Clone(workers), spare) {
		env := map[string]string{"HOLDFAST_DATA_DIR": filepath.Join(s.o.dir, name), "HOLDFAST_LISTEN": s.crew.Address(name),
			"HOLDFAST_API_KEYS": crew.KeySetting(apiKey), "HOLDFAST_TASK": name}
		maps.Copy(env, s.o.settings)
		maps.Copy(env, own[name])
		for _, e := range service {
			k, v, _ := strings.Cut(e, "=")
			env[k] = v
		}
		var b strings.Builder
		for _, k := range slices.Sorted(maps.Keys(env)) {
			fmt.Fprintf(&b, "export %s='%s'\n", k, env[k])
		}
		if err := os.WriteFile(filepath.Join(s.o.dir, name+".env"), []byte(b.String()), 0o600); err != nil {
			return err
		}
	}
	client := fmt.Sprintf("export HOLDFAST_URL='%s'\nexport HOLDFAST_API_KEY='%s'\n", s.crew.API.Base, apiKey)
	return os.WriteFile(filepath.Join(s.o.dir, "client.env"), []byte(client), 0o600)
}

// pair makes the sessions and waits until all are online.
func (s *stage) pair(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, readyAfter)
	defer cancel()
	var all errgroup.Group
	for i := range s.o.sessions {
		all.Go(func() error {
			for {
				err := s.crew.API.CreateSession(ctx, fmt.Sprintf("shop-%d", i+1))
				var refused *crew.Refused
				if err == nil || errors.As(err, &refused) && refused.Status == http.StatusConflict {
					return nil
				}
				if !pause(ctx, 500*time.Millisecond) {
					return err
				}
			}
		})
	}
	if err := all.Wait(); err != nil {
		return fmt.Errorf("making sessions: %w", err)
	}
	s.say("%d sessions made; simulated phones scan their codes", s.o.sessions)
	if _, err := s.until(ctx, "all sessions online", func(v view) bool { return v.online == s.o.sessions }); err != nil {
		return err
	}
	s.say("all are paired and online")
	return s.show(ctx, "workers")
}

func pause(ctx context.Context, d time.Duration) bool {
	select {
	case <-ctx.Done():
		return false
	case <-time.After(d):
		return true
	}
}

// view is the fleet as the API shows it.
type view struct {
	sessions []crew.Session
	tasks    map[string]string // of incarnations: the names of the processes
	alive    map[string]bool   // incarnations
	online   int
	has      map[string]int // sessions online, by the name of the process
	owner    map[string]string
}

// look reads it.
func (s *stage) look(ctx context.Context) (v view, err error) {
	list, err := s.crew.API.Workers(ctx)
	if err != nil {
		return v, err
	}
	v = view{tasks: map[string]string{}, alive: map[string]bool{}, has: map[string]int{}, owner: map[string]string{}}
	for _, w := range list {
		v.tasks[w.ID], v.alive[w.ID] = w.Task, w.Alive
	}
	if v.sessions, err = s.crew.API.Sessions(ctx); err != nil {
		return v, err
	}
	for _, x := range v.sessions {
		if x.State != "unowned" {
			v.owner[x.Name] = v.tasks[x.Owner]
		}
		if x.State == "online" {
			v.online++
			v.has[v.tasks[x.Owner]]++
		}
	}
	return v, nil
}

// until looks until it is as wanted.
func (s *stage) until(ctx context.Context, what string, wanted func(view) bool) (view, error) {
	for {
		v, err := s.look(ctx)
		if err == nil && wanted(v) {
			return v, nil
		}
		if !pause(ctx, 200*time.Millisecond) {
			if err == nil {
				err = fmt.Errorf("%d of %d sessions are online", v.online, s.o.sessions)
			}
			return v, fmt.Errorf("%s: not in time: %w", what, err)
		}
	}
}

// show runs a command of holdfast and shows what it prints.
func (s *stage) show(ctx context.Context, args ...string) error {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	cmd := exec.CommandContext(ctx, s.o.binary, args...) //nolint:gosec // the binary that was built for this
	cmd.Env = crew.Environ(map[string]string{"HOLDFAST_URL": s.crew.API.Base, "HOLDFAST_API_KEY": apiKey})
	out, err := cmd.CombinedOutput()
	fmt.Fprintf(s.out, "\n$ holdfast %s\n%s\n", strings.Join(args, " "), out)
	if err != nil {
		return fmt.Errorf("holdfast %s: %w", strings.Join(args, " "), err)
	}
	return nil
}

// close ends everything.
func (s *stage) close() error {
	var err error
	if s.crew != nil {
		ctx, cancel := context.WithTimeout(context.Background(), 15*time.Second)
		_ = s.crew.Stop(ctx) // whoever does not end is killed below
		cancel()
		err = errors.Join(err, s.crew.Close())
	}
	if s.stand != nil {
		err = errors.Join(err, s.stand.Close())
	}
	return err
}
