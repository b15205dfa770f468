// Package console is the web page for operators: the sessions, what each is at
// and why, its QR, the buttons that change it, and the fleet. The page is plain
// HTML, CSS and ES modules, embedded as they are; there is nothing to build.
//
// # What the page may do
//
// It is served without a key, as it holds nothing: everything shown comes from
// the admin API, which asks for one. The page keeps the key in sessionStorage,
// so that it ends with the tab, and sends it as X-Api-Key; it stands in no URL.
//
// Its Content-Security-Policy lets it load its own files and talk to its own
// origin, and nothing else: no inline script or style, no frame around it, no
// form that goes anywhere. Trusted types are required and none may be made, so
// that a browser which knows them refuses every way to turn text into HTML. What
// a stranger writes in a chat is shown as text.
//
// # The parts of the page
//
//	main.js      sign-in, the frame, which view is shown
//	api.js       requests to the admin API, problems, the server's clock
//	live.js      events as they come, or by asking now and then
//	dom.js       elements, times and countdowns
//	words.js     states, causes and problems in words
//	explain.js   what goes on with a session, what comes next, what to do
//	watch.js     what is known of all sessions and workers, kept fresh
//	sessions.js  the table of sessions; outage.js the banner above all views
//	session.js   one session, with facts.js, timeline.js, events.js, pairing.js,
//	             actions.js and send.js for its parts
//	workers.js   the fleet
//	dialogs.js   questions, create.js the one that makes a session; notices.js what was
//	             done and what went wrong
package console

import (
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"fmt"
	"io/fs"
	"net/http"
	"path"
	"strings"
)

// Prefix is where the page is. Handler serves this path and what is below it.
const Prefix = "/console/"

// policy is the Content-Security-Policy of every answer.
const policy = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; connect-src 'self'; " +
	"base-uri 'none'; form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'"

//go:embed page
var files embed.FS

// contentTypes are those of the files that there are: what the system's own
// table says differs from machine to machine.
var contentTypes = map[string]string{
	".html": "text/html; charset=utf-8",
	".css":  "text/css; charset=utf-8",
	".js":   "text/javascript; charset=utf-8",
	".svg":  "image/svg+xml",
}

// file is a file of the page, ready to be served.
type file struct {
	body        []byte
	contentType string
	etag        string
}

// Handler serves the page below Prefix and sends the root there. Browsers ask
// each time whether a file has changed, which costs no more than a 304: a new
// release is never mixed with files of the old one.
func Handler() http.Handler {
	page, err := load(files)
	if err != nil {
		panic("console: " + err.Error()) // it is embedded: whole, or not built
	}
	return page
}

// page has the files by their paths below Prefix.
type page map[string]file

func load(from fs.FS) (page, error) {
	p := page{}
	err := fs.WalkDir(from, ".", func(name string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		kind, known := contentTypes[path.Ext(name)]
		if !known {
			return fmt.Errorf("%s: has no content type here", name)
		}
		body, err := fs.ReadFile(from, name)
		if err != nil {
			return err
		}
		sum := sha256.Sum256(body)
		p[strings.TrimPrefix(name, "page/")] = file{body, kind, `"` + hex.EncodeToString(sum[:12]) + `"`}
		return nil
	})
	return p, err
}

func (p page) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	h := w.Header()
	h.Set("Content-Security-Policy", policy)
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("X-Frame-Options", "DENY")
	h.Set("Referrer-Policy", "no-referrer")
	h.Set("Cross-Origin-Opener-Policy", "same-origin")
	h.Set("Cross-Origin-Resource-Policy", "same-origin")
	h.Set("Permissions-Policy", "camera=(), geolocation=(), microphone=()")
	h.Set("Cache-Control", "no-cache")
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		h.Set("Allow", "GET, HEAD")
		http.Error(w, "the console is only read: use GET", http.StatusMethodNotAllowed)
		return
	}
	name, below := strings.CutPrefix(r.URL.Path, Prefix)
	switch {
	case r.URL.Path == "/", r.URL.Path == strings.TrimSuffix(Prefix, "/"):
		// Relative, so that a proxy may put all of this below a path of its own.
		h.Set("Location", "."+Prefix)
		w.WriteHeader(http.StatusFound)
		return
	case name == "":
		name = "index.html"
	}
	f, found := p[name]
	if !below || !found {
		http.Error(w, "the console has no such file: it is at "+Prefix, http.StatusNotFound)
		return
	}
	h.Set("ETag", f.etag)
	if matches(r.Header.Get("If-None-Match"), f.etag) {
		w.WriteHeader(http.StatusNotModified)
		return
	}
	h.Set("Content-Type", f.contentType)
	h.Set("Content-Length", fmt.Sprint(len(f.body)))
	if r.Method == http.MethodGet {
		_, _ = w.Write(f.body) // the client may be gone
	}
}

// matches says whether an If-None-Match names the ETag. Proxies that compress
// make weak ones of ours.
func matches(header, etag string) bool {
	for part := range strings.SplitSeq(header, ",") {
		part = strings.TrimSpace(part)
		if part == "*" || strings.TrimPrefix(part, "W/") == etag {
			return true
		}
	}
	return false
}
