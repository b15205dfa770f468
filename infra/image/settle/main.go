// Command settle brings an image, as a builder has saved it, into the one form
// that the same program always has. Builders write down when, where and in how
// many layers they worked: times, the name of a container, a host's name. Of all
// that nothing is left; what the Containerfile says stays.
//
//	settle IMAGE.tar
//
// The file is a docker archive: what docker save, podman save and buildah push
// write, and docker load and podman load read. It prints the image's id, which is
// the SHA-256 of its configuration and so of everything in it.
package main

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path"
	"slices"
	"strings"
	"time"
)

func main() {
	if len(os.Args) != 2 {
		fmt.Fprintln(os.Stderr, "settle: wants the archive of one image")
		os.Exit(2)
	}
	id, err := settleFile(os.Args[1])
	if err != nil {
		fmt.Fprintf(os.Stderr, "settle: %s: %v\n", os.Args[1], err)
		os.Exit(1)
	}
	fmt.Println(id)
}

func settleFile(name string) (id string, err error) {
	saved, err := os.ReadFile(name)
	if err != nil {
		return "", err
	}
	settled, id, err := settle(saved)
	if err != nil {
		return "", err
	}
	return id, os.WriteFile(name, settled, 0o644) //nolint:gosec // G306: an image is for everybody
}

// manifest is what an archive says of an image in it.
type manifest struct {
	Config   string
	RepoTags []string
	Layers   []string
}

// image is an image's configuration: what of it says how the program is run, and
// what is in it.
type image struct {
	Created      time.Time `json:"created"`
	Architecture string    `json:"architecture"`
	OS           string    `json:"os"`
	Config       struct {
		User         string              `json:"User,omitempty"`
		ExposedPorts map[string]struct{} `json:"ExposedPorts,omitempty"`
		Env          []string            `json:"Env,omitempty"`
		Entrypoint   []string            `json:"Entrypoint,omitempty"`
		Cmd          []string            `json:"Cmd,omitempty"`
		Healthcheck  *healthcheck        `json:"Healthcheck,omitempty"`
		Volumes      map[string]struct{} `json:"Volumes,omitempty"`
		Labels       map[string]string   `json:"Labels,omitempty"`
	} `json:"config"`
	RootFS struct {
		Type    string   `json:"type"`
		DiffIDs []string `json:"diff_ids"`
	} `json:"rootfs"`
	History []history `json:"history"`
}

type healthcheck struct {
	Test        []string
	Interval    time.Duration `json:",omitempty"`
	Timeout     time.Duration `json:",omitempty"`
	StartPeriod time.Duration `json:",omitempty"`
	Retries     int           `json:",omitempty"`
}

type history struct {
	Created   time.Time `json:"created"`
	CreatedBy string    `json:"created_by"`
}

// epoch is the time of everything in the image.
var epoch = time.Unix(0, 0).UTC()

func settle(saved []byte) (settled []byte, id string, err error) {
	files, err := read(saved)
	if err != nil {
		return nil, "", err
	}
	var list []manifest
	if err := json.Unmarshal(files["manifest.json"].content, &list); err != nil || len(list) != 1 || len(list[0].RepoTags) != 1 {
		return nil, "", errors.New("is not the archive of one image with one name; save it with docker save, podman save or buildah push")
	}
	m := list[0]
	var img image
	if err := json.Unmarshal(files[m.Config].content, &img); err != nil {
		return nil, "", fmt.Errorf("its configuration %s: %w", m.Config, err)
	}

	merged := map[string]file{}
	for _, name := range m.Layers {
		layer, err := read(files[name].content)
		if err != nil {
			return nil, "", fmt.Errorf("its layer %s: %w", name, err)
		}
		for inside := range layer {
			if strings.HasPrefix(path.Base(inside), ".wh.") {
				return nil, "", fmt.Errorf("its layer %s: takes %s away from an earlier one; build it from scratch, by copying alone", name, inside)
			}
		}
		maps.Copy(merged, layer)
	}
	layer, err := write(merged)
	if err != nil {
		return nil, "", err
	}

	digest := sum(layer)
	delete(img.Config.Labels, "io.buildah.version")
	img.Created = epoch
	img.RootFS.Type, img.RootFS.DiffIDs = "layers", []string{"sha256:" + digest}
	img.History = []history{{epoch, "infra/image/Containerfile"}}
	config, err := json.Marshal(img)
	if err != nil {
		return nil, "", err
	}
	m.Config, m.Layers = sum(config)+".json", []string{digest + ".tar"}
	manifests, err := json.Marshal([]manifest{m})
	if err != nil {
		return nil, "", err
	}
	settled, err = write(map[string]file{
		m.Layers[0]: {content: layer, mode: 0o644}, m.Config: {content: config, mode: 0o644}, "manifest.json": {content: manifests, mode: 0o644},
	})
	return settled, "sha256:" + sum(config), err
}

func sum(b []byte) string {
	s := sha256.Sum256(b)
	return hex.EncodeToString(s[:])
}

// file is one of a tar: a regular one, or a folder.
type file struct {
	content  []byte
	mode     int64
	uid, gid int
	folder   bool
}

// read takes a tar apart. Links to layers, which an archive has for old programs,
// are left out.
func read(archive []byte) (map[string]file, error) {
	files := map[string]file{}
	r := tar.NewReader(bytes.NewReader(archive))
	for {
		h, err := r.Next()
		switch {
		case errors.Is(err, io.EOF) && len(files) > 0:
			return files, nil
		case errors.Is(err, io.EOF):
			return nil, errors.New("is an empty tar")
		case err != nil:
			return nil, fmt.Errorf("is no tar: %w", err)
		}
		if h.Typeflag != tar.TypeReg && h.Typeflag != tar.TypeDir {
			continue
		}
		content, err := io.ReadAll(r)
		if err != nil {
			return nil, err
		}
		files[path.Clean(h.Name)] = file{content: content, mode: h.Mode & 0o7777, uid: h.Uid, gid: h.Gid, folder: h.Typeflag == tar.TypeDir}
	}
}

// write makes a tar of files, in the order of their names.
func write(files map[string]file) ([]byte, error) {
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, name := range slices.Sorted(maps.Keys(files)) {
		f := files[name]
		h := &tar.Header{Format: tar.FormatUSTAR, Typeflag: tar.TypeReg, Name: name, Mode: f.mode, Uid: f.uid, Gid: f.gid, Size: int64(len(f.content)), ModTime: epoch}
		if f.folder {
			h.Typeflag, h.Name = tar.TypeDir, name+"/"
		}
		if err := w.WriteHeader(h); err != nil {
			return nil, err
		}
		if _, err := w.Write(f.content); err != nil {
			return nil, err
		}
	}
	if err := w.Close(); err != nil {
		return nil, err
	}
	return b.Bytes(), nil
}
