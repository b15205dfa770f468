package browsertest

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"strings"
	"testing"
)

// TestAnOutageIsOneOutage breaks the line of many sessions at once.
func TestAnOutageIsOneOutage(t *testing.T) {
	s := newStage(t)
	for i := range 5 {
		name := fmt.Sprintf("shop-%d", i)
		s.api("POST", "/api/sessions", map[string]any{"name": name})
		s.pair(name, fmt.Sprint(491700000010+i))
	}
	s.api("POST", "/api/sessions", map[string]any{"name": "resting", "wanted": "stopped"})
	p := newTab(t, s.url, 1280, 900)
	p.signIn("operator")
	p.untilText(".chips", "online")
	s.sim("POST", "/faults", map[string]any{"kind": "unreachable"})
	p.untilText("#outage", "Outage:")
	p.untilText("#outage", "sessions fail at once")
	p.until("it is said", `document.querySelector('#said').textContent.includes('Outage:')`)
	p.check("outage")
	p.press("shop-0")
	p.untilText(".state", "reconnecting")
	p.untilText("#outage", "Outage:")
	p.press("← All sessions")
	s.sim("DELETE", "/faults", nil)
	p.until("all are back", `[...document.querySelectorAll('tbody tr')].filter((r) => r.innerText.includes('online')).length === 5`)
	p.until("the banner is gone", `!document.querySelector('#outage').innerText.trim()`)

	// The filter stands in the address.
	p.fill("Name, number or worker", "shop-3")
	p.until("one is left", `document.querySelectorAll('tbody tr').length === 1`)
	p.untilText("#count", "1 of 7 sessions")
	eval[bool](p, `(location.reload(), true)`)
	p.untilText("#count", "1 of 7 sessions")
	p.press("Sessions")
	p.until("all are shown", `document.querySelector('#count').innerText === '7 sessions'`)
	p.press("stopped 1")
	p.untilText("#count", "1 of 7 sessions")
}

// TestTheWorkerComesAndGoes drains the worker and restarts the program under the
// open page.
func TestTheWorkerComesAndGoes(t *testing.T) {
	s := newStage(t)
	p := newTab(t, s.url, 1280, 900)
	p.signIn("admin")
	p.untilText("table", "default")
	s.program.stop()
	p.untilText("#outage", "Holdfast does not answer")
	p.shot("unreachable")
	s.program.start()
	p.until("the banner is gone", `!document.querySelector('#outage').innerText.trim()`)
	p.press("Workers")
	p.untilText("table", "alive")
	drain := `[...document.querySelectorAll('[data-worker]')].at(-1)`
	p.until("there is one to drain", drain)
	p.press("Drain … worker " + eval[string](p, drain+`.dataset.worker`))
	p.pressIn("dialog", "Drain")
	p.untilText("table", "drain")
	p.shot("draining")
	p.until("it can be taken back", drain+`?.innerText.startsWith('Take back')`)
	p.press("Take back worker " + eval[string](p, drain+`.dataset.worker`))
	p.pressIn("dialog", "Take back")
	p.until("it is taken back", drain+`?.innerText.startsWith('Drain')`)
}

// TestWithoutAWorker looks at holdfast admin alone: what needs no worker is done, and
// what needs one says so.
func TestWithoutAWorker(t *testing.T) {
	s := newStage(t)
	s.pair("default", phone)
	s.admin()
	p := newTab(t, s.url, 1280, 900)
	p.signIn("operator")
	p.untilText("#outage", "No worker is alive")
	p.untilText("table", "unowned")
	p.press("default")
	p.untilText(".lines", "none is alive. Start one.")
	p.check("unowned")
	p.press("Restart")
	p.untilText("#notices", "no worker has carried it out yet")
	p.press("Disconnect …")
	p.fill("Type the name to confirm", "default")
	p.press("Disconnect")
	p.untilText(".state", "disconnected")
	p.press("Workers")
	p.untilText("main", "No worker is alive")
}

// front puts something before holdfast, and returns its URL.
func (s *stage) front(serve func(w http.ResponseWriter, r *http.Request, through http.Handler)) string {
	s.t.Helper()
	to, err := url.Parse(s.url)
	if err != nil {
		s.t.Fatal(err)
	}
	through := httputil.NewSingleHostReverseProxy(to)
	front := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { serve(w, r, through) }))
	s.t.Cleanup(front.Close)
	return front.URL
}

// TestWithoutStreams puts something before the API that does not let streams
// through, as a Lambda does not: the page asks now and then.
func TestWithoutStreams(t *testing.T) {
	for name, refuse := range map[string]func(http.ResponseWriter){
		"refused": func(w http.ResponseWriter) {
			w.Header().Set("Content-Type", "application/problem+json")
			w.WriteHeader(http.StatusNotAcceptable)
			fmt.Fprint(w, `{"status":406,"code":"streaming_not_here","title":"Events are not streamed here"}`)
		},
		"answered as JSON": func(w http.ResponseWriter) {
			w.Header().Set("Content-Type", "application/json")
			fmt.Fprint(w, `{"events":[]}`)
		},
	} {
		t.Run(name, func(t *testing.T) {
			s := newStage(t)
			front := s.front(func(w http.ResponseWriter, r *http.Request, through http.Handler) {
				if strings.Contains(r.Header.Get("Accept"), "text/event-stream") {
					refuse(w)
					return
				}
				through.ServeHTTP(w, r)
			})
			p := newTab(t, front, 1280, 900)
			p.signIn("operator")
			p.untilText("#line", "polling")
			p.press("default")
			p.untilText("#line", "polling")
			p.scan(s, phone)
			p.untilText(".state", "online")
			p.untilText(".events", "session.paired")
			p.press("← All sessions")
			p.untilText("table", "online")
			s.sim("POST", "/devices/"+phone+"/drop", map[string]any{"how": "close"})
			p.untilText("table", "connection_lost")
		})
	}
}
