package main

import (
	"archive/tar"
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// entry is one of a tar as a builder writes it.
type entry struct {
	name, content string
	when          int64
	folder        bool
}

func tarOf(t *testing.T, entries ...entry) string {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, e := range entries {
		h := &tar.Header{Typeflag: tar.TypeReg, Name: e.name, Mode: 0o755, Size: int64(len(e.content)), ModTime: time.Unix(e.when, 0), Uname: "somebody"}
		if e.folder {
			h.Typeflag = tar.TypeDir
		}
		if err := w.WriteHeader(h); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write([]byte(e.content)); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

const configuration = `{"created":"2026-11-0DAY:00:00Z","container":"DAY","architecture":"arm64","os":"linux","docker_version":"DAY",
 "config":{"Hostname":"hostDAY","User":"65532:65532","Env":["A=b"],"Entrypoint":["/p"],"Cmd":["worker"],"Volumes":{"/data":{}},
 "Healthcheck":{"Test":["CMD","/p"],"Interval":10000000000},"Labels":{"io.buildah.version":"DAY","version":"v1"}},"rootfs":{"type":"layers","diff_ids":["sha256:0"]},"history":[{"comment":"DAY"}]}`

// Two builders: one layer and two, other orders, times and names.
func archives(t *testing.T) [2]string {
	t.Helper()
	one := tarOf(t, entry{"./data/", "", 5, true}, entry{"./p", "machine code", 6, false})
	first, second := tarOf(t, entry{"p", "machine code", 7, false}), tarOf(t, entry{"data", "", 8, true})
	return [2]string{
		tarOf(t,
			entry{"manifest.json", `[{"Config":"c.json","RepoTags":["x:v1"],"Layers":["l.tar"]}]`, 1, false},
			entry{"c.json", strings.ReplaceAll(configuration, "DAY", "1T00"), 1, false}, entry{"l.tar", one, 1, false}),
		tarOf(t,
			entry{"blobs/sha256/1", first, 2, false}, entry{"blobs/sha256/2", second, 2, false},
			entry{"blobs/sha256/3", strings.ReplaceAll(configuration, "DAY", "2T00"), 2, false}, entry{"repositories", "{}", 2, false},
			entry{"manifest.json", `[{"Config":"blobs/sha256/3","RepoTags":["x:v1"],"Layers":["blobs/sha256/1","blobs/sha256/2"]}]`, 2, false}),
	}
}

func TestWhatBuildersWroteDownIsGone(t *testing.T) {
	var settled [2][]byte
	var ids [2]string
	for i, saved := range archives(t) {
		name := filepath.Join(t.TempDir(), "image.tar")
		if err := os.WriteFile(name, []byte(saved), 0o600); err != nil {
			t.Fatal(err)
		}
		var err error
		if ids[i], err = settleFile(name); err != nil {
			t.Fatal(err)
		}
		if settled[i], err = os.ReadFile(name); err != nil {
			t.Fatal(err)
		}
	}
	if ids[0] != ids[1] || !bytes.Equal(settled[0], settled[1]) {
		t.Errorf("the same program gives two images: %s, %s", ids[0], ids[1])
	}
	// Settled once, it stays.
	again, id, err := settle(settled[0])
	if err != nil || id != ids[0] || !bytes.Equal(again, settled[0]) {
		t.Errorf("settled again it is another: %s, %v", id, err)
	}

	files, err := read(settled[0])
	if err != nil {
		t.Fatal(err)
	}
	var list []manifest
	if err := json.Unmarshal(files["manifest.json"].content, &list); err != nil || len(list) != 1 || len(list[0].Layers) != 1 || list[0].RepoTags[0] != "x:v1" {
		t.Fatalf("%+v, %v", list, err)
	}
	config := files[list[0].Config].content
	for _, wanted := range []string{`"architecture":"arm64"`, `"User":"65532:65532"`, `"Env":["A=b"]`, `"Entrypoint":["/p"]`, `"Cmd":["worker"]`,
		`"Volumes":{"/data":{}}`, `"Interval":10000000000`, `"version":"v1"`, `"created":"1970-01-01T00:00:00Z"`,
		`"diff_ids":["sha256:` + sum(files[list[0].Layers[0]].content) + `"]`} {
		if !strings.Contains(string(config), wanted) {
			t.Errorf("%s is missing in %s", wanted, config)
		}
	}
	if "sha256:"+sum(config) != ids[0] {
		t.Errorf("%s is not the configuration's sum", ids[0])
	}
	layer, err := read(files[list[0].Layers[0]].content)
	if err != nil || len(layer) != 2 || string(layer["p"].content) != "machine code" || layer["p"].mode != 0o755 || !layer["data"].folder {
		t.Errorf("%+v, %v", layer, err)
	}
}

func TestWhatIsNoImage(t *testing.T) {
	away := tarOf(t, entry{".wh.p", "", 1, false})
	for saved, want := range map[string]string{
		"":                                  "is an empty tar",
		"not one ":                          "is no tar",
		tarOf(t, entry{"x", "y", 1, false}): "is not the archive of one image",
		tarOf(t, entry{"manifest.json", "[]", 1, false}):                                                                                                       "is not the archive of one image",
		tarOf(t, entry{"manifest.json", "[{}]", 1, false}):                                                                                                     "is not the archive of one image",
		tarOf(t, entry{"manifest.json", `[{"Config":"c","RepoTags":["x"]}]`, 1, false}):                                                                        "its configuration c",
		tarOf(t, entry{"manifest.json", `[{"Config":"c","RepoTags":["x"],"Layers":["l"]}]`, 1, false}, entry{"c", "{}", 1, false}):                             "its layer l: is an empty tar",
		tarOf(t, entry{"manifest.json", `[{"Config":"c","RepoTags":["x"],"Layers":["l"]}]`, 1, false}, entry{"c", "{}", 1, false}, entry{"l", away, 1, false}): "takes .wh.p away",
	} {
		if _, _, err := settle([]byte(saved)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v; wanted %q", err, want)
		}
	}
}
