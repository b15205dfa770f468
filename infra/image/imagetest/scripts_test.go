package imagetest

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// bash runs a script of the tree in an environment of these variables alone.
func bash(t *testing.T, script string, environ []string, args ...string) result {
	t.Helper()
	if !strings.Contains(strings.Join(environ, " "), "PATH=") {
		environ = append(environ, "PATH="+os.Getenv("PATH"))
	}
	command, err := exec.LookPath("bash")
	if err != nil {
		t.Fatal(err)
	}
	return run(t, append(append(append([]string{"env", "-i"}, environ...), command, script), args...)...)
}

func TestScriptsSayWhatIsMissing(t *testing.T) {
	bare := t.TempDir() // a PATH with no more than every machine has
	dirname, err := exec.LookPath("dirname")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(dirname, filepath.Join(bare, "dirname")); err != nil {
		t.Fatal(err)
	}
	given := []string{"VERSION=v1", "COMMIT=c", "IMAGE=localhost/x:v1"}
	for name, c := range map[string]struct {
		script        string
		environ, args []string
		want          string
	}{
		"an image of what":         {"build.sh", nil, nil, "image: VERSION is not set; run make image, which sets it"},
		"no builder":               {"build.sh", append(given, "ARCHES=amd64", "PATH="+bare), nil, "image: there is no builder of images; install buildah (apt-get install buildah), podman or docker"},
		"no builder, found early":  {"build.sh", append(given, "ARCHES=amd64", "PATH="+bare), []string{"check"}, "image: there is no builder of images; install buildah (apt-get install buildah), podman or docker"},
		"a builder that is none":   {"build.sh", append(given, "ARCHES=amd64", "BUILDER=nope"), nil, "image: BUILDER=nope: there is no such command; name buildah, podman or docker, or none"},
		"an unknown architecture":  {"build.sh", append(given, "ARCHES=vax", "BUILDER=true"), nil, "image: dist/bin/linux-vax/holdfast is not there; run make image ARCHES=vax, which builds it"},
		"a release of what":        {"dist.sh", nil, nil, "dist: VERSION is not set; run make dist, which sets it"},
		"pushed where":             {"push.sh", nil, nil, "push: wants a repository and at least one tag"},
		"pushed under what":        {"push.sh", nil, []string{"localhost/x"}, "push: wants a repository and at least one tag"},
		"pushed by what":           {"push.sh", []string{"PATH=" + bare}, []string{"localhost/x", "v1"}, "push: buildah is not installed; run: apt-get install buildah"},
		"notes of what":            {"notes.sh", nil, nil, `notes: "" is no version; tags are v1.2.3`},
		"notes of half a version":  {"notes.sh", nil, []string{"v1.2"}, `notes: "v1.2" is no version; tags are v1.2.3`},
		"notes that nobody wrote":  {"notes.sh", nil, []string{"v99.0.0"}, "notes: CHANGELOG.md has no section [99.0.0]; move what is under [Unreleased]"},
		"notes of a name in shell": {"notes.sh", nil, []string{"v1.0.0;id"}, `notes: "v1.0.0;id" is no version`},
	} {
		t.Run(name, func(t *testing.T) {
			r := bash(t, filepath.Join("..", c.script), c.environ, c.args...)
			if r.code != 1 || r.out != "" || !strings.HasPrefix(r.err, c.want) || strings.Count(r.err, "\n") != 1 {
				t.Errorf("exit code %d: %s%s; wanted %s", r.code, r.out, r.err, c.want)
			}
		})
	}
}

func TestNotes(t *testing.T) {
	tree := t.TempDir()
	script := filepath.Join(tree, "infra", "image", "notes.sh")
	if err := os.MkdirAll(filepath.Dir(script), 0o700); err != nil {
		t.Fatal(err)
	}
	content, err := os.ReadFile("../notes.sh")
	if err != nil {
		t.Fatal(err)
	}
	const changes = "# Changelog\n\n## [Unreleased]\n\n### Added\n\n- c\n\n## [1.2.0] - 2026-12-01\n\n### Added\n\n- b,\n  at length\n\n### Fixed\n\n- a\n\n## [1.1.0]\n\n- old\n"
	for name, text := range map[string]string{script: string(content), filepath.Join(tree, "CHANGELOG.md"): changes} {
		if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for tag, want := range map[string]string{
		"v1.2.0":      "### Added\n\n- b,\n  at length\n\n### Fixed\n\n- a\n",
		"v1.1.0":      "- old\n",
		"v1.3.0-rc.1": "### Added\n\n- c\n",
	} {
		if r := bash(t, script, nil, tag); r.code != 0 || r.out != want {
			t.Errorf("%s: %q%s, wanted %q", tag, r.out, r.err, want)
		}
	}
}
