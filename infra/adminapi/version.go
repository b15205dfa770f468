package adminapi

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"strconv"
	"strings"

	"github.com/holdfast-wa/holdfast/state"
)

// etag names the version of a session that clients change.
func etag(spec state.Spec) string { return `"` + strconv.FormatUint(spec.Generation, 10) + `"` }

// checkVersion says whether a session is at a version that If-Match names: one or
// several ETags, or * for any. Weak ones match nothing. Empty: whatever it is.
func checkVersion(header string, spec state.Spec) error {
	if header == "" {
		return nil
	}
	for one := range strings.SplitSeq(header, ",") {
		if one = strings.TrimSpace(one); one == "*" || one == etag(spec) {
			return nil
		}
	}
	return problem(CodePrecondition, "header.If-Match: the session is at %s: read it and try again", etag(spec))
}

// requestArg is the argument of a command that tells a repeated request from
// another one with the same idempotency key.
const requestArg = "request"

// fingerprint is a short hash of what was asked for. Commands are shown to viewers,
// so of secrets only whether they were given counts.
func (s Settings) fingerprint(wanted state.Wanted) string {
	s.Proxy, s.WebhookSecret = given(s.Proxy), given(s.WebhookSecret)
	return hashed(struct {
		Wanted   state.Wanted
		Settings Settings
	}{wanted, s})
}

func (p SettingsPatch) fingerprint() string {
	for _, field := range []**string{&p.Proxy, &p.WebhookSecret} {
		if *field != nil {
			v := given(**field)
			*field = &v
		}
	}
	return hashed(p)
}

func given(secret string) string {
	if secret == "" {
		return ""
	}
	return "given"
}

func hashed(v any) string {
	text, err := json.Marshal(v)
	if err != nil {
		return "" // of strings and maps of them there is none
	}
	sum := sha256.Sum256(text)
	return hex.EncodeToString(sum[:8])
}
