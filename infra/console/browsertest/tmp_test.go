package browsertest

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"strings"
	"testing"
	"time"
)

func TestTmp(t *testing.T) {
	s := newStage(t)
	s.pair("default", phone)
	to, _ := url.Parse(s.url)
	through := httputil.NewSingleHostReverseProxy(to)
	front := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		switch {
		case strings.HasSuffix(r.URL.Path, "/default/events") && r.URL.Query().Get("type") == "session.state":
			type m = map[string]any
			var ev []m
			now := time.Now()
			steps := []struct {
				ago   time.Duration
				state string
				cause string
			}{{2 * time.Minute, "online", ""}, {3 * time.Minute, "reconnecting", "network"}, {2 * time.Hour, "online", ""}, {5 * time.Hour, "conflict", "replaced"}, {9 * time.Hour, "online", ""}, {9*time.Hour + 20*time.Minute, "reconnecting", "unavailable"}, {15 * time.Hour, "online", ""}, {16 * time.Hour, "pairing", ""}, {20 * time.Hour, "stopped", "stopped"}, {40 * time.Hour, "online", ""}}
			for i, st := range steps {
				prev := "pairing"
				if i+1 < len(steps) {
					prev = steps[i+1].state
				}
				ev = append(ev, m{"id": fmt.Sprint(i), "seq": 100 - i, "type": "session.state", "time": now.Add(-st.ago).UTC().Format(time.RFC3339), "session": "default", "data": m{"state": st.state, "cause": st.cause, "previous": prev}})
			}
			json.NewEncoder(w).Encode(m{"events": ev})
		case strings.HasPrefix(r.URL.Path, "/api/sessions/default") && r.URL.Path == "/api/sessions/default":
			_, b := s.try("GET", "/api/sessions/default", nil)
			var v map[string]any
			json.Unmarshal(b, &v)
			v["createdAt"] = time.Now().Add(-60 * time.Hour).UTC()
			json.NewEncoder(w).Encode(v)
		case r.URL.Path == "/api/sessions" && r.Method == "GET":
			_, b := s.try("GET", "/api/sessions/default", nil)
			var v map[string]any
			json.Unmarshal(b, &v)
			var list []any
			for i := range 2000 {
				c := map[string]any{}
				for k, x := range v {
					c[k] = x
				}
				c["name"] = fmt.Sprintf("shop-%04d", i)
				c["pushName"] = "Someone"
				if i%7 == 0 {
					c["state"], c["cause"], c["code"], c["nextAttemptAt"] = "reconnecting", "connection_lost", 428, time.Now().Add(time.Minute).UTC()
				}
				if i%300 == 0 {
					c["state"], c["cause"], c["code"] = "conflict", "logged_out", 401
				}
				list = append(list, c)
			}
			list = append(list, v)
			json.NewEncoder(w).Encode(map[string]any{"sessions": list})
		default:
			w.Header().Del("Content-Type")
			through.ServeHTTP(w, r)
		}
	}))
	t.Cleanup(front.Close)
	p := newTab(t, front.URL, 1280, 900)
	p.signIn("admin")
	began := time.Now()
	p.untilText("table", "shop-0000")
	t.Log("first rows after", time.Since(began))
	t.Log("draw ms", eval[float64](p, `(() => { const i = document.querySelector('#f-text'); const b = performance.now(); i.value='shop-1'; i.dispatchEvent(new Event('input')); i.value=''; i.dispatchEvent(new Event('input')); return performance.now()-b; })()`))
	p.check("many")
	p.do()
	p.fill("Name, number or worker", "default")
	p.press("default")
	p.untilText(".state", "online")
	p.until("bar", `document.querySelectorAll('.part').length>4`)
	p.check("timeline")
	p.press("7 d")
	p.check("timeline7")
}
