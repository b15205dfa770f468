package standin

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
)

// Handler is the control of the lines over HTTP: JSON in, JSON out. An error is
// {"error": …} with status 400.
//
//	GET    /                        the environment of each line, and the lines that are broken
//	PUT    /lines/{line}/{service}  a Fault; the service may be all
//	DELETE /lines/{line}/{service}  heals it
//	DELETE /lines                   heals all
func (s *Standin) Handler() http.Handler {
	mux := http.NewServeMux()
	route := func(pattern string, serve func(*http.Request) error) {
		mux.HandleFunc(pattern, func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Type", "application/json")
			err := serve(r)
			var out any
			if err == nil {
				out, err = s.Describe()
			}
			if err != nil {
				w.WriteHeader(http.StatusBadRequest)
				out = map[string]string{"error": err.Error()}
			}
			_ = json.NewEncoder(w).Encode(out)
		})
	}
	each := func(r *http.Request, do func(line string, service Service) error) error {
		services := []Service{Service(r.PathValue("service"))}
		if services[0] == "all" {
			services = Services
		}
		for _, service := range services {
			if err := do(r.PathValue("line"), service); err != nil {
				return err
			}
		}
		return nil
	}
	route("GET /{$}", func(*http.Request) error { return nil })
	route("DELETE /lines", func(*http.Request) error { return s.HealAll() })
	route("DELETE /lines/{line}/{service}", func(r *http.Request) error { return each(r, s.Heal) })
	route("PUT /lines/{line}/{service}", func(r *http.Request) error {
		var f Fault
		in := json.NewDecoder(io.LimitReader(r.Body, 1<<16))
		in.DisallowUnknownFields()
		if err := in.Decode(&f); err != nil {
			return fmt.Errorf("body: %w; write {\"kind\": …}", err)
		}
		return each(r, func(line string, service Service) error { return s.Break(line, service, f) })
	})
	return mux
}

// Description is what the command prints and the control answers.
type Description struct {
	Lines  map[string]map[string]string `json:"lines"` // the environment that each line's user needs
	Broken map[string]map[Service]Fault `json:"broken"`
}

// Describe tells the environment of each line and which are broken.
func (s *Standin) Describe() (Description, error) {
	d := Description{Lines: map[string]map[string]string{}, Broken: s.State()}
	for _, name := range s.names {
		env, err := s.Environment(name)
		if err != nil {
			return d, err
		}
		d.Lines[name] = env
	}
	return d, nil
}
