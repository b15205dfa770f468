package adminapi

import (
	"context"
	"net/http"

	"github.com/danielgtaylor/huma/v2"
)

// Me is who a key belongs to.
type Me struct {
	Name string `json:"name" doc:"of the API key"`
	Role string `json:"role" enum:"viewer,operator,admin" doc:"what it may do; each includes those before it"`
}

// meRoutes tells clients who they are, so that they offer what they may do.
func (a *API) meRoutes() {
	route(a, Viewer, huma.Operation{OperationID: "get-me", Method: http.MethodGet, Path: "/api/me", Tags: []string{"Access"},
		Summary: "Show the name and the role of the key that is used"},
		func(ctx context.Context, _ *struct{}) (*struct{ Body Me }, error) {
			who := caller(ctx)
			return &struct{ Body Me }{Me{who.name, who.role.String()}}, nil
		})
}
