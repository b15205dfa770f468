package gateway

import (
	"errors"
	"fmt"
	"net/http"
	"path"
	"strings"

	"github.com/aws/aws-lambda-go/events"

	"github.com/holdfast-wa/holdfast/infra/adminapi"
)

// Auth says whose word is taken for who a caller is.
type Auth struct {
	Keys bool // the API's keys
	JWT  bool // all routes have a JWT authorizer
	IAM  bool // all routes have IAM authorization
	// Roles are those of IAM callers: the first that matches counts.
	Roles []ARNRole
}

// ARNRole gives the callers of an ARN a role. In the last part of the pattern,
// the resource, * stands for any text without a slash.
type ARNRole struct {
	Pattern string
	Role    adminapi.Role
}

// ParseAuth reads a list of keys, jwt and iam.
func ParseAuth(list string) (Auth, error) {
	var a Auth
	for word := range strings.SplitSeq(list, ",") {
		switch strings.TrimSpace(word) {
		case "":
		case "keys":
			a.Keys = true
		case "jwt":
			a.JWT = true
		case "iam":
			a.IAM = true
		default:
			return Auth{}, fmt.Errorf("%q: is none; use keys, jwt and iam, separated by commas", strings.TrimSpace(word))
		}
	}
	if !a.Keys && !a.JWT && !a.IAM {
		return Auth{}, errors.New("names nothing, so nobody could ask; use keys, jwt and iam, separated by commas")
	}
	return a, nil
}

// arnParts are arn, partition, service, region, account and resource.
const arnParts = 6

// ParseARNRoles reads ARN-PATTERN=ROLE, separated by commas. A * is taken in the
// resource alone: whose account it is must be said.
func ParseARNRoles(list string) ([]ARNRole, error) {
	var roles []ARNRole
	for entry := range strings.SplitSeq(list, ",") {
		if entry = strings.TrimSpace(entry); entry == "" {
			continue
		}
		cut := strings.LastIndexByte(entry, '=')
		if cut < 0 {
			return nil, fmt.Errorf("%q: has no role; write ARN-PATTERN=ROLE", entry)
		}
		pattern := strings.TrimSpace(entry[:cut])
		role, err := adminapi.ParseRole(strings.TrimSpace(entry[cut+1:]))
		if err != nil {
			return nil, fmt.Errorf("%q: %w", pattern, err)
		}
		parts := strings.SplitN(pattern, ":", arnParts)
		switch {
		case len(parts) < arnParts || parts[0] != "arn" || parts[5] == "":
			return nil, fmt.Errorf("%q: is no ARN; write one such as arn:aws:sts::123456789012:assumed-role/operators/*", pattern)
		case parts[4] == "" || strings.ContainsAny(strings.Join(parts[:5], ":"), `*?[\`):
			return nil, fmt.Errorf("%q: leaves open whose account it is; use * in the last part alone", pattern)
		case strings.ContainsAny(parts[5], `?[\`):
			return nil, fmt.Errorf("%q: has another wildcard than *; use that", pattern)
		}
		roles = append(roles, ARNRole{pattern, role})
	}
	return roles, nil
}

// refusal is an answer to a caller who is not let through.
type refusal struct {
	code adminapi.Code
	why  string
}

func (r *refusal) Error() string { return r.why }

func refuse(code adminapi.Code, format string, args ...any) error {
	return &refusal{code, fmt.Sprintf(format, args...)}
}

// caller finds who a request is from. Known is false where that is for the API
// to find out, by its keys. An error is a *refusal.
func (a Auth) caller(e *events.APIGatewayV2HTTPRequest, h http.Header) (who adminapi.Caller, known bool, err error) {
	if a.Keys && (h.Get("X-Api-Key") != "" || !a.JWT && !a.IAM) {
		return who, false, nil
	}
	by := e.RequestContext.Authorizer
	switch {
	case by != nil && by.JWT != nil && a.JWT:
		who, err = jwtCaller(by.JWT)
	case by != nil && by.IAM != nil && a.IAM:
		who, err = a.iamCaller(by.IAM)
	case a.Keys:
		return who, false, nil
	default:
		err = refuse(adminapi.CodeUnauthorized, "nobody vouches for the caller: the route has none of the authorizers that the settings name")
	}
	return who, err == nil, err
}

// longest is what is kept of a caller's name.
const longest = 256

// jwtCaller reads the claims of a token that the authorizer has verified.
func jwtCaller(j *events.APIGatewayV2HTTPRequestContextAuthorizerJWTDescription) (adminapi.Caller, error) {
	subject := j.Claims["sub"]
	if subject == "" {
		subject = j.Claims["client_id"]
	}
	if subject == "" {
		return adminapi.Caller{}, refuse(adminapi.CodeForbidden, "the token says not whose it is: it has neither sub nor client_id")
	}
	who := adminapi.Caller{Name: "jwt:" + named(subject)}
	scoped := adminapi.Role(0)
	for _, scope := range append(strings.Fields(j.Claims["scope"]), j.Scopes...) {
		if name, ours := strings.CutPrefix(scope, "holdfast/"); ours {
			if r, err := adminapi.ParseRole(name); err == nil {
				scoped = max(scoped, r)
			}
		}
	}
	claim, claims := j.Claims["holdfast_role"]
	switch role, err := adminapi.ParseRole(claim); {
	case !claims:
		who.Role = scoped
	case err != nil: // a role that is none is no role
	case scoped > 0:
		who.Role = min(role, scoped)
	default:
		who.Role = role
	}
	if who.Role == 0 {
		return who, refuse(adminapi.CodeForbidden, "%s has no role here: give its tokens the claim holdfast_role or one of the scopes holdfast/viewer, holdfast/operator and holdfast/admin", who.Name)
	}
	return who, nil
}

// iamCaller finds the role of a caller who has signed the request.
func (a Auth) iamCaller(i *events.APIGatewayV2HTTPRequestContextAuthorizerIAMDescription) (adminapi.Caller, error) {
	who := adminapi.Caller{Name: named(i.UserARN)}
	if i.UserARN != "" {
		for _, r := range a.Roles {
			// Its * does not match a slash, so a role's name cannot run on into another's.
			if ok, err := path.Match(r.Pattern, i.UserARN); ok && err == nil {
				who.Role = r.Role
				return who, nil
			}
		}
	}
	return who, refuse(adminapi.CodeForbidden, "%s has no role here: HOLDFAST_IAM_ROLES gives one to an ARN", who.Name)
}

// named is a name that can stand in a log line and an audit.
func named(s string) string {
	s = strings.Map(func(c rune) rune {
		if c < ' ' || c == 0x7f {
			return -1
		}
		return c
	}, strings.ToValidUTF8(s, ""))
	if len(s) > longest {
		s = strings.ToValidUTF8(s[:longest], "") + "…"
	}
	return s
}
