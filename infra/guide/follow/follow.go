package follow

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"
)

// Options say what a page is followed with.
type Options struct {
	Binary string    // the program, built
	Source string    // the root of the source; for pages with the mark source
	Env    []string  // more variables of the session, NAME=VALUE
	Log    io.Writer // gets what is typed and printed; nil: nobody
}

// File follows a page. An error names the page and the line at which it is
// wrong. At its end nothing runs any more that the page has started.
func File(ctx context.Context, file string, opt Options) error {
	text, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	p, err := parse(file, text)
	if err != nil {
		return err
	}
	if len(p.steps) == 0 {
		return &fault{file, 1, "nothing in it is marked to be followed"}
	}
	return follow(ctx, file, p, opt)
}

func follow(ctx context.Context, file string, p page, opt Options) (err error) {
	if opt.Log == nil {
		opt.Log = io.Discard
	}
	dir, err := os.MkdirTemp("", "holdfast-follow")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	r := &runner{file: file, log: opt.Log, places: map[string]string{}, notes: filepath.Join(dir, "notes"), work: filepath.Join(dir, "work"), bin: filepath.Join(dir, "bin")}
	for _, d := range []string{r.notes, r.work, r.bin} {
		if err := os.Mkdir(d, 0o700); err != nil {
			return err
		}
	}
	if opt.Binary != "" {
		if err := os.Symlink(opt.Binary, filepath.Join(r.bin, "holdfast")); err != nil {
			return err
		}
	}
	if p.does("source") {
		if err := copySource(opt.Source, r.work, opt.Binary); err != nil {
			return err
		}
	}
	r.env = append(environment(os.Environ(), r.bin), opt.Env...)
	r.env = append(r.env, "HOLDFAST_LISTEN="+r.place("127.0.0.1:8080"), "HOLDFAST_LOG_FORMAT=text") // as on a terminal
	defer func() { err = errors.Join(err, r.end()) }()
	if p.does("sim") || p.does("autoscan") {
		if err := r.simulate(ctx, opt.Binary, p.does("autoscan")); err != nil {
			return &fault{file, 1, err.Error()}
		}
	}
	if err := r.shell(); err != nil {
		return err
	}
	for _, s := range p.steps {
		if err := r.step(ctx, s); err != nil {
			return err
		}
	}
	return nil
}

// environment is what the session begins with: nothing of the caller's settings
// of holdfast or AWS.
func environment(environ []string, bin string) []string {
	var kept []string
	for _, e := range environ {
		name, value, _ := strings.Cut(e, "=")
		switch {
		case strings.HasPrefix(name, "HOLDFAST_"), strings.HasPrefix(name, "AWS_"), strings.HasPrefix(name, "BASH_"), name == "ENV", name == "CDPATH",
			name == "STORAGE_DIR", name == "MAKEFLAGS", name == "MAKELEVEL", name == "MFLAGS", name == "GORACE":
		case name == "PATH":
			kept = append(kept, "PATH="+bin+string(os.PathListSeparator)+value)
		default:
			kept = append(kept, e)
		}
	}
	return append(kept, "LC_ALL=C.UTF-8", "no_proxy=127.0.0.1,localhost")
}

// copySource copies what a clone has, and puts the program where make build
// does, so that make finds it built.
func copySource(from, to, binary string) error {
	if from == "" {
		return errors.New("follow: the page wants the source: give Options.Source")
	}
	source, err := os.OpenRoot(from)
	if err != nil {
		return err
	}
	defer source.Close()
	left := []string{"bin", "dist", "data", "cover.out"} // at the top
	err = fs.WalkDir(source.FS(), ".", func(rel string, d fs.DirEntry, err error) error {
		switch {
		case err != nil || rel == ".":
			return err
		case slices.Contains(left, rel) || strings.HasPrefix(d.Name(), ".") || d.Name() == "testdata" || d.Name() == "node_modules":
			if d.IsDir() {
				return fs.SkipDir
			}
			return nil
		case d.IsDir():
			return os.Mkdir(filepath.Join(to, rel), 0o700)
		case !d.Type().IsRegular() || strings.HasSuffix(rel, "_test.go"):
			return nil
		}
		b, err := source.ReadFile(rel)
		if err != nil {
			return err
		}
		return os.WriteFile(filepath.Join(to, rel), b, 0o600)
	})
	if err != nil || binary == "" {
		return err
	}
	b, err := os.ReadFile(binary)
	if err != nil {
		return err
	}
	if err := os.Mkdir(filepath.Join(to, "bin"), 0o700); err != nil {
		return err
	}
	program := filepath.Join(to, "bin", "holdfast")
	if err := os.WriteFile(program, b, 0o600); err != nil {
		return err
	}
	return os.Chmod(program, 0o700)
}

var address = regexp.MustCompile(`\b(?:127\.0\.0\.1|localhost):[1-9][0-9]{0,4}\b`)

// place is the address that stands for one that a page shows.
func (r *runner) place(shown string) string {
	if r.places[shown] == "" {
		host, port, _ := strings.Cut(shown, ":")
		for other, used := range r.places {
			if _, p, _ := strings.Cut(other, ":"); p == port { // localhost and 127.0.0.1
				_, p, _ = strings.Cut(used, ":")
				r.places[shown] = host + ":" + p
				return r.places[shown]
			}
		}
		r.places[shown] = fmt.Sprintf("%s:%d", host, r.freePort())
	}
	return r.places[shown]
}

// freePort chooses a port below those that the system gives away by itself, so
// that none of our own connections gets it before it is used. Until the page
// ends, its UDP twin is held, by which others that choose see that it is taken.
func (r *runner) freePort() int {
	for {
		place := fmt.Sprintf("127.0.0.1:%d", 12000+rand.IntN(20000))
		twin, err := net.ListenPacket("udp", place)
		if err != nil {
			continue
		}
		l, err := net.Listen("tcp", place)
		if err != nil {
			_ = twin.Close()
			continue
		}
		_ = l.Close()
		r.held = append(r.held, twin)
		return l.Addr().(*net.TCPAddr).Port
	}
}

// there puts the addresses that are used for those that are shown, here turns
// it round.
func (r *runner) there(text string) string { return address.ReplaceAllStringFunc(text, r.place) }

func (r *runner) here(text string) string {
	for shown, used := range r.places {
		text = strings.ReplaceAll(text, used, shown)
	}
	return text
}

// simulate starts the simulated service and points the session at it.
func (r *runner) simulate(ctx context.Context, binary string, autoscan bool) error {
	config := filepath.Join(r.notes, "sim.yaml")
	args := []string{"sim", "--control", "127.0.0.1:0", "--write-config", config}
	if autoscan {
		args = append(args, "--autoscan", "--data-dir", filepath.Join(r.work, "data"))
	}
	out := filepath.Join(r.notes, "sim.out")
	f, err := os.Create(out)
	if err != nil {
		return err
	}
	defer f.Close()
	cmd := exec.Command(binary, args...) //nolint:gosec // G204: the program that is tested
	cmd.Dir, cmd.Env, cmd.Stdout, cmd.Stderr = r.work, r.env, f, f
	apart(cmd)
	if err := cmd.Start(); err != nil {
		return err
	}
	b := &beside{group: cmd.Process.Pid, out: out, what: "holdfast sim", ended: make(chan struct{})}
	go func() { _ = cmd.Wait(); close(b.ended) }()
	r.besides = append(r.besides, b)
	var told struct{ ControlURL string }
	if err := r.wait(ctx, limit, func() bool {
		line, _, ok := strings.Cut(read(out), "\n")
		return ok && json.Unmarshal([]byte(line), &told) == nil
	}); err != nil {
		return fmt.Errorf("holdfast sim: %w; it prints: %s", err, read(out))
	}
	// A file, so that a page can name another one and go elsewhere.
	r.env = append(r.env, "HOLDFAST_CONFIG="+config, "sim="+told.ControlURL)
	return nil
}

func read(file string) string {
	b, _ := os.ReadFile(file)
	return string(b)
}

// every is how often a condition is looked at.
const every = 100 * time.Millisecond

// wait waits until a condition holds.
func (r *runner) wait(ctx context.Context, within time.Duration, holds func() bool) error {
	ctx, cancel := context.WithTimeoutCause(ctx, within, fmt.Errorf("not within %s", within))
	defer cancel()
	for tick := time.NewTicker(every); ; {
		if holds() {
			tick.Stop()
			return nil
		}
		select {
		case <-ctx.Done():
			tick.Stop()
			return context.Cause(ctx)
		case <-tick.C:
		}
	}
}
