package adminapi

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"rsc.io/qr"

	"github.com/holdfast-wa/holdfast/state"
	"github.com/holdfast-wa/holdfast/state/seal"
)

// QR is the code that is shown now, as JSON.
type QR struct {
	Code      string    `json:"code" doc:"the text to draw as a QR; a secret while it is valid"`
	ExpiresAt time.Time `json:"expiresAt"`
}

// PairCode is the body of pair-code.
type PairCode struct {
	Phone string `json:"phone" minLength:"6" maxLength:"32" example:"+49 151 23456789" doc:"the phone's number with its country code"`
}

type qrInput struct {
	SessionPath
	WaitParam
	Accept      string `header:"Accept" hidden:"true" maxLength:"512" doc:"image/png, image/svg+xml, text/plain or application/json"`
	IfNoneMatch string `header:"If-None-Match" maxLength:"128" doc:"ETag of the code that the client has: answers when there is another"`
	Format      string `query:"format" enum:"png,svg,text,json" doc:"instead of Accept"`
}

type rawOutput struct {
	Status      int
	ContentType string `header:"Content-Type"`
	ETag        string `header:"ETag"`
	Expires     string `header:"Expires"`
	Body        []byte
}

type pairCodeInput struct {
	VerbParams
	Body PairCode
}

func (a *API) pairingRoutes() {
	shown := a.answers(QR{}, "The code that is valid now", "image/png", "image/svg+xml", "text/plain")
	shown["304"] = &huma.Response{Description: "It is still the code that If-None-Match names"}
	route(a, Operator, huma.Operation{OperationID: "get-qr", Method: http.MethodGet, Path: "/api/sessions/{name}/qr", Tags: []string{"Pairing"},
		Summary: "Show the QR to scan", Errors: []int{404, 406, 409},
		Description: "The format is chosen by Accept. With wait the answer is held back until there is a code (another one, with If-None-Match), or the session is paired (409 already_paired).",
		Responses:   shown}, a.qr)
	route(a, Operator, huma.Operation{OperationID: "pair-code", Method: http.MethodPost, Path: "/api/sessions/{name}/pair-code", Tags: []string{"Pairing"},
		Summary: "Ask for a code to type on the phone", DefaultStatus: http.StatusAccepted, Errors: []int{400, 404, 409, 412, 413, 415},
		Description: "The command's pairCode has the eight characters when it is done."}, a.pairCode)
}

func (a *API) qr(ctx context.Context, in *qrInput) (*rawOutput, error) {
	wait, err := in.duration()
	if err != nil {
		return nil, err
	}
	format := in.Format
	if format == "" {
		if format = accepted(in.Accept); format == "" {
			return nil, problem(CodeNotAcceptable, "header.Accept: use image/png, image/svg+xml, text/plain or application/json")
		}
	}
	var shown QR
	var tag string
	same := false
	err = a.await(ctx, in.Name, wait, func() (bool, error) {
		s, err := a.read(ctx, in.Name)
		if err != nil {
			return false, err
		}
		if s.status.Paired {
			return false, problem(CodeAlreadyPaired, "%q is paired already: repair clears that and shows a fresh QR", in.Name)
		}
		if shown, err = a.shownQR(ctx, in.Name); err != nil || shown.Code == "" {
			return false, err
		}
		sum := sha256.Sum256([]byte(shown.Code))
		tag = `"` + hex.EncodeToString(sum[:12]) + `"`
		same = tag == in.IfNoneMatch
		return !same, nil
	})
	switch {
	case err != nil:
		return nil, err
	case shown.Code == "":
		return nil, a.noQR(ctx, in.Name)
	case same:
		return &rawOutput{Status: http.StatusNotModified, ETag: tag}, nil
	}
	out := &rawOutput{Status: http.StatusOK, ETag: tag, Expires: shown.ExpiresAt.UTC().Format(http.TimeFormat)}
	out.ContentType, out.Body, err = drawQR(format, shown)
	return out, err
}

// shownQR reads the code that is valid now; an empty one where there is none.
func (a *API) shownQR(ctx context.Context, session string) (QR, error) {
	p := state.OfSession(session)
	r, err := a.cfg.Store.Get(ctx, p, state.Key{Kind: state.KindQR})
	if errors.Is(err, state.ErrNotFound) {
		return QR{}, nil
	}
	if err != nil {
		return QR{}, err
	}
	var shown state.QRShown
	if err := state.Decode(r.Value, &shown); err != nil {
		return QR{}, fmt.Errorf("QR of %q: %w", session, err)
	}
	if !shown.ExpiresAt.After(a.cfg.Now()) {
		return QR{}, nil
	}
	text, err := a.cfg.Fleet.Open(seal.Place{Partition: p, Kind: state.KindQR}, shown.Sealed)
	if err != nil {
		return QR{}, fmt.Errorf("QR of %q: %w", session, err)
	}
	return QR{Code: string(text), ExpiresAt: shown.ExpiresAt}, nil
}

// noQR says why there is no code, and what to do.
func (a *API) noQR(ctx context.Context, name string) error {
	s, err := a.read(ctx, name)
	if err != nil {
		return err
	}
	left := a.cooling(&s)
	switch shown := a.shown(s, a.standing(ctx, s.owner.Incarnation)); {
	case left > 0:
		return problem(CodeNoQR, "no QR of %q is shown: it cools down after %s; wait, or repair with force", name, s.status.Cause).after(left)
	case s.spec.Wanted != state.WantRunning:
		return problem(CodeNoQR, "no QR of %q is shown: it is wanted %s; start it", name, s.spec.Wanted)
	case shown == state.Unowned:
		return problem(CodeNoQR, "no QR of %q is shown: no worker has it; is one running?", name).after(2 * time.Second)
	case s.status.Cause != state.CauseNone:
		return problem(CodeNoQR, "no QR of %q is shown: it is %s after %s; start it for a fresh one", name, shown, s.status.Cause)
	default:
		return problem(CodeNoQR, "no QR of %q is shown yet: ask with ?wait=30s", name).after(time.Second)
	}
}

// drawQR draws a code in a format.
func drawQR(format string, shown QR) (contentType string, body []byte, err error) {
	if format == "json" {
		body, err = json.Marshal(shown)
		return "application/json", body, err
	}
	code, err := qr.Encode(shown.Code, qr.L)
	if err != nil {
		return "", nil, errors.New("the QR text is too long to draw")
	}
	switch format {
	case "png":
		return "image/png", code.PNG(), nil
	case "svg":
		return "image/svg+xml", svgQR(code), nil
	}
	return "text/plain; charset=utf-8", textQR(code), nil
}

// quiet is the white border that scanners need, in modules.
const quiet = 4

func svgQR(code *qr.Code) []byte {
	side := code.Size + 2*quiet
	var b strings.Builder
	fmt.Fprintf(&b, `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %d %d" width="%d" height="%d" shape-rendering="crispEdges" role="img"><title>QR code</title>`,
		side, side, side*8, side*8)
	fmt.Fprintf(&b, `<rect width="%d" height="%d" fill="#fff"/><path fill="#000" d="`, side, side)
	for y := range code.Size {
		for x := 0; x < code.Size; x++ {
			run := 0
			for x+run < code.Size && code.Black(x+run, y) {
				run++
			}
			if run > 0 {
				fmt.Fprintf(&b, "M%d %dh%dv1h-%dz", x+quiet, y+quiet, run, run)
				x += run
			}
		}
	}
	b.WriteString(`"/></svg>`)
	return []byte(b.String())
}

// textQR draws two modules a character. White is drawn, as terminals are dark
// more often than not, and scanners read it either way with its border.
func textQR(code *qr.Code) []byte {
	white := func(x, y int) bool { return !code.Black(x, y) } // outside is white
	const border = 2
	var b strings.Builder
	for y := -border; y < code.Size+border; y += 2 {
		for x := -border; x < code.Size+border; x++ {
			upper, lower := white(x, y), y+1 < code.Size+border && white(x, y+1)
			switch {
			case upper && lower:
				b.WriteString("█")
			case upper:
				b.WriteString("▀")
			case lower:
				b.WriteString("▄")
			default:
				b.WriteString(" ")
			}
		}
		b.WriteByte('\n')
	}
	return []byte(b.String())
}

// formats are what a QR can be answered as, the preferred first.
var formats = []struct{ name, mediaType string }{
	{"json", "application/json"}, {"png", "image/png"}, {"svg", "image/svg+xml"}, {"text", "text/plain"},
}

// accepted picks the format that an Accept header likes best; empty: none.
func accepted(header string) string {
	if strings.TrimSpace(header) == "" {
		return formats[0].name
	}
	best, bestQ, bestSpecific := "", 0.0, 0
	for _, f := range formats {
		q, specific := quality(header, f.mediaType)
		if q > bestQ || q == bestQ && q > 0 && specific > bestSpecific {
			best, bestQ, bestSpecific = f.name, q, specific
		}
	}
	return best
}

// quality is how much a header likes a media type, by its most specific range:
// 3 named, 2 by its main type, 1 by */*.
func quality(header, mediaType string) (q float64, specific int) {
	main, _, _ := strings.Cut(mediaType, "/")
	for part := range strings.SplitSeq(header, ",") {
		fields := strings.Split(part, ";")
		s := 0
		switch strings.ToLower(strings.TrimSpace(fields[0])) {
		case mediaType:
			s = 3
		case main + "/*":
			s = 2
		case "*/*":
			s = 1
		}
		if s <= specific {
			continue
		}
		q, specific = 1, s
		for _, param := range fields[1:] {
			if v, ok := strings.CutPrefix(strings.TrimSpace(param), "q="); ok {
				if parsed, err := strconv.ParseFloat(v, 64); err == nil && parsed >= 0 && parsed <= 1 {
					q = parsed
				}
			}
		}
	}
	return q, specific
}

func (a *API) pairCode(ctx context.Context, in *pairCodeInput) (*commandOutput, error) {
	phone, err := digits(in.Body.Phone)
	if err != nil {
		return nil, err
	}
	o := order{verb: state.VerbPairCode, life: pairCodeLife, secret: state.CommandSecret{Phone: phone}}
	return a.order(ctx, in.VerbParams, o, func(s *stored) ([]state.Write, string, string, error) {
		switch left := a.cooling(s); {
		case s.status.Paired:
			return nil, "", "", problem(CodeAlreadyPaired, "%q is paired already: repair clears that", s.owner.Session)
		case left > 0:
			return nil, "", "", problem(CodeCooldown, "%q cools down after %s: wait", s.owner.Session, s.status.Cause).after(left)
		}
		return a.want(state.WantRunning)(s)
	})
}

// digits takes a phone number as people write it.
func digits(phone string) (string, error) {
	var b strings.Builder
	for i, r := range strings.TrimSpace(phone) {
		switch {
		case r >= '0' && r <= '9':
			b.WriteRune(r)
		case r == '+' && i == 0, strings.ContainsRune(" -./()", r):
		default:
			return "", invalid("body.phone", "must be a number of 7 to 15 digits with its country code, such as +49 151 23456789")
		}
	}
	number := b.String()
	if len(number) < 7 || len(number) > 15 || number[0] == '0' {
		return "", invalid("body.phone", "must have 7 to 15 digits and begin with the country code, not with 0")
	}
	return number, nil
}
