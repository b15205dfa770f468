package imagetest

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"
)

// release is the tag that both clones are built at.
const release = "v0.0.0-imagetest"

// within bounds whatever is waited for; it takes seconds, and more on a machine with much else to do.
const within = 2 * time.Minute

// folder is where clones and images lie.
var folder string

func TestMain(m *testing.M) {
	os.Exit(func() int {
		var err error
		if folder, err = os.MkdirTemp("", "holdfast-image-"); err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		defer func() {
			if os.RemoveAll(folder) != nil { // files in it belong to the users of containers
				rm := asRoot("rm", "-rf", folder)
				_ = exec.Command(rm[0], rm[1:]...).Run()
			}
		}()
		return m.Run()
	}())
}

// asRoot is a command that root runs: containers are run as on a server.
func asRoot(command ...string) []string {
	if os.Getuid() == 0 {
		return command
	}
	return append([]string{"sudo", "-n"}, command...)
}

func need(t *testing.T, commands ...string) {
	t.Helper()
	for _, c := range commands {
		if _, err := exec.LookPath(c); err == nil {
			continue
		}
		if os.Getenv("HOLDFAST_REQUIRE_ALL") != "" {
			t.Fatalf("%s is missing; install it (apt-get install %s)", c, c)
		}
		t.Skipf("%s is missing; install it (apt-get install %s), and the test runs", c, c)
	}
}

// result is what became of a command.
type result struct {
	out, err string
	code     int
}

func run(t *testing.T, command ...string) result {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.WithoutCancel(t.Context()), within) // cleaning up as well
	defer cancel()
	var out, stderr bytes.Buffer
	cmd := exec.CommandContext(ctx, command[0], command[1:]...)
	cmd.Stdout, cmd.Stderr = &out, &stderr
	err := cmd.Run()
	if ctx.Err() != nil || cmd.ProcessState == nil {
		t.Fatalf("%q: %v\n%s%s", command, err, &out, &stderr)
	}
	return result{out.String(), stderr.String(), cmd.ProcessState.ExitCode()}
}

// storage is the configuration of buildah: apart from the images of whoever runs
// this.
func storage() string { return filepath.Join(folder, "storage.conf") }

// clones are two of them with all that is released built in each: a whole one, and
// one without history, as CI has it.
var clones = sync.OnceValues(func() ([2]string, error) {
	both := [2]string{filepath.Join(folder, "one"), filepath.Join(folder, "in", "another", "place")}
	root, err := filepath.Abs("../../..")
	if err != nil {
		return both, err
	}
	text := fmt.Sprintf("[storage]\ndriver = \"vfs\"\ngraphroot = %q\nrunroot = %q\n", filepath.Join(folder, "build"), filepath.Join(folder, "build-run"))
	if err := os.WriteFile(storage(), []byte(text), 0o600); err != nil {
		return both, err
	}
	for i, dir := range both {
		// The commit may be that of a release, whose tag would be in the way.
		clone := []string{"git", "clone", "--quiet", "--no-tags", "file://" + root, dir}
		if i > 0 { // of the first one, because the tree may get a commit meanwhile
			clone = []string{"git", "clone", "--quiet", "--no-tags", "--depth=1", "file://" + both[0], dir}
		}
		for _, command := range [][]string{
			clone,
			{"git", "-C", dir, "-c", "tag.gpgSign=false", "tag", release},
			{"make", "--no-print-directory", "-C", dir, "image", "dist", "PLATFORMS=linux/amd64 linux/arm64", "BUILDER=buildah"},
		} {
			cmd := exec.Command(command[0], command[1:]...)
			cmd.Env = append(os.Environ(), "CONTAINERS_STORAGE_CONF="+storage())
			began := time.Now()
			if out, err := cmd.CombinedOutput(); err != nil {
				return both, fmt.Errorf("%q: %w\n%s", command, err, out)
			} else if command[0] == "make" {
				fmt.Printf("%s in %.0f s:\n%s", strings.Join(command[4:], " "), time.Since(began).Seconds(), out)
			}
		}
	}
	return both, nil
})

// built are the clones.
func built(t *testing.T) [2]string {
	t.Helper()
	need(t, "git", "make", "buildah")
	both, err := clones()
	if err != nil {
		t.Fatal(err)
	}
	return both
}

// program is the program as it is released, for this machine.
func program(t *testing.T) string {
	t.Helper()
	return filepath.Join(built(t)[0], "dist", "bin", "linux-"+runtime.GOARCH, "holdfast")
}

func archive(t *testing.T, clone int, arch string) string {
	t.Helper()
	return filepath.Join(built(t)[clone], "dist", "image", "holdfast-"+arch+".tar")
}
