package imagetest

import (
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"net"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

// podman is one with a storage of its own. Its flags are those that it needs
// inside of a virtual machine or a container without systemd, too.
func podman(args ...string) []string {
	return asRoot(append([]string{"podman", "--root", filepath.Join(folder, "images"), "--runroot", filepath.Join(folder, "run"),
		"--storage-driver", "vfs", "--cgroup-manager=cgroupfs", "--runtime", "runc"}, args...)...)
}

// hardened are the flags that the image is meant to be run with, and those of the
// test: no cgroup of systemd's for health checks, and no more than the limits that
// a machine without CAP_SYS_RESOURCE may give.
func hardened(opts ...string) []string {
	return append([]string{"--no-healthcheck", "--network=host", "--ulimit", "nofile=1024:1024", "--ulimit", "nproc=1024:1024",
		"--read-only", "--read-only-tmpfs=false", "--cap-drop=ALL", "--security-opt=no-new-privileges"}, opts...)
}

var loaded sync.Once

// image loads the image of this machine's architecture and returns its name.
func image(t *testing.T) string {
	t.Helper()
	need(t, "podman", "runc")
	from := archive(t, 0, runtime.GOARCH)
	loaded.Do(func() {
		if r := run(t, podman("load", "--quiet", "--input", from)...); r.code != 0 {
			t.Fatalf("podman load: %s", r.err)
		}
	})
	return "localhost/holdfast:" + release
}

// once runs the image to its end.
func once(t *testing.T, opts []string, args ...string) result {
	t.Helper()
	name := image(t)
	return run(t, podman(append(append(append([]string{"run", "--rm"}, hardened(opts...)...), name), args...)...)...)
}

// container is one that runs.
type container struct {
	t      *testing.T
	name   string
	listen string // HOST:PORT of its API and health
	pid    int    // on the host
}

// start runs the image beside the test, until its end or that of the test.
func start(t *testing.T, opts []string, args ...string) *container {
	t.Helper()
	from := image(t)
	tail := make([]byte, 6)
	_, _ = rand.Read(tail) // never fails
	c := &container{t: t, name: "holdfast-" + hex.EncodeToString(tail), listen: freeAddress(t)}
	opts = append([]string{"--detach", "--name", c.name, "--env", "HOLDFAST_LISTEN=" + c.listen}, opts...)
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("%s said:\n%s", c.name, c.logs())
		}
		run(t, podman("rm", "--force", "--time", "0", c.name)...)
	})
	if r := run(t, podman(append(append(append([]string{"run"}, hardened(opts...)...), from), args...)...)...); r.code != 0 {
		t.Fatalf("podman run: %s", r.err)
	}
	c.pid, _ = strconv.Atoi(c.inspect("{{.State.Pid}}"))
	return c
}

func (c *container) inspect(format string) string {
	c.t.Helper()
	return strings.TrimSpace(run(c.t, podman("inspect", "--format", format, c.name)...).out)
}

// logs are both streams.
func (c *container) logs() string {
	c.t.Helper()
	r := run(c.t, podman("logs", c.name)...)
	return r.out + r.err
}

// events are those of a type that it has written to its standard output.
func (c *container) events(kind string) (found []string) {
	c.t.Helper()
	for line := range strings.Lines(run(c.t, podman("logs", c.name)...).out) {
		var e struct{ Type string }
		if json.Unmarshal([]byte(line), &e) == nil && e.Type == kind {
			found = append(found, line)
		}
	}
	return found
}

// exec runs the program a second time in it.
func (c *container) exec(args ...string) result {
	c.t.Helper()
	return run(c.t, podman(append([]string{"exec", c.name, "/holdfast"}, args...)...)...)
}

// stop asks it to end, as ECS and Kubernetes do, and returns its exit code and how
// long that took. After ten seconds it is killed, which is code 137.
func (c *container) stop() (code string, took time.Duration) {
	c.t.Helper()
	began := time.Now()
	if r := run(c.t, podman("stop", "--time", "10", c.name)...); r.code != 0 {
		c.t.Fatalf("podman stop: %s", r.err)
	}
	return c.inspect("{{.State.ExitCode}}"), time.Since(began)
}

// of reads a line of a file of the kernel's about its process.
func (c *container) of(name, key string) string {
	c.t.Helper()
	r := run(c.t, asRoot("cat", fmt.Sprintf("/proc/%d/%s", c.pid, name))...)
	if r.code != 0 {
		c.t.Fatal(r.err)
	}
	for line := range strings.Lines(r.out) {
		if rest, ok := strings.CutPrefix(line, key); ok {
			return strings.Join(strings.Fields(rest), " ")
		}
	}
	return ""
}

// until waits for something to become true.
func until(t *testing.T, what string, isSo func() bool) {
	t.Helper()
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	end := time.NewTimer(within)
	defer end.Stop()
	for !isSo() {
		select {
		case <-tick.C:
		case <-end.C:
			t.Fatalf("%s: not within %v", what, within)
		}
	}
}

func freeAddress(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}
