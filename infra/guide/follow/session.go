package follow

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// runner follows one page.
type runner struct {
	file             string
	log              io.Writer
	work, notes, bin string            // folders: the session's, ours, the program's
	env              []string          // of the session
	places           map[string]string // addresses: as shown, as used
	held             []io.Closer       // that keep their ports from others

	bash    *exec.Cmd
	typed   io.WriteCloser
	said    chan string // lines of the session's third output; closed when it has ended
	count   int
	logged  string // what the log got last
	besides []*beside
}

// beside is a background command.
type beside struct {
	group int // its process group
	line  int
	out   string
	what  string
	ended chan struct{} // of the service, which is a child of ours; else nil
	done  bool
}

// shell starts the session.
func (r *runner) shell() error {
	tells, told, err := os.Pipe()
	if err != nil {
		return err
	}
	r.bash = exec.Command("bash", "--noprofile", "--norc")
	r.bash.Dir, r.bash.Env = r.work, r.env
	r.bash.ExtraFiles = []*os.File{told}
	apart(r.bash)
	if r.typed, err = r.bash.StdinPipe(); err != nil {
		return err
	}
	err = r.bash.Start()
	_ = told.Close()
	if err != nil {
		_ = tells.Close()
		return fmt.Errorf("follow: bash cannot be started: %w; install bash", err)
	}
	r.said = make(chan string)
	go func() {
		defer tells.Close()
		defer close(r.said)
		for lines := bufio.NewScanner(tells); lines.Scan(); {
			r.said <- lines.Text()
		}
	}()
	return nil
}

// step does one step of the page.
func (r *runner) step(ctx context.Context, s step) error {
	switch s.word {
	case "interrupt", "kill":
		return r.stop(ctx, s)
	case "background":
		return r.start(ctx, s)
	case "prints":
		b := r.latest()
		if b == nil {
			return r.fault(s.line, "no background command is running", "")
		}
		return r.printed(ctx, b, s, s.wantsLine)
	}
	r.note(s)
	deadline := time.Now().Add(s.within)
	for {
		out, status, err := r.run(ctx, s, time.Until(deadline))
		switch {
		case err != nil:
			return err
		case s.word == "fails" && status == 0:
			return r.fault(s.line, "it succeeds, and the page says that it fails", out)
		case s.wants == nil || s.wantsMatch.MatchString(out):
			return nil
		case s.word != "until":
			return r.differs(s, out)
		case time.Until(deadline) < 2*every:
			return r.fault(s.wantsLine, fmt.Sprintf("it does not come to print this within %s", s.within), out)
		}
		if err := r.wait(ctx, s.within, r.pause()); err != nil {
			return err
		}
	}
}

// pause is a condition that holds when it is asked for the second time.
func (r *runner) pause() func() bool {
	asked := false
	return func() bool { was := asked; asked = true; return was }
}

// run types a block and waits for its end. The status is that of its last
// command; a block that may not fail ends at the first that does.
func (r *runner) run(ctx context.Context, s step, within time.Duration) (out string, status int, err error) {
	script, output, failed, err := r.script(s)
	if err != nil {
		return "", 0, err
	}
	strict := fmt.Sprintf("set -eEo pipefail; trap 'echo \"$LINENO $? $BASH_COMMAND\" >%s' ERR\n", failed)
	if s.word == "fails" || s.word == "until" {
		strict = "set +eE; trap - ERR\n"
	}
	if _, err := fmt.Fprintf(r.typed, "%s. %s >%s 2>&1 </dev/null 3>&-\necho \"$?\" >&3\n", strict, script, output); err != nil {
		return "", 0, r.fault(s.line, "the session has ended before it", "")
	}
	timer := time.NewTimer(max(within, every))
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return "", 0, r.fault(s.line, context.Cause(ctx).Error(), r.here(read(output)))
	case <-timer.C:
		return "", 0, r.fault(s.line, fmt.Sprintf("it does not end within %s", s.within), r.here(read(output)))
	case said, ok := <-r.said:
		out = tidy(r.here(read(output)))
		if out != r.logged { // of a block that is repeated, what is new
			fmt.Fprintln(r.log, out)
			r.logged = out
		}
		if !ok {
			at, why := s.line, "it ends the session"
			if b := read(failed); b != "" {
				line, rest, _ := strings.Cut(strings.TrimSpace(b), " ")
				status, command, _ := strings.Cut(rest, " ")
				if n, err := strconv.Atoi(line); err == nil && n >= 1 && n <= strings.Count(s.text, "\n")+1 {
					at += n - 1
				}
				why = fmt.Sprintf("it fails with %s: %s", status, r.here(command))
			}
			return "", 0, r.fault(at, why, out)
		}
		status, err := strconv.Atoi(said)
		return out, status, err
	}
}

// script writes a block to a file, and names those for its output and for what
// failed in it.
func (r *runner) script(s step) (script, output, failed string, err error) {
	r.count++
	base := filepath.Join(r.notes, strconv.Itoa(r.count))
	return base + ".sh", base + ".out", base + ".failed", os.WriteFile(base+".sh", []byte(r.there(s.text)+"\n"), 0o600)
}

// start runs a block beside the others, in a process group of its own.
func (r *runner) start(ctx context.Context, s step) error {
	r.note(s)
	script, output, _, err := r.script(s)
	if err != nil {
		return err
	}
	if _, err := fmt.Fprintf(r.typed, "set -m; ( . %s ) >%s 2>&1 </dev/null 3>&- & echo \"$!\" >&3; set +m\n", script, output); err != nil {
		return r.fault(s.line, "the session has ended before it", "")
	}
	said, ok := <-r.said
	group, err := strconv.Atoi(said)
	if !ok || err != nil {
		return r.fault(s.line, "it could not be started", "")
	}
	b := &beside{group: group, line: s.line, out: output, what: first(s.text)}
	r.besides = append(r.besides, b)
	if s.wants == nil {
		return nil
	}
	return r.printed(ctx, b, s, s.line)
}

// printed waits until a background command has printed what a step wants. line
// is blamed where it ends before.
func (r *runner) printed(ctx context.Context, b *beside, s step, line int) error {
	alive := true
	err := r.wait(ctx, s.within, func() bool {
		alive = lives(b.group) // before it is read: what it printed at its end counts
		return s.wantsMatch.MatchString(tidy(r.here(read(b.out)))) || !alive
	})
	out := tidy(r.here(read(b.out)))
	switch {
	case err == nil && s.wantsMatch.MatchString(out):
		return nil
	case !alive:
		return r.fault(line, "it ends before it prints what the page says", out)
	case ctx.Err() != nil:
		return r.fault(line, context.Cause(ctx).Error(), out)
	}
	return r.fault(s.wantsLine, fmt.Sprintf("it does not come to print this within %s", s.within), out)
}

// latest is the last background command that was not ended yet; nil: none.
func (r *runner) latest() *beside {
	for i := len(r.besides) - 1; i >= 0; i-- {
		if b := r.besides[i]; !b.done && b.line > 0 {
			return b
		}
	}
	return nil
}

// stop ends the last background command that was not ended yet.
func (r *runner) stop(ctx context.Context, s step) error {
	b := r.latest()
	if b == nil {
		return r.fault(s.line, "no background command is running", "")
	}
	b.done = true
	if !lives(b.group) {
		return r.fault(s.line, fmt.Sprintf("the command of line %d has ended before", b.line), r.here(read(b.out)))
	}
	if s.word == "kill" {
		kill(b.group)
	} else {
		interrupt(b.group)
	}
	if err := r.wait(ctx, s.within, func() bool { return !lives(b.group) }); err != nil {
		return r.fault(s.line, fmt.Sprintf("the command of line %d does not end: %s", b.line, err), r.here(read(b.out)))
	}
	fmt.Fprintf(r.log, "-- %s: %s\n", s.word, b.what)
	return nil
}

// end ends what still runs.
func (r *runner) end() error {
	defer func() {
		for _, h := range r.held {
			_ = h.Close()
		}
	}()
	for i := len(r.besides) - 1; i >= 0; i-- {
		b := r.besides[i]
		if !b.alive() {
			continue
		}
		interrupt(b.group)
		err := r.wait(context.Background(), 20*time.Second, func() bool { return !b.alive() })
		kill(b.group)
		if err != nil {
			return r.fault(max(b.line, 1), "at the page's end, this does not end when it is interrupted", r.here(read(b.out)))
		}
	}
	if r.bash != nil && r.bash.Process != nil {
		kill(r.bash.Process.Pid)
		_ = r.typed.Close()
		for range r.said { // what it still says
		}
		_ = r.bash.Wait()
	}
	return nil
}

func (b *beside) alive() bool {
	if b.ended == nil {
		return lives(b.group)
	}
	select {
	case <-b.ended:
		return false
	default:
		return true
	}
}

func (r *runner) note(s step) {
	fmt.Fprintf(r.log, "-- %s:%d %s\n%s\n", r.file, s.line, s.word, s.text)
}

// fault names a line of the page, with what was printed there and by what runs
// beside it.
func (r *runner) fault(line int, why, out string) error {
	text := why
	if out != "" {
		text += "; it prints:\n" + indent(tail(out, 40))
	}
	for _, b := range r.besides {
		if printed := read(b.out); printed != "" && printed != out {
			text += fmt.Sprintf("\n%s printed:\n%s", b.what, indent(tail(r.here(printed), 25)))
		}
	}
	return &fault{r.file, line, text}
}

func (r *runner) differs(s step, out string) error {
	return r.fault(s.wantsLine, "the output differs from this", out)
}

// first is the first line of a block.
func first(text string) string {
	line, _, _ := strings.Cut(strings.TrimSpace(text), "\n")
	return line
}

func indent(text string) string { return "    " + strings.ReplaceAll(text, "\n", "\n    ") }

func tail(text string, lines int) string {
	all := strings.Split(strings.TrimRight(text, "\n"), "\n")
	return strings.Join(all[max(0, len(all)-lines):], "\n")
}
