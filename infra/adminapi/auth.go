package adminapi

import (
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/hex"
	"fmt"
	"net/http"
	"strings"
)

// Role is what an API key may do. Each includes those before it.
type Role int

// The roles: viewers read, but neither QR texts nor pair codes; operators run
// sessions and send; admins also delete, and override protections.
const (
	Viewer Role = iota + 1
	Operator
	Admin
)

var roleNames = map[string]Role{"viewer": Viewer, "operator": Operator, "admin": Admin}

func (r Role) String() string {
	for name, role := range roleNames {
		if role == r {
			return name
		}
	}
	return "none"
}

// Key is an API key as it is configured: its hash, never itself.
type Key struct {
	Name string
	Role Role
	Hash [sha256.Size]byte
}

// HashKey is what stands in the settings for an API key: SHA-256, in hex.
func HashKey(secret string) string {
	sum := sha256.Sum256([]byte(secret))
	return hex.EncodeToString(sum[:])
}

// ParseKeys reads NAME:ROLE:SHA256HEX, separated by commas.
func ParseKeys(list string) ([]Key, error) {
	var keys []Key
	for _, entry := range strings.Split(list, ",") {
		if entry = strings.TrimSpace(entry); entry == "" {
			continue
		}
		parts := strings.Split(entry, ":")
		if len(parts) != 3 || parts[0] == "" {
			return nil, fmt.Errorf("API key %d of the list: is not NAME:ROLE:SHA256HEX; the hash is made with: printf %%s KEY | sha256sum", len(keys)+1)
		}
		role, ok := roleNames[parts[1]]
		if !ok {
			return nil, fmt.Errorf("API key %q: role %q: is none; use viewer, operator or admin", parts[0], parts[1])
		}
		k := Key{Name: parts[0], Role: role}
		hash, err := hex.DecodeString(parts[2])
		if err != nil || len(hash) != len(k.Hash) {
			return nil, fmt.Errorf("API key %q: what follows the role is not a SHA-256 in hex: 64 characters; make it with: printf %%s KEY | sha256sum", parts[0])
		}
		copy(k.Hash[:], hash)
		for _, other := range keys {
			if other.Name == k.Name {
				return nil, fmt.Errorf("API key %q: is there twice; give each a name of its own", k.Name)
			}
		}
		keys = append(keys, k)
	}
	return keys, nil
}

// principal is who a request comes from.
type principal struct {
	name string
	role Role
}

type principalKey struct{}

func withPrincipal(ctx context.Context, p principal) context.Context {
	return context.WithValue(ctx, principalKey{}, p)
}

// caller is who asks. The zero principal has no role.
func caller(ctx context.Context) principal {
	p, _ := ctx.Value(principalKey{}).(principal)
	return p
}

// authenticate finds the key of a request: X-Api-Key, or a bearer token. Every
// configured key is compared, whichever matches, so that the time taken tells
// nothing.
func authenticate(keys []Key, r *http.Request) (principal, bool) {
	presented := r.Header.Get("X-Api-Key")
	if presented == "" {
		scheme, token, _ := strings.Cut(r.Header.Get("Authorization"), " ")
		if strings.EqualFold(scheme, "bearer") {
			presented = strings.TrimSpace(token)
		}
	}
	hash := sha256.Sum256([]byte(presented))
	var found principal
	ok := false
	for _, k := range keys {
		if subtle.ConstantTimeCompare(hash[:], k.Hash[:]) == 1 {
			found, ok = principal{k.Name, k.Role}, true
		}
	}
	return found, ok && presented != ""
}
