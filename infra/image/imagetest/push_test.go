package imagetest

import (
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// registry starts one on this machine and returns its HOST:PORT.
func registry(t *testing.T) string {
	t.Helper()
	need(t, "docker-registry")
	dir, address := t.TempDir(), freeAddress(t)
	config := filepath.Join(dir, "config.yml")
	text := fmt.Sprintf("version: 0.1\nlog: {level: error}\nstorage: {filesystem: {rootdirectory: %q}}\nhttp: {addr: %q}\n", filepath.Join(dir, "store"), address)
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("docker-registry", "serve", config)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Signal(syscall.SIGTERM)
		_ = cmd.Wait()
	})
	until(t, "the registry", func() bool {
		resp, err := http.Get("http://" + address + "/v2/")
		if err != nil {
			return false
		}
		resp.Body.Close()
		return resp.StatusCode == http.StatusOK
	})
	return address
}

// TestPush pushes what each clone has built: the same digest, under which every
// architecture finds its own.
func TestPush(t *testing.T) {
	clones, repository := built(t), registry(t)+"/some/holdfast"
	push := func(clone string, flags string) result {
		return run(t, "env", "CONTAINERS_STORAGE_CONF="+storage(), "PUSH_FLAGS="+flags, "bash", filepath.Join(clone, "infra/image/push.sh"), repository, release, "latest")
	}
	// It has no TLS, and nothing goes there before somebody says that this is meant.
	if r := push(clones[0], ""); r.code == 0 || r.out != "" {
		t.Errorf("without TLS it was pushed: %s", r.out)
	}
	var digests [2]string
	for i, clone := range clones {
		r := push(clone, "--tls-verify=false")
		if r.code != 0 {
			t.Fatalf("push: %s%s", r.out, r.err)
		}
		digest, err := os.ReadFile(filepath.Join(clone, "dist/image/digest"))
		if err != nil {
			t.Fatal(err)
		}
		digests[i] = string(digest)
		if want := repository + "@" + digests[i]; !strings.HasPrefix(r.out, want) {
			t.Errorf("it says %q, wanted %s", r.out, want)
		}
	}
	if digests[0] != digests[1] {
		t.Errorf("%s from one clone, %s from the other", digests[0], digests[1])
	}
	for _, name := range []string{repository + ":latest", repository + "@" + digests[0]} {
		for _, arch := range []string{"amd64", "arm64"} {
			if r := run(t, podman("pull", "--quiet", "--tls-verify=false", "--arch", arch, name)...); r.code != 0 {
				t.Fatalf("%s for %s: %s", name, arch, r.err)
			}
			got := run(t, podman("inspect", "--format", "{{.Os}}/{{.Architecture}} {{.User}} {{index .Labels \"org.opencontainers.image.version\"}} {{.HealthCheck.Test}}", name)...)
			if want := "linux/" + arch + " 65532:65532 " + release + " [CMD /holdfast healthcheck]"; strings.TrimSpace(got.out) != want {
				t.Errorf("%s for %s is %s%s, wanted %s", name, arch, got.out, got.err, want)
			}
		}
	}
}
