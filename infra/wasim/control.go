package wasim

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"
)

// maxBody bounds a control request, in bytes.
const maxBody = 1 << 20

// maxWait bounds waitSeconds.
const maxWait = 300

// Handler is the control API; doc.go lists the routes.
func (s *Server) Handler() http.Handler {
	mux := http.NewServeMux()
	route := func(pattern string, serve func(*http.Request) (any, error)) {
		mux.HandleFunc(pattern, func(w http.ResponseWriter, r *http.Request) {
			out, err := serve(r)
			answer(w, out, err)
		})
	}
	route("GET /{$}", s.getRoot)
	route("GET /healthz", func(*http.Request) (any, error) { return map[string]string{"status": "ok"}, nil })
	route("GET /accounts", s.getAccounts)
	route("POST /scan", s.postScan)
	route("POST /link", s.postLink)
	route("GET /devices", func(*http.Request) (any, error) { return s.statuses(), nil })
	route("DELETE /devices/{jid}", s.onDevice(func(d *Device, _ *http.Request) error { d.Unlink(); return nil }))
	route("POST /devices/{jid}/drop", s.onDevice(func(d *Device, r *http.Request) error {
		var in struct {
			How How `json:"how"`
		}
		if err := read(r, &in); err != nil {
			return err
		}
		return d.Drop(in.How)
	}))
	route("POST /devices/{jid}/node", s.onDevice(func(d *Device, r *http.Request) error {
		var in Stanza
		if err := read(r, &in); err != nil {
			return err
		}
		return d.SendStanza(in)
	}))
	route("GET /contacts", s.getContacts)
	route("POST /contacts", s.postContact)
	route("POST /contacts/{number}/send", s.postSend)
	route("POST /contacts/{number}/read", s.postRead)
	route("GET /contacts/{number}/received", s.getReceived)
	route("GET /groups", func(*http.Request) (any, error) { return s.Groups(), nil })
	route("POST /groups", func(r *http.Request) (any, error) {
		var in struct {
			Subject string   `json:"subject"`
			Members []string `json:"members"`
		}
		if err := read(r, &in); err != nil {
			return nil, err
		}
		return s.NewGroup(in.Subject, in.Members...)
	})
	route("GET /faults", func(*http.Request) (any, error) { return s.Faults(), nil })
	route("POST /faults", func(r *http.Request) (any, error) {
		var in Fault
		if err := read(r, &in); err != nil {
			return nil, err
		}
		id, err := s.Inject(in)
		return map[string]string{"id": id}, err
	})
	route("DELETE /faults", func(*http.Request) (any, error) { s.ClearFaults(); return ok, nil })
	route("DELETE /faults/{id}", func(r *http.Request) (any, error) { return ok, s.ClearFault(r.PathValue("id")) })
	route("POST /revision", func(r *http.Request) (any, error) {
		var in struct {
			Revision uint32 `json:"revision"`
			Minimum  uint32 `json:"minimum"`
		}
		if err := read(r, &in); err != nil {
			return nil, err
		}
		if in.Revision == 0 {
			return nil, fmt.Errorf("%w: revision: is 0", ErrInput)
		}
		s.SetRevision(in.Revision, in.Minimum)
		return ok, nil
	})
	route("GET /truth", func(r *http.Request) (any, error) {
		if device := r.URL.Query()["device"]; len(device) > 0 {
			return s.Truth(device...), nil
		}
		return s.Truth(), nil
	})
	route("POST /truth/reset", func(*http.Request) (any, error) { s.ResetTruth(); return ok, nil })
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		answer(w, nil, fmt.Errorf("%s %s: %w; see the package's doc.go for the routes", r.Method, r.URL.Path, ErrNotFound))
	})
	return mux
}

// ok is the answer of what has none.
var ok = map[string]bool{"ok": true}

// answer writes a result or an error; one table maps errors to statuses.
func answer(w http.ResponseWriter, out any, err error) {
	w.Header().Set("Content-Type", "application/json")
	if err != nil {
		status := http.StatusInternalServerError
		for _, row := range []struct {
			err    error
			status int
		}{
			{ErrInput, http.StatusBadRequest}, {ErrNotFound, http.StatusNotFound},
			{context.DeadlineExceeded, http.StatusGatewayTimeout}, {context.Canceled, http.StatusGatewayTimeout},
			{ErrOffline, http.StatusConflict}, {ErrPairing, http.StatusConflict}, {ErrClosed, http.StatusServiceUnavailable},
		} {
			if errors.Is(err, row.err) {
				status = row.status
				break
			}
		}
		w.WriteHeader(status)
		out = map[string]string{"error": err.Error()}
	}
	_ = json.NewEncoder(w).Encode(out)
}

// read takes a request's JSON body: one value, no unknown fields.
func read(r *http.Request, into any) error {
	d := json.NewDecoder(io.LimitReader(r.Body, maxBody))
	d.DisallowUnknownFields()
	if err := d.Decode(into); err != nil {
		return fmt.Errorf("%w: body: %s", ErrInput, strings.TrimPrefix(err.Error(), "json: "))
	}
	if _, err := d.Token(); err != io.EOF {
		return fmt.Errorf("%w: body: something follows the JSON value", ErrInput)
	}
	return nil
}

// patience is a request's context, bounded by its waitSeconds.
func patience(r *http.Request, seconds, fallback float64) (context.Context, context.CancelFunc, error) {
	if seconds == 0 {
		seconds = fallback
	}
	if seconds < 0 || seconds > maxWait {
		return nil, nil, fmt.Errorf("%w: waitSeconds: is %v; use 0 to %d", ErrInput, seconds, maxWait)
	}
	ctx, cancel := context.WithTimeout(r.Context(), time.Duration(seconds*float64(time.Second)))
	return ctx, cancel, nil
}

func (s *Server) getRoot(*http.Request) (any, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	live := 0
	for c := range s.conns {
		if c.device != nil && c.device.conn == c {
			live++
		}
	}
	return map[string]any{
		"url": s.URL(), "control": s.ControlURL(), "rootKey": s.RootKeyHex(), "revision": s.revision, "minimum": s.minimum,
		"online": live, "pairing": len(s.pairings) / refCount, "faults": len(s.faults), "kinds": Kinds(),
	}, nil
}

// statuses is the Status of every device.
func (s *Server) statuses() []Status {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := []Status{}
	for _, d := range s.allDevices() {
		out = append(out, d.status())
	}
	return out
}

func (s *Server) getAccounts(*http.Request) (any, error) {
	type account struct {
		Number  string   `json:"number"`
		LID     string   `json:"lid"`
		Devices []Status `json:"devices"`
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	byNumber := map[string]*account{}
	out := []*account{}
	for _, d := range s.allDevices() {
		a := byNumber[d.user.number]
		if a == nil {
			a = &account{Number: d.user.number, LID: d.user.lidJID(0).String()}
			byNumber[d.user.number] = a
			out = append(out, a)
		}
		a.Devices = append(a.Devices, d.status())
	}
	return out, nil
}

func (s *Server) postScan(r *http.Request) (any, error) {
	var in struct {
		QR          string  `json:"qr"`
		Number      string  `json:"number"`
		WaitSeconds float64 `json:"waitSeconds"`
	}
	if err := read(r, &in); err != nil {
		return nil, err
	}
	return s.pairOver(r, in.Number, in.WaitSeconds, func(ctx context.Context, p *Phone) (*Device, error) { return p.Scan(ctx, in.QR) })
}

func (s *Server) postLink(r *http.Request) (any, error) {
	var in struct {
		Code        string  `json:"code"`
		Number      string  `json:"number"`
		WaitSeconds float64 `json:"waitSeconds"`
	}
	if err := read(r, &in); err != nil {
		return nil, err
	}
	return s.pairOver(r, in.Number, in.WaitSeconds, func(ctx context.Context, p *Phone) (*Device, error) { return p.EnterCode(ctx, in.Code) })
}

func (s *Server) pairOver(r *http.Request, number string, seconds float64, pair func(context.Context, *Phone) (*Device, error)) (any, error) {
	phone, err := s.phone(number)
	if err != nil {
		return nil, err
	}
	ctx, cancel, err := patience(r, seconds, 30)
	if err != nil {
		return nil, err
	}
	defer cancel()
	d, err := pair(ctx, phone)
	if err != nil {
		return nil, err
	}
	return d.Status(), nil
}

// onDevice serves a route about one device.
func (s *Server) onDevice(do func(*Device, *http.Request) error) func(*http.Request) (any, error) {
	return func(r *http.Request) (any, error) {
		d, err := s.Device(r.PathValue("jid"))
		if err != nil {
			return nil, err
		}
		return ok, do(d, r)
	}
}

func (s *Server) getContacts(*http.Request) (any, error) {
	type contact struct {
		Number        string     `json:"number"`
		LID           string     `json:"lid"`
		Name          string     `json:"name"`
		Received      []Received `json:"received"`
		Undecryptable []Failed   `json:"undecryptable"`
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	out := []contact{}
	for _, u := range s.users {
		out = append(out, contact{u.number, u.lidJID(0).String(), u.name,
			append([]Received{}, u.received...), append([]Failed{}, u.failed...)})
	}
	return out, nil
}

func (s *Server) postContact(r *http.Request) (any, error) {
	var in struct {
		Number string  `json:"number"`
		Name   *string `json:"name"`
		Reply  *string `json:"reply"`
	}
	if err := read(r, &in); err != nil {
		return nil, err
	}
	p, err := s.phone(in.Number)
	if err != nil {
		return nil, err
	}
	c := p.Contact()
	if in.Name != nil {
		c.SetName(*in.Name)
	}
	if in.Reply != nil {
		var reply func(Received) string
		if form := *in.Reply; form != "" {
			reply = func(r Received) string { return strings.ReplaceAll(form, "{}", r.Text) }
		}
		c.Reply(reply)
	}
	return map[string]string{"number": c.Number(), "lid": c.LID().String()}, nil
}

func (s *Server) postSend(r *http.Request) (any, error) {
	var in struct {
		To    string `json:"to"`
		Text  string `json:"text"`
		Group string `json:"group"`
		Count int    `json:"count"`
		By    string `json:"by"`
	}
	if err := read(r, &in); err != nil {
		return nil, err
	}
	p, err := s.phone(r.PathValue("number"))
	if err != nil {
		return nil, err
	}
	var opts []SendOption
	switch in.By {
	case "", "lid":
	case "pn":
		opts = append(opts, ByPN())
	default:
		return nil, fmt.Errorf("%w: by: is %q; use lid or pn", ErrInput, in.By)
	}
	if in.Count < 0 || in.Count > 100_000 {
		return nil, fmt.Errorf("%w: count: is %d; use 1 to 100000", ErrInput, in.Count)
	}
	if in.Text == "" || (in.To == "") == (in.Group == "") {
		return nil, fmt.Errorf("%w: send: needs text, and either to or group", ErrInput)
	}
	ids := []string{}
	for i := range max(in.Count, 1) {
		text := in.Text
		if in.Count > 1 {
			text += " " + strconv.Itoa(i+1)
		}
		var id string
		if in.Group != "" {
			id, err = p.Contact().SendGroup(r.Context(), in.Group, text, opts...)
		} else {
			id, err = p.Contact().SendText(r.Context(), in.To, text, opts...)
		}
		if err != nil {
			return nil, err
		}
		ids = append(ids, id)
	}
	return map[string]any{"ids": ids}, nil
}

func (s *Server) postRead(r *http.Request) (any, error) {
	var in struct {
		To  string   `json:"to"`
		IDs []string `json:"ids"`
	}
	if err := read(r, &in); err != nil {
		return nil, err
	}
	p, err := s.phone(r.PathValue("number"))
	if err != nil {
		return nil, err
	}
	return ok, p.Contact().Read(in.To, in.IDs...)
}

func (s *Server) getReceived(r *http.Request) (any, error) {
	p, err := s.phone(r.PathValue("number"))
	if err != nil {
		return nil, err
	}
	q := r.URL.Query()
	if !q.Has("text") {
		return p.Contact().Received(), nil
	}
	seconds := 0.0
	if q.Has("waitSeconds") {
		if seconds, err = strconv.ParseFloat(q.Get("waitSeconds"), 64); err != nil {
			return nil, fmt.Errorf("%w: waitSeconds: is no number", ErrInput)
		}
	}
	ctx, cancel, err := patience(r, seconds, 10)
	if err != nil {
		return nil, err
	}
	defer cancel()
	return p.Contact().WaitText(ctx, q.Get("text"))
}

// FetchQR is a fetch for Watch: it GETs a JSON {"code": …} (Holdfast's
// /api/sessions/NAME/qr) with an API key, and takes any other answer than 200
// for "none is shown now".
func FetchQR(client *http.Client, address, apiKey string) (func(context.Context) (string, error), error) {
	if u, err := url.Parse(address); err != nil || u.Host == "" {
		return nil, fmt.Errorf("%w: autoscan: %q is no URL; give the address that answers {\"code\"}", ErrInput, address)
	}
	return func(ctx context.Context) (string, error) {
		r, err := http.NewRequestWithContext(ctx, http.MethodGet, address, nil)
		if err != nil {
			return "", err
		}
		r.Header.Set("Accept", "application/json")
		if apiKey != "" {
			r.Header.Set("X-Api-Key", apiKey)
		}
		resp, err := client.Do(r)
		if err != nil {
			return "", err
		}
		defer resp.Body.Close()
		if resp.StatusCode != http.StatusOK {
			return "", nil
		}
		var out struct {
			Code string `json:"code"`
		}
		if err := json.NewDecoder(io.LimitReader(resp.Body, maxBody)).Decode(&out); err != nil {
			return "", err
		}
		return out.Code, nil
	}, nil
}
