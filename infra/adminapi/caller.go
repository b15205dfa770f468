package adminapi

import (
	"context"
	"fmt"
	"net/http"
)

// Caller is who sent a request, where somebody before the API has found that
// out: a gateway with an authorizer of its own.
type Caller struct {
	Name string // as the audit has it
	Role Role
}

type callerKey struct{}

// WithCaller has the API take a request as this caller's, whatever key it brings.
// A context cannot be sent: only code in this process can vouch for somebody.
func WithCaller(ctx context.Context, c Caller) context.Context {
	return context.WithValue(ctx, callerKey{}, c)
}

// known is whoever was vouched for.
func known(ctx context.Context) (principal, bool) {
	c, ok := ctx.Value(callerKey{}).(Caller)
	return principal{c.Name, c.Role}, ok
}

// ParseRole reads the name of a role.
func ParseRole(name string) (Role, error) {
	r, ok := roleNames[name]
	if !ok {
		return 0, fmt.Errorf("role %q: is none; use viewer, operator or admin", name)
	}
	return r, nil
}

// Refuse answers with a problem of one of the codes, for what serves the API and
// cannot let a request through to it.
func Refuse(w http.ResponseWriter, code Code, format string, args ...any) {
	writeProblem(w, problem(code, format, args...))
}

// LongestWait is the most that a request may ask to be held back for.
const LongestWait = longestWait
