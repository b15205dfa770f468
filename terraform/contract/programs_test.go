package contract

import (
	"maps"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// The programs themselves take the settings that Terraform gives them: their
// names and their values. Each is run to where it has read them and cannot go on:
// a worker whose port is taken, and a function outside of Lambda.
func TestProgramsTakeTheSettings(t *testing.T) {
	all := examples(t)
	worker, function := build(t, workerCommand), build(t, functionCommand)
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	for i, m := range all {
		t.Run(m.from, func(t *testing.T) {
			env := map[string]string{}
			for _, s := range m.container.Secrets {
				env[s.Name] = "a-secret-of-32-characters-0123456"
			}
			for _, e := range m.container.Environment {
				env[e.Name] = e.Value
			}
			env["HOLDFAST_LISTEN"] = taken.Addr().String()
			tried(t, env, "address already in use", worker, m.container.Command...)
			if i == 0 { // that they would not take others
				env["HOLDFAST_DRAINS"] = "90s"
				tried(t, env, "HOLDFAST_DRAINS", worker, m.container.Command...)
			}
			if len(m.function.Environment) != 1 {
				t.Fatal("the function has no environment")
			}
			env = maps.Clone(m.function.Environment[0].Variables)
			tried(t, env, "AWS_LAMBDA_RUNTIME_API", function)
			if i == 0 {
				env["HOLDFAST_GATEWAY_AUTH"] = "cognito"
				tried(t, env, "HOLDFAST_GATEWAY_AUTH", function)
			}
		})
	}
}

func build(t *testing.T, command string) string {
	t.Helper()
	binary := filepath.Join(t.TempDir(), filepath.Base(command))
	// As make build and the function's own tests do, so that little is left to compile.
	cmd := exec.Command("go", "build", "-trimpath", "-tags", "lambda.norpc", "-o", binary, "../../"+command)
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("go build %s: %v\n%s", command, err, out)
	}
	return binary
}

// tried runs a program with these variables and no others of ours. It must fail
// with one error, which has the words.
func tried(t *testing.T, env map[string]string, words, program string, args ...string) {
	t.Helper()
	cmd := exec.Command(program, args...)
	cmd.Dir = t.TempDir()
	cmd.Env = []string{"HOME=" + cmd.Dir, "PATH=" + os.Getenv("PATH"), "AWS_REGION=eu-west-1"}
	for _, name := range slices.Sorted(maps.Keys(env)) {
		cmd.Env = append(cmd.Env, name+"="+env[name])
	}
	out, err := cmd.CombinedOutput()
	if said := strings.TrimSpace(string(out)); err == nil || !strings.Contains(said, words) || strings.Contains(said, "\n") {
		t.Errorf("%s ends with %v and does not say %q alone: %s", filepath.Base(program), err, words, said)
	}
}
