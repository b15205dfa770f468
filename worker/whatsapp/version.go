package whatsapp

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"

	"go.mau.fi/whatsmeow/store"
)

// ErrVersion is returned when the newest version cannot be found out.
var ErrVersion = errors.New("the WhatsApp version could not be found out")

// maxPage bounds how much of the web page is read.
const maxPage = 8 << 20

// Version is the WhatsApp Web version that lines tell the server.
func (s *Service) Version() string {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.version.String()
}

// SetVersion puts a version such as "2.3000.1047769893" in force for all
// connections that begin from now on.
func (s *Service) SetVersion(version string) error {
	v, err := store.ParseVersion(version)
	if err != nil || v.IsZero() {
		return fmt.Errorf("%w: version %q: is not three numbers with dots", ErrConfig, version)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.version = v
	return nil
}

// LatestVersion reads the newest version from the service's web page, through
// the given proxy (empty: the service's own). It does not put it in force.
func (s *Service) LatestVersion(ctx context.Context, via string) (string, error) {
	resp, err := s.get(ctx, via)
	if err != nil {
		return "", fmt.Errorf("%w: %w", ErrVersion, err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return "", fmt.Errorf("%w: %s answered %d", ErrVersion, s.endpoint.web.Host, resp.StatusCode)
	}
	page, err := io.ReadAll(io.LimitReader(resp.Body, maxPage))
	if err != nil {
		return "", fmt.Errorf("%w: reading the page: %w", ErrVersion, err)
	}
	revision, ok := clientRevision(page)
	if !ok {
		return "", fmt.Errorf("%w: the page of %s does not name a client_revision", ErrVersion, s.endpoint.web.Host)
	}
	return store.WAVersionContainer{2, 3000, revision}.String(), nil
}

// clientRevision finds `"client_revision":N,` in a page.
func clientRevision(page []byte) (uint32, bool) {
	_, rest, found := bytes.Cut(page, []byte(`"client_revision":`))
	if !found {
		return 0, false
	}
	end := bytes.IndexFunc(rest, func(r rune) bool { return r < '0' || r > '9' })
	if end <= 0 {
		return 0, false
	}
	n, err := strconv.ParseUint(string(rest[:end]), 10, 32)
	return uint32(n), err == nil && n > 0
}

// Reachable tells whether the service's web host answers over HTTP at all,
// through the given proxy (empty: the service's own). Any answer counts.
func (s *Service) Reachable(ctx context.Context, via string) error {
	resp, err := s.get(ctx, via)
	if err != nil {
		return fmt.Errorf("%s is not reachable: %w", s.endpoint.web.Host, err)
	}
	return resp.Body.Close()
}
