package console

import (
	"io/fs"
	"net/http"
	"net/http/httptest"
	"path"
	"regexp"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/holdfast-wa/holdfast/state"
)

func get(t *testing.T, method, target string, headers ...string) *httptest.ResponseRecorder {
	t.Helper()
	r := httptest.NewRequest(method, target, nil)
	for i := 0; i < len(headers); i += 2 {
		r.Header.Set(headers[i], headers[i+1])
	}
	w := httptest.NewRecorder()
	Handler().ServeHTTP(w, r)
	return w
}

// sources are the files of the page, by name.
func sources(t *testing.T) map[string]string {
	t.Helper()
	found := map[string]string{}
	entries, err := fs.ReadDir(files, "page")
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		b, err := fs.ReadFile(files, "page/"+e.Name())
		if err != nil {
			t.Fatal(err)
		}
		found[e.Name()] = string(b)
	}
	return found
}

func TestEveryFileIsServedWithItsTypeAndThePolicy(t *testing.T) {
	wantType := map[string]string{".html": "text/html; charset=utf-8", ".css": "text/css; charset=utf-8", ".js": "text/javascript; charset=utf-8", ".svg": "image/svg+xml"}
	for name, content := range sources(t) {
		resp := get(t, "GET", Prefix+name)
		if resp.Code != http.StatusOK || resp.Header().Get("Content-Type") != wantType[path.Ext(name)] || resp.Body.Len() != len(content) {
			t.Errorf("%s: %d, %s, %d bytes", name, resp.Code, resp.Header().Get("Content-Type"), resp.Body.Len())
		}
	}
	for _, target := range []string{Prefix, Prefix + "index.html", Prefix + "main.js", Prefix + "none", "/", "/elsewhere"} {
		h := get(t, "GET", target).Header()
		for _, part := range []string{"default-src 'none'", "script-src 'self'", "style-src 'self'", "img-src 'self' blob: data:", "connect-src 'self'",
			"base-uri 'none'", "form-action 'none'", "frame-ancestors 'none'", "require-trusted-types-for 'script'", "trusted-types 'none'"} {
			if !strings.Contains(h.Get("Content-Security-Policy")+";", part+";") {
				t.Errorf("%s: the policy has no %q", target, part)
			}
		}
		if strings.Contains(h.Get("Content-Security-Policy"), "unsafe") {
			t.Errorf("%s: the policy allows something unsafe", target)
		}
		for name, want := range map[string]string{"X-Content-Type-Options": "nosniff", "X-Frame-Options": "DENY", "Referrer-Policy": "no-referrer",
			"Cross-Origin-Opener-Policy": "same-origin", "Cross-Origin-Resource-Policy": "same-origin", "Cache-Control": "no-cache"} {
			if h.Get(name) != want {
				t.Errorf("%s: %s is %q, want %q", target, name, h.Get(name), want)
			}
		}
	}
}

func TestBrowsersAskAndAreToldThatNothingChanged(t *testing.T) {
	tags := map[string]string{}
	for name := range sources(t) {
		resp := get(t, "GET", Prefix+name)
		tag := resp.Header().Get("ETag")
		if other, twice := tags[tag]; twice || len(tag) < 20 {
			t.Errorf("%s and %s share the ETag %s", name, other, tag)
		}
		tags[tag] = name
		for _, asked := range []string{tag, "W/" + tag, `"other", ` + tag, "*"} {
			again := get(t, "GET", Prefix+name, "If-None-Match", asked)
			if again.Code != http.StatusNotModified || again.Header().Get("ETag") != tag || again.Body.Len() > 0 {
				t.Errorf("%s with If-None-Match %s: %d", name, asked, again.Code)
			}
		}
		if again := get(t, "GET", Prefix+name, "If-None-Match", `"other"`); again.Code != http.StatusOK {
			t.Errorf("%s with another ETag: %d", name, again.Code)
		}
	}
	one, err := load(fstest.MapFS{"page/a.js": {Data: []byte("1")}})
	if err != nil {
		t.Fatal(err)
	}
	two, err := load(fstest.MapFS{"page/a.js": {Data: []byte("2")}})
	if err != nil || one["a.js"].etag == two["a.js"].etag {
		t.Errorf("another content has the same ETag: %v", err)
	}
	if _, err := load(fstest.MapFS{"page/a.exe": {Data: []byte("1")}}); err == nil {
		t.Error("a file of no known type is served")
	}
}

func TestPaths(t *testing.T) {
	for _, c := range []struct {
		method, target string
		status         int
		location       string
	}{
		{"GET", "/", http.StatusFound, "./console/"},
		{"GET", "/console", http.StatusFound, "./console/"},
		{"GET", "/console/", http.StatusOK, ""},
		{"HEAD", "/console/", http.StatusOK, ""},
		{"HEAD", "/console/main.js", http.StatusOK, ""},
		{"GET", "/console/page/main.js", http.StatusNotFound, ""},
		{"GET", "/console/../console.go", http.StatusNotFound, ""},
		{"GET", "/console/..%2fconsole.go", http.StatusNotFound, ""},
		{"GET", "/console//", http.StatusNotFound, ""},
		{"GET", "/main.js", http.StatusNotFound, ""},
		{"POST", "/console/", http.StatusMethodNotAllowed, ""},
		{"DELETE", "/console/main.js", http.StatusMethodNotAllowed, ""},
	} {
		resp := get(t, c.method, c.target)
		if resp.Code != c.status || resp.Header().Get("Location") != c.location {
			t.Errorf("%s %s: %d %s, want %d %s", c.method, c.target, resp.Code, resp.Header().Get("Location"), c.status, c.location)
		}
		if c.method == "HEAD" && (resp.Body.Len() > 0 || resp.Header().Get("Content-Length") == "") {
			t.Errorf("%s %s: %d bytes, Content-Length %q", c.method, c.target, resp.Body.Len(), resp.Header().Get("Content-Length"))
		}
		if c.status == http.StatusMethodNotAllowed && resp.Header().Get("Allow") != "GET, HEAD" {
			t.Errorf("%s %s: Allow is %q", c.method, c.target, resp.Header().Get("Allow"))
		}
	}
}

func TestThePageHasNothingInline(t *testing.T) {
	html := sources(t)["index.html"]
	for what, pattern := range map[string]string{
		"a script of its own":  `(?is)<script[^>]*>\s*[^<\s]`,
		"a script without src": `(?i)<script(?:\s+(?:type|async|defer)(?:="[^"]*")?)*\s*>`,
		"a style":              `(?i)<style`,
		"a style attribute":    `(?i)\sstyle\s*=`,
		"a handler":            `(?i)\son[a-z]+\s*=`,
		"a URL of a script":    `(?i)javascript:`,
		"something foreign":    `(?i)(src|href|action)\s*=\s*"?\s*(https?:)?//`,
	} {
		if found := regexp.MustCompile(pattern).FindString(html); found != "" {
			t.Errorf("the page has %s: %s", what, found)
		}
	}
	for _, src := range regexp.MustCompile(`(?:src|href)="([^"#.][^"]*)"`).FindAllStringSubmatch(html, -1) {
		if _, there := sources(t)[src[1]]; !there {
			t.Errorf("the page wants %s, which is not there", src[1])
		}
	}
}

// A stranger's text becomes HTML only by one of these; a policy of the browser is
// the second line.
func TestNoScriptMakesHTMLOfText(t *testing.T) {
	banned := regexp.MustCompile(`innerHTML|outerHTML|insertAdjacentHTML|setHTML|document\.write|DOMParser|createContextualFragment|srcdoc|\beval\b|new Function|localStorage|document\.cookie|setAttribute\('style'`)
	imported := regexp.MustCompile(`(?m)from '([^']+)'|import\('([^']+)'\)|^import '([^']+)'`)
	all := sources(t)
	for name, source := range all {
		if path.Ext(name) != ".js" {
			continue
		}
		code := regexp.MustCompile(`(?m)^\s*//.*$`).ReplaceAllString(source, "")
		if found := banned.FindString(code); found != "" {
			t.Errorf("%s uses %s", name, found)
		}
		if found := regexp.MustCompile(`['"\x60](https?:)?//`).FindString(strings.ReplaceAll(code, "placeholder: 'https://'", "")); found != "" && !strings.Contains(code, "http://www.w3.org/2000/svg") {
			t.Errorf("%s names somebody else: %s", name, found)
		}
		for _, m := range imported.FindAllStringSubmatch(code, -1) {
			from := m[1] + m[2] + m[3]
			if _, there := all[strings.TrimPrefix(from, "./")]; !there || !strings.HasPrefix(from, "./") {
				t.Errorf("%s imports %s, which is not there", name, from)
			}
		}
	}
	for name, source := range all {
		if path.Ext(name) == ".css" && regexp.MustCompile(`(?i)url\(|@import`).MatchString(source) {
			t.Errorf("%s loads something", name)
		}
	}
}

// The page has a word for every state and cause that there are, and for none that
// there are not.
func TestWordsForEveryStateAndCause(t *testing.T) {
	words := sources(t)["words.js"]
	object := func(name string) map[string]bool {
		_, rest, found := strings.Cut(words, "export const "+name+" = {")
		body, _, closed := strings.Cut(rest, "\n};")
		if !found || !closed {
			t.Fatalf("words.js has no %s", name)
		}
		keys := map[string]bool{}
		for _, m := range regexp.MustCompile(`(?m)^\s+([a-z_]+): \{`).FindAllStringSubmatch(body, -1) {
			keys[m[1]] = true
		}
		return keys
	}
	same := func(what string, got map[string]bool, want []string) {
		for _, w := range want {
			if !got[w] {
				t.Errorf("%s %s has no words", what, w)
			}
			delete(got, w)
		}
		for g := range got {
			t.Errorf("there are words for the %s %s, which there is not", what, g)
		}
	}
	var names []string
	for _, s := range state.States() {
		names = append(names, string(s))
		if !regexp.MustCompile(`(?s)export const order = \[[^\]]*'` + string(s) + `'`).MatchString(words) {
			t.Errorf("state %s has no place in the order of the list", s)
		}
	}
	same("state", object("states"), names)
	names = nil
	for _, c := range state.Causes() {
		names = append(names, string(c))
	}
	same("cause", object("causes"), names)
	same("health", object("healths"), []string{string(state.Healthy), string(state.Unhealthy), string(state.Dead)})
}
