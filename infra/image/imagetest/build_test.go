package imagetest

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	"debug/elf"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// most is what the unpacked image may have.
const most = 40_000_000

func TestTwoClonesGiveTheSameBytes(t *testing.T) {
	both := built(t)
	for _, name := range []string{"image/holdfast-amd64.tar", "image/holdfast-arm64.tar",
		"release/holdfast-" + release + "-linux-amd64.tar.gz", "release/holdfast-" + release + "-linux-arm64.tar.gz",
		"release/holdfast-" + release + "-lambda-amd64.zip", "release/holdfast-" + release + "-lambda-arm64.zip",
		"release/holdfast-" + release + "-sbom.cdx.json", "release/SHA256SUMS"} {
		var sums [2]string
		for i, clone := range both {
			content, err := os.ReadFile(filepath.Join(clone, "dist", name))
			if err != nil {
				t.Fatal(err)
			}
			sum := sha256.Sum256(content)
			sums[i] = hex.EncodeToString(sum[:])
			if i == 0 {
				t.Logf("%s: %.1f MB, SHA-256 %s", name, float64(len(content))/1e6, sums[i])
			}
		}
		if sums[0] != sums[1] {
			t.Errorf("%s: %s in one clone, %s in the other", name, sums[0], sums[1])
		}
	}
}

// TestSums: the file of sums names all that is offered, and each sum is right.
func TestSums(t *testing.T) {
	dir := filepath.Join(built(t)[0], "dist", "release")
	if r := run(t, "sh", "-c", "cd "+dir+" && sha256sum --check --strict SHA256SUMS"); r.code != 0 {
		t.Error(r.out, r.err)
	}
	sums, err := os.ReadFile(filepath.Join(dir, "SHA256SUMS"))
	if err != nil {
		t.Fatal(err)
	}
	offered, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range offered {
		if f.Name() != "SHA256SUMS" && !strings.Contains(string(sums), "  "+f.Name()+"\n") {
			t.Errorf("%s has no sum", f.Name())
		}
	}
	if len(offered) != 6 {
		t.Errorf("%d files are offered", len(offered))
	}
}

// file is one of the image's.
type file struct {
	header  *tar.Header
	content []byte
}

func untar(t *testing.T, content []byte) map[string]file {
	t.Helper()
	files := map[string]file{}
	for r := tar.NewReader(bytes.NewReader(content)); ; {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			return files
		}
		if err != nil {
			t.Fatal(err)
		}
		content, err := io.ReadAll(r)
		if err != nil {
			t.Fatal(err)
		}
		files[h.Name] = file{h, content}
	}
}

// opened are the files of an image and its configuration.
func opened(t *testing.T, archive string) (map[string]file, configuration) {
	t.Helper()
	content, err := os.ReadFile(archive)
	if err != nil {
		t.Fatal(err)
	}
	files := untar(t, content)
	var list []struct {
		Config   string
		RepoTags []string
		Layers   []string
	}
	if err := json.Unmarshal(files["manifest.json"].content, &list); err != nil || len(list) != 1 || len(list[0].Layers) != 1 {
		t.Fatalf("%s: %v", files["manifest.json"].content, err)
	}
	if want := []string{"localhost/holdfast:" + release}; !slices.Equal(list[0].RepoTags, want) {
		t.Errorf("its names are %q, wanted %q", list[0].RepoTags, want)
	}
	var c configuration
	if err := json.Unmarshal(files[list[0].Config].content, &c); err != nil {
		t.Fatal(err)
	}
	return untar(t, files[list[0].Layers[0]].content), c
}

type configuration struct {
	Created, Architecture, OS string
	Config                    struct {
		User            string
		Entrypoint, Cmd []string
		Volumes         map[string]any
		Labels          map[string]string
		Healthcheck     struct{ Test []string }
	}
}

func TestImage(t *testing.T) {
	for arch, machine := range map[string]elf.Machine{"amd64": elf.EM_X86_64, "arm64": elf.EM_AARCH64} {
		t.Run(arch, func(t *testing.T) {
			files, c := opened(t, archive(t, 0, arch))
			commit := strings.TrimSpace(run(t, "git", "-C", built(t)[0], "rev-parse", "HEAD").out)
			for what, is := range map[string][2]string{
				"created":      {c.Created, "1970-01-01T00:00:00Z"},
				"platform":     {c.OS + "/" + c.Architecture, "linux/" + arch},
				"user":         {c.Config.User, "65532:65532"},
				"entrypoint":   {fmt.Sprint(c.Config.Entrypoint), "[/holdfast]"},
				"command":      {fmt.Sprint(c.Config.Cmd), "[worker]"},
				"volumes":      {fmt.Sprint(slices.Collect(maps.Keys(c.Config.Volumes))), "[/data]"},
				"health check": {fmt.Sprint(c.Config.Healthcheck.Test), "[CMD /holdfast healthcheck]"},
				"version":      {c.Config.Labels["org.opencontainers.image.version"], release},
				"revision":     {c.Config.Labels["org.opencontainers.image.revision"], commit},
				"files":        {fmt.Sprint(slices.Sorted(maps.Keys(files))), "[LICENSE data/ holdfast]"},
			} {
				if is[0] != is[1] {
					t.Errorf("%s: %q, wanted %q", what, is[0], is[1])
				}
			}
			size := 0
			for name, f := range files {
				size += len(f.content)
				if f.header.ModTime.Unix() != 0 {
					t.Errorf("%s has a time: %v", name, f.header.ModTime)
				}
			}
			if t.Logf("%.1f MB", float64(size)/1e6); size > most {
				t.Errorf("it has %d bytes, more than %d", size, most)
			}
			if h := files["data/"].header; h == nil || h.Uid != 65532 || h.Gid != 65532 {
				t.Errorf("/data is not the user's: %+v", h)
			}
			if h := files["holdfast"].header; h == nil || h.Mode != 0o755 || h.Uid != 0 {
				t.Errorf("the user could change the program, or not run it: %+v", h)
			}
			p, err := elf.NewFile(bytes.NewReader(files["holdfast"].content))
			if err != nil {
				t.Fatal(err)
			}
			if p.Machine != machine {
				t.Errorf("the program is for %v, wanted %v", p.Machine, machine)
			}
			if libraries, err := p.ImportedLibraries(); len(libraries) > 0 || err != nil {
				t.Errorf("it wants libraries that the image does not have: %q, %v", libraries, err)
			}
		})
	}
}
